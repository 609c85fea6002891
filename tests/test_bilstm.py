"""LSTMs over an encoder's states: by hand and in numpy."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf.bilstm import FeatureReader
from bert_tf.config import BertConfig
from bert_tf.config import FEATURES
from bert_tf.config import InputError
from bert_tf.heads import BertTokenClassifier

# Dropout that nobody overlooks.
CONFIG = BertConfig(
    vocab_size=50, hidden_size=12, num_hidden_layers=5,
    num_attention_heads=2, intermediate_size=20, max_position_embeddings=16,
    hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5,
    initializer_range=0.3)
LENGTHS = (4, 6)


def random_inputs():
  """Two rows, of which the first ends in padding."""
  generator = np.random.default_rng(0)
  mask = np.int32(np.arange(6) < np.array(LENGTHS)[:, None])
  return {
    "input_ids": tf.constant(generator.integers(1, 50, (2, 6)) * mask,
                             tf.int32),
    "input_mask": tf.constant(mask), "segment_ids": tf.zeros_like(mask)}


def make_model(features, **options):
  """With weights that are all different, those of a sum too."""
  keras.utils.set_random_seed(3)
  model = BertTokenClassifier(
      CONFIG, num_classes=4, features=features, **options)
  generator = np.random.default_rng(1)
  for variable in model.trainable_variables:
    variable.assign(generator.normal(0, 0.4, variable.shape))
  return model


def named(model):
  return {name: np.array(v, np.float64) for name, v in
          checkpoints.checkpoint_names(model).items()}


# One piece, two numbers: the embeddings' and those of five layers.
STATES = [np.float32([[x]]) for x in (
  [9, 9], [1, 2], [3, 4], [5, 6], [7, 8], [11, 0])]


@pytest.mark.parametrize("features, weights, expected", [
  ("embeddings", None, [9, 9]),
  ("second_to_last", None, [7, 8]),
  ("last", None, [11, 0]),
  ("concat_last_four", None, [3, 4, 5, 6, 7, 8, 11, 0]),
  # Equal at first: 26 / 4 and 18 / 4, 27 / 5 and 20 / 5.
  ("weighted_sum_last_four", None, [6.5, 4.5]),
  ("weighted_sum_all", None, [5.4, 4]),
  # Shares of 2, 1, 1 and 4 eighths: (6 + 5 + 7 + 44) / 8, (8 + 6 + 8) / 8.
  ("weighted_sum_last_four", [2, 1, 1, 4], [7.75, 2.75]),
  # Of 4, 1, 1, 1 and 1 eighths: (4 + 3 + 5 + 7 + 11) / 8, (8 + 18) / 8.
  ("weighted_sum_all", [4, 1, 1, 1, 1], [3.75, 3.25]),
])
def test_features_by_hand(features, weights, expected):
  reader = FeatureReader(
      dataclasses.replace(CONFIG, hidden_size=2), features)
  reader.build()
  if weights:
    reader.layer_weights.assign(np.log(weights))
  np.testing.assert_allclose(reader.mix(STATES)[0, 0], expected, rtol=1e-6)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def lstm_states(rows, kernel, recurrent, bias):
  """Those after each of the rows [S, H]; the gates in the order of Keras."""
  state, cell, found = np.zeros(len(recurrent)), np.zeros(len(recurrent)), []
  for row in rows:
    enter, forget, new, out = np.split(
        row @ kernel + state @ recurrent + bias, 4)
    cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
    state = sigmoid(out) * np.tanh(cell)
    found.append(state)
  return np.array(found)


def expected_logits(values, rows):
  """Of one row without padding, [S, features]."""
  for i in range(2):
    forward, backward = (
      [values[f"features/bilstm_{i}/{way}_lstm/lstm_cell/{part}"]
       for part in ("kernel", "recurrent_kernel", "bias")]
      for way in ("forward", "backward"))
    rows = np.concatenate([
      lstm_states(rows, *forward),
      lstm_states(rows[::-1], *backward)[::-1]], axis=1)
  return rows @ values["output_weights"].T + values["output_bias"]


@pytest.mark.parametrize("features", FEATURES)
def test_a_tagger_of_features_equals_one_in_numpy(features):
  model, inputs = make_model(features), random_inputs()
  logits = np.array(model(inputs)["logits"])
  states = [np.array(x, np.float64) for x in model.encoder(
      inputs, output_hidden_states=True)["hidden_states"]]
  values = named(model)
  chosen = {
    "embeddings": states[:1], "second_to_last": states[4:5],
    "last": states[5:], "weighted_sum_last_four": states[2:],
    "concat_last_four": states[2:], "weighted_sum_all": states[1:]}[features]
  if "sum" in features:
    weights = np.exp(values["features/layer_weights"])
    assert len(weights) == len(chosen) and np.ptp(weights) > 0.1
    x = np.einsum("l,lbsh->bsh", weights / weights.sum(), np.stack(chosen))
  else:
    x = np.concatenate(chosen, axis=-1)
  model.encoder.remove_padding = True
  without_padding = np.array(model(inputs)["logits"])
  for row, length in enumerate(LENGTHS):
    expected = expected_logits(values, x[row, :length])
    for found in (logits, without_padding):
      np.testing.assert_allclose(found[row, :length], expected, atol=1e-5)


def test_parameters_are_counted():
  # A direction of an LSTM of H units over W: 4 (H W + H H + H).
  first, second = (2 * 4 * (12 * w + 12 * 12 + 12) for w in (4 * 12, 2 * 12))
  head = 4 * 2 * 12 + 4
  model = make_model("concat_last_four")
  count = lambda variables: sum(v.shape.num_elements() for v in variables)
  assert count(v.value for v in model.trainable_variables) == (
    first + second + head)
  assert model.count_params() == (
    model.encoder.count_params() + first + second + head)
  summed = make_model("weighted_sum_all")
  first = 2 * 4 * (12 * 12 + 12 * 12 + 12)
  assert count(v.value for v in summed.trainable_variables) == (
    5 + first + second + head)


def test_no_gradient_goes_into_the_encoder_and_nothing_is_dropped_there():
  model, inputs = make_model("weighted_sum_all"), random_inputs()
  encoder = [v.value for v in model.encoder.weights]
  others = [v.value for v in model.trainable_variables]
  assert len(others) == 1 + 2 * 6 + 2
  assert {v.path for v in model.weights} == {
    v.path for v in model.encoder.weights + model.trainable_variables}
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(encoder)
    logits = model(inputs, training=True, dropout_seed=[1, 2])["logits"]
    loss = tf.reduce_sum(logits ** 2)
  assert tape.gradient(loss, encoder) == [None] * len(encoder)
  assert all(np.abs(g).max() > 1e-4 for g in tape.gradient(loss, others))
  # Before the classifier alone.
  calm = model(inputs)["logits"]
  assert np.abs(logits - calm).max() > 0.01
  model.dropout.rate = 0.0
  np.testing.assert_array_equal(
      model(inputs, training=True, dropout_seed=[1, 2])["logits"], calm)


@pytest.mark.slow
def test_it_is_the_same_under_xla():
  model, inputs = make_model("weighted_sum_last_four"), random_inputs()
  variables = [v.value for v in model.trainable_variables]

  def step():
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(model(inputs)["logits"] ** 2)
    return tape.gradient(loss, variables)

  plain, compiled = (
    tf.function(step, jit_compile=jit)() for jit in (False, True))
  for one, two in zip(plain, compiled):
    np.testing.assert_allclose(one, two, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_it_is_near_in_half_the_bits_and_survives_the_keras_file_format(
    tmp_path, policy):
  model, inputs = make_model("weighted_sum_all", dtype=policy), random_inputs()
  assert {v.dtype for v in model.weights} == {"float32"}
  logits = np.array(model(inputs)["logits"])
  assert logits.dtype == np.float32
  full = np.array(make_model("weighted_sum_all")(inputs)["logits"])
  error = np.abs(logits - full)[np.array(inputs["input_mask"]) > 0]
  assert 0 < error.max() < 0.1 < np.ptp(full)
  path = str(tmp_path / "model.keras")
  model.save(path)
  again = keras.models.load_model(path)
  np.testing.assert_array_equal(again(inputs)["logits"], logits)
  assert len(again.trainable_variables) == 1 + 2 * 6 + 2


@pytest.mark.parametrize("features, layers, message", [
  ("first", 5, "received 'first'; must be one of embeddings, second_to_last"),
  ("concat_last_four", 3, "needs 4 layers; the model has 3"),
  ("second_to_last", 1, "needs 2 layers; the model has 1"),
])
def test_other_features_are_refused(features, layers, message):
  config = dataclasses.replace(CONFIG, num_hidden_layers=layers)
  with pytest.raises(InputError, match=message):
    BertTokenClassifier(config, num_classes=4, features=features)


def test_packed_rows_are_refused():
  inputs = random_inputs()
  inputs["example_ids"] = inputs["input_mask"]
  with pytest.raises(InputError, match="packed rows"):
    make_model("last")(inputs)
