"""From documents to examples: the recipe and its variants."""

import collections
import gzip
import json
import random

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.arguments import CorpusConfig
from bert_tf.arguments import PretrainingDataConfig
from bert_tf.data import corpus
from bert_tf.data import document_store
from bert_tf.data import example_files
from bert_tf.data import pretraining_examples
from bert_tf.data import records
from bert_tf.data import sentence_pairs
from bert_tf.tokenization import BertTokenizer

S, P = 64, 10
CLS, SEP, MASK, PAD, VOCAB_SIZE = 101, 102, 103, 0, 30522  # uncased


@pytest.fixture(scope="module")
def books(shared, tmp_path_factory):
  """33 chapters of 33 places of the books, 25 paragraphs of each."""
  with gzip.open(
      shared / "data/corpora/books_en.txt.gz", "rt", encoding="utf-8") as file:
    chapters = file.read().split("\n\n")
  path = tmp_path_factory.mktemp("books") / "books.txt"
  path.write_text("\n\n".join(
      "\n".join(chapter.strip().split("\n")[:25])
      for chapter in chapters[::40]), encoding="utf-8")
  return str(path)


@pytest.fixture(scope="module")
def uncased(shared):
  return str(shared / "data/vocabularies/bert-base-uncased-vocab.txt")


@pytest.fixture(scope="module")
def tokenizer(uncased):
  return BertTokenizer.from_file(uncased, do_lower_case=True)


@pytest.fixture(scope="module")
def documents(books, tokenizer):
  texts = corpus.open_corpus(CorpusConfig(input_file=(books,)))
  return pretraining_examples.tokenize_block(
      list(texts.documents(collections.Counter())), tokenizer=tokenizer,
      sentence_splitter="rules", seed=1).documents


@pytest.fixture(scope="module")
def made(books, uncased, tmp_path_factory):
  """The stats of a run over the chapters, and its rows, file after file."""
  folder = tmp_path_factory.mktemp("made")
  config = PretrainingDataConfig(
      input_file=(books,), vocab_file=uncased, do_lower_case=True,
      output_file=tuple(str(folder / f"{n}.tfrecord") for n in range(3)),
      max_seq_length=S, max_predictions_per_seq=P, dupe_factor=4,
      sentence_splitter="rules", num_workers=1)
  stats = example_files.run(config)
  return stats, _read(*config.output_file), config


def _read(*paths):
  serialized = list(tf.data.TFRecordDataset(list(paths)).as_numpy_iterator())
  return {
    name: tensor.numpy() for name, tensor in records.parse(
        tf.constant(serialized), records.Layout(S, P)).items()}


def _restored(rows):
  """The pieces before they were masked."""
  ids = rows["input_ids"].copy()
  row, slot = np.nonzero(rows["masked_lm_weights"])
  ids[row, rows["masked_lm_positions"][row, slot]] = (
    rows["masked_lm_ids"][row, slot])
  return ids


def _segments(rows):
  """A and B of each row as strings with a character for each piece."""
  for ids in _restored(rows):
    first, second = np.nonzero(ids == SEP)[0]
    yield _as_text(ids[1:first]), _as_text(ids[first + 1:second])


def _as_text(ids):
  return "".join(map(chr, ids))


def _texts(documents):
  places = documents.sentence_starts[documents.document_starts]
  return [
    _as_text(documents.pieces[start:end])
    for start, end in zip(places, places[1:])]


def test_rows_have_the_form_of_the_paper(made):
  _, rows, _ = made
  ids, mask, segments = (
    rows[name] for name in ("input_ids", "input_mask", "segment_ids"))
  lengths = mask.sum(axis=1)
  assert (ids[:, 0] == CLS).all()
  assert ((_restored(rows) == SEP).sum(axis=1) == 2).all()
  assert np.array_equal(mask, np.arange(S) < lengths[:, None])
  assert (ids[mask == 0] == PAD).all() and not segments[mask == 0].any()
  for row, length, restored in zip(segments, lengths, _restored(rows)):
    first = int(np.argmax(restored == SEP))
    assert restored[length - 1] == SEP
    assert row[:length].tolist() == (
      [0] * (first + 1) + [1] * (length - first - 1))
    assert 1 <= first - 1 and first + 1 < length - 1  # Neither is empty.


