"""Documents -> pairs of segments with the next-sentence label.

Shapes: T pieces in the corpus, D documents, N pairs, S max_seq_length.

All text stands in one flat array, and a segment is a run of it: a pair costs
four numbers, whatever its length, and every pass over a corpus fits in
memory beside it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_tf.config import require

# [CLS] A [SEP] B [SEP]
NUM_SPECIAL_PIECES = 3


class Documents(NamedTuple):
  """A tokenized corpus; no sentence and no document is empty."""

  pieces: np.ndarray  # [T] ids, sentence after sentence
  sentence_starts: np.ndarray  # [sentences + 1] int64, places in `pieces`
  document_starts: np.ndarray  # [D + 1] int64, places in `sentence_starts`

  @classmethod
  def from_lists(
      cls, documents: Sequence[Sequence[Sequence[int]]]) -> "Documents":
    """From documents as lists of sentences, which are lists of ids.

    >>> Documents.from_lists([[[5, 6], [7]], [[8]]]).sentence_starts.tolist()
    [0, 2, 3, 4]
    """
    sentences = [sentence for document in documents for sentence in document]
    if not all(len(items) for items in (*documents, *sentences)):
      raise ValueError("A document or a sentence is empty.")
    return cls(
        pieces=np.array([i for s in sentences for i in s], np.int32),
        sentence_starts=starts_of([len(s) for s in sentences]),
        document_starts=starts_of([len(d) for d in documents]))

  @property
  def num_documents(self) -> int:
    return len(self.document_starts) - 1


class Pairs(NamedTuple):
  """Pairs of segments, as runs of `Documents.pieces`; each array is [N]."""

  a_start: np.ndarray  # int64
  a_length: np.ndarray  # int32
  b_start: np.ndarray  # int64
  b_length: np.ndarray  # int32
  is_random_next: np.ndarray  # bool; True: B does not follow A

  @property
  def size(self) -> int:
    """N."""
    return len(self.a_start)

  def select(self, index) -> "Pairs":
    """A selection of the pairs, by whatever indexes a numpy array."""
    return Pairs(*(array[index] for array in tuple(self)))


def starts_of(lengths: Sequence[int]) -> np.ndarray:
  """Where runs of these lengths start, and where the last one ends."""
  return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def draw_pairs(
    documents: Documents,
    *,
    max_seq_length: int,
    short_seq_prob: float,
    passes: int,
    generator: np.random.Generator,
) -> Pairs:
  """Cuts each document into pairs of segments, `passes` times over.

  The recipe of the original, after Devlin et al. 2019, appendix A.2. For
  each pass and document a target length: S - 3, or with probability
  `short_seq_prob` a random one from 2 to S - 3. Sentences are gathered until
  they reach it. The gathered are parted after a random one: A, and the rest.
  With probability 0.5, and always if only one was gathered, B starts at a
  random sentence of another document instead and the rest is put back, so
  that the next pair starts there. Then the longer side is cut, see
  `truncate`.

  The documents take their steps side by side, all passes at once, and so the
  pairs come in no useful order: shuffle them.

  Args:
    documents: at least two.
    max_seq_length: S, of [CLS] A [SEP] B [SEP].
    short_seq_prob: the probability of a shorter target length.
    passes: how often to go over the corpus.
    generator: the source of randomness.

  Raises:
    InputError: there is one document only, so that no other can give B.
  """
  require(
      documents.num_documents > 1,
      f"The corpus holds {documents.num_documents} document(s), and a random "
      "next sentence comes from another one: part the documents by blank "
      "lines, or give more files.")
  limit = max_seq_length - NUM_SPECIAL_PIECES
  lane = np.tile(np.arange(documents.num_documents), passes)
  is_short = generator.random(lane.size) < short_seq_prob
  target = np.where(
      is_short, generator.integers(2, limit + 1, lane.size), limit)
  sentence = documents.document_starts[lane]  # The next one to gather.
  steps = []
  while lane.size:
    step, sentence = _draw_step(documents, lane, sentence, target, generator)
    steps.append(truncate(step, limit=limit, generator=generator))
    goes_on = sentence < documents.document_starts[lane + 1]
    lane, sentence, target = lane[goes_on], sentence[goes_on], target[goes_on]
  return Pairs(*(np.concatenate(arrays) for arrays in zip(*steps)))


def _gather(
    documents: Documents, document: np.ndarray, first: np.ndarray,
    target: np.ndarray
) -> np.ndarray:
  """The sentence after those that reach `target` pieces, or the last one's."""
  enough = documents.sentence_starts[first] + target
  after = np.searchsorted(documents.sentence_starts, enough)
  return np.minimum(after, documents.document_starts[document + 1])


