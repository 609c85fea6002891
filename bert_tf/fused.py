"""Chains of cheap operations in one pass over the memory, for training.

Beside the products it is the memory that a step waits for: operation by
operation, a gelu and its gradient go over it a dozen times. XLA makes one
loop of the chain and one of its gradient, which begins at the inputs again,
so that nothing else is kept from the forward pass, or at the output.

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
def _within(flag: str):
  """Sets a flag of this thread, for as long as a `with` lasts."""
  before = getattr(_state, flag, False)
  setattr(_state, flag, True)
  try:
    yield
  finally:
    setattr(_state, flag, before)


def steps():
  """A context: what this thread traces in it runs in one pass."""
  return _within("is_on")


def is_on() -> bool:
  """Whether this thread is within `steps`."""
  return getattr(_state, "is_on", False)


def into_products():
  """A context: what this thread traces in it keeps a gelu of bfloat16 as it is.

  TensorFlow for CPUs then makes one operation of a product, its bias and the
  gelu, in float32 inside. Where it does not, each step of the gelu is rounded,
  and near -3 it is off by half of its small value: for serving alone.
  """
  return _within("is_into_products")


def is_into_products() -> bool:
  """Whether this thread is within `into_products`."""
  return getattr(_state, "is_into_products", False)


def in_one_pass(
    function: Callable, *, gradient: Callable | None = None, vectors: int = 0,
    keeps: bool = False
) -> Callable:
  """A decorator of functions from tensors, no variables, to one tensor.

  The values and gradients are those of the function as it is, up to rounding.
  Other backends than TensorFlow have no use for it.

  Args:
    function: of tensors; the gradient goes to those that are floating.
    gradient: (output, its gradient) -> a list of the gradients of all inputs,
      where it is cheaper than to differentiate the function anew.
    vectors: so many of the last inputs have but the last axis of the output.
      Their gradients are added up outside of the pass: XLA would keep running
      sums over the whole batch, which lose digits.
    keeps: whether the function gives a pair: the first is the output, and
      `gradient` takes both in its place.
  """

  @functools.wraps(function)
  def plain(*inputs):
    y = function(*inputs)
    return y[0] if keeps else y

  if keras.backend.backend() != "tensorflow":
    return plain
  import tensorflow as tf

  def anew(inputs, upstream):
    whole = len(inputs) - vectors
    inputs = [*inputs[:whole], *(
      tf.broadcast_to(x, tf.shape(upstream)) for x in inputs[whole:])]
    floating = [x for x in inputs if x.dtype.is_floating]
    with tf.GradientTape() as tape:
      tape.watch(floating)
      y = function(*inputs)
    found = iter(tape.gradient(y, floating, upstream))
    return [next(found) if x.dtype.is_floating else None for x in inputs]

  @functools.cache
  def passes(*specs):
    # Each set of shapes has its own: a function that sees several is traced
    # for unknown shapes, which a TPU does not take.
    del specs
    return [tf.function(each, autograph=False, jit_compile=True)
            for each in (function, gradient or anew)]

  @tf.custom_gradient
  def compiled(*inputs):
    forward, backward = passes(
        *(tf.TensorSpec(x.shape, x.dtype) for x in inputs))
    outputs = forward(*inputs)
    start = outputs if gradient else inputs

    def of_inputs(upstream):
      gradients = backward(start, upstream)
      whole = len(inputs) - vectors
      return [*gradients[:whole], *(
        tf.reduce_sum(tf.reshape(g, [-1, g.shape[-1]]), axis=0)
        for g in gradients[whole:])]

    return outputs[0] if keeps else outputs, of_inputs

  @functools.wraps(function)
  def call(*inputs):
    return compiled(*inputs) if is_on() else plain(*inputs)

  return call
