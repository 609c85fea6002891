"""Masked language modelling inside the input pipeline: new masks each epoch.

Shapes: B batch, S max_seq_length, P max_predictions_per_seq, V entries in the
vocabulary; K = min(P, S).

The TensorFlow twin of `masking.mask_rows`: other random numbers, the same
distribution, one set of tests. What is returned is a pure function of the
batch and the seed.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_tf.data import masking

_INT32_MAX = np.iinfo(np.int32).max


def _random_keys(is_valid: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """int64 like `is_valid`: random from 0 up, -1 where it is False.

  63 bits: two equal keys, which would favour the first, do not occur.
  """
  bits = tf.random.stateless_uniform(
      tf.shape(is_valid), seed, minval=None, maxval=None, dtype=tf.int64)
  keys = tf.bitwise.bitwise_and(bits, tf.constant(tf.int64.max, tf.int64))
  return tf.where(is_valid, keys, tf.constant(-1, tf.int64))


def _choose_pieces(
    is_candidate: tf.Tensor, num_predictions: tf.Tensor, *, num_slots: int,
    seed: tf.Tensor
) -> tf.Tensor:
  """int32 [B, K]: S - position of each chosen piece in any order, else 0.

  Every set of the number is equally likely: the pieces of the largest keys.
  """
  width = is_candidate.shape[1]
  drawn = tf.math.top_k(
      _random_keys(is_candidate, seed), num_slots).indices  # [B, K]
  num_candidates = tf.reduce_sum(tf.cast(is_candidate, tf.int32), axis=1)
  is_used = (  # [B, K]
    tf.range(num_slots)
    < tf.minimum(num_predictions, num_candidates)[:, tf.newaxis])
  return tf.where(is_used, width - drawn, 0)


def _fill(sizes: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
  """bool [B, G]: which groups are taken, from left to right, if they fit.

  A group that does not fit once never fits later. So all groups up to the
  first that does not fit are taken at once, those that are now too large are
  out, and what is left starts again: a few rounds instead of G steps.

  Args:
    sizes: int32 [B, G], from 1 up.
    room: int32 [B], what the sizes of a row add up to at most.
  """

  def take_more(unused_goes_on, is_taken, sizes, room):
    fits = sizes <= room[:, tf.newaxis]  # [B, G]
    total = tf.cumsum(tf.where(fits, sizes, 0), axis=1)  # [B, G]
    takes = fits & (total <= room[:, tf.newaxis])
    room -= tf.reduce_sum(tf.where(takes, sizes, 0), axis=1)
    # What is taken, or does not fit any more, must not come again.
    sizes = tf.where(takes, _INT32_MAX, sizes)
    return tf.reduce_any(fits & ~takes), is_taken | takes, sizes, room

  return tf.while_loop(
      lambda goes_on, *unused: goes_on, take_more,
      (tf.constant(True), tf.zeros_like(sizes, tf.bool), sizes, room))[1]


def _choose_words(
    is_candidate: tf.Tensor, is_continuation: tf.Tensor,
    num_predictions: tf.Tensor, *, seed: tf.Tensor
) -> tf.Tensor:
  """int32 [B, S]: S - position where a piece is chosen, else 0.

  The groups are those of `masking.choose_words`.
  """
  width = is_candidate.shape[1]
  is_behind_candidate = tf.pad(is_candidate[:, :-1], [[0, 0], [1, 0]])
  is_head = is_candidate & ~(is_continuation & is_behind_candidate)
  # Groups are counted through the batch, S numbers for each row.
  first = tf.range(tf.shape(is_candidate)[0])[:, tf.newaxis] * width  # [B, 1]
  group = first + tf.maximum(
      tf.cumsum(tf.cast(is_head, tf.int32), axis=1) - 1, 0)  # [B, S]
  sizes = tf.reshape(  # [B, S], 0 behind the last group
      tf.math.unsorted_segment_sum(
          tf.cast(is_candidate, tf.int32), group, tf.size(group)),
      tf.shape(group))
  sizes = tf.ensure_shape(sizes, is_candidate.shape)

  order = tf.math.top_k(_random_keys(sizes > 0, seed), width).indices  # [B, S]
  ordered_sizes = tf.gather(sizes, order, batch_dims=1)
  is_taken = _fill(  # [B, S], in the random order
      tf.where(ordered_sizes > 0, ordered_sizes, _INT32_MAX), num_predictions)
  place = tf.math.invert_permutation(tf.reshape(first + order, [-1]))  # [B*S]
  is_chosen = is_candidate & tf.gather(
      tf.reshape(is_taken, [-1]), tf.gather(place, group))  # [B, S]
  return tf.where(is_chosen, width - tf.range(width), 0)


def _choose(
    input_ids: tf.Tensor, input_mask: tf.Tensor, *,
    special_ids: Sequence[int], masked_lm_prob: float,
    max_predictions_per_seq: int,
    is_continuation: np.ndarray | tf.Tensor | None, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Positions int32 [B, P], ascending, then 0, and which of them are used."""
  width = input_ids.shape[1]
  num_slots = min(max_predictions_per_seq, width)
  is_candidate = input_mask > 0  # [B, S]
  for special_id in special_ids:
    is_candidate &= input_ids != special_id
  # A table, so that the rounding has one home.
  num_predictions = tf.gather(  # [B]
      masking.count_predictions(
          np.arange(width + 1), masked_lm_prob=masked_lm_prob,
          max_predictions_per_seq=max_predictions_per_seq).astype(np.int32),
      tf.reduce_sum(input_mask, axis=1))
  if is_continuation is None:
    chosen = _choose_pieces(
        is_candidate, num_predictions, num_slots=num_slots, seed=seed)
  else:
    chosen = _choose_words(
        is_candidate, tf.gather(is_continuation, input_ids), num_predictions,
        seed=seed)
  # S - position, descending: the chosen pieces from left to right, then 0.
  chosen = tf.math.top_k(chosen, num_slots).values  # [B, K]
  chosen = tf.pad(
      chosen, [[0, 0], [0, max_predictions_per_seq - num_slots]])  # [B, P]
  is_used = chosen > 0
  return tf.where(is_used, width - chosen, 0), is_used


