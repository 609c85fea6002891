"""The encoder and its heads, against numpy and the original's outputs.

The forward pass in numpy is written from the paper and shares no code with
the layers.
"""

import math
import subprocess
import sys

import keras
from keras import ops
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import fused
from bert_tf.config import BertConfig
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.layers import ACTIVATIONS
from bert_tf.layers import Dropout
from bert_tf.layers import random_bits
from bert_tf.modeling import BertEncoder

TINY = BertConfig(
    vocab_size=50, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
    intermediate_size=20, max_position_embeddings=16, initializer_range=0.5)


def randomize(model, seed=0):
  """Norms and biases too: at their initial values they hide mistakes."""
  rng = np.random.default_rng(seed)
  for variable in model.weights:
    variable.assign(rng.normal(0, 0.5, variable.shape))


def random_inputs(config, *, batch=3, length=10, seed=0):
  rng = np.random.default_rng(seed)
  mask = np.ones((batch, length), np.int32)
  mask[1, 7:] = 0
  mask[2, 4:] = 0
  return {
    "input_ids": rng.integers(0, config.vocab_size, (batch, length), np.int32),
    "input_mask": mask,
    "segment_ids": rng.integers(0, 2, (batch, length), np.int32),
  }


def numpy_layer_norm(x, weights, name):
  mean = x.mean(-1, keepdims=True)
  variance = ((x - mean) ** 2).mean(-1, keepdims=True)
  normal = (x - mean) / np.sqrt(variance + 1e-12)
  return normal * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def numpy_dense(x, weights, name):
  return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def numpy_gelu(x):
  inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)
  return 0.5 * x * (1 + np.tanh(inner))


def numpy_softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def numpy_encoder(inputs, w, heads, num_layers):
  """float64 forward pass, one example and one head at a time."""
  states, pooled = [], []
  for ids, mask, segments in zip(
      inputs["input_ids"], inputs["input_mask"], inputs["segment_ids"]):
    x = w["bert/embeddings/word_embeddings"][ids]
    x = x + w["bert/embeddings/token_type_embeddings"][segments]
    x = x + w["bert/embeddings/position_embeddings"][:len(ids)]
    x = numpy_layer_norm(x, w, "bert/embeddings/LayerNorm")
    layers = [x]
    for i in range(num_layers):
      p = f"bert/encoder/layer_{i}"
      q, k, v = (numpy_dense(x, w, f"{p}/attention/self/{n}")
                 for n in ("query", "key", "value"))
      size = x.shape[-1] // heads
      parts = []
      for h in range(heads):
        s = slice(h * size, (h + 1) * size)
        scores = q[:, s] @ k[:, s].T / math.sqrt(size)
        scores = scores - 10000.0 * (1 - mask)[None, :]
        parts.append(numpy_softmax(scores) @ v[:, s])
      y = numpy_dense(
          np.concatenate(parts, -1), w, f"{p}/attention/output/dense")
      x = numpy_layer_norm(x + y, w, f"{p}/attention/output/LayerNorm")
      y = numpy_gelu(numpy_dense(x, w, f"{p}/intermediate/dense"))
      y = numpy_dense(y, w, f"{p}/output/dense")
      x = numpy_layer_norm(x + y, w, f"{p}/output/LayerNorm")
      layers.append(x)
    states.append(layers)
    pooled.append(np.tanh(numpy_dense(x[0], w, "bert/pooler/dense")))
  return [np.stack(layer) for layer in zip(*states)], np.stack(pooled)


def values_of(model):
  return {v.path: v.numpy().astype(np.float64) for v in model.weights}


@pytest.mark.parametrize("size, count", [
  ("base", 109_482_240), ("tiny", 4_385_920), ("large", 335_141_888),
])
def test_parameter_counts(size, count):
  with keras.device("cpu"), tf.init_scope():
    encoder = BertEncoder(BertConfig.from_size(size, vocab_size=30522))
  assert encoder.count_params() == count


