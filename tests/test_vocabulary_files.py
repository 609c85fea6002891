"""Vocabulary files: what is refused, and the casing that is found."""

import doctest
import json

import pytest

from bert_tf import vocabulary_files
from bert_tf.config import InputError
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS


def write(path, text):
  path.write_bytes(text.encode("utf-8"))
  return str(path)


GOOD = "\n".join([*SPECIAL_TOKENS, "the", "##s", "\u2028", "\u00a0"]) + "\n"


@pytest.mark.parametrize("data,line,message", (
  (GOOD.encode("utf-8") + b"\xff\n", 10, "not valid UTF-8"),
  (b"\xef\xbb\xbf" + GOOD.encode("utf-8"), 1, "byte order mark"),
  (GOOD.replace("\n", "\r\n").encode("utf-8"), 1, "CR LF"),
  (GOOD.replace("the", "").encode("utf-8"), 6, "empty line"),
  ((GOOD + "the\n").encode("utf-8"), 10, "'the' stands in line 6 already"),
))
def test_a_bad_line_of_a_vocabulary_is_named(tmp_path, data, line, message):
  path = tmp_path / "vocab.txt"
  path.write_bytes(data)
  with pytest.raises(InputError, match=f"vocab.txt:{line}: .*{message}"):
    BertTokenizer.from_file(str(path), do_lower_case=True)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_vocabulary_without_a_special_token_is_refused(tmp_path, token):
  path = write(tmp_path / "vocab.txt", GOOD.replace(token + "\n", ""))
  with pytest.raises(InputError) as error:
    BertTokenizer.from_file(path, do_lower_case=True)
  assert path in str(error.value) and f"{token} missing" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(InputError, match="nothing.txt: cannot be read"):
    BertTokenizer.from_file(str(tmp_path / "nothing.txt"))


def test_lines_end_at_line_feeds_alone(tmp_path):
  path = write(tmp_path / "vocab.txt", GOOD)
  tokenizer = BertTokenizer.from_file(path)
  assert tokenizer.vocabulary == (
    *SPECIAL_TOKENS, "the", "##s", "\u2028", "\u00a0")
  assert tokenizer.vocab_size == 9
  assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id,
          tokenizer.sep_id, tokenizer.mask_id) == (0, 1, 2, 3, 4)
  without_last_end = write(tmp_path / "vocab2.txt", GOOD[:-1])
  assert BertTokenizer.from_file(without_last_end).vocab_size == 9


@pytest.mark.parametrize("pieces,config,expected", (
  (["the", "##s"], None, True),
  (["The", "##S"], None, False),
  (["<S>", "the"], None, True),
  (["the", "##s"], {"do_lower_case": False}, False),
  (["The", "##S"], {"do_lower_case": True, "model_max_length": 512}, True),
  (["The", "##S"], {"model_max_length": 512}, False),
))
def test_the_casing_is_found(tmp_path, pieces, config, expected):
  path = write(
      tmp_path / "vocab.txt", "\n".join([*SPECIAL_TOKENS, *pieces]) + "\n")
  if config is not None:
    write(tmp_path / "tokenizer_config.json", json.dumps(config))
  assert BertTokenizer.from_file(path).do_lower_case == expected
  for given in (True, False):
    assert BertTokenizer.from_file(path, given).do_lower_case == given


def test_a_casing_that_cannot_be_told_is_asked_for(tmp_path):
  path = write(
      tmp_path / "vocab.txt", "\n".join([*SPECIAL_TOKENS, "The", "##s"]))
  with pytest.raises(InputError, match="give --do_lower_case"):
    BertTokenizer.from_file(path)


def test_a_configuration_of_another_tokenizer_is_refused(tmp_path):
  path = write(tmp_path / "vocab.txt", GOOD)
  write(tmp_path / "tokenizer_config.json", json.dumps(
      {"do_lower_case": True, "strip_accents": False}))
  with pytest.raises(InputError, match="strip_accents is False"):
    BertTokenizer.from_file(path)


def tokenizer_json(entries, *, normalizer=None, **changes):
  """What the tokenizers of Hugging Face write, as far as it is read."""
  model = {
    "type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 100,
    "continuing_subword_prefix": "##",
    # Not in the order of their ids.
    "vocab": {entry: i for i, entry in reversed(list(enumerate(entries)))}}
  return {
    "version": "1.0",
    "added_tokens": [
      {"id": i, "content": token, "special": True}
      for i, token in enumerate(SPECIAL_TOKENS)],
    "normalizer": {
      "type": "BertNormalizer", "clean_text": True,
      "handle_chinese_chars": True, "strip_accents": None, "lowercase": True,
      **(normalizer or {})},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {**model, **changes.pop("model", {})}, **changes}


CASED = [*SPECIAL_TOKENS, "The", "##S", "##s"]
UNCLEAR = [*SPECIAL_TOKENS, "The", "##s"]


