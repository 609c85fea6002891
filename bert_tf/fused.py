"""Gelu and layer normalization with gradients of their own, for training.

Derived step by step they go over the memory a dozen times; here the parts of
a gradient that do not need it yet are computed on the way forward. A
SavedModel that is loaded again knows nothing of such gradients, so the layers
take these functions only where a training step asks for them:

  with fused.gradients():
    with tf.GradientTape() as tape:
      ...
    tape.gradient(...)

The values are those of the plain functions, up to rounding.
"""

from collections.abc import Callable
import contextlib
import math
import threading

import keras
from keras import ops

LAYER_NORM_EPSILON = 1e-12
# The tanh form of gelu is x sigmoid(x (FACTOR + CUBIC x^2)), since
# (1 + tanh u) / 2 is sigmoid(2u).
_FACTOR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _FACTOR

# A replica is traced in a thread of its own.
_state = threading.local()


@contextlib.contextmanager
def gradients():
  """What is traced in here, in this thread, uses the functions below."""
  before, _state.is_on = is_on(), True
  try:
    yield
  finally:
    _state.is_on = before


def is_on() -> bool:
  return getattr(_state, "is_on", False)


def _in_one_pass(function: Callable) -> Callable:
  if keras.backend.backend() != "tensorflow":
    return function
  import tensorflow as tf
  return tf.function(function, autograph=False, jit_compile=True)


@_in_one_pass
def _gelu_and_slope(x):
  dtype = x.dtype
  x = ops.cast(x, "float32")
  squares = x * x
  share = ops.sigmoid(x * (_FACTOR + _CUBIC * squares))
  y = x * share
  slope = share + y * (1.0 - share) * (_FACTOR + 3 * _CUBIC * squares)
  return ops.cast(y, dtype), ops.cast(slope, dtype)


@ops.custom_gradient
def gelu(x):
  """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel)."""
  y, slope = _gelu_and_slope(x)
  return y, lambda dy: dy * slope


@ops.custom_gradient
def layer_norm(x, gamma, beta):
  """Normalization over the last axis, in float32 inside (Ba et al. 2016).

  Args:
    x: [..., H].
    gamma: float32 [H].
    beta: float32 [H].
  """
  dtype = x.dtype
  x = ops.cast(x, "float32")
  x = x - ops.mean(x, axis=-1, keepdims=True)
  variance = ops.mean(x * x, axis=-1, keepdims=True)
  scale = ops.rsqrt(variance + LAYER_NORM_EPSILON)  # [..., 1]
  normal = x * scale

  def gradient(dy):
    dy = ops.cast(dy, "float32")
    rows = tuple(range(len(dy.shape) - 1))
    product = dy * normal
    slope = dy * gamma  # by `normal`
    dx = scale * (
        slope - ops.mean(slope, axis=-1, keepdims=True)
        - normal * ops.mean(product * gamma, axis=-1, keepdims=True))
    return (
        ops.cast(dx, dtype), ops.sum(product, axis=rows),
        ops.sum(dy, axis=rows))

  return ops.cast(normal * gamma + beta, dtype), gradient