def test_fifteen_percent_is_predicted_and_no_special(made):
  _, rows, _ = made
  lengths = rows["input_mask"].sum(axis=1)
  expected = [min(P, max(1, round(0.15 * int(n)))) for n in lengths]
  weights = rows["masked_lm_weights"]
  assert weights.sum(axis=1).tolist() == expected
  assert np.array_equal(weights > 0, np.arange(P) < np.array(expected)[:, None])
  labels = rows["masked_lm_ids"][weights > 0]
  assert not np.isin(labels, (CLS, SEP, PAD, MASK)).any()
  assert not rows["masked_lm_ids"][weights == 0].any()
  assert not rows["masked_lm_positions"][weights == 0].any()


def test_masks_are_eighty_ten_ten(made):
  _, rows, _ = made
  row, slot = np.nonzero(rows["masked_lm_weights"])
  now = rows["input_ids"][row, rows["masked_lm_positions"][row, slot]]
  was = rows["masked_lm_ids"][row, slot]
  assert len(now) > 50000  # Standard deviations 0.0018 and 0.0013.
  assert abs(np.mean(now == MASK) - 0.8) < 0.008
  assert abs(np.mean(now == was) - 0.1) < 0.006
  drawn = now[(now != MASK) & (now != was)]
  thirds = np.histogram(drawn, bins=3, range=(0, VOCAB_SIZE))[0] / len(drawn)
  assert np.abs(thirds - 1 / 3).max() < 0.03


def test_b_follows_a_in_its_document_or_is_from_another(made, documents):
  _, rows, _ = made
  texts = _texts(documents)
  num_checked = collections.Counter()
  for (a, b), is_random, length in zip(
      _segments(rows), rows["next_sentence_labels"],
      rows["input_mask"].sum(axis=1)):
    if len(a) < 8 or len(b) < 8:
      continue  # Too short to tell where it is from.
    homes_of_a = {n for n, text in enumerate(texts) if a in text}
    homes_of_b = {n for n, text in enumerate(texts) if b in text}
    assert homes_of_a and homes_of_b  # Neither reaches over a boundary.
    if is_random:
      assert len(homes_of_a | homes_of_b) > 1
      num_checked["random"] += 1
    elif length < S:  # Not cut: they touch.
      assert any(a + b in texts[n] for n in homes_of_a)
      num_checked["whole"] += 1
    else:  # Only what was cut lies between them.
      gaps = [
        texts[n].find(b, texts[n].find(a)) - texts[n].find(a) - len(a)
        for n in homes_of_a & homes_of_b]
      assert any(0 <= gap < 300 for gap in gaps)
      num_checked["cut"] += 1
  assert min(num_checked[k] for k in ("random", "whole", "cut")) > 100


def _plain_pairs(documents, *, limit, short_seq_prob, rng):
  """The recipe again, sentence by sentence: yields (A, B, random, choice)."""
  for number, document in enumerate(documents):
    target = limit
    if rng.random() < short_seq_prob:
      target = rng.randint(2, limit)
    waiting = list(document)
    while waiting:
      chunk = []
      while waiting and sum(chunk) < target:
        chunk.append(waiting.pop(0))
      a_end = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
      a, rest = sum(chunk[:a_end]), chunk[a_end:]
      b = sum(rest)
      is_random = not rest or rng.random() < 0.5
      if is_random:
        waiting = rest + waiting
        other = documents[rng.choice(
            [n for n in range(len(documents)) if n != number])]
        b = 0
        for length in other[rng.randrange(len(other)):]:
          b += length
          if b >= target - a:
            break
      while a + b > limit:
        a, b = (a - 1, b) if a > b else (a, b - 1)
      yield a, b, is_random, len(chunk) > 1


