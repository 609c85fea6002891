"""The words of a text against hand-worked cases and plain Python."""

import pathlib
import subprocess
import sys
import unicodedata

import hypothesis
from hypothesis import strategies
import pytest
import tensorflow as tf

from bert_tf import unicode_tables
from bert_tf import words
import difficult_text
import reference_tokenizer as reference

needs_the_unicode_version = pytest.mark.skipif(
    unicodedata.unidata_version != unicode_tables.UNICODE_VERSION,
    reason="the reference needs Python 3.11, which has Unicode 14.0")


@pytest.fixture(scope="module")
def split_words():
  """A function from texts to the words of each."""
  graphs = {}

  def split(texts, *, do_lower_case):
    if do_lower_case not in graphs:
      splitter = words.WordSplitter(do_lower_case=do_lower_case)

      @tf.function(
          input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
      def graph(batch):
        result = splitter.split(batch)
        return tf.RaggedTensor.from_row_splits(
            result.to_strings(), result.text_starts)

      graphs[do_lower_case] = graph
    found = graphs[do_lower_case](tf.constant(texts, tf.string)).to_list()
    return [[word.decode("utf-8") for word in row] for row in found]

  return split


def expect_reference_words(split_words, texts, *, do_lower_case):
  """Compares batch by batch, and shows the first texts that differ."""
  different = []
  for start in range(0, len(texts), 65536):
    batch = texts[start:start + 65536]
    found = split_words(batch, do_lower_case=do_lower_case)
    different += [
      (text, row) for text, row in zip(batch, found)
      if row != reference.split_words(text, do_lower_case=do_lower_case)]
  assert not different, (len(different), ascii(different[:5]))


# Words worked out by hand: text, lower-cased, cased.
WORDS = (
  ("", [], []),
  (" \t\n\r", [], []),
  ("Hello, World!", ["hello", ",", "world", "!"],
   ["Hello", ",", "World", "!"]),
  ("it's", ["it", "'", "s"], ["it", "'", "s"]),
  ("a$b^c`d~e", list("a$b^c`d~e"), list("a$b^c`d~e")),
  ("caf\u00e9 cafe\u0301", ["cafe", "cafe"], ["caf\u00e9", "cafe\u0301"]),
  ("a中b文", ["a", "中", "b", "文"], ["a", "中", "b", "文"]),
  # Kana and Hangul are not among the blocks that are spaced.
  ("カナ 한", ["カナ", "\u1112\u1161\u11ab"], ["カナ", "한"]),
  # NUL, U+FFFD, a control and a zero-width joiner leave no trace ...
  ("a\0b\ufffdc\x07d\u200de", ["abcde"], ["abcde"]),
  # ... but do not hold apart what white space and punctuation hold apart.
  ("a\u200d,\u200db \u200d c", ["a", ",", "b", "c"], ["a", ",", "b", "c"]),
  ("a\u00a0b\u3000c\u2028d\u2029e", list("abcde"), list("abcde")),
  # The original's lower case is not a case folding: no NFKC, no "ss".
  ("Straße ﬁx Ｆ ²", ["straße", "ﬁx", "ｆ", "²"],
   ["Straße", "ﬁx", "Ｆ", "²"]),
  ("İstanbul ISI", ["istanbul", "isi"], ["İstanbul", "ISI"]),
  # Sigma is final after a cased letter and not before one; an apostrophe and
  # marks do not count, and the rule precedes the split at punctuation.
  ("ΟΔΥΣΣΕΥΣ Σ ΑΣ. ΑΣ'Α Α'Σ",
   ["οδυσσευς", "σ", "ας", ".", "ασ", "'", "α", "α", "'", "ς"],
   ["ΟΔΥΣΣΕΥΣ", "Σ", "ΑΣ", ".", "ΑΣ", "'", "Α", "Α", "'", "Σ"]),
  ("aΣ\u0301b aΣ\u0301", ["aσb", "aς"], ["aΣ\u0301b", "aΣ\u0301"]),
  # U+037E, a Greek question mark, decomposes to the semicolon.
  ("a\u037eb", ["a", ";", "b"], ["a", "\u037e", "b"]),
  # U+2260 decomposes to "=" and a mark: "=" is punctuation, U+2260 is not.
  ("a\u2260b", ["a", "=", "b"], ["a\u2260b"]),
  # A compatibility ideograph is a word and decomposes to another.
  ("x\uf900y", ["x", "\u8c48", "y"], ["x", "\uf900", "y"]),
  # Canonical ordering of marks that are not stripped: classes 224 and 9 with
  # a stripped mark between; then one of class 0 that keeps them apart.
  ("a\u302e\u0301\u1715", ["a\u1715\u302e"], ["a\u302e\u0301\u1715"]),
  ("a\u302e\u0941\u1715", ["a\u302e\u1715"], ["a\u302e\u0941\u1715"]),
)


@pytest.mark.parametrize("text,lowered,cased", WORDS)
def test_words_are_those_worked_out_by_hand(
    split_words, text, lowered, cased):
  # Beside neighbours, so that nothing leaks from one text to the next.
  texts = ["Σ", text, "x"]
  assert split_words(texts, do_lower_case=True) == [["σ"], lowered, ["x"]]
  assert split_words(texts, do_lower_case=False) == [["Σ"], cased, ["x"]]


def test_bytes_that_are_not_utf8_are_dropped(split_words):
  texts = [
    b"a\xffb", b"a\xe2\x82", b"a\xe2\x28\xa1b", b"\xed\xa0\x80x",
    b"\xf0\x9f\x98 y", b"\xc0\xafx", b"\xf4\x90\x80\x80z", b"\xff"]
  assert split_words(texts, do_lower_case=True) == [
    reference.split_words(text, do_lower_case=True) for text in texts]


@needs_the_unicode_version
@pytest.mark.parametrize("do_lower_case", (True, False))
def test_random_mixtures_of_difficult_characters(split_words, do_lower_case):
  expect_reference_words(
      split_words, difficult_text.mixtures(20000, seed=7),
      do_lower_case=do_lower_case)


@needs_the_unicode_version
@hypothesis.settings(max_examples=200)
@hypothesis.given(strategies.lists(strategies.text(), max_size=5))
def test_any_texts_give_the_words_of_the_reference(split_words, texts):
  for do_lower_case in (True, False):
    assert split_words(texts, do_lower_case=do_lower_case) == [
      reference.split_words(text, do_lower_case=do_lower_case)
      for text in texts]


@hypothesis.settings(max_examples=200)
@hypothesis.given(strategies.lists(strategies.binary(), max_size=5))
def test_any_bytes_give_the_words_of_the_reference(split_words, texts):
  assert split_words(texts, do_lower_case=False) == [
    reference.split_words(text, do_lower_case=False) for text in texts]


@needs_the_unicode_version
def test_the_committed_unicode_tables_are_those_of_the_generator():
  root = pathlib.Path(words.__file__).parent.parent
  written = subprocess.run(
      [sys.executable, str(root / "tools" / "make_unicode_tables.py")],
      check=True, capture_output=True, env={"PYTHONIOENCODING": "utf-8"})
  committed = (root / "bert_tf" / "unicode_tables.py").read_bytes()
  assert written.stdout == committed
