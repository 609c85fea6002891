"""Model directories: where models come from and how they are kept.

A model directory is a release of the original project, or one that looks
like it:

  bert_config.json       the shape of the model; written last, so that a
                         directory that has it is complete
  vocab.txt              the vocabulary, an entry a line
  tokenizer_config.json  {"do_lower_case": true}
  bert_model.ckpt.*      the variables, in the original's names
  task.json              of a fine-tuned model: its task, labels, lengths

`open_source` also takes a checkpoint's prefix, a Hugging Face directory and
a SavedModel that this project exported. Training state (optimizer, step) is
kept elsewhere: see `training`. All of them may be remote, see `files`.
"""

import dataclasses
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from absl import logging
import keras
import numpy as np
import tensorflow as tf

from bert_tf import files
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.config import write_text
from bert_tf.heads import BertForPreTraining
from bert_tf.modeling import BertEncoder
from bert_tf.tokenization import BertTokenizer
from bert_tf.vocabulary_files import TOKENIZER_CONFIG

CONFIG_FILE = "bert_config.json"
VOCAB_FILE = "vocab.txt"
TASK_FILE = "task.json"
CHECKPOINT_PREFIX = "bert_model.ckpt"

# The classifier's variables stand at the root in the original's checkpoints.
_CLASSIFIER_SCOPE = "classifier/"

