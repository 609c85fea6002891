"""Chains of cheap operations in one pass over the memory, for training.

Beside the products it is the memory that a step waits for: operation by
operation, a gelu and its gradient go over it a dozen times. XLA makes one
loop of the chain and one of its gradient, which begins at the inputs again
and so needs nothing else from the forward pass.

A SavedModel for a server must not hold what only XLA can run, nor does a
loaded one know of gradients like these. So the functions are what they say
until a training step asks for more:

  with fused.steps():
    with tf.GradientTape() as tape:
      ...
    tape.gradient(...)
"""

from collections.abc import Callable
import contextlib
import functools
import threading

import keras

# A replica is traced in a thread of its own.
_state = threading.local()


@contextlib.contextmanager
def steps():
  """What this thread traces in here runs in one pass."""
  before, _state.is_on = is_on(), True
  try:
    yield
  finally:
    _state.is_on = before


def is_on() -> bool:
  """Whether this thread is within `steps`."""
  return getattr(_state, "is_on", False)


def in_one_pass(function: Callable) -> Callable:
  """A decorator of functions from tensors, no variables, to one tensor.

  The values and gradients are those of the function as it is, up to rounding.
  Other backends than TensorFlow have no use for it.
  """
  if keras.backend.backend() != "tensorflow":
    return function
  import tensorflow as tf

  @functools.cache
  def passes(*specs):
    # Each set of shapes has its own: a function that sees several is traced
    # for unknown shapes, which a TPU does not take.
    del specs
    forward = tf.function(function, autograph=False, jit_compile=True)

    @tf.function(autograph=False, jit_compile=True)
    def backward(inputs, gradient):
      floating = [x for x in inputs if x.dtype.is_floating]
      with tf.GradientTape() as tape:
        tape.watch(floating)
        y = function(*inputs)
      found = iter(tape.gradient(y, floating, gradient))
      return [next(found) if x.dtype.is_floating else None for x in inputs]

    return forward, backward

  @tf.custom_gradient
  def compiled(*inputs):
    forward, backward = passes(
        *(tf.TensorSpec(x.shape, x.dtype) for x in inputs))
    return forward(*inputs), lambda gradient: backward(inputs, gradient)

  @functools.wraps(function)
  def call(*inputs):
    return compiled(*inputs) if is_on() else function(*inputs)

  return call
