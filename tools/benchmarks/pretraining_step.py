"""Speed of a pretraining step: forward, backward, clipping, AdamW.

Compared with KerasHub, tf-models-official (Keras 2) and Transformers on
PyTorch, all with the same batch, sizes, dropout, losses (masked LM at the
masked positions, and next sentence) and schedule. In a round each program
runs once, in a process of its own; the ratio is that of our fastest to the
fastest of the others, the median over rounds.
"""

import argparse
import math
import os
import statistics
import sys
import tempfile

from benchmarks import harness
from benchmarks import programs
from benchmarks.programs import Program
import numpy as np

BARS = {"float32": 0.9, "bfloat16": 0.8}
BATCH, LENGTH, PREDICTIONS = 16, 128, 20
MODEL = {
  "vocab_size": 30522, "num_hidden_layers": 4, "hidden_size": 512,
  "num_attention_heads": 8, "intermediate_size": 2048, "dropout": 0.1,
  "max_position_embeddings": 512,
}
OPTIMIZER = {
  "epsilon": 1e-6, "weight_decay": 0.01, "clip_norm": 1.0,
  "schedule": {"learning_rate": 1e-4, "num_train_steps": 10000,
               "num_warmup_steps": 100},
}
WARM_UP = 3  # steps of each process


# Each in all the ways that its manual offers: which one is faster depends on
# the machine and on the precision.
PROGRAMS = {
  "bert_tf": Program("step_bert_tf"),
  "bert_tf --jit_compile": Program("step_bert_tf", "jit_compile"),
  "bert_tf --rematerialize": Program("step_bert_tf", "rematerialize"),
  "keras_hub": Program("step_keras_hub"),
  "keras_hub jit_compile": Program("step_keras_hub", "jit_compile"),
  "tf_models": Program("step_tf_models"),
  "tf_models jit_compile": Program("step_tf_models", "jit_compile"),
  "transformers": Program("step_transformers", packages="transformers"),
  "transformers compile": Program(
      "step_transformers", "compile", "transformers"),
  "products": Program("step_products"),
}
_PRODUCTS = "products"  # No step: what no step can be faster than.


def add_arguments(parser: argparse.ArgumentParser) -> None:
  harness.add_cache_dir(parser)
  parser.add_argument(
      "--rounds", type=int, default=3, help="Runs of each program.")
  parser.add_argument(
      "--steps", type=int, default=10, help="Steps of a run that are timed.")
  parser.add_argument(
      "--precisions", type=programs.names_of(BARS), default=list(BARS),
      help=f"Of {', '.join(BARS)}; all if not given.")
  parser.add_argument(
      "--skip", type=programs.names_of(PROGRAMS), default=[],
      help=f"What to leave out of {', '.join(PROGRAMS)}.")


def make_batch() -> dict[str, np.ndarray]:
  """Random pieces; every row is full, and so are its predictions."""
  rng = np.random.default_rng(0)
  positions = np.stack([
    np.sort(rng.choice(np.arange(1, LENGTH - 1), PREDICTIONS, replace=False))
    for _ in range(BATCH)])
  is_second = np.arange(LENGTH) >= LENGTH // 2
  ids = lambda width: rng.integers(
      1000, MODEL["vocab_size"], [BATCH, width], dtype=np.int32)
  return {
    "input_ids": ids(LENGTH),
    "input_mask": np.ones([BATCH, LENGTH], np.int32),
    "segment_ids": np.tile(is_second.astype(np.int32), [BATCH, 1]),
    "masked_lm_positions": positions.astype(np.int32),
    "masked_lm_ids": ids(PREDICTIONS),
    "masked_lm_weights": np.ones([BATCH, PREDICTIONS], np.float32),
    "next_sentence_labels": rng.integers(0, 2, [BATCH], dtype=np.int32),
  }


def check_first_loss(peer: str, loss: float) -> None:
  """A model that knows nothing yet: else it is not the same task."""
  expected = math.log(MODEL["vocab_size"]) + math.log(2)
  if abs(loss - expected) > 0.5:
    sys.exit(f"{peer}: its first loss is {loss}, not about {expected:.2f}.")


def _check(program: Program, found: dict) -> None:
  if program.script != PROGRAMS[_PRODUCTS].script:
    check_first_loss(program.script, found["losses"][0])


def _measure(arguments: argparse.Namespace) -> programs.Found:
  """By precision."""
  with tempfile.TemporaryDirectory() as folder:
    batch = os.path.join(folder, "batch.npz")
    np.savez(batch, **make_batch())
    return programs.in_turns(
        {name: program for name, program in PROGRAMS.items()
         if name not in arguments.skip},
        {precision: {
          "batch": batch, "precision": precision, "model": MODEL,
          "optimizer": OPTIMIZER, "steps": arguments.steps,
          "warm_up": WARM_UP} for precision in arguments.precisions},
        rounds=arguments.rounds, cache_dir=arguments.cache_dir, check=_check)


def _rows(found: dict[str, dict[str, list]]) -> list[tuple[str, ...]]:
  rows = [("seconds a step", "precision", "median", "least", "greatest",
           "processor", "to start", "peak MiB")]
  for precision, runs in found.items():
    for name, results in runs.items():
      medians = [statistics.median(run["seconds"]) for run in results]
      about = [statistics.median(run[key] for run in results)
               for key in ("cpu_seconds", "start_seconds", "peak_bytes")]
      rows.append((
        f"{name} ({results[0]['version']})", precision,
        *(f"{of(medians):.3f}" for of in (statistics.median, min, max)),
        f"{about[0]:.2f}", f"{about[1]:.0f}", f"{about[2] / 2**20:,.0f}"))
  return rows


def run(arguments: argparse.Namespace) -> harness.Report:
  found = _measure(arguments)
  notes = [
    f"{MODEL['num_hidden_layers']} layers, {MODEL['hidden_size']} hidden, "
    f"length {LENGTH}, batch {BATCH}, {PREDICTIONS} predictions; "
    f"{arguments.rounds} rounds, median of {arguments.steps} steps each",
    "processor: of all threads together, waiting in a loop counts too; to "
    f"start: the first {WARM_UP} steps",
  ]
  ratios = {}
  for precision, runs in found.items():
    seconds = {
      name: [statistics.median(result["seconds"]) for result in results]
      for name, results in runs.items()}
    if compared := programs.compare({
        name: values for name, values in seconds.items()
        if name != _PRODUCTS}, PROGRAMS):
      ratios[precision] = compared
      notes.append(
          f"{precision}: {compared['ours']} takes {compared['ratio']:.2f} "
          f"times {compared['peer']} (at most {BARS[precision]})")
    if products := runs.get(_PRODUCTS):
      rate = products[0]["flops"] / statistics.median(seconds[_PRODUCTS])
      notes.append(
          f"{precision}: the matrix products of a step are "
          f"{products[0]['flops'] / 1e9:.0f} GFLOP; alone they run at "
          f"{rate / 1e9:.0f} GFLOP/s")
  return harness.Report(
      title="A pretraining step", rows=_rows(found), notes=notes,
      figures={"ratios": ratios, "bars": BARS, "found": found})
