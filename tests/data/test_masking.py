"""Masks: counts, shares, and what is never touched.

One table of cases and one set of statistics for both implementations: for
numpy, which the data tool uses, and for TensorFlow in the input pipeline.
"""

import collections
import doctest
import itertools

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config import InputError
from bert_tf.data import dynamic_masking
from bert_tf.data import masking

CLS, SEP, PAD, MASK, VOCAB_SIZE = 1, 2, 0, 3, 1000


def _rows(*lengths_of_segments, width=32):
  """[CLS] A [SEP] B [SEP] with ids from 10 upward, a row for each pair."""
  ids = np.zeros((len(lengths_of_segments), width), np.int32)
  for row, (a, b) in zip(ids, lengths_of_segments):
    text = list(range(10, 10 + a + b))
    row[:a + b + 3] = [CLS, *text[:a], SEP, *text[a:], SEP]
  return ids, (ids != PAD).astype(np.int32)


def _mask_rows(ids, mask, *, seed, **arguments):
  return masking.mask_rows(
      ids, mask, generator=np.random.default_rng(seed), **arguments)


def _mask_batch(ids, mask, *, seed, **arguments):
  out = dynamic_masking.mask_batch(
      {"input_ids": tf.constant(ids), "input_mask": tf.constant(mask)},
      seed=tf.constant([seed, 0]), **arguments)
  assert np.array_equal(out.pop("input_mask"), mask)
  return {name: tensor.numpy() for name, tensor in out.items()}


@pytest.fixture(params=[_mask_rows, _mask_batch], ids=["numpy", "tensorflow"])
def masked(request):
  def run(ids, mask=None, *, prob=0.15, most=5, seed=0, **arguments):
    mask = np.ones_like(ids) if mask is None else mask
    return request.param(
        ids.astype(np.int32), mask.astype(np.int32), seed=seed,
        special_ids=(CLS, SEP, PAD), mask_id=MASK, vocab_size=VOCAB_SIZE,
        masked_lm_prob=prob, max_predictions_per_seq=most, **arguments)
  return run


def _chosen(out):
  """The positions of each row's predictions."""
  return [tuple(row[:int(weights.sum())]) for row, weights in zip(
      out["masked_lm_positions"].tolist(), out["masked_lm_weights"])]


def _now_and_was(out):
  """Of all predictions: the piece that is there now, and the old one."""
  rows, slots = np.nonzero(out["masked_lm_weights"])
  now = out["input_ids"][rows, out["masked_lm_positions"][rows, slots]]
  return now, out["masked_lm_ids"][rows, slots]


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


def test_a_row_can_be_restored_from_what_is_returned(masked):
  ids, mask = _rows((9, 8), (1, 1), (20, 9), (4, 3))
  before = ids.copy()
  out = masked(ids, mask)
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
def test_specials_and_padding_are_never_touched(masked, whole_words):
  ids, mask = _rows(*[(a, b) for a in range(1, 9) for b in range(1, 9)] * 20)
  table = np.arange(VOCAB_SIZE) % 3 == 0 if whole_words else None
  out = masked(ids, mask, prob=1.0, most=29, is_continuation=table)
  # Probability 1 asks for more than the candidates: all are chosen.
  num_candidates = mask.sum(axis=1) - 3
  assert np.array_equal(out["masked_lm_weights"].sum(axis=1), num_candidates)
  special = ids < 10
  assert np.array_equal(out["input_ids"][special], ids[special])
  used = out["masked_lm_weights"] > 0
  assert (out["masked_lm_ids"][used] >= 10).all()


def test_every_place_has_the_same_chance(masked):
  ids, mask = _rows(*[(9, 8)] * 20000)
  out = masked(ids, mask)
  used = out["masked_lm_weights"] > 0
  counts = np.bincount(out["masked_lm_positions"][used], minlength=32)
  # Three of 17: 3,529 each, standard deviation 56.
  places = [*range(1, 10), *range(11, 19)]
  assert np.abs(counts[places] - 20000 * 3 / 17).max() < 5 * 56
  assert counts.sum() == 60000 == counts[places].sum()


