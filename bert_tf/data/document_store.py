"""Tokenized documents on the disk: scattered by hash, gathered in buckets.

A corpus is read once, in blocks of some megabytes. The documents of a block
are stored in the order of their hashes, so that a bucket, which is a range of
hashes, is one run in each block. How many buckets there are need not be known
before all blocks are: a bucket is read without touching the others.

  store/000000-<digest>/    a block; the digest is that of its texts
    hashes.npy              [D] uint32, ascending: the hash of each document
    places.npy              [D] int32: its place in the block as it was read
    starts.npy              [D + 1, 2] int64: its first sentence, first piece
    sentence_lengths.npy    [sentences] int32
    pieces.npy              [T] ids

A block is complete when its folder has its name. numpy only.

Shapes: D documents, T pieces.
"""

from collections.abc import Iterable, Iterator, Sequence
import hashlib
import json
import os
import shutil
from typing import NamedTuple

import numpy as np

from bert_tf.data.corpus import Document
from bert_tf.data.sentence_pairs import Documents
from bert_tf.data.sentence_pairs import starts_of

# Small enough for the memory of a worker, large enough that thousands of
# blocks are a big corpus.
CHARACTERS_PER_BLOCK = 1 << 22
_COUNTS_FILE = "counts.json"
# The random next sentence of a pair comes from the same bucket: as many
# documents are always in it, if the corpus has them.
DOCUMENTS_PER_BUCKET = 1000


