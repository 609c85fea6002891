"""From text to record files: the recipe on real text, counts, bad input."""

import collections
import dataclasses
import gzip
import json
import random

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config import InputError
from bert_tf.config import PretrainingDataConfig
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
  return pretraining_examples.tokenize_documents(
      [books], tokenizer=tokenizer, sentence_splitter="rules")


@pytest.fixture(scope="module")
def made(books, uncased, tmp_path_factory):
  """The stats of a run over the chapters, and its rows, file after file."""
  folder = tmp_path_factory.mktemp("made")
  config = PretrainingDataConfig(
      input_file=(books,), vocab_file=uncased, do_lower_case=True,
      output_file=tuple(str(folder / f"{n}.tfrecord") for n in range(3)),
      max_seq_length=S, max_predictions_per_seq=P, dupe_factor=4,
      sentence_splitter="rules")
  stats = pretraining_examples.run(config)
  return stats, _read(*config.output_file), config


def _read(*paths):
  serialized = list(tf.data.TFRecordDataset(list(paths)).as_numpy_iterator())
  return {
    name: tensor.numpy() for name, tensor in records.parse(
        tf.constant(serialized), max_seq_length=S,
        max_predictions_per_seq=P).items()}


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
    selected = ours[ours.is_random_next == label]
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
  assert stats["settings"] == dataclasses.asdict(config)
  folder = config.output_file[0].rpartition("/")[0]
  with open(f"{folder}/stats.json", encoding="utf-8") as file:
    assert json.load(file) == json.loads(json.dumps(stats))


# What follows needs no real data.

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT = "ab cd.\nef gh ij.\nkl mn.\n\nop qr.\nst uv wx.\nyz ab.\n"


@pytest.fixture
def make_config(tmp_path):
  """A config for files in `tmp_path`: `make_config(text, **changes)`."""
  vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *LETTERS]
  vocabulary += [f"##{letter}" for letter in LETTERS]
  (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")

  def make(text=TEXT, **changes):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "in.txt").write_bytes(content)
    return PretrainingDataConfig(**{
      "input_file": (str(tmp_path / "in.txt"),),
      "output_file": (str(tmp_path / "out" / "a.tfrecord"),),
      "vocab_file": str(tmp_path / "vocab.txt"), "do_lower_case": True,
      "max_seq_length": S, "max_predictions_per_seq": P, "dupe_factor": 5,
      **changes})

  return make


def _bytes_of(config):
  pretraining_examples.run(config)
  contents = []
  for path in config.output_file:
    with open(path, "rb") as file:
      contents.append(file.read())
  return contents


def test_the_settings_reach_the_recipe(make_config):
  text = "\n\n".join("ab cd.\n" * 300 for _ in range(2))

  def stats(**changes):
    return pretraining_examples.run(make_config(text, **changes))

  # Sentences of five pieces fill rows of 64 but for the end of a document.
  plain = stats(short_seq_prob=0.0)
  assert plain["padding_share"] < 0.1
  assert stats(short_seq_prob=1.0)["padding_share"] > 0.3
  assert 0.135 < plain["masked_share"] < 0.165
  few = stats(short_seq_prob=0.0, masked_lm_prob=0.05)
  assert 0.04 < few["masked_share"] < 0.06
  twice = stats(short_seq_prob=0.0, dupe_factor=10)
  assert twice["instances"] == pytest.approx(2 * plain["instances"], rel=0.1)


def test_the_same_seed_gives_the_same_bytes(make_config):
  first = _bytes_of(make_config())
  assert _bytes_of(make_config()) == first
  assert _bytes_of(make_config(random_seed=1)) != first


def test_what_is_empty_is_skipped_and_counted(make_config):
  text = "\n\nab.\n\u200b\ncd.\n \n\n\u200b\n\nef ?.\n\n\n"
  stats = pretraining_examples.run(make_config(text))
  # U+200B alone is a sentence of no piece: once in a document, once alone.
  got = {name: stats[name] for name in (
    "documents", "sentences", "pieces", "empty_sentences",
    "empty_documents", "unknown_share")}
  assert got == {
    "documents": 2, "sentences": 3, "pieces": 10, "empty_sentences": 2,
    "empty_documents": 1, "unknown_share": 0.1}