def test_the_encoder_equals_a_forward_pass_in_numpy():
  encoder = BertEncoder(TINY)
  randomize(encoder)
  inputs = random_inputs(TINY)
  outputs = encoder(inputs, output_hidden_states=True)
  states, pooled = numpy_encoder(inputs, values_of(encoder), 3, 2)
  assert len(outputs["hidden_states"]) == 3
  for state, expected in zip(outputs["hidden_states"], states):
    np.testing.assert_allclose(state, expected, atol=1e-5)
  np.testing.assert_allclose(
      outputs["sequence_output"], states[-1], atol=1e-5)
  np.testing.assert_allclose(outputs["pooled_output"], pooled, atol=1e-5)


def test_the_heads_equal_a_forward_pass_in_numpy():
  model = BertForPreTraining(TINY)
  randomize(model)
  inputs = random_inputs(TINY)
  positions = np.array([[1, 2], [6, 0], [3, 3]], np.int32)
  outputs = model({**inputs, "masked_lm_positions": positions})
  w = values_of(model)
  states, pooled = numpy_encoder(inputs, w, 3, 2)
  x = np.stack([state[p] for state, p in zip(states[-1], positions)])
  x = numpy_gelu(numpy_dense(x, w, "cls/predictions/transform/dense"))
  x = numpy_layer_norm(x, w, "cls/predictions/transform/LayerNorm")
  mlm = x @ w["bert/embeddings/word_embeddings"].T
  mlm = mlm + w["cls/predictions/output_bias"]
  nsp = pooled @ w["cls/seq_relationship/output_weights"].T
  nsp = nsp + w["cls/seq_relationship/output_bias"]
  np.testing.assert_allclose(outputs["mlm_logits"], mlm, atol=2e-5)
  np.testing.assert_allclose(outputs["nsp_logits"], nsp, atol=1e-5)


@pytest.mark.parametrize("name", ["gelu", "gelu_exact"])
def test_gelu_of_bfloat16_is_near(name):
  """Exact but for what goes out, or with each step of it in eight bits."""
  x = np.linspace(-6, 6, 4001, dtype=np.float32)
  x = tf.cast(tf.cast(x, tf.bfloat16), tf.float32)
  exact = ACTIVATIONS[name](x)
  half = tf.cast(x, tf.bfloat16)
  near = ACTIVATIONS[name](half)
  with fused.into_products():
    rough = ACTIVATIONS[name](half)
  np.testing.assert_array_equal(near, tf.cast(exact, tf.bfloat16))
  assert rough.dtype == tf.bfloat16
  error = np.abs(tf.cast(rough, tf.float32) - exact)
  assert 0.001 < error.max()
  assert (error <= 0.01 * np.abs(exact) + 0.01).all()


def test_the_exact_gelu_is_another_function():
  by_name = {}
  for name in ("gelu", "gelu_exact"):
    config = BertConfig(**{**TINY.to_dict(), "hidden_act": name})
    encoder = BertEncoder(config)
    randomize(encoder)
    layer = encoder.encoder_layers[0]
    by_name[name] = ops.convert_to_numpy(
        layer.activation(ops.convert_to_tensor([1.0])))
  # x * Phi(x) at 1 is 0.8413447; the tanh form gives 0.8411920.
  np.testing.assert_allclose(by_name["gelu_exact"], [0.8413447], atol=1e-7)
  np.testing.assert_allclose(by_name["gelu"], [0.8411920], atol=1e-7)


def test_what_stands_behind_the_mask_changes_nothing():
  encoder = BertEncoder(TINY)
  randomize(encoder)
  inputs = random_inputs(TINY)
  changed = {**inputs, "input_ids": inputs["input_ids"].copy()}
  changed["input_ids"][inputs["input_mask"] == 0] = 17
  one, two = encoder(inputs), encoder(changed)
  seen = inputs["input_mask"] == 1
  np.testing.assert_allclose(
      np.array(one["sequence_output"])[seen],
      np.array(two["sequence_output"])[seen], atol=1e-6)
  np.testing.assert_allclose(
      one["pooled_output"], two["pooled_output"], atol=1e-6)
  shorter = {name: value[2:, :4] for name, value in inputs.items()}
  np.testing.assert_allclose(
      encoder(shorter)["sequence_output"][0],
      one["sequence_output"][2][:4], atol=1e-5)


