"""Sentences with tags: CoNLL columns and JSON Lines."""

import json

import pytest

from bert_tf.config import InputError
from bert_tf.data.conll import is_iob
from bert_tf.data.conll import read_tagged


def test_conlls_columns_are_read(tmp_path):
  path = tmp_path / "train.txt"
  path.write_text(
      "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nsays VBZ B-VP O\n\n\n"
      "Peter NNP B-NP B-PER\nB. NNP I-NP I-PER\n"
      "-DOCSTART-\nno\u00a0break  X X O \n \t\nend X X O")
  assert read_tagged(str(path)) == {
    "words": [["EU", "says"], ["Peter", "B."], ["no\u00a0break"], ["end"]],
    "tags": [["B-ORG", "O"], ["B-PER", "I-PER"], ["O"], ["O"]],
    "document": [0, 0, 1, 1],
    "where": [f"{path}:{line}" for line in (3, 7, 10, 12)]}


def test_columns_may_have_tabs_between_them(tmp_path):
  path = tmp_path / "train.txt"
  path.write_text("New York\tNOUN\nis\tVERB\n")
  rows = read_tagged(str(path))
  assert rows["words"] == [["New York", "is"]]
  # No IOB2, and so not checked as if it were.
  assert rows["tags"] == [["NOUN", "VERB"]]
  assert not is_iob(rows["tags"][0]) and rows["document"] == [0]


@pytest.mark.parametrize("name, content", [
  ("test.txt", "a\nb\n\nc\n"),
  ("test.jsonl", '{"words": ["a", "b"]}\n{"words": ["c"]}\n'),
])
def test_tags_may_be_left_out(tmp_path, name, content):
  path = tmp_path / name
  path.write_text(content)
  rows = read_tagged(str(path))
  assert sorted(rows) == ["document", "where", "words"]
  assert rows["words"] == [["a", "b"], ["c"]]


def test_json_lines_are_read(tmp_path):
  path = tmp_path / "dev.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in (
    {"words": ["New York", "is"], "tags": ["B-LOC", "O"], "id": 7},
    {"words": ["I", 5], "tags": ["O", "O"]})))
  assert read_tagged(str(path)) == {
    "words": [["New York", "is"], ["I", "5"]],
    "tags": [["B-LOC", "O"], ["O", "O"]], "document": [0, 0],
    "where": [f"{path}:1", f"{path}:2"]}


def test_conll_2003_is_read_as_it_is_given(shared):
  # Tjong Kim Sang and De Meulder 2003, table 1: documents, sentences, words.
  for split, documents, sentences, words in (
      ("train", 946, 14041, 203621), ("dev", 216, 3250, 51362),
      ("test", 231, 3453, 46435)):
    rows = read_tagged(str(shared / "data" / "conll2003" / f"{split}.txt"))
    assert {len(values) for values in rows.values()} == {sentences}
    assert sum(map(len, rows["words"])) == words
    assert rows["document"][-1] + 1 == len(set(rows["document"])) == documents
    tags = {tag for tags in rows["tags"] for tag in tags}
    assert tags == {"O"} | {
      f"{kind}-{name}" for kind in "BI"
      for name in ("LOC", "MISC", "ORG", "PER")}


@pytest.mark.parametrize("content, message", [
  ("a X O\nb O\n", "train.txt:2: has 2 columns, the first word's line has 3"),
  ("a\tO\nb\t\n", "train.txt:2: has an empty column; give the word and its t"),
  ("a B-X\n\nb O\nc I-X\n",
   "train.txt:4: the word has the tag 'I-X' behind 'O'; in IOB2 a tag is"),
  ("a I-X\n", "train.txt:1: the word has the tag 'I-X' at the start; in IOB2"),
  ("a B-X\nb I-Y\n", "train.txt:2: .* 'I-Y' behind 'B-X'.*Convert the tags"),
  ("a B-X\nb E-X\n", "train.txt:2: the word has the tag 'E-X'"),
  ("", "train.txt: holds no sentences"),
  ("-DOCSTART- O\n\n", "train.txt: holds no sentences"),
])
def test_bad_columns_are_refused(tmp_path, content, message):
  path = tmp_path / "train.txt"
  path.write_text(content)
  with pytest.raises(InputError, match=message):
    read_tagged(str(path))


@pytest.mark.parametrize("content, message", [
  ('{"words": ["a"], "tags": ["B-X"]}\n{"words": ["a"], "tags": ["I-X"]}\n',
   "train.jsonl:2: word 1 has the tag 'I-X' at the start; in IOB2"),
  ('{"words": ["a", "b"], "tags": ["O"]}\n', "has 2 words and 1 tags; each"),
  ('{"words": "a b", "tags": ["O"]}\n', "'words' must be a list of texts"),
  ('{"words": [], "tags": []}\n', "'words' must be a list of texts"),
  ('{"words": ["a\\nb"], "tags": ["O"]}\n', "that are not empty and hold no"),
  ('{"words": [" "], "tags": ["O"]}\n', "that are not empty and hold no"),
  ('{"words": ["a"], "tags": [null]}\n', "'tags' must be a list of texts"),
  ('{"words": ["a"], "tags": ["O"]}\n{"words": ["a"]}\n',
   "train.jsonl:2: the field 'tags' must be"),
  ("[1]\n", "train.jsonl:1: must hold a JSON object"),
  ("5\n", "train.jsonl:1: must hold a JSON object"),
  ("x\n", "train.jsonl:1: not valid JSON"),
  ("\n", "train.jsonl: holds no rows"),
])
def test_bad_objects_are_refused(tmp_path, content, message):
  path = tmp_path / "train.jsonl"
  path.write_text(content)
  with pytest.raises(InputError, match=message):
    read_tagged(str(path))