def test_whole_words_are_masked_whole(make_config):
  text = "\n\n".join("abc def ghi jkl mno pqr\nstu vwx" for _ in range(20))
  config = make_config(text, do_whole_word_mask=True)
  pretraining_examples.run(config)
  rows = _read(*config.output_file)
  restored = _restored(rows)
  for ids, positions, weights in zip(
      restored, rows["masked_lm_positions"], rows["masked_lm_weights"]):
    chosen = set(positions[weights > 0].tolist())
    for place in range(1, S):
      is_continuation = ids[place] >= 6 + 26
      if is_continuation and ids[place - 1] >= 6:
        assert (place in chosen) == (place - 1 in chosen)
  assert rows["masked_lm_weights"].sum() > 300


@pytest.mark.parametrize("text, changes, words", [
  (TEXT, {"input_file": ("/gone/a.txt",)}, "/gone/a.txt: no such file"),
  (TEXT, {"input_file": ("/gone/*.txt",)}, "/gone/*.txt: no such file"),
  ("ab cd.\nef gh.\n", {}, "1 document"),
  ("\n\n", {}, "no text"),
  (b"ab.\n\ncd \xe4f.\n", {}, "in.txt:3: byte 4"),
  (TEXT, {"vocab_file": "/gone/vocab.txt"}, "/gone/vocab.txt"),
  (TEXT, {"output_file": ("",)}, "--output_file: received nothing"),
])
def test_bad_input_is_refused_and_nothing_is_written(
    make_config, tmp_path, text, changes, words):
  config = make_config(text, **changes)
  with pytest.raises(InputError) as error:
    pretraining_examples.run(config)
  assert words in str(error.value)
  written = [path for path in tmp_path.rglob("*") if path.is_file()]
  assert {path.name for path in written} == {"in.txt", "vocab.txt"}


def test_a_vocabulary_without_mask_is_refused(make_config, tmp_path):
  config = make_config()
  vocabulary = (tmp_path / "vocab.txt").read_text()
  (tmp_path / "vocab.txt").write_text(vocabulary.replace("[MASK]\n", ""))
  with pytest.raises(InputError, match=r"\[MASK\]"):
    pretraining_examples.run(config)


def test_bad_utf8_is_replaced_on_request(make_config):
  config = make_config(b"ab.\n\ncd \xe4f.\n", on_bad_utf8="replace")
  stats = pretraining_examples.run(config)
  assert stats["lines_with_bad_utf8"] == 1
  assert stats["pieces"] == 7  # U+FFFD is dropped: a ##b . c ##d f .


def test_outputs_that_cannot_be_are_refused_at_once(make_config, tmp_path):
  twice = str(tmp_path / "a"), str(tmp_path / "." / "a")
  for outputs, words in (
      (twice, "names a file twice"),
      ((str(tmp_path),), "is a folder"),
      ((str(tmp_path / "in.txt"),), "one of the input files"),
      ((str(tmp_path / "in.txt" / "a"),), "cannot make the folder"),
      (tuple(str(tmp_path / f"{n}") for n in range(99)), "name fewer files")):
    with pytest.raises(InputError, match=words):
      pretraining_examples.run(make_config(output_file=outputs))


@pytest.mark.parametrize("error", [InputError, OSError, KeyboardInterrupt])
def test_an_error_in_the_middle_leaves_nothing(
    make_config, tmp_path, monkeypatch, error):
  config = make_config(output_file=tuple(
      str(tmp_path / "out" / f"{n}.tfrecord") for n in range(3)))
  write_records = records.write_records

  def fail_at_the_third(path, batches):
    if "2.tfrecord" in path:
      raise error("No more room.")
    return write_records(path, batches)

  monkeypatch.setattr(records, "write_records", fail_at_the_third)
  expected = InputError if error is OSError else error
  with pytest.raises(expected, match="No more room"):
    pretraining_examples.run(config)
  assert list((tmp_path / "out").iterdir()) == []