def test_eighty_ten_ten_for_each_piece(masked):
  ids, mask = _rows(*[(15, 14)] * 10000)
  out = masked(ids, mask)
  now, was = _now_and_was(out)
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


def test_pieces_of_a_whole_word_draw_for_themselves(masked):
  # Two words of three pieces; three predictions: one word, whole.
  ids = np.tile(
      np.array([CLS, 10, 501, 502, SEP, 11, 503, 504, SEP]), (4000, 1))
  table = np.arange(VOCAB_SIZE) >= 500
  out = masked(ids, prob=1/3, is_continuation=table)
  found = {tuple(row[:3]) for row in out["masked_lm_positions"].tolist()}
  assert found == {(1, 2, 3), (5, 6, 7)}
  hidden = np.take_along_axis(
      out["input_ids"], out["masked_lm_positions"][:, :3], axis=1) == MASK
  # Three independent draws of 0.8: all 0.512, none 0.008.
  assert abs(np.mean(hidden.all(axis=1)) - 0.512) < 0.04
  assert abs(np.mean(hidden.any(axis=1)) - 0.992) < 0.01


def test_a_word_that_exceeds_the_number_is_passed_over(masked):
  # Words of 1, 3 and 1 pieces; two predictions: the two short ones, always.
  ids = np.tile(np.array([CLS, 10, 11, 501, 502, 12, SEP]), (500, 1))
  table = np.arange(VOCAB_SIZE) >= 500
  out = masked(ids, prob=0.3, is_continuation=table)
  assert (out["masked_lm_positions"][:, :2] == [1, 5]).all()
  assert (out["masked_lm_weights"].sum(axis=1) == 2).all()


def test_words_of_different_sizes_fill_the_number(masked):
  # Sizes 2, 1, 2; three predictions: a two and the one.
  ids = np.tile(np.array([CLS, 10, 501, 11, 12, 502, SEP]), (2000, 1))
  table = np.arange(VOCAB_SIZE) >= 500
  out = masked(ids, prob=0.43, is_continuation=table)
  found = _chosen(out)
  assert set(found) == {(1, 2, 3), (3, 4, 5)}
  # Both twos first, in either order: the second is passed over.
  assert abs(np.mean([row[0] == 1 for row in found]) - 0.5) < 0.05


def test_a_continuation_without_its_head_stands_alone(masked):
  # Cut at the front: 501 has no head, neither behind [CLS] nor behind [SEP].
  ids = np.tile(np.array([CLS, 501, 10, SEP, 502, 11, SEP]), (2000, 1))
  table = np.arange(VOCAB_SIZE) >= 500
  out = masked(ids, prob=0.15, is_continuation=table)
  assert (out["masked_lm_weights"].sum(axis=1) == 1).all()
  counts = np.bincount(out["masked_lm_positions"][:, 0], minlength=7)
  assert np.abs(counts[[1, 2, 4, 5]] - 500).max() < 100


def test_a_row_of_long_words_only_may_have_no_prediction(masked):
  ids = np.array([[CLS, 10, 501, SEP, 11, 502, SEP]])
  table = np.arange(VOCAB_SIZE) >= 500
  out = masked(ids, is_continuation=table)
  assert not out["masked_lm_weights"].any()
  assert np.array_equal(out["input_ids"], ids)


def _distribution_of_words(sizes, number):
  """What each set of words would be chosen with: all orders, one by one."""
  found = collections.Counter()
  orders = list(itertools.permutations(range(len(sizes))))
  for order in orders:
    chosen, room = [], number
    for word in order:
      if sizes[word] <= room:
        chosen.append(word)
        room -= sizes[word]
    found[tuple(sorted(chosen))] += 1 / len(orders)
  return found


