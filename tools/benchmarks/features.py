"""Speed of feature extraction: texts a second, batches by length or padded.

Texts of SST-2 in batches of about the same length, as
`tools/extract_features.py` computes them, and with each text padded to 128, as
the original did. Both are ours, with the same weights, and take turns; the
results must be equal.
"""

import argparse
import os
import statistics
import time
from typing import Any

from benchmarks import harness
import numpy as np

BAR = 3.0
LARGEST_DIFFERENCE = 1e-5
LENGTH = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "--input_file",
      default=os.path.join(
          harness.SHARED, "data", "glue", "SST-2", "train.tsv"),
      help="Texts, a line each, or the column sentence of a .tsv file.")
  harness.add_init_checkpoint(parser)
  parser.add_argument(
      "--layers", default="-1,-2,-3,-4", help="Numbers, with commas.")
  parser.add_argument("--texts", type=int, default=600, help="How many.")
  parser.add_argument("--runs", type=int, default=5, help="Pairs of runs.")


def _read_texts(path: str, number: int) -> list[str]:
  from bert_tf.data import tables
  from bert_tf.data import text_files
  if path.endswith(".tsv"):
    return tables.read_columns(path, ["sentence"])["sentence"][:number]
  return [
    text for _, text in zip(range(number), text_files.read_lines(path))]


def _time(texts: list[str], **options: Any) -> tuple[float, np.ndarray]:
  """Texts a second, and the values of all."""
  from bert_tf import features
  start = time.perf_counter()
  values = np.concatenate([
    pool.values for pool in features.extract(texts, **options)])
  return len(texts) / (time.perf_counter() - start), values


def run(arguments: argparse.Namespace) -> harness.Report:
  # Here, since the other benchmarks set threads before TensorFlow starts.
  from bert_tf import checkpoints
  checkpoint = arguments.init_checkpoint or harness.pretrained_encoder()
  encoder = checkpoints.load_encoder(checkpoint)
  tokenizer = checkpoints.load_tokenizer(checkpoint)
  layers = [int(layer) for layer in arguments.layers.split(",")]
  texts = _read_texts(arguments.input_file, arguments.texts)
  labels = {False: "by length", True: f"all padded to {LENGTH}"}
  rates = {name: [] for name in labels.values()}
  for number in range(arguments.runs + 1):
    found = {}
    for is_padded, label in labels.items():
      rate, found[is_padded] = _time(
          texts, encoder=encoder, tokenizer=tokenizer, pooling="mean",
          layers=layers, max_seq_length=LENGTH, pad_to_max_length=is_padded)
      if number:  # The first is to warm up.
        rates[label].append(rate)
  difference = float(np.abs(found[False] - found[True]).max())
  ratio = statistics.median(a / b for a, b in zip(*rates.values()))
  return harness.Report(
      title="Features of texts",
      rows=harness.spread_rows("texts a second", rates, ",.1f"),
      notes=[
        f"{len(texts):,} texts, mean over the pieces of layers "
        f"{arguments.layers}; {arguments.runs} pairs of runs",
        f"by length {ratio:.2f} times as fast (at least {BAR})",
        f"largest difference of two values {difference:.1e} (at most "
        f"{LARGEST_DIFFERENCE:.0e})"],
      figures={
        "ratio": ratio, "bar": BAR, "difference": difference,
        "largest_difference": LARGEST_DIFFERENCE, "rates": rates})
