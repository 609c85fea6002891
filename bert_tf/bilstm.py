"""Bidirectional LSTMs over the states of an encoder.

Devlin et al. 2019, section 5.1 (below a classifier, as an ablation) and
section 5.3 (over features of a frozen encoder).

Shapes: B batch, S sequence length, H hidden size, L layers whose states are
read.
"""

import keras
from keras import ops

from bert_tf.config import BertConfig
from bert_tf.config import FEATURES
from bert_tf.config import require


def make_bilstm(
    units: int, *, width: int, name: str, dtype, return_sequences: bool = False
) -> keras.layers.Bidirectional:
  """A built bidirectional LSTM, of so many units in each direction.

  Over [B, S, `width`]; gives the last states of both directions, [B, `units`]
  each, or those of all positions, [B, S, `units`] each.
  """
  # Its initializers know no bfloat16, and its errors would add up from piece
  # to piece.
  if keras.dtype_policies.get(dtype).variable_dtype == "bfloat16":
    dtype = "float32"
  # Without cuDNN: what is traced where there is a GPU must also run in a
  # server that has none, and XLA does not compile cuDNN's operation.
  lstm = keras.layers.LSTM(
      units, return_sequences=return_sequences, use_cudnn=False, name="lstm",
      dtype=dtype)
  # Not joined: to what Keras joins it also ties the mask, and layers that do
  # not know of masks would warn.
  bilstm = keras.layers.Bidirectional(
      lstm, merge_mode=None, name=name, dtype=dtype)
  bilstm.build((None, None, width))
  return bilstm


def lstm_mask(inputs):
  """Which pieces an LSTM reads: bool [B, S] of the encoder's inputs."""
  require(
      "example_ids" not in inputs and "cls_positions" not in inputs,
      "The inputs are packed rows (example_ids, cls_positions), and an LSTM "
      "reads a row as one example; give it one a row.")
  mask = inputs.get("input_mask")
  if mask is None:
    mask = ops.ones_like(inputs["input_ids"])
  return ops.cast(mask, "bool")


class FeatureReader(keras.layers.Layer):
  """A BiLSTM of two layers over the hidden states of some layers.

  Devlin et al. 2019, section 5.3 and table 7. Each direction has H units: the
  768 of the paper, where the encoder is base. The weights of a sum are those
  of ELMo (Peters et al. 2018, equation 1): a softmax of numbers that start at
  0, so that all layers count the same at first. ELMo's factor before the sum
  is left out, since the kernel of the LSTM above has it in it.

  Called on all hidden states, a list of [B, S, H], and a mask, bool [B, S];
  returns [B, S, 2 H].

  Args:
    config: of the encoder.
    features: a key of `FEATURES`.

  Raises:
    InputError: another name, or the encoder has too few layers.
  """

  def __init__(
      self, config: BertConfig, features: str, *, name: str = "features",
      **kwargs
  ):
    super().__init__(name=name, **kwargs)
    require(
        features in FEATURES,
        f"features: received {features!r}; must be one of "
        f"{', '.join(FEATURES)}.")
    self.places, self.is_sum = FEATURES[features]
    needed = -min(self.places.start, 0)
    require(
        config.num_hidden_layers >= needed,
        f"features: received {features!r}, which needs {needed} layers; the "
        f"model has {config.num_hidden_layers}.")
    self.config = config

  def build(self, input_shape=None):
    hidden = self.config.hidden_size
    count = len(range(self.config.num_hidden_layers + 1)[self.places])  # L
    if self.is_sum:
      self.layer_weights = self.add_weight(
          name="layer_weights", shape=(count,), initializer="zeros",
          autocast=False)
    width = hidden if self.is_sum else count * hidden
    self.bilstms = [
      make_bilstm(
          hidden, width=width_in, name=f"bilstm_{i}", return_sequences=True,
          dtype=self.dtype_policy)
      for i, width_in in enumerate((width, 2 * hidden))]
    self.built = True

  def mix(self, hidden_states):
    """What the BiLSTM reads: float32 [B, S, H] of a sum, or [B, S, L H]."""
    states = hidden_states[self.places]
    if not self.is_sum:
      return ops.concatenate(states, axis=-1)
    weights = ops.softmax(ops.cast(self.layer_weights, "float32"))  # [L]
    return sum(
        weights[i] * ops.cast(state, "float32")
        for i, state in enumerate(states))

  def call(self, hidden_states, mask):
    x = self.mix(hidden_states)
    for bilstm in self.bilstms:
      x = ops.concatenate(bilstm(x, mask=mask), axis=-1)
    return x
