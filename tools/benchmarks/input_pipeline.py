"""Speed of the input of training: records a second and core, from the files.

`training_batches`, as `run_pretraining.py` reads: files, order, parsing,
batching; of masked records, and of records that get their masks here. Runs
are interleaved, and a core's second is one of processor time, so that other
programs on the machine count little.
"""

import argparse
import functools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import harness

BAR = 20000  # records a second and core, masked before
BATCH_SIZES = (32, 256)
LENGTH, PREDICTIONS = 128, 20
# How each kind of records is made, and what to call it.
KINDS = {"static": "masked before", "dynamic": "masked here"}
WARM_UP = 10  # batches


def add_arguments(parser: argparse.ArgumentParser) -> None:
  harness.add_corpus(parser)
  harness.add_vocab_file(parser)
  parser.add_argument(
      "--input_file",
      help="TFRecord files, as names or globs, with commas. Not given: they "
           "are made from --corpus, with masks and without.")
  parser.add_argument("--runs", type=int, default=5, help="Of each kind.")
  parser.add_argument(
      "--records", type=int, default=50000, help="Read in each run.")


def _make_records(
    arguments: argparse.Namespace, folder: str, kind: str
) -> str:
  """Writes the records of the corpus; their pattern."""
  subprocess.run(
      [sys.executable, os.path.join(
          harness.REPOSITORY, "tools", "create_pretraining_data.py"),
       f"--input_file={arguments.corpus}", "--sentence_splitter=rules",
       f"--output_file={folder}/{kind}/a.tfrecord,{folder}/{kind}/b.tfrecord",
       f"--vocab_file={arguments.vocab_file}", "--do_lower_case",
       f"--max_seq_length={LENGTH}", "--dupe_factor=1", "--num_workers=2",
       f"--max_predictions_per_seq={PREDICTIONS}",
       *(["--masking=none"] if kind == "dynamic" else [])],
      check=True, stderr=subprocess.DEVNULL)
  return f"{folder}/{kind}/*.tfrecord"


def make_batches(pattern: str, *, vocab_file: str, batch_size: int) -> Any:
  """The dataset of a training on these files, masked here if need be."""
  from bert_tf.data import dynamic_masking
  from bert_tf.data import input_pipeline
  from bert_tf.data import records
  from bert_tf.data.text_files import expand_files
  from bert_tf.tokenization import BertTokenizer
  files = expand_files(pattern.split(","))
  layout, mask = records.read_layout(files[0]), None
  if not layout.max_predictions_per_seq:
    tokenizer = BertTokenizer.from_file(vocab_file, do_lower_case=True)
    mask = functools.partial(
        dynamic_masking.mask_batch,
        special_ids=(tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id),
        mask_id=tokenizer.mask_id, vocab_size=tokenizer.vocab_size,
        masked_lm_prob=0.15, max_predictions_per_seq=PREDICTIONS)
  return input_pipeline.training_batches(
      files, layout=layout, batch_size=batch_size, seed=1, mask=mask)


def kind_of(pattern: str) -> str:
  """Which of `KINDS` the records of some files are."""
  from bert_tf.data import records
  from bert_tf.data.text_files import expand_files
  layout = records.read_layout(expand_files(pattern.split(","))[0])
  return "static" if layout.max_predictions_per_seq else "dynamic"


def _processor_seconds() -> float:
  usage = resource.getrusage(resource.RUSAGE_SELF)
  return usage.ru_utime + usage.ru_stime


def measure(batches: Any, *, batch_size: int, count: int) -> dict[str, float]:
  """Reads about `count` records: how many a second, and a second and core."""
  iterator = iter(batches)
  for _ in range(WARM_UP):
    next(iterator)
  start, processor = time.perf_counter(), _processor_seconds()
  number = max(1, count // batch_size)
  for _ in range(number):
    next(iterator)
  processor = _processor_seconds() - processor
  seconds = time.perf_counter() - start
  read = number * batch_size
  return {"rate": read / seconds, "rate_per_core": read / processor}


def _measure_all(
    arguments: argparse.Namespace, patterns: dict[str, str]
) -> dict[tuple[str, int], list[dict[str, float]]]:
  """{(kind, batch size): what `measure` found, a run each}."""
  datasets = {
    (kind, size): make_batches(
        pattern, vocab_file=arguments.vocab_file, batch_size=size)
    for kind, pattern in patterns.items() for size in BATCH_SIZES}
  found = {key: [] for key in datasets}
  for number in range(arguments.runs + 1):
    for key, batches in datasets.items():
      result = measure(batches, batch_size=key[1], count=arguments.records)
      if number:  # The first is to warm up.
        found[key].append(result)
  return found


def run(arguments: argparse.Namespace) -> harness.Report:
  with tempfile.TemporaryDirectory() as folder:
    if arguments.input_file:
      patterns = {kind_of(arguments.input_file): arguments.input_file}
    else:
      patterns = {
        kind: _make_records(arguments, folder, kind) for kind in KINDS}
    found = _measure_all(arguments, patterns)
  labels = {
    (kind, size): f"{KINDS[kind]}, batches of {size}" for kind, size in found}
  median = lambda results, name: statistics.median(
      result[name] for result in results)
  rows = harness.spread_rows("records a second and core", {
    labels[key]: [result["rate_per_core"] for result in results]
    for key, results in found.items()}, ",.0f")
  notes = [
    f"{arguments.runs} runs of {arguments.records:,} records each",
    *(f"{labels[key]}: {median(results, 'rate'):,.0f} records a second"
      for key, results in found.items()),
    f"at least {BAR:,} a second and core of those {KINDS['static']}",
  ]
  return harness.Report(
      title="The input of training", rows=rows, notes=notes,
      figures={"bar": BAR, "found": {
        labels[key]: results for key, results in found.items()}})