def document_hashes(
    sources: Sequence[int], numbers: Sequence[int], *, seed: int
) -> np.ndarray:
  """Where documents go: uint32 [D], uniform, from their places in the corpus.

  Of their places and not of their texts, so that copies of a document go to
  different buckets. (The finalizer of SplitMix64, Steele et al. 2014.)
  """
  state = np.full(len(numbers), seed, np.uint64)
  for values in (sources, numbers):
    state = state + np.asarray(values, np.uint64) + np.uint64(
        0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
      state = (state ^ state >> np.uint64(shift)) * np.uint64(factor)
    state = state ^ state >> np.uint64(31)
  return (state >> np.uint64(32)).astype(np.uint32)


def buckets_of(hashes: np.ndarray, num_buckets: int) -> np.ndarray:
  """Which of the buckets 0, 1, ... each hash falls into: ascending with it.

  A bucket of n lies within a bucket of any divisor of n.

  >>> buckets_of(np.array([0, 1 << 31, (1 << 32) - 1], np.uint32), 4).tolist()
  [0, 2, 3]
  """
  return (hashes.astype(np.uint64) * np.uint64(num_buckets)
          >> np.uint64(32)).astype(np.int64)


def count_buckets(num_files: int, num_documents: int) -> int:
  """How many buckets the documents are dealt to: a divisor of the files.

  >>> count_buckets(12, 5500), count_buckets(12, 50_000), count_buckets(3, 8)
  (4, 12, 1)
  """
  most = num_documents // DOCUMENTS_PER_BUCKET
  return max(number for number in range(1, num_files + 1)
             if num_files % number == 0 and number <= max(1, most))


def blocks_of(documents: Iterable[Document]) -> Iterator[list[Document]]:
  """Runs of documents with texts of some million characters."""
  block, size = [], 0
  for document in documents:
    block.append(document)
    size += sum(map(len, document.lines))
    if size >= CHARACTERS_PER_BLOCK:
      yield block
      block, size = [], 0
  if block:
    yield block


def digest_of(block: Sequence[Document]) -> str:
  """Tells a block from others: a hash of its documents' places and texts."""
  digest = hashlib.blake2b(digest_size=8)
  for document in block:
    head = f"{document.source} {document.number} {len(document.lines)}\n"
    digest.update(head.encode())
    digest.update("\n".join(document.lines).encode("utf-8", "surrogatepass"))
  return digest.hexdigest()


class TokenizedBlock(NamedTuple):
  """Documents in the order in which they were read; none is empty."""

  hashes: np.ndarray  # uint32 [D]
  documents: Documents
  counts: dict[str, int]  # of what was read and skipped


def _take_documents(documents: Documents, order: np.ndarray) -> Documents:
  """These documents, in this order."""
  sentences = _take_runs(
      np.diff(documents.sentence_starts), documents.document_starts, order)
  piece_starts = documents.sentence_starts[documents.document_starts]
  return Documents(
      pieces=_take_runs(documents.pieces, piece_starts, order),
      sentence_starts=starts_of(sentences),
      document_starts=starts_of(np.diff(documents.document_starts)[order]))


def _take_runs(
    values: np.ndarray, starts: np.ndarray, order: np.ndarray) -> np.ndarray:
  """Runs of `values`, the i-th from starts[i] to starts[i + 1], reordered."""
  lengths = np.diff(starts)[order]
  first = starts_of(lengths)
  index = np.arange(first[-1]) + np.repeat(starts[order] - first[:-1], lengths)
  return values[index]


class DocumentStore:
  """The blocks of a corpus in a folder."""

  def __init__(self, folder: str):
    self.folder = folder

  def name(self, number: int, digest: str) -> str:
    """The name of a block, which says that it is complete."""
    return f"{number:06d}-{digest}"

  def has(self, name: str) -> bool:
    return os.path.isdir(os.path.join(self.folder, name))

  def blocks(self) -> list[str]:
    """Names of the complete blocks, in the order of the corpus."""
    if not os.path.isdir(self.folder):
      return []
    return sorted(
        name for name in os.listdir(self.folder) if not name.endswith(".tmp"))

  def add(self, name: str, block: TokenizedBlock) -> None:
    """Writes a block; its folder gets its name when all is in it."""
    order = np.argsort(block.hashes, kind="stable")
    stored = _take_documents(block.documents, order)
    starts = np.stack([
      stored.document_starts, stored.sentence_starts[stored.document_starts]
    ], axis=1)
    path = os.path.join(self.folder, name)
    temporary = f"{path}.{os.getpid()}.tmp"
    os.makedirs(temporary)
    try:
      for array_name, array in (
          ("hashes", block.hashes[order]), ("places", order.astype(np.int32)),
          ("starts", starts), ("pieces", stored.pieces),
          ("sentence_lengths",
           np.diff(stored.sentence_starts).astype(np.int32))):
        np.save(os.path.join(temporary, f"{array_name}.npy"), array)
      with open(os.path.join(temporary, _COUNTS_FILE), "w",
                encoding="utf-8") as file:
        json.dump(block.counts, file)
      os.rename(temporary, path)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)

  def keep_only(self, names: Iterable[str]) -> None:
    """Removes all other blocks, and what killed processes have left."""
    if not os.path.isdir(self.folder):
      return
    for name in set(os.listdir(self.folder)) - set(names):
      shutil.rmtree(os.path.join(self.folder, name))

  def counts(self) -> Iterator[dict[str, int]]:
    """What was counted in each block."""
    for name in self.blocks():
      path = os.path.join(self.folder, name, _COUNTS_FILE)
      with open(path, encoding="utf-8") as file:
        yield json.load(file)

  def load_bucket(self, bucket: int, num_buckets: int) -> Documents:
    """The documents of a bucket, in the order of the corpus."""
    return concatenate([
      self._load_run(name, bucket, num_buckets) for name in self.blocks()])

  def _load_run(self, name: str, bucket: int, num_buckets: int) -> Documents:
    """A bucket's part of one block."""
    load = lambda array: np.load(
        os.path.join(self.folder, name, f"{array}.npy"), mmap_mode="r")
    first, last = np.searchsorted(
        buckets_of(load("hashes"), num_buckets), [bucket, bucket + 1])
    starts = np.array(load("starts")[first:last + 1])
    sentences, pieces = starts[:, 0], starts[:, 1]
    run = Documents(
        pieces=np.array(load("pieces")[pieces[0]:pieces[-1]]),
        sentence_starts=starts_of(
            load("sentence_lengths")[sentences[0]:sentences[-1]]),
        document_starts=sentences - sentences[0])
    return _take_documents(run, np.argsort(load("places")[first:last]))


def concatenate(parts: Sequence[Documents]) -> Documents:
  """The documents of all parts, one after the other."""
  return Documents(
      pieces=np.concatenate([part.pieces for part in parts]),
      sentence_starts=starts_of(np.concatenate(
          [np.diff(part.sentence_starts) for part in parts])),
      document_starts=starts_of(np.concatenate(
          [np.diff(part.document_starts) for part in parts])))
