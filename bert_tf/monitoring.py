"""Watching a training: what a step amounts to, what looks wrong, a profile.

Shapes: B batch, S sequence length, H hidden size, F feed-forward size,
V vocabulary, P predicted positions, K most examples in a packed row.
"""

from collections.abc import Mapping
import math
import os
from typing import Any

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require

# From this step on a model must know more than nothing, with whatever warm-up:
# how frequent each piece is takes nats off ln V by itself. In the longest
# warm-up, of 10,000 steps to 1e-4, a model of two layers was at 10.17 of
# ln V = 10.33 after 400 steps, at a twenty-fifth of its learning rate.
FIRST_STEP_TO_JUDGE = 1000
# A loss this close below ln V, or above it, is that of a guess.
_GUESSING = 0.98
# Of the time, waiting for data. Below it a faster input gains little.
_MOST_WAITING = 0.2

_LOSSES = ("mlm_loss", "lm_loss")


def flops_per_example(
    config: BertConfig, *, sequence_length: int, predictions: int,
    pooled: int = 1, num_classes: int = 2, read: int | None = None,
    is_trained: bool = True
) -> int:
  """Floating-point operations of the matrix products of one training step.

  Forward and backward pass, three times the forward pass, for one row of a
  batch. A multiplication and an addition are two. What rematerialization
  computes again does not count: the model does not ask for it. BiLSTMs are
  not counted either.

  Args:
    config: of the encoder.
    sequence_length: S, padding too.
    predictions: P, positions of the masked LM; 0: without that head. From
      left to right all S - 1 predict, whatever P, and no output is pooled.
    pooled: K, pooled outputs that a classifier reads; 0: none.
    num_classes: of that classifier.
    read: positions of the last block that are computed; not given: all S.
    is_trained: False: of a frozen encoder, without a backward pass.

  >>> base = BertConfig.from_size("base", vocab_size=30522)
  >>> round(flops_per_example(
  ...     base, sequence_length=128, predictions=20, read=21) / 1e9)
  66
  """
  length, hidden = sequence_length, config.hidden_size
  if config.is_causal and predictions:
    predictions, pooled = length - 1, 0
  key_and_value = 2 * 2 * hidden**2
  # Query and output; scores and context; feed-forward.
  position = 2 * (
      2 * hidden**2 + 2 * length * hidden
      + 2 * hidden * config.intermediate_size)
  positions = (config.num_hidden_layers - 1) * length + (
      length if read is None else read)
  prediction = 2 * (hidden**2 + hidden * config.vocab_size)
  classification = 2 * (hidden**2 + hidden * num_classes)
  forward = (
      config.num_hidden_layers * length * key_and_value
      + positions * position
      + predictions * prediction + pooled * classification)
  return 3 * forward if is_trained else forward


def _arrays(value: Any) -> list[np.ndarray]:
  """A feature as arrays: one, or one for each replica of this worker."""
  return [np.asarray(part) for part in getattr(value, "values", [value])]


def check_batch(config: BertConfig, batch: Mapping[str, Any]) -> None:
  """Refuses a batch whose ids the model of this config has no place for.

  On a CPU a lookup of such an id ends the step with an error that names no
  feature. On a GPU it gives zeros, and under XLA another row: the training
  goes on, and nothing tells that its inputs are wrong.

  Args:
    config: of the model.
    batch: {feature: array, tensor, or values per replica}.

  Raises:
    InputError: names the feature, the value and what is allowed.
  """
  length = _arrays(batch["input_ids"])[0].shape[-1]
  require(
      length <= config.max_position_embeddings,
      f"input_ids: received rows of {length} pieces, and the model's "
      f"max_position_embeddings is {config.max_position_embeddings}. Make "
      "shorter records, or take a model of more positions.")
  row = (length, "the length of a row")
  vocabulary = (config.vocab_size, "vocab_size")
  limits = {
    "input_ids": vocabulary, "masked_lm_ids": vocabulary,
    "input_mask": (2, "1 = piece, 0 = padding"),
    "segment_ids": (config.type_vocab_size, "type_vocab_size"),
    "position_ids": (
      config.max_position_embeddings, "max_position_embeddings"),
    "masked_lm_positions": row, "cls_positions": row,
    "next_sentence_labels": (2, "0 = B follows A, 1 = random B"),
  }
  for name, (limit, meaning) in limits.items():
    for values in _arrays(batch[name]) if name in batch else []:
      wrong = values[(values < 0) | (values >= limit)]
      if wrong.size:
        raise InputError(
            f"{name}: received {wrong[0]} in the first batch; must be from 0 "
            f"to {limit - 1} ({meaning}). The records are not for this model: "
            "make them anew, or give the config and the vocabulary that they "
            "were made with.")


