"""Speed and memory of the data tool: text to masked examples in TFRecords.

Compared with plain Python in the original's way (one process, an object for
each piece), on a tenth of the documents. Runs are paired, one of each in turn,
and the ratio is the median over pairs. Ours is the whole program, from its
start to its end, less the time of the same command on two documents: what it
takes to start. Plain Python is timed without its start, and it is given
sentences, while ours finds them in paragraphs.
"""

import argparse
import glob
import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

from benchmarks import harness

BAR = 15.0  # times plain Python
MEMORY_BAR = 1500  # MiB, of all processes together
SETTINGS = {"max_seq_length": 128, "max_predictions_per_seq": 20,
            "dupe_factor": 10}
PACKAGES = [["--no-deps", "bert-tensorflow==1.0.1"], ["six"]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  harness.add_cache_dir(parser)
  harness.add_corpus(parser)
  harness.add_vocab_file(parser)
  parser.add_argument("--runs", type=int, default=3, help="Pairs of runs.")
  parser.add_argument("--num_workers", type=int, default=2)


def _ours(
    corpus: str, folder: str, arguments: argparse.Namespace
) -> dict[str, float]:
  """Seconds and peak memory of the program; its files are left behind."""
  shutil.rmtree(folder, ignore_errors=True)
  return harness.run_measured([
    sys.executable, os.path.join(
        harness.REPOSITORY, "tools", "create_pretraining_data.py"),
    f"--input_file={corpus}", "--sentence_splitter=rules", "--do_lower_case",
    f"--output_file={folder}/a.tfrecord,{folder}/b.tfrecord",
    f"--vocab_file={arguments.vocab_file}",
    f"--num_workers={arguments.num_workers}",
    *(f"--{name}={value}" for name, value in SETTINGS.items())])


def _plain(
    python_path: str, sentences: str, folder: str,
    arguments: argparse.Namespace
) -> dict[str, float]:
  output = subprocess.run(
      [sys.executable,
       os.path.join(harness.PEERS, "plain_pretraining_data.py"), sentences,
       arguments.vocab_file, os.path.join(folder, "plain.tfrecord"),
       *(str(SETTINGS[name]) for name in (
         "dupe_factor", "max_seq_length", "max_predictions_per_seq"))],
      env={**os.environ, "PYTHONPATH": python_path}, check=True, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
  return harness.last_json(output)


def _write_corpora(path: str, folder: str) -> tuple[str, str, str, int]:
  """The corpus unpacked; two documents of it; sentences of a tenth; bytes."""
  from bert_tf.data.sentences import split_sentences
  opened = gzip.open if path.endswith(".gz") else open
  with opened(path, "rt", encoding="utf-8", newline="\n") as file:
    documents = file.read().strip().split("\n\n")
  names = [os.path.join(folder, name) for name in (
    "all.txt", "two.txt", "sentences.txt")]
  tenth = ["\n".join(sentence for paragraph in document.split("\n")
                     for sentence in split_sentences(paragraph))
           for document in documents[::10]]
  for name, texts in zip(names, (documents, documents[:2], tenth)):
    with open(name, "w", encoding="utf-8") as file:
      file.write("\n\n".join(texts))
  return *names, os.path.getsize(names[0])


def run(arguments: argparse.Namespace) -> harness.Report:
  python = harness.peer_python(
      arguments.cache_dir, "benchmark-pretraining-data", PACKAGES)
  [python_path] = glob.glob(os.path.join(
      os.path.dirname(os.path.dirname(python)), "lib", "*", "site-packages"))
  ours, plain, ratios = [], [], []
  with tempfile.TemporaryDirectory() as folder:
    corpus, two, sentences, size = _write_corpora(arguments.corpus, folder)
    output = os.path.join(folder, "out")
    for number in range(arguments.runs + 1):
      start = _ours(two, output, arguments)
      whole = _ours(corpus, output, arguments)
      stats = harness.read_json(os.path.join(output, "stats.json"))
      if number == 0:  # to warm up
        continue
      seconds = whole["seconds"] - start["seconds"]
      ours.append({
        **whole, "start_seconds": start["seconds"],
        "rate": stats["instances"] / seconds, "mb": size / 1e6 / seconds})
      found = _plain(python_path, sentences, folder, arguments)
      plain.append({**found, "rate": found["instances"] / found["seconds"]})
      ratios.append(ours[-1]["rate"] / plain[-1]["rate"])
  median = lambda rows, key: statistics.median(row[key] for row in rows)
  ratio, peak = statistics.median(ratios), median(ours, "peak_mib")
  rows = harness.spread_rows("examples a second", {
    f"bert_tf, {arguments.num_workers} workers": [
      row["rate"] for row in ours],
    "plain Python, a tenth of the documents": [
      row["rate"] for row in plain]}, ",.0f")
  notes = [
    f"{stats['documents']:,} documents, {size / 1e6:.1f} MB, "
    f"{stats['instances']:,} examples of length "
    f"{SETTINGS['max_seq_length']}; {arguments.runs} paired runs",
    f"{ratio:.1f} times plain Python (at least {BAR})",
    f"{median(ours, 'seconds'):.1f} s in all, of which "
    f"{median(ours, 'start_seconds'):.1f} s to start; then "
    f"{median(ours, 'mb'):.1f} MB of text a second",
    f"peak memory {peak:,.0f} MiB, proportional set size of all processes (at "
    f"most {MEMORY_BAR:,})",
  ]
  return harness.Report(
      title="Making pretraining data", rows=rows, notes=notes,
      figures={"ratio": ratio, "bar": BAR, "ours": ours, "plain": plain,
               "instances": stats["instances"]})
