"""What is said about long work, with a clock of the test's own."""

import logging

import pytest

from bert_tf import progress


@pytest.fixture
def clock(monkeypatch):
  """Seconds that the test sets: `clock[0] = 10`."""
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  return now


def test_rate_share_and_time_left(clock, caplog):
  caplog.set_level(logging.INFO)
  reading = progress.Progress("Reading", unit="documents")
  reading.update(5, share=0.01)  # too early
  clock[0] = 120.0
  reading.update(4000, share=0.25)
  clock[0] = 125.0
  reading.update(5000, share=0.3)  # too soon again
  clock[0] = 130.0
  reading.update(6000, share=None)
  reading.update(6001, share=None)
  assert caplog.messages == [
    "Reading: 25%, 4,000 documents, 200 a second, 60 s left",
    "Reading: 6,000 documents, 200 a second"]


def test_more_than_all_is_all(clock, caplog):
  caplog.set_level(logging.INFO)
  writing = progress.Progress("Writing", unit="examples")
  clock[0] = 200.0
  writing.update(100, share=1.25)
  assert caplog.messages == ["Writing: 100%, 100 examples, 1 a second, 0 s left"]
