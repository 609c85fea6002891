"""Several examples in a row give what they give apart: outputs, gradients.

Shapes: B rows, S their length, P predictions of an example, K most examples
in a row.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from test_modeling import numpy_dense
from test_modeling import numpy_encoder
from test_modeling import random_inputs
from test_modeling import randomize
from test_modeling import TINY
from test_modeling import values_of

import bert_tf
from bert_tf import losses
from bert_tf import padding
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.layers import attention_bias
from bert_tf.modeling import BertEncoder


def pack(batch, rows, *, length):
  """Packed rows of the examples that each of `rows` names.

  Returns the packed batch and {example: (row, number in it, its slice)}.
  """
  most = max(map(len, rows))
  predictions = batch["masked_lm_positions"].shape[1]

  def zeros(size, dtype=np.int32):
    return np.zeros((len(rows), size), dtype)

  out = {name: zeros(length) for name in (
    "input_mask", "segment_ids", "example_ids", "position_ids")}
  out |= {name: zeros(most * predictions) for name in (
    "masked_lm_positions", "masked_lm_ids")}
  out |= {name: zeros(most) for name in (
    "cls_positions", "next_sentence_labels")}
  # What stands in the padding must not matter.
  out["input_ids"] = np.full((len(rows), length), 17, np.int32)
  out["masked_lm_weights"] = zeros(most * predictions, np.float32)
  out["next_sentence_weights"] = zeros(most, np.float32)
  places = {}
  for r, row in enumerate(rows):
    start = 0
    for k, e in enumerate(row):
      size = batch["input_mask"][e].sum()
      place, masked = slice(start, start + size), slice(
          k * predictions, (k + 1) * predictions)
      for name in ("input_ids", "input_mask", "segment_ids"):
        out[name][r, place] = batch[name][e, :size]
      out["example_ids"][r, place] = k + 1
      out["position_ids"][r, place] = range(size)
      out["cls_positions"][r, k] = start
      out["masked_lm_positions"][r, masked] = (
          batch["masked_lm_positions"][e] + start)
      for name in ("masked_lm_ids", "masked_lm_weights"):
        if name in batch:
          out[name][r, masked] = batch[name][e]
      if "next_sentence_labels" in batch:
        out["next_sentence_labels"][r, k] = batch["next_sentence_labels"][e]
      out["next_sentence_weights"][r, k] = 1
      places[e] = (r, k, place)
      start += size
  return out, places


def examples_to_pack():
  """Five examples of 7, 5, 4, 16 and 3 pieces, one in each row."""
  rng = np.random.default_rng(3)
  sizes = np.array([7, 5, 4, 16, 3])
  return {
    "input_ids": rng.integers(0, 50, (5, 16), np.int32),
    "input_mask": (np.arange(16) < sizes[:, None]).astype(np.int32),
    "segment_ids": rng.integers(0, 2, (5, 16), np.int32),
    "masked_lm_positions": rng.integers(0, sizes[:, None], (5, 2), np.int32),
    "masked_lm_ids": rng.integers(0, 50, (5, 2), np.int32),
    "masked_lm_weights": np.array(
        [[1, 1], [1, 0], [0, 0], [1, 1], [1, 0]], np.float32),
    "next_sentence_labels": np.array([1, 0, 1, 1, 0], np.int32),
  }


# The first row is full, the third mostly padding.
ROWS = [[2, 0, 1], [3], [4]]


def assert_packed_outputs(model, batch, rows, expected, *, length):
  """Each example's outputs, out of packed rows, against `expected`."""
  packed, places = pack(batch, rows, length=length)
  outputs = {**model.encoder(packed), **model(packed)}
  most = max(map(len, rows))
  assert outputs["pooled_output"].shape[:2] == (len(rows), most)
  assert outputs["nsp_logits"].shape == (len(rows), most, 2)
  predictions = batch["masked_lm_positions"].shape[1]
  for e, (row, k, place) in places.items():
    size = place.stop - place.start
    masked = slice(k * predictions, (k + 1) * predictions)
    for name, where, example in (
        ("sequence_output", place, expected["sequence_output"][e][:size]),
        ("mlm_logits", masked, expected["mlm_logits"][e]),
        ("pooled_output", k, expected["pooled_output"][e]),
        ("nsp_logits", k, expected["nsp_logits"][e])):
      np.testing.assert_allclose(
          outputs[name][row][where], example, atol=1e-5, err_msg=name)
  for name, value in outputs.items():
    assert np.isfinite(value).all(), name


def test_packed_examples_give_what_they_give_apart():
  model = BertForPreTraining(TINY)
  randomize(model)
  batch = examples_to_pack()
  apart = {**model.encoder(batch), **model(batch)}
  assert_packed_outputs(model, batch, ROWS, apart, length=16)