@pytest.mark.parametrize("sizes, number, most_chi_square, whole_words", [
  # 20, 20, 10, 7 and 9 sets: the value that chance exceeds once in 1,000
  # with one degree of freedom less.
  ((1, 1, 1, 1, 1, 1), 3, 43.8, False),
  ((1, 1, 1, 1, 1, 1), 3, 43.8, True),
  ((1, 1, 1, 1, 1), 2, 27.9, False),
  ((3, 1, 2, 1, 1), 4, 22.5, True),
  ((2, 1, 3, 2, 1, 4), 5, 26.1, True),
])
def test_each_set_comes_as_often_as_the_definition_says(
    masked, sizes, number, most_chi_square, whole_words):
  # Two padded places, and a separator in the middle.
  text = [piece for word, size in enumerate(sizes)
          for piece in [10 + word, *[500 + word] * (size - 1)]]
  starts = np.cumsum((0, *sizes))
  row = [CLS, *text[:starts[2]], SEP, *text[starts[2]:], SEP, PAD, PAD]
  places = [i for i, piece in enumerate(row) if piece >= 10]
  ids = np.tile(row, (20000, 1))
  out = masked(
      ids, ids != PAD, prob=number / (len(row) - 2), most=8, seed=4,
      is_continuation=(
        np.arange(VOCAB_SIZE) >= 500 if whole_words else None))
  expected = {
    tuple(place for word in words
          for place in places[starts[word]:starts[word + 1]]): share * 20000
    for words, share in _distribution_of_words(sizes, number).items()}
  found = collections.Counter(_chosen(out))
  assert set(found) == set(expected)
  assert sum((found[key] - count) ** 2 / count
             for key, count in expected.items()) < most_chi_square


# MASK, SAME and RND of table 8, and a split of which no share is 0.
@pytest.mark.parametrize("mask_share, same_share, random_share", [
  (0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.8, 0.0, 0.2), (0.8, 0.2, 0.0),
  (0.0, 0.2, 0.8), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.5, 0.3, 0.2)])
def test_any_split_of_masks_same_and_random_pieces(
    masked, mask_share, same_share, random_share):
  ids, mask = _rows(*[(15, 14)] * 4000)
  out = masked(ids, mask, mask_share=mask_share, same_share=same_share)
  now, was = _now_and_was(out)
  assert len(now) == 20000
  # A random piece is [MASK] or the old one in 1 of 1000 cases each.
  same, hidden = now == was, now == MASK
  found = np.array([hidden.mean(), same.mean(), (~hidden & ~same).mean()])
  by_chance = random_share / 1000
  expected = np.array([mask_share + by_chance, same_share + by_chance,
                       random_share - 2 * by_chance])
  assert np.abs(found - expected).max() < 0.015
  if not random_share:
    assert (hidden | same).all()
  if mask_share == 1:
    assert hidden.all()
  if same_share == 1:
    assert same.all()


def test_what_a_piece_becomes_does_not_depend_on_its_place(masked):
  ids, mask = _rows(*[(9, 8)] * 20000)
  out = masked(ids, mask, prob=0.25)
  now, _ = _now_and_was(out)
  at = out["masked_lm_positions"][out["masked_lm_weights"] > 0]
  slot = np.nonzero(out["masked_lm_weights"])[1]
  # About 5,900 a place (standard deviation 0.0052), 20,000 a slot.
  for index, most in ((at, 0.026), (slot, 0.015)):
    hidden = np.bincount(index, weights=now == MASK)
    total = np.bincount(index)
    shares = hidden[total > 0] / total[total > 0]
    assert len(shares) in (17, 5)
    assert np.abs(shares - 0.8001).max() < most


@pytest.mark.parametrize("shares", [(0.8, 0.3), (-0.1, 0.5), (0.5, -0.1)])
def test_impossible_shares_are_refused(masked, shares):
  ids, mask = _rows((9, 8))
  with pytest.raises(InputError, match=f"received {shares[0]} and"):
    masked(ids, mask, mask_share=shares[0], same_share=shares[1])


