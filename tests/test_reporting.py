"""Metrics for people and for machines."""

import json
import re
import subprocess
import sys

import pytest
import tensorflow as tf

from bert_tf import reporting
from bert_tf.config import write_text


@pytest.fixture(params=["local", "remote"])
def directory(request, tmp_path):
  """A folder for a run, on this machine and where only a URL reaches."""
  return str(tmp_path) if request.param == "local" else f"ram:/{tmp_path}"


def lines_of(directory):
  with tf.io.gfile.GFile(f"{directory}/metrics.jsonl") as file:
    text = file.read()
  assert text.endswith("\n") or not text
  return [json.loads(line) for line in text.splitlines()]


def protos_of(directory, split):
  """All events of all files, as any reader finds them."""
  if not tf.io.gfile.exists(f"{directory}/{split}"):
    return []
  paths = sorted(tf.io.gfile.glob(f"{directory}/{split}/*tfevents*"))
  records = tf.data.TFRecordDataset(paths).as_numpy_iterator()
  return [tf.compat.v1.Event.FromString(record) for record in records]


def events_of(directory, split):
  """(step, tag, value) of all events."""
  return [(event.step, value.tag, value.simple_value)
          for event in protos_of(directory, split)
          for value in event.summary.value]


def open_writer(directory, *, first_step=0, **options):
  return reporting.MetricsWriter(
      directory, first_step=first_step, num_steps=10, **options)


def write(directory, steps, *, first_step=0):
  with open_writer(directory, first_step=first_step) as writer:
    for step in steps:
      writer.write("train", step, {"loss": step / 4})


def append(path, content):
  old = b""
  if tf.io.gfile.exists(path):
    with tf.io.gfile.GFile(path, "rb") as file:
      old = file.read()
    tf.io.gfile.remove(path)  # The file system in memory would not truncate it.
  with tf.io.gfile.GFile(path, "wb") as file:
    file.write(old + content)


def test_a_line_and_an_event_for_each_call(directory):
  with open_writer(directory) as writer:
    writer.write("train", 5, {"loss": 1.25, "learning_rate": 0.5})
    # Each is there as soon as it is written.
    assert len(lines_of(directory)) == len(events_of(directory, "train")) / 2
    writer.write("eval", 5, {"loss": 2.5})
    writer.write("train", 10, {"loss": 0.75})
  assert [(x["split"], x["step"], x["loss"]) for x in lines_of(directory)] == [
    ("train", 5, 1.25), ("eval", 5, 2.5), ("train", 10, 0.75)]
  assert events_of(directory, "train") == [
    (5, "loss", 1.25), (5, "learning_rate", 0.5), (10, "loss", 0.75)]
  assert events_of(directory, "eval") == [(5, "loss", 2.5)]


def test_going_on_cuts_later_lines_and_events(directory):
  with open_writer(directory) as writer:
    for step in (2, 4, 6):
      writer.write("train", step, {"loss": step / 4})
      writer.write("eval", step, {"loss": step / 2})
  times = [line["time"] for line in lines_of(directory)]
  with open_writer(directory, first_step=4) as writer:
    writer.write("train", 6, {"loss": 9.0})
  lines = lines_of(directory)
  assert [(line["split"], line["step"]) for line in lines] == [
    ("train", 2), ("eval", 2), ("train", 4), ("eval", 4), ("train", 6)]
  assert [line["time"] for line in lines[:4]] == times[:4]
  assert events_of(directory, "train") == [
    (2, "loss", 0.5), (4, "loss", 1.0), (6, "loss", 9.0)]
  assert events_of(directory, "eval") == [(2, "loss", 1.0), (4, "loss", 2.0)]
  told = [event.wall_time for event in protos_of(directory, "eval")]
  assert told[-2:] == [times[1], times[3]]


def test_a_run_killed_again_and_again_leaves_one_sequence(directory):
  writers = []  # None is closed: nobody closes the files of a killed run.
  for first_step in range(10):
    writer = open_writer(directory, first_step=first_step)
    writers.append(writer)
    # Its state was saved after the first of these steps.
    for step in (first_step + 1, first_step + 2):
      writer.write("train", step, {"loss": step + first_step / 100})
    # Killed while it wrote the next.
    append(f"{directory}/metrics.jsonl", b'{"split": "train", "st')
    [path] = tf.io.gfile.glob(f"{directory}/train/*")
    append(path, b"\x18\x00\x00\x00\x00\x00\x00\x00half")
  write(directory, [], first_step=10)
  steps = [line["step"] for line in lines_of(directory)]
  assert steps == list(range(1, 11))
  # A step stands there as the run computed it that saved it.
  expected = [(step, "loss", pytest.approx(step + (step - 1) / 100))
              for step in steps]
  assert events_of(directory, "train") == expected


def test_a_new_run_begins_the_files_anew(directory):
  with open_writer(directory) as writer:
    writer.write("eval", 0, {"loss": 1.0})
    writer.write("train", 2, {"loss": 1.0})
  write_text(f"{directory}/train/notes.txt", "of somebody else")
  write(directory, [3])
  assert [line["step"] for line in lines_of(directory)] == [3]
  assert events_of(directory, "train") == [(3, "loss", 0.75)]
  assert events_of(directory, "eval") == []
  assert tf.io.gfile.exists(f"{directory}/train/notes.txt")