def test_packed_examples_give_the_originals_outputs(shared):
  directory = shared / "golden" / "google_checkpoint"
  expected = dict(np.load(directory / "expected_outputs.npz"))
  expected["mlm_logits"] = expected["mlm_logits"].reshape(4, 5, 99)
  assert expected["input_mask"].sum(1).tolist() == [24, 21, 12, 7]
  model = bert_tf.load_pretraining_model(str(directory))
  assert_packed_outputs(
      model, expected, [[0, 2], [3, 1]], expected, length=40)


def gradients_of(model, batch):
  variables = model.trainable_variables
  with tf.GradientTape() as tape:
    sums = losses.PRETRAINING.sums(model(batch), batch)
    loss = losses.PRETRAINING.loss(sums, losses.PRETRAINING.totals(batch))
  gradients = tape.gradient(loss, [v.value for v in variables])
  return float(loss), {
    v.path: np.array(tf.convert_to_tensor(g))
    for v, g in zip(variables, gradients)}


def test_a_packed_batch_has_the_gradients_of_its_examples():
  model = BertForPreTraining(TINY)
  randomize(model)
  batch = examples_to_pack()
  loss, gradients = gradients_of(model, batch)
  packed_loss, packed = gradients_of(model, pack(batch, ROWS, length=16)[0])
  np.testing.assert_allclose(packed_loss, loss, rtol=1e-6)
  largest = max(np.abs(g).max() for g in gradients.values())
  for path, gradient in gradients.items():
    # The gradient of a key's bias is rounding alone: hence `largest`.
    scale = max(np.abs(gradient).max(), 0.01 * largest)
    np.testing.assert_allclose(
        packed[path], gradient, rtol=0, atol=1e-5 * scale, err_msg=path)


def test_an_example_does_not_feel_its_neighbours():
  model = BertForPreTraining(TINY)
  randomize(model)
  packed, places = pack(examples_to_pack(), ROWS, length=16)
  changed = {**packed, "input_ids": packed["input_ids"].copy()}
  row, k, place = places[0]  # Between its two neighbours.
  changed["input_ids"][row, place] = (packed["input_ids"][row, place] + 1) % 50
  one, two = model.encoder(packed), model.encoder(changed)
  moved = np.abs(one["sequence_output"] - two["sequence_output"]).max(-1)
  assert moved[row, place].min() > 0.01
  moved[row, place] = 0
  assert moved.max() < 1e-6
  pooled = np.abs(one["pooled_output"] - two["pooled_output"]).max(-1)
  assert pooled[row, k] > 0.01
  pooled[row, k] = 0
  assert pooled[packed["next_sentence_weights"] == 1].max() < 1e-6


def test_the_attention_bias_by_hand():
  # The second piece of the first example is hidden as a key, not a query.
  mask, ids = np.array([[1, 0, 1, 0]]), np.array([[1, 1, 2, 0]])
  np.testing.assert_array_equal(
      attention_bias(mask), [[[[0, -10000, 0, -10000]]]])
  np.testing.assert_array_equal(attention_bias(mask, ids), [[[
    [0, -10000, -10000, -10000], [0, -10000, -10000, -10000],
    [-10000, -10000, 0, -10000], [-10000, -10000, -10000, -10000]]]])


def test_example_ids_alone_leave_positions_and_pooler():
  encoder = BertEncoder(TINY)
  randomize(encoder)
  ids = random_inputs(TINY)["input_ids"]
  # Two examples in seven places of ten, and no mask.
  example_ids = np.array([[1] * 3 + [2] * 4 + [0] * 3] * 3, np.int32)
  outputs = encoder({"input_ids": ids, "example_ids": example_ids})
  assert outputs["pooled_output"].shape == (3, 12)
  second = encoder({
    "input_ids": ids[:, 3:7],
    "position_ids": np.array([[3, 4, 5, 6]] * 3, np.int32)})
  np.testing.assert_allclose(
      outputs["sequence_output"][:, 3:7], second["sequence_output"],
      atol=1e-5)
  np.testing.assert_allclose(
      outputs["pooled_output"],
      encoder({"input_ids": ids[:, :3]})["pooled_output"], atol=1e-5)


def test_position_ids_alone_choose_rows_of_the_table():
  encoder = BertEncoder(TINY)
  randomize(encoder)
  inputs = random_inputs(TINY)
  position_ids = np.tile(np.arange(6, 16, dtype=np.int32), (3, 1))
  shifted = encoder({**inputs, "position_ids": position_ids})
  table = encoder.embeddings.position_embeddings
  table.assign(np.roll(table.numpy(), -6, axis=0))
  np.testing.assert_allclose(
      shifted["sequence_output"], encoder(inputs)["sequence_output"],
      atol=1e-6)


