"""Weights as constants of an exported graph.

A kernel that is a constant is packed once for the processor's products and
not in each of them, and nothing has to look a variable up: for one short
text in bfloat16 that is a quarter of the time. The price is memory: a server
holds the constants in several forms, and again for each signature that is
asked.
"""

from collections.abc import Iterator
import contextlib
import math

import keras
import tensorflow as tf

from bert_tf.config import require

# Constants are within the graph, and a graph is a message of at most 2 GiB.
MOST_BYTES = 2**31 - 2**26
# Rows are looked up in it one by one: nothing is gained, and it is large.
_LEFT = "word_embeddings"


def freeze(model: keras.Model) -> None:
  """Makes the weights of a model constants wherever `serving` exports it.

  All but the word embeddings. Their values are those of the time when
  `serving.inference` is traced; what else reads them, as `fill_mask` does its
  head, reads variables.

  Args:
    model: over the encoder's inputs: a `BertEncoder`, or one on it.

  Raises:
    InputError: they are too large for a graph.
  """
  frozen = [v for v in model.weights if _LEFT not in v.path]
  size = sum(v.value.dtype.size * math.prod(v.shape) for v in frozen)
  require(
      size <= MOST_BYTES,
      f"--freeze_graph: the constants would have {size:,} bytes; a graph holds "
      f"{MOST_BYTES:,}. Leave it out, or take --precision=bfloat16.")
  encoder = getattr(model, "encoder", model)
  encoder.frozen_weights = frozenset(v.path for v in frozen)


def is_frozen(model: keras.Model, variable: keras.Variable) -> bool:
  """Whether a variable of a model is to be a constant."""
  encoder = getattr(model, "encoder", model)
  return variable.path in getattr(encoder, "frozen_weights", ())


@contextlib.contextmanager
def as_constants(model: keras.Model) -> Iterator[None]:
  """What is traced in here reads constants in place of frozen variables."""
  frozen = [v for v in model.weights if is_frozen(model, v)]
  if not frozen:
    yield
    return
  with tf.init_scope():  # Out of the graph that is being traced.
    values = [v.value.numpy() for v in frozen]
  with keras.StatelessScope(state_mapping=[
    (v, tf.constant(value, name=v.path)) for v, value in zip(frozen, values)]):
    yield
