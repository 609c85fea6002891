"""Masked language modelling: which pieces to hide, and behind what.

Shapes: N rows, S max_seq_length, P max_predictions_per_seq, V entries in the
vocabulary; C candidates and G groups in a row, or in all rows of a block.

Whole rows are masked at once. numpy only; `dynamic_masking` does the same in
TensorFlow, and one set of tests holds both.
"""

from collections.abc import Sequence

import numpy as np

from bert_tf.config import require

# Of the pieces to predict, 80 % become [MASK], 10 % stay as they are and
# the rest become a random piece: Devlin et al. 2019, section 3.1.
MASK_SHARE = 0.8
SAME_SHARE = 0.1


def check_shares(mask_share: float, same_share: float) -> None:
  """`InputError` unless both are shares and leave no less than nothing."""
  require(
      min(mask_share, same_share) >= 0 and mask_share + same_share <= 1 + 1e-9,
      f"mask_share and same_share: received {mask_share} and {same_share}; "
      "each is at least 0, and together they are at most 1.")


def count_predictions(
    lengths: np.ndarray, *, masked_lm_prob: float,
    max_predictions_per_seq: int
) -> np.ndarray:
  """How many pieces to predict in rows of these lengths, specials included.

  At least one, at most P; halves go to the even number, as Python's `round`.

  >>> count_predictions(
  ...     np.array([5, 30, 128]), masked_lm_prob=0.15,
  ...     max_predictions_per_seq=20).tolist()
  [1, 4, 19]
  """
  wanted = np.rint(lengths * masked_lm_prob).astype(np.int64)
  return np.minimum(max_predictions_per_seq, np.maximum(1, wanted))


def continuation_table(vocabulary: Sequence[str]) -> np.ndarray:
  """bool [V]: which entries go on with a word, and do not start one."""
  return np.array([piece.startswith("##") for piece in vocabulary])


def choose_pieces(
    is_candidate: np.ndarray, num_predictions: np.ndarray, *,
    generator: np.random.Generator
) -> np.ndarray:
  """Chooses so many pieces of each row, every set of them equally likely.

  Floyd's algorithm (Bentley and Floyd 1987, "A sample of brilliance") on all
  rows at once: to choose k of C, for each number from C - k to C - 1 draw one
  from 0 up to it, and take the number itself if the drawn one is taken. That
  costs k random numbers a row, sorts nothing and knows no ties.

  Args:
    is_candidate: bool [N, S], pieces that may be chosen.
    num_predictions: int [N], how many to choose; all of a row that has fewer.
    generator: the source of randomness.

  Returns:
    bool [N, S]: the chosen pieces.
  """
  places = np.flatnonzero(is_candidate)  # [C], row after row
  num_candidates = np.count_nonzero(is_candidate, axis=1)  # [N]
  first = np.cumsum(num_candidates) - num_candidates  # [N], into `places`
  wanted = np.minimum(num_predictions, num_candidates)
  num_draws = wanted.max(initial=0)
  draws = generator.random((num_draws, len(is_candidate)))
  # Rows that have what they want look a little beyond their end.
  is_taken = np.zeros(places.size + num_draws, bool)
  for i in range(num_draws):
    last = num_candidates - wanted + i  # [N]
    drawn = first + (draws[i] * (last + 1)).astype(np.int64)
    drawn = np.where(is_taken[drawn], first + last, drawn)
    is_taken[drawn[i < wanted]] = True
  chosen = np.zeros(is_candidate.shape, bool)
  chosen.ravel()[places[is_taken[:places.size]]] = True
  return chosen


def choose_words(
    is_candidate: np.ndarray,
    is_continuation: np.ndarray,
    num_predictions: np.ndarray,
    *,
    generator: np.random.Generator,
) -> np.ndarray:
  """Chooses pieces, a group of them or none, until the number is reached.

  A group is a piece with the continuations right behind it. The groups of a
  row come in random order; one that would exceed the number is passed over.
  A continuation behind something that is not a candidate (its head was cut
  off) starts a group of its own.

  The order is drawn step by step, for all rows at once and only as far as it
  is needed: each row draws one of the groups that it has not drawn yet.

  Args:
    is_candidate: bool [N, S], pieces that may be chosen.
    is_continuation: bool [N, S], pieces that belong to the one before.
    num_predictions: int [N], how many to choose.
    generator: the source of randomness.

  Returns:
    bool [N, S]: the chosen pieces.
  """
  is_head = is_candidate.copy()  # [N, S]
  is_head[:, 1:] &= ~(is_continuation[:, 1:] & is_candidate[:, :-1])
  places = np.flatnonzero(is_candidate)  # [C], row after row
  heads = np.flatnonzero(is_head.ravel()[places])  # [G], into `places`
  sizes = np.diff(heads, append=places.size)  # [G]

  # `order` holds numbers of groups, row after row. Of each row: where those
  # begin that it has not drawn yet, how many they are, and how many pieces
  # it still wants.
  order = np.arange(heads.size)
  left = np.count_nonzero(is_head, axis=1)
  start = np.cumsum(left) - left
  room = num_predictions
  is_taken = np.zeros(heads.size, bool)
  while True:
    is_open = (room > 0) & (left > 0)
    if not is_open.all():
      start, left, room = start[is_open], left[is_open], room[is_open]
    if not room.size:
      break
    drawn = start + (generator.random(room.size) * left).astype(np.int64)
    group = order[drawn]
    order[drawn] = order[start]
    size = sizes[group]
    fits = size <= room
    is_taken[group] = fits
    room = room - size * fits
    start, left = start + 1, left - 1

  chosen = np.zeros(is_candidate.shape, bool)
  chosen.ravel()[places[np.repeat(is_taken, sizes)]] = True
  return chosen


