"""Speed of a pretraining step: forward, backward, clipping, AdamW.

Compared with KerasHub, tf-models-official (Keras 2) and Transformers on
PyTorch, all with the same batch, sizes, dropout, losses (masked LM at the
masked positions, and next sentence) and schedule. In a round each program
runs once, in a process of its own; the ratio is that of our fastest to the
fastest of the others, the median over rounds.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from typing import NamedTuple

from benchmarks import harness
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


class Program(NamedTuple):
  """One of those that are compared."""

  peer: str  # peers/step_<peer>.py, and .txt of its packages if it has any
  variant: str = ""


# Each in all the ways that its manual offers: which one is faster depends on
# the machine and on the precision.
PROGRAMS = {
  "bert_tf": Program("bert_tf"),
  "bert_tf --jit_compile": Program("bert_tf", "jit_compile"),
  "bert_tf --rematerialize": Program("bert_tf", "rematerialize"),
  "keras_hub": Program("keras_hub"),
  "keras_hub jit_compile": Program("keras_hub", "jit_compile"),
  "tf_models": Program("tf_models"),
  "tf_models jit_compile": Program("tf_models", "jit_compile"),
  "transformers": Program("transformers"),
  "transformers compile": Program("transformers", "compile"),
  "products": Program("products"),
}
_OURS = "bert_tf"
_PRODUCTS = "products"  # No step: what no step can be faster than.


def _names(allowed):
  def parse(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
      if name not in allowed:
        raise argparse.ArgumentTypeError(
            f"received {name!r}; must be of {', '.join(allowed)}")
    return names
  return parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
  harness.add_cache_dir(parser)
  parser.add_argument(
      "--rounds", type=int, default=3, help="Runs of each program.")
  parser.add_argument(
      "--steps", type=int, default=10, help="Steps of a run that are timed.")
  parser.add_argument(
      "--precisions", type=_names(BARS), default=list(BARS),
      help=f"Of {', '.join(BARS)}; all if not given.")
  parser.add_argument(
      "--skip", type=_names(PROGRAMS), default=[],
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


def _python_of(program: Program, cache_dir: str) -> str:
  packages = os.path.join(harness.PEERS, f"step_{program.peer}.txt")
  if not os.path.exists(packages):
    return sys.executable
  return harness.peer_python(
      cache_dir, f"benchmark-step-{program.peer}",
      harness.read_packages(packages))


def _run(python: str, program: Program, request: dict) -> dict:
  """What one process found."""
  script = os.path.join(harness.PEERS, f"step_{program.peer}.py")
  request = {**request, "variant": program.variant}
  found = subprocess.run(
      [python, script, json.dumps(request)], text=True, capture_output=True)
  if found.returncode:
    sys.exit(f"{script} failed:\n{found.stderr[-3000:]}")
  found = harness.last_json(found.stdout)
  if program.peer != _PRODUCTS:
    check_first_loss(program.peer, found["losses"][0])
  return found


def check_first_loss(peer: str, loss: float) -> None:
  """A model that knows nothing yet: else it is not the same task."""
  expected = math.log(MODEL["vocab_size"]) + math.log(2)
  if abs(loss - expected) > 0.5:
    sys.exit(f"{peer}: its first loss is {loss}, not about {expected:.2f}.")


def _measure(arguments: argparse.Namespace) -> dict[str, dict[str, list]]:
  """{precision: {program: [what it found, a round each]}}."""
  programs = {name: program for name, program in PROGRAMS.items()
              if name not in arguments.skip}
  pythons = {name: _python_of(program, arguments.cache_dir)
             for name, program in programs.items()}
  found = {precision: {name: [] for name in programs}
           for precision in arguments.precisions}
  with tempfile.TemporaryDirectory() as folder:
    batch = os.path.join(folder, "batch.npz")
    np.savez(batch, **make_batch())
    for number in range(arguments.rounds):
      for precision, runs in found.items():
        for name, program in programs.items():
          result = _run(pythons[name], program, {
            "batch": batch, "precision": precision, "model": MODEL,
            "optimizer": OPTIMIZER, "steps": arguments.steps,
            "warm_up": WARM_UP})
          runs[name].append(result)
          print(f"Round {number + 1}, {precision}, {name}: "
                f"{statistics.median(result['seconds']):.3f} s a step",
                file=sys.stderr, flush=True)
  return found


def compare(seconds: dict[str, list[float]]) -> dict | None:
  """Our fastest program against the fastest of the others.

  Args:
    seconds: {program: seconds of a step, a round each}.

  Returns:
    `ours` and `peer` (programs, by their medians) and `ratio`, the median
    over rounds; None where one side is missing.
  """
  medians = {name: statistics.median(values)
             for name, values in seconds.items() if name != _PRODUCTS}
  is_ours = lambda name: PROGRAMS[name].peer == _OURS
  sides = [[name for name in medians if is_ours(name) == wanted]
           for wanted in (True, False)]
  if not all(sides):
    return None
  ours, peer = (min(names, key=medians.get) for names in sides)
  ratio = statistics.median(
      a / b for a, b in zip(seconds[ours], seconds[peer]))
  return {"ours": ours, "peer": peer, "ratio": ratio}


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
    if compared := compare(seconds):
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