class Watch:
  """Warns of what the metrics of a training show, once for each thing."""

  def __init__(self, *, vocab_size: int, num_warmup_steps: int):
    self._ignorance = math.log(vocab_size)
    self._first_step = max(num_warmup_steps, FIRST_STEP_TO_JUDGE)
    self._has_judged = False
    self._has_begun = False
    self._has_waited = False

  def check(self, step: int, metrics: Mapping[str, float]) -> None:
    """Looks at a line of training metrics, after `step` steps."""
    self._check_loss(step, metrics)
    self._check_waiting(metrics)

  def _check_loss(self, step, metrics):
    losses = [metrics[name] for name in _LOSSES if name in metrics]
    if self._has_judged or step < self._first_step or not losses:
      return
    self._has_judged = True
    if losses[0] < _GUESSING * self._ignorance:
      return
    logging.warning(
        "The loss is %.2f after %d steps, and a model that knows nothing has "
        "ln V = %.2f: nothing is learned. Try a lower --learning_rate or a "
        "longer warm-up, and see whether the vocabulary is the one that the "
        "records were made with.", losses[0], step, self._ignorance)

  def _check_waiting(self, metrics):
    # The first interval opens files and fills buffers.
    is_first, self._has_begun = not self._has_begun, True
    share = metrics.get("input_wait_share", 0.0)
    if is_first or self._has_waited or share <= _MOST_WAITING:
      return
    self._has_waited = True
    logging.warning(
        "%.0f%% of the time passes in waiting for data: the input is what "
        "limits the training. Put the records on a local disk, give each "
        "device more CPU cores, or mask when the records are made in the "
        "place of --masking=none.", 100 * share)


class Profile:
  """Profiles the steps after `first`, up to and with `last`.

    with Profile((10, 20), directory) as profile:
      profile.on_step(0)
      for done in range(1, num_steps + 1):
        ...
        profile.on_step(done)

  TensorBoard shows it, with its plugin for profiles. A training must not end
  for a profile that fails: that is a warning.
  """

  def __init__(self, steps: tuple[int, int] | None, directory: str):
    """`steps` None: profiles nothing. Writes to `directory`/profile."""
    self._first, self._last = steps or (0, 0)
    self._directory = os.path.join(directory, "profile")
    self._is_running = False

  def on_step(self, done: int) -> None:
    """Tells how many steps are done; the numbers may jump."""
    if self._is_running and done >= self._last:
      self._stop()
    elif not self._is_running and self._first <= done < self._last:
      self._start(done)

  def _start(self, done):
    try:
      tf.profiler.experimental.start(self._directory)
    except tf.errors.OpError as error:
      logging.warning("No profile: %s", error.message)
      self._last = 0  # Not again at the next step.
      return
    self._is_running = True
    logging.info("Profiling from step %d on.", done)

  def _stop(self):
    self._is_running = False
    try:
      tf.profiler.experimental.stop()
    except tf.errors.OpError as error:
      logging.warning("No profile: %s", error.message)
      return
    logging.info("Wrote the profile into %s.", self._directory)

  def __enter__(self):
    return self

  def __exit__(self, *error):
    if self._is_running:
      self._stop()
