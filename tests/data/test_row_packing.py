"""Several examples in a row: by hand, by laws, and how full rows become."""

import hypothesis
from hypothesis import strategies
import numpy as np

from bert_tf.data import row_packing


def assign(lengths, *, max_seq_length=8, max_examples=4):
  return row_packing.assign_rows(
      np.array(lengths), max_seq_length=max_seq_length,
      max_examples=max_examples).tolist()


def test_the_fullest_row_with_room_is_taken():
  # 6 opens row 0, 5 row 1; 3 fits row 1 only; then 2 fits row 0 exactly.
  assert assign([2, 5, 3, 6]) == [0, 1, 1, 0]
  assert assign([8, 8]) == [0, 1]
  assert assign([2, 2, 2, 2], max_examples=3) == [0, 0, 0, 1]


@hypothesis.given(
    strategies.lists(strategies.integers(1, 16), min_size=1, max_size=60),
    strategies.integers(1, 5))
def test_no_row_is_too_full(lengths, max_examples):
  row_of = np.array(
      assign(lengths, max_seq_length=16, max_examples=max_examples))
  num_rows = row_of.max() + 1
  assert set(row_of) == set(range(num_rows))
  filled = np.bincount(row_of, weights=lengths)
  assert filled.max() <= 16
  assert np.bincount(row_of).max() <= max_examples
  if max_examples == 5 and len(lengths) <= 5:
    # Two rows are never both half empty, or one would do.
    assert np.sum(filled <= 8) <= 1


def test_short_examples_fill_long_rows():
  lengths = np.random.default_rng(1).integers(20, 200, 5000)
  row_of = np.array(assign(lengths, max_seq_length=512, max_examples=32))
  assert lengths.sum() / (512 * (row_of.max() + 1)) > 0.99


BATCH = {
  "input_ids": np.array([[1, 7, 2, 0, 0, 0], [1, 8, 2, 9, 2, 0],
                         [1, 5, 2, 0, 0, 0]]),
  "input_mask": np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0],
                          [1, 1, 1, 0, 0, 0]]),
  "segment_ids": np.array([[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0],
                           [0, 1, 1, 0, 0, 0]])}


def test_a_batch_is_packed_as_worked_out_by_hand():
  packed = row_packing.pack_rows(
      {**BATCH, "next_sentence_labels": np.array([1, 0, 1])},
      np.array([1, 0, 1]), max_examples=3, pad_id=4)
  assert {name: array.tolist() for name, array in packed.items()} == {
    "input_ids": [[1, 8, 2, 9, 2, 4], [1, 7, 2, 1, 5, 2]],
    "input_mask": [[1, 1, 1, 1, 1, 0], [1] * 6],
    "segment_ids": [[0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 1, 1]],
    "example_ids": [[1, 1, 1, 1, 1, 0], [1, 1, 1, 2, 2, 2]],
    "position_ids": [[0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 1, 2]],
    "cls_positions": [[0, 0, 0], [0, 3, 0]],
    "next_sentence_labels": [[0, 0, 0], [1, 1, 0]],
    "next_sentence_weights": [[1, 0, 0], [1, 1, 0]]}
  for name, array in packed.items():
    assert array.dtype == (
      np.float32 if name == "next_sentence_weights" else np.int32)


def test_without_labels_there_are_none():
  packed = row_packing.pack_rows(
      BATCH, np.array([0, 1, 0]), max_examples=2, pad_id=0)
  assert "next_sentence_labels" not in packed
  assert packed["cls_positions"].tolist() == [[0, 3], [0, 0]]


def test_the_most_examples_in_a_row():
  assert [row_packing.max_examples_per_row(n) for n in (8, 128, 512)] == [
    1, 16, 64]
