"""Packing: sizes and sequences worked out by hand, windows by plain Python."""


import hypothesis
from hypothesis import strategies
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import packing
from bert_tf.config import InputError
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def toy():
  return BertTokenizer([*SPECIAL_TOKENS, "a"], do_lower_case=True)


# Packing, worked out by hand. Pieces of a are 10, 11, ..., of b 20, 21, ...:
# sizes of a and b, max_seq_length, input_ids, segment_ids.
PACKED = (
  (3, None, None, [2, 10, 11, 12, 3], [0] * 5),
  (3, None, 4, [2, 10, 11, 3], [0] * 4),
  (0, None, None, [2, 3], [0, 0]),
  (2, 1, None, [2, 10, 11, 3, 20, 3], [0, 0, 0, 0, 1, 1]),
  (0, 0, None, [2, 3, 3], [0, 0, 1]),
  # Room for five: the longer gives way, then b on the tie.
  (5, 5, 8, [2, 10, 11, 12, 3, 20, 21, 3], [0] * 5 + [1] * 3),
  (7, 2, 8, [2, 10, 11, 12, 3, 20, 21, 3], [0] * 5 + [1] * 3),
  (2, 7, 8, [2, 10, 11, 3, 20, 21, 22, 3], [0] * 4 + [1] * 4),
  (1, 1, 4, [2, 10, 3, 3], [0, 0, 0, 1]),
)


def ragged(*rows):
  return tf.RaggedTensor.from_row_lengths(
      tf.constant([i for row in rows for i in row], tf.int32),
      tf.constant([len(row) for row in rows], tf.int64))


@pytest.mark.parametrize("size_a,size_b,length,input_ids,segment_ids", PACKED)
def test_packing_is_that_worked_out_by_hand(
    toy, size_a, size_b, length, input_ids, segment_ids):
  ids_a = ragged(range(10, 10 + size_a))
  ids_b = None if size_b is None else ragged(range(20, 20 + size_b))
  found = toy.pack(ids_a, ids_b, max_seq_length=length)
  assert {name: value.numpy().tolist() for name, value in found.items()} == {
    "input_ids": [input_ids], "input_mask": [[1] * len(input_ids)],
    "segment_ids": [segment_ids]}
  assert {value.dtype for value in found.values()} == {tf.int32}


def test_rows_are_padded_to_the_longest_or_to_the_length(toy):
  ids_a, ids_b = ragged([10], [], [11, 12, 13]), ragged([20, 21], [], [22])
  expected = [
    [2, 10, 3, 20, 21, 3, 0], [2, 3, 3, 0, 0, 0, 0], [2, 11, 12, 13, 3, 22, 3]]
  found = toy.pack(ids_a, ids_b, max_seq_length=8)
  assert found["input_ids"].numpy().tolist() == expected
  assert found["input_mask"].numpy().tolist() == [
    [1] * 6 + [0], [1] * 3 + [0] * 4, [1] * 7]
  assert found["segment_ids"].numpy().tolist() == [
    [0, 0, 0, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0, 0], [0] * 5 + [1] * 2]
  found = toy.pack(ids_a, ids_b, max_seq_length=8, pad_to_max_length=True)
  assert found["input_ids"].numpy().tolist() == [
    row + [0] for row in expected]
  assert found["input_mask"].shape == found["segment_ids"].shape == (3, 8)


def test_truncation_equals_taking_one_piece_at_a_time():
  for room in range(1, 12):
    for size_a in range(12):
      for size_b in range(12):
        kept_a, kept_b = size_a, size_b
        while kept_a + kept_b > room:
          if kept_a > kept_b:
            kept_a -= 1
          else:
            kept_b -= 1
        found = packing.truncated_sizes(size_a, size_b, room=room)
        assert [int(size) for size in found] == [kept_a, kept_b]


@pytest.mark.parametrize("options,message", (
  ({"max_seq_length": 2}, "needs? at least 3"),
  ({"pad_to_max_length": True}, "needs max_seq_length"),
))
def test_lengths_that_cannot_be_are_refused(toy, options, message):
  with pytest.raises(InputError, match=message):
    toy(["a"], **options)


def test_a_pair_needs_room_for_three_special_tokens(toy):
  with pytest.raises(InputError, match="received 3; .* at least 4"):
    toy(["a"], ["a"], max_seq_length=3)


# Sizes of a and b, max_seq_length, and what is left of b.
@pytest.mark.parametrize("size_a,size_b,length,left", (
  (3, 9, 10, 4), (3, 4, 10, 4), (7, 9, 10, 0), (0, 9, 10, 7), (3, 2, 10, 2)))
