"""Several short examples in one row, so that little of it is padding.

Each example keeps to itself: the encoder's attention goes by `example_ids`,
positions begin anew, and each has its [CLS]. (Krell et al. 2021, "Efficient
Sequence Packing without Cross-contamination".)

Shapes: N examples, R rows, S max_seq_length, K examples in a row at most.

numpy only.
"""

from collections.abc import Mapping

import numpy as np

# An example that is shorter than this on average leaves padding behind.
_SHORTEST = 8


def max_examples_per_row(max_seq_length: int) -> int:
  """K.

  >>> max_examples_per_row(512)
  64
  """
  return -(-max_seq_length // _SHORTEST)


def assign_rows(
    lengths: np.ndarray, *, max_seq_length: int, max_examples: int
) -> np.ndarray:
  """The row of each example, int64 [N]: 0, 1, ..., R - 1.

  The longest first, each into the fullest row that has room for it ("best
  fit decreasing").

  >>> assign_rows(np.array([3, 5, 5, 4]), max_seq_length=8,
  ...             max_examples=4).tolist()
  [1, 0, 1, 2]
  """
  rows_with_room = [[] for _ in range(max_seq_length + 1)]
  rooms = 0  # bit r is set if a row has room for r more pieces
  sizes = []  # examples in each row
  row_of = np.zeros(len(lengths), np.int64)
  for example in np.argsort(-lengths, kind="stable").tolist():
    length = int(lengths[example])
    fitting = rooms >> length
    if fitting:
      room = length + (fitting & -fitting).bit_length() - 1
      row = rows_with_room[room].pop()
      if not rows_with_room[room]:
        rooms &= ~(1 << room)
    else:
      room, row = max_seq_length, len(sizes)
      sizes.append(0)
    row_of[example] = row
    sizes[row] += 1
    room -= length
    if sizes[row] < max_examples:
      rows_with_room[room].append(row)
      rooms |= 1 << room
  return row_of


def pack_rows(
    batch: Mapping[str, np.ndarray], row_of: np.ndarray, *,
    max_examples: int, pad_id: int
) -> dict[str, np.ndarray]:
  """Puts each example of a batch behind the others of its row.

  Args:
    batch: `input_ids`, `input_mask`, `segment_ids` [N, S]; and, if there are
      pairs, `next_sentence_labels` [N].
    row_of: [N], from `assign_rows`.
    max_examples: K.
    pad_id: the id of [PAD].

  Returns:
    The same [R, S], and int32 `example_ids` [R, S] (0 = padding, 1 = the
    first), `position_ids` [R, S], `cls_positions` [R, K]; the labels become
    [R, K], with `next_sentence_weights` float32 [R, K] (0 = padding).
  """
  order = np.argsort(row_of, kind="stable")
  row = row_of[order]  # [N], ascending
  lengths = batch["input_mask"].sum(axis=1)[order]
  is_first = np.append(True, row[1:] != row[:-1])
  first = np.maximum.accumulate(np.where(is_first, np.arange(len(row)), 0))
  rank = np.arange(len(row)) - first  # in its row
  behind = np.cumsum(lengths)
  offset = behind - lengths - (behind - lengths)[first]

  example, place = np.nonzero(batch["input_mask"][order])  # [all pieces]
  shape = (int(row[-1]) + 1, batch["input_ids"].shape[1])
  target = row[example], offset[example] + place

  def scattered(values, empty=0):
    result = np.full(shape, empty, np.int32)
    result[target] = values
    return result

  def per_example(values, dtype=np.int32):
    result = np.zeros((shape[0], max_examples), dtype)
    result[row, rank] = values
    return result

  source = order[example], place
  packed = {
    "input_ids": scattered(batch["input_ids"][source], pad_id),
    "input_mask": scattered(1),
    "segment_ids": scattered(batch["segment_ids"][source]),
    "example_ids": scattered(rank[example] + 1),
    "position_ids": scattered(place),
    "cls_positions": per_example(offset),
  }
  if "next_sentence_labels" in batch:
    packed |= {
      "next_sentence_labels": per_example(
          batch["next_sentence_labels"][order]),
      "next_sentence_weights": per_example(1.0, np.float32)}
  return packed
