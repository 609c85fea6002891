"""Rows of a table at given places, in no more operations than it takes.

`keras.ops.take` counts places below zero from the end, which is three more
operations each time: most of what one short text waits for is their number.
"""

import keras

from bert_tf import fused


def look_up(table, places):
  """Rows of `table` [M, ...] at `places` int [...], from 0 to M - 1."""
  if keras.backend.backend() != "tensorflow":
    return keras.ops.take(table, places, axis=0)
  import tensorflow as tf
  return tf.gather(table, places)


def look_up_once(x, places, readers, *, has_unread: bool = False):
  """`look_up` whose gradient within `fused.steps` is a look-up as well.

  By itself it would be a sum over all rows that are alike, which is slow, and
  at most one of them counts here.

  Args:
    x: [M, D].
    places: int [...], -1 where any row will do and nobody looks at it.
    readers: for each row of `x` its place in the flattened `places`, int
      [...] of M numbers; -1: it is not there.
    has_unread: whether `readers` has any -1.
  """
  if not fused.is_on():
    return look_up(x, keras.ops.maximum(places, 0))
  import tensorflow as tf

  @tf.custom_gradient
  def found(x):
    def gradient(upstream):
      rows = tf.reshape(upstream, [-1, x.shape[-1]])
      rows = tf.gather(rows, tf.maximum(readers, 0))
      if has_unread:
        rows = tf.where(
            readers[..., None] < 0, tf.zeros((), rows.dtype), rows)
      return tf.reshape(rows, tf.shape(x))

    return tf.gather(x, tf.maximum(places, 0)), gradient

  return found(x)
