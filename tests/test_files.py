"""One behaviour for local paths and for those with a scheme."""

import errno
import pathlib

import pytest
import tensorflow as tf

from bert_tf import files
from bert_tf.errors import InputError


@pytest.fixture(params=["", "file://", "ram:/"], ids=["local", "file", "ram"])
def folder(request, tmp_path):
  path = f"{request.param}{tmp_path}/a/b"
  files.make_directories(path)
  files.make_directories(path)
  return path


def write(path, content):
  with files.open_file(path, "wb") as file:
    file.write(content)
  return path


def read(path):
  with files.open_file(path, "rb") as file:
    return file.read()


def test_what_is_there_is_known_by_its_kind(folder):
  path = write(f"{folder}/x", b"123")
  asked = {
    name: (files.exists(p), files.is_file(p), files.is_directory(p))
    for name, p in (("file", path), ("folder", folder), ("slash", f"{folder}/"),
                    ("none", f"{folder}/y"), ("deep", f"{folder}/y/z"))}
  assert asked == {
    "file": (True, True, False), "folder": (True, False, True),
    "slash": (True, False, True), "none": (False, False, False),
    "deep": (False, False, False)}
  assert files.size(path) == 3
  files.make_directories(f"{folder}/more")
  assert sorted(files.list_directory(folder)) == ["more", "x"]


def test_texts_are_utf8_with_line_feeds(folder):
  path = f"{folder}/x.txt"
  with files.open_file(path, "w") as file:
    file.write("ä\n")
    file.write("\u2028b\n")
  assert read(path) == b"\xc3\xa4\n\xe2\x80\xa8b\n"
  with files.open_file(path) as file:
    assert file.read() == "ä\n\u2028b\n"


def test_bytes_come_back_and_lines_keep_their_carriage_returns(folder):
  content = b"a\r\nb\rc\n\n" * 300_000 + b"end"  # more than one buffer
  path = write(f"{folder}/x", content)
  assert read(path) == content
  with files.open_file(path, "rb") as file:
    assert file.readline() == b"a\r\n"
    assert file.seek(8 * 300_000 - 3) == 8 * 300_000 - 3
    assert list(file) == [b"c\n", b"\n", b"end"]
    assert file.tell() == len(content)
    file.seek(3)
    assert (file.read(3), file.tell()) == (b"b\rc", 6)


def test_a_rename_replaces(folder):
  old = write(f"{folder}/x", b"old")
  files.rename(write(f"{folder}/y", b"new"), old)
  assert files.list_directory(folder) == ["x"] and read(old) == b"new"


def test_a_file_replaced_is_the_old_one_or_the_new_one(folder):
  path = write(f"{folder}/x", b"old")
  with pytest.raises(KeyError):
    with files.replacing(path) as temporary:
      write(temporary, b"half")
      assert read(path) == b"old"
      raise KeyError
  assert files.list_directory(folder) == ["x"] and read(path) == b"old"
  with files.replacing(path) as temporary:
    write(temporary, b"new")
  assert files.list_directory(folder) == ["x"] and read(path) == b"new"


def test_globs_stay_in_one_folder(folder):
  files.make_directories(f"{folder}/c.d")
  for name in ("1.d", "2.d", "3.e", "c.d/4.d"):
    write(f"{folder}/{name}", b"")
  assert sorted(files.glob(f"{folder}/*.d")) == [
    f"{folder}/{name}" for name in ("1.d", "2.d", "c.d")]
  assert files.glob(f"{folder}/*/*.d") == [f"{folder}/c.d/4.d"]
  assert files.glob(f"{folder}/[12].d") and not files.glob(f"{folder}/*.no")
  assert not files.glob(f"{folder}/no/*")


@pytest.mark.parametrize("ask", [
  read, files.size, files.remove, files.list_directory,
  lambda path: files.rename(path, path + "x")])
def test_what_is_missing_is_file_not_found(folder, ask):
  with pytest.raises(FileNotFoundError) as error:
    ask(f"{folder}/no")
  assert error.value.strerror == "No such file or directory"
  assert error.value.filename == f"{folder}/no"


def test_a_folder_is_not_read(folder):
  with pytest.raises(OSError):
    read(folder)


@pytest.mark.parametrize("error_class, number", [
  (tf.errors.PermissionDeniedError, errno.EACCES),
  (tf.errors.UnauthenticatedError, errno.EACCES),
  (tf.errors.UnavailableError, errno.EIO)])
def test_the_words_of_a_remote_error_are_kept(error_class, number):
  with pytest.raises(OSError) as error:
    with files._gfile("ram://x"):
      raise error_class(None, None, "bucket x\n\tsays no.")
  assert (error.value.errno, error.value.strerror) == (
    number, "bucket x says no")
  with pytest.raises(InputError, match="ram://x: cannot be .* x says no"):
    with files._asking("ram://x"):
      raise error_class(None, None, "bucket x\n\tsays no.")


@pytest.mark.parametrize("ask", [
  files.exists, files.is_file, files.is_directory, files.glob, read])
def test_a_scheme_that_tensorflow_lacks_is_refused(ask):
  with pytest.raises(
      InputError, match="no file system for s9://, only for .*gs://.*ram://"):
    ask("s9://bucket/x")


def test_stars_for_all_depths_are_for_local_paths(tmp_path):
  (tmp_path / "a" / "b").mkdir(parents=True)
  (tmp_path / "a" / "b" / "x").touch()
  assert files.glob(f"{tmp_path}/**/x") == [str(tmp_path / "a" / "b" / "x")]
  with pytest.raises(InputError, match="is for local paths"):
    files.glob(f"file://{tmp_path}/**/x")


@pytest.mark.parametrize("path, directory", [
  ("a/b", "a"), ("a", ""), ("gs://a/b/c", "gs://a/b"), ("gs://a/b", "gs://a"),
  ("ram://a", "ram://"), ("hdfs:///a", "hdfs:///"),
  ("hdfs:///a/b", "hdfs:///a")])
def test_the_folder_of_a_file(path, directory):
  assert files.directory_of(path) == directory


def test_paths_may_be_objects(tmp_path):
  path = pathlib.Path(write(str(tmp_path / "x"), b"1"))
  assert files.is_file(path) and files.size(path) == 1 and read(path) == b"1"