# Not 0.1: the short targets of a few documents would move every share by
# more than the tolerance.
@pytest.mark.parametrize("short_seq_prob", [0.0, 1.0])
def test_pairs_are_distributed_as_those_of_a_plain_loop(
    documents, short_seq_prob):
  lengths = np.diff(documents.sentence_starts)
  plain_documents = [
    lengths[start:end].tolist() for start, end in zip(
        documents.document_starts, documents.document_starts[1:])]
  rng = random.Random(1)
  plain = np.array([
    pair for _ in range(40) for pair in _plain_pairs(
        plain_documents, limit=61, short_seq_prob=short_seq_prob, rng=rng)])
  ours = sentence_pairs.draw_pairs(
      documents, max_seq_length=64, short_seq_prob=short_seq_prob, passes=40,
      generator=np.random.default_rng(1))
  # The plain loop alone knows the chunks, and so checks itself.
  has_choice = plain[:, 3] == 1
  assert abs(plain[has_choice, 2].mean() - 0.5) < 0.01
  assert plain[~has_choice, 2].all()

  assert abs(len(ours.a_start) / len(plain) - 1) < 0.02
  assert abs(ours.is_random_next.mean() - plain[:, 2].mean()) < 0.01
  for label in (0, 1):
    selected = ours.select(ours.is_random_next == label)
    expected = plain[plain[:, 2] == label]
    for got, column in ((selected.a_length, 0), (selected.b_length, 1)):
      steps = np.arange(62)
      difference = np.mean(got[:, None] <= steps, axis=0) - np.mean(
          expected[:, column, None] <= steps, axis=0)
      assert np.abs(difference).max() < 0.02


def test_the_files_share_all_examples_in_turn(made):
  stats, rows, config = made
  counts = [records.count_records(path) for path in config.output_file]
  assert sum(counts) == stats["instances"] == len(rows["input_ids"])
  assert max(counts) - min(counts) <= 1
  assert [stats["files"][f"{n}.tfrecord"]["records"] for n in range(3)] == (
    counts)


def test_all_passes_are_shuffled_together(made, documents):
  _, rows, _ = made
  texts = _texts(documents)
  homes = [
    [n for n, text in enumerate(texts) if a in text][0]
    for a, _ in list(_segments(rows))[:200]]
  assert len(set(homes)) > 25
  assert np.mean(np.diff(homes) == 0) < 0.15


def test_the_stats_say_what_the_records_hold(made, documents):
  stats, rows, config = made
  mask, weights = rows["input_mask"], rows["masked_lm_weights"]
  assert stats["documents"] == documents.num_documents == 33
  assert stats["sentences"] == len(documents.sentence_starts) - 1
  assert stats["pieces"] == len(documents.pieces)
  assert stats["unknown_share"] == np.mean(documents.pieces == 100)
  assert stats["random_next_share"] == rows["next_sentence_labels"].mean()
  assert stats["masked_share"] == weights.sum() / mask.sum()
  assert stats["padding_share"] == pytest.approx(1 - mask.mean())
  assert stats["settings"].items() >= {
    "dupe_factor": 4, "max_seq_length": S, "sentence_splitter": "rules",
    "input_file": list(config.input_file)}.items()
  folder = config.output_file[0].rpartition("/")[0]
  with open(f"{folder}/stats.json", encoding="utf-8") as file:
    assert json.load(file) == json.loads(json.dumps(stats))


# The variants, on documents of numbers.

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def numbers():
  """A tokenizer of 3,000 entries; the last thousand go on with a word."""
  return BertTokenizer(
      [*TOKENS, *map(str, range(1995)), *(f"##{n}" for n in range(1000))],
      do_lower_case=False)


def make(numbers, documents, **changes):
  """All rows, columns joined."""
  part = {name: changes.pop(name) for name in ("part", "num_parts")
          if name in changes}
  config = PretrainingDataConfig(**{
    "input_file": ("in.txt",), "output_file": ("a",), "vocab_file": "v",
    "max_seq_length": 32, "max_predictions_per_seq": 5, **changes})
  batches = [rows for rows, _ in pretraining_examples.make_batches(
      sentence_pairs.Documents.from_lists(documents), config=config,
      tokenizer=numbers, seed=np.random.SeedSequence(1), **part)]
  return {name: np.concatenate([rows[name] for rows in batches])
          for name in batches[0]}


