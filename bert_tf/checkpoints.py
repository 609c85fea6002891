"""Model directories: where models come from and how they are kept.

A model directory is a release of the original project, or one that looks
like it:

  bert_config.json       the shape of the model; written last, so that a
                         directory that has it is complete
  vocab.txt              the vocabulary, an entry a line
  tokenizer_config.json  {"do_lower_case": true}
  bert_model.ckpt.*      the variables, in the original's names
  task.json              of a fine-tuned model: its task, labels, lengths

`open_source` also takes a checkpoint's prefix, one of tf-models, a Hugging
Face directory, a `.keras` file that `conversion` wrote and a SavedModel that
`export` wrote. Training state (optimizer, step) is kept elsewhere: see
`training`. All of them may be remote, see `files`.
"""

from collections.abc import Iterable
import os
import shutil
import tempfile
from typing import Any
import zipfile

from absl import logging
import keras

from bert_tf import files
from bert_tf.config import BertConfig
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.config import write_text
from bert_tf.heads import BertForPreTraining
from bert_tf.huggingface import open_huggingface
from bert_tf.huggingface import refuse_pickle
from bert_tf.model_source import CONFIG_FILE
from bert_tf.model_source import ModelSource
from bert_tf.model_source import VOCAB_FILE
from bert_tf.model_source import existing
from bert_tf.model_source import newest_version
from bert_tf.model_source import reading
from bert_tf.modeling import BertEncoder
from bert_tf.modeling import BertModel
from bert_tf.tensorflow_checkpoints import open_checkpoint
from bert_tf.tensorflow_checkpoints import open_saved_model
from bert_tf.tensorflow_checkpoints import write_checkpoint
from bert_tf.tokenization import BertTokenizer
from bert_tf.variable_names import NEXT_SENTENCE_POOLER
from bert_tf.variable_names import POOLER
from bert_tf.vocabulary_files import TOKENIZER_CONFIG
from bert_tf.vocabulary_files import TOKENIZER_JSON

TASK_FILE = "task.json"
CHECKPOINT_PREFIX = "bert_model.ckpt"
KERAS_FILE = "model.keras"

# What many checkpoints lack: those of Transformers' BertForMaskedLM and
# BertForTokenClassification the pooler, encoders the heads.
MAY_BE_MISSING = ("bert/pooler/", "cls/")
# What is made of the variables of a prefix.
_OUTPUTS = (
  ("bert/pooler/", "pooled_output"), ("cls/predictions/", "mlm_logits"),
  ("cls/seq_relationship/", "nsp_logits"),
)

# The classifier's variables stand at the root in the original's checkpoints.
_CLASSIFIER_SCOPE = "classifier/"


def checkpoint_names(model: keras.Model) -> dict[str, keras.Variable]:
  """The model's variables under the names of the original's checkpoints."""
  return {
    variable.path.removeprefix(_CLASSIFIER_SCOPE): variable
    for variable in model.weights
  }


def _open_keras(directory: str) -> ModelSource:
  """A directory that `conversion` wrote, with a `.keras` file."""
  path = os.path.join(directory, KERAS_FILE)
  # Unpacked, since Keras would hold the file in memory beside the model.
  with (reading(path, OSError, TypeError, ValueError, zipfile.BadZipFile),
        tempfile.TemporaryDirectory() as folder):
    with files.open_file(path, "rb") as file:
      zipfile.ZipFile(file).extractall(folder)
    model = keras.saving.load_model(folder, compile=False)
  require(
      isinstance(model, BertModel), f"{path}: is not a BERT of this project.")
  variables = checkpoint_names(model)
  return ModelSource(
      path=directory, form=f"Keras file ({KERAS_FILE})", directory=directory,
      config=model.config,
      shapes={name: tuple(v.shape) for name, v in variables.items()},
      read=lambda name: keras.ops.convert_to_numpy(variables[name]))


# The file that shows what a directory is, and what opens it.
_FORMS = (
  (f"{CHECKPOINT_PREFIX}.index", lambda directory: open_checkpoint(
      os.path.join(directory, CHECKPOINT_PREFIX))),
  ("saved_model.pb", open_saved_model),
  ("config.json", open_huggingface),
  (KERAS_FILE, _open_keras),
  ("pytorch_model.bin", refuse_pickle),
)


