"""Files, whether on this machine or where a URL says: `gs://bucket/name`.

A local path goes to the standard library. One with a scheme goes to
`tf.io.gfile`, and TensorFlow is imported for it there; what fails raises the
`OSError` that a local path would raise, so that callers know one kind.
`os.path.join` and `os.path.basename` are right for both.
"""

from collections.abc import Iterator
import contextlib
import errno
import glob as local_glob
import io
import os
from typing import IO

from bert_tf.errors import InputError
from bert_tf.errors import one_line
from bert_tf.errors import require

_BUFFER = 1 << 20  # Bytes, of a remote file: each request takes its time.

_ERROR_NUMBERS = {
  "NotFoundError": errno.ENOENT, "AlreadyExistsError": errno.EEXIST,
  "PermissionDeniedError": errno.EACCES, "UnauthenticatedError": errno.EACCES,
}


def is_local(path: str | os.PathLike) -> bool:
  """Whether a path has no scheme.

  >>> is_local("data/train.tfrecord"), is_local("gs://data/train.tfrecord")
  (True, False)
  """
  return "://" not in os.fspath(path)


@contextlib.contextmanager
def _gfile(path: str) -> Iterator:
  """Yields `tf.io.gfile`, whose errors become those of the standard library.

  Raises:
    InputError: this TensorFlow knows no such scheme.
  """
  import tensorflow as tf
  scheme = os.fspath(path).partition("://")[0]
  known = sorted(filter(None, tf.io.gfile.get_registered_schemes()))
  require(
      scheme in known,
      f"{path}: this TensorFlow has no file system for {scheme}://, only for "
      f"{', '.join(f'{name}://' for name in known)} and local paths: copy the "
      "files to one of these, or mount them.")
  try:
    yield tf.io.gfile
  except tf.errors.OpError as error:
    number = _ERROR_NUMBERS.get(type(error).__name__, errno.EIO)
    is_plain = number in (errno.ENOENT, errno.EEXIST) or not error.message
    raise OSError(
        number, os.strerror(number) if is_plain else one_line(error.message),
        path) from None


@contextlib.contextmanager
def _asking(path: str) -> Iterator:
  """`_gfile` for questions that a local path always answers."""
  try:
    with _gfile(path) as gfile:
      yield gfile
  except OSError as error:
    raise InputError(
        f"{path}: cannot be reached: {error.strerror}.") from None


def exists(path: str) -> bool:
  """Whether there is such a file or folder.

  Raises:
    InputError: the answer cannot be had (no rights, no connection).
  """
  if is_local(path):
    return os.path.exists(path)
  with _asking(path) as gfile:
    return gfile.exists(path)


def is_directory(path: str) -> bool:
  """Whether it is a folder; `InputError` as in `exists`."""
  if is_local(path):
    return os.path.isdir(path)
  with _asking(path) as gfile:
    return gfile.isdir(path)


def is_file(path: str) -> bool:
  """Whether it is a file; `InputError` as in `exists`."""
  if is_local(path):
    return os.path.isfile(path)
  return exists(path) and not is_directory(path)


def glob(pattern: str) -> list[str]:
  """The files and folders that a pattern matches, in any order.

  `**` reaches into the folders of a local path.

  Raises:
    InputError: as in `exists`, or a remote pattern holds `**`.
  """
  if is_local(pattern):
    return local_glob.glob(pattern, recursive=True)
  require(
      "**" not in pattern,
      f"{pattern}: ** is for local paths; give a pattern for each depth of "
      "folders, such as */*.")
  with _asking(pattern) as gfile:
    return gfile.glob(pattern)


def directory_of(path: str) -> str:
  """The folder of a file: `os.path.dirname`, which eats a "://" at the end.

  >>> directory_of("gs://data/train.tfrecord"), directory_of("ram://vocab.txt")
  ('gs://data', 'ram://')
  """
  directory = os.path.dirname(path)
  if is_local(path) or not is_local(directory):
    return directory
  return path[:path.rindex("/") + 1]


def list_directory(path: str) -> list[str]:
  """The names in a folder, in any order."""
  if is_local(path):
    return os.listdir(path)
  with _gfile(path) as gfile:
    # Some file systems mark the folders among them.
    return [name.rstrip("/") for name in gfile.listdir(path)]


def size(path: str) -> int:
  """The bytes of a file."""
  if is_local(path):
    return os.path.getsize(path)
  with _gfile(path) as gfile:
    return gfile.stat(path).length


def make_directories(path: str) -> None:
  """Makes a folder, and those above it; it may be there already."""
  if is_local(path):
    os.makedirs(path, exist_ok=True)
    return
  with _gfile(path) as gfile:
    gfile.makedirs(path)


def remove(path: str) -> None:
  """Removes a file."""
  if is_local(path):
    os.remove(path)
    return
  with _gfile(path) as gfile:
    gfile.remove(path)


def rename(source: str, target: str) -> None:
  """Renames a file, in place of one that has the name already.

  In a local folder that is one step, and nobody sees half of it. A bucket
  copies and then removes.
  """
  if is_local(source):
    os.replace(source, target)
    return
  with _gfile(source) as gfile:
    gfile.rename(source, target, overwrite=True)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
  """Yields a temporary name; renames it to `path` if all went well.

  On an error nothing stays: no file under its final name is ever incomplete.
  """
  temporary = f"{path}.tmp-{os.getpid()}"
  try:
    yield temporary
    rename(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      remove(temporary)
    raise


class _RemoteFile(io.RawIOBase):
  """A file of TensorFlow's as one of Python's, for its buffers and texts.

  (A `GFile` has lines of its own, but drops each carriage return in them.)
  """

  def __init__(self, path: str, mode: str, file):
    self._path, self._mode, self._file = path, mode, file

  def readable(self) -> bool:
    return self._mode == "rb"

  def writable(self) -> bool:
    return self._mode == "wb"

  def seekable(self) -> bool:
    return self._mode == "rb"

  def readinto(self, buffer) -> int:
    with _gfile(self._path):
      data = self._file.read(len(buffer))
    buffer[:len(data)] = data
    return len(data)

  def write(self, data) -> int:
    with _gfile(self._path):
      self._file.write(bytes(data))
    return len(data)

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    with _gfile(self._path):
      self._file.seek(offset, whence)
      return self._file.tell()

  def tell(self) -> int:
    return self._file.tell()

  def close(self) -> None:
    if self.closed:
      return
    try:
      with _gfile(self._path):
        self._file.close()  # What was written may be sent only now.
    finally:
      super().close()


def _open_remote(path: str, mode: str) -> IO[bytes]:
  with _gfile(path) as gfile:
    file = gfile.GFile(path, mode)
    if mode == "rb":
      file.read(0)  # A file that is not there fails here.
  raw = _RemoteFile(path, mode, file)
  buffer = io.BufferedReader if mode == "rb" else io.BufferedWriter
  return buffer(raw, _BUFFER)


def open_file(path: str, mode: str = "r") -> IO:
  """Opens a file: "r" and "w" for UTF-8 with "\\n" written, "rb" and "wb".

  Raises:
    OSError: as `open`.
  """
  newline = "\n" if mode == "w" else None
  if mode in ("rb", "wb"):
    return open(path, mode) if is_local(path) else _open_remote(path, mode)
  if is_local(path):
    return open(path, mode, encoding="utf-8", newline=newline)
  return io.TextIOWrapper(
      _open_remote(path, mode + "b"), encoding="utf-8", newline=newline)
