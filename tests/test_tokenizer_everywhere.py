"""The same ids, ranges and windows wherever the tokenizer runs."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS
from saved_model_loader import Loader
from saved_model_loader import LoaderError
import tokenizer_servable

ENTRIES = [*SPECIAL_TOKENS, "un", "##want", "##ed", "a", "##a", "σ", "ς", ",",
           "中", "\u1112", "##\u1161\u11ab"]
TEXTS = (
  [], [""], ["", ""], ["unwanted"],
  ["", "UNWANTÉD, aΣ a\u0301a", " ", "[MASK] 한 中\u0301", "a" * 201, "a" * 99])
SIGNATURES = ("tokenize", "offsets", "offsets_special", "text", "windows")


@pytest.fixture(scope="module")
def tokenizer():
  return BertTokenizer(ENTRIES, do_lower_case=True)


@pytest.fixture(scope="module")
def moved(tokenizer, tmp_path_factory):
  """A SavedModel whose folder has been moved."""
  path = tmp_path_factory.mktemp("tokenizer")
  tokenizer_servable.save(tokenizer, str(path / "before"))
  shutil.move(path / "before", path / "after")
  return str(path / "after")


@pytest.fixture(scope="module")
def in_python(moved):
  """(signature, inputs) -> outputs, in a reloaded SavedModel."""
  loaded = tf.saved_model.load(moved)

  def run(name, inputs):
    return {key: value.numpy() for key, value in loaded.signatures[name](**{
      key: tf.constant(texts, tf.string)
      for key, texts in inputs.items()}).items()}

  run.loaded = loaded  # its functions do not keep it alive
  return run


@pytest.fixture(scope="module")
def in_cpp(moved):
  with Loader() as loader:
    yield lambda name, inputs: loader.ask(
        saved_model=moved, signature=name, inputs=inputs)


def inputs_of(signature, texts):
  inputs = {"text": texts}
  if signature == "windows":
    inputs["text_pair"] = texts[::-1]
  return inputs


def eager(tokenizer, signature, texts):
  """The outputs, text by text as far as that is possible."""
  if signature == "windows":
    found = tokenizer.pack_windows(
        tokenizer.tokenize(texts), tokenizer.tokenize(texts[::-1]),
        max_seq_length=16, doc_stride=4, max_query_length=3,
        pad_to_multiple_of=8)
    return {**found.inputs, **{
      name: getattr(found, name)
      for name in ("example", "start", "size", "position")}}
  rows = [
    tokenizer.tokenize_with_offsets(
        [text], allow_special_tokens=signature == "offsets_special")
    for text in texts]
  if signature == "text":
    return {"text": np.array(
        [tokenizer.detokenize(ids)[0].numpy() for ids, _, _ in rows], object)}
  found = {
    name: np.concatenate([[], *(row[k].flat_values for row in rows)])
    for k, name in enumerate(("ids", "start", "end"))}
  if signature == "tokenize":
    del found["start"], found["end"]
  sizes = [row[0].flat_values.shape[0] for row in rows]
  return {**found, "splits": np.cumsum([0, *sizes])}


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_saved_model_and_cpp_answer_as_eager_mode(
    tokenizer, in_python, in_cpp, texts, signature):
  expected = eager(tokenizer, signature, texts)
  for run in (in_python, in_cpp):
    found = run(signature, inputs_of(signature, texts))
    assert set(found) == set(expected)
    for name, value in expected.items():
      value = np.asarray(value)
      if name == "text":  # str from C++
        found[name] = np.array([
          text.encode("utf-8") if isinstance(text, str) else text
          for text in found[name]], object)
      np.testing.assert_array_equal(found[name], value, name)
      assert found[name].shape == value.shape


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("special", (False, True))
def test_ranges_are_the_same_in_eager_mode_data_sets_and_graphs(
    tokenizer, texts, special):
  def offsets(batch):
    return tokenizer.tokenize_with_offsets(
        batch, allow_special_tokens=special)

  expected = eager(tokenizer, "offsets_special" if special else "offsets",
                   texts)
  tensor = tf.constant(texts, tf.string)
  data = tf.data.Dataset.from_tensors(tensor).map(offsets)
  for found in (offsets(texts), offsets(tensor),
                offsets(np.array(texts, object)), tf.function(offsets)(tensor),
                next(iter(data))):
    for name, rows in zip(("ids", "start", "end"), found, strict=True):
      assert rows.dtype == tf.int32
      np.testing.assert_array_equal(rows.flat_values, expected[name])
      np.testing.assert_array_equal(rows.row_splits, expected["splits"])


@pytest.mark.parametrize("signature", (
  "tokenize", "offsets", "text", "stored", "stored_offsets"))
def test_a_scalar_is_an_error_in_cpp_and_the_next_batch_is_answered(
    in_cpp, signature):
  with pytest.raises(LoaderError, match="[Ss]hape"):
    in_cpp(signature, {"text": "a"})
  assert in_cpp(signature, {"text": ["a"]})


@pytest.mark.parametrize("texts", (
  "a text", tf.constant("a"), tf.constant([["a"]]), [1], ["a", None]))
def test_anything_but_a_vector_of_strings_is_refused(tokenizer, texts):
  with pytest.raises(ValueError, match="texts: must be a list of strings"):
    tokenizer.tokenize_with_offsets(texts)


def test_a_scalar_of_unknown_rank_is_an_error(tokenizer):
  graph = tf.function(
      tokenizer.tokenize_with_offsets,
      input_signature=[tf.TensorSpec(None, tf.string)])
  assert graph(tf.constant(["a"]))[2].to_list() == [[1]]
  with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
    graph(tf.constant("a"))
