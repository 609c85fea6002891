"""The tokenizer against hand-worked cases, golden ids and plain Python."""

import doctest
import gzip
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import tokenization
from bert_tf.config import InputError
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS

RELEASED = {
  "bert-base-uncased": True, "bert-base-cased": False,
  "bert-base-chinese": True, "bert-base-multilingual-cased": False,
}

PAD, UNK, CLS, SEP, MASK = range(5)
TOY = [*SPECIAL_TOKENS, "un", "##want", "##ed", "run", "##n", "##ing", ",",
       "[", "mask", "]", "a"]


def released_path(shared, name):
  return str(shared / "data" / "vocabularies" / f"{name}-vocab.txt")


@pytest.fixture(scope="module")
def toy():
  return BertTokenizer(TOY, do_lower_case=True)


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
  # The WordPiece model of this vocabulary has 1.31 MB, the tables have 0.17,
  # functions the rest.
  size = (tmp_path / "after" / "saved_model.pb").stat().st_size
  assert size < 2.6e6


def test_the_examples_in_docstrings_hold():
  assert doctest.testmod(tokenization).failed == 0