def open_source(path: str) -> ModelSource:
  """Finds out what a checkpoint's path is, and opens it.

  Args:
    path: a checkpoint's prefix (`.../bert_model.ckpt`), a model directory,
      either with Google's or with tf-models' variables, a Hugging Face
      directory, one with a `.keras` file, a SavedModel or a folder of its
      versions.

  Raises:
    InputError: nothing of the kind is there, or it cannot be read.
  """
  path = os.fspath(path)
  if files.is_local(path):
    path = os.path.normpath(path)  # Of a URL it would take one of "//".
  if files.exists(path + ".index"):
    return open_checkpoint(path)
  require(
      files.is_directory(path),
      f"{path}: neither a checkpoint (no {path}.index) nor a directory. Name a "
      "directory with a model, or a checkpoint without its `.index`, such as "
      f".../{CHECKPOINT_PREFIX}.")
  for name, open_form in _FORMS:
    if files.exists(os.path.join(path, name)):
      return open_form(path)
  newest = newest_version(path)
  require(
      newest is not None,
      f"{path}: holds no model. Expected {CHECKPOINT_PREFIX}.index (a model "
      "directory), config.json with model.safetensors or tf_model.h5 (Hugging "
      f"Face), {KERAS_FILE} or saved_model.pb (an export).")
  return open_source(newest)


def names_there(
    names: Iterable[str], source: ModelSource, *, has_head: bool
) -> dict[str, str]:
  """The source's name of each variable of a model, by the model's name.

  Where the next-sentence head has a pooler of its own, as that of tf-models,
  a model with a head takes that one, as tf-models does it in pretraining and
  in fine-tuning; an encoder alone takes the encoder's, if it has one.
  """
  there = {name: name for name in names}
  for name in there:
    own = name.replace(POOLER, NEXT_SENTENCE_POOLER)
    if own in source.shapes and (has_head or name not in source.shapes):
      there[name] = own
  return there


def match(
    shapes: dict[str, tuple[int, ...]], source: ModelSource, *,
    has_head: bool, new: tuple[str, ...] = ()
) -> dict[str, str]:
  """`names_there` of what a model takes from a source.

  Args:
    shapes: of the model's variables, by name.
    source: where the values are.
    has_head: whether there is more than an encoder.
    new: prefixes of names that may be missing there; then they are left out.

  Raises:
    InputError: variables are missing or have another shape; all are listed.
  """
  wrong, found = [], {}
  for name, there in names_there(shapes, source, has_head=has_head).items():
    shape = source.shapes.get(there)
    if shape is None:
      if not name.startswith(new):
        wrong.append(f"{name}: missing")
    elif shape != shapes[name]:
      wrong.append(f"{name}: {shape} there, {shapes[name]} here")
    else:
      found[name] = there
  require(
      not wrong,
      f"{source.path}: does not fit the model: {'; '.join(wrong)}.")
  return found


def load_weights(
    model: keras.Model, source: ModelSource, *, new: tuple[str, ...] = ()
) -> list[str]:
  """Loads all variables of the model from a source, by `names_there`.

  Args:
    model: a built model.
    source: where the values are.
    new: prefixes of names that may be missing there and stay as initialized.

  Returns:
    The names of those that were missing.

  Raises:
    InputError: variables are missing or have another shape; all are listed.
  """
  variables = checkpoint_names(model)
  found = match(
      {name: tuple(variable.shape) for name, variable in variables.items()},
      source, has_head=not isinstance(model, BertEncoder), new=new)
  for name, there in found.items():
    variables[name].assign(source.read(there))
  logging.info(
      "Loaded %d variables from the %s %s.", len(found), source.form,
      source.path)
  fresh = [name for name in variables if name not in found]
  if fresh:
    logging.info("Not there, so initialized: %s.", ", ".join(fresh))
  return fresh


def load_finetuned(model: BertModel, source: ModelSource) -> None:
  """`load_weights` of a model with the head of a task.

  The pooler may be missing where that head does not read it, as in those of
  Transformers' BertForTokenClassification and BertForQuestionAnswering.

  Raises:
    InputError: others are missing, or have another shape; all are listed.
  """
  load_weights(
      model, source, new=() if model.reads_pooler else ("bert/pooler/",))


def load_pretrained(model: keras.Model, source: ModelSource) -> list[str]:
  """`load_weights` of an encoder, alone or with the pretraining heads.

  The pooler and the heads may be missing, as with Transformers: they stay as
  initialized, and a warning names them.

  Returns:
    The names of those that were missing.

  Raises:
    InputError: variables of the encoder are missing, or any have another
      shape; all are listed.
  """
  fresh = load_weights(model, source, new=MAY_BE_MISSING)
  if fresh:
    logging.warning(
        "%s: lacks %s. They are initialized at random: train them before you "
        "use %s.", source.path, ", ".join(fresh), ", ".join(
            output for prefix, output in _OUTPUTS
            if any(name.startswith(prefix) for name in fresh)))
  return fresh


