"""Names and globs, plain and compressed files, bad input."""

import bz2
import collections
import gzip
import lzma
import os
import pathlib
import sys
import threading

import pytest

from bert_tf.config import InputError
from bert_tf.data import text_files


def _write(path, content):
  path.write_bytes(
      content if isinstance(content, bytes) else content.encode())
  return str(path)


def test_globs_and_names_give_each_file_once_in_order(tmp_path):
  names = [_write(tmp_path / name, "x") for name in ("b.txt", "a.txt")]
  pattern = str(tmp_path / "*.txt")
  assert text_files.expand_files([names[0], pattern]) == sorted(names)
  odd = _write(tmp_path / "odd[1].txt", "x")
  assert text_files.expand_files([odd]) == [odd]


def test_what_matches_nothing_is_named(tmp_path):
  for pattern in (str(tmp_path / "no.txt"), str(tmp_path / "*.no")):
    with pytest.raises(InputError) as error:
      text_files.expand_files([pattern])
    assert pattern in str(error.value)
    assert "no such file" in str(error.value)
  with pytest.raises(InputError, match="is a folder"):
    text_files.expand_files([str(tmp_path)])
  with pytest.raises(InputError, match="No input file"):
    text_files.expand_files([])


def test_lines_end_at_line_feeds_only(tmp_path):
  content = "\ufeffone\u2028still one\r\ntwo\x0b\x85still two\n\nfour"
  expected = ["one\u2028still one", "two\x0b\x85still two", "", "four"]
  plain = _write(tmp_path / "a.txt", content)
  assert list(text_files.read_lines(plain)) == expected
  packed = _write(tmp_path / "a.txt.gz", gzip.compress(content.encode()))
  assert list(text_files.read_lines(packed)) == expected


def test_bad_utf8_is_refused_with_file_and_line(tmp_path):
  path = _write(tmp_path / "bad.txt", b"good\nalso good\nb\xe4d\n")
  with pytest.raises(InputError) as error:
    list(text_files.read_lines(path))
  assert f"{path}:3:" in str(error.value)
  assert "byte 2" in str(error.value)
  assert "--on_bad_utf8=replace" in str(error.value)


def test_bad_utf8_is_replaced_and_counted_on_request(tmp_path):
  path = _write(tmp_path / "bad.txt", b"good\nb\xe4d\nb\xffd \xc3\xa9\n")
  counts = collections.Counter()
  lines = list(
      text_files.read_lines(path, on_bad_utf8="replace", counts=counts))
  assert lines == ["good", "b\ufffdd", "b\ufffdd é"]
  assert counts == {"lines_with_bad_utf8": 2, "bytes_read": 16}


def _zstandard(content):
  zstandard = pytest.importorskip("zstandard")
  # As the program `zstd` does it, with a checksum.
  return zstandard.ZstdCompressor(write_checksum=True).compress(content)


COMPRESSORS = {
  ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
  ".zst": _zstandard}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_are_read_by_their_suffix(tmp_path, suffix):
  lines = [f"line {number} ä" for number in range(30000)]
  parts = ["\n".join(lines[:20000]) + "\n", "\n".join(lines[20000:])]
  # Two compressed files in a row are one, as `cat` makes them.
  content = b"".join(COMPRESSORS[suffix](part.encode()) for part in parts)
  counts = collections.Counter()
  for name in ("a.txt" + suffix, "B" + suffix.upper()):
    path = _write(tmp_path / name, content)
    assert list(text_files.read_lines(path, counts=counts)) == lines
  # As on the disk.
  assert counts == {"bytes_read": 2 * len(content)}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_broken_compressed_files_are_refused_by_name(tmp_path, suffix):
  text = " ".join(map(str, range(50000))).encode()
  whole = COMPRESSORS[suffix](text)
  middle = len(whole) // 2
  for name, content, reason in (
      ("short", whole[:-20], "is cut short"),
      ("half", whole[:middle], "is cut short"),
      ("plain", b"plain text, no more", f"not a whole {suffix} file"),
      ("bent", whole[:middle] + b"xxxx" * 9 + whole[middle + 36:],
       f"not a whole {suffix} file")):
    path = _write(tmp_path / (name + suffix), content)
    with pytest.raises(InputError) as error:
      list(text_files.read_lines(path))
    assert path in str(error.value) and reason in str(error.value)


@pytest.mark.parametrize("module, suffix, remedy", [
  ("zstandard", ".zst", "pip install zstandard, or unpack the file"),
  ("bz2", ".bz2", "unpack the file first"),
  ("lzma", ".xz", "unpack the file first"),
])
def test_what_this_python_cannot_unpack_is_said_before_it_is_read(
    tmp_path, monkeypatch, module, suffix, remedy):
  monkeypatch.setitem(sys.modules, module, None)
  path = _write(tmp_path / ("a.txt" + suffix), b"")
  for read in (text_files.check_compression,
               lambda path: list(text_files.read_lines(path))):
    with pytest.raises(InputError) as error:
      read(path)
    assert path in str(error.value) and remedy in str(error.value)


def test_a_file_that_is_gone_is_named(tmp_path):
  with pytest.raises(InputError, match="gone.txt: cannot be read: No such"):
    list(text_files.read_lines(str(tmp_path / "gone.txt")))


def test_sizes_are_those_on_the_disk(tmp_path):
  paths = [_write(tmp_path / name, "x" * size) for name, size in (
    ("a", 3), ("b", 4))]
  assert text_files.size_on_disk(paths) == 7
  os.mkfifo(tmp_path / "pipe")
  assert text_files.size_on_disk([*paths, str(tmp_path / "pipe")]) is None
  os.remove(paths[1])
  with pytest.raises(InputError, match="b: cannot be read: No such file"):
    text_files.size_on_disk(paths)


def test_pipes_are_read_and_their_bytes_counted(tmp_path):
  path = str(tmp_path / "pipe")
  os.mkfifo(path)
  content = "ä\n" * 5000
  writer = threading.Thread(
      target=lambda: pathlib.Path(path).write_text(content, encoding="utf-8"))
  writer.start()
  counts = collections.Counter()
  assert list(text_files.read_lines(path, counts=counts)) == ["ä"] * 5000
  writer.join()
  assert counts == {"bytes_read": 15000}
