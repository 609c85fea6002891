"""From one form of checkpoint to another, equal to the bit in float32."""

from collections.abc import Iterator
import contextlib
import os
import shutil
from typing import Any
import zipfile

from absl import logging
import numpy as np

from bert_tf import checkpoints
from bert_tf import files
from bert_tf.checkpoint_arguments import ConversionConfig
from bert_tf.config import BertConfig
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.heads import BertMultipleChoice
from bert_tf.heads import BertSpanLabeler
from bert_tf.heads import BertTokenClassifier
from bert_tf.huggingface import to_huggingface_config
from bert_tf.huggingface import write_safetensors
from bert_tf.model_source import CONFIG_FILE
from bert_tf.model_source import ModelSource
from bert_tf.model_source import Tensors
from bert_tf.modeling import BertEncoder
from bert_tf.modeling import BertModel
from bert_tf.task_descriptions import kind_of
from bert_tf.tensorflow_checkpoints import write_checkpoint
from bert_tf.tokenization import BertTokenizer
from bert_tf.variable_names import variable_shapes

# What a checkpoint may have beside BERT.
_TASK_HEADS = ("output_", "bilstm/", "features/", "cls/squad/")

# What shows the class of Hugging Face, the first that is there, where no
# task.json tells the task.
_ARCHITECTURES = (
  ("cls/squad/output_weights", "BertForQuestionAnswering"),
  ("output_weights", "BertForSequenceClassification"),
  ("cls/seq_relationship/output_weights", "BertForPreTraining"),
  ("cls/predictions/output_bias", "BertForMaskedLM"),
  ("bert/embeddings/word_embeddings", "BertModel"),
)


@contextlib.contextmanager
def _new_directory(path: str) -> Iterator[str]:
  """Yields a temporary folder, which becomes `path` if all went well."""
  require(
      files.is_local(path),
      f"--output_dir: received {path!r}; it must be on this machine.")
  path = os.path.normpath(path)
  require(
      not os.path.exists(path)
      or os.path.isdir(path) and not os.listdir(path),
      f"--output_dir: {path} is there already, and not an empty folder; give "
      "a new one.")
  temporary = f"{path}.tmp-{os.getpid()}"
  os.makedirs(temporary)
  try:
    yield temporary
    os.replace(temporary, path)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise


def bert_tensors(source: ModelSource, config: BertConfig) -> Tensors:
  """All variables of BERT in a source, float32, under the original's names.

  Heads and the pooler where they are there. What else is there is left out,
  and the log says so.

  Raises:
    InputError: variables are missing or have another shape.
  """
  there = checkpoints.match(
      variable_shapes(config), source, has_head=True,
      new=checkpoints.MAY_BE_MISSING)
  there.update(
      (name, name) for name in source.shapes if name.startswith(_TASK_HEADS))
  left_out = sorted(set(source.shapes) - set(there.values()))
  if left_out:
    logging.info(
        "Left out: %s.", ", ".join(left_out) if len(left_out) < 10 else
        f"{len(left_out)} variables, {left_out[0]} the first")
  return Tensors(
      {name: source.shapes[key] for name, key in there.items()},
      lambda name: np.asarray(source.read(there[name]), np.float32))


def _write_google(
    directory: str, tensors: Tensors, config: BertConfig,
    task: dict[str, Any] | None
) -> None:
  if config.hidden_act == "gelu_exact":
    logging.warning(
        "hidden_act is gelu_exact, which this project reads and the original "
        "code does not: its gelu is the approximation with tanh.")
  write_checkpoint(
      os.path.join(directory, checkpoints.CHECKPOINT_PREFIX),
      sorted(tensors.shapes), tensors.read)
  write_json(os.path.join(directory, CONFIG_FILE), config.to_dict())


def _write_huggingface(
    directory: str, tensors: Tensors, config: BertConfig,
    task: dict[str, Any] | None
) -> None:
  require(
      not any(name.startswith(("bilstm/", "features/"))
              for name in tensors.shapes),
      "The model has a head of LSTMs, for which Hugging Face has no class.")
  architecture = next(
      name for variable, name in _ARCHITECTURES if variable in tensors.shapes)
  write_json(
      os.path.join(directory, "config.json"),
      to_huggingface_config(config, architecture=architecture, task=task))
  write_safetensors(os.path.join(directory, "model.safetensors"), tensors)