# Hugging Face's names for the parts of a variable's name, longest first.
_HUGGINGFACE_NAMES = (
  ("cls.predictions.bias", "cls.predictions.output_bias"),
  ("cls.seq_relationship.weight", "cls.seq_relationship.output_weights"),
  ("cls.seq_relationship.bias", "cls.seq_relationship.output_bias"),
  ("classifier.weight", "output_weights"),
  ("classifier.bias", "output_bias"),
  ("LayerNorm.weight", "LayerNorm.gamma"),
  ("LayerNorm.bias", "LayerNorm.beta"),
  ("embeddings.weight", "embeddings"),
  ("encoder.layer.", "encoder.layer_"),
)
_HUGGINGFACE_ACTIVATIONS = {
  "gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu",
  "relu": "relu",
}
# What the encoder computes whatever these say otherwise: so they must agree.
_HUGGINGFACE_REQUIRED = {
  "model_type": "bert", "position_embedding_type": "absolute",
  "is_decoder": False, "add_cross_attention": False,
  "layer_norm_eps": 1e-12,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSource:
  """A checkpoint that was found, in one form for all formats.

  Names are the original's. `read(name)` gives a float array; `directory` is
  where the files beside the variables lie.
  """

  path: str
  form: str
  directory: str
  config: BertConfig | None
  vocab_file: str | None
  shapes: dict[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]


def _existing(path: str) -> str | None:
  return path if files.exists(path) else None


def _config_in(directory: str) -> BertConfig | None:
  path = _existing(os.path.join(directory, CONFIG_FILE))
  return BertConfig.from_json_file(path) if path else None


def open_reader(prefix: str):
  """What reads a TensorFlow checkpoint: its shapes, its tensors.

  `tf.train.load_checkpoint` would first ask whether the prefix is a folder,
  which not every file system answers well (`ram://` says yes).

  Raises:
    tf.errors.OpError: the files are not there, or not whole.
  """
  return tf.compat.v1.train.NewCheckpointReader(prefix)


def _open_checkpoint(prefix: str, *, name_of_key: Callable[[str], str] = None):
  """(shapes, read) of a TensorFlow checkpoint, by variable name."""
  try:
    reader = open_reader(prefix)
  except tf.errors.OpError as error:
    raise InputError(f"{prefix}: cannot be read as a checkpoint: "
                     f"{error}") from None
  shapes = reader.get_variable_to_shape_map()
  keys = {(name_of_key(key) if name_of_key else key): key for key in shapes}
  keys.pop(None, None)

  def read(name):
    try:
      return reader.get_tensor(keys[name])
    except (tf.errors.OpError, IndexError) as error:
      raise InputError(
          f"{prefix}: {name} cannot be read: {error}. Is the file whole?"
      ) from None

  return {name: tuple(shapes[key]) for name, key in keys.items()}, read


def _open_google(prefix: str) -> ModelSource:
  directory = files.directory_of(prefix)
  shapes, read = _open_checkpoint(prefix)
  return ModelSource(
      path=prefix, form="checkpoint", directory=directory,
      config=_config_in(directory),
      vocab_file=_existing(os.path.join(directory, VOCAB_FILE)),
      shapes=shapes, read=read)


def object_name(key: str, *, root: str) -> str | None:
  """The variable that a key of an object-based checkpoint means.

  Of those kept in a dict under the attribute `root`; None of others.

  >>> object_name("w/a.Sb/.ATTRIBUTES/VARIABLE_VALUE", root="w")
  'a/b'
  """
  prefix, suffix = f"{root}/", "/.ATTRIBUTES/VARIABLE_VALUE"
  if not (key.startswith(prefix) and key.endswith(suffix)):
    return None
  return key[len(prefix):-len(suffix)].replace(".S", "/").replace("..", ".")


def _open_saved_model(directory: str) -> ModelSource:
  shapes, read = _open_checkpoint(
      os.path.join(directory, "variables", "variables"),
      name_of_key=functools.partial(object_name, root="weights"))
  assets = os.path.join(directory, "assets")
  require(
      bool(shapes) and _config_in(assets) is not None,
      f"{directory}: is a SavedModel, but not one that "
      "tools/export_saved_model.py wrote.")
  return ModelSource(
      path=directory, form="SavedModel", directory=assets,
      config=_config_in(assets),
      vocab_file=_existing(os.path.join(assets, VOCAB_FILE)),
      shapes=shapes, read=read)


def huggingface_name(name: str) -> str:
  """The original's name of a Hugging Face variable.

  >>> huggingface_name("encoder.layer.0.attention.self.query.weight")
  'bert/encoder/layer_0/attention/self/query/kernel'
  """
  if name.startswith(("embeddings.", "encoder.", "pooler.")):
    name = f"bert.{name}"
  for theirs, ours in _HUGGINGFACE_NAMES:
    name = name.replace(theirs, ours)
  if name.endswith(".weight"):
    name = name.removesuffix("weight") + "kernel"
  return name.replace(".", "/")


def huggingface_config(values: dict[str, Any]) -> BertConfig:
  """The config of a Hugging Face `config.json`, where "gelu" is with erf."""
  for key, needed in _HUGGINGFACE_REQUIRED.items():
    require(
        values.get(key, needed) == needed,
        f"{key}: received {values.get(key)!r}; only {needed!r} is BERT as it "
        "is built here.")
  activation = values.get("hidden_act", "gelu")
  require(
      activation in _HUGGINGFACE_ACTIVATIONS,
      f"hidden_act: received {activation!r}; must be one of "
      f"{', '.join(_HUGGINGFACE_ACTIVATIONS)}.")
  known = {field.name for field in dataclasses.fields(BertConfig)}
  shape = {key: value for key, value in values.items() if key in known}
  return BertConfig.from_dict(
      {**shape, "hidden_act": _HUGGINGFACE_ACTIVATIONS[activation]})


def _open_safetensors(path: str):
  """The file, opened by safetensors, which reads local files alone.

  A remote one is fetched into a temporary file. It can go at once: what was
  mapped into memory stays.
  """
  from safetensors import safe_open
  if files.is_local(path):
    return safe_open(path, framework="np")
  logging.info("%s: is fetched (%d bytes).", path, files.size(path))
  with tempfile.NamedTemporaryFile() as copy:
    with files.open_file(path, "rb") as file:
      shutil.copyfileobj(file, copy, 1 << 20)
    copy.flush()
    return safe_open(copy.name, framework="np")


def _open_huggingface(directory: str) -> ModelSource:
  weights = os.path.join(directory, "model.safetensors")
  require(
      files.exists(weights),
      f"{directory}: has a config.json, but no model.safetensors.")
  try:
    from safetensors import SafetensorError
  except ImportError:
    raise InputError(
        f"{weights}: reading it needs safetensors; install it with "
        "`pip install safetensors`.") from None
  try:
    file = _open_safetensors(weights)
  except (SafetensorError, OSError) as error:
    raise InputError(
        f"{weights}: cannot be read: {error}. Is the file whole?") from None
  keys = {huggingface_name(key): key for key in file.keys()}

  def read(name):
    value = file.get_tensor(keys[name])
    return value.T if name.endswith("/kernel") else value

  shapes = {}
  for name, key in keys.items():
    shape = tuple(file.get_slice(key).get_shape())
    shapes[name] = shape[::-1] if name.endswith("/kernel") else shape
  config_file = os.path.join(directory, "config.json")
  try:
    config = huggingface_config(read_json(config_file))
  except InputError as error:
    raise InputError(f"{config_file}: {error}") from None
  return ModelSource(
      path=directory, form="Hugging Face directory", directory=directory,
      config=config,
      vocab_file=_existing(os.path.join(directory, VOCAB_FILE)),
      shapes=shapes, read=read)


def open_source(path: str) -> ModelSource:
  """Finds out what a checkpoint's path is, and opens it.

  Args:
    path: a checkpoint's prefix (`.../bert_model.ckpt`), a model directory, a
      Hugging Face directory, a SavedModel or a folder of its versions.

  Raises:
    InputError: nothing of the kind is there, or it cannot be read.
  """
  path = os.fspath(path)
  if files.is_local(path):
    path = os.path.normpath(path)  # Of a URL it would take one of "//".
  if files.exists(path + ".index"):
    return _open_google(path)
  require(
      files.is_directory(path),
      f"{path}: neither a checkpoint (no {path}.index) nor a directory.")
  if files.exists(os.path.join(path, CHECKPOINT_PREFIX + ".index")):
    return _open_google(os.path.join(path, CHECKPOINT_PREFIX))
  if files.exists(os.path.join(path, "saved_model.pb")):
    return _open_saved_model(path)
  if files.exists(os.path.join(path, "config.json")):
    return _open_huggingface(path)
  versions = [
    int(name) for name in files.list_directory(path) if name.isdecimal()]
  require(
      bool(versions),
      f"{path}: holds no model. Expected {CHECKPOINT_PREFIX}.index (a model "
      "directory), config.json with model.safetensors (Hugging Face) or "
      "saved_model.pb (an export).")
  return open_source(os.path.join(path, str(max(versions))))


def checkpoint_names(model: keras.Model) -> dict[str, keras.Variable]:
  """The model's variables under the names of the original's checkpoints."""
  return {
    variable.path.removeprefix(_CLASSIFIER_SCOPE): variable
    for variable in model.weights
  }


def load_weights(
    model: keras.Model, source: ModelSource, *, new: tuple[str, ...] = ()
) -> None:
  """Loads all variables of the model from a source, by name.

  Args:
    model: a built model.
    source: where the values are.
    new: prefixes of names that may be missing there and stay as initialized.

  Raises:
    InputError: variables are missing or have another shape; all are listed.
  """
  variables = checkpoint_names(model)
  wrong, fresh, loaded = [], [], []
  for name, variable in variables.items():
    shape = source.shapes.get(name)
    if shape is None and name.startswith(new or ("\0",)):
      fresh.append(name)
    elif shape is None:
      wrong.append(f"{name}: missing")
    elif shape != tuple(variable.shape):
      wrong.append(f"{name}: {shape} there, {tuple(variable.shape)} here")
    else:
      loaded.append(name)
  require(
      not wrong,
      f"{source.path}: does not fit the model: {'; '.join(wrong)}.")
  for name in loaded:
    variables[name].assign(source.read(name))
  logging.info(
      "Loaded %d variables from the %s %s.", len(loaded), source.form,
      source.path)
  if fresh:
    logging.info("Not there, so initialized: %s.", ", ".join(fresh))


def config_of(source: ModelSource) -> BertConfig:
  """The config of a source, which must have one."""
  require(
      source.config is not None,
      f"{source.path}: has no {CONFIG_FILE} beside it.")
  return source.config


def load_encoder(path: str) -> BertEncoder:
  """The encoder of any path that `open_source` takes, with its pooler."""
  source = open_source(path)
  encoder = BertEncoder(config_of(source))
  load_weights(encoder, source)
  return encoder


def load_pretraining_model(path: str) -> BertForPreTraining:
  """The encoder with both pretraining heads; they must be there."""
  source = open_source(path)
  model = BertForPreTraining(config_of(source))
  load_weights(model, source)
  return model


def find_config(
    source: ModelSource | None, *, config_file: str | None,
    max_seq_length: int
) -> BertConfig:
  """The config of a file, or else that of the source.

  Raises:
    InputError: neither has one, or it has too few positions.
  """
  config = source and source.config
  if config_file:
    config = BertConfig.from_json_file(config_file)
  require(
      config is not None,
      f"{source and source.path}: has no {CONFIG_FILE} beside it; name one "
      "with --bert_config_file.")
  require(
      max_seq_length <= config.max_position_embeddings,
      f"--max_seq_length: received {max_seq_length}; the model has "
      f"{config.max_position_embeddings} positions.")
  return config


def find_tokenizer(
    source: ModelSource | None, config: BertConfig, *,
    vocab_file: str | None = None, do_lower_case: bool | None = None,
    config_file: str | None = None
) -> BertTokenizer:
  """The tokenizer of a model; a file and a casing given here win.

  Else the vocabulary is that of the source, or the one beside `config_file`.

  Raises:
    InputError: there is no vocabulary, or it does not fit the config.
  """
  vocab_file = vocab_file or (source and source.vocab_file)
  if not vocab_file and config_file:
    vocab_file = _existing(
        os.path.join(files.directory_of(config_file), VOCAB_FILE))
  require(
      bool(vocab_file),
      f"Found no {VOCAB_FILE} beside "
      f"{source.path if source else config_file}; name one with "
      "--vocab_file.")
  tokenizer = BertTokenizer.from_file(vocab_file, do_lower_case=do_lower_case)
  require(
      tokenizer.vocab_size == config.vocab_size,
      f"{vocab_file}: has {tokenizer.vocab_size} entries, but vocab_size in "
      f"the model config is {config.vocab_size}; they must be equal.")
  return tokenizer


def load_tokenizer(path: str) -> BertTokenizer:
  """The tokenizer of any path that `open_source` takes."""
  source = open_source(path)
  return find_tokenizer(source, config_of(source))


def _write_checkpoint(prefix: str, values: dict[str, Any]) -> None:
  """A name-based checkpoint: written beside its place, then renamed."""
  temporary = f"{prefix}.tmp-{os.getpid()}"
  tf.raw_ops.SaveV2(
      prefix=temporary, tensor_names=list(values),
      shape_and_slices=[""] * len(values),
      tensors=[tf.convert_to_tensor(value) for value in values.values()])
  for suffix in (".data-00000-of-00001", ".index"):
    files.rename(temporary + suffix, prefix + suffix)


def _write_tokenizer(directory: str, tokenizer: BertTokenizer) -> None:
  write_text(
      os.path.join(directory, VOCAB_FILE),
      "".join(f"{entry}\n" for entry in tokenizer.vocabulary))
  write_json(
      os.path.join(directory, TOKENIZER_CONFIG),
      {"do_lower_case": tokenizer.do_lower_case})


def read_task(source: ModelSource) -> dict[str, Any] | None:
  """The description of a fine-tuned model; None of a pretrained one.

  Raises:
    InputError: the file is there, but is no description.
  """
  path = os.path.join(source.directory, TASK_FILE)
  if not files.exists(path):
    return None
  task = read_json(path)
  require(
      isinstance(task, dict) and isinstance(task.get("task_name"), str)
      and isinstance(task.get("max_seq_length"), int),
      f"{path}: must hold an object with task_name and max_seq_length, as "
      "run_finetuning.py writes it.")
  return task


def save_model_files(
    directory: str, config: BertConfig, tokenizer: BertTokenizer, *,
    task: dict[str, Any] | None = None
) -> None:
  """Writes what stands beside the variables; the config is the last."""
  files.make_directories(directory)
  _write_tokenizer(directory, tokenizer)
  if task is not None:
    write_json(os.path.join(directory, TASK_FILE), task)
  write_json(os.path.join(directory, CONFIG_FILE), config.to_dict())


def save_model(
    directory: str, model: keras.Model, tokenizer: BertTokenizer,
    *, task: dict[str, Any] | None = None
) -> None:
  """Writes a model directory; `task` becomes `task.json`.

  The config is removed first and written last: a directory that was left
  half-written has none.
  """
  files.make_directories(directory)
  config_file = os.path.join(directory, CONFIG_FILE)
  if files.exists(config_file):
    files.remove(config_file)
  _write_checkpoint(
      os.path.join(directory, CHECKPOINT_PREFIX),
      {name: variable.value
       for name, variable in checkpoint_names(model).items()})
  save_model_files(directory, model.config, tokenizer, task=task)