def test_a_broken_line_is_left_out_and_told(tmp_path, caplog):
  write(str(tmp_path), [2, 4])
  with open(tmp_path / "metrics.jsonl", "ab") as file:
    file.write(b'\0\0\n{"split": "train"}\n7\n\xff\n')
    file.write(b'{"split": "test", "step": 1, "time": 1.0}\n')
    # Whole, but for the end of the line: nothing is told of this one.
    file.write(b'{"split": "train", "step": 4, "time": 1.0}')
  write(str(tmp_path), [6], first_step=4)
  assert [line["step"] for line in lines_of(tmp_path)] == [2, 4, 6]
  told = [record.getMessage() for record in caplog.records]
  told = [text for text in told if "no line of metrics" in text]
  assert [re.search(r"jsonl:(\d+)", text)[1] for text in told] == [
    "3", "4", "5", "6", "7"]


def test_what_is_no_number_is_null_in_json(tmp_path):
  with open_writer(str(tmp_path)) as writer:
    writer.write("eval", 1, {"loss": float("nan"), "accuracy": float("inf")})
  [line] = lines_of(tmp_path)
  assert line["loss"] is None and line["accuracy"] is None
  write(str(tmp_path), [], first_step=1)
  [one, two] = events_of(tmp_path, "eval")
  assert one[2] != one[2] and two[2] != two[2]


def test_only_the_chief_writes(tmp_path):
  with open_writer(str(tmp_path / "run"), is_chief=False) as writer:
    writer.write("train", 1, {"loss": 1.0})
  assert not (tmp_path / "run").exists()


def test_tensorboard_shows_each_step_once_even_when_it_was_open(tmp_path):
  module = pytest.importorskip(
      "tensorboard.backend.event_processing.plugin_event_accumulator")
  write(str(tmp_path), [2, 4, 6])
  board = module.EventAccumulator(str(tmp_path / "train")).Reload()

  def shown():
    # TensorBoard turns the old form of a scalar into the new one.
    return [(event.step, float(tf.make_ndarray(event.tensor_proto)))
            for event in board.Tensors("loss")]

  assert shown() == [(2, 0.5), (4, 1.0), (6, 1.5)]
  with open_writer(str(tmp_path), first_step=4) as writer:
    writer.write("train", 6, {"loss": 9.0})
    board.Reload()
    assert shown() == [(2, 0.5), (4, 1.0), (6, 9.0)]
    writer.write("train", 8, {"loss": 8.0})
  board.Reload()
  assert shown() == [(2, 0.5), (4, 1.0), (6, 9.0), (8, 8.0)]


@pytest.mark.slow
def test_events_need_no_tensorboard_to_be_written(tmp_path):
  program = (
    "import sys\n"
    "sys.modules['tensorboard'] = None\n"
    "from bert_tf import reporting\n"
    f"with reporting.MetricsWriter({str(tmp_path)!r}, first_step=0,\n"
    "                             num_steps=10) as writer:\n"
    "  writer.write('train', 5, {'loss': 1.25})\n")
  subprocess.run([sys.executable, "-c", program], check=True)
  assert events_of(tmp_path, "train") == [(5, "loss", 1.25)]


def test_fields_that_differ_between_equal_runs():
  assert {name for name in reporting._CONSOLE
          if "second" in name or "share" in name} | {"time"} == set(
              reporting.TIMING_FIELDS)


def test_a_line_for_people():
  text = reporting.format_metrics({
    "input_wait_share": 0.031, "loss": 2.0, "learning_rate": 1e-4,
    "gradient_norm": 1.234, "weight_norm": 123.45, "update_norm": 0.01234,
    "loss_scale": 32768.0, "skipped_steps": 2, "examples_per_second": 512.4,
    "tokens_per_second": 65587.2, "model_flops_per_second": 3.5e14,
    "peak_share": 0.354})
  assert text == (
      "loss 2.0000, learning rate 1.00e-04, gradient norm 1.23, "
      "weight norm 123.5, update norm 0.0123, loss scale 32768, "
      "skipped steps 2, sequences/s 512, tokens/s 65,587, TFLOP/s 350, "
      "of peak 35.4%, waiting for data 3.1%")


def test_results_for_people_and_for_machines(directory):
  reporting.write_results(f"{directory}/run", {"loss": 0.5, "accuracy": 1.0})
  with tf.io.gfile.GFile(f"{directory}/run/eval_results.txt") as file:
    assert file.read() == "accuracy = 1.0\nloss = 0.5\n"
  with tf.io.gfile.GFile(f"{directory}/run/eval_results.json") as file:
    assert json.loads(file.read()) == {"loss": 0.5, "accuracy": 1.0}


@pytest.mark.parametrize("seconds, text", [
  (0, "0s"), (59.4, "59s"), (3599, "59m59s"), (3600, "1h00m"),
])
def test_durations(seconds, text):
  assert reporting.format_duration(seconds) == text