def _draw_step(
    documents: Documents, document: np.ndarray, first: np.ndarray,
    target: np.ndarray, generator: np.random.Generator
) -> tuple[Pairs, np.ndarray]:
  """One pair from each document, and the sentence to go on with: all [N]."""
  starts = documents.sentence_starts
  after = _gather(documents, document, first, target)
  has_choice = after - first > 1
  a_after = first + generator.integers(
      1, np.where(has_choice, after - first, 2))
  a_length = starts[a_after] - starts[first]
  is_random = ~has_choice | (generator.random(first.size) < 0.5)

  other = generator.integers(0, documents.num_documents - 1, first.size)
  other += other >= document
  b_first = generator.integers(
      documents.document_starts[other], documents.document_starts[other + 1])
  # At least one sentence, even where A alone reaches the target.
  b_after = _gather(
      documents, other, b_first, np.maximum(1, target - a_length))
  b_first = np.where(is_random, b_first, a_after)
  b_after = np.where(is_random, b_after, after)
  pairs = Pairs(
      a_start=starts[first], a_length=a_length, b_start=starts[b_first],
      b_length=starts[b_after] - starts[b_first], is_random_next=is_random)
  return pairs, np.where(is_random, a_after, after)


def truncate(
    pairs: Pairs, *, limit: int, generator: np.random.Generator) -> Pairs:
  """Cuts the segments so that A and B together have `limit` pieces at most.

  Piece by piece the longer side is cut, B on a tie, and a coin decides for
  each whether it goes from the front or from the end. The lengths that this
  leads to have a closed form; of the pieces to go, the share at the front is
  binomial.
  """
  a_length = np.minimum(
      pairs.a_length, np.maximum((limit + 1) // 2, limit - pairs.b_length))
  b_length = np.minimum(pairs.b_length, limit - a_length)
  a_front = generator.binomial(pairs.a_length - a_length, 0.5)
  b_front = generator.binomial(pairs.b_length - b_length, 0.5)
  return pairs._replace(
      a_start=pairs.a_start + a_front, a_length=a_length.astype(np.int32),
      b_start=pairs.b_start + b_front, b_length=b_length.astype(np.int32))


def join_pairs(
    documents: Documents,
    pairs: Pairs,
    *,
    max_seq_length: int,
    cls_id: int,
    sep_id: int,
    pad_id: int,
) -> dict[str, np.ndarray]:
  """[CLS] A [SEP] B [SEP], padded: what the encoder takes.

  Returns:
    `input_ids`, `input_mask` (1 = piece, 0 = padding) and `segment_ids` (0
    up to the first [SEP], then 1; 0 in the padding), each int32 [N, S].

  >>> documents = Documents.from_lists([[[5, 6], [7]], [[8]]])
  >>> pair = Pairs(*np.array([[0], [2], [2], [1], [False]]))
  >>> join_pairs(
  ...     documents, pair, max_seq_length=8, cls_id=1, sep_id=2,
  ...     pad_id=0)["input_ids"].tolist()
  [[1, 5, 6, 2, 7, 2, 0, 0]]
  """
  place = np.arange(max_seq_length, dtype=np.int32)  # [S]
  a_length = pairs.a_length[:, None]  # [N, 1]
  length = a_length + pairs.b_length[:, None] + NUM_SPECIAL_PIECES
  is_a = place <= a_length  # [N, S], [CLS] included
  is_token = place < length
  source = np.where(
      is_a, pairs.a_start[:, None] - 1,
      pairs.b_start[:, None] - a_length - 2) + place
  # What lies outside of the two segments is replaced.
  input_ids = np.where(
      is_token, documents.pieces.take(source, mode="clip"), pad_id)
  input_ids = input_ids.astype(np.int32, copy=False)
  row = np.arange(pairs.size)
  for column, token in ((0, cls_id), (pairs.a_length + 1, sep_id),
                        (length[:, 0] - 1, sep_id)):
    input_ids[row, column] = token
  return {
    "input_ids": input_ids,
    "input_mask": is_token.astype(np.int32),
    "segment_ids": (is_token & (place > a_length + 1)).astype(np.int32),
  }
