"""The layers of BERT: embeddings, self-attention, feed-forward, dropout.

Devlin et al. 2019, section 3, after Vaswani et al. 2017: post-LN blocks.
Written in `keras.ops` and `lookup`, so that the layers run under any Keras
backend.

Shapes:
  B  batch            N  attention heads
  S  sequence length  D  size of a head, H / N
  H  hidden size      F  feed-forward size
  V  vocabulary       P  positions to gather
  Q  positions that are read of a block
  T  pieces of a batch, all or without its padding

Each variable's path is its name in the original's checkpoints, such as
`bert/encoder/layer_0/attention/self/query/kernel`: the name scopes opened in
the `build` methods are that contract.

Dropout draws no random numbers of its own: its mask is a function of the
`dropout_seed` that comes in with each call, an int32 [2] tensor, and of the
layer's place in the model. None means no dropout.
"""

import functools
import math

import keras
from keras import ops

from bert_tf import fused
from bert_tf.lookup import look_up
from bert_tf.lookup import look_up_once

LAYER_NORM_EPSILON = 1e-12
# Added to the scores of masked keys; large enough to vanish in the softmax,
# small enough for float16.
MASK_BIAS = -10000.0


def _tanh_gelu_in_product(x):
  """In the form that TensorFlow finds behind a product in bfloat16."""
  z = (x + x * (0.044715 * ops.square(x))) * math.sqrt(2 / math.pi)
  return (0.5 * x) * (ops.tanh(z) + 1)


def _gelu(*, approximate: bool):
  """Of Hendrycks and Gimpel 2016; in float32, whatever goes in.

  But not in bfloat16 within `fused.into_products`.
  """

  @fused.in_one_pass
  def exactly(x):
    y = ops.gelu(ops.cast(x, "float32"), approximate=approximate)
    return ops.cast(y, x.dtype)

  def gelu(x):
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not fused.is_into_products() or dtype != "bfloat16":
      return exactly(x)
    return _tanh_gelu_in_product(x) if approximate else ops.gelu(
        x, approximate=False)

  return gelu


ACTIVATIONS = {
  # With tanh, as the original.
  "gelu": _gelu(approximate=True),
  "gelu_exact": _gelu(approximate=False),
  "relu": ops.relu,
  "tanh": ops.tanh,
  "linear": lambda x: x,
}

register = keras.saving.register_keras_serializable("bert_tf")


def truncated_normal(stddev: float) -> keras.initializers.Initializer:
  """The original's initializer: cut off at two standard deviations."""
  return keras.initializers.TruncatedNormal(stddev=stddev)


def _normalized(x, gamma, beta):
  """To mean `beta` and deviation `gamma` over the last axis (Ba et al. 2016).

  Float32 inside.
  """
  z = ops.cast(x, "float32")
  z = z - ops.mean(z, axis=-1, keepdims=True)
  variance = ops.mean(ops.square(z), axis=-1, keepdims=True)
  z = z * ops.rsqrt(variance + LAYER_NORM_EPSILON)
  return ops.cast(z * gamma + beta, x.dtype)


normalize = fused.in_one_pass(_normalized, vectors=2)


class LayerNorm(keras.layers.LayerNormalization):
  """Keras's layer with its variables, and `normalize`; float32 inside.

  Of `x`, or of the sum of `x` and a branch `y` that goes through `dropout`.
  """

  def call(self, x, y=None, dropout=None, dropout_seed=None):
    gamma, beta = (ops.cast(v, "float32") for v in (self.gamma, self.beta))
    seed = dropout and dropout.salted(dropout_seed)
    if y is None:
      return normalize(x, gamma, beta)
    if seed is None:
      return normalize(x + y, gamma, beta)
    return _normalized_sum(dropout.rate)(x, y, seed, gamma, beta)


