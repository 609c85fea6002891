"""Files, bad input, documents, and the sentences of running text."""

import collections
import doctest
import gzip
import time

import pytest

from bert_tf.config import InputError
from bert_tf.data import corpus

# A bar stands where a sentence ends. Each line was judged by hand.
SENTENCES = """
One sentence without an end
One sentence.
He came.|She left.
Is it so?|It is!|Good.
He came. . . . and went on.
Mr. Hume and Mrs. Hume met Dr. Watson.|They dined.
Messrs. Grant & Co. Limited paid.|Nobody else did.
He lives in St. Petersburg.|She does not.
Gen. Lee met Col. Ray, Lt. Po and Capt. Cook.
The Rev. Mr. Brown and Prof. Moriarty spoke.
J. R. R. Tolkien wrote it.|Nobody read it.
J.R.R. Tolkien and C. S. Lewis met.
The U.S. Army left.|It rained.
He arrived at 5 p.m. Nobody saw him.=He arrived at 5 p.m.|Nobody saw him.
He arrived at 5 p.m. and left.
Bring pens, paper, etc. for the class.
Bring pens, paper, etc.|The class begins.
Some birds, e.g. Ravens, talk, i.e. They imitate.
See Fig. 2 and No. 5 on p. 7 of vol. 3.|Then stop.
He said no.|Then he left.
It was on Jan. 5.|It snowed.
We met in Jan.|He was ill.
Smith et al. 2019 say so.|Others do not.
It cost 3.50 dollars.|He paid.
Version 2.0 is out.|Get it.
He paid.|$5 was too much.
It was in 1905.|Then came the war.
1. Introduction to the matter.|2. The matter itself.
IV. The fourth chapter.|It is short.
A. First point.|B. Second point.
"Come here."|He came.
"Come here!" he said.|She came.
"Is it you?" asked the man.|"Yes."
He said, "Come here.|Sit down."
“Farewell all!” sighed she.|“This is the end.”
'Well,' said he.|'I am off.'
He left (at last).|She stayed.
He left.|(She stayed.)|They met again.
It is over...|Nobody came.
It is over... or so they say.
Wait… what is that?
What?!|No!!|Really.
_Really?_|He thought so.
It ended.|— And then it began.
You and I.|We two.
He knows J. Edgar and I. He left.=He knows J. Edgar and I.|He left.
The end.   |Three spaces before.
Il est parti.|Était-ce bien lui?|Oui.
M. Dupont et Mme. Durand sont là.|Ils partent.
¿Qué es?|¡Nada!|Bueno.
Он ушёл.|Она осталась.
А. С. Пушкин родился.|Он писал.
他走了。|她留下了！|真的吗？|是。
他说：「走吧。」|她走了。
यह है।|वह था।
.|A stop in front.|He spoke to Mr. A.	Smith.
Visit example.com today.|Bye.
"""


def _cases():
  for line in SENTENCES.strip().split("\n"):
    text, _, expected = line.partition("=")
    expected = (expected or text).split("|")
    text = text if "=" in line else " ".join(expected)
    yield pytest.param(text, [s.strip() for s in expected], id=line[:30])


@pytest.mark.parametrize("text, expected", _cases())
def test_sentences_end_where_a_reader_ends_them(text, expected):
  assert corpus.split_sentences(text) == expected


def test_an_ideographic_full_stop_needs_no_space():
  assert corpus.split_sentences("他走了。她留下了。") == [
    "他走了。", "她留下了。"]


