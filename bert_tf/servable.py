"""What a SavedModel is made of: variables, a tokenizer, functions over both.

Keras models do not load in C++ when they are saved as they are (their
variables are not found there), so what is saved is a `tf.Module` that tracks
the raw variables by name.

A pretrained encoder takes the names of TensorFlow Hub's API for Transformer
encoders, of the page "Common SavedModel APIs for Text Tasks":

  encoder = tf.saved_model.load("export/1")
  ids = encoder.tokenize(["a text"])
  inputs = encoder.bert_pack_inputs([ids], seq_length=16)
  outputs = encoder(inputs, training=True)
  logits = encoder.mlm({**inputs, "masked_lm_positions": [[1]]})["mlm_logits"]

Shapes: B texts, S sequence length, H hidden size, P masked positions,
V vocabulary.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import keras
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import serving
from bert_tf.freezing import is_frozen
from bert_tf.heads import BertForPreTraining
from bert_tf.layers import gather_positions
from bert_tf.modeling import BertEncoder
from bert_tf.tokenization import BertTokenizer

# TensorFlow Hub's names for the encoder's inputs, in their order.
_HUB_INPUTS = ("input_word_ids", "input_mask", "input_type_ids")
# Its default for S of packed inputs.
_HUB_LENGTH = 128
_MASKED = "masked_lm_positions"


def trained_weights(
    model: keras.Model, *, untrained: Sequence[str] = ()
) -> dict[str, keras.Variable]:
  """A model's variables by the original's names, but for the untrained.

  Scales of int8 matrices are named as these, and are as trained as they.
  """
  return {
    name: v for name, v in checkpoints.checkpoint_names(model).items()
    if name.removesuffix("_scale") not in untrained}


class Servable(tf.Module):
  """Variables, the tokenizer, and the functions that are set on it.

  `weights` maps the original's names to raw variables, so that the
  checkpoint inside the SavedModel has readable keys. Those that are
  `untrained` are not among them: who loads it is told that they are missing.
  Nor are those that are frozen: they lie in the graph.
  """

  def __init__(
      self, model: keras.Model, tokenizer: BertTokenizer, *,
      untrained: Sequence[str] = ()
  ):
    super().__init__()
    self.weights = {
      name: v.value
      for name, v in trained_weights(model, untrained=untrained).items()
      if not is_frozen(model, v)}
    self.tokenizer = tokenizer


class _Reusable(tf.Module):
  """A function with the variables that it uses, for training further."""

  # Properties of tf.Module, which would not be saved: lists take their place.
  trainable_variables = variables = regularization_losses = None

  def set_call(
      self, call: tf.types.experimental.PolymorphicFunction,
      variables: Iterable[keras.Variable]
  ) -> None:
    variables = list(variables)
    self.trainable_variables = [v.value for v in variables if v.trainable]
    self.variables = [v.value for v in variables]
    self.regularization_losses = []
    # An attribute, since a method that is no tf.function is not saved.
    self.__call__ = call


class ReusableEncoder(Servable, _Reusable):
  """The encoder of a model, as TensorFlow Hub's Transformer encoders are.

  `variables` are those that the call uses: pretraining heads of the model are
  among the `weights`, and those of the masked LM in `mlm`, so that no
  optimizer waits for gradients that never come.

  Args:
    model: an encoder, or one with the pretraining heads.
    tokenizer: of its vocabulary.
    untrained: names of variables that are still at random.
  """

  def __init__(
      self, model: keras.Model, tokenizer: BertTokenizer, *,
      untrained: Sequence[str] = ()
  ):
    super().__init__(model, tokenizer, untrained=untrained)
    has_heads = isinstance(model, BertForPreTraining)
    encoder = model.encoder if has_heads else model
    self.set_call(
        _encoder_function(encoder),
        checkpoints.checkpoint_names(encoder).values())
    self.tokenize = tokenizer._tokenize
    self.bert_pack_inputs = _pack_function(tokenizer)
    # From left to right a piece predicts the next one, and no [MASK].
    if has_heads and not model.config.is_causal:
      self.mlm = _Reusable()
      self.mlm.set_call(_mlm_function(model), (
        v for name, v in checkpoints.checkpoint_names(model).items()
        if name.startswith(("bert/", "cls/predictions/"))))


def _encode(encoder: BertEncoder, inputs, training: bool):
  """Outputs in Hub's names of inputs in Hub's names."""
  # A new seed for every call, drawn in the graph.
  seed = tf.random.uniform(
      [2], maxval=tf.int32.max, dtype=tf.int32) if training else None
  outputs = encoder(
      serving.checked(inputs, encoder.config, names=_HUB_INPUTS),
      training=training, dropout_seed=seed, output_hidden_states=True)
  return {
    "sequence_output": outputs["sequence_output"],  # [B, S, H]
    "pooled_output": outputs["pooled_output"],  # [B, H]
    "default": outputs["pooled_output"],
    # One [B, S, H] a layer, the last of them the sequence output.
    "encoder_outputs": outputs["hidden_states"][1:],
  }


def _traced(call: Callable, names: Sequence[str]):
  """`call(inputs, training=False)` of inputs int32 [None, None]."""
  function = tf.function(call)
  inputs = {
    name: tf.TensorSpec([None, None], tf.int32, name=name) for name in names}
  for training in (True, False):
    function.get_concrete_function(inputs, training)
  return function


def _encoder_function(encoder: BertEncoder):
  """(inputs in Hub's names, training) -> outputs in Hub's names."""

  def call(inputs, training=False):
    return _encode(encoder, inputs, training)

  return _traced(call, _HUB_INPUTS)


def _mlm_function(model: BertForPreTraining):
  """The same with `masked_lm_positions` [B, P] -> `mlm_logits` [B, P, V] too.
  """

  def call(inputs, training=False):
    outputs = _encode(model.encoder, inputs, training)
    sequence, positions = outputs["sequence_output"], inputs[_MASKED]
    message = f"{_MASKED}: must be from 0 to below the length of the rows"
    # Beyond, they would be found in the row of another text.
    with tf.control_dependencies([
      tf.debugging.assert_non_negative(positions, message=message),
      tf.debugging.assert_less(
          positions, tf.shape(sequence)[1], message=message)]):
      masked = gather_positions(sequence, positions)  # [B, P, H]
    logits = model.mlm_head(masked, model.encoder.embedding_table)
    return {**outputs, "mlm_logits": logits}

  return _traced(call, [*_HUB_INPUTS, _MASKED])


def _pack_function(tokenizer: BertTokenizer):
  """([ids] or [ids_a, ids_b], seq_length=128) -> inputs in Hub's names.

  Rows as from `tokenize`; [B, seq_length] of each input.
  """

  def pack(segments, seq_length=_HUB_LENGTH):
    packed = tokenizer.pack(
        *segments, max_seq_length=seq_length, pad_to_max_length=True)
    return {
      hub: packed[ours] for hub, ours in zip(_HUB_INPUTS, serving.INPUTS)}

  function = tf.function(pack, autograph=False)
  ids = tf.RaggedTensorSpec([None, None], tf.int32)
  for segments in ([ids], [ids, ids]):
    function.get_concrete_function(
        segments, tf.TensorSpec([], tf.int32, name="seq_length"))
  return function
