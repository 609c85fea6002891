"""Losses and metrics by hand, and their sums over parts of a batch."""

import math

import numpy as np
import pytest

import bert_tf
from bert_tf import losses
from bert_tf.config import InputError


def pretraining_batch():
  outputs = {
    # Softmax of (0, ln 3) is (1/4, 3/4).
    "mlm_logits": np.array([
      [[0, math.log(3)], [0, math.log(3)]],
      [[0, math.log(3)], [5, -5]]], np.float32),
    "nsp_logits": np.array([[0, 0], [0, math.log(3)]], np.float32),
  }
  batch = {
    "masked_lm_ids": np.array([[1, 0], [1, 0]], np.int32),
    "masked_lm_weights": np.array([[1, 1], [1, 0]], np.float32),
    "next_sentence_labels": np.array([0, 1], np.int32),
  }
  return outputs, batch


def as_floats(sums):
  return {name: float(value) for name, value in sums.items()}


def test_pretraining_sums_by_hand():
  sums = as_floats(losses.PRETRAINING.sums(*pretraining_batch()))
  expected = {
    "mlm_total": 3, "nsp_total": 2,
    # 3/4, 1/4 and 3/4 at the three positions that count.
    "mlm_loss": 2 * math.log(4 / 3) + math.log(4), "mlm_correct": 2,
    # 1/2 for a tie, which argmax gives to 0, and 3/4.
    "nsp_loss": math.log(2) + math.log(4 / 3), "nsp_correct": 2,
  }
  assert set(sums) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(sums[name], value, rtol=1e-6)


