"""What the signatures of all exports share: forms of requests, and checks.

A signature is a `tf.function` from named tensors to named tensors, all of
which have the batch first. A server takes what it is sent: what does not fit
must be an error here, never another row's answer.

Shapes: B texts, S sequence length, W windows.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import tensorflow as tf
from tensorflow.python.saved_model import fingerprinting_utils

from bert_tf import freezing
from bert_tf import fused
from bert_tf.config import BertConfig

# The encoder's inputs, and so those of signatures over pieces.
INPUTS = ("input_ids", "input_mask", "segment_ids")
# The signatures for TensorFlow Serving's Classify and Regress, and what must
# stand in them for it.
METHODS = {
  "classify": "tensorflow/serving/classify",
  "regress": "tensorflow/serving/regress",
}
# Windows that are computed together, so that a long text needs no more memory
# than they.
_WINDOWS = 64

Outputs = dict[str, tf.Tensor]


def inference(model: keras.Model, *, rank: int = 2) -> Callable:
  """The model without dropout as one function, which an export holds once.

  Its blocks leave out padding, of which it says nothing more than zeros do, and
  its outputs are float32, whatever it computes in. Weights that `freezing`
  has made so are constants.

  Args:
    model: over the encoder's inputs: a `BertEncoder`, or one on it.
    rank: of these.
  """
  encoder = getattr(model, "encoder", model)

  @tf.function(autograph=False, input_signature=[{
    name: tf.TensorSpec([None] * rank, tf.int32) for name in INPUTS}])
  def infer(inputs):
    # For this trace alone: saving traces a module's other functions again,
    # and the reusable encoder, which XLA may compile, keeps its padding.
    before, encoder.remove_padding = encoder.remove_padding, True
    try:
      with freezing.as_constants(model), fused.into_products():
        outputs = model(inputs, training=False)
    finally:
      encoder.remove_padding = before
    return {name: tf.cast(x, tf.float32) for name, x in outputs.items()}

  return infer


def in_blocks(infer: Callable, inputs: Mapping[str, tf.Tensor]) -> Outputs:
  """The outputs of an `inference`, [W, S, ...], a block of windows at a time.
  """
  specs = infer.get_concrete_function().structured_outputs
  number = tf.shape(inputs["input_ids"])[0]
  # Once at least, for the shape of what is then empty. The arrays have their
  # size from the start: TensorFlow 2.12 does not let them grow.
  blocks = tf.maximum((number + _WINDOWS - 1) // _WINDOWS, 1)

  def compute_block(index, *parts):
    first = index * _WINDOWS
    outputs = infer({
      name: x[first:first + _WINDOWS] for name, x in inputs.items()})
    return index + 1, *(
        part.write(index, outputs[name]) for part, name in zip(parts, specs))

  parts = [
    tf.TensorArray(
        spec.dtype, blocks, infer_shape=False, element_shape=spec.shape)
    for spec in specs.values()]
  _, *parts = tf.while_loop(
      lambda index, *_: index < blocks, compute_block, [0, *parts],
      parallel_iterations=1)
  return {name: part.concat() for name, part in zip(specs, parts)}


def checked(
    inputs: Mapping[str, tf.Tensor], config: BertConfig, *, rank: int = 2,
    names: Sequence[str] = INPUTS
) -> dict[str, tf.Tensor]:
  """The encoder's inputs, under its own names, or an error in the graph.

  Unchecked, a lookup beyond a table would be an error on a CPU, zeros on a
  GPU and the row of another id below zero, and one row of a mask would count
  for all. What XLA compiles is not checked.

  Args:
    inputs: int32 [B, S], or with choices [B, N, S].
    config: of the encoder.
    rank: of the inputs.
    names: theirs, in the order of `INPUTS`.
  """
  # In C++ no shape is looked at before this.
  given = {name: tf.ensure_shape(inputs[name], [None] * rank) for name in names}
  shape = tf.shape(given[names[0]])
  most = config.max_position_embeddings
  checks = [tf.debugging.assert_less_equal(
      shape[-1], most, message=(
        f"{names[0]}: the model has {most} positions; cut the sequences"))]
  checks += [
    tf.debugging.assert_equal(
        tf.shape(given[name]), shape,
        message=f"{name}: must have the shape of {names[0]}")
    for name in names[1:]]
  for name, size in zip(
      names, (config.vocab_size, 2, config.type_vocab_size)):
    message = f"{name}: must be from 0 to {size - 1}"
    checks += [
      tf.debugging.assert_non_negative(given[name], message=message),
      tf.debugging.assert_less(given[name], size, message=message)]
  # Outside of a graph they have raised, or are None.
  with tf.control_dependencies([x for x in checks if x is not None]):
    return {
      ours: tf.identity(given[name]) for ours, name in zip(INPUTS, names)}


def of_pieces(
    config: BertConfig, answer: Callable[[dict], Outputs], *, rank: int = 2
) -> tf.types.experimental.PolymorphicFunction:
  """The signature over the encoder's inputs, which somebody else has made.

  Args:
    config: of the encoder.
    answer: ({name: int32 [B, S]}) -> outputs.
    rank: of the inputs.
  """

  @tf.function(autograph=False, input_signature=[
    tf.TensorSpec([None] * rank, tf.int32, name=name) for name in INPUTS])
  def pre_tokenized(*tensors):
    return answer(checked(dict(zip(INPUTS, tensors)), config, rank=rank))

  return pre_tokenized


def of_texts(
    names: Sequence[str], answer: Callable[..., Outputs]
) -> tf.types.experimental.PolymorphicFunction:
  """The signature over raw texts, string [B] each, of these names."""

  @tf.function(autograph=False, input_signature=[
    tf.TensorSpec([None], tf.string, name=name) for name in names])
  def raw(*texts):
    return answer(*texts)

  return raw


def of_examples(
    names: Sequence[str], answer: Callable[..., Outputs]
) -> tf.types.experimental.PolymorphicFunction:
  """The signature over serialized `tf.Example`, string [B]: `inputs`.

  Each example has a feature with one text for each of the names.
  """
  features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}

  @tf.function(autograph=False, input_signature=[
    tf.TensorSpec([None], tf.string, name="inputs")])
  def serialized(inputs):
    # A scalar would be parsed, and be answered without a batch.
    parsed = tf.io.parse_example(tf.ensure_shape(inputs, [None]), features)
    return answer(*(parsed[name] for name in names))

  return serialized


def set_method_names(directory: str, names: Iterable[str]) -> None:
  """Makes the signatures of `METHODS` what TensorFlow Serving asks of them.

  Args:
    directory: a SavedModel, not yet in use.
    names: those of its signatures.
  """
  found = [name for name in names if name in METHODS]
  if not found:
    return
  updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(
      directory)
  for name in found:
    updater.replace_method_name(name, METHODS[name], tags="serve")
  updater.save()
  # Made of the file that was; there is no public function for it.
  fingerprinting_utils.write_fingerprint(directory)
