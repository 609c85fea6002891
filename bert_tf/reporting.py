"""What a long run tells: a console line, event files and metrics.jsonl."""

from collections.abc import Iterator, Mapping
import json
import math
import os
import time
from typing import Any, NamedTuple

from absl import logging
import tensorflow as tf

from bert_tf import files
from bert_tf.config import write_json
from bert_tf.config import write_text

METRICS_FILE = "metrics.jsonl"
# Fields of metrics.jsonl that differ between two equal runs.
TIMING_FIELDS = (
  "time", "examples_per_second", "tokens_per_second",
  "model_flops_per_second", "peak_share", "input_wait_share",
)

_SPLITS = ("train", "eval")
# What TensorBoard knows its files by; a time follows.
_EVENT_FILE = "events.out.tfevents."


class _Shown(NamedTuple):
  """How people see a metric."""

  name: str
  form: str
  unit: float = 1.0


# On the console, in this order; after these the metrics of a task.
_CONSOLE = {
  "loss": _Shown("loss", "{:.4f}"),
  "mlm_loss": _Shown("mlm loss", "{:.3f}"),
  "mlm_accuracy": _Shown("mlm accuracy", "{:.1%}"),
  "mlm_perplexity": _Shown("mlm perplexity", "{:.1f}"),
  "nsp_loss": _Shown("nsp loss", "{:.3f}"),
  "nsp_accuracy": _Shown("nsp accuracy", "{:.1%}"),
  "lm_accuracy": _Shown("lm accuracy", "{:.1%}"),
  "lm_perplexity": _Shown("lm perplexity", "{:.1f}"),
  "accuracy": _Shown("accuracy", "{:.1%}"),
  "balanced_accuracy": _Shown("balanced accuracy", "{:.1%}"),
  "learning_rate": _Shown("learning rate", "{:.2e}"),
  "gradient_norm": _Shown("gradient norm", "{:.3g}"),
  "weight_norm": _Shown("weight norm", "{:.4g}"),
  "update_norm": _Shown("update norm", "{:.3g}"),
  "loss_scale": _Shown("loss scale", "{:.0f}"),
  "skipped_steps": _Shown("skipped steps", "{:.0f}"),
  "examples_per_second": _Shown("sequences/s", "{:.3g}"),
  "tokens_per_second": _Shown("tokens/s", "{:,.0f}"),
  "model_flops_per_second": _Shown("TFLOP/s", "{:.3g}", unit=1e12),
  "peak_share": _Shown("of peak", "{:.1%}"),
  "input_wait_share": _Shown("waiting for data", "{:.1%}"),
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
  """The metrics in one line for people.

  >>> format_metrics({"f1": 0.875, "loss": 1.5, "nsp_accuracy": 0.75})
  'loss 1.5000, nsp accuracy 75.0%, f1 0.8750'
  """
  known = [
    f"{shown.name} {shown.form.format(metrics[key] / shown.unit)}"
    for key, shown in _CONSOLE.items() if key in metrics]
  of_task = [
    f"{key.replace('_', ' ')} {value:.4f}" for key, value in metrics.items()
    if key not in _CONSOLE and key != "global_step"]
  return ", ".join(known + of_task)


class _EventFiles:
  """What TensorBoard shows: a file in `train/`, and another in `eval/`.

  They repeat metrics.jsonl, and each start of a run makes them anew from what
  is kept of it. So no step stands in them twice, whatever a killed process
  left behind, and nothing of theirs is ever read.
  """

  def __init__(self, directory: str):
    self._directory = directory
    self._writers = {}
    for split in _SPLITS:
      folder = os.path.join(directory, split)
      names = files.list_directory(folder) if files.exists(folder) else []
      for name in names:
        if name.startswith(_EVENT_FILE):
          files.remove(os.path.join(folder, name))

  def _writer_of(self, split: str) -> tf.io.TFRecordWriter:
    if split in self._writers:
      return self._writers[split]
    folder = os.path.join(self._directory, split)
    files.make_directories(folder)
    # Later names sort behind earlier ones: a TensorBoard that is open reads
    # on in the new file. It forgets the old one when told of a restart.
    path = os.path.join(folder, f"{_EVENT_FILE}{time.time():.6f}")
    writer = self._writers[split] = tf.io.TFRecordWriter(path)
    for event in (
        tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2"),
        tf.compat.v1.Event(
            wall_time=time.time(), step=0, session_log=tf.compat.v1.SessionLog(
                status=tf.compat.v1.SessionLog.START))):
      writer.write(event.SerializeToString())
    return writer

  def write(self, line: Mapping[str, Any]) -> None:
    """Adds a line of metrics.jsonl; `flush` makes it last."""
    # Not by `tf.summary`, which needs the package tensorboard to write.
    summary = tf.compat.v1.Summary(value=[
      tf.compat.v1.Summary.Value(
          tag=name, simple_value=math.nan if value is None else value)
      for name, value in line.items() if name not in ("split", "step", "time")])
    event = tf.compat.v1.Event(
        wall_time=line["time"], step=line["step"], summary=summary)
    self._writer_of(line["split"]).write(event.SerializeToString())

  def flush(self) -> None:
    for writer in self._writers.values():
      writer.flush()

  def close(self) -> None:
    for writer in self._writers.values():
      writer.close()


class _LinesFile:
  """A text file that grows by lines, local or not."""

  def __init__(self, path: str, lines: list[str]):
    """Begins with these lines, in place of what the file held."""
    write_text(path, "".join(lines))
    self._path, self._lines, self._file = path, None, None
    if files.is_local(path):
      self._file = open(path, "a", encoding="utf-8", newline="\n")
    else:
      # Objects in a bucket do not grow, and not all remote file systems can
      # add to a file: the whole is written at each line, a few megabytes.
      self._lines = lines

  def write(self, line: str) -> None:
    """Adds a line, which outlives this process from then on."""
    if self._file:
      self._file.write(line)
      self._file.flush()
    else:
      self._lines.append(line)
      write_text(self._path, "".join(self._lines))

  def close(self) -> None:
    if self._file:
      self._file.close()


def _parse_line(line: bytes) -> dict[str, Any] | None:
  """What a line of metrics.jsonl holds; None: it is no such line."""
  try:
    entry = json.loads(line)
    is_line = (
        entry["split"] in _SPLITS and entry["step"] >= 0 and entry["time"] > 0)
  except (ValueError, KeyError, TypeError):
    return None
  return entry if is_line else None


def _lines_up_to(path: str, step: int) -> Iterator[tuple[str, dict]]:
  """The lines of a metrics.jsonl as far as a step, and what they hold."""
  with files.open_file(path, "rb") as file:
    for number, line in enumerate(file, start=1):
      # A killed run may have left half a line at the end.
      if not line.endswith(b"\n"):
        return
      entry = _parse_line(line)
      if entry is None:
        logging.warning(
            "%s:%d: is no line of metrics, and is left out: %r", path, number,
            line[:80])
      elif entry["step"] <= step:
        yield line.decode("utf-8"), entry


class MetricsWriter:
  """Writes each line of metrics three times: console, event file, JSON.

  On a run that goes on at `first_step`, what was told of later steps is cut:
  those steps are about to be computed again. A run that begins, at 0, begins
  the files anew.
  """

  def __init__(
      self, directory: str, *, first_step: int, num_steps: int,
      is_chief: bool = True
  ):
    """Opens the files.

    Args:
      directory: of the run, local or not.
      first_step: how many steps are done.
      num_steps: how many there will be.
      is_chief: False: writes nothing. Of several workers one tells.
    """
    self._num_steps = num_steps
    self._first_step = first_step
    self._start = time.monotonic()
    self._is_chief = is_chief
    if not is_chief:
      return
    files.make_directories(directory)
    path = os.path.join(directory, METRICS_FILE)
    self._events = _EventFiles(directory)
    kept = []
    if first_step and files.exists(path):
      for line, entry in _lines_up_to(path, first_step):
        kept.append(line)
        self._events.write(entry)
    self._events.flush()
    self._file = _LinesFile(path, kept)

  def write(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
    """One line of metrics; `split` is "train" or "eval"."""
    if not self._is_chief:
      return
    done = step / self._num_steps
    elapsed = time.monotonic() - self._start
    computed = max(step - self._first_step, 1)
    left = (self._num_steps - step) * elapsed / computed
    logging.info(
        "%s step %d of %d (%.0f%%, %s left): %s", split, step,
        self._num_steps, 100 * done, format_duration(left),
        format_metrics(metrics))
    # JSON has no NaN.
    numbers = {name: value if math.isfinite(value) else None
               for name, value in metrics.items()}
    line = {"split": split, "step": step, **numbers, "time": time.time()}
    self._file.write(json.dumps(line, allow_nan=False) + "\n")
    self._events.write(line)
    self._events.flush()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    if self._is_chief:
      self._file.close()
      self._events.close()


def write_results(directory: str, results: Mapping[str, float]) -> None:
  """eval_results.json, and eval_results.txt in the original's form."""
  logging.info("Evaluation: %s.", format_metrics(results))
  files.make_directories(directory)
  write_json(os.path.join(directory, "eval_results.json"), dict(results))
  write_text(
      os.path.join(directory, "eval_results.txt"),
      "".join(f"{key} = {results[key]}\n" for key in sorted(results)))