def test_the_loss_divides_by_the_totals_that_it_is_given():
  outputs, batch = pretraining_batch()
  sums = losses.PRETRAINING.sums(outputs, batch)
  totals = {"mlm_total": 6.0, "nsp_total": 4.0}
  expected = (
      (2 * math.log(4 / 3) + math.log(4)) / 6.00001
      + (math.log(2) + math.log(4 / 3)) / 4)
  np.testing.assert_allclose(
      losses.PRETRAINING.loss(sums, totals), expected, rtol=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole():
  for outputs, batch in (pretraining_batch(), packed_batch()):
    whole = as_floats(losses.PRETRAINING.sums(outputs, batch))
    parts = [
      as_floats(losses.PRETRAINING.sums(
          {name: value[i:i + 1] for name, value in outputs.items()},
          {name: value[i:i + 1] for name, value in batch.items()}))
      for i in range(2)]
    for name, value in whole.items():
      np.testing.assert_allclose(
          parts[0][name] + parts[1][name], value, rtol=1e-6)


def test_a_batch_without_predictions_has_a_loss():
  outputs, batch = pretraining_batch()
  batch["masked_lm_weights"] = np.zeros((2, 2), np.float32)
  metrics = losses.PRETRAINING.metrics(
      as_floats(losses.PRETRAINING.sums(outputs, batch)))
  assert metrics["mlm_loss"] == 0 and metrics["mlm_accuracy"] == 0


def packed_batch():
  """Two rows of up to three examples, of which three in all."""
  outputs, batch = pretraining_batch()
  # Softmax of (0, ln 3) is (1/4, 3/4); what has no weight would count.
  outputs["nsp_logits"] = np.array([
    [[0, math.log(3)], [0, 0], [-9, 9]],
    [[math.log(3), 0], [9, -9], [-9, 9]]], np.float32)  # [B, K, 2]
  batch["next_sentence_labels"] = np.array(
      [[1, 0, 0], [1, 0, 0]], np.int32)
  batch["next_sentence_weights"] = np.array(
      [[1, 1, 0], [1, 0, 0]], np.float32)
  return outputs, batch


def test_the_examples_of_packed_rows_count_by_their_weights():
  outputs, batch = packed_batch()
  sums = as_floats(losses.PRETRAINING.sums(outputs, batch))
  # 3/4, a tie that argmax gives to 0, and 1/4.
  nsp_loss = math.log(4 / 3) + math.log(2) + math.log(4)
  np.testing.assert_allclose(
      [sums["nsp_total"], sums["nsp_correct"], sums["nsp_loss"]],
      [3, 2, nsp_loss], rtol=1e-6)
  assert float(losses.PRETRAINING.totals(batch)["nsp_total"]) == 3
  mlm_loss = (2 * math.log(4 / 3) + math.log(4)) / 3.00001
  metrics = losses.PRETRAINING.metrics(sums)
  np.testing.assert_allclose(
      [metrics["nsp_loss"], metrics["nsp_accuracy"], metrics["loss"]],
      [nsp_loss / 3, 2 / 3, mlm_loss + nsp_loss / 3], rtol=1e-6)


def test_without_next_sentence_labels_the_masked_lm_is_all():
  for outputs, batch in (pretraining_batch(), packed_batch()):
    del batch["next_sentence_labels"]
    totals = losses.PRETRAINING.totals(batch)
    assert set(totals) == {"mlm_total"}
    sums = losses.PRETRAINING.sums(outputs, batch)
    mlm_loss = (2 * math.log(4 / 3) + math.log(4)) / 3.00001
    np.testing.assert_allclose(
        losses.PRETRAINING.loss(sums, totals), mlm_loss, rtol=1e-6)
    metrics = losses.PRETRAINING.metrics(as_floats(sums))
    assert set(metrics) == {"loss", "mlm_loss", "mlm_accuracy"}
    np.testing.assert_allclose(
        [metrics["loss"], metrics["mlm_loss"], metrics["mlm_accuracy"]],
        [mlm_loss, mlm_loss, 2 / 3.00001], rtol=1e-6)


def test_classification_by_hand():
  outputs = {"logits": np.array([[0, math.log(3)], [2, 0]], np.float32)}
  batch = {"label": np.array([1, 1], np.int32)}
  sums = as_floats(losses.CLASSIFICATION.sums(outputs, batch))
  nll = math.log(4 / 3) + 2 + math.log(1 + math.exp(-2))
  np.testing.assert_allclose(
      [sums["total"], sums["correct"], sums["loss"]], [2, 1, nll], rtol=1e-6)
  metrics = losses.CLASSIFICATION.metrics(sums)
  np.testing.assert_allclose(metrics["accuracy"], 0.5)
  np.testing.assert_allclose(
      losses.CLASSIFICATION.loss(sums, {"total": 2.0}), nll / 2, rtol=1e-6)


def test_windows_even_out_over_any_split_into_batches():
  # A text of one window and one of three: each has half of the loss, whatever
  # windows come together. Softmaxes of 1/2, 1/4, 1/4 and 1/4.
  logits = np.log([[1, 1], [3, 1], [3, 1], [3, 1]]).astype(np.float32)
  batch = {"label": np.array([1, 1, 1, 1], np.int32),
           "weight": np.float32([2, 2 / 3, 2 / 3, 2 / 3]),
           "divisor": np.ones(4, np.float32)}
  expected = (math.log(2) + math.log(4)) / 2
  for parts in ([[0], [1, 2, 3]], [[0, 1, 2, 3]], [[0, 1], [2, 3]]):
    found = 0
    for part in parts:
      one = {name: value[part] for name, value in batch.items()}
      sums = losses.CLASSIFICATION.sums({"logits": logits[part]}, one)
      totals = losses.CLASSIFICATION.totals(one)
      assert set(totals) == {"total", "divisor"}
      found += float(losses.CLASSIFICATION.loss(sums, totals)) * len(part) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-6)
  # What is reported is a weighted mean, and an accuracy never above 1.
  sums = as_floats(losses.CLASSIFICATION.sums(
      {"logits": -logits[:2]}, {name: x[:2] for name, x in batch.items()}))
  metrics = losses.CLASSIFICATION.metrics(sums)
  np.testing.assert_allclose(metrics["accuracy"], (2 / 3) / (2 + 2 / 3))
  np.testing.assert_allclose(
      metrics["loss"],
      (2 * math.log(2) + 2 / 3 * math.log(4 / 3)) / (2 + 2 / 3), rtol=1e-6)