def test_cls_positions_alone_choose_what_is_pooled():
  encoder = BertEncoder(TINY)
  randomize(encoder)
  inputs = random_inputs(TINY)
  places = np.array([[0, 4], [2, 0], [3, 1]], np.int32)
  outputs = encoder({**inputs, "cls_positions": places})
  states, pooled = numpy_encoder(inputs, values_of(encoder), 3, 2)
  x = np.stack([state[p] for state, p in zip(states[-1], places)])
  expected = np.tanh(numpy_dense(x, values_of(encoder), "bert/pooler/dense"))
  np.testing.assert_allclose(outputs["pooled_output"], expected, atol=1e-5)
  np.testing.assert_allclose(
      outputs["pooled_output"][0, 0], pooled[0], atol=1e-5)
  classifier = BertClassifier(TINY, num_classes=5)
  assert classifier({**inputs, "cls_positions": places})["logits"].shape == (
      3, 2, 5)


@pytest.mark.parametrize("config, remove_padding", [
  (TINY, False), (TINY, True),
  (dataclasses.replace(TINY, attention="left_to_right"), False),
], ids=["whole", "without padding", "left to right"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_positions_that_are_read_have_the_values_of_all(
    config, remove_padding, is_packed, monkeypatch):
  """And the gradients, of what comes before and of the last block."""
  monkeypatch.setattr(padding, "PIECES_MULTIPLE", 1)
  encoder = BertEncoder(config, remove_padding=remove_padding)
  randomize(encoder)
  inputs = random_inputs(config)
  if is_packed:
    inputs |= {
      "cls_positions": np.array([[0, 4], [0, 2], [0, 1]], np.int32),
      "example_ids": np.array(
          [[1] * 4 + [2] * 6, [1] * 2 + [2] * 8, [1] + [2] * 9], np.int32)}
  positions = np.array([[3, 9, 3], [0, 6, 5], [3, 1, 2]], np.int64)
  found = []
  for read in (positions, None):
    with tf.GradientTape() as tape:
      outputs = encoder(inputs, positions=read)
      x, pooled = outputs["sequence_output"], outputs["pooled_output"]
      if read is None:
        x = tf.gather(x, positions, batch_dims=1)
      loss = tf.reduce_sum(x ** 3) + tf.reduce_sum(pooled ** 3)
    gradients = tape.gradient(loss, [v.value for v in encoder.weights])
    found.append([x, pooled, *map(tf.convert_to_tensor, gradients)])
  for one, two in zip(*found, strict=True):
    scale = max(np.abs(two).max(), 1)
    np.testing.assert_allclose(one, two, rtol=0, atol=2e-5 * scale)
  assert found[0][0].shape == (3, 3, 12)


@pytest.mark.slow
def test_packed_rows_and_their_losses_need_keras_alone():
  program = """
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
sys.modules["tensorflow"] = None
import jax
import numpy as np
from bert_tf import losses
from bert_tf.config import BertConfig
from bert_tf.heads import BertForPreTraining

model = BertForPreTraining(
    BertConfig.from_size("tiny", vocab_size=9, initializer_range=0.5))
apart = {
  "input_ids": np.array([[1, 2, 3, 0], [4, 5, 6, 7]]),
  "input_mask": np.array([[1, 1, 1, 0], [1, 1, 1, 1]]),
  "masked_lm_positions": np.array([[1], [2]]),
  "masked_lm_ids": np.array([[8], [7]]),
  "masked_lm_weights": np.ones((2, 1), "float32"),
  "next_sentence_labels": np.array([0, 1])}
packed = {
  "input_ids": np.array([[1, 2, 3, 4, 5, 6, 7, 0]]),
  "example_ids": np.array([[1, 1, 1, 2, 2, 2, 2, 0]]),
  "position_ids": np.array([[0, 1, 2, 0, 1, 2, 3, 0]]),
  "cls_positions": np.array([[0, 3, 0]]),
  "masked_lm_positions": np.array([[1, 5]]),
  "masked_lm_ids": np.array([[8, 7]]),
  "masked_lm_weights": np.ones((1, 2), "float32"),
  "next_sentence_labels": np.array([[0, 1, 0]]),
  "next_sentence_weights": np.array([[1, 1, 0]], "float32")}

@jax.jit
def metrics(batch):
  return losses.PRETRAINING.metrics(
      losses.PRETRAINING.sums(model(batch), batch))

one, two = metrics(apart), metrics(packed)
assert set(one) == set(two) and len(one) == 5
for name in one:
  np.testing.assert_allclose(one[name], two[name], rtol=1e-5, err_msg=name)
del packed["next_sentence_labels"]
assert set(metrics(packed)) == {"loss", "mlm_loss", "mlm_accuracy"}
print(model(packed)["nsp_logits"].shape)
"""
  result = subprocess.run(
      [sys.executable, "-c", program], capture_output=True, text=True)
  assert result.stdout == "(1, 3, 2)\n", result.stderr
