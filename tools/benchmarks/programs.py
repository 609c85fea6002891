"""Programs that are measured in turns, each run in a process of its own.

A program is a script of `peers/` that takes a request, as JSON, and prints as
its last line what it found; see `peers/step_timing.py`.
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
import json
import os
import statistics
import subprocess
import sys
from typing import Any
from typing import NamedTuple

from benchmarks import harness

Found = dict[str, dict[str, list[dict[str, Any]]]]


class Program(NamedTuple):
  """One of those that are compared."""

  script: str  # peers/<script>.py
  variant: str = ""
  # Its environment is that of peers/<packages>.txt, if there is one: by
  # default of the same name as the script.
  packages: str | None = None

  @property
  def is_ours(self) -> bool:
    return self.script.endswith("_bert_tf")


def names_of(allowed: Mapping[str, Any]) -> Callable[[str], list[str]]:
  """The `type` of a flag that takes some of these, with commas."""

  def parse(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
      if name not in allowed:
        raise argparse.ArgumentTypeError(
            f"received {name!r}; must be of {', '.join(allowed)}")
    return names

  return parse


def python_of(program: Program, cache_dir: str) -> str:
  """The Python that runs a program; its packages are installed if need be."""
  name = program.packages or program.script
  path = os.path.join(harness.PEERS, f"{name}.txt")
  if not os.path.exists(path):
    return sys.executable
  return harness.peer_python(
      cache_dir, f"benchmark-{name.replace('_', '-', 1)}",
      harness.read_packages(path))


def run_one(
    python: str, program: Program, request: Mapping[str, Any]
) -> dict[str, Any]:
  """What one process found."""
  script = os.path.join(harness.PEERS, f"{program.script}.py")
  request = json.dumps({**request, "variant": program.variant})
  found = subprocess.run(
      [python, script, request], text=True, capture_output=True)
  if found.returncode:
    sys.exit(f"{script} failed:\n{found.stderr[-3000:]}")
  return harness.last_json(found.stdout)


def in_turns(
    programs: Mapping[str, Program], cases: Mapping[str, Mapping[str, Any]], *,
    rounds: int, cache_dir: str,
    check: Callable[[Program, dict], None] = lambda program, found: None,
    unit: str = "s a step"
) -> Found:
  """{case: {program: [what it found, a round each]}}.

  Args:
    programs: by their names.
    cases: {name: request}.
    rounds: in each of which every program runs once for each case.
    cache_dir: of their environments.
    check: ends the benchmark if what a program found cannot be.
    unit: of the `seconds` that it found.
  """
  pythons = {name: python_of(program, cache_dir)
             for name, program in programs.items()}
  found = {case: {name: [] for name in programs} for case in cases}
  for number in range(rounds):
    for case, request in cases.items():
      for name, program in programs.items():
        result = run_one(pythons[name], program, request)
        check(program, result)
        found[case][name].append(result)
        print(f"Round {number + 1}, {case}, {name}: "
              f"{statistics.median(result['seconds']):.4f} {unit}",
              file=sys.stderr, flush=True)
  return found


def compare(
    seconds: Mapping[str, list[float]], programs: Mapping[str, Program]
) -> dict[str, Any] | None:
  """Our fastest program against the fastest of the others.

  Args:
    seconds: {program: what it takes, a round each}.
    programs: what these names mean.

  Returns:
    `ours` and `peer` (programs, by their medians) and `ratio`, the median
    over rounds; None where one side is missing.
  """
  medians = {
    name: statistics.median(values) for name, values in seconds.items()}
  sides = [[name for name in medians if programs[name].is_ours == wanted]
           for wanted in (True, False)]
  if not all(sides):
    return None
  ours, peer = (min(names, key=medians.get) for names in sides)
  ratio = statistics.median(
      a / b for a, b in zip(seconds[ours], seconds[peer]))
  return {"ours": ours, "peer": peer, "ratio": ratio}
