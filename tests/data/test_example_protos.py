"""The encoder of Example protos, against protobuf's own."""

import hypothesis
from hypothesis import strategies
import numpy as np
import tensorflow as tf

from bert_tf.data import example_protos


def by_protobuf(columns):
  """The rows as protobuf writes them."""
  for row in range(len(next(iter(columns.values())))):
    features = {}
    for name, array in columns.items():
      values = np.ravel(array[row])
      if np.issubdtype(array.dtype, np.floating):
        kind = {"float_list": tf.train.FloatList(value=values)}
      else:
        kind = {"int64_list": tf.train.Int64List(value=values.tolist())}
      features[name] = tf.train.Feature(**kind)
    yield tf.train.Example(features=tf.train.Features(
        feature=features)).SerializeToString(deterministic=True)


def test_a_row_by_hand():
  [row] = example_protos.encode_rows({"ab": np.array([[1, 300]])})
  # Example { 1: Features { 1: entry { 1: "ab", 2: Feature { 3: { 1: ... }}}}}
  assert row == bytes([
    0x0A, 15, 0x0A, 13, 0x0A, 2, ord("a"), ord("b"),
    0x12, 7, 0x1A, 5, 0x0A, 3, 1, 0xAC, 0x02])


def test_the_columns_of_real_records():
  rng = np.random.default_rng(1)
  for rows in (1, 3, 50):
    columns = {
      "input_ids": rng.integers(0, 30522, (rows, 128), np.int32),
      "input_mask": rng.integers(0, 2, (rows, 128), np.int32),
      "masked_lm_positions": rng.integers(0, 512, (rows, 20)),
      "masked_lm_weights": rng.integers(0, 2, (rows, 20)).astype(np.float32),
      "next_sentence_labels": rng.integers(0, 2, rows)}
    assert example_protos.encode_rows(columns) == list(by_protobuf(columns))


# Each side of every length of a varint, and the greatest.
NUMBERS = strategies.sampled_from(
    [0, 1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455, 268435456,
     2**31 - 1]) | strategies.integers(0, 2**31 - 1)


def test_a_name_goes_before_its_own_beginnings():
  columns = {"0": np.array([[1]]), "00": np.array([[2]]), "1": np.array([[3]])}
  assert example_protos.encode_rows(columns) == list(by_protobuf(columns))


@hypothesis.settings(max_examples=200)
@hypothesis.given(strategies.data())
def test_any_numbers_are_written_as_protobuf_writes_them(data):
  rows = data.draw(strategies.integers(1, 4))
  columns = {}
  for name in data.draw(strategies.sets(
      strategies.text(min_size=1, max_size=130), min_size=1, max_size=3)):
    size = data.draw(strategies.integers(1, 40))
    numbers, kind = data.draw(strategies.sampled_from([
      (NUMBERS, np.int64), (strategies.integers(0, 127), np.int32),
      (strategies.floats(width=32, allow_nan=False), np.float32)]))
    columns[name] = np.array(data.draw(strategies.lists(
        strategies.lists(numbers, min_size=size, max_size=size),
        min_size=rows, max_size=rows)), kind)
  # By the bytes of their names, as protobuf does.
  assert example_protos.encode_rows(columns) == list(by_protobuf(columns))