def left_to_right_batch():
  """Two rows of four pieces, one of padding; (outputs, batch)."""
  outputs = {
    # About the pieces 1, 2 and 3. What has no weight would count.
    "lm_nll": np.array([[1, 2, 4], [8, 16, 99]], np.float32),
    "lm_correct": np.array([[1, 0, 1], [0, 0, 1]], np.float32)}
  batch = {"input_ids": np.zeros((2, 4), np.int32),
           "input_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.int32)}
  return outputs, batch


def test_left_to_right_by_hand():
  outputs, batch = left_to_right_batch()
  objective = losses.LEFT_TO_RIGHT
  sums = as_floats(objective.sums(outputs, batch))
  assert sums == {"lm_total": 5, "lm_loss": 31, "lm_correct": 2}
  assert as_floats(objective.totals(batch)) == {"lm_total": 5}
  np.testing.assert_allclose(
      objective.loss(sums, {"lm_total": 10}), 31 / 10.00001, rtol=1e-6)
  metrics = objective.metrics(sums)
  assert set(metrics) == {"loss", "lm_loss", "lm_accuracy"}
  np.testing.assert_allclose(
      [metrics["loss"], metrics["lm_loss"], metrics["lm_accuracy"]],
      [31 / 5.00001, 31 / 5.00001, 2 / 5.00001], rtol=1e-6)


def test_no_example_of_a_packed_row_predicts_the_next():
  outputs, batch = left_to_right_batch()
  # The second example of the first row begins at 2, that of the other at 1.
  batch["example_ids"] = np.array([[1, 1, 2, 2], [1, 2, 2, 0]], np.int32)
  assert as_floats(losses.LEFT_TO_RIGHT.sums(outputs, batch)) == {
    "lm_total": 3, "lm_loss": 1 + 4 + 16, "lm_correct": 2}
  parts = [
    as_floats(losses.LEFT_TO_RIGHT.sums(
        {name: value[i:i + 1] for name, value in outputs.items()},
        {name: value[i:i + 1] for name, value in batch.items()}))
    for i in range(2)]
  assert [part["lm_total"] for part in parts] == [2, 1]
  assert [part["lm_loss"] for part in parts] == [5, 16]


def test_the_losses_of_fit_are_those_of_the_loop():
  for outputs, batch in (pretraining_batch(), packed_batch()):
    for next_sentence in (True, False):
      batch["input_ids"] = np.ones((2, 4), np.int32)
      inputs, targets, weights = bert_tf.inputs_and_targets(
          batch, next_sentence=next_sentence)
      assert set(inputs) == {"input_ids"}
      functions = bert_tf.pretraining_losses(next_sentence=next_sentence)
      assert set(functions) == set(targets) == set(weights)
      loss = sum(
          float(function(targets[name], outputs[name], weights[name]))
          for name, function in functions.items())
      counted = {**batch}
      if not next_sentence:
        del counted["next_sentence_labels"]
      expected = losses.PRETRAINING.loss(
          losses.PRETRAINING.sums(outputs, counted),
          losses.PRETRAINING.totals(counted))
      np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_row_without_predictions_has_a_loss_in_fit():
  outputs, batch = pretraining_batch()
  function = bert_tf.pretraining_losses()["mlm_logits"]
  loss = function(
      batch["masked_lm_ids"], outputs["mlm_logits"], np.zeros((2, 2)))
  assert float(loss) == 0


def test_what_fit_cannot_train_on_is_refused():
  _, batch = pretraining_batch()
  del batch["next_sentence_labels"]
  with pytest.raises(InputError, match="Pass next_sentence=False"):
    bert_tf.inputs_and_targets(batch)
  del batch["masked_lm_ids"]
  with pytest.raises(InputError, match="no masked_lm_ids.*mask_batch"):
    bert_tf.inputs_and_targets(batch)
