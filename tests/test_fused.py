"""The functions with gradients of their own against the plain ones."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import fused
from bert_tf import layers


def test_the_functions_are_used_where_they_are_asked_for():
  assert not fused.is_on()
  with fused.gradients():
    assert fused.is_on()
    with fused.gradients():
      pass
    assert fused.is_on()
  assert not fused.is_on()
  with pytest.raises(KeyError), fused.gradients():
    raise KeyError
  assert not fused.is_on()


def test_gelu_and_its_slope_by_hand():
  x = np.array([-3.0, -1.0, 0.0, 0.5, 1.0, 4.0, 30.0, -30.0])
  root = math.sqrt(2 / math.pi)
  tanh = np.tanh(root * (x + 0.044715 * x**3))
  slope = (1 + tanh) / 2 + x / 2 * (1 - tanh**2) * root * (
      1 + 3 * 0.044715 * x**2)
  inputs = tf.constant(x, tf.float32)
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    y = fused.gelu(inputs)
  np.testing.assert_allclose(y, x / 2 * (1 + tanh), atol=1e-6)
  np.testing.assert_allclose(tape.gradient(y, inputs), slope, atol=1e-6)


def values_and_gradients(function, inputs):
  """Weighted unevenly, so that no part of a gradient cancels."""
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    y = function(*inputs)
    total = tf.reduce_sum(
        tf.cast(y, tf.float32) * tf.sin(tf.range(5.0)[:, None] + 0.3))
  return [y, *tape.gradient(total, inputs)]


def plain_layer_norm(x, gamma, beta):
  mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
  return tf.nn.batch_normalization(
      x, mean, variance, beta, gamma, fused.LAYER_NORM_EPSILON)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_layer_norm_and_its_gradients(jit_compile):
  rng = np.random.default_rng(0)
  x, gamma, beta = (
    tf.constant(rng.normal(2.0, 3.0, shape), tf.float32)
    for shape in ([2, 5, 7], [7], [7]))
  one, two = (
    tf.function(
        functools.partial(values_and_gradients, norm),
        autograph=False, jit_compile=jit_compile)((x, gamma, beta))
    for norm in (fused.layer_norm, plain_layer_norm))
  for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_layers_give_the_same_values_either_way():
  rng = np.random.default_rng(1)
  x = tf.constant(rng.normal(size=[5, 16]), tf.float32)
  norm = layers.layer_norm()
  norm.build([None, 16])
  norm.gamma.assign(rng.normal(size=16))
  for layer in (norm, layers.gelu):
    plain = layer(x)
    with fused.gradients():
      np.testing.assert_allclose(layer(x), plain, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_rounded_once():
  rng = np.random.default_rng(2)
  x = tf.constant(100 + rng.normal(size=[5, 64]), tf.bfloat16)
  ones, zeros = tf.ones([64]), tf.zeros([64])
  for function in (fused.gelu, lambda x: fused.layer_norm(x, ones, zeros)):
    y = function(x)
    assert y.dtype == tf.bfloat16
    exact = function(tf.cast(x, tf.float32))
    np.testing.assert_array_equal(y, tf.cast(exact, tf.bfloat16))
