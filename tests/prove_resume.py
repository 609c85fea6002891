"""Shows that a run killed at random moments ends as one left alone.

  python tests/prove_resume.py

For each of some settings of the engine: trains undisturbed, then anew with
SIGKILL at random moments, the same command given again after each, and
compares weights, optimizer slots, metrics.jsonl and event files to the bit.

Says where each kill fell. Exits with 1 if anything differs. Takes 15 minutes
on two cores.
"""

import argparse
import os
import pathlib
import random
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import training_process
from training_process import Training

STEPS = 800
FLAGS = {
  "deterministic": True, "num_train_steps": STEPS, "do_eval": True,
  "eval_steps": 100, "max_eval_steps": 3, "save_checkpoints_steps": 3}
# The last one draws its masks anew.
SETTINGS = {
  "one device": {},
  "mirrored, compiled, bfloat16": {
    "devices": 2, "distribution_strategy": "mirrored", "jit_compile": True,
    "mixed_precision": "bfloat16"},
  "two workers": {"workers": 2},
  "micro-batches, float16, loops": {
    "gradient_accumulation_steps": 2, "mixed_precision": "float16",
    "iterations_per_loop": 4, "log_steps": 5},
}


def place_of(output_dir: pathlib.Path) -> str:
  """Where a process was when it was killed, by the files it left."""
  told = training_process.last_step(output_dir)
  saved = max(training_process.saved_steps(output_dir), default=0)
  if training_process.is_half_saved(output_dir):
    return f"in a save, after step {told}; the newest whole state is {saved}"
  return f"after step {told}; the newest state is {saved}"


def is_over(training: Training) -> bool:
  return all(process.poll() is not None for process in training.processes)


def disturbed_run(
    start, undisturbed: pathlib.Path, *, kills: int, rng: random.Random,
    seconds: float
) -> tuple[int, list[str]]:
  """Runs that are killed: (how many kills, in what the ends differ).

  A run that was over before its next kill is compared and begun anew.
  """
  done, found, number = 0, [], 0
  folder = lambda: undisturbed.with_name(f"killed-{number}")
  while done < kills:
    training = start(folder())
    end = time.monotonic() + rng.uniform(1, seconds)
    while time.monotonic() < end and not is_over(training):
      time.sleep(0.001)
    if is_over(training):
      found += training_process.differences(training.finish(), undisturbed)
      print("  over before the next kill; another run begins", flush=True)
      number += 1
      continue
    training.kill()
    done += 1
    print(f"  kill {done}: {place_of(folder())}", flush=True)
  run = start(folder()).finish()
  return done, found + training_process.differences(run, undisturbed)


def prove(
    name: str, folder: pathlib.Path, *, kills: int, rng: random.Random
) -> bool:
  """One of the settings: whether all is equal."""
  masking = "none" if "micro-batches" in name else "static"
  inputs = training_process.make_inputs(folder, dropout=0.1, masking=masking)
  start = lambda output_dir: Training(
      inputs, output_dir, **{**FLAGS, **SETTINGS[name]})
  print(f"{name}:", flush=True)
  began = time.monotonic()
  undisturbed = start(folder / "undisturbed").finish()
  seconds = time.monotonic() - began
  done, found = disturbed_run(
      start, undisturbed, kills=kills, rng=rng, seconds=seconds)
  values = training_process.values_of(undisturbed)
  print(
      f"  {done} kills, then to the end: "
      f"{len(values)} variables and slots, metrics.jsonl and event files "
      + (f"DIFFER in {', '.join(found)}" if found else "are equal to the bit"),
      flush=True)
  return not found


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--kills", type=int, default=10, help="In all.")
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument(
      "--folder", default=None, help="Where the files go meanwhile.")
  arguments = parser.parse_args()
  rng = random.Random(arguments.seed)
  are_equal = []
  with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
    for number, name in enumerate(SETTINGS):
      # The first settings get those that cannot be dealt out evenly.
      kills = (arguments.kills - number - 1) // len(SETTINGS) + 1
      are_equal.append(prove(
          name, pathlib.Path(folder) / str(number), kills=kills, rng=rng))
  verdict = "equal to the bit" if all(are_equal) else "NOT EQUAL"
  print(f"{arguments.kills} kills, {sum(are_equal)} of {len(are_equal)} "
        f"settings: {verdict}.")
  sys.exit(0 if all(are_equal) else 1)


if __name__ == "__main__":
  main()