def layer_norm(dtype=None) -> LayerNorm:
  """The normalization of all blocks and heads, its variables never cast."""
  return LayerNorm(
      epsilon=LAYER_NORM_EPSILON, name="LayerNorm", dtype=dtype,
      autocast=False)


class Dense(keras.layers.Dense):
  """Keras's layer, whose kernel may be int8: see `quantization`."""

  def quantized_call(self, inputs, training=None):
    # That of Keras has a gradient of its own, which no server needs: it takes
    # twice the time to trace, and each export that is loaded warns of it.
    del training
    x = ops.matmul(inputs, ops.cast(self.kernel, self.compute_dtype))
    x = x / self.kernel_scale + self.bias
    return x if self.activation is None else self.activation(x)


@functools.cache
def attention_weights(size: int, dropout_rate: float = 0.0):
  """(scores, bias, seed) -> softmax(scores / sqrt(size) + bias), then dropout.

  Over the keys, float32 inside. Without a rate there is no seed.
  """
  scale = 1 / math.sqrt(size)

  def softmax(scores, bias):
    x = ops.cast(scores, "float32") * scale + ops.cast(bias, "float32")
    return ops.cast(ops.softmax(x, axis=-1), scores.dtype)

  def gradient(weights, upstream):
    y, dy = ops.cast(weights, "float32"), ops.cast(upstream, "float32")
    dx = y * (dy - ops.sum(dy * y, axis=-1, keepdims=True)) * scale
    return [ops.cast(dx, weights.dtype), None]  # None of the mask.

  if not dropout_rate:
    return fused.in_one_pass(softmax, gradient=gradient)

  def dropped(scores, bias, seed):
    weights = softmax(scores, bias)
    return _dropped(weights, seed, dropout_rate), weights

  def gradient_of_both(outputs, upstream):
    # What was dropped is 0 now. A weight that was 0 has no gradient anyhow.
    after, weights = outputs
    upstream = ops.cast(upstream, "float32") / (1 - dropout_rate)
    upstream = ops.where(ops.equal(after, 0), 0.0, upstream)
    return [*gradient(weights, upstream), None]

  return fused.in_one_pass(dropped, gradient=gradient_of_both, keeps=True)


def attention_bias(input_mask, example_ids=None, *, is_causal: bool = False):
  """What attention adds to the scores: 0 = seen, MASK_BIAS = hidden.

  Float32 [B, 1, 1, S] of an `input_mask` [B, S] (1 = attend), on the side of
  the keys. With the `example_ids` [B, S] of packed rows [B, 1, S, S]: a piece
  sees its own example alone. With `is_causal` [B, 1, S, S] too: it sees what
  stands before it, and itself. A query of padding sees no key, or padding if
  the mask is all ones: finite either way, and nothing reads it.
  """
  seen = ops.cast(input_mask, "float32")[:, None, None, :]  # [B, 1, 1, S]
  if example_ids is not None:
    same = ops.equal(
        example_ids[:, None, :, None], example_ids[:, None, None, :])
    seen = seen * ops.cast(same, "float32")  # [B, 1, S, S]
  if is_causal:
    length = ops.shape(input_mask)[1]
    seen = seen * ops.tril(ops.ones((length, length)))  # [B, 1, S, S]
  return (1.0 - seen) * MASK_BIAS


def places_of(positions, length):
  """Of `positions` [B, P] in rows of a length, those in all B S; [B, P]."""
  batch = ops.shape(positions)[0]
  return ops.arange(batch, dtype=positions.dtype)[:, None] * length + positions


def gather_positions(sequence, positions):
  """Rows of `sequence` [B, S, H] at `positions` [B, P]: [B, P, H]."""
  batch, length, hidden = ops.shape(sequence)
  rows = ops.reshape(sequence, (batch * length, hidden))
  return look_up(rows, places_of(positions, length))


def _uint32(number: int):
  return ops.convert_to_tensor(number, dtype="uint32")