def config_of(source: ModelSource) -> BertConfig:
  """The config of a source, which must have one."""
  require(
      source.config is not None,
      f"{source.path}: has no {CONFIG_FILE} beside it.")
  return source.config


def load_encoder(path: str) -> BertEncoder:
  """The encoder of any path that `open_source` takes, with its pooler.

  A pooler that is missing there is initialized, and a warning says so.

  Raises:
    InputError: nothing of the kind is there, or it does not fit its config.
  """
  source = open_source(path)
  encoder = BertEncoder(config_of(source))
  load_pretrained(encoder, source)
  return encoder


def load_pretraining_model(path: str) -> BertForPreTraining:
  """The encoder with both pretraining heads.

  The heads and the pooler are initialized where they are missing, and a
  warning names them.

  Raises:
    InputError: nothing of the kind is there, or it does not fit its config.
  """
  source = open_source(path)
  model = BertForPreTraining(config_of(source))
  load_pretrained(model, source)
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
    vocab_file = existing(
        os.path.join(files.directory_of(config_file), VOCAB_FILE))
  require(
      bool(vocab_file),
      f"Found no {VOCAB_FILE} beside "
      f"{source.path if source else config_file}, and no {TOKENIZER_JSON}; "
      "name one with --vocab_file.")
  tokenizer = BertTokenizer.from_file(vocab_file, do_lower_case=do_lower_case)
  require(
      tokenizer.vocab_size == config.vocab_size,
      f"{vocab_file}: has {tokenizer.vocab_size} entries, but vocab_size in "
      f"the model config is {config.vocab_size}; they must be equal.")
  return tokenizer


def load_tokenizer(
    path: str, *, do_lower_case: bool | None = None
) -> BertTokenizer:
  """The tokenizer of any path that `open_source` takes.

  `do_lower_case` None asks what stands beside the vocabulary, then the
  vocabulary itself.

  Raises:
    InputError: as `find_tokenizer`, and as `find_casing` where it is None.
  """
  source = open_source(path)
  return find_tokenizer(
      source, config_of(source), do_lower_case=do_lower_case)


def write_tokenizer(directory: str, tokenizer: BertTokenizer) -> None:
  """Writes the vocabulary and, beside it, its casing."""
  write_text(
      os.path.join(directory, VOCAB_FILE),
      "".join(f"{entry}\n" for entry in tokenizer.vocabulary))
  write_json(
      os.path.join(directory, TOKENIZER_CONFIG),
      {"do_lower_case": tokenizer.do_lower_case})


def read_task(source: ModelSource) -> dict[str, Any] | None:
  """The description of a fine-tuned model; None of a pretrained one.

  From `task.json`, or else from the `config.json` of Hugging Face.

  Raises:
    InputError: the file is there, but is no description.
  """
  path = os.path.join(source.directory, TASK_FILE)
  if not files.exists(path):
    return source.task
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
  write_tokenizer(directory, tokenizer)
  if task is not None:
    write_json(os.path.join(directory, TASK_FILE), task)
  write_json(os.path.join(directory, CONFIG_FILE), config.to_dict())


def _begin_model(directory: str) -> None:
  """Makes the folder, or takes the config out of it: it is not complete."""
  files.make_directories(directory)
  config_file = os.path.join(directory, CONFIG_FILE)
  if files.exists(config_file):
    files.remove(config_file)


def save_model(
    directory: str, model: keras.Model, tokenizer: BertTokenizer,
    *, task: dict[str, Any] | None = None
) -> None:
  """Writes a model directory; `task` becomes `task.json`.

  The config is removed first and written last: a directory that was left
  half-written has none.
  """
  _begin_model(directory)
  variables = checkpoint_names(model)
  write_checkpoint(
      os.path.join(directory, CHECKPOINT_PREFIX), list(variables),
      lambda name: variables[name].value)
  save_model_files(directory, model.config, tokenizer, task=task)


def copy_model(source: str, target: str) -> None:
  """Copies a model directory that `save_model` wrote, the config last."""
  _begin_model(target)
  names = [
    name for name in files.list_directory(source)
    if name in (VOCAB_FILE, TOKENIZER_CONFIG, TASK_FILE)
    or name.startswith(f"{CHECKPOINT_PREFIX}.")]
  for name in [*names, CONFIG_FILE]:
    with (files.replacing(os.path.join(target, name)) as temporary,
          files.open_file(os.path.join(source, name), "rb") as file,
          files.open_file(temporary, "wb") as copy):
      shutil.copyfileobj(file, copy, 1 << 20)
