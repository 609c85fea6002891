"""Masks: counts, shares, and what is never touched."""

import doctest

import numpy as np
import pytest

from bert_tf.data import masking

CLS, SEP, PAD, MASK, VOCAB_SIZE = 1, 2, 0, 3, 1000


def _rows(*lengths_of_segments, width=32):
  """[CLS] A [SEP] B [SEP] with ids from 10 upward, a row for each pair."""
  ids = np.zeros((len(lengths_of_segments), width), np.int32)
  for row, (a, b) in zip(ids, lengths_of_segments):
    text = list(range(10, 10 + a + b))
    row[:a + b + 3] = [CLS, *text[:a], SEP, *text[a:], SEP]
  return ids, (ids != PAD).astype(np.int32)


def _mask(ids, mask, *, prob=0.15, most=5, seed=0, is_continuation=None):
  return masking.mask_rows(
      ids, mask, special_ids=(CLS, SEP, PAD), mask_id=MASK,
      vocab_size=VOCAB_SIZE, masked_lm_prob=prob,
      max_predictions_per_seq=most, is_continuation=is_continuation,
      generator=np.random.default_rng(seed))


@pytest.mark.parametrize("length, expected", [
  # 0.15 of the length, halves to even; by hand.
  (5, 1), (3, 1), (9, 1), (10, 2), (16, 2), (17, 3), (20, 3), (30, 4),
  (50, 8), (64, 10), (127, 19), (128, 19), (130, 20), (512, 20),
])
def test_fifteen_percent_of_the_length_at_least_one(length, expected):
  # 1.5 -> 2 (10), 4.5 -> 4 (30), 7.5 -> 8 (50)
  assert masking.count_predictions(
      np.array([length]), masked_lm_prob=0.15,
      max_predictions_per_seq=20).tolist() == [expected]


def test_the_count_is_that_of_pythons_round():
  lengths = np.arange(3, 513)
  for prob in (0.1, 0.15, 0.25, 0.5):
    assert masking.count_predictions(
        lengths, masked_lm_prob=prob, max_predictions_per_seq=77).tolist() == [
      min(77, max(1, int(round(length * prob)))) for length in lengths.tolist()]


