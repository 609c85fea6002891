"""The losses, as sums and the denominators that turn them into means.

A loss over a global batch is a quotient of sums over all its examples, and
the examples may be spread over replicas and micro-batches. So each loss
comes in two parts: `sums(outputs, batch)`, which add up over any split of
the batch, and `loss(sums, totals)`, which divides by the totals of the
GLOBAL batch (Devlin et al. 2019, appendix A.2: the training loss is the sum
of the mean masked-LM and the mean next-sentence likelihood).

Shapes: B batch, P masked positions, V vocabulary, C classes, K most examples
in a packed row.
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
    "mlm_correct": ops.sum(weights * _is_correct(logits, ids)),
  }
  if "next_sentence_labels" in batch:
    labels = batch["next_sentence_labels"]  # [B] or [B, K]
    weights = _next_sentence_weights(batch)
    logits = outputs["nsp_logits"]  # [B, 2] or [B, K, 2]
    sums |= {
      "nsp_loss": ops.sum(weights * negative_log_likelihood(logits, labels)),
      "nsp_correct": ops.sum(weights * _is_correct(logits, labels)),
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
