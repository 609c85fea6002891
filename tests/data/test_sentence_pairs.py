"""The recipe for pairs, rule by rule, on corpora small enough to work out."""

import collections
import doctest

import numpy as np
import pytest

from bert_tf.config import InputError
from bert_tf.data import sentence_pairs
from bert_tf.data.sentence_pairs import Documents
from bert_tf.data.sentence_pairs import Pairs

PASSES = 4000


def _documents(*lengths_of_documents):
  """Documents with sentences of these lengths; ids count from 0 upward."""
  number = iter(range(10**6))
  return Documents.from_lists([
    [[next(number) for _ in range(length)] for length in lengths]
    for lengths in lengths_of_documents])


def _draw(documents, max_seq_length, *, short=0.0, passes=PASSES, seed=1):
  return sentence_pairs.draw_pairs(
      documents, max_seq_length=max_seq_length, short_seq_prob=short,
      passes=passes, generator=np.random.default_rng(seed))


def _shares(values):
  counts = collections.Counter(values)
  return {value: n / counts.total() for value, n in sorted(counts.items())}


def _is_close(shares, expected, tolerance=0.035):
  # Four standard deviations of a share of 4,000 draws are 0.032 at most.
  return shares.keys() == expected.keys() and all(
      abs(shares[key] - expected[key]) < tolerance for key in expected)


def test_unused_sentences_are_put_back_and_all_others_used_once():
  # Ten pieces a pair, five a sentence: two sentences are gathered, A is the
  # first. Sentence i of document 0 starts at piece 5 i; document 1 at 35.
  documents = _documents([5] * 7, [5] * 4)
  random_shares = []
  for seed in range(200):
    pairs = _draw(documents, 13, passes=1, seed=seed)
    assert (pairs.a_length == 5).all() and (pairs.b_length == 5).all()
    own = pairs.select(pairs.a_start < 35)
    own = own.select(np.argsort(own.a_start))
    expected_start = 0
    for a, b, is_random in zip(
        own.a_start, own.b_start, own.is_random_next):
      assert a == expected_start
      if is_random:  # B is from document 1, and its place here is next A.
        assert b in (35, 40, 45, 50)
        expected_start += 5
      else:
        assert b == a + 5
        expected_start += 10
      if a == 30:  # The last sentence alone: always random.
        assert is_random
      else:
        random_shares.append(is_random)
    assert expected_start == 35
  assert 0.45 < np.mean(random_shares) < 0.55


def test_a_ends_at_any_sentence_but_the_last_with_equal_chances():
  pairs = _draw(_documents([5, 5, 5, 5], [20]), 23)
  follows = pairs.select((pairs.a_start == 0) & ~pairs.is_random_next)
  assert _is_close(
      _shares(follows.a_length.tolist()), {5: 1/3, 10: 1/3, 15: 1/3}, 0.05)
  assert (follows.a_length + follows.b_length == 20).all()
  assert (follows.b_start == follows.a_start + follows.a_length).all()


def test_sentences_are_gathered_until_the_target_is_reached():
  # Target 10. From sentence 0: 4 4 2. From 1: 4 2 3 is not enough, 4 2 3 3
  # is, and two pieces are cut. From 2 and 3 the document ends before.
  pairs = _draw(_documents([4, 4, 2, 3, 3], [9]), 13)
  follows = pairs.select(~pairs.is_random_next & (pairs.a_start < 16))
  totals = follows.a_length + follows.b_length
  seen = set(zip(follows.a_start.tolist(), totals.tolist()))
  # A from sentence 1 starts at 4, or at 5 or 6 if it lost pieces in front.
  assert seen == {(0, 10), (4, 10), (5, 10), (6, 10), (8, 8), (10, 6)}


def test_half_of_the_pairs_with_a_choice_are_random():
  pairs = _draw(_documents([5, 5], [3, 3, 3, 3]), 13)
  first = pairs.select(pairs.a_start == 0)
  assert _is_close(_shares(first.is_random_next.tolist()), {
    False: 0.5, True: 0.5})


def test_random_b_is_any_sentence_of_any_other_document():
  # Document 0 has one sentence. Its B is document 1 or 2 with one half each,
  # and within a document all sentences have equal chances.
  pairs = _draw(_documents([5], [9], [5, 5, 5]), 13)
  own = pairs.select(pairs.a_start == 0)
  assert own.is_random_next.all() and len(own.a_start) == PASSES
  # Of the nine pieces four go, from both ends: B starts at 5 to 9.
  starts = np.where(own.b_start < 14, 5, own.b_start)
  assert _is_close(
      _shares(starts.tolist()), {5: 1/2, 14: 1/6, 19: 1/6, 24: 1/6})


def test_random_b_gathers_what_the_target_leaves():
  # A has 3 of 10 pieces: B takes sentences until 7 are reached, 2 + 2 + 4,
  # or until its document ends; the eight are then cut to seven.
  pairs = _draw(_documents([3], [2, 2, 4, 2]), 13)
  own = pairs.select(pairs.a_start == 0)
  lengths = {3: 7, 4: 7, 5: 7, 7: 6, 11: 2}
  assert set(own.b_start.tolist()) == {3, 4, 5, 6, 7, 11}
  for start, length in zip(own.b_start.tolist(), own.b_length.tolist()):
    if start == 6:  # Sentences 2 + 4 + 2 from 5 on, cut at the front.
      assert length == 7
    else:
      assert length == lengths[start]