def random_documents(count, *, seed=1, sentences=6):
  """Each piece says which document it is of: 10 d, ..., 10 d + 9."""
  rng = np.random.default_rng(seed)
  return [
    [(10 * d + 5 + rng.integers(0, 10, rng.integers(1, 8))).tolist()
     for _ in range(rng.integers(1, sentences))] for d in range(count)]


def test_without_next_sentences_rows_are_full_and_have_no_label(numbers):
  documents = random_documents(150)
  rows = make(numbers, documents, nsp=False, masking="none", dupe_factor=3)
  assert set(rows) == {"input_ids", "input_mask", "segment_ids"}
  assert not rows["segment_ids"].any()
  assert rows["input_mask"].mean() > 0.9
  pieces = rows["input_ids"][rows["input_ids"] >= 5]
  expected = np.bincount([p for d in documents for s in d for p in s])
  assert np.array_equal(np.bincount(pieces), 3 * expected)
  masked = make(numbers, documents, nsp=False, dupe_factor=3)
  assert set(masked) - set(rows) == {
    "masked_lm_positions", "masked_lm_ids", "masked_lm_weights"}


def test_without_masks_the_rows_are_those_that_would_be_masked(numbers):
  documents = random_documents(50)
  plain = make(numbers, documents, masking="none")
  masked = make(numbers, documents)
  assert "masked_lm_ids" not in plain
  row, slot = np.nonzero(masked["masked_lm_weights"])
  ids = masked["input_ids"].copy()
  assert (ids == 4).sum() > 100
  ids[row, masked["masked_lm_positions"][row, slot]] = (
    masked["masked_lm_ids"][row, slot])
  assert np.array_equal(ids, plain["input_ids"])
  assert np.array_equal(
      masked["next_sentence_labels"], plain["next_sentence_labels"])


def test_any_split_of_the_masks(numbers):
  documents = random_documents(150)
  # Table 8 of the paper: [MASK], same, random.
  for mask_share, same_share in (
      (1, 0), (0.8, 0), (0.8, 0.2), (0, 0.2), (0, 0)):
    rows = make(numbers, documents, dupe_factor=20, mask_share=mask_share,
                same_share=same_share)
    row, slot = np.nonzero(rows["masked_lm_weights"])
    now = rows["input_ids"][row, rows["masked_lm_positions"][row, slot]]
    was = rows["masked_lm_ids"][row, slot]
    assert len(now) > 10_000  # Deviations up to 0.005.
    assert abs(np.mean(now == 4) - mask_share) < 0.02
    assert abs(np.mean(now == was) - same_share) < 0.02


def as_examples(rows):
  """The rows of packed examples, each as (ids, segments, label)."""
  for number in range(len(rows["input_ids"])):
    owner = rows["example_ids"][number]
    for example in range(1, owner.max() + 1):
      here = owner == example
      assert rows["position_ids"][number][here].tolist() == list(
          range(here.sum()))
      assert rows["cls_positions"][number, example - 1] == here.argmax()
      assert rows["next_sentence_weights"][number, example - 1] == 1
      yield (tuple(rows["input_ids"][number][here]),
             tuple(rows["segment_ids"][number][here]),
             rows["next_sentence_labels"][number, example - 1])
    assert rows["next_sentence_weights"][number].sum() == owner.max()


def test_packed_rows_hold_the_same_examples_in_fewer_rows(numbers):
  documents = random_documents(300)
  options = {"masking": "none", "max_seq_length": 256}
  plain = make(numbers, documents, **options)
  packed = make(numbers, documents, pack_sequences=True, **options)
  expected = collections.Counter(
      (tuple(ids[mask > 0]), tuple(segments[mask > 0]), label)
      for ids, mask, segments, label in zip(
          plain["input_ids"], plain["input_mask"], plain["segment_ids"],
          plain["next_sentence_labels"]))
  assert collections.Counter(as_examples(packed)) == expected
  assert packed["input_mask"].mean() > 0.95
  assert len(packed["input_ids"]) * 5 < len(plain["input_ids"])
  # In no order of length.
  counts = packed["example_ids"].max(axis=1)
  half = len(counts) // 2
  assert abs(counts[:half].mean() / counts[half:].mean() - 1) < 0.1