def _mixed(x, key):
  """uint32 to uint32 such that each bit of x and of the key changes all others.

  Multiplications and shifts of Wellons 2018, "Prospecting for Hash Functions"
  (triple32). One multiplication less leaves correlations that can be seen in a
  few million numbers.
  """
  x = ops.bitwise_xor(x, ops.right_shift(x, _uint32(17)))
  x = x * _uint32(0xED5AD4BB)
  x = ops.bitwise_xor(x, ops.right_shift(x, _uint32(11)))
  x = x * _uint32(0xAC4C1B51) + key
  x = ops.bitwise_xor(x, ops.right_shift(x, _uint32(15)))
  x = x * _uint32(0x31848BAB)
  return ops.bitwise_xor(x, ops.right_shift(x, _uint32(14)))


def random_bits(shape, seed):
  """Uniform uint32 of a shape, a pure function of an int32 [2] seed.

  A hash of each number's place, keyed twice by the seed: cheaper than what the
  backends draw, the same under each of them, and computed where it is read.
  `keras.random` refuses a seed that is a tensor.
  """
  keys = _mixed(ops.cast(seed, "uint32"), _uint32(1))  # [2]
  places = ops.cast(ops.arange(math.prod(shape), dtype="int32"), "uint32")
  bits = _mixed(ops.bitwise_xor(places, keys[0]), keys[1])
  return ops.reshape(bits, shape)


def _dropped(x, seed, rate: float):
  """`x` without a share of its numbers, the others so much greater."""
  threshold = round(rate * 2**32)
  kept = random_bits(ops.shape(x), seed) >= _uint32(threshold)
  return ops.where(kept, x * ops.cast(1 / (1 - rate), x.dtype), ops.zeros(
      (), x.dtype))


@functools.cache
def _dropout(rate: float):
  return fused.in_one_pass(lambda x, seed: _dropped(x, seed, rate))


@functools.cache
def _normalized_sum(rate: float):
  return fused.in_one_pass(
      lambda x, y, seed, gamma, beta: _normalized(
          x + _dropped(y, seed, rate), gamma, beta), vectors=2)


@register
class Dropout(keras.layers.Layer):
  """Dropout whose mask is a pure function of (seed, salt).

  The same seed gives the same mask, so a block may be computed twice
  (rematerialization) or a run resumed at any step. The salt is the layer's
  own number within its model: layers that share a seed draw apart.
  """

  def __init__(self, rate: float, *, salt: int, **kwargs):
    super().__init__(**kwargs)
    self.rate = rate
    self.salt = salt

  def salted(self, seed):
    """The layer's own seed; None where it drops nothing."""
    if seed is None or self.rate == 0:
      return None
    return seed + ops.convert_to_tensor([0, self.salt], dtype="int32")

  def call(self, x, seed=None):
    seed = self.salted(seed)
    return x if seed is None else _dropout(self.rate)(x, seed)

  def get_config(self):
    return {**super().get_config(), "rate": self.rate, "salt": self.salt}


