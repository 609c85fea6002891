"""The BERT encoder, after Devlin et al. 2019, section 3.

Needs Keras alone. Shapes: B batch, S sequence length, H hidden size, K most
examples in a packed row, P positions that are read, T pieces of a batch
without its padding.
"""

import keras
from keras import ops

from bert_tf.config import BertConfig
from bert_tf.layers import BertEmbeddings
from bert_tf.layers import BertLayer
from bert_tf.layers import Dense
from bert_tf.layers import attention_bias
from bert_tf.layers import gather_positions
from bert_tf.layers import places_of
from bert_tf.layers import register
from bert_tf.layers import truncated_normal
from bert_tf.lookup import look_up
from bert_tf.padding import head_places
from bert_tf.padding import kept_places
from bert_tf.padding import kept_rows
from bert_tf.padding import remove_padding
from bert_tf.padding import restore_padding


class BertModel(keras.Model):
  """What all BERT models share: a config, and where dropout's seed is from.

  A model is built when it is made, so that its variables can be loaded.
  """

  # Whether what a model of a task returns depends on the pooler, and on what
  # the last block says of all pieces.
  reads_pooler = True
  reads_sequence = True

  def __init__(self, config: BertConfig, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    self._seed_generator = keras.random.SeedGenerator()

  def resolve_dropout_seed(self, training, dropout_seed):
    """The int32 [2] seed of one call, or None where nothing is dropped.

    A training loop passes `dropout_seed`; under `fit`, which cannot, the
    model draws one.
    """
    if not training:
      return None
    if dropout_seed is None:
      dropout_seed = self._seed_generator.next()
    return ops.cast(dropout_seed, "int32")

  def get_config(self):
    policy = keras.dtype_policies.serialize(self.dtype_policy)
    return {"config": self.config.to_dict(), "dtype": policy}

  @classmethod
  def from_config(cls, config):
    arguments = {**config, "config": BertConfig.from_dict(config["config"])}
    return cls(**arguments)


def _main_inputs(inputs):
  """`input_ids`, `input_mask` and `segment_ids`, [B, S]; or their defaults."""
  input_ids = inputs["input_ids"]
  input_mask = inputs.get("input_mask")
  segment_ids = inputs.get("segment_ids")
  if input_mask is None:
    input_mask = ops.ones_like(input_ids)
  if segment_ids is None:
    segment_ids = ops.zeros_like(input_ids)
  return input_ids, input_mask, segment_ids


def _last_positions(input_mask):
  """Int32 [B, 1] of an `input_mask` [B, S]: where the last piece stands."""
  places = ops.arange(ops.shape(input_mask)[1], dtype="int32")
  seen = ops.cast(input_mask, "int32")
  return ops.max(seen * places, axis=1, keepdims=True)


def _bias_of(bias, positions):
  """What of an attention bias is for queries at `positions` [B, Q]."""
  if bias.shape[2] == 1:  # The same for all.
    return bias
  return gather_positions(bias[:, 0], positions)[:, None]  # [B, 1, Q, S]


@register
class BertEncoder(BertModel):
  """The bidirectional Transformer encoder with its pooler.

  Called on a dict of int tensors [B, S]: `input_ids`; `input_mask` (1 =
  token, 0 = padding; default: all ones); `segment_ids` (default: zeros).
  S is at most `config.max_position_embeddings`.

  A row may hold several examples, which then give what they give apart.
  Each of these inputs works without the others:
    `example_ids` [B, S]: 1, 2, ... the example of a piece, 0 = padding. A
      piece sees its own example alone, with or without an `input_mask`.
      Default: one example a row.
    `position_ids` [B, S]: from 0 in each example, below
      `config.max_position_embeddings`. Default: 0 to S - 1.
    `cls_positions` [B, K]: where each example begins. Default: at 0, and no
      axis K.

  Returns a dict: `sequence_output` [B, S, H], `pooled_output` [B, H] (tanh
  over the first position; with left-to-right attention over the last piece,
  the final [SEP], which has seen all others, as [CLS] has seen none), or
  [B, K, H] at `cls_positions`, and, with
  `output_hidden_states=True`, `hidden_states`, a list of [B, S, H]:
  embeddings first, then every layer.

  With `positions` int [B, P] (P may be 0) `sequence_output` is [B, P, H], of
  these positions alone: who reads no others spares most of the last block,
  which is then not computed for them, so that there are no `hidden_states`.

  Args:
    config: of the encoder.
    rematerialize: whether the backward pass of a training computes each
      block again, which keeps no more of it than its input. The results are
      the same, dropout too; it may also be set later, as the attribute.
    remove_padding: whether the blocks leave out what `input_mask` hides, all
      but the attention itself. What it says of other pieces is the same; of
      the padding, zeros. Not under XLA, whose shapes must not depend on
      values. An attribute as well.

  >>> encoder = BertEncoder(BertConfig.from_size("tiny", vocab_size=30522))
  >>> encoder.count_params()
  4385920
  """

  def __init__(
      self, config: BertConfig, *, rematerialize: bool = False,
      remove_padding: bool = False, **kwargs
  ):
    super().__init__(config, name="bert", **kwargs)
    self.rematerialize = rematerialize
    self.remove_padding = remove_padding
    self.embeddings = BertEmbeddings(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        type_vocab_size=config.type_vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        dropout_rate=config.hidden_dropout_prob,
        initializer_range=config.initializer_range,
        name="embeddings", dtype=self.dtype_policy)
    self.encoder_layers = [
      BertLayer(
          hidden_size=config.hidden_size,
          num_attention_heads=config.num_attention_heads,
          intermediate_size=config.intermediate_size,
          hidden_act=config.hidden_act,
          hidden_dropout_rate=config.hidden_dropout_prob,
          attention_dropout_rate=config.attention_probs_dropout_prob,
          initializer_range=config.initializer_range,
          first_salt=1 + 3 * i,
          name=f"layer_{i}", dtype=self.dtype_policy)
      for i in range(config.num_hidden_layers)
    ]
    self.pooler = Dense(
        config.hidden_size, activation="tanh", name="dense",
        dtype=self.dtype_policy,
        kernel_initializer=truncated_normal(config.initializer_range))
    self.build()

  def build(self, input_shape=None):
    hidden = (None, None, self.config.hidden_size)
    self.embeddings.build()
    with keras.name_scope("encoder"):
      for layer in self.encoder_layers:
        layer.build(hidden)
    with keras.name_scope("pooler"):
      self.pooler.build((None, self.config.hidden_size))
    self.built = True

  @property
  def embedding_table(self):
    """The word embeddings [V, H], which the masked-LM head shares."""
    return self.embeddings.word_table

  def call(
      self, inputs, training=None, dropout_seed=None, positions=None,
      output_hidden_states=False
  ):
    if positions is not None and output_hidden_states:
      raise ValueError(
          "positions: the last of the hidden states is not computed for all "
          "others; ask for them without positions.")
    seed = self.resolve_dropout_seed(training, dropout_seed)
    input_ids, input_mask, segment_ids = _main_inputs(inputs)
    bias = attention_bias(
        input_mask, inputs.get("example_ids"),
        is_causal=self.config.is_causal)
    position_ids = inputs.get("position_ids")
    places, rows, heads = None, None, None
    shape = ops.shape(input_ids)
    if self.remove_padding and "input_mask" in inputs:
      places, number = kept_places(input_mask)
      if position_ids is None:
        position_ids = places % shape[1]
      else:
        position_ids = remove_padding(position_ids, places)
      input_ids = remove_padding(input_ids, places)  # [T]
      segment_ids = remove_padding(segment_ids, places)
      rows = kept_rows(places, shape)  # [B, S]
      heads = head_places(places, rows, self.config.num_attention_heads)
    x = self.embeddings(
        input_ids, segment_ids, position_ids=position_ids, dropout_seed=seed)
    # Rows of a matrix: biases are then added within the products.
    x = ops.reshape(x, (-1, self.config.hidden_size))  # [T, H]
    hidden_states = [x]
    *layers, last_layer = self.encoder_layers
    for layer in layers:
      x = self._call_block(layer, x, bias, seed, heads)
      hidden_states.append(x)

    def by_row(x):  # [B, S, H]
      if places is not None:
        return restore_padding(x[:number], places[:number], shape)
      return ops.reshape(x, (*shape, self.config.hidden_size))

    first = self._first_positions(inputs, input_mask)  # [B, K]
    if positions is None:
      hidden_states.append(self._call_block(last_layer, x, bias, seed, heads))
      x = by_row(hidden_states[-1])
      pooled = gather_positions(x, first)
    else:
      read = ops.concatenate(
          [first, ops.cast(positions, "int32")], axis=1)  # [B, K + P]
      read_rows = read_places = places_of(read, shape[1])
      if rows is not None:
        read_rows = look_up(ops.reshape(rows, (-1,)), read_places)
      x = self._call_block(
          last_layer, x, _bias_of(bias, read), seed, heads,
          read_rows=read_rows)
      x = ops.reshape(x, (*ops.shape(read), self.config.hidden_size))
      if places is not None:  # Padding is zeros, as it is above.
        is_piece = look_up(ops.reshape(input_mask, (-1,)), read_places) > 0
        x = ops.where(is_piece[:, :, None], x, ops.zeros((), x.dtype))
      number_first = ops.shape(first)[1]
      pooled, x = x[:, :number_first], x[:, number_first:]
    pooled = self.pooler(pooled)  # [B, K, H]
    if inputs.get("cls_positions") is None:
      pooled = pooled[:, 0]
    outputs = {"sequence_output": x, "pooled_output": pooled}
    if output_hidden_states:
      outputs["hidden_states"] = [by_row(y) for y in hidden_states]
    return outputs

  def _first_positions(self, inputs, input_mask):
    """Int32 [B, K]: what the pooler reads."""
    if inputs.get("cls_positions") is not None:
      return ops.cast(inputs["cls_positions"], "int32")
    if self.config.is_causal:
      return _last_positions(input_mask)
    return ops.zeros((ops.shape(input_mask)[0], 1), "int32")

  def _call_block(self, layer, x, bias, seed, heads, **kwargs):
    def block(x, seed):
      return layer(x, bias, dropout_seed=seed, head_places=heads, **kwargs)

    if self.rematerialize and seed is not None:
      # The seed is an argument, so that what is drawn from it is not taken
      # for the same in both passes and kept between them.
      block = keras.remat(block)
    return block(x, seed)
