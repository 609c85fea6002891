"""The demo's corpus: what is read, cleaned, hidden and held out."""

import doctest
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from bert_tf.config import InputError

DEMO = pathlib.Path(__file__).resolve().parents[2] / "tools" / "demo"
sys.path.insert(0, str(DEMO))
import collect_docstrings
sys.path.remove(str(DEMO))

Module = collect_docstrings.Module

SOURCE = '''
"""Module text."""
import os
not_a_docstring = """Some value."""

class Outer:
  """Class text.

     Indented.
  """

  async def method(self):
    """Method text."""
    def inner():
      "Inner text."

  class Nested:
    """   """

if os:
  def conditional():
    """Conditional \\d text."""
def without():
  return """no docstring"""
'''


def test_docstrings_come_in_the_order_of_the_file_and_dedented():
  assert collect_docstrings.docstrings_in(SOURCE.encode()) == [
    "Module text.", "Class text.\n\nIndented.", "Method text.", "Inner text.",
    "Conditional \\d text.",
  ]


def test_lone_surrogates_are_dropped_and_coding_lines_are_obeyed():
  docstrings_in = collect_docstrings.docstrings_in
  assert docstrings_in(b'"""a\\ud800b"""') == ["ab"]
  assert docstrings_in(b'# coding: latin-1\n"""caf\xe9"""') == ["caf\u00e9"]