def test_only_the_second_is_cut_where_that_is_asked_for(
    toy, size_a, size_b, length, left):
  ids_a, ids_b = ragged(range(10, 10 + size_a)), ragged(range(20, 20 + size_b))
  found = toy.pack(
      ids_a, ids_b, max_seq_length=length, truncation="only_second")
  assert found["input_ids"].numpy().tolist() == [
    [CLS, *range(10, 10 + size_a), SEP, *range(20, 20 + left), SEP]]


def test_a_first_segment_that_cannot_stay_whole_is_an_error(toy):
  pair = ragged([10], range(10, 15)), ragged([20], [20])
  pack = lambda a, b: toy.pack(
      a, b, max_seq_length=7, truncation="only_second")
  for function in (pack, tf.function(pack)):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="room for 4 pieces; cut it"):
      function(*pair)
    found = function(pair[0][:, :4], pair[1])["input_ids"]
    assert found.numpy().tolist() == [
      [2, 10, 3, 20, 3, 0, 0], [2, 10, 11, 12, 13, 3, 3]]


@pytest.mark.parametrize("multiple,longest,expected", (
  (8, 5, 8), (8, 6, 8), (8, 7, 16), (1, 5, 7), (5, 3, 5), (64, 0, 64)))
def test_rows_are_padded_to_a_multiple(toy, multiple, longest, expected):
  found = toy.pack(ragged(range(10, 10 + longest), []),
                   pad_to_multiple_of=multiple)
  assert found["input_ids"].shape == (2, expected)
  assert tf.reduce_sum(found["input_mask"], axis=1).numpy().tolist() == [
    longest + 2, 2]


@pytest.mark.parametrize("options,message", (
  ({"truncation": "first"}, "received 'first'; must be one of longest_first"),
  ({"pad_to_multiple_of": 0}, "received 0; must be at least 1"),
  ({"pad_to_multiple_of": 8, "max_seq_length": 20}, "multiple of"),
  ({"pad_to_multiple_of": 8, "max_seq_length": 16, "pad_to_max_length": True},
   "one of the two"),
))
def test_options_that_cannot_be_are_refused(toy, options, message):
  with pytest.raises(InputError, match=message):
    toy(["a"], **options)


NO_ROWS = ([[1]], tf.constant([[1]]), tf.constant(1), None, np.ones([1, 1]),
           tf.ragged.constant([[[1]]]), tf.ragged.constant([["a"]]),
           tf.ragged.constant([[1.0]]))


@pytest.mark.parametrize("ids", NO_ROWS)
def test_anything_but_rows_of_pieces_is_refused(toy, ids):
  message = r"must be a RaggedTensor of integers \[B"
  rows = ragged([1])
  for pack in (toy.pack, toy.pack_windows):
    with pytest.raises(InputError, match="ids_a: " + message):
      pack(ids)
    if ids is not None:
      with pytest.raises(InputError, match="ids_b: " + message):
        pack(rows, ids)


def test_rows_that_are_not_equally_many_are_refused(toy):
  for pack in (toy.pack, toy.pack_windows):
    with pytest.raises(InputError, match="equally many rows; received 1 and 2"):
      pack(ragged([1]), ragged([1], [1]))
    graph = tf.function(pack, input_signature=[
      tf.RaggedTensorSpec([None, None], tf.int32)] * 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="equally many"):
      graph(ragged([1]), ragged([1], [1]))


# Windows.


def plain_windows(size, *, room, stride):
  """(start, size) of each, step by step as the original makes its spans."""
  windows, start = [], 0
  while True:
    length = min(size - start, room)
    windows.append((start, length))
    if start + length == size:
      return windows
    start += min(length, stride)


def test_windows_are_those_worked_out_by_hand(toy):
  # Room for 12 - 3 - 2 = 7 pieces of b after a of two, for 8 after a of one.
  found = toy.pack_windows(
      ragged([10, 11, 12], [13], [14]),
      ragged(range(20, 35), [40, 41], []),
      max_seq_length=12, doc_stride=5, max_query_length=2)
  assert found.example.numpy().tolist() == [0, 0, 0, 1, 2]
  assert found.start.numpy().tolist() == [0, 5, 10, 0, 0]
  assert found.size.numpy().tolist() == [7, 7, 5, 2, 0]
  assert found.position.numpy().tolist() == [4, 4, 4, 3, 3]
  assert found.inputs["input_ids"].numpy().tolist() == [
    [2, 10, 11, 3, 20, 21, 22, 23, 24, 25, 26, 3],
    [2, 10, 11, 3, 25, 26, 27, 28, 29, 30, 31, 3],
    [2, 10, 11, 3, 30, 31, 32, 33, 34, 3, 0, 0],
    [2, 13, 3, 40, 41, 3, 0, 0, 0, 0, 0, 0],
    [2, 14, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0]]
  assert found.inputs["segment_ids"].numpy().tolist() == [
    [0] * 4 + [1] * 8, [0] * 4 + [1] * 8, [0] * 4 + [1] * 6 + [0] * 2,
    [0] * 3 + [1] * 3 + [0] * 6, [0] * 3 + [1] + [0] * 8]
  assert {value.dtype for value in tf.nest.flatten(found)} == {tf.int32}