@pytest.mark.parametrize("table", [None, np.arange(VOCAB_SIZE) >= 500])
def test_rows_with_little_or_nothing_to_predict(masked, table):
  ids = np.array([
    [CLS, SEP, SEP, PAD, PAD, PAD],
    [PAD, PAD, PAD, PAD, PAD, PAD],
    [CLS, 10, SEP, 11, SEP, PAD],
    [SEP, SEP, SEP, SEP, SEP, SEP]])
  out = masked(
      ids, ids != PAD, prob=1.0, most=8, is_continuation=table)
  assert _chosen(out) == [(), (), (1, 3), ()]
  assert out["masked_lm_ids"].tolist() == [
    [0] * 8, [0] * 8, [10, 11, 0, 0, 0, 0, 0, 0], [0] * 8]
  changed = out["input_ids"] != ids
  assert not changed[[0, 1, 3]].any()
  assert not changed[2, [0, 2, 4, 5]].any()


@pytest.mark.parametrize("table", [None, np.arange(VOCAB_SIZE) % 3 == 0])
def test_padding_is_never_chosen_whatever_it_holds(masked, table):
  ids = np.full((500, 16), 10)
  lengths = np.arange(500) % 16 + 1
  mask = np.arange(16) < lengths[:, None]
  out = masked(ids, mask, prob=0.5, most=16, is_continuation=table)
  assert np.array_equal(out["input_ids"][~mask], ids[~mask])
  assert all(not row or row[-1] < length
             for row, length in zip(_chosen(out), lengths))
  assert [len(row) for row in _chosen(out)] == [
    max(1, round(length / 2)) for length in lengths.tolist()]


@pytest.mark.parametrize("prob", [0.1, 0.15, 0.25, 0.35, 0.5])
def test_every_length_has_the_number_of_pythons_round(masked, prob):
  lengths = np.arange(1, 1025)
  mask = np.arange(1024) < lengths[:, None]
  out = masked(np.where(mask, 10, PAD), mask, prob=prob, most=200)
  assert out["masked_lm_weights"].sum(axis=1).tolist() == [
    min(200, max(1, round(length * prob))) for length in lengths.tolist()]


@pytest.mark.parametrize("table", [None, np.arange(VOCAB_SIZE) % 3 == 0])
def test_the_seed_decides(masked, table):
  ids, mask = _rows(*[(9, 8)] * 50)
  first, again, other = (
    masked(ids, mask, seed=seed, is_continuation=table) for seed in (1, 1, 2))
  for name in first:
    assert np.array_equal(first[name], again[name])
  assert not np.array_equal(
      first["masked_lm_positions"], other["masked_lm_positions"])
  # Nor do the rows of a batch look alike.
  assert len(set(_chosen(first))) > 25


def test_rows_of_two_byte_ids_are_masked_alike():
  ids, mask = _rows(*[(9, 8)] * 50)
  arguments = {
    "seed": 0, "special_ids": (CLS, SEP, PAD), "mask_id": MASK,
    "vocab_size": VOCAB_SIZE, "masked_lm_prob": 0.15,
    "max_predictions_per_seq": 5}
  expected = _mask_rows(ids, mask, **arguments)
  for small in (mask.astype(bool), mask.astype(np.uint8)):
    out = _mask_rows(ids.astype(np.uint16), small, **arguments)
    for name, array in expected.items():
      assert out[name].dtype == array.dtype
      assert np.array_equal(out[name], array)


def test_continuations_are_the_pieces_with_two_hashes():
  assert masking.continuation_table(["[PAD]", "a", "##b", "#", "##"]).tolist() \
      == [False, False, True, False, True]


def test_no_rows_give_no_rows(masked):
  ids, mask = np.zeros((0, 8), np.int32), np.zeros((0, 8), np.int32)
  assert masked(ids, mask)["input_ids"].shape == (0, 8)


def test_the_examples_in_the_docstrings_hold():
  assert doctest.testmod(masking).failed == 0
