"""Functions in one pass: the values and gradients of the plain ones."""

import contextlib
import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import fused
from bert_tf import layers
from bert_tf import losses

gelu = layers.ACTIVATIONS["gelu"]
SEED = tf.constant([3, 4])
MASK = tf.constant([[[[0.0, 0.0, layers.MASK_BIAS, 0.0]]]])


def test_steps_are_where_they_are_said_to_be():
  assert not fused.is_on()
  with fused.steps():
    assert fused.is_on()
    with fused.steps():
      pass
    assert fused.is_on()
  assert not fused.is_on()
  with pytest.raises(KeyError), fused.steps():
    raise KeyError
  assert not fused.is_on()


def values_and_gradients(function, inputs, in_one_pass=True):
  """Weighted unevenly, so that no part of a gradient cancels."""
  floating = [x for x in inputs if x.dtype.is_floating]
  with tf.GradientTape() as tape:
    tape.watch(floating)
    with fused.steps() if in_one_pass else contextlib.nullcontext():
      y = function(*inputs)
    weights = tf.sin(tf.range(1.0, y.shape.num_elements() + 1))
    total = tf.reduce_sum(
        tf.reshape(tf.cast(y, tf.float32), [-1]) * weights)
  # The gradient of a look-up is a list of rows by itself.
  return [y, *map(tf.convert_to_tensor, tape.gradient(total, floating))]


@functools.cache
def built_norm(size):
  layer = layers.layer_norm()
  layer.build((None, size))
  return layer


def normal(*shape, mean=0.0, scale=1.0, seed=0):
  rng = np.random.default_rng(seed)
  return tf.constant(rng.normal(mean, scale, shape), tf.float32)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("function, inputs", [
  (layers.ACTIVATIONS["gelu"], (normal(5, 7, scale=3.0),)),
  (layers.ACTIVATIONS["gelu_exact"], (normal(5, 7, scale=3.0),)),
  (layers.normalize, (normal(2, 5, 7, mean=2.0), normal(7), normal(7))),
  (losses.negative_log_likelihood,
   (normal(3, 4, 9), tf.constant(np.arange(12).reshape(3, 4) % 9, tf.int32))),
  (lambda scores: layers.attention_weights(9)(scores, MASK),
   (normal(1, 2, 3, 4, scale=2.0),)),
  (lambda scores: layers.attention_weights(9, 0.4)(scores, MASK, SEED),
   (normal(1, 2, 3, 4, scale=2.0),)),
  (lambda x: layers.Dropout(0.4, salt=1)(x, seed=SEED), (normal(5, 7),)),
  (lambda x, y: built_norm(5)(
      x, y, dropout=layers.Dropout(0.4, salt=1), dropout_seed=SEED),
   (normal(2, 3, 5), normal(2, 3, 5))),
])
def test_values_and_gradients_are_those_of_the_plain_function(
    function, inputs, jit_compile):
  built_norm(5)  # Its variables cannot be made in a tf.function.
  found = tf.function(
      functools.partial(values_and_gradients, function), autograph=False,
      jit_compile=jit_compile)(inputs)
  plain = values_and_gradients(function, inputs, in_one_pass=False)
  for one, two in zip(found, plain, strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("in_one_pass", [False, True])
def test_the_highest_score_is_the_first_of_equal_ones(in_one_pass):
  scores = tf.constant([[1.0, 3.0, 3.0], [2.0, 2.0, 1.0], [-1.0, -2.0, -0.5]])

  # As of answer spans: their number is that of the pieces.
  @tf.function(autograph=False, input_signature=[
    tf.TensorSpec([None, None]), tf.TensorSpec([None], tf.int32)])
  def hits(scores, labels):
    with fused.steps() if in_one_pass else contextlib.nullcontext():
      return losses.is_correct(scores, labels)

  found = [hits(scores, tf.constant([label] * 3)).numpy()
           for label in range(3)]
  np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_a_dropped_branch_is_added_and_normalized():
  norm, x, y = built_norm(16), normal(4, 16), normal(4, 16, seed=1)
  dropout = layers.Dropout(0.3, salt=2)
  branch = dropout(y, seed=SEED).numpy()
  assert 0 < np.mean(branch == 0) < 1
  total = x.numpy() + branch
  total -= total.mean(-1, keepdims=True)
  np.testing.assert_allclose(
      norm(x, y, dropout=dropout, dropout_seed=SEED),
      total / total.std(-1, keepdims=True), atol=1e-5)
  np.testing.assert_allclose(
      norm(x, y, dropout=dropout), norm(x + y), atol=1e-6)


def test_gelu_and_its_slope_by_hand():
  x = np.array([-3.0, -1.0, 0.0, 0.5, 1.0, 4.0, 30.0, -30.0])
  root = math.sqrt(2 / math.pi)
  tanh = np.tanh(root * (x + 0.044715 * x**3))
  slope = (1 + tanh) / 2 + x / 2 * (1 - tanh**2) * root * (
      1 + 3 * 0.044715 * x**2)
  inputs = tf.constant(x, tf.float32)
  with fused.steps(), tf.GradientTape() as tape:
    tape.watch(inputs)
    y = gelu(inputs)
  np.testing.assert_allclose(y, x / 2 * (1 + tanh), atol=1e-6)
  np.testing.assert_allclose(tape.gradient(y, inputs), slope, atol=1e-6)


@pytest.mark.parametrize("in_one_pass", [False, True])
def test_bfloat16_is_rounded_once(in_one_pass):
  x = tf.cast(normal(5, 64, mean=100.0), tf.bfloat16)
  vectors = (normal(64, seed=1), normal(64, seed=2))
  for function, more in ((gelu, ()), (layers.normalize, vectors)):
    y, gradient, *others = values_and_gradients(
        function, (x, *more), in_one_pass)
    assert y.dtype == gradient.dtype == tf.bfloat16
    assert [g.dtype for g in others] == [tf.float32] * len(more)
    exact = function(tf.cast(x, tf.float32), *more)
    np.testing.assert_array_equal(y, tf.cast(exact, tf.bfloat16))


def test_only_steps_hold_what_xla_alone_can_run():
  spec = tf.TensorSpec([None, 4], tf.float32)

  def is_compiled(function):
    graph = tf.function(
        function, autograph=False).get_concrete_function(spec).graph
    return any("_XlaMustCompile" in f.attr and f.attr["_XlaMustCompile"].b
               for f in graph.as_graph_def().library.function)

  def step(x):
    with fused.steps():
      return gelu(x)

  assert is_compiled(step)
  assert not is_compiled(lambda x: gelu(x))


def test_shapes_stay_known():
  seen = []

  @fused.in_one_pass
  def double(x):
    seen.append(x.shape.as_list())
    return 2 * x

  def step(x):
    with fused.steps():
      return double(x)

  for length in (3, 4, 5, 6):
    tf.function(step, autograph=False).get_concrete_function(
        tf.TensorSpec([2, length], tf.float32))
  assert seen == [[2, 3], [2, 4], [2, 5], [2, 6]]
