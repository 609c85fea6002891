"""Shows that the data tool is bounded in memory and survives kills.

  python tests/prove_pretraining_data.py

1. Memory: makes a corpus of --gigabytes by repeating the books, their
   documents shuffled each time, runs the tool on it and samples the memory of
   all its processes (proportional set size).
2. Kills: runs the tool on the books and kills its main process at --kills
   random moments, giving the same command again each time; then compares every
   file with those of a run that nobody disturbed.

Exits with 1 if the memory exceeds --most_mib or a byte differs. Takes about
half an hour and 20 GB of disk.
"""

import argparse
import filecmp
import gzip
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(REPOSITORY, "tools"))
from benchmarks import harness


def command(arguments: argparse.Namespace, corpus: str, output: str, *flags):
  return [
    sys.executable,
    os.path.join(REPOSITORY, "tools", "create_pretraining_data.py"),
    f"--input_file={corpus}", f"--output_file={output}",
    f"--vocab_file={arguments.vocab_file}", "--sentence_splitter=rules",
    f"--num_workers={arguments.num_workers}", *flags]


def write_large_corpus(source: str, path: str, gigabytes: float) -> None:
  """Copies of all documents, in another order each time."""
  with gzip.open(source, "rt", encoding="utf-8", newline="\n") as file:
    documents = file.read().strip().split("\n\n")
  rng = random.Random(1)
  with open(path, "w", encoding="utf-8") as file:
    while file.tell() < gigabytes * 1e9:
      rng.shuffle(documents)
      file.writelines(document + "\n\n" for document in documents)


def prove_memory(arguments: argparse.Namespace, folder: str) -> bool:
  corpus = os.path.join(folder, "large.txt")
  write_large_corpus(arguments.corpus, corpus, arguments.gigabytes)
  output = os.path.join(folder, "large", "a.tfrecord")
  found = harness.run_measured(command(
      arguments, corpus, output, "--dupe_factor=2"))
  stats = harness.read_json(os.path.join(folder, "large", "stats.json"))
  print(f"{os.path.getsize(corpus) / 1e9:.2f} GB of text, "
        f"{stats['documents']:,} documents, {stats['instances']:,} examples "
        f"in {len(stats['files'])} files of {stats['bytes'] / 1e9:.1f} GB; "
        f"random next {stats['random_next_share']:.3f}; "
        f"{found['seconds']:,.0f} s, peak memory {found['peak_mib']:,.0f} MiB "
        f"(at most {arguments.most_mib:,}).", flush=True)
  return found["peak_mib"] <= arguments.most_mib


def end_after(process: subprocess.Popen, seconds: float | None) -> bool:
  """Waits, or kills: whether the process ended by itself."""
  try:
    _, errors = process.communicate(timeout=seconds)
  except subprocess.TimeoutExpired:
    process.kill()
    process.communicate()
    return False
  if process.returncode:
    sys.exit(f"The tool failed:\n{errors[-3000:]}")
  return True


def are_equal(one: str, other: str) -> bool:
  """Whether two folders hold the same files, `stats.json` apart."""
  names, others = (
    set(os.listdir(folder)) - {"stats.json"} for folder in (one, other))
  _, different, missing = filecmp.cmpfiles(one, other, names, shallow=False)
  print(f"finished: {len(names)} files, {len(different)} differ, "
        f"{len(missing) + len(others ^ names)} are missing or too many",
        flush=True)
  return not different and others == names


def prove_kills(arguments: argparse.Namespace, folder: str) -> bool:
  """Sets of files one after the other, until there were enough kills."""
  undisturbed, killed = (
    os.path.join(folder, name) for name in ("undisturbed", "killed"))
  start = lambda folder: subprocess.Popen(
      command(arguments, arguments.corpus, os.path.join(folder, "a.tfrecord"),
              "--num_files=8"), stderr=subprocess.PIPE, text=True)
  began = time.monotonic()
  end_after(start(undisturbed), None)
  seconds = time.monotonic() - began
  rng = random.Random(arguments.seed)
  kills, is_good = 0, True
  while kills < arguments.kills:
    if end_after(start(killed), 1 + rng.random() * seconds * 0.9):
      is_good &= are_equal(undisturbed, killed)
      shutil.rmtree(killed)
      continue
    kills += 1
    there = [name for name in os.listdir(killed) if name.endswith("-of-00008")]
    print(f"kill {kills}: {len(there)} files are there", flush=True)
  end_after(start(killed), None)
  return are_equal(undisturbed, killed) and is_good


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
      "--corpus", default=os.path.join(
          harness.SHARED, "data", "corpora", "books_en.txt.gz"),
      help="Text in gzip, a paragraph a line, blank lines between documents.")
  parser.add_argument("--vocab_file", default=os.path.join(
      harness.SHARED, "data", "vocabularies", "bert-base-uncased-vocab.txt"))
  parser.add_argument("--gigabytes", type=float, default=2.0)
  parser.add_argument("--most_mib", type=int, default=1500)
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--num_workers", type=int, default=2)
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument(
      "--folder", default=None, help="Where the files go meanwhile.")
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
    is_good = [prove_kills(arguments, folder), prove_memory(arguments, folder)]
  sys.exit(0 if all(is_good) else 1)


if __name__ == "__main__":
  main()