def test_a_row_can_be_restored_from_what_is_returned():
  ids, mask = _rows((9, 8), (1, 1), (20, 9), (4, 3))
  before = ids.copy()
  out = _mask(ids, mask)
  assert np.array_equal(ids, before)
  assert {name: (a.shape, a.dtype) for name, a in out.items()} == {
    "input_ids": ((4, 32), np.int32),
    "masked_lm_positions": ((4, 5), np.int32),
    "masked_lm_ids": ((4, 5), np.int32),
    "masked_lm_weights": ((4, 5), np.float32)}
  # Lengths 20, 5, 32 and 10: 3, 1 (0.75), 5 (4.8) and 2 (1.5) predictions.
  assert out["masked_lm_weights"].tolist() == [
    [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
  restored = out["input_ids"].copy()
  for row in range(4):
    used = int(out["masked_lm_weights"][row].sum())
    positions = out["masked_lm_positions"][row]
    assert (np.diff(positions[:used]) > 0).all()
    assert not positions[used:].any()
    assert not out["masked_lm_ids"][row, used:].any()
    restored[row, positions[:used]] = out["masked_lm_ids"][row, :used]
  assert np.array_equal(restored, ids)


@pytest.mark.parametrize("whole_words", [False, True])
def test_specials_and_padding_are_never_touched(whole_words):
  ids, mask = _rows(*[(a, b) for a in range(1, 9) for b in range(1, 9)] * 20)
  table = np.arange(VOCAB_SIZE) % 3 == 0 if whole_words else None
  out = _mask(ids, mask, prob=1.0, most=29, is_continuation=table)
  # Probability 1 asks for more than the candidates: all are chosen.
  num_candidates = mask.sum(axis=1) - 3
  assert np.array_equal(out["masked_lm_weights"].sum(axis=1), num_candidates)
  special = ids < 10
  assert np.array_equal(out["input_ids"][special], ids[special])
  used = out["masked_lm_weights"] > 0
  assert (out["masked_lm_ids"][used] >= 10).all()


def test_every_place_has_the_same_chance():
  ids, mask = _rows(*[(9, 8)] * 20000)
  out = _mask(ids, mask)
  used = out["masked_lm_weights"] > 0
  counts = np.bincount(out["masked_lm_positions"][used], minlength=32)
  # Three of 17: 3,529 each, standard deviation 56.
  places = [*range(1, 10), *range(11, 19)]
  assert np.abs(counts[places] - 20000 * 3 / 17).max() < 5 * 56
  assert counts.sum() == 60000 == counts[places].sum()


def test_eighty_ten_ten_for_each_piece():
  ids, mask = _rows(*[(15, 14)] * 10000)
  out = _mask(ids, mask)
  rows, slots = np.nonzero(out["masked_lm_weights"])
  now = out["input_ids"][rows, out["masked_lm_positions"][rows, slots]]
  was = out["masked_lm_ids"][rows, slots]
  assert len(now) == 50000
  is_random = (now != was) & (now != MASK)
  # Standard deviations 0.0018 and 0.0013; a random piece is [MASK] or the
  # old one in 1 of 1000 cases each.
  assert abs(np.mean(now == MASK) - 0.8001) < 0.008
  assert abs(np.mean(now == was) - 0.1001) < 0.006
  assert abs(np.mean(is_random) - 0.0998) < 0.006
  # Random pieces come from the whole vocabulary, specials too.
  drawn = np.bincount(now[is_random], minlength=VOCAB_SIZE)
  assert len(drawn) == VOCAB_SIZE
  fifths = drawn.reshape(5, -1).sum(axis=1) / drawn.sum()
  assert np.abs(fifths - 0.2).max() < 0.03
  assert drawn[:3].sum() > 0


def test_pieces_of_a_whole_word_draw_for_themselves():
  # Two words of three pieces; three predictions: one word, whole.
  ids = np.tile(
      np.array([CLS, 10, 501, 502, SEP, 11, 503, 504, SEP]), (4000, 1))
  table = np.arange(VOCAB_SIZE) >= 500
  out = _mask(ids, np.ones_like(ids), prob=1/3, is_continuation=table)
  found = {tuple(row[:3]) for row in out["masked_lm_positions"].tolist()}
  assert found == {(1, 2, 3), (5, 6, 7)}
  hidden = np.take_along_axis(
      out["input_ids"], out["masked_lm_positions"][:, :3], axis=1) == MASK
  # Three independent draws of 0.8: all 0.512, none 0.008.
  assert abs(np.mean(hidden.all(axis=1)) - 0.512) < 0.04
  assert abs(np.mean(hidden.any(axis=1)) - 0.992) < 0.01


def test_a_word_that_exceeds_the_number_is_passed_over():
  # Words of 1, 3 and 1 pieces; two predictions: the two short ones, always.
  ids = np.tile(np.array([CLS, 10, 11, 501, 502, 12, SEP]), (500, 1))
  table = np.arange(VOCAB_SIZE) >= 500
  out = _mask(ids, np.ones_like(ids), prob=0.3, is_continuation=table)
  assert (out["masked_lm_positions"][:, :2] == [1, 5]).all()
  assert (out["masked_lm_weights"].sum(axis=1) == 2).all()


def test_words_of_different_sizes_fill_the_number():
  # Sizes 2, 1, 2; three predictions: a two and the one.
  ids = np.tile(np.array([CLS, 10, 501, 11, 12, 502, SEP]), (2000, 1))
  table = np.arange(VOCAB_SIZE) >= 500
  out = _mask(ids, np.ones_like(ids), prob=0.43, is_continuation=table)
  found = [tuple(row[:3]) for row in out["masked_lm_positions"].tolist()]
  assert set(found) == {(1, 2, 3), (3, 4, 5)}
  # Both twos first, in either order: the second is passed over.
  assert abs(np.mean([row[0] == 1 for row in found]) - 0.5) < 0.05


def test_a_continuation_without_its_head_stands_alone():
  # Cut at the front: 501 has no head, neither behind [CLS] nor behind [SEP].
  ids = np.tile(np.array([CLS, 501, 10, SEP, 502, 11, SEP]), (2000, 1))
  table = np.arange(VOCAB_SIZE) >= 500
  out = _mask(ids, np.ones_like(ids), prob=0.15, is_continuation=table)
  assert (out["masked_lm_weights"].sum(axis=1) == 1).all()
  counts = np.bincount(out["masked_lm_positions"][:, 0], minlength=7)
  assert np.abs(counts[[1, 2, 4, 5]] - 500).max() < 100


def test_a_row_of_long_words_only_may_have_no_prediction():
  ids = np.array([[CLS, 10, 501, SEP, 11, 502, SEP]])
  table = np.arange(VOCAB_SIZE) >= 500
  out = _mask(ids, np.ones_like(ids), is_continuation=table)
  assert not out["masked_lm_weights"].any()
  assert np.array_equal(out["input_ids"], ids)


def test_continuations_are_the_pieces_with_two_hashes():
  assert masking.continuation_table(["[PAD]", "a", "##b", "#", "##"]).tolist() \
      == [False, False, True, False, True]


def test_no_rows_give_no_rows():
  ids, mask = np.zeros((0, 8), np.int32), np.zeros((0, 8), np.int32)
  assert _mask(ids, mask)["input_ids"].shape == (0, 8)


def test_the_examples_in_the_docstrings_hold():
  assert doctest.testmod(masking).failed == 0