def test_random_b_has_a_sentence_even_if_a_fills_the_target():
  pairs = _draw(_documents([30], [2, 2]), 13)
  own = pairs.select(pairs.a_start < 30)
  assert set(own.b_length.tolist()) == {2}
  assert set(own.a_length.tolist()) == {8}


def test_short_targets_are_uniform_from_two_on():
  # Sentences of one piece: what is gathered is the target. S 8 leaves 5.
  documents = _documents([1] * 40, [1] * 40)

  def totals(short):
    pairs = _draw(documents, 8, short=short)
    first = pairs.select((pairs.a_start == 0) & ~pairs.is_random_next)
    return _shares((first.a_length + first.b_length).tolist())

  assert totals(0.0) == {5: 1.0}
  assert _is_close(
      totals(1.0), {2: 1/4, 3: 1/4, 4: 1/4, 5: 1/4}, 0.045)
  assert _is_close(
      totals(0.4), {2: 0.1, 3: 0.1, 4: 0.1, 5: 0.7}, 0.045)


def test_a_target_holds_for_a_document_through_a_pass():
  pairs = _draw(_documents([1] * 60, [1] * 60), 8, short=1.0, passes=1)
  own = pairs.select((pairs.a_start < 58) & ~pairs.is_random_next)
  assert len(own.a_start) > 4
  assert len(set((own.a_length + own.b_length).tolist())) == 1


def _cut_piece_by_piece(a, b, limit):
  """The original's loop: the longer side loses one, B on a tie."""
  while a + b > limit:
    if a > b:
      a -= 1
    else:
      b -= 1
  return a, b


def test_the_longer_side_is_cut_and_b_on_a_tie():
  by_hand = {
    (6, 6): (4, 3),  # b a b a b
    (9, 2): (5, 2), (2, 9): (2, 5), (3, 3): (3, 3), (1, 30): (1, 6),
    (30, 1): (6, 1), (4, 4): (4, 3), (5, 4): (4, 3), (4, 5): (4, 3)}
  cases = [(a, b) for a in range(1, 25) for b in range(1, 25)]
  cases += by_hand
  a, b = np.array(cases).T
  zeros = np.zeros(len(cases), np.int64)
  cut = sentence_pairs.truncate(
      Pairs(zeros, a, zeros, b, zeros > 0), limit=7,
      generator=np.random.default_rng(0))
  got = list(zip(cut.a_length.tolist(), cut.b_length.tolist()))
  assert got[-len(by_hand):] == list(by_hand.values())
  assert got == [_cut_piece_by_piece(*case, 7) for case in cases]


def test_a_coin_for_each_piece_decides_between_front_and_end():
  ones = np.ones(PASSES, np.int64)
  cut = sentence_pairs.truncate(
      Pairs(100 * ones, 5 * ones, 200 * ones, 4 * ones, ones > 0), limit=6,
      generator=np.random.default_rng(0))
  # Two go from A and one from B.
  assert set(cut.a_length.tolist()) == set(cut.b_length.tolist()) == {3}
  assert _is_close(
      _shares(cut.a_start.tolist()), {100: 0.25, 101: 0.5, 102: 0.25})
  assert _is_close(_shares(cut.b_start.tolist()), {200: 0.5, 201: 0.5})


def test_rows_are_cls_a_sep_b_sep_and_padding():
  documents = _documents([3, 2], [2])  # ids 0 1 2, 3 4 and 5 6
  pairs = Pairs(*(np.array(values) for values in (
    [0, 3], [3, 2], [3, 5], [2, 1], [False, True])))
  rows = sentence_pairs.join_pairs(
      documents, pairs, max_seq_length=8, cls_id=101, sep_id=102, pad_id=99)
  assert {name: array.dtype for name, array in rows.items()} == dict.fromkeys(
      ("input_ids", "input_mask", "segment_ids"), np.int32)
  assert rows["input_ids"].tolist() == [
    [101, 0, 1, 2, 102, 3, 4, 102], [101, 3, 4, 102, 5, 102, 99, 99]]
  assert rows["input_mask"].tolist() == [[1] * 8, [1] * 6 + [0] * 2]
  assert rows["segment_ids"].tolist() == [
    [0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0]]


def test_one_document_has_no_random_next():
  with pytest.raises(InputError) as error:
    _draw(_documents([5, 5]), 13)
  assert "1 document" in str(error.value)
  assert "blank lines" in str(error.value)


def test_the_same_seed_gives_the_same_pairs():
  documents = _documents([5, 4, 3] * 9, [2, 8] * 7, [40])
  first, again, other = (
    np.stack(_draw(documents, 16, short=0.1, passes=5, seed=seed)[:4])
    for seed in (3, 3, 4))
  assert np.array_equal(first, again)
  assert first.shape != other.shape or not np.array_equal(first, other)


def test_empty_sentences_are_no_input():
  with pytest.raises(ValueError, match="empty"):
    Documents.from_lists([[[1], []]])


def test_the_examples_in_the_docstrings_hold():
  assert doctest.testmod(sentence_pairs).failed == 0
