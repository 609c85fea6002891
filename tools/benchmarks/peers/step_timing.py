"""What the programs of the step benchmark share: what to do, and the clock.

Needs numpy alone, since it runs in each peer's own environment.

  python step_PEER.py '{"batch": "batch.npz", "precision": "bfloat16",
    "variant": "", "steps": 10, "warm_up": 3, "model": {...},
    "optimizer": {...}}'

Prints a line of JSON: seconds of each step, processor seconds of one, the
losses of all steps, those to warm up too, the most memory that the process
held, and versions.
"""

from collections.abc import Callable
import json
import resource
import sys
import time
from typing import Any

import numpy as np


def read_request() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What to do, and the batch: the columns of the records, int32."""
  request = json.loads(sys.argv[1])
  with np.load(request["batch"]) as arrays:
    return request, {name: arrays[name] for name in arrays.files}


def main(
    make_step: Callable, *, version: str,
    set_bfloat16: Callable[[], None] | None = None
) -> None:
  """The program of a peer.

  Args:
    make_step: (request, batch) -> (step of `run`, number of parameters).
    version: of what is measured.
    set_bfloat16: is called before, where bfloat16 is asked for; None: the
      step sees to it.
  """
  request, batch = read_request()
  if set_bfloat16 and request["precision"] == "bfloat16":
    set_bfloat16()
  step, parameters = make_step(request, batch)
  run(request, step, parameters=parameters, version=version)


def run(
    request: dict[str, Any], step: Callable[[], float], **about: Any
) -> None:
  """Times the steps of a program and prints what it found.

  Args:
    request: that of `read_request`.
    step: does one whole update and returns its loss, so it waits for it.
    **about: what else to say, such as versions.
  """
  start = time.perf_counter()
  # The first ones trace and compile, and grow the memory.
  losses = [float(step()) for _ in range(request["warm_up"])]
  start_seconds, seconds = time.perf_counter() - start, []
  cpu = time.process_time()  # of all threads
  for _ in range(request["steps"]):
    start = time.perf_counter()
    losses.append(float(step()))
    seconds.append(time.perf_counter() - start)
  cpu = (time.process_time() - cpu) / request["steps"]
  print(json.dumps({
    "seconds": seconds, "cpu_seconds": cpu, "losses": losses,
    "start_seconds": start_seconds,
    # Linux counts in KiB.
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    **about}), flush=True)
