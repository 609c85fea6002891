"""A checkpoint that was found, in one form for all formats.

What reads a format gives `Tensors` under the names of that format; under the
original's names they are part of a `ModelSource`.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
from typing import Any
from typing import NamedTuple

import numpy as np

from bert_tf import files
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.errors import one_line
from bert_tf.vocabulary_files import TOKENIZER_JSON

CONFIG_FILE = "bert_config.json"
VOCAB_FILE = "vocab.txt"

# How the small text file begins that git keeps in place of a large one.
_GIT_LFS = b"version https://git-lfs.github.com/"


class Tensors(NamedTuple):
  """Named arrays that are read one by one: `read(name)` gives one."""

  shapes: dict[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSource:
  """A checkpoint that was found.

  Names are the original's. `read(name)` gives a float array; `directory` is
  where the files beside the variables lie. `task` is what the form itself
  tells of a fine-tuned model, as `task.json` would.
  """

  path: str
  form: str
  directory: str
  config: BertConfig | None
  shapes: dict[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]
  task: dict[str, Any] | None = None

  @property
  def vocab_file(self) -> str | None:
    """The vocabulary in the directory, if there is one."""
    return next(filter(None, (
      existing(os.path.join(self.directory, name))
      for name in (VOCAB_FILE, TOKENIZER_JSON))), None)


def existing(path: str) -> str | None:
  """The path, or None if nothing is there."""
  return path if files.exists(path) else None


def newest_version(directory: str) -> str | None:
  """The folder of the highest number in it, as of exports, or None."""
  versions = [
    int(name) for name in files.list_directory(directory)
    if name.isdecimal()]
  return os.path.join(directory, str(max(versions))) if versions else None


def require_weights(path: str) -> None:
  """Raises `InputError` if the file is git-lfs's pointer to the weights."""
  with files.open_file(path, "rb") as file:
    is_pointer = file.read(len(_GIT_LFS)) == _GIT_LFS
  require(
      not is_pointer,
      f"{path}: is a git-lfs pointer ({files.size(path)} bytes), not the "
      "weights; fetch them with `git lfs pull` in that repository, or "
      "download the file itself.")


@contextlib.contextmanager
def reading(path: str, *errors: type[Exception]) -> Iterator[None]:
  """Around what opens a file of weights by another library.

  Raises:
    InputError: one of these errors came up in there, or the file is git-lfs's
      pointer.
  """
  require_weights(path)
  try:
    yield
  except errors as error:
    raise InputError(
        f"{path}: cannot be read: {one_line(error)}. Is the file whole?"
    ) from None


def under_our_names(
    tensors: Tensors, name_of_key: Callable[[str], str],
    turn: Callable[[str, np.ndarray], np.ndarray]
) -> Tensors:
  """Tensors by the original's names, as the original has them.

  Of keys that mean the same variable the first is read.

  Args:
    tensors: in the names of another form.
    name_of_key: from its names to the original's.
    turn: (the original's name, an array) -> the array.
  """
  keys, shapes = {}, {}
  for key, shape in tensors.shapes.items():
    name = name_of_key(key)
    if name not in keys:
      keys[name] = key
      # No more than a number in memory, whatever the shape.
      shapes[name] = turn(name, np.broadcast_to(np.float32(0), shape)).shape
  return Tensors(shapes, lambda name: turn(name, tensors.read(keys[name])))
