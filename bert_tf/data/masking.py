"""Masked language modelling: which pieces to hide, and behind what.

Shapes: N rows, S max_seq_length, P max_predictions_per_seq, V entries in the
vocabulary.

Whole rows are masked at once. numpy only.
"""

from collections.abc import Sequence

import numpy as np

# Of the pieces to predict, 80 % become [MASK], 10 % stay as they are and
# 10 % become a random piece: Devlin et al. 2019, section 3.1.
MASK_SHARE = 0.8
KEEP_SHARE = 0.1


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

  Args:
    is_candidate: bool [N, S], pieces that may be chosen.
    is_continuation: bool [N, S], pieces that belong to the one before. All
      False makes each piece a group.
    num_predictions: [N], how many to choose.
    generator: the source of randomness.

  Returns:
    bool [N, S]: the chosen pieces.
  """
  num_rows, width = is_candidate.shape
  follows = np.zeros_like(is_candidate)
  follows[:, 1:] = (
    is_continuation[:, 1:] & is_candidate[:, 1:] & is_candidate[:, :-1])
  is_head = is_candidate & ~follows  # [N, S]
  place = np.arange(width)
  head = np.maximum.accumulate(np.where(is_head, place, 0), axis=1)  # [N, S]
  row = np.arange(num_rows)[:, None] * width
  sizes = np.bincount(
      (row + head).ravel(), weights=is_candidate.ravel(),
      minlength=is_candidate.size)
  sizes = sizes.astype(np.int64).reshape(is_candidate.shape)

  # Heads in random order; what is no head comes after them.
  keys = np.where(is_head, generator.random(is_head.shape), 2.0)
  order = np.argsort(keys, axis=1)
  num_groups = is_head.sum(axis=1)
  num_chosen = np.zeros(num_rows, np.int64)
  is_chosen_head = np.zeros_like(is_head)
  rows = np.arange(num_rows)
  for rank in range(num_groups.max(initial=0)):
    candidate = order[:, rank]  # [N]
    size = sizes[rows, candidate]
    is_taken = (rank < num_groups) & (num_chosen + size <= num_predictions)
    num_chosen += size * is_taken
    is_chosen_head[rows, candidate] = is_taken
    if (num_chosen >= num_predictions).all():
      break
  return is_candidate & np.take_along_axis(is_chosen_head, head, axis=1)


def mask_rows(
    input_ids: np.ndarray,
    input_mask: np.ndarray,
    *,
    special_ids: Sequence[int],
    mask_id: int,
    vocab_size: int,
    masked_lm_prob: float,
    max_predictions_per_seq: int,
    generator: np.random.Generator,
    is_continuation: np.ndarray | None = None,
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
    is_continuation: bool [V] from `continuation_table` for whole words, None
      for single pieces.

  Returns:
    `input_ids` int32 [N, S] with the masks; `masked_lm_positions` int32
    [N, P], ascending, then 0; `masked_lm_ids` int32 [N, P], the pieces that
    stood there, then 0; `masked_lm_weights` float32 [N, P], 1 = prediction,
    0 = padding.
  """
  is_candidate = (input_mask > 0) & ~np.isin(input_ids, special_ids)
  if is_continuation is None:
    follows = np.zeros_like(is_candidate)
  else:
    follows = is_continuation[input_ids]
  chosen = choose_pieces(
      is_candidate, follows,
      count_predictions(
          input_mask.sum(axis=1), masked_lm_prob=masked_lm_prob,
          max_predictions_per_seq=max_predictions_per_seq),
      generator=generator)
  row, position = np.nonzero(chosen)  # Row after row, positions ascending.
  slot = (np.cumsum(chosen, axis=1) - 1)[row, position]
  original = input_ids[row, position]

  draw = generator.random(row.size)
  random_ids = generator.integers(0, vocab_size, row.size)
  hidden = np.where(
      draw < MASK_SHARE, mask_id,
      np.where(draw < MASK_SHARE + KEEP_SHARE, original, random_ids))
  masked_ids = input_ids.astype(np.int32)
  masked_ids[row, position] = hidden

  shape = (len(input_ids), max_predictions_per_seq)
  positions = np.zeros(shape, np.int32)
  labels = np.zeros(shape, np.int32)
  weights = np.zeros(shape, np.float32)
  positions[row, slot] = position
  labels[row, slot] = original
  weights[row, slot] = 1.0
  return {
    "input_ids": masked_ids,
    "masked_lm_positions": positions,
    "masked_lm_ids": labels,
    "masked_lm_weights": weights,
  }