def test_windows_over_single_rows(toy):
  found = toy.pack_windows(
      ragged(range(10, 17), []), max_seq_length=6, doc_stride=2)
  assert found.inputs["input_ids"].numpy().tolist() == [
    [2, 10, 11, 12, 13, 3], [2, 12, 13, 14, 15, 3], [2, 14, 15, 16, 3, 0],
    [2, 3, 0, 0, 0, 0]]
  assert not found.inputs["segment_ids"].numpy().any()
  assert found.example.numpy().tolist() == [0, 0, 0, 1]
  assert found.start.numpy().tolist() == [0, 2, 4, 0]
  assert found.position.numpy().tolist() == [1] * 4


@hypothesis.settings(max_examples=100)
@hypothesis.given(
    strategies.lists(
        strategies.tuples(strategies.integers(0, 9), strategies.integers(0, 60)),
        max_size=4),
    strategies.integers(1, 30), strategies.integers(0, 5),
    strategies.integers(1, 20), strategies.booleans())
def test_windows_are_those_of_the_original_step_by_step(
    toy, sizes, stride, max_query_length, more, is_pair):
  length = max_query_length + 3 + more
  ids_a = ragged(*(range(100, 100 + size) for size, _ in sizes))
  ids_b = ragged(*(range(200, 200 + size) for _, size in sizes))
  segments = (ids_a, ids_b) if is_pair else (ids_b,)
  found = toy.pack_windows(
      *segments, max_seq_length=length, doc_stride=stride,
      max_query_length=max_query_length)
  expected = []
  for example, (size_a, size_b) in enumerate(sizes):
    query = [*range(100, 100 + min(size_a, max_query_length)), SEP]
    head = [CLS, *(query if is_pair else [])]
    for start, size in plain_windows(
        size_b, room=length - len(head) - 1, stride=stride):
      part = [*range(200 + start, 200 + start + size), SEP]
      expected.append((example, start, size, len(head), [*head, *part]))
  rows = [[row[0] for row in zip(values.numpy())] for values in found[1:]]
  mask = found.inputs["input_mask"].numpy().astype(bool)
  ids = [row[kept].tolist() for row, kept in
         zip(found.inputs["input_ids"].numpy(), mask)]
  assert list(zip(*rows, ids, strict=True)) == expected
  # Every piece is in a window, and none is padded more than it must be.
  assert mask.shape[1] == max(
      [len(row[-1]) for row in expected], default=2 + is_pair)


def test_windows_in_a_data_set_have_the_length_asked_for(toy):
  texts = tf.data.Dataset.from_tensors((["a a", "a"], ["a " * 50, "a a a"]))

  def windows(questions, documents):
    return toy.pack_windows(
        toy.tokenize(questions), toy.tokenize(documents), max_seq_length=24,
        doc_stride=10, max_query_length=4, pad_to_max_length=True)

  found = next(iter(texts.map(windows)))
  # Room for 19 after two pieces, so 1 + ceil(31 / 10); for 20 after one.
  assert found.inputs["input_ids"].shape == (6, 24)
  assert found.example.numpy().tolist() == [0] * 5 + [1]
  assert texts.map(windows).element_spec.inputs["input_ids"].shape[1] == 24


@pytest.mark.parametrize("options,message", (
  ({"max_seq_length": 67, "max_query_length": 64}, "need at least 68"),
  ({"doc_stride": 0}, "received 0 and 64; must be at least"),
  ({"max_query_length": -1}, "received 128 and -1; must be at least"),
  ({"pad_to_multiple_of": 100}, "multiple of"),
))
def test_windows_that_cannot_be_are_refused(toy, options, message):
  with pytest.raises(InputError, match=message):
    toy.pack_windows(ragged([1]), ragged([1]), **options)


def test_a_window_needs_room_for_a_piece(toy):
  with pytest.raises(InputError, match="received 2; .* need at least 3"):
    toy.pack_windows(ragged([1]), max_seq_length=2)
