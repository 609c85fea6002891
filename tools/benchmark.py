"""Measures this library against others, on this machine.

  python tools/benchmark.py tokenizer
  python tools/benchmark.py pretraining_data
  python tools/benchmark.py pretraining_step --cache_dir=environments
  python tools/benchmark.py features
  python tools/benchmark.py finetuning
  python tools/benchmark.py serving
  python tools/benchmark.py vocabulary --help

A benchmark prints a table for people and, as its last line, one of JSON. The
programs that it compares with are installed into an environment of their own
under --cache_dir, the first time.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import features
from benchmarks import finetuning
from benchmarks import harness
from benchmarks import input_pipeline
from benchmarks import pretraining_data
from benchmarks import pretraining_step
from benchmarks import serving
from benchmarks import tokenizer
from benchmarks import vocabulary

from bert_tf.errors import InputError

# Each has `add_arguments(parser)` and `run(arguments) -> harness.Report`.
BENCHMARKS = {
  "features": features,
  "finetuning": finetuning,
  "input_pipeline": input_pipeline,
  "pretraining_data": pretraining_data,
  "pretraining_step": pretraining_step,
  "serving": serving,
  "tokenizer": tokenizer,
  "vocabulary": vocabulary,
}


def main(command_line: list[str]) -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(
      dest="benchmark", required=True, metavar="|".join(BENCHMARKS))
  for name, module in BENCHMARKS.items():
    command = commands.add_parser(
        name, description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(command)
  arguments = parser.parse_args(command_line)
  try:
    report = BENCHMARKS[arguments.benchmark].run(arguments)
  except InputError as error:
    sys.exit(f"benchmark.py: error: {error}")
  machine = harness.machine()
  print(harness.table(report, machine))
  print(json.dumps({
    "benchmark": arguments.benchmark, **report.figures, "machine": machine}))


if __name__ == "__main__":
  main(sys.argv[1:])