def test_long_runs_of_anything_cost_no_more_than_their_length():
  for unit in (".", "a. ", "A. ", "! ", "_", " ", ".'", "Mr. A ", "。"):
    text = unit * (200000 // len(unit))
    start = time.monotonic()
    corpus.split_sentences(text)
    assert time.monotonic() - start < 5


def test_no_sentence_in_white_space():
  assert corpus.split_sentences("  \t ") == []


def test_splitting_loses_no_text(shared):
  path = str(shared / "data/corpora/books_en.txt.gz")
  for number, line in enumerate(corpus.read_lines(path)):
    if number == 3000:
      break
    sentences = corpus.split_sentences(line)
    assert "".join("".join(sentences).split()) == "".join(line.split())


def _write(path, content):
  path.write_bytes(
      content if isinstance(content, bytes) else content.encode())
  return str(path)


def test_globs_and_names_give_each_file_once_in_order(tmp_path):
  names = [_write(tmp_path / name, "x") for name in ("b.txt", "a.txt")]
  pattern = str(tmp_path / "*.txt")
  assert corpus.expand_files([names[0], pattern]) == sorted(names)
  odd = _write(tmp_path / "odd[1].txt", "x")
  assert corpus.expand_files([odd]) == [odd]


def test_what_matches_nothing_is_named(tmp_path):
  for pattern in (str(tmp_path / "no.txt"), str(tmp_path / "*.no")):
    with pytest.raises(InputError) as error:
      corpus.expand_files([pattern])
    assert pattern in str(error.value)
    assert "no such file" in str(error.value)
  with pytest.raises(InputError, match="is a folder"):
    corpus.expand_files([str(tmp_path)])
  with pytest.raises(InputError, match="No input file"):
    corpus.expand_files([])


def test_lines_end_at_line_feeds_only(tmp_path):
  content = "\ufeffone\u2028still one\r\ntwo\x0b\x85still two\n\nfour"
  expected = ["one\u2028still one", "two\x0b\x85still two", "", "four"]
  plain = _write(tmp_path / "a.txt", content)
  assert list(corpus.read_lines(plain)) == expected
  packed = _write(tmp_path / "a.txt.gz", gzip.compress(content.encode()))
  assert list(corpus.read_lines(packed)) == expected


def test_bad_utf8_is_refused_with_file_and_line(tmp_path):
  path = _write(tmp_path / "bad.txt", b"good\nalso good\nb\xe4d\n")
  with pytest.raises(InputError) as error:
    list(corpus.read_lines(path))
  assert f"{path}:3:" in str(error.value)
  assert "byte 2" in str(error.value)
  assert "--on_bad_utf8=replace" in str(error.value)


def test_bad_utf8_is_replaced_and_counted_on_request(tmp_path):
  path = _write(tmp_path / "bad.txt", b"good\nb\xe4d\nb\xffd \xc3\xa9\n")
  counts = collections.Counter()
  lines = list(
      corpus.read_lines(path, on_bad_utf8="replace", counts=counts))
  assert lines == ["good", "b\ufffdd", "b\ufffdd é"]
  assert counts == {"lines_with_bad_utf8": 2, "bytes_read": 16}


def test_broken_gzip_files_are_refused_by_name(tmp_path):
  whole = gzip.compress(b"some text\n" * 5000)
  for name, content, reason in (
      ("short.gz", whole[:-20], "cut short"),
      ("plain.gz", b"plain text", "not a whole gzip file"),
      ("bent.gz", whole[:30] + b"xxxx" + whole[34:], "not a whole gzip")):
    path = _write(tmp_path / name, content)
    with pytest.raises(InputError) as error:
      list(corpus.read_lines(path))
    assert path in str(error.value) and reason in str(error.value)


def test_a_file_that_is_gone_is_named(tmp_path):
  with pytest.raises(InputError, match="gone.txt: cannot be read: No such"):
    list(corpus.read_lines(str(tmp_path / "gone.txt")))


def test_blank_lines_and_file_ends_part_documents(tmp_path):
  paths = [
    _write(tmp_path / "a.txt", "\n\na b\n c \n \t\n\nd\n"),
    _write(tmp_path / "b.txt", "e"),
    _write(tmp_path / "c.txt", " \n"),
  ]
  counts = collections.Counter()
  documents = list(corpus.read_documents(paths, counts=counts))
  assert documents == [["a b", "c"], ["d"], ["e"]]
  assert counts["files_without_text"] == 1


def test_running_text_is_split_into_sentences(tmp_path):
  path = _write(tmp_path / "a.txt", "One. Two.\nThree. Four\n\nFive.")
  assert list(corpus.read_documents([path])) == [
    ["One. Two.", "Three. Four"], ["Five."]]
  assert list(corpus.read_documents([path], sentence_splitter="rules")) == [
    ["One.", "Two.", "Three.", "Four"], ["Five."]]


def test_the_examples_in_the_docstrings_hold():
  assert doctest.testmod(corpus).failed == 0
