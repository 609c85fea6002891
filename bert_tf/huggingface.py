"""Hugging Face directories: `config.json` and the weights beside it."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import os
import re
import shutil
import tempfile
from typing import Any

from absl import logging
import numpy as np

from bert_tf import files
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.task_descriptions import huggingface_task
from bert_tf.task_descriptions import to_huggingface_task
from bert_tf.model_source import ModelSource
from bert_tf.model_source import Tensors
from bert_tf.model_source import reading
from bert_tf.model_source import under_our_names
from bert_tf.variable_names import huggingface_h5_name
from bert_tf.variable_names import huggingface_name
from bert_tf.variable_names import to_huggingface_name
from bert_tf.variable_names import turn_huggingface
from bert_tf.variable_names import turn_huggingface_h5

_ACTIVATIONS = {
  "gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu",
  "relu": "relu", "tanh": "tanh", "linear": "linear",
}
# What the encoder computes whatever these say otherwise: so they must agree.
_REQUIRED = {
  "model_type": "bert", "position_embedding_type": "absolute",
  "is_decoder": False, "add_cross_attention": False,
  "layer_norm_eps": 1e-12,
}
# What those that users take for a BERT would need beside it.
_OTHER_ARCHITECTURES = {
  "albert": "an embedding table narrower than the layers, one block that all "
            "layers share, and SentencePiece",
  "camembert": "what RoBERTa needs, with SentencePiece",
  "deberta": "attention that sees relative positions, and byte-level BPE",
  "deberta-v2": "attention that sees relative positions, and SentencePiece",
  "distilbert": "an encoder without segment embeddings and pooler, under "
                "names of its own",
  "electra": "a projection between embeddings and layers, and the head that "
             "tells replaced pieces",
  "mobilebert": "bottlenecks around each block, and stacks of feed-forward "
                "layers",
  "modernbert": "rotary positions, gated feed-forward layers without biases, "
                "and byte-level BPE",
  "mpnet": "buckets of relative positions, and positions that begin at 2",
  "roberta": "positions that begin at 2, one segment type, byte-level BPE, "
             "and no next-sentence head",
  "xlm-roberta": "what RoBERTa needs, with SentencePiece",
}


def _need_of(key: str, value: Any) -> str:
  is_known = key == "model_type" and value in _OTHER_ARCHITECTURES
  return f" It would need {_OTHER_ARCHITECTURES[value]}." if is_known else ""


def huggingface_config(values: dict[str, Any]) -> BertConfig:
  """The config of a Hugging Face `config.json`, where "gelu" is with erf."""
  require(isinstance(values, dict), "must hold a JSON object.")
  for key, needed in _REQUIRED.items():
    require(
        values.get(key, needed) == needed,
        f"{key}: received {values.get(key)!r}; only {needed!r} is BERT as it "
        f"is built here.{_need_of(key, values.get(key))}")
  activation = values.get("hidden_act", "gelu")
  require(
      activation in _ACTIVATIONS,
      f"hidden_act: received {activation!r}; must be one of "
      f"{', '.join(_ACTIVATIONS)}.")
  known = {field.name for field in dataclasses.fields(BertConfig)}
  shape = {key: value for key, value in values.items() if key in known}
  return BertConfig.from_dict(
      {**shape, "hidden_act": _ACTIVATIONS[activation]})


def to_huggingface_config(
    config: BertConfig, *, architecture: str,
    task: dict[str, Any] | None = None
) -> dict[str, Any]:
  """The `config.json` of a model, for a class of Transformers.

  Args:
    config: of the encoder.
    architecture: the class, where the task does not say it.
    task: the content of its `task.json`.

  Raises:
    InputError: Transformers has no such model.
  """
  require(
      not config.is_causal,
      f"attention: is {config.attention!r}, which no BERT of Hugging Face "
      "computes in this way.")
  theirs = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}
  return {
    **config.to_dict(), **_REQUIRED, "architectures": [architecture],
    "hidden_act": theirs[config.hidden_act], "pad_token_id": 0,
    **(to_huggingface_task(task) if task else {}),
  }


# The masked-LM head's own copies, in our names, and what they are copies of.
_COPIES = {
  "cls/predictions/decoder/kernel": "bert/embeddings/word_embeddings",
  "cls/predictions/decoder/bias": "cls/predictions/output_bias",
}


def _import_safetensors(what: str):
  """The optional package; `what` needs it."""
  try:
    import safetensors.numpy
  except ImportError:
    raise InputError(
        f"{what} needs safetensors; install it with "
        "`pip install safetensors`.") from None
  return safetensors


def write_safetensors(path: str, tensors: Tensors) -> None:
  """Writes float32 variables of the original's names, as PyTorch has them.

  Raises:
    InputError: safetensors is not installed.
  """
  _import_safetensors(f"{path}: writing it").numpy.save_file({
    to_huggingface_name(name):
        np.ascontiguousarray(turn_huggingface(name, tensors.read(name)))
    for name in tensors.shapes}, path, {"format": "pt"})


def _safe_open(path: str):
  """The file, opened by safetensors, which reads local files alone.

  A remote one is fetched into a temporary file. It can go at once: what was
  mapped into memory stays.
  """
  safetensors = _import_safetensors(f"{path}: reading it")
  with reading(path, safetensors.SafetensorError, OSError):
    if files.is_local(path):
      return safetensors.safe_open(path, framework="np")
    logging.info("%s: is fetched (%d bytes).", path, files.size(path))
    with tempfile.NamedTemporaryFile() as copy:
      with files.open_file(path, "rb") as file:
        shutil.copyfileobj(file, copy, 1 << 20)
      copy.flush()
      return safetensors.safe_open(copy.name, framework="np")


def _open_safetensors(path: str) -> Tensors:
  file = _safe_open(path)
  shapes = {
    key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
  if not files.is_local(path):
    return Tensors(shapes, file.get_tensor)
  # Opened anew for each: what was read of a mapped file stays in memory.
  return Tensors(shapes, lambda key: _safe_open(path).get_tensor(key))


def _open_shards(path: str) -> Tensors:
  """The files that an index names, as one."""
  index = read_json(path)
  shard_of = index.get("weight_map") if isinstance(index, dict) else None
  require(
      isinstance(shard_of, dict) and bool(shard_of)
      and all(os.path.basename(str(name)) == name
              for name in shard_of.values()),
      f"{path}: must hold an object weight_map, from each variable to the "
      "name of a file beside it.")
  directory = files.directory_of(path)
  shards = {}
  for name in sorted(set(shard_of.values())):
    shard = os.path.join(directory, name)
    require(
        files.exists(shard), f"{shard}: missing, though {path} names it.")
    shards[name] = _open_safetensors(shard)
  missing = [key for key, name in shard_of.items()
             if key not in shards[name].shapes]
  require(
      not missing,
      f"{path}: names variables that are not in their files: "
      f"{', '.join(missing)}.")
  return Tensors(
      {key: shards[name].shapes[key] for key, name in shard_of.items()},
      lambda key: shards[shard_of[key]].read(key))


def _open_h5(path: str) -> Tensors:
  """Every array of an HDF5 file, by its path in there."""
  import h5py
  with reading(path, OSError, RuntimeError):
    file = h5py.File(files.open_file(path, "rb"), "r")
    shapes = {}
    file.visititems(
        lambda name, item: shapes.update({name: item.shape})
        if isinstance(item, h5py.Dataset) else None)
  return Tensors(shapes, lambda name: file[name][()])


def _is_copy(tensors: Tensors, copy: str) -> bool:
  """Whether both are there and hold the same values."""
  if not {copy, _COPIES[copy]} <= tensors.shapes.keys():
    return True
  array, original = tensors.read(copy), tensors.read(_COPIES[copy])
  if copy.endswith("/kernel"):
    array = array.T
  return np.array_equal(array, original)


def _without_copies(tensors: Tensors, *, path: str) -> Tensors:
  """The tensors but for `_COPIES`; a bias that is there alone gets our name.

  Reading a variable of the masked-LM head compares them first, so that an
  encoder alone loads whatever they hold.

  Args:
    tensors: in the original's names.
    path: of their file, for errors.
  """
  copies = [name for name in _COPIES if name in tensors.shapes]
  place = {name: name for name in tensors.shapes if name not in copies}
  for copy in copies:
    place.setdefault(_COPIES[copy], copy)

  @functools.cache
  def check():
    for copy in copies:
      require(
          _is_copy(tensors, copy),
          f"{path}: {copy} differs from {_COPIES[copy]}. The masked-LM head "
          "has one table and one bias here (tie_word_embeddings: true), so "
          "this one cannot be loaded; load_encoder and run_finetuning.py do "
          "without it.")

  def read(name):
    if name.startswith("cls/predictions/"):
      check()
    return tensors.read(place[name])

  return Tensors(
      {name: tensors.shapes[there] for name, there in place.items()}, read)


# The weights' file, what reads it, and how its variables become ours.
_WEIGHTS: tuple[tuple[str, Callable, Callable, Callable], ...] = (
  ("model.safetensors", _open_safetensors, huggingface_name, turn_huggingface),
  ("model.safetensors.index.json", _open_shards, huggingface_name,
   turn_huggingface),
  ("tf_model.h5", _open_h5, huggingface_h5_name, turn_huggingface_h5),
)


def _open_weights(directory: str) -> tuple[str, Tensors]:
  """The weights' file, and what it holds under the original's names."""
  for name, open_tensors, name_of_key, turn in _WEIGHTS:
    path = os.path.join(directory, name)
    if files.exists(path):
      tensors = under_our_names(open_tensors(path), name_of_key, turn)
      return name, _without_copies(tensors, path=path)
  if any(re.fullmatch(r"pytorch_model.*\.bin", name)
         for name in files.list_directory(directory)):
    refuse_pickle(directory)
  raise InputError(
      f"{directory}: has a config.json, but no weights; expected one of "
      f"{', '.join(row[0] for row in _WEIGHTS)}.")


def refuse_pickle(directory: str) -> None:
  """Raises `InputError`: a pickle is a program, and is not run here."""
  raise InputError(
      f"{directory}: has its weights in pytorch_model.bin alone, a pickle, "
      "which is never read here, since reading one runs what it holds. "
      "Convert it in that folder, where PyTorch and safetensors are installed: "
      "python -c \"import glob, torch, safetensors.torch as s; s.save_file({k: "
      "v.clone() for f in glob.glob('pytorch_model*.bin') for k, v in "
      "torch.load(f, map_location='cpu', weights_only=True).items()}, "
      "'model.safetensors', {'format': 'pt'})\"")


@contextlib.contextmanager
def _about(path: str) -> Iterator[None]:
  """Names the file in the errors about its content."""
  try:
    yield
  except InputError as error:
    raise InputError(f"{path}: {error}") from None


def open_huggingface(directory: str) -> ModelSource:
  """A directory as `save_pretrained` of Transformers writes it."""
  config_file = os.path.join(directory, "config.json")
  values = read_json(config_file)
  with _about(config_file):
    config = huggingface_config(values)
  name, tensors = _open_weights(directory)
  with _about(config_file):
    task = huggingface_task(values, tensors.shapes)
  return ModelSource(
      path=directory, form=f"Hugging Face directory ({name})",
      directory=directory, config=config,
      shapes=tensors.shapes, read=tensors.read, task=task)
