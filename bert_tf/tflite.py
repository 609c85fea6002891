"""Models as TFLite files, for phones and small devices.

Over ids of fixed shapes, since TFLite has no WordPiece: the program around it
tokenizes, with the vocabulary that lies beside the file. It takes and gives
what the signature `pre_tokenized` of a SavedModel does, but for strings, in
TFLite's own operations alone. What does not fit the vocabulary is no error
there, so the caller must see to it.

TFLite is called LiteRT now: its interpreter is the package ai-edge-litert, and
`tf.lite.Interpreter` says so in a warning.

Shapes: B sequences, S sequence length, N choices, C classes, H hidden size.
"""

from collections.abc import Callable
from collections.abc import Mapping
import os
import tempfile
from typing import Any

from absl import logging
import keras
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import files
from bert_tf import serving
from bert_tf import serving_files
from bert_tf.arguments import TFLiteConfig
from bert_tf.config import BertConfig
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.config import write_text
from bert_tf.features import POOLINGS
from bert_tf.finetuning import Task
from bert_tf.modeling import BertEncoder
from bert_tf.task_descriptions import kind_of
from bert_tf.tokenization import BertTokenizer

Tensors = dict[str, tf.Tensor]
_CHOICES = "multiple_choice"


def _scores(function: Callable) -> Callable[[Tensors], Tensors]:
  return lambda outputs: {
    "probabilities": function(outputs["logits"]), "logits": outputs["logits"]}


# {kind of a task: the model's outputs -> the answers}
_ANSWERS = {
  "classification": _scores(tf.nn.softmax),
  "multilabel": _scores(tf.sigmoid),
  "regression": lambda outputs: {"score": outputs["logits"][:, 0]},
  "tagging": _scores(tf.nn.softmax),
  "spans": dict,
  _CHOICES: lambda outputs: {
    "choice": tf.argmax(outputs["logits"], axis=-1, output_type=tf.int32),
    **_scores(tf.nn.softmax)(outputs)},
}


def _pretrained(
    source: checkpoints.ModelSource, config: BertConfig
) -> tuple[keras.Model, Callable[[Tensors], Tensors]]:
  """The encoder, and a function from inputs to its vectors of pieces and texts.
  """
  encoder = BertEncoder(config)
  has_pooler = not checkpoints.load_pretrained(encoder, source)

  def answer(inputs):
    outputs = encoder(inputs, training=False)
    sequence = outputs["sequence_output"]  # [B, S, H]
    pooled = {"pooled_output": outputs["pooled_output"]} if has_pooler else {}
    return {
      "embedding": POOLINGS["mean"](sequence, inputs["input_mask"]),
      "sequence_output": sequence, **pooled}

  return encoder, answer


def _finetuned(
    source: checkpoints.ModelSource, config: BertConfig,
    description: dict[str, Any], tasks: Mapping[str, Task]
) -> tuple[keras.Model, Callable[[Tensors], Tensors]]:
  """The model of a task, and a function from inputs to answers."""
  kind = kind_of(description)
  require(
      kind in _ANSWERS,
      f"{source.path}: was fine-tuned for the task {kind!r}; known are "
      f"{', '.join(_ANSWERS)}.")
  model = tasks[kind].make_model(config, description)
  checkpoints.load_finetuned(model, source)
  return model, lambda inputs: _ANSWERS[kind](model(inputs, training=False))


def convert(
    model: keras.Model, answer: Callable[[Tensors], Tensors], *,
    shape: tuple[int, ...], precision: str
) -> bytes:
  """A TFLite file with one signature, `serving_default`.

  Args:
    model: whose variables it holds.
    answer: the encoder's inputs, {name: int32 of the shape} -> outputs.
    shape: (B, S), or (B, N, S).
    precision: "float32", or "int8": large matrices in 8 bits, which TFLite
      multiplies with inputs of 8 bits.
  """
  module = tf.Module()
  module.variables_of_model = [v.value for v in model.weights]

  @tf.function(autograph=False, input_signature=[
    tf.TensorSpec(shape, tf.int32, name=name) for name in serving.INPUTS])
  def function(*tensors):
    return answer(dict(zip(serving.INPUTS, tensors)))

  module.function = function
  # Of a SavedModel alone does TFLite take the names of inputs and outputs.
  with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(
        module, folder,
        signatures={"serving_default": function.get_concrete_function()})
    converter = tf.lite.TFLiteConverter.from_saved_model(
        folder, signature_keys=["serving_default"])
    if precision == "int8":
      converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _write(
    path: str, content: bytes, tokenizer: BertTokenizer, labels: list[str]
) -> None:
  """The file itself comes last: where it is, the others are."""
  stem = path.removesuffix(".tflite")
  files.make_directories(files.directory_of(path) or os.curdir)
  write_text(
      f"{stem}.vocab.txt",
      "".join(f"{entry}\n" for entry in tokenizer.vocabulary))
  if labels:
    serving_files.write_labels(f"{stem}.labels.txt", labels)
  write_json(
      f"{stem}.tokenizer_config.json",
      {"do_lower_case": tokenizer.do_lower_case})
  with (files.replacing(path) as temporary,
        files.open_file(temporary, "wb") as file):
    file.write(content)


def run(config: TFLiteConfig, tasks: Mapping[str, Task]) -> None:
  """Writes a model as a TFLite file, its vocabulary and labels beside it.

  Raises:
    InputError: no model, no vocabulary, or shapes that do not fit it.
  """
  source = checkpoints.open_source(config.model_dir)
  bert_config = checkpoints.config_of(source)
  tokenizer = checkpoints.find_tokenizer(
      source, bert_config, vocab_file=config.vocab_file,
      do_lower_case=config.do_lower_case)
  require(
      config.max_seq_length <= bert_config.max_position_embeddings,
      f"--max_seq_length: received {config.max_seq_length}; the model has "
      f"{bert_config.max_position_embeddings} positions.")
  description = checkpoints.read_task(source) or {}
  has_choices = bool(description) and kind_of(description) == _CHOICES
  require(
      has_choices == (config.num_choices is not None),
      f"--num_choices: received {config.num_choices}; it is for models of "
      f"multiple choice, which need it, and {config.model_dir} is "
      f"{'one' if has_choices else 'none'}.")
  if description:
    model, answer = _finetuned(source, bert_config, description, tasks)
  else:
    model, answer = _pretrained(source, bert_config)
  shape = (config.batch_size, config.max_seq_length)
  if has_choices:
    shape = (config.batch_size, config.num_choices, config.max_seq_length)
  content = convert(model, answer, shape=shape, precision=config.precision)
  _write(
      config.output_file, content, tokenizer, description.get("labels", []))
  logging.info(
      "Wrote %s: %s bytes, over ids of the shape %s.", config.output_file,
      f"{len(content):,}", list(shape))