@pytest.mark.parametrize("config, lowercase, entries, expected", (
  # The configuration, then tokenizer.json, then the vocabulary.
  ({"do_lower_case": False}, True, CASED, False),
  ({"do_lower_case": True}, False, CASED, True),
  ({"tokenizer_class": "BertTokenizer"}, True, CASED, True),
  ({"tokenizer_class": "BertTokenizerFast"}, False, UNCLEAR, False),
  ({"do_lower_case": None}, True, UNCLEAR, True),
  (None, True, UNCLEAR, True),
  (None, False, [*SPECIAL_TOKENS, "the"], False),
  ({"tokenizer_class": "BertTokenizer"}, None, CASED, False),
))
def test_the_casing_of_a_hugging_face_directory(
    tmp_path, config, lowercase, entries, expected):
  # A name says nothing.
  folder = tmp_path / ("bert-cased" if expected else "bert-uncased")
  folder.mkdir()
  path = write(folder / "vocab.txt", "\n".join(entries) + "\n")
  if config is not None:
    write(folder / "tokenizer_config.json", json.dumps(config))
  if lowercase is not None:
    write(folder / "tokenizer.json", json.dumps(
        tokenizer_json(entries, normalizer={"lowercase": lowercase})))
  assert BertTokenizer.from_file(path).do_lower_case is expected


@pytest.mark.parametrize("name, expected", (
  ("uncased", True), ("cased", False), ("multilingual-cased", False),
  # No capital among its entries: the release is lower-cased.
  ("chinese", True)))
def test_the_released_vocabularies_tell_their_casing(
    shared, tmp_path, name, expected):
  source = shared / "data" / "vocabularies" / f"bert-base-{name}-vocab.txt"
  path = tmp_path / "vocab.txt"
  path.write_bytes(source.read_bytes())
  entries = vocabulary_files.read_vocabulary(str(path))
  assert vocabulary_files.find_casing(str(path), entries) is expected


@pytest.mark.parametrize("key, value, normalizer", (
  ("strip_accents", True, {"lowercase": False, "strip_accents": True}),
  ("tokenize_chinese_chars", False, {"handle_chinese_chars": False}),
  ("do_basic_tokenize", False, {"clean_text": False}),
  ("tokenizer_class", "BertJapaneseTokenizer", {"type": "Lowercase"}),
))
def test_a_tokenizer_of_other_ids_is_refused_unless_asked_for(
    tmp_path, key, value, normalizer):
  path = write(tmp_path / "vocab.txt", "\n".join(CASED) + "\n")
  # Whether the casing stands beside it or is that of the vocabulary.
  for casing in ({"do_lower_case": False}, {}):
    write(tmp_path / "tokenizer_config.json",
          json.dumps({**casing, key: value}))
    with pytest.raises(InputError, match=f"{key} is .*--nodo_lower_case"):
      BertTokenizer.from_file(path)
  (tmp_path / "tokenizer_config.json").unlink()
  write(tmp_path / "tokenizer.json", json.dumps(
      tokenizer_json(CASED, normalizer=normalizer)))
  with pytest.raises(InputError, match="tokenizer.json: .*--nodo_lower_case"):
    BertTokenizer.from_file(path)
  assert BertTokenizer.from_file(path, do_lower_case=False).vocab_size == 8


def test_the_vocabulary_of_a_tokenizer_json(tmp_path):
  path = write(tmp_path / "tokenizer.json", json.dumps(tokenizer_json(CASED)))
  tokenizer = BertTokenizer.from_file(path)
  assert tokenizer.vocabulary == tuple(CASED)
  assert tokenizer.do_lower_case is True


@pytest.mark.parametrize("changes, message", (
  ({"model": {"type": "BPE"}}, "model.type is 'BPE'; BERT's is 'WordPiece'"),
  ({"model": {"continuing_subword_prefix": ""}}, "subword_prefix is ''"),
  ({"model": {"vocab": {"[PAD]": 0, "the": 2}}}, "ids must be 0 to 1"),
  ({"model": {"vocab": {"[PAD]": 0, "the": "1"}}}, "ids must be 0 to 1"),
  ({"model": {"vocab": {"a\nb": 0}}}, "a line end"),
  ({"model": {"vocab": {"the": 0}}, "added_tokens": []}, "MASK. missing"),
  ({"model": {"vocab": []}}, "an object with model.vocab"),
  ({"added_tokens": [{"id": 8, "content": "<E>"}]}, "added_tokens: <E>"),
))
def test_a_tokenizer_json_of_another_kind_is_refused(
    tmp_path, changes, message):
  path = write(
      tmp_path / "tokenizer.json", json.dumps(tokenizer_json(CASED, **changes)))
  with pytest.raises(InputError, match=message) as error:
    BertTokenizer.from_file(path)
  assert str(error.value).startswith(path)


def test_an_entry_too_long_for_the_tokenizer_is_refused():
  # 256 bytes, the ## apart, are the most.
  entries = [*SPECIAL_TOKENS, "a" * 256, "##" + "é" * 128]
  assert BertTokenizer(entries, do_lower_case=False).vocab_size == 7
  for entry in ("a" * 257, "##" + "é" * 129):
    with pytest.raises(InputError, match="vocabulary:8: .* at most 256"):
      BertTokenizer([*entries, entry], do_lower_case=False)


def test_the_released_vocabularies_are_read_whole(shared):
  sizes = {"bert-base-uncased": 30522, "bert-base-cased": 28996,
           "bert-base-multilingual-cased": 119547, "bert-base-chinese": 21128}
  for name, size in sizes.items():
    path = str(shared / "data" / "vocabularies" / f"{name}-vocab.txt")
    assert len(vocabulary_files.read_vocabulary(path)) == size


def test_the_examples_in_docstrings_hold():
  assert doctest.testmod(vocabulary_files).failed == 0
