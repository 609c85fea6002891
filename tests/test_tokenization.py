"""The tokenizer against hand-worked cases, golden ids and plain Python."""

import doctest
import gzip
import json
import shutil
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import tokenization
from bert_tf import unicode_tables
from bert_tf.config import InputError
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS
import reference_tokenizer as reference

RELEASED = {
  "bert-base-uncased": True, "bert-base-cased": False,
  "bert-base-chinese": True, "bert-base-multilingual-cased": False,
}
needs_the_unicode_version = pytest.mark.skipif(
    unicodedata.unidata_version != unicode_tables.UNICODE_VERSION,
    reason="the reference needs Python 3.11, which has Unicode 14.0")

PAD, UNK, CLS, SEP, MASK = range(5)
TOY = [*SPECIAL_TOKENS, "un", "##want", "##ed", "run", "##n", "##ing", ",",
       "[", "mask", "]", "a"]


def released_path(shared, name):
  return str(shared / "data" / "vocabularies" / f"{name}-vocab.txt")


@pytest.fixture(scope="module")
def toy():
  return BertTokenizer(TOY, do_lower_case=True)


def expect_reference_ids(tokenizer, texts):
  ids = {entry: number for number, entry in enumerate(tokenizer.vocabulary)}
  different = []
  for start in range(0, len(texts), 65536):
    batch = texts[start:start + 65536]
    found = tokenizer.tokenize(batch).to_list()
    different += [
      (text, row) for text, row in zip(batch, found)
      if row != reference.tokenize(
          text, ids, do_lower_case=tokenizer.do_lower_case)]
  assert not different, (len(different), ascii(different[:5]))


def test_pieces_are_those_worked_out_by_hand(toy):
  texts = ["UNwantéd, running", "unwanty a", "", "a[MASK]"]
  assert toy.tokenize(texts).to_list() == [
    [5, 6, 7, 11, 8, 9, 10], [UNK, 15], [], [15, 12, 13, 14]]
  assert toy.tokenize(texts).dtype == tf.int32


def test_a_word_of_201_characters_is_unknown_and_one_of_200_is_not():
  entries = [*SPECIAL_TOKENS, "a", "##a", "😀", "##😀", "é", "##é"]
  tokenizer = BertTokenizer(entries, do_lower_case=False)
  texts = ["a" * 200, "a" * 201, "a " + "😀" * 201 + " a", "é" * 200]
  assert tokenizer.tokenize(texts).to_list() == [
    [5] + [6] * 199, [UNK], [5, UNK, 5], [9] + [10] * 199]
  # The length counts after normalisation: 200 letters, each with a mark.
  lowered = BertTokenizer(entries, do_lower_case=True)
  assert lowered.tokenize(["e\u0301" * 200, "a\u0301" * 200]).to_list() == [
    [UNK], [5] + [6] * 199]


def test_special_tokens_are_kept_whole_only_where_allowed(toy):
  texts = ["a[MASK]a [SEP],[CLS][PAD]", "[mask] [MASK", "SK] [UNK]"]
  assert toy.tokenize(texts, allow_special_tokens=True).to_list() == [
    [15, MASK, 15, SEP, 11, CLS, PAD], [12, 13, 14, 12, 13],
    [UNK, 14, UNK]]
  assert toy.tokenize(texts[1:2]).to_list() == [[12, 13, 14, 12, 13]]


def test_a_special_token_is_no_context_for_sigma():
  tokenizer = BertTokenizer(
      [*SPECIAL_TOKENS, "ας", "ασ", "α"], do_lower_case=True)
  found = tokenizer.tokenize(["ΑΣ[MASK]Α"], allow_special_tokens=True)
  assert found.to_list() == [[5, MASK, 7]]


