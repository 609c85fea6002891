"""What a long run tells: a console line, event files and metrics.jsonl."""

import importlib.util
import json
import os
import time
from collections.abc import Mapping

from absl import logging
import tensorflow as tf

from bert_tf.config import write_json
from bert_tf.config import write_text

METRICS_FILE = "metrics.jsonl"
# Fields of metrics.jsonl that differ between two equal runs.
TIMING_FIELDS = ("time", "examples_per_second")

# How a metric is shown on the console, in this order.
_CONSOLE = {
  "loss": ("loss", "{:.4f}"),
  "mlm_loss": ("mlm loss", "{:.3f}"),
  "mlm_accuracy": ("mlm accuracy", "{:.1%}"),
  "mlm_perplexity": ("mlm perplexity", "{:.1f}"),
  "nsp_loss": ("nsp loss", "{:.3f}"),
  "nsp_accuracy": ("nsp accuracy", "{:.1%}"),
  "accuracy": ("accuracy", "{:.1%}"),
  "balanced_accuracy": ("balanced accuracy", "{:.1%}"),
  "learning_rate": ("learning rate", "{:.2e}"),
  "examples_per_second": ("sequences/s", "{:.0f}"),
}


def format_duration(seconds: float) -> str:
  """Hours, minutes and seconds, as far as they matter.

  >>> format_duration(59.6), format_duration(61), format_duration(7325)
  ('1m00s', '1m01s', '2h02m')
  """
  seconds = round(seconds)
  if seconds < 60:
    return f"{seconds}s"
  if seconds < 3600:
    return f"{seconds // 60}m{seconds % 60:02d}s"
  return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def format_metrics(metrics: Mapping[str, float]) -> str:
  """The known metrics in one line for people.

  >>> format_metrics({"loss": 1.5, "nsp_accuracy": 0.75, "other": 3})
  'loss 1.5000, nsp accuracy 75.0%'
  """
  return ", ".join(
      f"{name} {form.format(metrics[key])}"
      for key, (name, form) in _CONSOLE.items() if key in metrics)


class MetricsWriter:
  """Writes each line of metrics three times: console, event file, JSON.

  On a run that goes on at `first_step`, lines of later steps are cut from
  metrics.jsonl: those steps are about to be computed again.
  """

  def __init__(self, directory: str, *, first_step: int, num_steps: int):
    os.makedirs(directory, exist_ok=True)
    self._num_steps = num_steps
    self._first_step = first_step
    self._start = time.monotonic()
    self._events = {}
    if importlib.util.find_spec("tensorboard"):
      for split in ("train", "eval"):
        self._events[split] = tf.summary.create_file_writer(
            os.path.join(directory, split))
    else:
      logging.warning(
          "No files for TensorBoard: TensorFlow needs the package to write "
          "them (pip install tensorboard).")
    path = os.path.join(directory, METRICS_FILE)
    self._keep_lines_up_to(path, first_step)
    self._file = open(path, "a", encoding="utf-8")

  @staticmethod
  def _keep_lines_up_to(path: str, step: int) -> None:
    if not os.path.exists(path):
      return
    with open(path, encoding="utf-8") as file:
      # A killed run may have left half a line at the end.
      lines = [line for line in file if line.endswith("\n")]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    write_text(path, "".join(kept) if step else "")

  def write(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
    """One line of metrics; `split` is "train" or "eval"."""
    done = step / self._num_steps
    elapsed = time.monotonic() - self._start
    computed = max(step - self._first_step, 1)
    left = (self._num_steps - step) * elapsed / computed
    logging.info(
        "%s step %d of %d (%.0f%%, %s left): %s", split, step,
        self._num_steps, 100 * done, format_duration(left),
        format_metrics(metrics))
    line = {"split": split, "step": step, **metrics, "time": time.time()}
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()
    if split in self._events:
      with self._events[split].as_default(step=step):
        for name, value in metrics.items():
          tf.summary.scalar(name, value)
      self._events[split].flush()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._file.close()
    for writer in self._events.values():
      writer.close()


def write_results(directory: str, results: Mapping[str, float]) -> None:
  """eval_results.json, and eval_results.txt in the original's form."""
  logging.info("Evaluation: %s.", format_metrics(results))
  os.makedirs(directory, exist_ok=True)
  write_json(os.path.join(directory, "eval_results.json"), dict(results))
  write_text(
      os.path.join(directory, "eval_results.txt"),
      "".join(f"{key} = {results[key]}\n" for key in sorted(results)))
