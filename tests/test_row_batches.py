"""Rows, their batches and their plain answers, worked out by hand."""

import numpy as np
import pytest

from bert_tf.config import InputError
from bert_tf.row_batches import Answerer
from bert_tf.row_batches import check_row
from bert_tf.row_batches import make_signature
from bert_tf.row_batches import Spec

TEXT = Spec("string", (None,))
PADDED = make_signature({"text": TEXT}, {
  "words": Spec("string", (None, None)), "starts": Spec("int32", (None, None)),
  "scores": Spec("float32", (None, None)), "vector": Spec("float32", (None, 2)),
  "size": Spec("int64", (None,))})
CHOICES = make_signature(
    {"text": TEXT, "choices": Spec("string", (None, None))},
    {"scores": Spec("float32", (None, None))})


class Words:
  """Splits texts, pads as signatures do, and notes what it was asked."""

  def __init__(self):
    self.calls = []

  def __call__(self, signature, columns):
    texts = columns["text"].tolist()
    self.calls.append(texts)
    words = [text.split() for text in texts]
    width = max(map(len, words))
    pad = lambda rows, fill: np.array(  # noqa: E731
        [[*row, *[fill] * (width - len(row))] for row in rows])
    return {
      "words": pad([[w.encode() for w in row] for row in words], b"").astype(
          object),
      "starts": pad([list(range(len(row))) for row in words], -1),
      "scores": pad([[0.1] * len(row) for row in words], 0).astype(np.float32),
      "vector": np.zeros((len(texts), 2), np.float32),
      "size": np.array(list(map(len, words)))}


def answerer(call, signature=PADDED):
  return Answerer("export/1", {"serving_default": signature}, call)


def test_answers_are_plain_in_order_and_without_padding():
  words = Words()
  answers = answerer(words)(["a b c", "", "caf\u00e9"])
  vector = [0.0, 0.0]
  assert answers == [
    {"words": ["a", "b", "c"], "starts": [0, 1, 2], "scores": [0.1] * 3,
     "vector": vector, "size": 3},
    {"words": [], "starts": [], "scores": [], "vector": vector, "size": 0},
    {"words": ["caf\u00e9"], "starts": [0], "scores": [0.1],
     "vector": vector, "size": 1}]
  assert [type(answers[0][name]) for name in ("size", "scores")] == [int, list]
  assert len(words.calls) == 1


def test_texts_of_like_length_go_together():
  words = Words()
  texts = ["a" * n for n in (1, 9, 2, 8, 3, 7)]
  sizes = [a["size"] for a in answerer(words)(texts, batch_size=2)]
  assert sizes == [1] * 6
  assert [[len(t) for t in call] for call in words.calls] == [
    [9, 8], [7, 3], [2, 1]]


def test_a_batch_has_only_so_many_characters():
  words = Words()
  answerer(words)(["a" * 40000, "b" * 40000, "c", "d" * 20000, "e" * 20000])
  # 65,536 at most, each row as long as the longest.
  assert [[t[0] for t in call] for call in words.calls] == [
    ["a"], ["b"], ["d", "e", "c"]]


def test_rows_of_other_shapes_are_other_batches():
  calls = []

  def call(signature, columns):
    calls.append(columns["choices"].tolist())
    return {"scores": np.zeros(columns["choices"].shape, np.float32)}

  answers = answerer(call, CHOICES)(
      ["x", "x", "x"], [["a", "b"], ["a", "b", "c"], ["c", "d"]])
  assert calls == [[["a", "b"], ["c", "d"]], [["a", "b", "c"]]]
  # Zeros are scores here, since the width is that of the choices.
  assert answers == [{"scores": [0.0] * n} for n in (2, 3, 2)]


def test_numbers_are_short_and_the_same_float32():
  values = np.array(
      [0, 0.1, -1 / 3, 1e-30, 123456.789, np.inf, 16777217, 7e-7], np.float32)
  [row] = answerer(
      lambda *_: {"vector": values[None]})(["a"])
  assert row["vector"] == [
    0.0, 0.1, -0.33333334, pytest.approx(1e-30, rel=1e-7), 123456.79,
    np.inf, 16777216.0, 7e-7]
  assert np.array_equal(np.float32(row["vector"]), values)


def test_no_rows_have_no_answers():
  assert answerer(None)([]) == []


def test_columns_come_in_order_or_by_name():
  asked = []
  signature = make_signature(
      {"context": TEXT, "question": TEXT}, {"size": Spec("int32", (None,))})

  def call(_, columns):
    asked.append({name: column.tolist() for name, column in columns.items()})
    return {"size": np.array([1])}

  ask = answerer(call, signature)
  ask(["q"], ["c"])
  ask(["q"], context=["c"])
  ask(context=["c"], question=["q"])
  assert asked == [{"question": ["q"], "context": ["c"]}] * 3


@pytest.mark.parametrize("columns, named, message", [
  (["one text"], {}, "text: received 'one text'; must be a list"),
  ([["a"], ["b"]], {}, "Received 2 columns; the signature .* takes text"),
  ([["a"]], {"text": ["a"]}, "Received 1 columns, text; the signature"),
  ([], {}, "Received 0 columns; the signature"),
  ([], {"texts": ["a"]}, "row 0: received texts; the signature takes text"),
  ([["a", 5]], {}, "row 1: text: received 5; must be a text"),
  ([["a"]], {"signature": "other"},
   "export/1: has no signature 'other'; there are serving_default"),
])
def test_what_does_not_fit_is_refused(columns, named, message):
  with pytest.raises(InputError, match=message):
    answerer(None)(*columns, **named)


def test_columns_of_two_lengths_are_refused():
  with pytest.raises(InputError, match="received 2 of text, 1 of choices"):
    answerer(None, CHOICES)(["a", "b"], [["c", "d"]])


@pytest.mark.parametrize("value", ["a", [["a"]], [5, "a"], None])
def test_choices_must_be_a_list_of_texts(value):
  with pytest.raises(InputError, match="x:7: choices: received .* 1 deep"):
    check_row(CHOICES, {"text": "t", "choices": value}, "x:7")


@pytest.mark.parametrize("value", ["a", [[1], [2, 3]], ["a"], [1 << 40], 3])
def test_numbers_must_be_numbers(value):
  signature = make_signature({"input_ids": Spec("int32", (None, None))}, {})
  with pytest.raises(InputError, match="x:7: input_ids: received"):
    check_row(signature, {"input_ids": value}, "x:7")
  # As JSON Lines are read: numbers as they are written.
  row = check_row(signature, {"input_ids": ["5", "6"]}, "x:7")
  assert row["input_ids"].tolist() == [5, 6]


def test_outputs_without_a_row_for_each_are_refused():
  with pytest.raises(InputError, match=r"'size' .* shape \(\) for 1 rows"):
    answerer(lambda *_: {"size": np.array(1)})(["a"])
