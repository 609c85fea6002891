"""The losses, as sums and the denominators that turn them into means.

A loss over a global batch is a quotient of sums over all its examples, and
the examples may be spread over replicas and micro-batches. So each loss
comes in two parts: `sums(outputs, batch)`, which add up over any split of
the batch, and `loss(sums, totals)`, which divides by the totals of the
GLOBAL batch (Devlin et al. 2019, appendix A.2: the training loss is the sum
of the mean masked-LM and the mean next-sentence likelihood).

Shapes: B batch, P masked positions, V vocabulary, C classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

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


def negative_log_likelihood(logits, labels):
  """-log softmax(logits)[label] in float32: [..., C] and [...] -> [...]."""
  return ops.sparse_categorical_crossentropy(
      labels, ops.cast(logits, "float32"), from_logits=True)


def _is_correct(logits, labels):
  predicted = ops.cast(ops.argmax(logits, axis=-1), labels.dtype)
  return ops.cast(ops.equal(predicted, labels), "float32")


def _pretraining_totals(batch):
  labels = batch["next_sentence_labels"]  # [B]
  return {
    "mlm_total": ops.sum(batch["masked_lm_weights"]),
    "nsp_total": ops.sum(ops.ones_like(labels, dtype="float32")),
  }


def _pretraining_sums(outputs, batch):
  ids, weights = batch["masked_lm_ids"], batch["masked_lm_weights"]  # [B, P]
  labels = batch["next_sentence_labels"]  # [B]
  mlm_logits, nsp_logits = outputs["mlm_logits"], outputs["nsp_logits"]
  return {
    **_pretraining_totals(batch),
    "mlm_loss": ops.sum(weights * negative_log_likelihood(mlm_logits, ids)),
    "mlm_correct": ops.sum(weights * _is_correct(mlm_logits, ids)),
    "nsp_loss": ops.sum(negative_log_likelihood(nsp_logits, labels)),
    "nsp_correct": ops.sum(_is_correct(nsp_logits, labels)),
  }


def _pretraining_loss(sums, totals):
  mlm_loss = sums["mlm_loss"] / (totals["mlm_total"] + MLM_EPSILON)
  return mlm_loss + sums["nsp_loss"] / totals["nsp_total"]


def _pretraining_metrics(sums):
  mlm_loss = sums["mlm_loss"] / (sums["mlm_total"] + MLM_EPSILON)
  nsp_loss = sums["nsp_loss"] / sums["nsp_total"]
  return {
    "loss": mlm_loss + nsp_loss,
    "mlm_loss": mlm_loss,
    "mlm_accuracy": sums["mlm_correct"] / (sums["mlm_total"] + MLM_EPSILON),
    "nsp_loss": nsp_loss,
    "nsp_accuracy": sums["nsp_correct"] / sums["nsp_total"],
  }


PRETRAINING = Objective(
    totals=_pretraining_totals, sums=_pretraining_sums,
    loss=_pretraining_loss, metrics=_pretraining_metrics)


def _classification_totals(batch):
  return {"total": ops.sum(ops.ones_like(batch["label"], dtype="float32"))}


def _classification_sums(outputs, batch):
  logits, labels = outputs["logits"], batch["label"]  # [B, C], [B]
  return {
    **_classification_totals(batch),
    "loss": ops.sum(negative_log_likelihood(logits, labels)),
    "correct": ops.sum(_is_correct(logits, labels)),
  }


CLASSIFICATION = Objective(
    totals=_classification_totals, sums=_classification_sums,
    loss=lambda sums, totals: sums["loss"] / totals["total"],
    metrics=lambda sums: {
      "loss": sums["loss"] / sums["total"],
      "accuracy": sums["correct"] / sums["total"],
    })