class BertEmbeddings(keras.layers.Layer):
  """Sum of word, segment and position embeddings, normalised; [B, S, H].

  Positions count from 0 to S - 1 unless `position_ids` [B, S] are given. With
  them the inputs may be [T] too.
  """

  def __init__(
      self, *, vocab_size: int, hidden_size: int, type_vocab_size: int,
      max_position_embeddings: int, dropout_rate: float,
      initializer_range: float, **kwargs
  ):
    super().__init__(**kwargs)
    self.vocab_size = vocab_size
    self.hidden_size = hidden_size
    self.type_vocab_size = type_vocab_size
    self.max_position_embeddings = max_position_embeddings
    self.initializer_range = initializer_range
    self.norm = layer_norm(self.dtype_policy)
    self.dropout = Dropout(dropout_rate, salt=0, dtype=self.dtype_policy)
    self.word_scale = None  # [V, 1], once the words are int8.

  def build(self, input_shape=None):
    def table(name, rows):
      # Rows are cast once they are taken, not whole tables before.
      return self.add_weight(
          name=name, shape=(rows, self.hidden_size), autocast=False,
          initializer=truncated_normal(self.initializer_range))

    self.word_embeddings = table("word_embeddings", self.vocab_size)
    self.token_type_embeddings = table(
        "token_type_embeddings", self.type_vocab_size)
    self.position_embeddings = table(
        "position_embeddings", self.max_position_embeddings)
    self.norm.build((None, None, self.hidden_size))
    self.built = True

  def quantize(self, mode=None, type_check=True, config=None):
    """Makes the word embeddings int8, each row with a scale of its own.

    A row is then its numbers divided by its scale, as Keras has it.
    """
    del mode, type_check, config  # Of Keras's protocol: see `quantization`.
    values, scale = keras.quantizers.abs_max_quantize(
        self.word_embeddings, axis=-1, to_numpy=True)
    del self.word_embeddings
    for name, attribute, value in (
        ("word_embeddings", "word_embeddings", values),
        ("word_embeddings_scale", "word_scale", scale)):
      variable = self.add_weight(
          name=name, shape=value.shape, dtype=value.dtype.name,
          initializer="zeros", trainable=False)
      variable.assign(value)
      setattr(self, attribute, variable)

  @property
  def word_table(self):
    """All word embeddings [V, H] as they are computed with."""
    if self.word_scale is None:
      return self.word_embeddings
    return ops.cast(self.word_embeddings, "float32") / self.word_scale

  def _look_up_words(self, input_ids):
    """[..., H]; of an int8 table no more than these rows become floats."""
    x = look_up(self.word_embeddings, input_ids)
    if self.word_scale is None:
      return x
    return ops.cast(x, "float32") / look_up(self.word_scale, input_ids)

  def call(
      self, input_ids, segment_ids, position_ids=None, dropout_seed=None
  ):
    sequence_length = input_ids.shape[1] if input_ids.ndim > 1 else None
    if (sequence_length or 0) > self.max_position_embeddings:
      raise ValueError(
          f"input_ids: received a sequence of {sequence_length}; the model "
          f"has {self.max_position_embeddings} positions.")
    x = self._look_up_words(input_ids)  # [B, S, H]
    x = x + look_up(self.token_type_embeddings, segment_ids)
    if position_ids is None:
      if sequence_length is None:
        sequence_length = ops.shape(input_ids)[1]
      x = x + self.position_embeddings[:sequence_length]
    else:
      x = x + look_up(self.position_embeddings, position_ids)
    x = ops.cast(x, self.compute_dtype)
    return self.dropout(self.norm(x), seed=dropout_seed)


