"""Looked-up rows: values, gradients, and how few operations they take."""

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import fused
from bert_tf.lookup import look_up
from bert_tf.lookup import look_up_once

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
# Places, who reads each row, and whether any row is read by nobody.
CASES = [
  ([[2, -1, 0], [1, -1, 3]], [2, 3, 0, 5], False),
  ([[1, 3], [0, 4]], [2, 0, -1, 1, 3], True)]


@pytest.mark.parametrize("in_steps", [False, True])
@pytest.mark.parametrize("places, readers, has_unread", CASES)
def test_rows_and_their_gradients(places, readers, has_unread, in_steps):
  places, readers = np.int32(places), np.int32(readers)
  x = X[:len(readers)]
  counts = np.float32(places >= 0)[..., None]
  factor = np.float32(1 + np.arange(places.size).reshape(*places.shape, 1))
  factor = factor * counts

  @tf.function(autograph=False)
  def call(x):
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = look_up_once(
          x, tf.constant(places), tf.constant(readers), has_unread=has_unread)
      loss = tf.reduce_sum(y * factor)
    return y, tape.gradient(loss, x)

  if in_steps:
    with fused.steps():
      y, gradient = call(tf.constant(x))
  else:
    y, gradient = call(tf.constant(x))
  np.testing.assert_array_equal(y * counts, x[places] * counts)
  expected = np.zeros_like(x)
  np.add.at(expected, places, factor * np.ones(3, np.float32))
  np.testing.assert_array_equal(tf.convert_to_tensor(gradient), expected)


def operations(function):
  graph = tf.function(function, input_signature=[
    tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int32)])
  return [
    operation.type
    for operation in graph.get_concrete_function().graph.get_operations()
    if operation.type not in ("Placeholder", "Const", "Identity")]


def test_a_look_up_is_one_operation():
  assert operations(look_up) == ["GatherV2"]
  np.testing.assert_array_equal(
      look_up(X, np.int32([[4, 0], [2, 2]])), X[[[4, 0], [2, 2]]])