def test_mask_and_segments_have_defaults():
  encoder = BertEncoder(TINY)
  ids = random_inputs(TINY)["input_ids"]
  given = encoder({
    "input_ids": ids, "input_mask": np.ones_like(ids),
    "segment_ids": np.zeros_like(ids)})
  np.testing.assert_array_equal(
      encoder({"input_ids": ids})["sequence_output"],
      given["sequence_output"])


def test_a_sequence_longer_than_the_positions_is_refused():
  encoder = BertEncoder(TINY)
  with pytest.raises(ValueError, match="17; the model has 16 positions"):
    encoder({"input_ids": np.zeros((1, 17), np.int32)})


def test_dropout_is_a_function_of_the_seed():
  model = BertForPreTraining(TINY)
  inputs = {
    **random_inputs(TINY),
    "masked_lm_positions": np.zeros((3, 1), np.int32)}

  def logits(seed, training=True):
    out = model(inputs, training=training, dropout_seed=ops.array(
        seed, "int32"))
    return np.array(out["mlm_logits"])

  np.testing.assert_array_equal(logits([1, 2]), logits([1, 2]))
  assert np.abs(logits([1, 2]) - logits([1, 3])).max() > 0.01
  assert np.abs(logits([1, 2]) - logits([2, 2])).max() > 0.01
  np.testing.assert_array_equal(
      logits([1, 2], training=False), model(inputs)["mlm_logits"])
  # Without a seed, as under `fit`, each call draws its own.
  first = np.array(model(inputs, training=True)["mlm_logits"])
  assert np.abs(first - model(inputs, training=True)["mlm_logits"]).max() > 0.01


def test_dropout_drops_its_share_and_keeps_the_mean():
  seed = ops.array([5, 6], "int32")
  ones = ops.ones((200, 500))
  out = np.array(Dropout(0.1, salt=3)(ones, seed=seed))
  # Standard error of the share over 100,000 draws: 0.00095.
  assert abs(np.mean(out == 0) - 0.1) < 0.005
  np.testing.assert_allclose(out[out != 0], 1 / 0.9, rtol=1e-6)
  other = np.array(Dropout(0.1, salt=4)(ones, seed=seed))
  assert 0.15 < np.mean((out == 0) != (other == 0)) < 0.21  # 2 * 0.1 * 0.9


def triple32(x: int, key: int) -> int:
  """The hash in whole numbers of Python."""
  for shift, factor, more in (
      (17, 0xED5AD4BB, 0), (11, 0xAC4C1B51, key), (15, 0x31848BAB, 0)):
    x ^= x >> shift
    x = (x * factor + more) % 2**32
  return x ^ x >> 14


@pytest.mark.parametrize("seed", [(5, 6), (-1, 2**31 - 1)])
def test_random_bits_are_a_hash_of_seed_and_place(seed):
  found = np.array(random_bits((2, 3), ops.array(seed, "int32")))
  first, second = (triple32(number % 2**32, 1) for number in seed)
  assert found.ravel().tolist() == [
    triple32(place ^ first, second) for place in range(6)]


def test_random_bits_are_random():
  """What would be seen of draws that depend on each other, in deviations."""
  number = 2**20

  def dropped(*seed):
    bits = np.array(random_bits((number,), ops.array(seed, "int32")))
    return (np.float32(bits < round(0.1 * 2**32)) - 0.1) / 0.3

  first = dropped(0, 0)
  for seed in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
    other = dropped(*seed)
    assert abs(other.sum()) < 4 * np.sqrt(number)
    assert abs(np.dot(first, other)) < 4 * np.sqrt(number)
  distances = {*range(1, 65), *(2**power for power in range(7, 18)), 768, 1536}
  deviations = np.array([
    np.dot(first[:-distance], first[distance:]) / np.sqrt(number - distance)
    for distance in distances])
  assert np.abs(deviations).max() < 4.5
  assert abs(np.sqrt(np.mean(deviations ** 2)) - 1) < 0.25