def test_modules_are_found_without_tests_and_with_their_dotted_names(tmp_path):
  for name in ("a/__init__.py", "a/b.py", "a/tests/c.py", "a/test_d.py",
               "a/e_test.py", "six.py", "a/data.txt", "a/__pycache__/f.py",
               "site-packages/g.py", "a/test/h.py", "a/testing/i.py"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  assert sorted(collect_docstrings.find_modules(str(tmp_path))) == [
    ("a", str(tmp_path / "a/__init__.py")), ("a.b", str(tmp_path / "a/b.py")),
    ("a.testing.i", str(tmp_path / "a/testing/i.py")),
    ("six", str(tmp_path / "six.py")),
  ]


def test_a_docstring_counts_once_and_bad_files_are_reported(tmp_path):
  sources = {
    "a": '"""One."""\ndef f():\n  """Two."""',
    "b": '"""Two."""',
    "c": '"""Three."""\ndef g():\n  """One."""',
    "d": "def broken(:",
    "e": '"""nul \0 byte"""',
  }
  triples = []
  for name, source in sources.items():
    (tmp_path / name).write_text(source)
    triples.append((name, "pack", str(tmp_path / name)))
  modules, unparsed = collect_docstrings.read_modules(triples)
  assert modules == [
    Module("a", "pack", ["One.", "Two."]), Module("c", "pack", ["Three."]),
  ]
  assert unparsed == [str(tmp_path / "d"), str(tmp_path / "e")]


@pytest.mark.parametrize("docstring, expected", [
  ("One\n  line.", ["One line."]),
  ("One.\n\n\nTwo.\n   \nThree.", ["One.", "Two.", "Three."]),
  ("Returns\n-------\nx : int", ["Returns x : int"]),
  ("====\n\n +--+--+ ", []),
  ("a\tb\u2028c\x0bd", ["a b c d"]),
])
def test_paragraphs_are_lines(docstring, expected):
  assert collect_docstrings.paragraphs(docstring) == expected


@pytest.mark.parametrize("text, expected", [
  ("TensorFlow, tensorflow's", "package, package's"),
  ("`tf.keras.Model`", "`package.package.Model`"),
  ("np.asarray NumPy NUMPY numpy_ops",
   "package.asarray package package package"),
  ("CPython and IPython 3", "package and package 3"),
  ("TFRecord tfds MyTFClass is_tf_type", "package package package package"),
  ("_np_wrap tf2 .npz tfprof", "package package .package package"),
  ("www.tensorflow.org/api", "www.package.org/api"),
  ("stft UTF8 inputs platform unpack crossentropy Torch",
   "stft UTF8 inputs platform unpack crossentropy Torch"),
])
def test_names_of_packages_are_hidden_and_words_are_not(text, expected):
  assert collect_docstrings.hide_names(text) == expected


def test_texts_to_classify_are_cut_between_words_and_begin_differently():
  start = "x" * 59
  texts = collect_docstrings.labeled_texts([
    Module("keras.a", "keras", ["short " * 9, start + " " + "word " * 100]),
    Module("numpy.b", "numpy", [start.upper() + " another ending"]),
    Module("six", "six", ["y" * 80]),
    Module("tensorflow.python.keras.c", "tensorflow", ["z" * 80]),
    Module("numpy.d", "numpy", [f"{i} {'0' * 70}" for i in range(30)]),
  ])
  assert texts["keras.a"] == [start + " word" * 38]
  assert len(texts["keras.a"][0]) == 249
  assert texts["numpy.b"] == []
  assert len(texts["numpy.d"]) == collect_docstrings.MAX_TEXTS_PER_MODULE
  assert set(texts) == {"keras.a", "numpy.b", "numpy.d"}


def test_heldout_leaves_out_long_copies_and_keeps_short_ones():
  copy = "c" * 60
  train = collect_docstrings.corpus_text([
    Module("a", "a", [f"Example:\n\n{copy}", "More."]),
    Module("b", "b", ["----"]),
    Module("c", "c", ["Last."]),
  ])
  assert train == f"Example:\n{copy}\nMore.\n\nLast.\n"
  assert collect_docstrings.size_of(train) == {
    "documents": 2, "megabytes": 0.0, "words": 4}
  heldout = collect_docstrings.corpus_text(
      [Module("d", "d", [f"Example:\n\n{copy}\n\n{copy}c"]),
       Module("e", "e", [copy])], without=train)
  assert heldout == f"Example:\n{copy}c\n"


def test_modules_of_the_smallest_hashes_are_held_out(monkeypatch):
  modules = [
    Module("keras.a", "keras", []), Module("keras.b", "keras", []),
    Module("keras.c", "keras", []), Module("keras.d", "keras", []),
    Module("numpy.e", "numpy", []), Module("numpy.f", "numpy", []),
    Module("six", "six", []), Module("attr", "attr", []),
  ]
  hashes = {
    "keras.a": 0.3, "keras.b": 0.1, "keras.c": 0.2, "keras.d": 0.4,
    "numpy.e": 0.01, "numpy.f": 0.02, "six": 0.0299, "attr": 0.03,
  }
  texts = {
    "keras.a": ["1", "2"], "keras.b": ["3"], "keras.c": [], "keras.d": ["4"],
    "numpy.e": ["5", "6", "7"], "numpy.f": ["8"],
  }
  monkeypatch.setattr(collect_docstrings, "hash_share", hashes.get)
  monkeypatch.setattr(collect_docstrings, "DEV_TEXTS_PER_LABEL", 2)
  # Keras goes on until it has two texts or more, NumPy has three with its
  # first module and loses the second to the 3 % that hold for everybody.
  assert collect_docstrings.heldout_modules(modules, texts) == {
    "keras.b", "keras.c", "keras.a", "numpy.e", "numpy.f", "six"}


def test_hash_is_the_same_on_every_machine():
  # The first 12 of 32 hexadecimal digits of md5("") are d41d8cd98f00.
  assert collect_docstrings.hash_share("") == 0xd41d8cd98f00 / 2**48


def test_a_missing_package_is_an_error_that_names_it():
  with pytest.raises(InputError, match="0 texts for the label tensorflow"):
    collect_docstrings.sample_rows([], {}, 5)


def test_files_get_their_names_when_all_are_written(tmp_path):
  with pytest.raises(TypeError):
    collect_docstrings.write_files(str(tmp_path), {"a": "text", "b": None})
  assert not (tmp_path / "a").exists()
  collect_docstrings.write_files(str(tmp_path / "new"), {"a": "1", "b": "2"})
  assert sorted(os.listdir(tmp_path / "new")) == ["a", "b"]


def test_examples_of_the_docstrings():
  assert doctest.testmod(collect_docstrings).failed == 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  folder = tmp_path_factory.mktemp("corpus")
  subprocess.run(
      [sys.executable, str(DEMO / "collect_docstrings.py"),
       f"--output_dir={folder}"], check=True)
  return folder


@pytest.mark.slow
def test_real_corpus_is_whole_and_its_data_set_does_not_leak(corpus):
  summary = json.loads((corpus / "corpus.json").read_text())
  train = (corpus / "train.txt").read_text("utf-8")
  heldout = (corpus / "heldout.txt").read_text("utf-8")
  assert summary["train"]["megabytes"] > 8
  assert summary["files_read"] > 3000
  assert len(summary["files_not_parsed"]) < 0.01 * summary["files_read"]
  assert train.count("\n\n") + 1 == summary["train"]["documents"]
  assert 0.01 < len(heldout) / len(train) < 0.15
  copies = set(train.split("\n")) & set(heldout.split("\n"))
  assert all(len(line) < 60 for line in copies)

  rows, beginnings = {}, []
  for name, size in (("train", 500), ("dev", 150)):
    header, *lines, last = (corpus / f"{name}.tsv").read_text("utf-8").split(
        "\n")
    assert (header, last) == ("label\ttext", "")
    rows[name] = [line.split("\t") for line in lines]
    labels = [label for label, _ in rows[name]]
    assert {label: labels.count(label) for label in set(labels)} == (
        dict.fromkeys(collect_docstrings.LABELS, size))
    for _, text in rows[name]:
      assert 60 <= len(text) <= 250
      assert not re.search(
          r"tensorflow|keras|numpy|python|\btf\b|\bnp\b", text.lower())
      beginnings.append(text[:60].lower())
  assert len(set(beginnings)) == len(beginnings) == 2600