def _hide(
    original: tf.Tensor, *, mask_id: int, vocab_size: int, mask_share: float,
    same_share: float, seeds: Sequence[tf.Tensor]
) -> tf.Tensor:
  """int32 [B, P]: what stands in the place of these pieces."""
  shape = tf.shape(original)
  draw = tf.random.stateless_uniform(shape, seeds[0])
  random_ids = tf.random.stateless_uniform(
      shape, seeds[1], minval=0, maxval=vocab_size, dtype=tf.int32)
  return tf.where(
      draw < mask_share, mask_id,
      tf.where(draw < mask_share + same_share, original, random_ids))


def _add_at(
    ids: tf.Tensor, positions: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
  """`ids` [B, S] with `change` [B, P] added at `positions` [B, P].

  What is no prediction adds 0, wherever it points.
  """
  rows = tf.range(tf.shape(positions)[0])[:, tf.newaxis]
  total = tf.math.unsorted_segment_sum(
      change, positions + ids.shape[1] * rows, tf.size(ids))
  return ids + tf.reshape(total, tf.shape(ids))


def mask_batch(
    batch: dict[str, tf.Tensor], *, seed: tf.Tensor,
    special_ids: Sequence[int], mask_id: int, vocab_size: int,
    masked_lm_prob: float, max_predictions_per_seq: int,
    mask_share: float = masking.MASK_SHARE,
    same_share: float = masking.SAME_SHARE,
    is_continuation: np.ndarray | tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
  """Hides pieces of each row, and says which, for the model to find again.

  `masking.mask_rows` for `tf.data`: Devlin et al. 2019, section 3.1 and
  appendix A.1. The same batch and seed give the same masks.

  Args:
    batch: `input_ids` and `input_mask` (1 = piece, 0 = padding) int32 [B, S]
      with a static S; whatever else it holds is passed on.
    seed: int32 [2], another for each batch.
    special_ids: the ids of [CLS], [SEP] and [PAD]: counted in the length of
      a row and never chosen.
    mask_id: the id of [MASK].
    vocab_size: V.
    masked_lm_prob: the share to predict, see `masking.count_predictions`.
    max_predictions_per_seq: P.
    mask_share: which share of the chosen pieces becomes [MASK].
    same_share: which share stays as it is. The rest becomes random pieces.
    is_continuation: bool [V] from `masking.continuation_table` for whole
      words, None for single pieces.

  Returns:
    The batch, with `input_ids` int32 [B, S] masked; `masked_lm_positions`
    int32 [B, P], ascending, then 0; `masked_lm_ids` int32 [B, P], the pieces
    that stood there, then 0; `masked_lm_weights` float32 [B, P], 1 =
    prediction, 0 = padding.

  Raises:
    InputError: the shares are negative, or more than 1 together.
  """
  masking.check_shares(mask_share, same_share)
  input_ids = batch["input_ids"]  # [B, S]
  seeds = tf.unstack(tf.random.split(seed, 3))
  positions, is_used = _choose(  # [B, P] each
      input_ids, batch["input_mask"], special_ids=special_ids,
      masked_lm_prob=masked_lm_prob,
      max_predictions_per_seq=max_predictions_per_seq,
      is_continuation=is_continuation, seed=seeds[0])
  original = tf.where(
      is_used, tf.gather(input_ids, positions, batch_dims=1), 0)
  hidden = _hide(
      original, mask_id=mask_id, vocab_size=vocab_size, mask_share=mask_share,
      same_share=same_share, seeds=seeds[1:])
  return {
    **batch,
    "input_ids": _add_at(
        input_ids, positions, tf.where(is_used, hidden - original, 0)),
    "masked_lm_positions": positions,
    "masked_lm_ids": original,
    "masked_lm_weights": tf.cast(is_used, tf.float32),
  }


# What left-to-right prediction needs of a record: it has no next sentence.
_UNMASKED = (
  "input_ids", "input_mask", "segment_ids", "example_ids", "position_ids")


def restore(
    batch: dict[str, tf.Tensor], *, seed: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
  """The rows as they were before they were masked: `mask_batch` undone.

  For the left-to-right objective (Devlin et al. 2019, section 5.1), which
  trains on the same records without [MASK]. Stands where a pipeline masks.

  Args:
    batch: a batch of records, masked or not: `input_ids` int32 [B, S] with a
      static S; `masked_lm_positions`, `masked_lm_ids` int32 [B, P] and
      `masked_lm_weights` float32 [B, P], all three or none.
    seed: is not used; there is nothing to draw.

  Returns:
    The batch without masks, next-sentence labels and their [CLS] positions.
  """
  del seed
  kept = {name: batch[name] for name in _UNMASKED if name in batch}
  if "masked_lm_ids" not in batch:
    return kept
  ids, positions = batch["input_ids"], batch["masked_lm_positions"]
  change = tf.where(
      batch["masked_lm_weights"] > 0,
      batch["masked_lm_ids"] - tf.gather(ids, positions, batch_dims=1), 0)
  return {**kept, "input_ids": _add_at(ids, positions, change)}