def test_gradients_flow_to_every_variable():
  model = BertForPreTraining(TINY)
  randomize(model)
  inputs = {
    **random_inputs(TINY),
    "masked_lm_positions": np.array([[1], [2], [3]], np.int32)}
  with tf.GradientTape() as tape:
    out = model(inputs)
    loss = tf.reduce_sum(out["mlm_logits"] ** 2) + tf.reduce_sum(
        out["nsp_logits"] ** 2)
  variables = model.trainable_variables
  gradients = tape.gradient(loss, [v.value for v in variables])
  # A key's bias shifts all scores of a query alike: the softmax cancels it.
  unmoved = {
    v.path for v, g in zip(variables, gradients)
    if np.abs(tf.convert_to_tensor(g)).max() < 1e-3}
  assert unmoved == {
    f"bert/encoder/layer_{i}/attention/self/key/bias" for i in range(2)}


def test_shapes_of_all_outputs():
  inputs = random_inputs(TINY)
  classifier = BertClassifier(TINY, num_classes=5)
  assert {k: tuple(v.shape) for k, v in classifier(inputs).items()} == {
    "logits": (3, 5)}
  assert {
    k: tuple(v.shape) for k, v in BertEncoder(TINY)(inputs).items()
  } == {"sequence_output": (3, 10, 12), "pooled_output": (3, 12)}


def test_a_model_survives_the_keras_file_format(tmp_path):
  model = BertClassifier(TINY, num_classes=5)
  randomize(model)
  path = str(tmp_path / "model.keras")
  model.save(path)
  again = keras.models.load_model(path)
  inputs = random_inputs(TINY)
  np.testing.assert_array_equal(
      model(inputs)["logits"], again(inputs)["logits"])


def test_a_model_runs_under_a_bfloat16_policy():
  encoder = BertEncoder(TINY)
  randomize(encoder)
  half = BertEncoder(TINY, dtype="mixed_bfloat16")
  for ours, theirs in zip(half.weights, encoder.weights):
    assert ours.dtype == "float32"
    ours.assign(theirs)
  inputs = random_inputs(TINY)
  one, two = encoder(inputs), half(inputs)
  assert two["sequence_output"].dtype == tf.bfloat16
  difference = np.abs(
      np.array(one["pooled_output"])
      - np.array(tf.cast(two["pooled_output"], tf.float32)))
  assert 0 < difference.max() < 0.2


def test_the_precision_survives_the_keras_file_format(tmp_path):
  path = str(tmp_path / "model.keras")
  BertForPreTraining(TINY, dtype="mixed_bfloat16").save(path)
  assert keras.models.load_model(path).dtype_policy.name == "mixed_bfloat16"


def test_a_model_learns_under_compile_and_fit():
  keras.utils.set_random_seed(1)
  model = BertClassifier(TINY, num_classes=2)
  randomize(model)
  inputs = random_inputs(TINY, batch=3)
  labels = np.array([0, 1, 0])
  model.compile(
      keras.optimizers.Adam(0.01),
      loss={"logits": keras.losses.SparseCategoricalCrossentropy(
          from_logits=True)})
  before = model.evaluate(inputs, {"logits": labels}, verbose=0)
  model.fit(inputs, {"logits": labels}, epochs=60, verbose=0)
  assert model.evaluate(inputs, {"logits": labels}, verbose=0) < before / 2


def test_the_model_needs_keras_alone():
  program = (
    "import os, sys\n"
    "os.environ['KERAS_BACKEND'] = 'jax'\n"
    "sys.modules['tensorflow'] = None\n"
    "import numpy as np\n"
    "from bert_tf.config import BertConfig\n"
    "from bert_tf.modeling import BertEncoder\n"
    "config = BertConfig.from_size(\n"
    "    'tiny', vocab_size=9, hidden_dropout_prob=0.6)\n"
    "seed = np.array([1, 2], 'int32')\n"
    "out = BertEncoder(config)({'input_ids': np.ones((1, 4), 'int32')},\n"
    "    training=True, dropout_seed=seed)\n"
    "print(out['pooled_output'].shape)\n")
  result = subprocess.run(
      [sys.executable, "-c", program], capture_output=True, text=True)
  assert result.stdout == "(1, 128)\n", result.stderr