def test_packed_rows_are_masked_like_others(numbers):
  rows = make(numbers, random_documents(150), pack_sequences=True,
              max_seq_length=64, max_predictions_per_seq=10, dupe_factor=2)
  lengths = rows["input_mask"].sum(axis=1)
  assert rows["masked_lm_weights"].sum(axis=1).tolist() == [
    min(10, max(1, round(0.15 * int(n)))) for n in lengths]
  assert (rows["masked_lm_ids"][rows["masked_lm_weights"] > 0] >= 5).all()


def test_the_parts_of_a_bucket_make_it_up(numbers):
  documents = random_documents(40)
  whole = make(numbers, documents, masking="none")
  parts = [make(numbers, documents, masking="none", part=part, num_parts=3)
           for part in range(3)]
  for name, array in whole.items():
    for number, part in enumerate(parts):
      assert np.array_equal(part[name], array[number::3])
  # The masks of two parts are other ones.
  first, second = (
    make(numbers, [documents[0]] * 2, part=part, num_parts=2)
    for part in (0, 1))
  assert not np.array_equal(
      first["masked_lm_positions"][:5], second["masked_lm_positions"][:5])


def test_a_random_b_comes_from_all_documents_alike(numbers):
  documents = [[[5 + d] * 4] * 4 for d in range(100)]
  rows = make(numbers, documents, masking="none", dupe_factor=60,
              short_seq_prob=0.0, max_seq_length=16)
  is_random = rows["next_sentence_labels"] == 1
  ids = rows["input_ids"][is_random]
  second = np.take_along_axis(
      ids, rows["segment_ids"][is_random].argmax(axis=1)[:, None], 1)[:, 0] - 5
  first = ids[:, 1] - 5
  counts = np.bincount(second, minlength=100)
  # Chi-square with 99 degrees of freedom: mean 99, deviation 14.
  expected = counts.sum() / 100
  assert counts.sum() > 5000
  assert np.sum((counts - expected) ** 2 / expected) < 160
  # And none stands out beside any A.
  pairs = np.bincount(first * 100 + second, minlength=10_000)
  assert (pairs.reshape(100, 100).diagonal() == 0).all()
  assert pairs.max() < 8


def test_sentences_longer_than_a_row_are_cut(numbers):
  documents = [[list(range(5, 105))], [list(range(205, 305))]]
  rows = make(numbers, documents, masking="none")
  assert (rows["input_mask"].sum(axis=1) <= 32).all()
  assert rows["next_sentence_labels"].all()  # one sentence: never its next


def test_blocks_are_tokenized_and_what_is_empty_is_counted():
  letters = BertTokenizer(
      [*TOKENS, "a", "b", ".", "c"], do_lower_case=True)
  block = [
    corpus.Document(0, 0, ["a b. A", "\u200b"]), corpus.Document(0, 1, []),
    corpus.Document(0, 2, ["\u200b"]), corpus.Document(0, 5, ["c", "z"])]
  made = pretraining_examples.tokenize_block(
      block, tokenizer=letters, sentence_splitter="rules", seed=3)
  assert made.documents.pieces.tolist() == [5, 6, 7, 5, 8, 1]
  assert made.documents.pieces.dtype == np.uint16
  assert made.documents.sentence_starts.tolist() == [0, 3, 4, 5, 6]
  assert made.documents.document_starts.tolist() == [0, 2, 4]
  assert made.counts == {
    "documents": 2, "empty_documents": 2, "sentences": 4,
    "empty_sentences": 2, "pieces": 6, "unknown_pieces": 1}
  assert made.hashes.tolist() == document_store.document_hashes(
      [0, 0], [0, 5], seed=3).tolist()
