"""What the programs of the serving benchmark share: requests and the clock.

Needs numpy alone, since it runs in each peer's own environment.

  python serving_PEER.py '{"model": "models/base", "texts": "texts.json",
    "max_seq_length": 128, "variant": "", "warm_up": 3, "most_seconds": 10}'

`texts` is the file of a list of requests, a list of strings each. Prints a line
of JSON: seconds of each request, from strings to probabilities in Python, as
many as fit into `most_seconds`, five at least; processor seconds of one, the
answers to the first, and the version.
"""

from collections.abc import Callable
import json
import sys
import time
from typing import Any

import numpy as np

_LEAST = 5


def read_request() -> dict[str, Any]:
  return json.loads(sys.argv[1])


def softmax(logits: np.ndarray) -> np.ndarray:
  exps = np.exp(logits - logits.max(-1, keepdims=True))
  return exps / exps.sum(-1, keepdims=True)


def run(
    request: dict[str, Any], answer: Callable[[list[str]], Any], *, version: str
) -> None:
  """Times the answers of a program and prints what it found.

  Args:
    request: that of `read_request`.
    answer: texts [B] -> probabilities [B, C], on the CPU.
    version: of what is measured.
  """
  with open(request["texts"], encoding="utf-8") as file:
    requests = json.load(file)
  first = np.asarray(answer(requests[0])).tolist()
  # The first ones trace, compile and grow the memory.
  for texts in requests[:request["warm_up"]]:
    answer(texts)
  warm = time.perf_counter()
  seconds, cpu = [], time.process_time()  # of all threads
  for texts in requests:
    start = time.perf_counter()
    answer(texts)
    end = time.perf_counter()
    seconds.append(end - start)
    if len(seconds) >= _LEAST and end - warm > request["most_seconds"]:
      break
  print(json.dumps({
    "seconds": seconds, "answers": first, "version": version,
    "cpu_seconds": (time.process_time() - cpu) / len(seconds)}), flush=True)
