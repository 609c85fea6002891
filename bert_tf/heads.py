"""Heads on the encoder, and the models made of both.

Devlin et al. 2019, sections 3.1 (masked LM, next sentence) and 4.

Shapes: B batch, S sequence length, H hidden size, V vocabulary,
P masked positions, C classes, K most examples in a packed row.
"""

import keras
from keras import ops

from bert_tf.config import BertConfig
from bert_tf.layers import ACTIVATIONS
from bert_tf.layers import Dropout
from bert_tf.layers import gather_positions
from bert_tf.layers import layer_norm
from bert_tf.layers import register
from bert_tf.layers import truncated_normal
from bert_tf.modeling import BertEncoder
from bert_tf.modeling import BertModel


class MaskedLMHead(keras.layers.Layer):
  """Scores over the vocabulary; its output matrix is the embedding table."""

  def __init__(self, config: BertConfig, name: str = "predictions", **kwargs):
    super().__init__(name=name, **kwargs)
    self.vocab_size = config.vocab_size
    self.hidden_size = config.hidden_size
    self.activation = ACTIVATIONS[config.hidden_act]
    self.transform = keras.layers.Dense(
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

  def call(self, x, embedding_table):
    x = self.norm(self.activation(self.transform(x)))  # [B, P, H]
    table = ops.cast(embedding_table, self.compute_dtype)  # [V, H]
    logits = ops.matmul(x, ops.transpose(table))
    return ops.cast(logits, "float32") + ops.cast(self.output_bias, "float32")


class LinearHead(keras.layers.Layer):
  """Logits [..., C] of pooled output [..., H].

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
    logits = ops.matmul(x, ops.transpose(self.output_weights))
    return ops.cast(logits + self.output_bias, "float32")


@register
class BertForPreTraining(BertModel):
  """The encoder with the masked-LM and the next-sentence head.

  Called on the encoder's inputs and `masked_lm_positions` int [B, P].
  Returns a dict of float32: `mlm_logits` [B, P, V] (before the softmax) and
  `nsp_logits` [B, 2] (0: B follows A, 1: B is random), [B, K, 2] of packed
  rows with `cls_positions` [B, K].
  """

  def __init__(self, config: BertConfig, **kwargs):
    super().__init__(config, name="bert_for_pretraining", **kwargs)
    self.encoder = BertEncoder(config, dtype=self.dtype_policy)
    self.mlm_head = MaskedLMHead(config, dtype=self.dtype_policy)
    self.nsp_head = LinearHead(
        2, hidden_size=config.hidden_size,
        initializer_range=config.initializer_range, name="seq_relationship",
        dtype=self.dtype_policy)
    with keras.name_scope("cls"):
      self.mlm_head.build()
      self.nsp_head.build()
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    outputs = self.encoder(
        inputs, training=training, dropout_seed=dropout_seed)
    masked = gather_positions(
        outputs["sequence_output"], inputs["masked_lm_positions"])
    return {
      "mlm_logits": self.mlm_head(masked, self.encoder.embedding_table),
      "nsp_logits": self.nsp_head(outputs["pooled_output"]),
    }


@register
class BertClassifier(BertModel):
  """The encoder with a linear classifier over the pooled output.

  Called on the encoder's inputs; returns `{"logits": float32 [B, C]}`, or
  [B, K, C] of packed rows with `cls_positions` [B, K].
  """

  def __init__(self, config: BertConfig, *, num_classes: int, **kwargs):
    super().__init__(config, name="bert_classifier", **kwargs)
    self.num_classes = num_classes
    self.encoder = BertEncoder(config, dtype=self.dtype_policy)
    self.dropout = Dropout(
        config.hidden_dropout_prob, salt=-1, dtype=self.dtype_policy)
    self.head = LinearHead(
        num_classes, hidden_size=config.hidden_size,
        initializer_range=config.initializer_range, name="classifier",
        dtype=self.dtype_policy)
    self.head.build()
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    seed = self.resolve_dropout_seed(training, dropout_seed)
    outputs = self.encoder(inputs, training=training, dropout_seed=seed)
    pooled = self.dropout(outputs["pooled_output"], seed=seed)
    return {"logits": self.head(pooled)}

  def get_config(self):
    return {**super().get_config(), "num_classes": self.num_classes}
