"""Heads on the encoder, and the models made of both.

Devlin et al. 2019, sections 3.1 (masked LM, next sentence), 4, 5.1 (left to
right, BiLSTM) and 5.3 (features).

Shapes: B batch, S sequence length, H hidden size, V vocabulary,
P masked positions, C classes, K most examples in a packed row, N choices.
"""

import keras
from keras import ops

from bert_tf import losses
from bert_tf.bilstm import FeatureReader
from bert_tf.bilstm import lstm_mask
from bert_tf.bilstm import make_bilstm
from bert_tf.config import BertConfig
from bert_tf.config import require
from bert_tf.layers import ACTIVATIONS
from bert_tf.layers import Dense
from bert_tf.layers import Dropout
from bert_tf.layers import layer_norm
from bert_tf.layers import register
from bert_tf.layers import truncated_normal
from bert_tf.modeling import BertEncoder
from bert_tf.modeling import BertModel


# Where every position predicts, the scores over the vocabulary are made for so
# many positions of each row at a time: about as many as a masked row predicts.
CHUNK = 32
# And in so many chunks at most: each leaves its own gradient of the table,
# until all are added up.
MOST_CHUNKS = 8
CLASSIFIER_HEADS = ("linear", "bilstm")


def times_transposed(x, table):
  """`x` [N, H] times `table` [V, H] transposed: [N, V].

  `keras.ops` has no product with a transposed matrix, and transposing the
  table first costs a tenth of the head's time, a fifth in bfloat16 under XLA.
  """
  if keras.backend.backend() != "tensorflow":
    return ops.matmul(x, ops.transpose(table))
  import tensorflow as tf
  return tf.matmul(x, table, transpose_b=True)


def _scores(x, table, bias):
  """Float32 [..., V] of `x` [..., H], in whose precision they are summed."""
  # Rows of a matrix: the bias is then added within the product.
  rows = times_transposed(ops.reshape(x, (-1, table.shape[1])), table)
  rows = ops.cast(rows, "float32") + bias  # [N, V]
  return ops.reshape(rows, (*ops.shape(x)[:-1], table.shape[0]))


def _chunk_likelihoods(labels):
  """(x, table, bias, earlier) -> `piece_likelihoods` of some positions."""

  def likelihoods(x, table, bias, earlier):
    # The chunks do not need each other, and an executor of graphs would
    # compute them all at once and hold them all. So each waits for the one
    # before.
    x = x + ops.cast(0.0 * ops.sum(earlier), x.dtype)
    scores = _scores(x, table, bias)  # [B, c, V]
    return (
        losses.negative_log_likelihood(scores, labels),
        losses.is_correct(scores, labels))

  # No argument of its own: a gradient to integers is asked for otherwise.
  return keras.remat(likelihoods)


