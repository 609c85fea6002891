"""TensorFlow's checkpoints: Google's, tf-models' and those in SavedModels."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
import os
from typing import Any

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf import files
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.errors import one_line
from bert_tf.model_source import CONFIG_FILE
from bert_tf.model_source import ModelSource
from bert_tf.model_source import Tensors
from bert_tf.model_source import existing
from bert_tf.model_source import require_weights
from bert_tf.model_source import under_our_names
from bert_tf.variable_names import tf_models_name
from bert_tf.variable_names import turn_tf_models

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# How the names of scales end, which int8 exports have beside their matrices.
_SCALE = "_scale"
_TYPE_TABLE = "bert/embeddings/token_type_embeddings"


def open_reader(prefix: str):
  """What reads a TensorFlow checkpoint: its shapes, its tensors.

  `tf.train.load_checkpoint` would first ask whether the prefix is a folder,
  which not every file system answers well (`ram://` says yes).

  Raises:
    tf.errors.OpError: the files are not there, or not whole.
  """
  return tf.compat.v1.train.NewCheckpointReader(prefix)


def _warn_if_cut(prefix: str, reader, data_files: list[str]) -> None:
  """Warns where the data is shorter than all numbers of the index.

  Each value is checked when it is read, and those in front of the cut are
  good: so a cut in what a model does not take is no error.
  """
  types, shapes = (
    reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map())
  needed = sum(
      math.prod(shapes[name]) * kind.size for name, kind in types.items()
      if kind != tf.string)
  there = sum(files.size(path) for path in data_files)
  if there < needed:
    logging.warning(
        "%s: its data files have %d bytes, its index needs %d or more: they "
        "are cut. Copy them again.", prefix, there, needed)


def _open_checkpoint(prefix: str) -> Tensors:
  """The variables of a checkpoint, under the names that stand there.

  A checkpoint that is cut opens, with a warning; reading what is not there
  any more is an error.
  """
  directory, start = files.directory_of(prefix), os.path.basename(prefix)
  data_files = []
  for name in sorted(files.list_directory(directory or os.curdir)):
    path = os.path.join(directory, name)
    if name.startswith(f"{start}.data-"):
      data_files.append(path)
    if name == f"{start}.index" or path in data_files:
      require_weights(path)
  try:
    reader = open_reader(prefix)
  except tf.errors.OpError as error:
    raise InputError(f"{prefix}: cannot be read as a checkpoint: "
                     f"{one_line(error)}.") from None

  _warn_if_cut(prefix, reader, data_files)

  def read(name):
    try:
      return reader.get_tensor(name)
    except (tf.errors.OpError, IndexError) as error:
      raise InputError(
          f"{prefix}: {name} cannot be read: {one_line(error)}. Is the file "
          "whole?") from None

  shapes = reader.get_variable_to_shape_map()
  return Tensors(
      {name: tuple(shapes[name]) for name in sorted(shapes)}, read)


def object_name(key: str, *, root: str) -> str | None:
  """The variable that a key of an object-based checkpoint means.

  Of those kept under the attribute `root`, or of all if it is ""; None of
  others.

  >>> object_name("w/a.Sb/.ATTRIBUTES/VARIABLE_VALUE", root="w")
  'a/b'
  """
  prefix, suffix = root and f"{root}/", "/.ATTRIBUTES/VARIABLE_VALUE"
  if not (key.startswith(prefix) and key.endswith(suffix)):
    return None
  return key[len(prefix):-len(suffix)].replace(".S", "/").replace("..", ".")


def _objects(
    tensors: Tensors, *, root: str,
    rename: Callable[[str], str] = lambda name: name,
    turn: Callable[[str, Any], Any] = lambda name, array: array
) -> Tensors:
  """The variables under `root` of an object-based checkpoint."""
  shapes = {
    key: shape for key, shape in tensors.shapes.items()
    if object_name(key, root=root)}
  return under_our_names(
      Tensors(shapes, tensors.read),
      lambda key: rename(object_name(key, root=root)), turn)


def _config_in(directory: str) -> BertConfig | None:
  path = existing(os.path.join(directory, CONFIG_FILE))
  return BertConfig.from_json_file(path) if path else None


def _tf_models_config(
    config: BertConfig | None, tensors: Tensors
) -> BertConfig | None:
  """The config, with as many segment types as the table has.

  The encoders of tf-models have 16 unless they are told otherwise, whatever
  the `bert_config.json` beside them says.
  """
  table = tensors.shapes.get(_TYPE_TABLE)
  if config is None or table is None or table[0] == config.type_vocab_size:
    return config
  logging.info(
      "%s has %d rows, more than the type_vocab_size of %d: all are kept.",
      _TYPE_TABLE, table[0], config.type_vocab_size)
  return dataclasses.replace(config, type_vocab_size=table[0])


def open_checkpoint(prefix: str) -> ModelSource:
  """A checkpoint in the original's names, or an object-based of tf-models."""
  directory = files.directory_of(prefix)
  config, tensors = _config_in(directory), _open_checkpoint(prefix)
  form = "checkpoint"
  if _OBJECT_GRAPH in tensors.shapes:
    form = "tf-models checkpoint"
    keys = ", ".join(list(tensors.shapes)[1:4])  # After the object graph.
    tensors = _objects(
        tensors, root="", rename=tf_models_name, turn=turn_tf_models)
    require(
        any(name.startswith("bert/encoder/") for name in tensors.shapes),
        f"{prefix}: is an object-based checkpoint, but its keys are not those "
        "of tf-models' BertPretrainerV2 (encoder/_transformer_layers/...) or "
        f"of an encoder alone (model/layer_with_weights-4/...): {keys}, ... "
        "Where the encoder is a layer of another model, save it alone there: "
        "tf.train.Checkpoint(model=encoder).write(...).")
    config = _tf_models_config(config, tensors)
  return ModelSource(
      path=prefix, form=form, directory=directory, config=config,
      shapes=tensors.shapes, read=tensors.read)