@pytest.mark.parametrize("name", RELEASED)
def test_golden_ids_of_the_original(shared, name):
  path = shared / "golden/tokenizer/original_tokenizer_1000x4.jsonl.gz"
  with gzip.open(path, "rt", encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
  tokenizer = BertTokenizer.from_file(released_path(shared, name))
  assert tokenizer.do_lower_case == RELEASED[name]
  found = tokenizer.tokenize([row["text"] for row in rows]).to_list()
  assert len(rows) == 1000
  assert [
    row["id"] for row, ids in zip(rows, found) if ids != row[name]] == []


def test_golden_ids_of_other_projects(shared):
  path = shared / "golden/tokenizer/third_party.jsonl"
  rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
  tokenizers = {}
  for row in rows:
    if row["vocab"] not in tokenizers:
      tokenizers[row["vocab"]] = BertTokenizer.from_file(
          released_path(shared, row["vocab"]), row["lower"])
    tokenizer = tokenizers[row["vocab"]]
    # Two of them hold a literal [SEP] or [MASK], which they keep whole.
    texts = [row["text"]] + [row["pair"]] * (row["pair"] is not None)
    segments = [
      tokenizer.tokenize([text], allow_special_tokens=True) for text in texts]
    if row["special"]:
      found = tokenizer.pack(*segments)["input_ids"][0].numpy().tolist()
    else:
      found = tf.concat(segments, axis=1).to_list()[0]
    assert found == row["ids"], row["id"]
  assert len(rows) == 59


@needs_the_unicode_version
@pytest.mark.parametrize("do_lower_case", (True, False))
def test_every_code_point_under_a_vocabulary_of_single_characters(
    do_lower_case):
  texts = [f"a{chr(code)}b" for code in reference.CODE_POINTS]
  split = [
    reference.split_words(text, do_lower_case=do_lower_case)
    for text in texts]
  # Every piece that can occur is an entry: nothing hides behind [UNK].
  entries = dict.fromkeys(SPECIAL_TOKENS)
  for row in split:
    for word in row:
      entries[word[0]] = None
      entries.update(dict.fromkeys(["##" + c for c in word[1:]]))
  ids = {entry: number for number, entry in enumerate(entries)}
  tokenizer = BertTokenizer(list(entries), do_lower_case=do_lower_case)
  different = []
  for start in range(0, len(texts), 65536):
    found = tokenizer.tokenize(texts[start:start + 65536]).to_list()
    for offset, row in enumerate(found):
      expected = [
        ids["##" * (place > 0) + c]
        for word in split[start + offset] for place, c in enumerate(word)]
      if row != expected:
        different.append(hex(reference.CODE_POINTS[start + offset]))
  assert not different


@pytest.mark.slow
@needs_the_unicode_version
@pytest.mark.parametrize("name", RELEASED)
def test_every_code_point_under_a_released_vocabulary(shared, name):
  tokenizer = BertTokenizer.from_file(released_path(shared, name))
  texts = [f"a{chr(code)}b" for code in reference.CODE_POINTS]
  expect_reference_ids(tokenizer, texts)


# Packing, worked out by hand. Pieces of a are 10, 11, ..., of b 20, 21, ...:
# sizes of a and b, max_seq_length, input_ids, segment_ids.
PACKED = (
  (3, None, None, [2, 10, 11, 12, 3], [0] * 5),
  (3, None, 4, [2, 10, 11, 3], [0] * 4),
  (0, None, None, [2, 3], [0, 0]),
  (2, 1, None, [2, 10, 11, 3, 20, 3], [0, 0, 0, 0, 1, 1]),
  (0, 0, None, [2, 3, 3], [0, 0, 1]),
  # Room for five: the longer gives way, then b on the tie.
  (5, 5, 8, [2, 10, 11, 12, 3, 20, 21, 3], [0] * 5 + [1] * 3),
  (7, 2, 8, [2, 10, 11, 12, 3, 20, 21, 3], [0] * 5 + [1] * 3),
  (2, 7, 8, [2, 10, 11, 3, 20, 21, 22, 3], [0] * 4 + [1] * 4),
  (1, 1, 4, [2, 10, 3, 3], [0, 0, 0, 1]),
)


def ragged(*rows):
  return tf.RaggedTensor.from_row_lengths(
      tf.constant([i for row in rows for i in row], tf.int32),
      tf.constant([len(row) for row in rows], tf.int64))


@pytest.mark.parametrize("size_a,size_b,length,input_ids,segment_ids", PACKED)
def test_packing_is_that_worked_out_by_hand(
    toy, size_a, size_b, length, input_ids, segment_ids):
  ids_a = ragged(range(10, 10 + size_a))
  ids_b = None if size_b is None else ragged(range(20, 20 + size_b))
  found = toy.pack(ids_a, ids_b, max_seq_length=length)
  assert {name: value.numpy().tolist() for name, value in found.items()} == {
    "input_ids": [input_ids], "input_mask": [[1] * len(input_ids)],
    "segment_ids": [segment_ids]}
  assert {value.dtype for value in found.values()} == {tf.int32}


def test_rows_are_padded_to_the_longest_or_to_the_length(toy):
  ids_a, ids_b = ragged([10], [], [11, 12, 13]), ragged([20, 21], [], [22])
  expected = [
    [2, 10, 3, 20, 21, 3, 0], [2, 3, 3, 0, 0, 0, 0], [2, 11, 12, 13, 3, 22, 3]]
  found = toy.pack(ids_a, ids_b, max_seq_length=8)
  assert found["input_ids"].numpy().tolist() == expected
  assert found["input_mask"].numpy().tolist() == [
    [1] * 6 + [0], [1] * 3 + [0] * 4, [1] * 7]
  assert found["segment_ids"].numpy().tolist() == [
    [0, 0, 0, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0, 0], [0] * 5 + [1] * 2]
  found = toy.pack(ids_a, ids_b, max_seq_length=8, pad_to_max_length=True)
  assert found["input_ids"].numpy().tolist() == [
    row + [0] for row in expected]
  assert found["input_mask"].shape == found["segment_ids"].shape == (3, 8)


def test_truncation_equals_taking_one_piece_at_a_time():
  for room in range(1, 12):
    for size_a in range(12):
      for size_b in range(12):
        kept_a, kept_b = size_a, size_b
        while kept_a + kept_b > room:
          if kept_a > kept_b:
            kept_a -= 1
          else:
            kept_b -= 1
        found = tokenization.truncated_sizes(size_a, size_b, room=room)
        assert [int(size) for size in found] == [kept_a, kept_b]


@pytest.mark.parametrize("options,message", (
  ({"max_seq_length": 2}, "needs? at least 3"),
  ({"pad_to_max_length": True}, "needs max_seq_length"),
))
def test_lengths_that_cannot_be_are_refused(toy, options, message):
  with pytest.raises(InputError, match=message):
    toy(["a"], **options)


def test_a_pair_needs_room_for_three_special_tokens(toy):
  with pytest.raises(InputError, match="received 3; .* at least 4"):
    toy(["a"], ["a"], max_seq_length=3)


def test_texts_and_pairs_must_be_equally_many(toy):
  with pytest.raises(InputError, match="equally many; received 2 and 1"):
    toy(["a", "a"], ["a"])

  @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
  def graph(texts, pairs):
    return toy(texts, pairs)

  with pytest.raises(tf.errors.InvalidArgumentError, match="equally many"):
    graph(tf.constant(["a", "a"]), tf.constant(["a"]))


@pytest.mark.parametrize("texts", (
  "a text", b"a text", tf.constant("a"), tf.constant([["a"]]), [["a"]], [1],
  ["a", None]))
def test_anything_but_a_vector_of_strings_is_refused(toy, texts):
  with pytest.raises(InputError, match="must be a list of strings"):
    toy.tokenize(texts)
  with pytest.raises(InputError, match="must be a list of strings"):
    toy(texts)


def test_a_scalar_of_unknown_rank_is_an_error_and_not_a_crash(toy):
  @tf.function(input_signature=[tf.TensorSpec(None, tf.string)])
  def graph(text):
    return toy(text)["input_ids"]

  assert graph(tf.constant(["a"])).numpy().tolist() == [[2, 15, 3]]
  with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
    graph(tf.constant("a"))


@pytest.mark.parametrize("texts", (
  [], [""], ["", "a", ""], [" ", "unwanted a, a", "a"]))
def test_lists_tensors_data_sets_and_graphs_agree(toy, texts):
  expected = [toy.tokenize([text]).to_list()[0] for text in texts]
  tensor = tf.constant(texts, tf.string)
  assert toy.tokenize(texts).to_list() == expected
  assert toy.tokenize(tensor).to_list() == expected
  assert toy.tokenize(np.array(texts, object)).to_list() == expected
  eager = toy(texts, texts, max_seq_length=6)
  assert eager["input_ids"].shape[0] == len(texts)
  in_graph = tf.function(lambda x: toy(x, x, max_seq_length=6))(tensor)
  data = tf.data.Dataset.from_tensors(tensor).map(
      lambda x: toy(x, x, max_seq_length=6))
  for found in (in_graph, next(iter(data))):
    for name, value in eager.items():
      np.testing.assert_array_equal(found[name], value)


def test_in_a_data_set_a_fixed_length_is_a_static_shape(toy):
  data = tf.data.Dataset.from_tensor_slices(["a", "a,a"]).batch(2).map(
      lambda x: toy(x, max_seq_length=8, pad_to_max_length=True))
  assert data.element_spec["input_ids"].shape.as_list() == [None, 8]
  # AutoGraph may wrap the error; the message stays.
  with pytest.raises(Exception, match="batch a dataset"):
    tf.data.Dataset.from_tensor_slices(["a"]).map(toy)


def test_a_saved_model_holds_the_tokenizer_once_and_works_elsewhere(
    shared, tmp_path):
  tokenizer = BertTokenizer.from_file(
      released_path(shared, "bert-base-uncased"))
  module = tf.Module()
  module.tokenizer = tokenizer

  @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
  def single(text):
    return tokenizer(text, max_seq_length=16)

  @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
  def pair(text, text_pair):
    return tokenizer(text, text_pair, max_seq_length=16)

  module.single, module.pair = single, pair
  tf.saved_model.save(
      module, str(tmp_path / "before"),
      signatures={"single": single, "pair": pair})
  shutil.move(tmp_path / "before", tmp_path / "after")
  loaded = tf.saved_model.load(str(tmp_path / "after"))
  texts = ["Hello, world", "", "ΟΔΥΣΣΕΥΣ 中文"]
  expected = tokenizer(texts, texts[::-1], max_seq_length=16)
  for found in (
      loaded.pair(tf.constant(texts), tf.constant(texts[::-1])),
      loaded.signatures["pair"](
          text=tf.constant(texts), text_pair=tf.constant(texts[::-1]))):
    for name, value in expected.items():
      np.testing.assert_array_equal(found[name], value)
  # The WordPiece model of this vocabulary has 1.31 MB, the Unicode table 0.2.
  size = (tmp_path / "after" / "saved_model.pb").stat().st_size
  assert size < 2.2e6


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


def test_the_examples_in_docstrings_hold():
  assert doctest.testmod(tokenization).failed == 0