def _choose(
    input_ids: np.ndarray, input_mask: np.ndarray, *,
    special_ids: Sequence[int], masked_lm_prob: float,
    max_predictions_per_seq: int, is_continuation: np.ndarray | None,
    generator: np.random.Generator
) -> np.ndarray:
  """bool [N, S]: the pieces to predict."""
  is_candidate = input_mask > 0  # [N, S]
  for special_id in special_ids:
    is_candidate &= input_ids != special_id
  num_predictions = count_predictions(  # [N]
      input_mask.sum(axis=1), masked_lm_prob=masked_lm_prob,
      max_predictions_per_seq=max_predictions_per_seq)
  if is_continuation is None:
    return choose_pieces(is_candidate, num_predictions, generator=generator)
  return choose_words(
      is_candidate, is_continuation[input_ids], num_predictions,
      generator=generator)


def _hide(
    original: np.ndarray, *, mask_id: int, vocab_size: int, mask_share: float,
    same_share: float, generator: np.random.Generator
) -> np.ndarray:
  """int32 [C]: what stands in the place of these pieces."""
  draw = generator.random(original.size)
  hidden = np.where(draw < mask_share, np.int32(mask_id), original)
  is_random = draw >= mask_share + same_share
  hidden[is_random] = generator.integers(
      0, vocab_size, np.count_nonzero(is_random), np.int32)
  return hidden


def _predictions(
    chosen: np.ndarray, original: np.ndarray, *, max_predictions_per_seq: int
) -> dict[str, np.ndarray]:
  """What `mask_rows` returns of the chosen pieces, [N, P] each.

  Args:
    chosen: bool [N, S].
    original: int32 [C], those pieces, row after row.
    max_predictions_per_seq: P.
  """
  is_used = (  # [N, P], C of them
    np.arange(max_predictions_per_seq)
    < np.count_nonzero(chosen, axis=1)[:, None])
  positions = np.zeros(is_used.shape, np.int32)
  labels = np.zeros(is_used.shape, np.int32)
  positions[is_used] = np.flatnonzero(chosen) % chosen.shape[1]
  labels[is_used] = original
  return {
    "masked_lm_positions": positions,
    "masked_lm_ids": labels,
    "masked_lm_weights": is_used.astype(np.float32),
  }


def mask_rows(
    input_ids: np.ndarray, input_mask: np.ndarray, *,
    special_ids: Sequence[int], mask_id: int, vocab_size: int,
    masked_lm_prob: float, max_predictions_per_seq: int,
    generator: np.random.Generator, mask_share: float = MASK_SHARE,
    same_share: float = SAME_SHARE, is_continuation: np.ndarray | None = None
) -> dict[str, np.ndarray]:
  """Hides pieces of each row, and says which, for the model to find again.

  Devlin et al. 2019, section 3.1 and appendix A.1. Each chosen piece draws
  for itself, in whole words too: [MASK], itself or any of the V pieces.

  Args:
    input_ids: int [N, S], unchanged by this function.
    input_mask: [N, S], 1 = piece, 0 = padding.
    special_ids: the ids of [CLS], [SEP] and [PAD]: counted in the length of
      a row and never chosen.
    mask_id: the id of [MASK].
    vocab_size: V.
    masked_lm_prob: the share to predict, see `count_predictions`.
    max_predictions_per_seq: P.
    generator: the source of randomness.
    mask_share: which share of the chosen pieces becomes [MASK]; MASK, SAME
      and RND in table 8 of the paper are `mask_share`, `same_share` and the
      rest.
    same_share: which share stays as it is. The rest becomes random pieces.
    is_continuation: bool [V] from `continuation_table` for whole words, None
      for single pieces.

  Returns:
    `input_ids` int32 [N, S] with the masks; `masked_lm_positions` int32
    [N, P], ascending, then 0; `masked_lm_ids` int32 [N, P], the pieces that
    stood there, then 0; `masked_lm_weights` float32 [N, P], 1 = prediction,
    0 = padding.

  Raises:
    InputError: the shares are negative, or more than 1 together.
  """
  check_shares(mask_share, same_share)
  chosen = _choose(  # [N, S]
      input_ids, input_mask, special_ids=special_ids,
      masked_lm_prob=masked_lm_prob,
      max_predictions_per_seq=max_predictions_per_seq,
      is_continuation=is_continuation, generator=generator)
  places = np.flatnonzero(chosen)  # Row after row, positions ascending.
  masked_ids = input_ids.astype(np.int32, order="C")
  original = masked_ids.ravel()[places]
  masked_ids.ravel()[places] = _hide(
      original, mask_id=mask_id, vocab_size=vocab_size, mask_share=mask_share,
      same_share=same_share, generator=generator)
  return {"input_ids": masked_ids, **_predictions(
      chosen, original, max_predictions_per_seq=max_predictions_per_seq)}
