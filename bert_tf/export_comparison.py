"""What another precision does to an export: its size, its answers, its time.

Beside the export stands the same model in float32, in the same process: both
answer the same rows, and the same requests in turns.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import statistics
import time
from typing import Any

from absl import logging
import keras
import tensorflow as tf

from bert_tf import finetuning
from bert_tf import serving_files
from bert_tf.config import require
from bert_tf.finetuning import Columns
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.servable import trained_weights
from bert_tf.task_descriptions import kind_of
from bert_tf.tokenization import BertTokenizer

# Rows of the requests that are timed; of each so many, or what fits into a
# time, in seconds.
_SIZES = (1, 32)
_REQUESTS = 50
_SECONDS = 10.0
# The signature that is asked.
_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
  """A model, what is exported of it, and the names of untrained variables."""

  model: keras.Model
  signatures: Mapping[str, Callable]
  untrained: Sequence[str] = ()

  @property
  def num_bytes(self) -> int:
    """Of the weights."""
    weights = trained_weights(self.model, untrained=self.untrained)
    return sum(
        v.value.dtype.size * v.value.shape.num_elements()
        for v in weights.values())


def dev_outputs(
    config: FinetuningConfig, tasks: Mapping[str, Task],
    description: dict[str, Any] | None, tokenizer: BertTokenizer, *,
    model: keras.Model
) -> finetuning.Outputs:
  """The dev rows that a config names, for a model.

  Args:
    config: of run_finetuning.py, which may leave the task to the model.
    tasks: all of them, by name.
    description: of the fine-tuned model; None of a pretrained one.
    tokenizer: that of the model.
    model: with the head of the task.

  Raises:
    InputError: the rows are not there, or are of another task.
  """
  require(
      description is not None,
      "--eval_flags: there are no dev rows for a pretrained model, which has "
      "no task. Leave them out, or export a fine-tuned model.")
  require(
      not (config.do_train or config.do_predict),
      "--eval_flags: received --do_train or --do_predict; dev rows are read "
      "alone, so leave it out.")
  name = (config.task_name or description["task_name"]).lower()
  require(
      name in tasks and tasks[name].kind == kind_of(description),
      f"--eval_flags: received the task {name!r}; the model was fine-tuned "
      f"for {description['task_name']!r}.")
  config = dataclasses.replace(
      config, task_name=name).with_defaults(tasks[name].defaults)
  setup = finetuning.Setup(
      config=config, task=tasks[name], description=description, model=model,
      tokenizer=tokenizer, strategy=tf.distribute.get_strategy())
  return finetuning.Outputs(
      setup, finetuning.rows_needed(config, tasks[name])["dev"],
      batch_size=config.eval_batch_size)


def _requests(
    function: Any, rows: Columns | None, size: int
) -> Iterator[dict[str, tf.Tensor]]:
  """Requests of so many rows without end: those of the dev set, in turns.

  Without them, the text of a server's warm-up. Inputs are in order.
  """
  specs = {spec.name: spec for spec in function.input_signature}

  def column(name):
    if rows is None:
      text = serving_files.WARMUP_TEXT
      return [text if specs[name].shape.rank == 1 else [text] * 2]
    if name not in rows:  # Of tagging there are words.
      return [" ".join(words) for words in rows["words"]]
    return rows[name]

  columns = {name: itertools.cycle(column(name)) for name in specs}
  while True:
    yield {
      name: tf.constant(list(itertools.islice(values, size)))
      for name, values in columns.items()}


def _milliseconds(
    candidates: Mapping[str, Candidate], rows: Columns | None, size: int
) -> dict[str, float]:
  """{name: the median of a request}; all answer each one after the other."""
  functions = {
    name: candidate.signatures[_SIGNATURE]
    for name, candidate in candidates.items()}
  requests = _requests(next(iter(functions.values())), rows, size)
  first = next(requests)
  for function in functions.values():
    function(*first.values())  # Is traced.
  found = {name: [] for name in functions}
  end = time.monotonic() + _SECONDS
  for request in itertools.islice(requests, _REQUESTS):
    for name, function in functions.items():
      start = time.perf_counter()
      for value in function(*request.values()).values():
        value.numpy()
      found[name].append(1000 * (time.perf_counter() - start))
    if time.monotonic() > end:
      break
  return {name: statistics.median(times) for name, times in found.items()}


def compare(
    candidates: Mapping[str, Candidate], *,
    dev: finetuning.Outputs | None = None
) -> dict[str, dict[str, float]]:
  """{what: {name of a candidate: its figure}}.

  Args:
    candidates: float32 and another, by name.
    dev: the dev rows, with the model of any of them.
  """
  found = {"weights_bytes": {
    name: candidate.num_bytes for name, candidate in candidates.items()}}
  if dev:
    for name, candidate in candidates.items():
      logging.info("Evaluating in %s.", name)
      for metric, value in dev.with_model(candidate.model).evaluate().items():
        found.setdefault(metric, {})[name] = value
  for size in _SIZES:
    found[f"milliseconds_of_{size}"] = _milliseconds(
        candidates, dev and dev.rows, size)
  return found


def lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
  """A table of what `compare` found, for people.

  >>> print("\\n".join(lines({
  ...     "weights_bytes": {"float32": 90000, "int8": 23400},
  ...     "accuracy": {"float32": 0.9151, "int8": 0.914}})))
                                 float32              int8            change
    weights_bytes                 90,000            23,400            x 0.26
    accuracy                      0.9151            0.9140           -0.0011
  """
  def row(cells):
    return f"  {cells[0]:18}" + "".join(f"{cell:>18}" for cell in cells[1:])

  exact, rough = next(iter(found.values()))
  table = [row(["", exact, rough, "change"])]
  for what, figures in found.items():
    one, two = figures[exact], figures[rough]
    if what == "weights_bytes":
      cells = [f"{one:,}", f"{two:,}", f"x {two / one:.2f}"]
    elif what.startswith("milliseconds"):
      cells = [f"{one:.1f}", f"{two:.1f}", f"x {two / one:.2f}"]
    else:
      cells = [f"{one:.4f}", f"{two:.4f}", f"{two - one:+.4f}"]
    table.append(row([what, *cells]))
  return table
