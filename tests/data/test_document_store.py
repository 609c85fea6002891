"""Documents scattered by hash and gathered in buckets."""

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from bert_tf.data import document_store
from bert_tf.data.corpus import Document
from bert_tf.data.document_store import DocumentStore
from bert_tf.data.document_store import TokenizedBlock
from bert_tf.data.sentence_pairs import Documents


def splitmix(state):
  """One step of the finalizer, in Python's whole numbers."""
  mask = (1 << 64) - 1
  state = (state + 0x9E3779B97F4A7C15) & mask
  state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
  state = (state ^ state >> 27) * 0x94D049BB133111EB & mask
  return state ^ state >> 31


def test_hashes_are_those_of_splitmix():
  # The generator's own first number from seed 0, as published.
  assert splitmix(0) == 0xE220A8397B1DCDAF
  expected = [splitmix(splitmix(7 + source) + number) >> 32
              for source, number in ((0, 0), (0, 1), (3, 2**33))]
  assert document_store.document_hashes(
      [0, 0, 3], [0, 1, 2**33], seed=7).tolist() == expected


def test_buckets_are_even_and_move_with_the_seed():
  numbers = np.arange(40_000)
  hashes = {
    seed: document_store.document_hashes(
        np.zeros_like(numbers), numbers, seed=seed) for seed in (1, 2)}
  counts = np.bincount(document_store.buckets_of(hashes[1], 40))
  assert len(counts) == 40
  assert counts.min() > 850 and counts.max() < 1150  # deviation 31
  assert np.mean(document_store.buckets_of(hashes[1], 40) ==
                 document_store.buckets_of(hashes[2], 40)) < 0.04


@hypothesis.given(
    strategies.integers(0, 2**32 - 1), strategies.integers(1, 50),
    strategies.integers(1, 20))
def test_a_bucket_lies_within_one_of_any_divisor(value, n, factor):
  hashes = np.array([value], np.uint32)
  [fine] = document_store.buckets_of(hashes, n * factor)
  [coarse] = document_store.buckets_of(hashes, n)
  assert 0 <= fine < n * factor and fine // factor == coarse


def test_the_number_of_buckets_divides_the_files():
  for files, documents, expected in (
      (1, 0, 1), (8, 999, 1), (8, 2000, 2), (8, 7999, 4), (8, 8000, 8),
      (7, 6999, 1), (7, 7000, 7), (300, 10**6, 300)):
    assert document_store.count_buckets(files, documents) == expected


def random_documents(rng, count):
  return [[rng.integers(0, 60_000, rng.integers(1, 6)).tolist()
           for _ in range(rng.integers(1, 5))] for _ in range(count)]


def block(documents, source=0, first=0):
  numbers = range(first, first + len(documents))
  return TokenizedBlock(
      hashes=document_store.document_hashes(
          [source] * len(documents), numbers, seed=1),
      documents=Documents.from_lists(documents),
      counts={"documents": len(documents)})


def as_lists(documents):
  return [
    [documents.pieces[documents.sentence_starts[s]:
                      documents.sentence_starts[s + 1]].tolist()
     for s in range(first, last)]
    for first, last in zip(
        documents.document_starts, documents.document_starts[1:])]


def test_a_bucket_is_its_documents_in_the_order_of_the_corpus(tmp_path):
  rng = np.random.default_rng(1)
  parts = [random_documents(rng, count) for count in (30, 1, 50)]
  store = DocumentStore(str(tmp_path / "blocks"))
  expected = {bucket: [] for bucket in range(6)}
  names = []
  for number, documents in enumerate(parts):
    names.append(store.name(number, "0123"))
    made = block(documents, source=number)
    assert not store.has(names[-1])
    store.add(names[-1], made)
    assert store.has(names[-1])
    for document, bucket in zip(
        documents, document_store.buckets_of(made.hashes, 6)):
      expected[int(bucket)].append(document)
  assert store.blocks() == names
  for bucket in range(6):
    assert as_lists(store.load_bucket(bucket, 6)) == expected[bucket]
  assert as_lists(store.load_bucket(0, 1)) == sum(parts, [])
  # Buckets in which some block has nothing.
  assert sum(store.load_bucket(bucket, 500).num_documents
             for bucket in range(500)) == 81
  assert [counts["documents"] for counts in store.counts()] == [30, 1, 50]


def test_ids_keep_their_type(tmp_path):
  store = DocumentStore(str(tmp_path))
  made = block([[[1, 2]], [[3]]])
  for ids in (np.uint16, np.int32):
    name = store.name(0, ids.__name__)
    store.add(name, made._replace(documents=made.documents._replace(
        pieces=made.documents.pieces.astype(ids))))
    assert store.load_bucket(0, 1).pieces.dtype == ids
    store.keep_only([])


def test_what_is_not_complete_is_no_block(tmp_path):
  store = DocumentStore(str(tmp_path / "blocks"))
  assert store.blocks() == []
  store.add("000000-aa", block([[[1]]]))
  store.add("000001-bb", block([[[2]]], first=1))
  (tmp_path / "blocks" / "000002-cc.77.tmp").mkdir()
  assert store.blocks() == ["000000-aa", "000001-bb"]
  store.keep_only(["000001-bb"])
  assert [path.name for path in (tmp_path / "blocks").iterdir()] == [
    "000001-bb"]


def test_an_error_leaves_no_part_of_a_block(tmp_path, monkeypatch):
  store = DocumentStore(str(tmp_path / "blocks"))
  (tmp_path / "blocks").mkdir()
  save = np.save

  def fail(path, array):
    if "pieces" in path:
      raise OSError(28, "No space left on device")
    save(path, array)

  monkeypatch.setattr(np, "save", fail)
  with pytest.raises(OSError):
    store.add("000000-aa", block([[[1]]]))
  assert list((tmp_path / "blocks").iterdir()) == []


def test_blocks_are_cut_by_characters_and_told_apart_by_texts(monkeypatch):
  monkeypatch.setattr(document_store, "CHARACTERS_PER_BLOCK", 10)
  documents = [Document(0, n, lines) for n, lines in enumerate(
      [["abc", "def"], ["ghij"], [], ["x" * 30], ["k"]])]
  blocks = list(document_store.blocks_of(documents))
  assert blocks == [documents[:2], documents[2:4], documents[4:]]
  digest = document_store.digest_of
  assert digest(blocks[0]) == digest(list(blocks[0]))
  changed = [
    documents[:1], [documents[0]._replace(lines=["abcd", "ef"]), documents[1]],
    [documents[0]._replace(source=1), documents[1]],
    [documents[0], documents[1]._replace(number=5)],
    [documents[0]._replace(lines=["abc\ndef"]), documents[1]]]
  assert digest(blocks[0]) not in map(digest, changed)