def open_saved_model(directory: str) -> ModelSource:
  """A SavedModel that this project exported, but none in int8 or frozen.

  What is in bfloat16 there is read as float32.
  """
  tensors = _objects(
      _open_checkpoint(os.path.join(directory, "variables", "variables")),
      root="weights",
      turn=lambda name, array: np.asarray(array, np.float32))
  assets = os.path.join(directory, "assets")
  config = _config_in(assets)
  require(
      bool(tensors.shapes) and config is not None,
      f"{directory}: is a SavedModel, but not one that "
      "tools/export_saved_model.py wrote.")
  require(
      not any(name.endswith(_SCALE) for name in tensors.shapes),
      f"{directory}: is an export with --precision=int8, which is rounded "
      "for serving and does not come back; give the model directory that it "
      "was made of.")
  require(
      any(name.startswith("bert/encoder/") for name in tensors.shapes),
      f"{directory}: is an export with --freeze_graph, whose weights are "
      "constants of its graph; give the model directory that it was made of.")
  return ModelSource(
      path=directory, form="SavedModel", directory=assets, config=config,
      shapes=tensors.shapes, read=tensors.read)


def write_checkpoint(
    prefix: str, names: Sequence[str], read: Callable[[str], Any]
) -> None:
  """A name-based checkpoint: written beside its place, then renamed.

  Args:
    prefix: the path of its files, without what these add.
    names: of the variables.
    read: gives a variable's value.
  """
  temporary = f"{prefix}.tmp-{os.getpid()}"
  tensors = []
  for name in names:
    tensors.append(tf.convert_to_tensor(read(name)))
    # TensorFlow lets go of an array that it has copied when it is next asked
    # for a value: without this there would be two of each.
    tf.zeros(()).numpy()
  tf.raw_ops.SaveV2(
      prefix=temporary, tensor_names=list(names),
      shape_and_slices=[""] * len(names), tensors=tensors)
  for suffix in (".data-00000-of-00001", ".index"):
    files.rename(temporary + suffix, prefix + suffix)
