"""Weights of 8 bits: worked out by hand, and what they do to a model."""

import dataclasses

import keras
import numpy as np
import pytest

from bert_tf import checkpoints
from bert_tf.bilstm import make_bilstm
from bert_tf.config import BertConfig
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.heads import BertTokenClassifier
from bert_tf.layers import BertEmbeddings
from bert_tf.layers import Dense
from bert_tf.quantization import quantize

CONFIG = BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=12, initializer_range=0.3)
INPUTS = {
  "input_ids": np.array([[2, 7, 39, 3], [2, 11, 3, 0]]),
  "input_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
  "segment_ids": np.array([[0, 0, 1, 1], [0, 0, 0, 0]]),
}
PLACES = {"masked_lm_positions": np.array([[1, 2], [1, 0]])}


def dense(kernel):
  layer = Dense(np.shape(kernel)[1], name="dense")
  layer.build((None, np.shape(kernel)[0]))
  layer.kernel.assign(kernel)
  layer.bias.assign([1.0, 0.0, -1.0])
  return layer


def test_each_column_of_a_kernel_has_its_scale():
  # Greatest magnitudes 1.27, 0.5 and 0: 100, 254 and, with Keras's 1e-7 in
  # the place of a zero, 1.27e9 to the unit.
  layer = dense([[1.27, -0.5, 0], [0.014, 0.251, 0], [-0.64, 0.1, 0]])
  quantize(keras.Sequential([layer]))
  assert layer.kernel.dtype == "int8"
  assert layer.kernel.numpy().tolist() == [
    [127, -127, 0], [1, 64, 0], [-64, 25, 0]]
  np.testing.assert_allclose(layer.kernel_scale, [100, 254, 1.27e9], rtol=1e-6)
  # [2, 10, 1]: 254 + 10 - 64 = 200 hundredths; -254 + 640 + 25 = 411 / 254.
  np.testing.assert_allclose(
      layer(np.float32([[2, 10, 1]])), [[3.0, 411 / 254, -1.0]], rtol=1e-5)
  # What is multiplied with the kernel is not rounded: 0.001 counts.
  np.testing.assert_allclose(
      layer(np.float32([[2.001, 10, 1]])),
      [[3.00127, 411 / 254 - 0.0005, -1.0]], rtol=1e-5)


def test_each_row_of_the_word_embeddings_has_its_scale():
  layer = BertEmbeddings(
      vocab_size=3, hidden_size=2, type_vocab_size=2,
      max_position_embeddings=4, dropout_rate=0.0, initializer_range=0.02)
  layer.build()
  layer.word_embeddings.assign([[0, 0], [1.27, -0.634], [-0.02, 0.0051]])
  quantize(keras.Sequential([layer]))
  assert layer.word_embeddings.dtype == "int8"
  assert layer.word_embeddings.numpy().tolist() == [
    [0, 0], [127, -63], [-127, 32]]
  expected = np.array([[0, 0], [1.27, -0.63], [-0.02, 0.02 * 32 / 127]])
  np.testing.assert_allclose(layer.word_table, expected, rtol=1e-5)
  np.testing.assert_allclose(
      layer._look_up_words(np.array([[2, 0], [1, 2]])),
      expected[[[2, 0], [1, 2]]], rtol=1e-5)



def assert_near(rough, exact):
  """Another, by 6 % of the greatest at most: hidden sizes of 16 even out less
  than those of real models.
  """
  assert rough.dtype == "float32"
  assert 0 < np.abs(rough - exact).max() < 0.06 * np.abs(exact).max()


MODELS = {
  "pretraining": lambda **kwargs: BertForPreTraining(CONFIG, **kwargs),
  "classes": lambda **kwargs: BertClassifier(CONFIG, num_classes=3, **kwargs),
  "bilstm": lambda **kwargs: BertClassifier(
      CONFIG, num_classes=3, head="bilstm", **kwargs),
  "features": lambda **kwargs: BertTokenClassifier(
      dataclasses.replace(CONFIG, num_hidden_layers=4), num_classes=3,
      features="weighted_sum_last_four", **kwargs),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_rounded_model_is_that_of_its_rounded_matrices(name):
  keras.utils.set_random_seed(2)
  model, same = MODELS[name](), MODELS[name]()
  before = {key: v.numpy()
            for key, v in checkpoints.checkpoint_names(model).items()}
  outputs = model({**INPUTS, **PLACES})
  quantize(model)
  after = checkpoints.checkpoint_names(model)
  rounded = {key for key, v in after.items() if v.dtype == "int8"}
  # Six kernels a layer and the pooler's; the words; the transform.
  assert len(rounded) == 6 * model.config.num_hidden_layers + 2 + (
      name == "pretraining")
  assert set(after) == set(before) | {f"{key}_scale" for key in rounded}
  assert "bert/encoder/layer_1/output/dense/kernel" in rounded
  for key, variable in checkpoints.checkpoint_names(same).items():
    value = after[key].numpy()
    if key in rounded:
      scale = after[f"{key}_scale"].numpy()
      value = value / scale
      # To the nearest.
      assert np.abs(value - before[key]).max() <= 0.501 / scale.min()
    else:
      np.testing.assert_array_equal(value, before[key])
    variable.assign(value)
  expected = same({**INPUTS, **PLACES})
  for key, rough in model({**INPUTS, **PLACES}).items():
    np.testing.assert_allclose(rough, expected[key], atol=1e-5)
    assert_near(rough, outputs[key])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_bfloat16_is_near_the_one_in_float32(name):
  keras.utils.set_random_seed(2)
  model = MODELS[name]()
  half = MODELS[name](dtype="bfloat16")
  ours, theirs = map(checkpoints.checkpoint_names, (model, half))
  assert list(ours) == list(theirs)
  for key, variable in theirs.items():
    variable.assign(ours[key])
    assert variable.dtype == (
        "float32" if "bilstm" in key else "bfloat16"), key
  outputs = model({**INPUTS, **PLACES})
  for key, rough in half({**INPUTS, **PLACES}).items():
    assert_near(rough, outputs[key])


def test_logits_are_summed_in_float32():
  """Two classes that bfloat16 could not tell apart: its steps at 4 are 1/32."""
  model = BertClassifier(CONFIG, num_classes=2, dtype="bfloat16")
  weights = np.zeros((2, 16))
  weights[:, :3] = [[4, 2**-7, 0], [4, 0, 2**-8]]
  model.head.output_weights.assign(weights)
  logits = model.head(np.ones((1, 16), np.float32))
  np.testing.assert_array_equal(logits, [[4 + 2**-7, 4 + 2**-8]])


def test_an_lstm_stays_float32_in_a_model_of_bfloat16():
  layer = make_bilstm(4, width=8, name="x", dtype="bfloat16")
  assert {v.dtype for v in layer.weights} == {"float32"}
  mixed = make_bilstm(4, width=8, name="x", dtype="mixed_bfloat16")
  assert mixed.compute_dtype == "bfloat16"
