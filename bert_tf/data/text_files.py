"""Files of text, plain or compressed, and standard input -> lines.

Standard library only; zstandard is imported where it is used.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import io
import logging
import os
import stat
import sys
from typing import Any, BinaryIO

from bert_tf import files
from bert_tf.config import InputError
from bert_tf.config import require

_LOGGER = logging.getLogger(__name__)

STANDARD_INPUT = "<standard input>"  # In the place of a path.

_PACKED_BLOCK = 1 << 16  # Bytes.
_ZSTD_WINDOW_LOG = 31  # All that `zstd --long` can write.


def expand_files(patterns: Sequence[str]) -> list[str]:
  """The files that names and globs stand for, sorted, each once.

  A name that exists is taken as it is, even if it holds a `*` or a `[`.
  `**` reaches into folders, of local paths.

  Raises:
    InputError: a pattern matches no file, or it names a folder.
  """
  require(not isinstance(patterns, str), "patterns: must be a list of names.")
  require(len(patterns) > 0, "No input file was given: name at least one.")
  paths = set()
  for pattern in patterns:
    require(
        not files.is_directory(pattern),
        f"{pattern}: is a folder; give the files in it, such as "
        f"{os.path.join(pattern, '*')}.")
    matches = [pattern] if files.exists(pattern) else [
      path for path in files.glob(pattern) if not files.is_directory(path)]
    where = (f" (the current folder is {os.getcwd()})"
             if files.is_local(pattern) else "")
    require(
        len(matches) > 0,
        f"{pattern}: no such file, and as a glob it matches none; check the "
        f"name{where}.")
    paths.update(matches)
  return sorted(paths)


def size_on_disk(paths: Sequence[str]) -> int | None:
  """The bytes of these files; None if one of them is a pipe or the like.

  Raises:
    InputError: a file is not there any more.
  """
  size = 0
  for path in paths:
    try:
      if files.is_local(path) and not stat.S_ISREG(os.stat(path).st_mode):
        return None
      size += files.size(path)
    except OSError as error:
      raise _unreadable(path, error) from None
  return size


def _unreadable(path: str, error: OSError) -> InputError:
  return InputError(f"{path}: cannot be read: {error.strerror or error}.")


class _ZstandardFile(io.RawIOBase):
  """Unpacks with `zstandard`, whose own reader ends at a cut without a word."""

  def __init__(self, file: BinaryIO, decompressor: Any):
    self._file, self._decompressor = file, decompressor
    self._frame = None  # The one being unpacked; a file may hold several.
    self._packed, self._unpacked = b"", memoryview(b"")

  def readable(self) -> bool:
    return True

  def readinto(self, buffer) -> int:
    while not self._unpacked:
      packed = self._packed or self._file.read(_PACKED_BLOCK)
      if not packed:
        if self._frame is not None:
          raise EOFError
        return 0
      self._packed = b""
      self._frame = self._frame or self._decompressor.decompressobj()
      self._unpacked = memoryview(self._frame.decompress(packed))
      if self._frame.eof:
        self._packed, self._frame = self._frame.unused_data, None
    size = min(len(buffer), len(self._unpacked))
    buffer[:size] = self._unpacked[:size]
    self._unpacked = self._unpacked[size:]
    return size


# Each gives the unpacked text, and the error for what it cannot unpack. The
# modules are imported here because a Python can be built without them.


def _open_gzip(file: BinaryIO) -> tuple[BinaryIO, tuple]:
  import gzip
  import zlib
  return gzip.GzipFile(fileobj=file), (gzip.BadGzipFile, zlib.error)


def _open_bz2(file: BinaryIO) -> tuple[BinaryIO, tuple]:
  import bz2
  return bz2.BZ2File(file), (OSError,)


def _open_xz(file: BinaryIO) -> tuple[BinaryIO, tuple]:
  import lzma
  return lzma.LZMAFile(file), (lzma.LZMAError,)


def _open_zstd(file: BinaryIO) -> tuple[BinaryIO, tuple]:
  try:
    from compression import zstd  # Python 3.14
  except ImportError:
    import zstandard
    decompressor = zstandard.ZstdDecompressor(
        max_window_size=1 << _ZSTD_WINDOW_LOG)
    unpacked = _ZstandardFile(file, decompressor)
    return io.BufferedReader(unpacked), (zstandard.ZstdError,)
  option = zstd.DecompressionParameter.window_log_max
  text = zstd.ZstdFile(file, options={option: _ZSTD_WINDOW_LOG})
  return text, (zstd.ZstdError,)


_DECOMPRESSORS = {
  ".gz": _open_gzip, ".bz2": _open_bz2, ".xz": _open_xz, ".zst": _open_zstd}


def suffixes(path: str) -> tuple[str, str]:
  """The suffix of the text, and that of the compression, in lower case.

  >>> suffixes("a.b.txt.GZ"), suffixes("a.jsonl"), suffixes("a")
  (('.txt', '.gz'), ('.jsonl', ''), ('', ''))
  """
  stem, suffix = os.path.splitext(path.lower())
  if suffix in _DECOMPRESSORS:
    return os.path.splitext(stem)[1], suffix
  return suffix, ""


def check_compression(path: str) -> None:
  """Raises `InputError` if this Python cannot unpack such a file."""
  _decompressed(path, io.BytesIO())


def _decompressed(path: str, file: BinaryIO) -> tuple[BinaryIO, tuple]:
  """The unpacked text of a file, and the errors that unpacking can raise."""
  suffix = suffixes(path)[1]
  if not suffix:
    return file, ()
  try:
    return _DECOMPRESSORS[suffix](file)
  except ImportError as error:
    remedy = "pip install zstandard, or " if suffix == ".zst" else ""
    raise InputError(
        f"{path}: this Python cannot unpack {suffix} files ({error}): "
        f"{remedy}unpack the file first.") from None


@contextlib.contextmanager
def _reading(path: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
  """Yields the text as bytes, and the file itself, whose place is known."""
  damage = ()
  try:
    with (contextlib.nullcontext(sys.stdin.buffer)
          if path == STANDARD_INPUT else files.open_file(path, "rb")) as file:
      text, damage = _decompressed(path, file)
      yield text, file
  except EOFError:
    raise InputError(
        f"{path}: the compressed file is cut short; fetch it again.") from None
  except damage as error:
    suffix = suffixes(path)[1]
    raise InputError(
        f"{path}: not a whole {suffix} file ({error}); fetch it again, or "
        f"drop the suffix {suffix} if it is plain text.") from None
  except OSError as error:
    raise _unreadable(path, error) from None


def read_lines(
    path: str,
    *,
    on_bad_utf8: str = "error",
    counts: collections.Counter | None = None,
) -> Iterator[str]:
  """The lines of a text file, without their line ends.

  Args:
    path: plain text, or compressed if the name ends in .gz, .bz2, .xz or
      .zst.
    on_bad_utf8: "error" refuses a line that is not UTF-8; "replace" puts
      U+FFFD for each bad byte, and logs how many lines were concerned.
    counts: is given "bytes_read" (of the file, as on the disk) and
      "lines_with_bad_utf8".

  Raises:
    InputError: the file cannot be read, is cut short, or holds a line that
      is not UTF-8; the message names file and line.
  """
  counts = collections.Counter() if counts is None else counts
  bytes_before = counts["bytes_read"]
  with _reading(path) as (text, file):
    # What comes through a pipe has no place: then the text is counted.
    place = (lambda size: file.tell()) if file.seekable() else int

    def counted():
      size = 0
      for number, line in enumerate(text, start=1):
        size += len(line)
        if number % 1000 == 0:
          counts["bytes_read"] = bytes_before + place(size)
        yield line
      counts["bytes_read"] = bytes_before + place(size)

    yield from decode_lines(
        counted(), name=path, on_bad_utf8=on_bad_utf8, counts=counts)


def decode_lines(
    lines: Iterable[bytes], *, name: str, on_bad_utf8: str,
    counts: collections.Counter
) -> Iterator[str]:
  """The same for a file that is open already; `name` is for messages."""
  bad_lines = 0
  for number, line in enumerate(lines, start=1):
    if number == 1:
      line = line.removeprefix(b"\xef\xbb\xbf")  # A byte order mark.
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    try:
      decoded = line.decode("utf-8")
    except UnicodeDecodeError as error:
      require(
          on_bad_utf8 == "replace",
          f"{name}:{number}: byte {error.start + 1} of the line is not "
          f"UTF-8; mend the file, or pass --on_bad_utf8=replace.")
      bad_lines += 1
      decoded = line.decode("utf-8", errors="replace")
    yield decoded
  if bad_lines:
    counts["lines_with_bad_utf8"] += bad_lines
    _LOGGER.warning(
        "%s: %d lines are not UTF-8; the bad bytes were replaced.", name,
        bad_lines)