def _model_of(
    shapes: dict[str, tuple[int, ...]], config: BertConfig,
    task: dict[str, Any] | None
) -> BertModel:
  """An untrained model that has these variables."""
  kind = task and kind_of(task)
  if "cls/squad/output_weights" in shapes:
    return BertSpanLabeler(config)
  if "output_weights" in shapes:
    num_classes = shapes["output_weights"][0]
    if kind == "multiple_choice":
      return BertMultipleChoice(config)
    if kind == "tagging":
      return BertTokenClassifier(
          config, num_classes=num_classes, features=task.get("features"))
    require(
        not any(name.startswith("features/") for name in shapes),
        "The model reads features of some layers, and no "
        f"{checkpoints.TASK_FILE} says which.")
    is_bilstm = any(name.startswith("bilstm/") for name in shapes)
    return BertClassifier(
        config, num_classes=num_classes,
        head="bilstm" if is_bilstm else "linear")
  has_heads = any(name.startswith("cls/") for name in shapes)
  return BertForPreTraining(config) if has_heads else BertEncoder(config)


def _zip_directory(directory: str, path: str) -> None:
  """Makes one file of a folder of Keras, which goes."""
  with zipfile.ZipFile(path, "w") as archive:
    for name in sorted(os.listdir(directory)):
      archive.write(os.path.join(directory, name), name)
  shutil.rmtree(directory)


def _write_keras(
    directory: str, tensors: Tensors, config: BertConfig,
    task: dict[str, Any] | None
) -> None:
  model = _model_of(tensors.shapes, config, task)
  variables = checkpoints.checkpoint_names(model)
  missing = sorted(set(variables) - set(tensors.shapes))
  if missing:
    logging.warning(
        "A %s needs %s, which are missing: they are initialized, untrained.",
        type(model).__name__, ", ".join(missing))
  unused = sorted(set(tensors.shapes) - set(variables))
  if unused:
    logging.warning(
        "A %s has no place for %s.", type(model).__name__, ", ".join(unused))
  for name in tensors.shapes.keys() - unused:
    variables[name].assign(tensors.read(name))
  # Keras would hold the weights once more to put them into one file.
  folder = os.path.join(directory, "model")
  model.save(folder, zipped=False)
  _zip_directory(
      folder, os.path.join(directory, checkpoints.KERAS_FILE))


_WRITERS = {
  "google": _write_google, "huggingface": _write_huggingface,
  "keras": _write_keras,
}


def tokenizer_of(
    source: ModelSource, config: BertConfig, *, vocab_file: str | None,
    do_lower_case: bool | None
) -> BertTokenizer | None:
  """The tokenizer of a source; None, and a warning, if it has no vocabulary.

  Raises:
    InputError: as `checkpoints.find_tokenizer`.
  """
  if vocab_file or source.vocab_file:
    return checkpoints.find_tokenizer(
        source, config, vocab_file=vocab_file, do_lower_case=do_lower_case)
  logging.warning("%s has no vocabulary: none is written.", source.path)
  return None


def write_model(
    output_dir: str, to: str, tensors: Tensors, config: BertConfig, *,
    tokenizer: BertTokenizer | None, task: dict[str, Any] | None
) -> None:
  """Writes a model in one of the forms, with what stands beside it.

  The folder appears under its name when it is complete.

  Raises:
    InputError: the form has no such model, or the folder is there already.
  """
  with _new_directory(output_dir) as directory:
    if tokenizer:
      checkpoints.write_tokenizer(directory, tokenizer)
    if task:
      write_json(os.path.join(directory, checkpoints.TASK_FILE), task)
    _WRITERS[to](directory, tensors, config, task)
  logging.info("Wrote %s.", output_dir)


def run(config: ConversionConfig) -> None:
  """Converts a checkpoint, with what stands beside it.

  Raises:
    InputError: the checkpoint cannot be read, the form has no such model, or
      the folder is there already.
  """
  source = checkpoints.open_source(config.input_dir)
  bert_config = checkpoints.config_of(source)
  write_model(
      config.output_dir, config.to, bert_tensors(source, bert_config),
      bert_config, task=checkpoints.read_task(source),
      tokenizer=tokenizer_of(
          source, bert_config, vocab_file=config.vocab_file,
          do_lower_case=config.do_lower_case))
