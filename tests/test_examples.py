"""Examples in memory: pieces, orders, batches, outputs in their places."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import examples
from bert_tf.data.input_pipeline import Replicas
from bert_tf.examples import Examples
from bert_tf.tokenization import BertTokenizer

TOKENIZER = BertTokenizer(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"],
    do_lower_case=True)


def encoded(texts, pairs=None, *, choices=1, **targets):
  return Examples(
      examples.tokenize(TOKENIZER, texts, pairs, max_seq_length=8),
      {name: np.array(x) for name, x in targets.items()}, choices)


def test_texts_and_pairs_become_pieces(caplog):
  with caplog.at_level("INFO"):
    pieces = examples.tokenize(
        TOKENIZER, ["a b", "", "a a a a a"], ["c", "b", "b b"],
        max_seq_length=8)
  assert pieces["input_ids"].to_list() == [
    [2, 5, 6, 3, 7, 3], [2, 3, 6, 3], [2, 5, 5, 5, 3, 6, 6, 3]]
  assert pieces["segment_ids"].to_list() == [
    [0, 0, 0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1]]
  assert [record.message for record in caplog.records] == [
    "1 of 3 sequences are longer than 8 pieces and were cut (33.3 %).",
    "1 of 3 sequences have an empty text (33.3 %)."]
  pieces = examples.tokenize(TOKENIZER, ["a b"], max_seq_length=8)
  assert pieces["input_ids"].to_list() == [[2, 5, 6, 3]]


def test_texts_without_a_piece_and_texts_without_end_are_counted(caplog):
  with caplog.at_level("INFO"):
    pieces = examples.tokenize(
        TOKENIZER, ["", "\u200b", "a", "b " * 500_000] * 2,
        ["a", " \n", "", "c"] * 2, max_seq_length=8)
  assert pieces["input_ids"].to_list() == [
    [2, 3, 5, 3], [2, 3, 3], [2, 5, 3, 3], [2, 6, 6, 6, 6, 3, 7, 3]] * 2
  assert [record.message for record in caplog.records] == [
    "2 of 8 sequences are longer than 8 pieces and were cut (25.0 %).",
    "4 of 8 sequences have an empty text (50.0 %).",
    "4 of 8 sequences have an empty second text (50.0 %)."]


def test_many_texts_keep_their_order():
  texts = ["a", "a b", "c b a"] * 2000
  pieces = examples.tokenize(TOKENIZER, texts, max_seq_length=8)
  assert pieces["input_ids"].to_list() == (
      [[2, 5, 3], [2, 5, 6, 3], [2, 7, 6, 5, 3]] * 2000)


def test_long_texts_become_windows(caplog):
  with caplog.at_level("INFO"):
    pieces, documents = examples.tokenize_windows(
        TOKENIZER, ["a b c", "", "a b c a", "a b c a b c a b", "b"],
        max_seq_length=5, doc_stride=2)
  assert pieces["input_ids"].to_list() == [
    [2, 5, 6, 7, 3],  # exactly the length
    [2, 3],  # empty
    [2, 5, 6, 7, 3], [2, 7, 5, 3],  # one piece more
    [2, 5, 6, 7, 3], [2, 7, 5, 6, 3], [2, 6, 7, 5, 3], [2, 5, 6, 3],
    [2, 6, 3]]
  assert documents.tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4]
  assert ("2 of 5 texts are longer than 5 pieces; with the others they are 9 "
          "windows (40.0 %)." in caplog.text)
  assert "1 of 5 texts are empty (20.0 %)." in caplog.text


def test_windows_of_many_texts_keep_their_order():
  texts = ["a b c a", "b", ""] * 100  # More than go together.
  pieces, documents = examples.tokenize_windows(
      TOKENIZER, texts, max_seq_length=5, doc_stride=3)
  assert pieces["input_ids"].to_list() == (
      [[2, 5, 6, 7, 3], [2, 5, 3], [2, 6, 3], [2, 3]] * 100)
  assert documents.tolist() == [
    3 * i + k for i in range(100) for k in (0, 0, 1, 2)]


def test_a_window_has_the_targets_of_its_text():
  pieces, documents = examples.tokenize_windows(
      TOKENIZER, ["a b c a", "b"], max_seq_length=5, doc_stride=3)
  made = Examples(pieces, {"label": np.array([8, 9])}, documents=documents)
  assert made.number == 3 and made.lengths.tolist() == [5, 3, 3]
  batch = examples.make_batches_of(made, max_seq_length=5)(
      tf.constant([2, 1, 0]))
  assert batch["label"].numpy().tolist() == [9, 8, 8]
  assert batch["input_ids"].numpy().tolist() == [
    [2, 6, 3, 0, 0], [2, 5, 3, 0, 0], [2, 5, 6, 7, 3]]


@pytest.mark.parametrize("most, is_static, size", [
  (40, False, 16), (12, False, 12), (8, True, 8), (20, True, 20)])
def test_a_batch_is_padded_to_a_multiple_or_to_the_greatest_length(
    most, is_static, size):
  made = encoded(["a", "a b", "c"], label=[3, 4, 5])
  batch = examples.make_batches_of(
      made, max_seq_length=most, pad_to_max_length=is_static)(
          tf.constant([1, 2]))
  pad = lambda row: row + [0] * (size - len(row))
  assert batch["input_ids"].numpy().tolist() == [
    pad([2, 5, 6, 3]), pad([2, 7, 3])]
  assert batch["input_mask"].numpy().tolist() == [pad([1] * 4), pad([1] * 3)]
  assert batch["label"].numpy().tolist() == [4, 5]


def test_labels_of_pieces_end_in_none():
  pieces = examples.tokenize(TOKENIZER, ["a b", "c"], max_seq_length=8)
  pieces["labels"] = tf.ragged.constant([[-1, 0, 1, -1], [-1, 2, -1]], tf.int32)
  batch = examples.make_batches_of(
      Examples(pieces, {}), max_seq_length=5)(tf.constant([1, 0]))
  assert batch["labels"].numpy().tolist() == [
    [-1, 2, -1, -1, -1], [-1, 0, 1, -1, -1]]


def test_choices_have_an_axis():
  made = encoded(["a", "b", "c", "a b"], choices=2, label=[0, 1])
  assert made.number == 2 and made.lengths.tolist() == [3, 4]
  batch = examples.make_batches_of(made, max_seq_length=4)(tf.constant([1, 0]))
  assert batch["input_ids"].numpy().tolist() == [
    [[2, 7, 3, 0], [2, 5, 6, 3]], [[2, 5, 3, 0], [2, 6, 3, 0]]]
  assert batch["label"].numpy().tolist() == [1, 0]


@hypothesis.given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=300),
    batch_size=st.integers(1, 40), epochs=st.integers(1, 4),
    seed=st.integers(0, 2**63), group_by_length=st.booleans())
def test_epochs_have_all_examples_in_orders_of_their_own(
    lengths, batch_size, epochs, seed, group_by_length):
  steps = len(lengths) * epochs // batch_size
  hypothesis.assume(steps > 0)
  order = examples.training_order(
      np.array(lengths), batch_size=batch_size, num_steps=steps, seed=seed,
      group_by_length=group_by_length)
  assert order.shape == (steps, batch_size)
  counts = np.bincount(order.ravel(), minlength=len(lengths))
  assert set(counts) <= {epochs - 1, epochs} or steps * batch_size < len(
      lengths) * (epochs - 1) + 1
  np.testing.assert_array_equal(order, examples.training_order(
      np.array(lengths), batch_size=batch_size, num_steps=steps, seed=seed,
      group_by_length=group_by_length))


def test_examples_of_about_one_length_go_together():
  lengths = np.random.RandomState(0).randint(3, 129, 20_000)
  order = examples.training_order(
      lengths, batch_size=32, num_steps=1250, seed=1, group_by_length=True)
  longest = lengths[order].max(1)
  # Random batches would be padded to 127 or so, twice what they hold.
  assert (longest * 32).sum() < 1.15 * lengths[order].sum()
  # But not from short to long, nor two epochs alike.
  assert abs(np.corrcoef(longest, np.arange(1250))[0, 1]) < 0.1
  assert not np.array_equal(order[:625], order[625:])


def test_a_run_goes_on_where_it_was_and_replicas_share_a_batch():
  made = encoded(["a", "a b", "c", "b", "c c c", "b b"], label=np.arange(6))
  order = examples.training_order(
      made.lengths, batch_size=2, num_steps=6, seed=2)

  def rows(**options):
    return [batch["label"].numpy().tolist() for batch in
            examples.training_batches(
                made, order, max_seq_length=8, **options)]

  assert rows() == order.tolist()
  assert rows(first_step=4) == order.tolist()[4:]
  halves = [rows(replicas=Replicas(first=i, count=1, total=2))
            for i in range(2)]
  assert [a + b for a, b in zip(*halves)] == order.tolist()


def test_outputs_come_back_in_the_order_of_the_examples():
  made = encoded(["a b c", "a", "a b c a b", "c b"])

  def model(batch, training):
    assert not training
    return {"each": batch["input_ids"] + 10,
            "sum": tf.reduce_sum(batch["input_ids"], axis=1)}

  outputs = examples.make_predictor(
      model, made, batch_size=3, max_seq_length=16)()
  assert outputs["sum"].tolist() == [5 + 18, 5 + 5, 5 + 29, 5 + 13]
  assert outputs["each"].shape == (4, 16)
  assert outputs["each"][1].tolist() == [12, 15, 13] + [10] * 13


def test_outputs_of_a_text_are_the_means_of_its_windows():
  pieces, documents = examples.tokenize_windows(
      TOKENIZER, ["b", "a b c a", "", "c c c c c c"], max_seq_length=5,
      doc_stride=2)

  def model(batch, training):
    ids = tf.cast(batch["input_ids"], tf.float32)
    return {"logits": tf.stack(
        [tf.reduce_sum(ids, axis=1), tf.reduce_max(ids, axis=1)], axis=1)}

  outputs = examples.make_predictor(
      model, Examples(pieces, {}, documents=documents), batch_size=2,
      max_seq_length=16)()
  # [CLS] and [SEP] are 5. Windows: b; abc, ca; none; ccc, ccc, cc.
  assert outputs["logits"].tolist() == [
    [11, 6], [(23 + 17) / 2, 7], [5, 3],
    [np.float32((26 + 26 + 19) / 3), 7]]


def test_rows_that_end_earlier_get_zeros():
  joined = examples._joined([np.ones((2, 3, 2)), np.ones((1, 5, 2))])
  assert joined.shape == (3, 5, 2)
  assert joined.sum(axis=(1, 2)).tolist() == [6, 6, 10]
