"""Metrics for people and for machines."""

import importlib.util
import json
import sys

import pytest
import tensorflow as tf

from bert_tf import reporting


def lines_of(directory):
  return [json.loads(line) for line in
          (directory / "metrics.jsonl").read_text().splitlines()]


def write(directory, steps, *, first_step=0):
  with reporting.MetricsWriter(
      str(directory), first_step=first_step, num_steps=10) as writer:
    for step in steps:
      writer.write("train", step, {"loss": step / 4})


def test_a_line_and_an_event_for_each_call(tmp_path):
  write(tmp_path, [5, 10])
  assert [(x["split"], x["step"], x["loss"]) for x in lines_of(tmp_path)] == [
    ("train", 5, 1.25), ("train", 10, 2.5)]
  (path,) = (tmp_path / "train").glob("events*")
  events = [
    (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
    for event in tf.compat.v1.train.summary_iterator(str(path))
    for value in event.summary.value]
  assert events == [(5, "loss", 1.25), (10, "loss", 2.5)]


def test_going_on_cuts_later_lines_and_half_ones(tmp_path):
  write(tmp_path, [2, 4, 6])
  with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
    file.write('{"split": "train", "st')
  write(tmp_path, [6, 8], first_step=4)
  assert [line["step"] for line in lines_of(tmp_path)] == [2, 4, 6, 8]


def test_a_new_run_begins_a_new_file(tmp_path):
  write(tmp_path, [2, 4])
  write(tmp_path, [3])
  assert [line["step"] for line in lines_of(tmp_path)] == [3]


def test_without_tensorboard_the_rest_is_written(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboard", None)
  monkeypatch.setattr(
      importlib.util, "find_spec", lambda name, package=None: None)
  write(tmp_path, [5])
  assert [line["step"] for line in lines_of(tmp_path)] == [5]
  assert not (tmp_path / "train").exists()


def test_results_for_people_and_for_machines(tmp_path):
  reporting.write_results(str(tmp_path / "run"), {"loss": 0.5, "accuracy": 1.0})
  assert (tmp_path / "run" / "eval_results.txt").read_text() == (
      "accuracy = 1.0\nloss = 0.5\n")


@pytest.mark.parametrize("seconds, text", [
  (0, "0s"), (59.4, "59s"), (3599, "59m59s"), (3600, "1h00m"),
])
def test_durations(seconds, text):
  assert reporting.format_duration(seconds) == text