class BertLayer(keras.layers.Layer):
  """One Transformer block: self-attention, then feed-forward; [T, H].

  T are all B S places of the batch, row after row, or, with `head_places`,
  those that hold pieces: what looks at each piece alone, which is nearly all
  the work, is then spared for the padding.

  With `read_rows` int [B, Q], of the rows of [T, H] or -1 for any, it gives
  these alone, [B Q, H] in the place of [T, H] below, and all that is done for
  the others is that these attend to them.
  The attention bias is then [B, 1, 1, S] or [B, 1, Q, S].
  """

  def __init__(
      self, *, hidden_size: int, num_attention_heads: int,
      intermediate_size: int, hidden_act: str, hidden_dropout_rate: float,
      attention_dropout_rate: float, initializer_range: float,
      first_salt: int, **kwargs
  ):
    super().__init__(**kwargs)
    self.hidden_size = hidden_size
    self.intermediate_size = intermediate_size
    self.num_heads = num_attention_heads
    self.activation = ACTIVATIONS[hidden_act]

    def dense(units, name):
      return Dense(
          units, name=name, dtype=self.dtype_policy,
          kernel_initializer=truncated_normal(initializer_range))

    def dropout(rate, number):
      return Dropout(
          rate, salt=first_salt + number, dtype=self.dtype_policy)

    self.query = dense(hidden_size, "query")
    self.key = dense(hidden_size, "key")
    self.value = dense(hidden_size, "value")
    self.attention_dropout = dropout(attention_dropout_rate, 0)
    self.attention_output = dense(hidden_size, "dense")
    self.attention_output_dropout = dropout(hidden_dropout_rate, 1)
    self.attention_norm = layer_norm(self.dtype_policy)
    self.intermediate = dense(intermediate_size, "dense")
    self.output_dense = dense(hidden_size, "dense")
    self.output_dropout = dropout(hidden_dropout_rate, 2)
    self.output_norm = layer_norm(self.dtype_policy)

  def build(self, input_shape=None):
    hidden = (None, None, self.hidden_size)
    with keras.name_scope("attention"):
      with keras.name_scope("self"):
        self.query.build(hidden)
        self.key.build(hidden)
        self.value.build(hidden)
      with keras.name_scope("output"):
        self.attention_output.build(hidden)
        self.attention_norm.build(hidden)
    with keras.name_scope("intermediate"):
      self.intermediate.build(hidden)
    with keras.name_scope("output"):
      self.output_dense.build((None, None, self.intermediate_size))
      self.output_norm.build(hidden)
    self.built = True

  def call(
      self, x, attention_bias, dropout_seed=None, head_places=None,
      read_rows=None
  ):
    read, num_read = x, None
    if read_rows is not None:
      num_read = ops.shape(read_rows)[1]
      read = look_up(
          x, ops.maximum(ops.reshape(read_rows, (-1,)), 0))  # [B Q, H]
    attended = self.attention_output(self._attend(
        read, num_read, x, attention_bias, dropout_seed, head_places))
    x = self.attention_norm(
        read, attended, dropout=self.attention_output_dropout,
        dropout_seed=dropout_seed)  # [T, H]
    y = self.activation(self.intermediate(x))  # [T, F]
    return self.output_norm(
        x, self.output_dense(y), dropout=self.output_dropout,
        dropout_seed=dropout_seed)  # [T, H]

  def _attend(
      self, read, num_read, x, attention_bias, dropout_seed, head_places
  ):
    """Of `read` [B Q, H] to `x` [T, H]; they are the same if Q is None."""
    batch, _, _, length = ops.shape(attention_bias)
    hidden = x.shape[-1]
    size = hidden // self.num_heads
    to_heads, to_pieces = head_places or (None, None)

    def split_heads(y):  # [B, N, S, D]
      if to_heads is not None:
        return look_up_once(
            ops.reshape(y, (-1, size)), to_heads, readers=to_pieces)
      return transposed(y, length)

    def transposed(y, length):
      y = ops.reshape(y, (batch, length, self.num_heads, size))
      return ops.transpose(y, (0, 2, 1, 3))

    key = split_heads(self.key(x))
    value = split_heads(self.value(x))
    query = self.query(read)
    if num_read is None:
      query = split_heads(query)  # [B, N, S, D]
    else:
      query = transposed(query, num_read)  # [B, N, Q, D]
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
    seed = self.attention_dropout.salted(dropout_seed)
    if seed is None:
      weights = attention_weights(size)(scores, attention_bias)
    else:
      weights = attention_weights(size, self.attention_dropout.rate)(
          scores, attention_bias, seed)  # [B, N, S, S]
    context = ops.matmul(weights, value)  # [B, N, S, D]
    if to_pieces is not None and num_read is None:
      context = look_up_once(
          ops.reshape(context, (-1, size)), to_pieces, readers=to_heads,
          has_unread=True)
    else:
      context = ops.transpose(context, (0, 2, 1, 3))
    return ops.reshape(context, (-1, hidden))  # [T, H]
