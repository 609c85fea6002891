"""Rows of full sentences, worked out by hand and by their laws."""

import numpy as np
import pytest

from bert_tf.data import full_sentences
from bert_tf.data.sentence_pairs import Documents

SEP = 2


def draw(documents, *, passes=1, max_seq_length=8, seed=0):
  rows = full_sentences.draw_rows(
      Documents.from_lists(documents), max_seq_length=max_seq_length,
      passes=passes, sep_id=SEP, generator=np.random.default_rng(seed))
  return [rows.pieces[start:start + length].tolist()
          for start, length in zip(rows.start, rows.length)]


def test_rows_hold_as_many_full_sentences_as_fit():
  # Room for six pieces. The only choice is where the pass begins.
  documents = [[[10, 11], [12, 13, 14], [15, 16]], [[20]], [[30] * 4]]
  whole = {
    0: [[10, 11, 12, 13, 14], [15, 16, SEP, 20], [30] * 4],
    1: [[12, 13, 14, 15, 16], [20, SEP, *[30] * 4], [10, 11]],
    2: [[15, 16, SEP, 20], [30] * 4, [10, 11, 12, 13, 14]],
    # Begins with the separator behind 16, which is passed over.
    3: [[20, SEP, *[30] * 4], [10, 11, 12, 13, 14], [15, 16]],
  }
  found = {tuple(map(tuple, draw(documents, seed=seed)))
           for seed in range(60)}
  for rows in whole.values():
    assert tuple(map(tuple, rows)) in found


def test_a_sentence_longer_than_a_row_is_cut_and_nothing_is_lost():
  sentence = list(range(100, 115))  # 6 + 6 + 3
  found = draw([[sentence, [7, 8, 9]]], passes=30)
  assert [100, 101, 102, 103, 104, 105] in found
  assert [112, 113, 114, 7, 8, 9] in found
  assert max(map(len, found)) == 6
  counts = np.bincount([piece for row in found for piece in row])
  assert (counts[[*sentence, 7, 8, 9]] == 30).all()
  assert not counts[SEP]  # one document has no border inside


@pytest.mark.parametrize("seed", range(5))
def test_each_pass_has_every_piece_once_in_order(seed):
  rng = np.random.default_rng(seed)
  number = iter(range(10, 10_000))
  documents = [
    [[next(number) for _ in range(rng.integers(1, 20))]
     for _ in range(rng.integers(1, 9))] for _ in range(40)]
  flat = [p for document in documents for s in document for p in s]
  home = {piece: d for d, document in enumerate(documents)
          for s in document for piece in s}
  rows = draw(documents, max_seq_length=16, seed=seed)
  pieces = [piece for row in rows for piece in row if piece != SEP]
  first = flat.index(pieces[0])
  assert pieces == flat[first:] + flat[:first]
  for row in rows:
    assert 0 < len(row) <= 14
    assert row[0] != SEP and row[-1] != SEP
    # A separator stands where the document changes, and nowhere else.
    for one, other in zip(row, row[1:]):
      if SEP not in (one, other):
        assert home[one] == home[other] and other == one + 1
    for place in np.flatnonzero(np.array(row) == SEP):
      assert home[row[place - 1]] + 1 == home[row[place + 1]]


def test_passes_cut_at_different_places():
  documents = [[[10 + n] for n in range(50)]]
  rows = draw(documents, passes=8, max_seq_length=12)
  assert len({row[0] for row in rows}) > 20


def test_rows_are_joined_as_worked_out_by_hand():
  rows = full_sentences.Rows(
      pieces=np.array([5, 6, 2, 7], np.uint16), start=np.array([0, 3]),
      length=np.array([4, 1], np.int32))
  joined = full_sentences.join_rows(
      rows, max_seq_length=7, cls_id=1, sep_id=SEP, pad_id=0)
  assert {name: array.tolist() for name, array in joined.items()} == {
    "input_ids": [[1, 5, 6, 2, 7, 2, 0], [1, 7, 2, 0, 0, 0, 0]],
    "input_mask": [[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0]],
    "segment_ids": [[0] * 7] * 2}
  assert all(array.dtype == np.int32 for array in joined.values())
