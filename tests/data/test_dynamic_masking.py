"""Masks in the pipeline: shapes, seeds, what is passed on.

The masks themselves: `test_masking`, for both implementations.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.data import dynamic_masking

TABLE = np.arange(1000) % 3 == 0
TABLES = pytest.mark.parametrize(
    "table", [None, TABLE, tf.constant(TABLE)],
    ids=["pieces", "words", "tensor"])
mask_batch = functools.partial(
    dynamic_masking.mask_batch, special_ids=(0, 1, 2), mask_id=3,
    vocab_size=1000, masked_lm_prob=0.15, max_predictions_per_seq=5)


def examples(count=40, width=24):
  ids = np.random.default_rng(0).integers(4, 1000, (count, width), np.int32)
  ids[:, 0], ids[:, 10], ids[:, -3], ids[:, -2:] = 1, 2, 2, 0
  return {
    "input_ids": ids, "input_mask": np.int32(ids > 0),
    "segment_ids": np.int32(np.tile(np.arange(width) > 10, (count, 1))),
    "next_sentence_labels": np.arange(count, dtype=np.int32) % 2}


def pipeline(table, *, batch_size=16, drop_remainder=False, seed=1):
  return (
    tf.data.Dataset.from_tensor_slices(examples())
    .batch(batch_size, drop_remainder=drop_remainder).enumerate()
    .map(lambda step, batch: mask_batch(
        batch, seed=tf.stack([tf.cast(step, tf.int32), seed]),
        is_continuation=table), num_parallel_calls=2))


@TABLES
@pytest.mark.parametrize("batch_size", [None, 8])
def test_shapes_are_static_but_for_the_batch(table, batch_size):
  dataset = pipeline(
      table, batch_size=8, drop_remainder=batch_size is not None)
  assert {name: (tuple(spec.shape), spec.dtype)
          for name, spec in dataset.element_spec.items()} == {
    "input_ids": ((batch_size, 24), tf.int32),
    "input_mask": ((batch_size, 24), tf.int32),
    "segment_ids": ((batch_size, 24), tf.int32),
    "next_sentence_labels": ((batch_size,), tf.int32),
    "masked_lm_positions": ((batch_size, 5), tf.int32),
    "masked_lm_ids": ((batch_size, 5), tf.int32),
    "masked_lm_weights": ((batch_size, 5), tf.float32)}


@TABLES
def test_the_graph_does_what_the_eager_call_does(table):
  # Batches of 16, 16 and 8 rows.
  whole = examples()
  for step, batch in enumerate(pipeline(table)):
    part = {name: array[16 * step:16 * (step + 1)]
            for name, array in whole.items()}
    expected = mask_batch(
        {name: tf.constant(array) for name, array in part.items()},
        seed=tf.constant([step, 1]), is_continuation=table)
    assert batch.keys() == expected.keys()
    for name, tensor in expected.items():
      assert np.array_equal(batch[name], tensor)
    # 0.15 of 22 pieces: 3. All else is as it was.
    assert (np.sum(batch["masked_lm_weights"], axis=1) == 3).all()
    for name in ("input_mask", "segment_ids", "next_sentence_labels"):
      assert np.array_equal(batch[name], part[name])
  assert step == 2


@TABLES
def test_a_batch_has_other_masks_in_another_epoch(table):
  first, again, other = (
    next(iter(pipeline(table, seed=seed))) for seed in (1, 1, 2))
  assert np.array_equal(first["input_ids"], again["input_ids"])
  assert not np.array_equal(
      first["masked_lm_positions"], other["masked_lm_positions"])
  assert not np.array_equal(first["input_ids"], other["input_ids"])


def test_masks_of_the_records_are_replaced():
  batch = next(iter(pipeline(None)))
  again = mask_batch(
      {**examples(16), **{name: tf.zeros_like(batch[name]) for name in (
          "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")}},
      seed=tf.constant([0, 1]))
  assert np.array_equal(
      again["masked_lm_positions"], batch["masked_lm_positions"])


@TABLES
def test_an_empty_batch_stays_empty(table):
  out = mask_batch(
      {name: tf.constant(array[:0]) for name, array in examples().items()},
      seed=tf.constant([0, 1]), is_continuation=table)
  assert out["input_ids"].shape == (0, 24)
  assert out["masked_lm_weights"].shape == (0, 5)


@TABLES
def test_no_seed_is_used_twice(table, monkeypatch):
  seeds = []
  uniform = tf.random.stateless_uniform

  def record(shape, seed, *args, **kwargs):
    seeds.append(tuple(np.array(seed).tolist()))
    return uniform(shape, seed, *args, **kwargs)

  monkeypatch.setattr(tf.random, "stateless_uniform", record)
  batch = {name: tf.constant(array) for name, array in examples().items()}
  for step in range(3):
    mask_batch(batch, seed=tf.constant([step, 1]), is_continuation=table)
  assert len(seeds) == len(set(seeds)) == 9


@TABLES
def test_restoring_undoes_the_masks(table):
  whole = {name: tf.constant(array) for name, array in examples().items()}
  masked = mask_batch(
      whole, seed=tf.constant([0, 1]), is_continuation=table)
  assert not np.array_equal(masked["input_ids"], whole["input_ids"])
  restored = dynamic_masking.restore(masked, seed=tf.constant([0, 1]))
  assert set(restored) == {"input_ids", "input_mask", "segment_ids"}
  for name, tensor in restored.items():
    assert np.array_equal(tensor, whole[name])


def test_restoring_by_hand():
  batch = {
    "input_ids": [[1, 3, 7, 2], [1, 8, 2, 0]], "input_mask": [[1] * 4] * 2,
    "example_ids": [[1] * 4] * 2, "position_ids": [[0, 1, 2, 3]] * 2,
    "cls_positions": [[0], [0]], "next_sentence_weights": [[1.0], [1.0]],
    # The slot of padding points at [CLS], and 9 must not go there.
    "masked_lm_positions": [[1, 2], [1, 0]], "masked_lm_ids": [[5, 6], [8, 9]],
    "masked_lm_weights": [[1.0, 1.0], [1.0, 0.0]]}
  batch = {name: tf.constant(value) for name, value in batch.items()}
  restored = dynamic_masking.restore(batch)
  assert set(restored) == {
    "input_ids", "input_mask", "example_ids", "position_ids"}
  assert restored["input_ids"].numpy().tolist() == [
    [1, 5, 6, 2], [1, 8, 2, 0]]


def test_what_is_not_masked_passes():
  batch = {name: tf.constant(array) for name, array in examples().items()}
  restored = dynamic_masking.restore(batch, seed=tf.constant([0, 1]))
  assert set(restored) == {"input_ids", "input_mask", "segment_ids"}
  assert restored["input_ids"] is batch["input_ids"]