def piece_likelihoods(x, table, bias, labels):
  """How likely each label is among all pieces, a chunk of positions a time.

  Scores over the vocabulary never exist for all positions: neither here nor
  for the gradients, for which each chunk is computed again.

  Args:
    x: [B, S, H] of a static S.
    table: [V, H], of the same dtype.
    bias: float32 [V].
    labels: int [B, S].

  Returns:
    Float32 [B, S] twice: -log softmax(x table^T + bias)[label], and 1 where
    the label has the highest score.
  """
  length = x.shape[1]
  chunk = max(CHUNK, -(-length // MOST_CHUNKS))
  nll, correct = [ops.zeros((1, 0), "float32")], []
  for start in range(0, length, chunk):
    places = slice(start, min(start + chunk, length))
    likelihoods = _chunk_likelihoods(labels[:, places])
    parts = likelihoods(x[:, places], table, bias, nll[-1])
    nll.append(parts[0])
    correct.append(parts[1])
  return ops.concatenate(nll[1:], axis=1), ops.concatenate(correct, axis=1)


class MaskedLMHead(keras.layers.Layer):
  """Scores over the vocabulary; its output matrix is the embedding table.

  Called on `x` [B, P, H] it gives float32 [B, P, V]; with `labels` int [B, P]
  their likelihoods instead, see `piece_likelihoods`.
  """

  def __init__(self, config: BertConfig, name: str = "predictions", **kwargs):
    super().__init__(name=name, **kwargs)
    self.vocab_size = config.vocab_size
    self.hidden_size = config.hidden_size
    self.activation = ACTIVATIONS[config.hidden_act]
    self.transform = Dense(
        config.hidden_size, name="dense", dtype=self.dtype_policy,
        kernel_initializer=truncated_normal(config.initializer_range))
    self.norm = layer_norm(self.dtype_policy)

  def build(self, input_shape=None):
    hidden = (None, None, self.hidden_size)
    with keras.name_scope("transform"):
      self.transform.build(hidden)
      self.norm.build(hidden)
    self.output_bias = self.add_weight(
        name="output_bias", shape=(self.vocab_size,), initializer="zeros")
    self.built = True

  def call(self, x, embedding_table, labels=None):
    x = self.norm(self.activation(self.transform(x)))  # [B, P, H]
    table = ops.cast(embedding_table, self.compute_dtype)  # [V, H]
    bias = ops.cast(self.output_bias, "float32")
    if labels is None:
      return _scores(x, table, bias)
    return piece_likelihoods(x, table, bias, labels)


class LinearHead(keras.layers.Layer):
  """Float32 logits [..., C] of pooled output [..., H].

  The weights are [C, H], as the original's.
  """

  def __init__(
      self, num_classes: int, *, hidden_size: int, initializer_range: float,
      **kwargs
  ):
    super().__init__(**kwargs)
    self.num_classes = num_classes
    self.hidden_size = hidden_size
    self.initializer_range = initializer_range

  def build(self, input_shape=None):
    self.output_weights = self.add_weight(
        name="output_weights", shape=(self.num_classes, self.hidden_size),
        initializer=truncated_normal(self.initializer_range))
    self.output_bias = self.add_weight(
        name="output_bias", shape=(self.num_classes,), initializer="zeros")
    self.built = True

  def call(self, x):
    # There are few classes: rounding their logits would spare nothing.
    x, weights, bias = (
      ops.cast(y, "float32")
      for y in (x, self.output_weights, self.output_bias))
    return ops.matmul(x, ops.transpose(weights)) + bias


def _linear_head(
    config: BertConfig, num_classes: int, *, name: str, dtype,
    width: int | None = None
) -> LinearHead:
  """A built head over states of H, or of another width."""
  head = LinearHead(
      num_classes, hidden_size=width or config.hidden_size,
      initializer_range=config.initializer_range, name=name, dtype=dtype)
  head.build()
  return head


def _pooled(encoder: BertEncoder, inputs, training, seed):
  """`pooled_output` [B, H] or [B, K, H], and no more than it takes."""
  none = ops.zeros((ops.shape(inputs["input_ids"])[0], 0), "int32")
  return encoder(
      inputs, training=training, dropout_seed=seed, positions=none)[
          "pooled_output"]


@register
class BertForPreTraining(BertModel):
  """The encoder with the masked-LM and the next-sentence head.

  Called on the encoder's inputs and `masked_lm_positions` int [B, P].
  Returns a dict of float32: `mlm_logits` [B, P, V] (before the softmax) and
  `nsp_logits` [B, 2] (0: B follows A, 1: B is random), [B, K, 2] of packed
  rows with `cls_positions` [B, K].

  Where the config says `"attention": "left_to_right"`, each piece predicts
  the one behind it instead, and there is no next sentence: [CLS] sees itself
  alone. The model is called on the encoder's inputs, `input_ids` without
  [MASK], of a static S. It returns `lm_nll` float32 [B, S - 1], the negative
  log-likelihood of the pieces 1 to S - 1, and `lm_correct`, 1 where such a
  piece has the highest score: no logits, since those of all positions would
  fill the memory. The variables are the same, so that both are kept alike.
  """

  def __init__(self, config: BertConfig, **kwargs):
    super().__init__(config, name="bert_for_pretraining", **kwargs)
    self.encoder = BertEncoder(config, dtype=self.dtype_policy)
    self.mlm_head = MaskedLMHead(config, dtype=self.dtype_policy)
    with keras.name_scope("cls"):
      self.mlm_head.build()
      self.nsp_head = _linear_head(
          config, 2, name="seq_relationship", dtype=self.dtype_policy)
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    is_causal = self.config.is_causal
    outputs = self.encoder(
        inputs, training=training, dropout_seed=dropout_seed,
        positions=None if is_causal else inputs["masked_lm_positions"])
    if is_causal:
      nll, correct = self.mlm_head(
          outputs["sequence_output"][:, :-1], self.encoder.embedding_table,
          labels=inputs["input_ids"][:, 1:])
      return {"lm_nll": nll, "lm_correct": correct}
    return {
      "mlm_logits": self.mlm_head(
          outputs["sequence_output"], self.encoder.embedding_table),
      "nsp_logits": self.nsp_head(outputs["pooled_output"]),
    }


@register
class BertClassifier(BertModel):
  """The encoder with a classifier over it.

  Called on the encoder's inputs; returns `{"logits": float32 [B, C]}`, or
  [B, K, C] of packed rows with `cls_positions` [B, K].

  Args:
    config: of the encoder. With left-to-right attention the pooler reads the
      last piece of a row, the final [SEP], which has seen all others; [CLS]
      has seen none.
    num_classes: C.
    head: "linear", a layer over the pooled output; or "bilstm", one over the
      last states of a bidirectional LSTM over the whole sequence, which has
      H / 2 units in each direction and starts at random (Devlin et al. 2019,
      section 5.1 and table 5, which leave its size open). It takes no packed
      rows.
  """

  def __init__(
      self, config: BertConfig, *, num_classes: int, head: str = "linear",
      **kwargs
  ):
    super().__init__(config, name="bert_classifier", **kwargs)
    require(
        head in CLASSIFIER_HEADS,
        f"head: received {head!r}; must be one of "
        f"{', '.join(CLASSIFIER_HEADS)}.")
    self.num_classes = num_classes
    self.encoder = BertEncoder(config, dtype=self.dtype_policy)
    self.dropout = Dropout(
        config.hidden_dropout_prob, salt=-1, dtype=self.dtype_policy)
    self.reads_sequence = head == "bilstm"
    self.bilstm, width = None, None
    if head == "bilstm":
      units = max(config.hidden_size // 2, 1)
      width = 2 * units
      self.bilstm = make_bilstm(
          units, width=config.hidden_size, name="bilstm",
          dtype=self.dtype_policy)
    self.head = _linear_head(
        config, num_classes, name="classifier", width=width,
        dtype=self.dtype_policy)
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    seed = self.resolve_dropout_seed(training, dropout_seed)
    if self.reads_sequence:
      x = self.encoder(inputs, training=training, dropout_seed=seed)[
          "sequence_output"]
      states = self.bilstm(x, mask=lstm_mask(inputs))
      x = ops.concatenate(states, axis=-1)
    else:
      x = _pooled(self.encoder, inputs, training, seed)  # [B, H] or [B, K, H]
    return {"logits": self.head(self.dropout(x, seed=seed))}

  def get_config(self):
    return {
      **super().get_config(), "num_classes": self.num_classes,
      "head": "linear" if self.bilstm is None else "bilstm"}


@register
class BertTokenClassifier(BertModel):
  """The encoder with a classifier over each piece (section 5.3, NER).

  Called on the encoder's inputs; returns `{"logits": float32 [B, S, C]}`.

  Args:
    config: of the encoder.
    num_classes: C.
    features: None, or a key of `FEATURES`: the encoder is frozen, without
      dropout, and the classifier stands on a `FeatureReader` of its states.
      That takes no packed rows.
  """

  reads_pooler = False

  def __init__(
      self, config: BertConfig, *, num_classes: int,
      features: str | None = None, **kwargs
  ):
    super().__init__(config, name="bert_token_classifier", **kwargs)
    self.num_classes = num_classes
    self.features = features
    self.encoder = BertEncoder(config, dtype=self.dtype_policy)
    self.dropout = Dropout(
        config.hidden_dropout_prob, salt=-1, dtype=self.dtype_policy)
    self.reader, width = None, None
    if features is not None:
      self.encoder.trainable = False
      width = 2 * config.hidden_size
      self.reader = FeatureReader(config, features, dtype=self.dtype_policy)
      self.reader.build()
    self.head = _linear_head(
        config, num_classes, name="classifier", width=width,
        dtype=self.dtype_policy)
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    seed = self.resolve_dropout_seed(training, dropout_seed)
    if self.reader is None:
      x = self.encoder(inputs, training=training, dropout_seed=seed)[
          "sequence_output"]  # [B, S, H]
    else:
      x = self._read_features(inputs)  # [B, S, 2 H]
    return {"logits": self.head(self.dropout(x, seed=seed))}

  def _read_features(self, inputs):
    mask = lstm_mask(inputs)
    states = self.encoder(
        inputs, training=False, output_hidden_states=True)["hidden_states"]
    # A gradient tape goes through all that it saw, whatever is asked of it.
    return self.reader([ops.stop_gradient(x) for x in states], mask)

  def get_config(self):
    return {**super().get_config(), "num_classes": self.num_classes,
            "features": self.features}


@register
class BertSpanLabeler(BertModel):
  """The encoder with a score of each piece as start and end of an answer.

  Section 4.2 (SQuAD); as in the original, nothing is dropped before the head.
  Called on the encoder's inputs; returns `start_logits` and `end_logits`,
  float32 [B, S].
  """

  reads_pooler = False

  def __init__(self, config: BertConfig, **kwargs):
    super().__init__(config, name="bert_span_labeler", **kwargs)
    self.encoder = BertEncoder(config, dtype=self.dtype_policy)
    with keras.name_scope("cls"):
      self.head = _linear_head(
          config, 2, name="squad", dtype=self.dtype_policy)
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    outputs = self.encoder(
        inputs, training=training, dropout_seed=dropout_seed)
    logits = self.head(outputs["sequence_output"])  # [B, S, 2]
    return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}


@register
class BertMultipleChoice(BertModel):
  """The encoder with one score of each choice (section 4.4, SWAG).

  Called on the encoder's inputs with an axis for the choices, [B, N, S];
  returns `{"logits": float32 [B, N]}`.
  """

  reads_sequence = False

  def __init__(self, config: BertConfig, **kwargs):
    super().__init__(config, name="bert_multiple_choice", **kwargs)
    self.encoder = BertEncoder(config, dtype=self.dtype_policy)
    self.dropout = Dropout(
        config.hidden_dropout_prob, salt=-1, dtype=self.dtype_policy)
    self.head = _linear_head(
        config, 1, name="classifier", dtype=self.dtype_policy)
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    seed = self.resolve_dropout_seed(training, dropout_seed)
    batch, choices, length = ops.shape(inputs["input_ids"])
    rows = {
      name: ops.reshape(inputs[name], (-1, length))
      for name in ("input_ids", "input_mask", "segment_ids")
      if name in inputs}
    x = _pooled(self.encoder, rows, training, seed)
    x = self.dropout(x, seed=seed)  # [B N, H]
    return {"logits": ops.reshape(self.head(x), (batch, choices))}
