"""The optimizer against the original's trajectory, the schedule by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.optimization import AdamWeightDecay
from bert_tf.optimization import WarmupLinearDecay


def variable_at(path, value):
  *scopes, name = path.split("/")
  variable = keras.Variable(value, name=name)
  variable._path = "/".join([*scopes, name])
  return variable


def test_thirty_steps_of_the_original(shared):
  golden = np.load(shared / "golden" / "adam_weight_decay_trajectory.npz")
  names = [key.removeprefix("initial:") for key in golden
           if key.startswith("initial:")]
  assert len(names) == 5
  variables = [
    variable_at(name.replace(".", "/"), golden[f"initial:{name}"])
    for name in names]
  optimizer = AdamWeightDecay(WarmupLinearDecay(
      float(golden["learning_rate"]),
      num_train_steps=int(golden["num_train_steps"]),
      num_warmup_steps=int(golden["num_warmup_steps"])))
  for step in range(30):
    gradients = [tf.constant(golden[f"gradients:{name}"][step])
                 for name in names]
    gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
    optimizer.apply(gradients, variables)
    for name, variable in zip(names, variables):
      np.testing.assert_allclose(
          variable, golden[f"after_each_step:{name}"][step], atol=1e-6)


def test_one_step_by_hand():
  # m = 0.1 * 2 = 0.2, v = 0.001 * 4 = 0.004; the update is
  # 0.2 / (0.0632456 + 1e-6) = 3.1622277, and 0.01 * 3 for the kernel.
  kernel = variable_at("dense/kernel", [3.0])
  bias = variable_at("dense/bias", [3.0])
  AdamWeightDecay(0.5).apply(
      [tf.constant([2.0]), tf.constant([2.0])], [kernel, bias])
  np.testing.assert_allclose(bias, [3 - 0.5 * 3.1622277], atol=1e-4)
  np.testing.assert_allclose(
      bias.numpy() - kernel.numpy(), [0.5 * 0.01 * 3], atol=1e-6)


def test_bias_correction_makes_the_first_update_the_sign():
  # m / (1 - 0.9) = g and v / (1 - 0.999) = g^2: the update is g / |g|.
  bias = variable_at("dense/bias", [1.0, 1.0])
  AdamWeightDecay(0.1, bias_correction=True).apply(
      [tf.constant([5.0, -0.3])], [bias])
  np.testing.assert_allclose(bias, [0.9, 1.1], atol=1e-5)


@pytest.mark.parametrize("path, decays", [
  ("bert/encoder/layer_0/output/dense/kernel", True),
  ("bert/encoder/layer_0/output/dense/bias", False),
  ("bert/embeddings/LayerNorm/gamma", False),
  ("bert/embeddings/LayerNorm/beta", False),
  ("bert/embeddings/word_embeddings", True),
  ("cls/predictions/output_bias", False),
  ("cls/seq_relationship/output_weights", True),
])
def test_what_decays(path, decays):
  variable = variable_at(path, [2.0])
  AdamWeightDecay(1.0).apply([tf.constant([0.0])], [variable])
  np.testing.assert_allclose(variable, [2 - 0.02 if decays else 2.0])


@pytest.mark.parametrize("step, rate", [
  (0, 0.0), (1, 1e-6), (99, 9.9e-5), (100, 9e-5), (550, 4.5e-5),
  (1000, 0.0), (1100, 0.0),
])
def test_warmup_and_decay(step, rate):
  schedule = WarmupLinearDecay(
      1e-4, num_train_steps=1000, num_warmup_steps=100)
  np.testing.assert_allclose(float(schedule(step)), rate, atol=1e-10)


def test_without_warmup_the_first_step_has_the_full_rate():
  assert float(WarmupLinearDecay(0.5, num_train_steps=4)(0)) == 0.5


def test_an_optimizer_survives_its_config():
  optimizer = AdamWeightDecay(
      WarmupLinearDecay(0.5, num_train_steps=4), bias_correction=True)
  again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
  assert again.get_config() == optimizer.get_config()
  assert again.bias_correction is True


def test_it_works_under_compile_and_fit():
  inputs = keras.Input((2,))
  model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
  model.compile(AdamWeightDecay(0.05), loss="mse")
  x = np.random.default_rng(0).normal(size=(256, 2))
  y = x @ [[1.0], [-2.0]]
  losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
  assert losses[-1] < 0.05 < losses[0]
