"""The order of training: a pure function of seed, files and step."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config import InputError
from bert_tf.data import dynamic_masking
from bert_tf.data import input_pipeline
from bert_tf.data import records

LAYOUT = records.Layout(8, 2)


def write_files(tmp_path, counts):
  """Records that are told apart by their first id."""
  paths, number = [], 0
  for i, count in enumerate(counts):
    ids = np.zeros((count, 8), np.int32)
    ids[:, 0] = np.arange(number, number + count)
    number += count
    batch = {
      "input_ids": ids, "input_mask": np.ones_like(ids),
      "segment_ids": np.zeros_like(ids),
      "masked_lm_positions": np.ones((count, 2), np.int32),
      "masked_lm_ids": np.ones((count, 2), np.int32),
      "masked_lm_weights": np.ones((count, 2), np.float32),
      "next_sentence_labels": np.zeros(count, np.int32),
    }
    path = str(tmp_path / f"{i}.tfrecord")
    records.write_records(path, [batch])
    paths.append(path)
  return paths


def order(paths, *, steps, batch_size=4, seed=1, first_step=0):
  batches = input_pipeline.training_batches(
      paths, layout=LAYOUT, batch_size=batch_size, seed=seed,
      first_step=first_step)
  return [batch["input_ids"][:, 0].numpy().tolist()
          for batch in batches.take(steps)]


@pytest.fixture
def small_chunks(monkeypatch):
  monkeypatch.setattr(input_pipeline, "CHUNK", 4)


def test_every_epoch_has_every_record_once_in_another_order(
    tmp_path, small_chunks):
  paths = write_files(tmp_path, [7, 1, 12])
  stream = sum(order(paths, steps=10, batch_size=8), [])
  epochs = [stream[20 * i:20 * (i + 1)] for i in range(4)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(20))
  assert len({tuple(epoch) for epoch in epochs}) == 4
  assert sum(order(paths, steps=5, batch_size=4), []) == epochs[0]


def test_any_step_can_be_the_first(tmp_path, small_chunks):
  paths = write_files(tmp_path, [7, 1, 12])
  batches = order(paths, steps=16, batch_size=3)
  for first_step in range(16):
    assert order(paths, steps=16 - first_step, batch_size=3,
                 first_step=first_step) == batches[first_step:]


def test_the_order_of_the_files_does_not_matter_but_the_seed_does(tmp_path):
  paths = write_files(tmp_path, [7, 5, 12])
  assert order(paths, steps=6) == order(paths[::-1], steps=6)
  assert order(paths, steps=6) != order(paths, steps=6, seed=2)


def test_shapes_are_static(tmp_path):
  spec = input_pipeline.training_batches(
      write_files(tmp_path, [4]), layout=LAYOUT, batch_size=4,
      seed=1).element_spec
  assert {name: tuple(s.shape) for name, s in spec.items()} == {
    "input_ids": (4, 8), "input_mask": (4, 8), "segment_ids": (4, 8),
    "masked_lm_positions": (4, 2), "masked_lm_ids": (4, 2),
    "masked_lm_weights": (4, 2), "next_sentence_labels": (4,)}
  assert spec["masked_lm_weights"].dtype == tf.float32


def test_fewer_records_than_a_batch_are_refused(tmp_path):
  with pytest.raises(InputError, match="hold 3 records.*batch of 4"):
    order(write_files(tmp_path, [2, 1]), steps=1)


def test_evaluation_sees_each_record_once_in_order(tmp_path):
  paths = write_files(tmp_path, [3, 2])
  batches = input_pipeline.evaluation_batches(
      paths, layout=LAYOUT, batch_size=2)
  assert [batch["input_ids"][:, 0].numpy().tolist() for batch in batches] == [
    [0, 1], [2, 3], [4]]


def test_records_without_masks_get_new_ones_at_each_step(tmp_path):
  ids = np.tile(np.arange(10, 18, dtype=np.int32), (4, 1))
  path = str(tmp_path / "a.tfrecord")
  records.write_records(path, [{
    "input_ids": ids, "input_mask": np.ones_like(ids),
    "segment_ids": np.zeros_like(ids)}])
  mask = functools.partial(
      dynamic_masking.mask_batch, special_ids=(2, 3, 0), mask_id=4,
      vocab_size=30, masked_lm_prob=0.3, max_predictions_per_seq=2)
  options = {"layout": records.read_layout(path), "mask": mask,
             "batch_size": 4}

  def positions(steps, **changes):
    batches = input_pipeline.training_batches(
        [path], **{**options, "seed": 1, **changes})
    return [batch["masked_lm_positions"].numpy().tolist()
            for batch in batches.take(steps)]

  epochs = positions(6)
  assert len({str(epoch) for epoch in epochs}) == 6
  assert positions(2, first_step=4) == epochs[4:]
  assert positions(6, seed=2) != epochs
  # An evaluation is the same each time.
  batches = input_pipeline.evaluation_batches([path], **options)
  first, again = ([batch["input_ids"].numpy().tolist() for batch in batches]
                  for _ in range(2))
  assert first == again != [ids.tolist()]
