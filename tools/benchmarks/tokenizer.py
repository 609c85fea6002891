"""Speed of the tokenizer: pieces a second, from a list of strings to ids.

Compared with `encode_batch_fast` of Hugging Face's `tokenizers`, with two
threads like ours, and with the original in Python, on a part of the texts.
Runs are paired: one of each, in turn, and the ratio is the median over pairs.
"""

import argparse
from collections.abc import Callable
from concurrent import futures
import json
import os
import statistics
import tempfile
import time

from benchmarks import harness

THREADS = 2
# Characters, about: enough to lose no time between chunks, few for a cache.
CHUNK = 1 << 19
BARS = {"tokenizers": 2.5, "original": 15.0, "offsets": 2.0}
PACKAGES = [["tokenizers"], ["--no-deps", "bert-tensorflow==1.0.1"], ["six"]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  harness.add_cache_dir(parser)
  harness.add_corpus(parser)
  harness.add_vocab_file(parser)
  parser.add_argument(
      "--runs", type=int, default=5, help="Pairs of runs.")


def _chunks(texts: list[str]) -> list[list[str]]:
  chunks, size = [[]], 0
  for text in texts:
    chunks[-1].append(text)
    size += len(text)
    if size >= CHUNK:
      chunks.append([])
      size = 0
  return [chunk for chunk in chunks if chunk]


class _Ours:
  """The tokenizer on chunks of the texts, in two threads."""

  def __init__(self, vocab_file: str):
    # Here, since threads must be set before TensorFlow starts.
    import tensorflow as tf
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    from bert_tf.tokenization import BertTokenizer
    self.version = tf.__version__
    self._tokenizer = BertTokenizer.from_file(vocab_file, do_lower_case=True)
    self._threads = futures.ThreadPoolExecutor(THREADS)

  def encode(self, texts: list[str]) -> dict[str, float]:
    return self._time(
        lambda chunk: self._tokenizer.tokenize(chunk).flat_values, texts)

  def encode_with_offsets(self, texts: list[str]) -> dict[str, float]:
    return self._time(
        lambda chunk: self._tokenizer.tokenize_with_offsets(
            chunk)[0].flat_values, texts)

  def _time(self, function: Callable, texts: list[str]) -> dict[str, float]:
    start = time.perf_counter()
    found = list(self._threads.map(function, _chunks(texts)))
    seconds = time.perf_counter() - start
    return {
      "seconds": seconds, "pieces": sum(ids.shape[0] for ids in found)}


def _measure(arguments: argparse.Namespace, texts: list[str]) -> dict:
  """{name: rates in pieces a second, a run each}, and versions."""
  python = harness.peer_python(
      arguments.cache_dir, "benchmark-tokenizer", PACKAGES)
  few = texts[::10]  # of all books; the original takes long
  ours = _Ours(arguments.vocab_file)
  peers = {
    "tokenizers": harness.Peer(
        python, "huggingface_tokenizers.py", TOKENIZERS_PARALLELISM="true",
        RAYON_NUM_THREADS=str(THREADS)),
    "original": harness.Peer(python, "original_tokenizer.py"),
  }
  with tempfile.TemporaryDirectory() as folder:
    for name, peer in peers.items():
      path = os.path.join(folder, name)
      with open(path, "w", encoding="utf-8") as file:
        json.dump(few if name == "original" else texts, file)
      answer = peer.ask(
          do="load", vocab_file=os.path.abspath(arguments.vocab_file),
          do_lower_case=True, texts=path)
      if "version" in answer:
        version = answer["version"]
  runs = {
    "ours": lambda: ours.encode(texts),
    "tokenizers": lambda: peers["tokenizers"].ask(do="encode"),
    "offsets": lambda: ours.encode_with_offsets(texts),
    "original": lambda: peers["original"].ask(do="encode"),
  }
  rates = {name: [] for name in runs}
  for number in range(arguments.runs + 1):
    for name, run in runs.items():
      # The first is to warm up; the original needs none.
      if number == 0 and name == "original":
        continue
      answer = run()
      if number:
        rates[name].append(answer["pieces"] / answer["seconds"])
      if name == "ours":
        pieces = answer["pieces"]
  for peer in peers.values():
    peer.close()
  return {"rates": rates, "pieces": pieces, "tokenizers": version,
          "tensorflow": ours.version}


def run(arguments: argparse.Namespace) -> harness.Report:
  texts = harness.read_paragraphs(arguments.corpus)
  found = _measure(arguments, texts)
  rates = found["rates"]
  ratio = lambda one, other: statistics.median(
      a / b for a, b in zip(rates[one], rates[other]))
  ratios = {
    "tokenizers": ratio("ours", "tokenizers"),
    "original": ratio("ours", "original"),
    "offsets": ratio("ours", "offsets"),
  }
  labels = {
    "ours": f"bert_tf, TensorFlow {found['tensorflow']}, {THREADS} threads",
    "offsets": "bert_tf with offsets",
    "tokenizers": f"tokenizers {found['tokenizers']} encode_batch_fast, "
                  f"{THREADS} threads",
    "original": "the original in Python, a tenth of the texts",
  }
  rows = harness.spread_rows("M pieces a second", {
    label: [rate / 1e6 for rate in rates[name]]
    for name, label in labels.items()}, ".2f")
  notes = [
    f"{len(texts):,} paragraphs, {found['pieces']:,} pieces; median of "
    f"{arguments.runs} paired runs",
    f"{ratios['tokenizers']:.2f} times tokenizers (at least "
    f"{BARS['tokenizers']})",
    f"{ratios['original']:.1f} times the original (at least "
    f"{BARS['original']})",
    f"offsets cost a factor {ratios['offsets']:.2f} (at most "
    f"{BARS['offsets']})",
  ]
  return harness.Report(
      title="Tokenizing", rows=rows, notes=notes,
      figures={"ratios": ratios, "bars": BARS, "rates": rates,
               "pieces": found["pieces"]})
