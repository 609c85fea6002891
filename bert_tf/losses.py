"""The losses, as sums and the denominators that turn them into means.

A loss over a global batch is a quotient of sums over all its examples, and
the examples may be spread over replicas and micro-batches. So each loss
comes in two parts: `sums(outputs, batch)`, which add up over any split of
the batch, and `loss(sums, totals)`, which divides by the totals of the
GLOBAL batch (Devlin et al. 2019, appendix A.2: the training loss is the sum
of the mean masked-LM and the mean next-sentence likelihood).

Under `compile` and `fit` Keras divides by itself, on one device:
`pretraining_losses` are the same losses in its form.

Shapes: B batch, S sequence length, P masked positions, V vocabulary, C
classes, K most examples in a packed row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from bert_tf import fused
from bert_tf.config import require

# The original adds it to the number of predictions, which may be zero.
MLM_EPSILON = 1e-5


class Objective(NamedTuple):
  """What a training step minimises and an evaluation reports."""

  # batch -> {name: scalar}: what this part of the batch adds to the
  # denominators.
  totals: Callable[[dict], dict[str, Any]]
  # (outputs, batch) -> {name: scalar}: all sums, the totals among them.
  sums: Callable[[dict, dict], dict[str, Any]]
  # (sums, totals of the global batch) -> scalar.
  loss: Callable[[dict, dict], Any]
  # {name: float} sums of any number of batches -> {name: float} to report.
  metrics: Callable[[dict[str, float]], dict[str, float]]


@fused.in_one_pass
def negative_log_likelihood(logits, labels):
  """-log softmax(logits)[label] in float32: [..., C] and [...] -> [...]."""
  return ops.sparse_categorical_crossentropy(
      labels, ops.cast(logits, "float32"), from_logits=True)


@fused.in_one_pass
def is_correct(logits, labels):
  """1 where the label has the highest score: [..., C], [...] -> [...].

  The first of equal ones is taken, as by `ops.argmax`, which goes over the
  scores five times.
  """
  labels = labels[..., None]
  highest = ops.max(logits, axis=-1, keepdims=True)
  is_label = ops.equal(ops.take_along_axis(logits, labels, axis=-1), highest)
  places = ops.arange(ops.shape(logits)[-1], dtype=labels.dtype)
  is_earlier = ops.logical_and(ops.equal(logits, highest), places < labels)
  earlier = ops.sum(ops.cast(is_earlier, "float32"), axis=-1)
  return ops.cast(
      ops.logical_and(is_label[..., 0], ops.equal(earlier, 0)), "float32")


def _next_sentence_weights(batch):
  """1 = an example, 0 = padding of a packed row; [B] or [B, K]."""
  if "next_sentence_weights" in batch:
    return batch["next_sentence_weights"]
  return ops.ones_like(batch["next_sentence_labels"], dtype="float32")


def _pretraining_totals(batch):
  """Of next-sentence labels only where there are any.

  Records made without them leave the masked-LM loss alone.
  """
  totals = {"mlm_total": ops.sum(batch["masked_lm_weights"])}
  if "next_sentence_labels" in batch:
    totals["nsp_total"] = ops.sum(_next_sentence_weights(batch))
  return totals


def _pretraining_sums(outputs, batch):
  ids, weights = batch["masked_lm_ids"], batch["masked_lm_weights"]  # [B, P]
  logits = outputs["mlm_logits"]  # [B, P, V]
  sums = {
    **_pretraining_totals(batch),
    "mlm_loss": ops.sum(weights * negative_log_likelihood(logits, ids)),
    "mlm_correct": ops.sum(weights * is_correct(logits, ids)),
  }
  if "next_sentence_labels" in batch:
    labels = batch["next_sentence_labels"]  # [B] or [B, K]
    weights = _next_sentence_weights(batch)
    logits = outputs["nsp_logits"]  # [B, 2] or [B, K, 2]
    sums |= {
      "nsp_loss": ops.sum(weights * negative_log_likelihood(logits, labels)),
      "nsp_correct": ops.sum(weights * is_correct(logits, labels)),
    }
  return sums


def _pretraining_loss(sums, totals):
  loss = sums["mlm_loss"] / (totals["mlm_total"] + MLM_EPSILON)
  if "nsp_total" in totals:
    loss = loss + sums["nsp_loss"] / totals["nsp_total"]
  return loss


def _pretraining_metrics(sums):
  mlm_total = sums["mlm_total"] + MLM_EPSILON
  metrics = {
    "mlm_loss": sums["mlm_loss"] / mlm_total,
    "mlm_accuracy": sums["mlm_correct"] / mlm_total,
  }
  if "nsp_total" in sums:
    metrics["nsp_loss"] = sums["nsp_loss"] / sums["nsp_total"]
    metrics["nsp_accuracy"] = sums["nsp_correct"] / sums["nsp_total"]
  return {"loss": _pretraining_loss(sums, sums), **metrics}


PRETRAINING = Objective(
    totals=_pretraining_totals, sums=_pretraining_sums,
    loss=_pretraining_loss, metrics=_pretraining_metrics)


def next_piece_weights(batch):
  """1 = a piece that the one before it predicts, 0 = padding; [B, S - 1].

  In a packed row the first piece of an example is predicted by none.
  """
  weights = ops.cast(batch["input_mask"][:, 1:], "float32")
  if "example_ids" in batch:
    ids = batch["example_ids"]
    same = ops.equal(ids[:, 1:], ids[:, :-1])
    weights = weights * ops.cast(same, "float32")
  return weights


def _left_to_right_totals(batch):
  return {"lm_total": ops.sum(next_piece_weights(batch))}


def _left_to_right_sums(outputs, batch):
  weights = next_piece_weights(batch)
  return {
    "lm_total": ops.sum(weights),
    "lm_loss": ops.sum(weights * outputs["lm_nll"]),
    "lm_correct": ops.sum(weights * outputs["lm_correct"]),
  }


def _left_to_right_loss(sums, totals):
  return sums["lm_loss"] / (totals["lm_total"] + MLM_EPSILON)


def _left_to_right_metrics(sums):
  loss = _left_to_right_loss(sums, sums)
  return {
    "loss": loss,
    "lm_loss": loss,
    "lm_accuracy": sums["lm_correct"] / (sums["lm_total"] + MLM_EPSILON),
  }


# The ablation of Devlin et al. 2019, section 5.1: each piece predicts the
# next, without next sentence. For a `BertForPreTraining` of such a config.
LEFT_TO_RIGHT = Objective(
    totals=_left_to_right_totals, sums=_left_to_right_sums,
    loss=_left_to_right_loss, metrics=_left_to_right_metrics)


def _example_weights(batch):
  """1, or what the label of each example counts; [B]."""
  if "weight" in batch:
    return batch["weight"]
  return ops.ones(ops.shape(batch["label"])[:1], "float32")


def _weighted_totals(batch):
  """With `divisor`, what the examples count in the denominator of the loss.

  The weights of windows even out how many of them a text has. Over the sum of
  its own weights, a batch of windows of long texts alone would count as much
  as one of short texts.
  """
  totals = {"total": ops.sum(_example_weights(batch))}
  if "divisor" in batch:
    totals["divisor"] = ops.sum(batch["divisor"])
  return totals


def _weighted_loss(sums, totals):
  return sums["loss"] / totals.get("divisor", totals["total"])


def _loss_and_accuracy(sums):
  return {"loss": sums["loss"] / sums["total"],
          "accuracy": sums["correct"] / sums["total"]}


def _classification_sums(outputs, batch):
  logits, labels = outputs["logits"], batch["label"]  # [B, C], [B]
  weights = _example_weights(batch)
  return {
    **_weighted_totals(batch),
    "loss": ops.sum(weights * negative_log_likelihood(logits, labels)),
    "correct": ops.sum(weights * is_correct(logits, labels)),
  }


# One class of several, or one choice; with `weight` [B], a weighted mean, or
# with `divisor` [B] the weighted sum over that of the divisors.
CLASSIFICATION = Objective(
    totals=_weighted_totals, sums=_classification_sums, loss=_weighted_loss,
    metrics=_loss_and_accuracy)


def _regression_sums(outputs, batch):
  error = outputs["logits"][:, 0] - batch["label"]  # [B]
  return {**_weighted_totals(batch),
          "loss": ops.sum(_example_weights(batch) * error * error)}


# The mean squared error of one output.
REGRESSION = Objective(
    totals=_weighted_totals, sums=_regression_sums, loss=_weighted_loss,
    metrics=lambda sums: {"loss": sums["loss"] / sums["total"]})


def _multilabel_sums(outputs, batch):
  logits, labels = outputs["logits"], batch["label"]  # float32 [B, C] both
  weights = _example_weights(batch)
  # -log sigmoid of the right side: never the log of a zero.
  nll = ops.softplus(ops.where(labels > 0.5, -logits, logits))
  right = ops.cast(ops.equal(logits > 0, labels > 0.5), "float32")
  return {
    **_weighted_totals(batch),
    "loss": ops.sum(weights * ops.mean(nll, axis=-1)),
    "correct": ops.sum(weights * ops.mean(right, axis=-1)),
  }


# Each class by itself: binary cross-entropy, the mean over classes.
MULTILABEL = Objective(
    totals=_weighted_totals, sums=_multilabel_sums, loss=_weighted_loss,
    metrics=_loss_and_accuracy)


def _tagging_totals(batch):
  return {"total": ops.sum(ops.cast(batch["labels"] >= 0, "float32"))}


def _tagging_sums(outputs, batch):
  logits, labels = outputs["logits"], batch["labels"]  # [B, S, C], [B, S]
  weights = ops.cast(labels >= 0, "float32")
  known = ops.maximum(labels, 0)
  return {
    **_tagging_totals(batch),
    "loss": ops.sum(weights * negative_log_likelihood(logits, known)),
    "correct": ops.sum(weights * is_correct(logits, known)),
  }


# The class of each piece whose label is not -1; the mean over those.
TAGGING = Objective(
    totals=_tagging_totals, sums=_tagging_sums, loss=_weighted_loss,
    metrics=_loss_and_accuracy)


def _span_totals(batch):
  return {"total": ops.sum(ops.ones_like(batch["start"], dtype="float32"))}


def _span_sums(outputs, batch):
  padding = -10000.0 * ops.cast(1 - batch["input_mask"], "float32")  # [B, S]
  ends = [(outputs[f"{end}_logits"] + padding, batch[end])
          for end in ("start", "end")]
  hits = [is_correct(*end) for end in ends]
  return {
    **_span_totals(batch),
    "loss": ops.sum(sum(negative_log_likelihood(*end) for end in ends)) / 2,
    "correct": ops.sum(hits[0] * hits[1]),
  }


# The first and the last piece of an answer: the mean of both cross-entropies.
# Padding takes no part: its amount depends on the other rows of a batch. (The
# original pads all rows to one length and lets it take part.)
SPANS = Objective(
    totals=_span_totals, sums=_span_sums, loss=_weighted_loss,
    metrics=_loss_and_accuracy)


# What of a batch of records is no input of the model.
_TARGETS = (
  "masked_lm_ids", "masked_lm_weights", "next_sentence_labels",
  "next_sentence_weights")


def pretraining_losses(*, next_sentence: bool = True) -> dict[str, Any]:
  """The losses of `BertForPreTraining` for `compile`; `fit` adds them up.

  Each is sum(weights * nll) / sum(weights) of a batch on one device: the loss
  of `PRETRAINING` but for its epsilon, a part in 1e5 of one prediction.

  Args:
    next_sentence: False: the masked LM alone.

  >>> sorted(pretraining_losses())
  ['mlm_logits', 'nsp_logits']
  """
  outputs = ("mlm_logits", "nsp_logits") if next_sentence else ("mlm_logits",)
  return {
    output: keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight")
    for output in outputs}


def inputs_and_targets(
    batch: dict[str, Any], *, next_sentence: bool = True
) -> tuple[dict, dict, dict]:
  """A batch of records in the form of `fit`, for `pretraining_losses`.

    batches = input_pipeline.training_batches(...)
    model.compile(optimizer, loss=bert_tf.pretraining_losses())
    model.fit(batches.map(bert_tf.inputs_and_targets), steps_per_epoch=1000)

  Args:
    batch: masked records, packed or not.
    next_sentence: as for the losses; False also where the records have no
      next-sentence labels.

  Returns:
    (inputs, targets, weights): the inputs of `BertForPreTraining`; by name of
    the output the labels int [B, P], and [B] or [B, K]; and their weights,
    float32 of the same shapes, 0 = padding.

  Raises:
    InputError: the records are not masked, or have no such labels.
  """
  require(
      "masked_lm_ids" in batch,
      "The batch has no masked_lm_ids: its records were made with "
      "--masking=none. Mask it first, with dynamic_masking.mask_batch.")
  require(
      not next_sentence or "next_sentence_labels" in batch,
      "The batch has no next_sentence_labels: its records were made with "
      "--nsp=false. Pass next_sentence=False here and to pretraining_losses.")
  targets = {"mlm_logits": batch["masked_lm_ids"]}
  weights = {"mlm_logits": batch["masked_lm_weights"]}
  if next_sentence:
    targets["nsp_logits"] = batch["next_sentence_labels"]
    weights["nsp_logits"] = _next_sentence_weights(batch)
  inputs = {
    name: value for name, value in batch.items() if name not in _TARGETS}
  return inputs, targets, weights
