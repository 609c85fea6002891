"""Documents -> rows of full sentences, for pretraining without NSP.

Shapes: T pieces in the corpus, N rows, S max_seq_length.

numpy only.
"""

from typing import NamedTuple

import numpy as np

from bert_tf.data.sentence_pairs import Documents

# [CLS] sentences [SEP]
NUM_SPECIAL_PIECES = 2


class Rows(NamedTuple):
  """Rows of text, as runs of `pieces`."""

  pieces: np.ndarray  # [T + D]: all documents, a separator behind each
  start: np.ndarray  # [N] int64
  length: np.ndarray  # [N] int32

  @property
  def size(self) -> int:
    """N."""
    return len(self.start)

  def select(self, index) -> "Rows":
    """A selection of the rows, by whatever indexes a numpy array."""
    return self._replace(start=self.start[index], length=self.length[index])


def draw_rows(
    documents: Documents, *, max_seq_length: int, passes: int, sep_id: int,
    generator: np.random.Generator
) -> Rows:
  """Cuts the corpus into rows, `passes` times over.

  Each row holds as many full sentences as fit, from one document or, with a
  [SEP] between them, from several: "full sentences" in Liu et al. 2019
  (RoBERTa), section 4.2. A sentence that is longer than a row is cut; what is
  left of it begins the next row. Each pass begins at another sentence, so
  that the rows of two passes end at different places.

  Args:
    documents: one at least.
    max_seq_length: S.
    passes: how often to go over the corpus.
    sep_id: the id of [SEP].
    generator: the source of randomness.
  """
  limit = max_seq_length - NUM_SPECIAL_PIECES
  ends = documents.sentence_starts[documents.document_starts[1:]]
  pieces = np.insert(documents.pieces, ends, sep_id)
  bounds, is_separator = _bounds(documents, limit)
  # Where a row that begins with this sentence ends.
  after = np.searchsorted(bounds, bounds[:-1] + limit, side="right") - 1
  after, skipped = after.tolist(), is_separator.tolist()
  firsts, lasts = [], []

  def walk(place, stop):
    while place < stop:
      if skipped[place]:
        place += 1
        continue
      firsts.append(place)
      place = min(after[place], stop)
      lasts.append(place)

  for first in generator.integers(0, len(after), passes).tolist():
    walk(first, len(after))
    walk(0, first)
  firsts, lasts = np.array(firsts), np.array(lasts)
  # No separator before the [SEP] that ends a row.
  lasts -= is_separator[lasts - 1]
  return Rows(
      pieces=pieces, start=bounds[firsts],
      length=(bounds[lasts] - bounds[firsts]).astype(np.int32))


def _bounds(
    documents: Documents, limit: int) -> tuple[np.ndarray, np.ndarray]:
  """Where a row may begin or end, and which of these parts are separators.

  A document's separator counts as one more sentence; a sentence of more than
  `limit` pieces, as several.
  """
  lengths = np.insert(
      np.diff(documents.sentence_starts), documents.document_starts[1:], 1)
  is_separator = np.insert(
      np.zeros(len(documents.sentence_starts) - 1, bool),
      documents.document_starts[1:], True)
  parts = -(-lengths // limit)
  part = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
  starts = np.repeat(np.cumsum(lengths) - lengths, parts) + part * limit
  return (np.append(starts, lengths.sum()), np.repeat(is_separator, parts))


def join_rows(
    rows: Rows, *, max_seq_length: int, cls_id: int, sep_id: int, pad_id: int
) -> dict[str, np.ndarray]:
  """[CLS] sentences [SEP], padded: what the encoder takes.

  Returns:
    `input_ids`, `input_mask` (1 = piece, 0 = padding) and `segment_ids` (all
    0), each int32 [N, S].

  >>> rows = Rows(np.array([5, 6, 7]), np.array([1]), np.array([2]))
  >>> join_rows(rows, max_seq_length=6, cls_id=1, sep_id=2,
  ...           pad_id=0)["input_ids"].tolist()
  [[1, 6, 7, 2, 0, 0]]
  """
  place = np.arange(max_seq_length)  # [S]
  length = rows.length[:, None]  # [N, 1]
  is_text = (place >= 1) & (place <= length)  # [N, S]
  input_ids = np.full(is_text.shape, pad_id, np.int32)
  input_ids[is_text] = rows.pieces[
    (rows.start[:, None] + place - 1)[is_text]]
  input_ids[place == length + 1] = sep_id
  input_ids[:, 0] = cls_id
  return {
    "input_ids": input_ids,
    "input_mask": (place < length + NUM_SPECIAL_PIECES).astype(np.int32),
    "segment_ids": np.zeros_like(input_ids),
  }
