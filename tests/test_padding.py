"""An encoder without padding: the same answers, and where pieces lie."""

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import padding
from bert_tf.heads import BertClassifier
from bert_tf.modeling import BertEncoder
from test_modeling import TINY
from test_modeling import numpy_encoder
from test_modeling import random_inputs
from test_modeling import randomize
from test_modeling import values_of


@pytest.mark.parametrize("multiple, number", [(1, 21), (4, 24), (64, 30)])
def test_without_its_padding_a_batch_gives_the_same(
    multiple, number, monkeypatch):
  """21 pieces of 30 places; three of the padding make it a multiple of 4."""
  monkeypatch.setattr(padding, "PIECES_MULTIPLE", multiple)
  encoder = BertEncoder(TINY, remove_padding=True)
  randomize(encoder)
  inputs = random_inputs(TINY)
  is_piece = inputs["input_mask"][:, :, None] == 1
  places, pieces = padding.kept_places(inputs["input_mask"])
  assert places.shape == (number,) and pieces == 21
  outputs = encoder(inputs, output_hidden_states=True)
  states, pooled = numpy_encoder(inputs, values_of(encoder), 3, 2)
  for state, expected in zip(outputs["hidden_states"], states):
    np.testing.assert_allclose(state, expected * is_piece, atol=1e-5)
  np.testing.assert_array_equal(
      outputs["hidden_states"][-1], outputs["sequence_output"])
  np.testing.assert_allclose(outputs["pooled_output"], pooled, atol=1e-5)


def test_heads_lie_row_after_row():
  """Rows of 2 and 1 pieces in 3 places, 2 heads: [B, N, S] is 12 places."""
  places = tf.constant([0, 1, 3])
  rows = padding.kept_rows(places, (2, 3))
  np.testing.assert_array_equal(rows, [[0, 1, -1], [2, -1, -1]])
  to_heads, to_pieces = padding.head_places(places, rows, num_heads=2)
  pieces = np.array([["a0", "a1"], ["b0", "b1"], ["c0", "c1"]])
  heads = np.append(pieces, "--")[to_heads]  # -1 is padding.
  np.testing.assert_array_equal(heads, [
    [["a0", "b0", "--"], ["a1", "b1", "--"]],
    [["c0", "--", "--"], ["c1", "--", "--"]]])
  np.testing.assert_array_equal(heads.ravel()[to_pieces], pieces)


def test_the_padding_of_a_mask_with_holes_is_left_out_too():
  inputs = {**random_inputs(TINY), "input_mask": np.int32(
      [[0, 1, 0, 0, 1, 1, 0, 0, 0, 0]] * 3)}
  np.testing.assert_array_equal(
      padding.kept_places(inputs["input_mask"])[0][:9],
      [1, 4, 5, 11, 14, 15, 21, 24, 25])
  encoder = BertEncoder(TINY)
  randomize(encoder)
  whole = encoder(inputs)["sequence_output"].numpy()
  encoder.remove_padding = True
  np.testing.assert_allclose(
      encoder(inputs)["sequence_output"].numpy()[:, [1, 4, 5]],
      whole[:, [1, 4, 5]], atol=1e-5)


def test_positions_are_those_that_are_given_without_padding_too():
  inputs = {**random_inputs(TINY), "position_ids": np.int32(
      np.arange(10)[::-1] + np.zeros((3, 1)))}
  encoder = BertEncoder(TINY)
  randomize(encoder)
  whole = encoder(inputs)["sequence_output"].numpy()
  encoder.remove_padding = True
  bare = encoder(inputs)["sequence_output"].numpy()
  is_piece = inputs["input_mask"] == 1
  np.testing.assert_allclose(bare[is_piece], whole[is_piece], atol=1e-5)
  del inputs["position_ids"]
  other = encoder(inputs)["sequence_output"].numpy()
  assert np.abs(other - bare)[is_piece].max() > 0.01


def test_a_batch_that_is_all_padding_gives_zeros():
  inputs = {**random_inputs(TINY), "input_mask": np.zeros((3, 10), np.int32)}
  encoder = BertEncoder(TINY, remove_padding=True)
  randomize(encoder)
  outputs = encoder(inputs)
  np.testing.assert_array_equal(
      outputs["sequence_output"], np.zeros((3, 10, TINY.hidden_size)))
  assert np.all(np.isfinite(outputs["pooled_output"]))


def test_rows_without_a_first_piece_are_answered_as_each_alone(monkeypatch):
  """One is empty, one padded on the left; the pooler reads zeros of both."""
  monkeypatch.setattr(padding, "PIECES_MULTIPLE", 1)
  model = BertClassifier(TINY, num_classes=3)
  randomize(model)
  model.encoder.remove_padding = True
  mask = np.ones((3, 10), np.int32)
  mask[1], mask[2, :4] = 0, 0
  inputs = {**random_inputs(TINY), "input_mask": mask}
  together = model(inputs)["logits"].numpy()
  for i in range(3):
    alone = model({name: x[i:i + 1] for name, x in inputs.items()})["logits"]
    np.testing.assert_allclose(together[i], alone[0], atol=1e-5)
  bias = model.encoder.pooler.bias.numpy()
  expected = model.head(np.tanh(bias)[None]).numpy()[0]
  np.testing.assert_allclose(together[1], expected, atol=1e-5)
  np.testing.assert_allclose(together[2], expected, atol=1e-5)
