"""From pieces to the input of the encoder: [CLS] a [SEP], or with b [SEP].

Arithmetic on sizes and places in core operations, which every TensorFlow
server has.

Shapes: B rows of pieces, W sequences (B, or the windows of all rows), S length
of a sequence.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from bert_tf.config import require

TRUNCATIONS = ("longest_first", "only_second")


class SpecialIds(NamedTuple):
  """The ids of the tokens that packing adds."""

  pad: int
  cls: int
  sep: int


class Windows(NamedTuple):
  """Sequences over parts of rows that are too long for one sequence."""

  inputs: dict[str, tf.Tensor]  # int32 [W, S] each, as from `pack`
  example: tf.Tensor  # int32 [W]: the row that a window belongs to
  start: tf.Tensor  # int32 [W]: the first piece in it, counted in the row
  size: tf.Tensor  # int32 [W]: how many pieces of the row are in it
  position: tf.Tensor  # int32 [W]: where the first of them is in the sequence


class _Pieces(NamedTuple):
  """Rows of pieces, and which part of each is taken."""

  flat: tf.Tensor  # int32
  start: tf.Tensor  # int32 [W, 1]: first piece taken, in `flat`
  size: tf.Tensor  # int32 [W, 1]: how many are taken


def truncated_sizes(
    size_a: tf.Tensor, size_b: tf.Tensor, *, room: int
) -> tuple[tf.Tensor, tf.Tensor]:
  """How much of each is left if the longer one gives way, b on a tie.

  The original takes one piece at a time; this is where that ends.

  >>> [int(size) for size in truncated_sizes(7, 3, room=8)]
  [5, 3]
  """
  kept_a = tf.minimum(size_a, tf.maximum((room + 1) // 2, room - size_b))
  return kept_a, tf.minimum(size_b, room - kept_a)


def pack(
    ids_a: tf.RaggedTensor,
    ids_b: tf.RaggedTensor | None,
    *,
    special_ids: SpecialIds,
    max_seq_length: int | tf.Tensor | None,
    truncation: str,
    pad_to_max_length: bool,
    pad_to_multiple_of: int | None,
) -> dict[str, tf.Tensor]:
  """See `BertTokenizer.pack`."""
  specials = 2 if ids_b is None else 3
  require(truncation in TRUNCATIONS, f"truncation: received {truncation!r}; "
          f"must be one of {', '.join(TRUNCATIONS)}.")
  if max_seq_length is not None:
    _check_length(max_seq_length, least=specials + 1, needs=(
      f"{specials} special tokens and a piece"))
  _check_padding(max_seq_length, pad_to_max_length, pad_to_multiple_of)
  a = _rows(ids_a, name="ids_a")
  b = None if ids_b is None else _rows(ids_b, name="ids_b")
  if b is not None:
    _check_equal_rows(ids_a, ids_b)
  if max_seq_length is not None:
    a, b = _truncate(a, b, room=max_seq_length - specials, how=truncation)
  return _assemble(
      a, b, special_ids, max_seq_length=max_seq_length,
      pad_to_max_length=pad_to_max_length,
      pad_to_multiple_of=pad_to_multiple_of)


def pack_windows(
    ids_a: tf.RaggedTensor,
    ids_b: tf.RaggedTensor | None,
    *,
    special_ids: SpecialIds,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
    pad_to_max_length: bool,
    pad_to_multiple_of: int | None,
) -> Windows:
  """See `BertTokenizer.pack_windows`."""
  a = _rows(ids_a, name="ids_a")
  if ids_b is None:
    query, document, room = None, a, max_seq_length - 2
    _check_length(
        max_seq_length, least=3, needs="2 special tokens and a piece")
  else:
    _check_equal_rows(ids_a, ids_b)
    _check_length(
        max_seq_length, least=max_query_length + 4,
        needs=f"3 special tokens, {max_query_length} pieces of ids_a and one "
              "of ids_b")
    query = a._replace(size=tf.minimum(a.size, max_query_length))
    document = _rows(ids_b, name="ids_b")
    room = max_seq_length - 3 - query.size
  require(doc_stride > 0 and max_query_length >= 0,
          f"doc_stride, max_query_length: received {doc_stride} and "
          f"{max_query_length}; must be at least 1 and 0.")
  _check_padding(max_seq_length, pad_to_max_length, pad_to_multiple_of)

  # A stride beyond the window would skip pieces.
  stride = tf.minimum(doc_stride, room)
  more = -(-tf.maximum(document.size - room, 0) // stride)  # rounded up
  count = more[:, 0] + 1  # [B]
  example = tf.repeat(tf.range(tf.size(count)), count)  # [W]
  pick = lambda values: tf.gather(
      tf.broadcast_to(values, tf.shape(document.size)), example)  # [W, 1]
  first_window = tf.cumsum(count, exclusive=True)
  number = tf.range(tf.size(example)) - tf.gather(first_window, example)
  start = number[:, None] * pick(stride)
  size = tf.minimum(pick(room), pick(document.size) - start)
  windows = _Pieces(document.flat, pick(document.start) + start, size)
  if query is None:
    a, b, position = windows, None, tf.ones_like(size)
  else:
    a = _Pieces(query.flat, pick(query.start), pick(query.size))
    b, position = windows, a.size + 2
  inputs = _assemble(
      a, b, special_ids, max_seq_length=max_seq_length,
      pad_to_max_length=pad_to_max_length,
      pad_to_multiple_of=pad_to_multiple_of)
  return Windows(
      inputs, example, start[:, 0], size[:, 0], position[:, 0])


def _assemble(
    a: _Pieces,
    b: _Pieces | None,
    special_ids: SpecialIds,
    *,
    max_seq_length: int | None,
    pad_to_max_length: bool,
    pad_to_multiple_of: int | None,
) -> dict[str, tf.Tensor]:
  """The three inputs [W, S] of pieces that fit."""
  end_a = a.size + 1  # the place of its [SEP]
  end = end_a if b is None else end_a + b.size + 1
  if pad_to_max_length:
    length = max_seq_length
  else:
    # Two or three special tokens, if there is no row at all.
    least = 2 if b is None else 3
    length = tf.reduce_max(tf.concat([end[:, 0] + 1, [least]], axis=0))
    if pad_to_multiple_of is not None:
      length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
  place = tf.range(length)[None, :]  # [1, S]
  input_ids = _take(a.flat, a.start + place - 1)
  is_b = tf.zeros_like(input_ids, tf.bool)
  if b is not None:
    is_b = (place > end_a) & (place <= end)
    input_ids = tf.where(
        is_b, _take(b.flat, b.start + place - end_a - 1), input_ids)
  for is_token, token_id in (
      ((place == end_a) | (place == end), special_ids.sep),
      (place == 0, special_ids.cls), (place > end, special_ids.pad)):
    input_ids = tf.where(is_token, token_id, input_ids)
  return {
    "input_ids": input_ids,
    "input_mask": tf.cast(place <= end, tf.int32),
    "segment_ids": tf.cast(is_b, tf.int32),
  }


def _truncate(
    a: _Pieces, b: _Pieces | None, *, room: int, how: str
) -> tuple[_Pieces, _Pieces | None]:
  if b is None:
    return a._replace(size=tf.minimum(a.size, room)), None
  if how == "longest_first":
    size_a, size_b = truncated_sizes(a.size, b.size, room=room)
    return a._replace(size=size_a), b._replace(size=size_b)
  tf.debugging.assert_less_equal(a.size, room, message=(
    f"truncation: only_second keeps ids_a whole, and there is room for {room} "
    "pieces; cut it before: ids_a[:, :n]"))
  return a, b._replace(size=tf.minimum(b.size, room - a.size))


def _check_length(
    max_seq_length: int | tf.Tensor, *, least: int, needs: str
) -> None:
  required = f"{needs} need at least {least}"
  if tf.is_tensor(max_seq_length):
    tf.debugging.assert_greater_equal(
        max_seq_length, least, message=f"max_seq_length: {required}")
    return
  require(max_seq_length >= least, f"max_seq_length: received "
          f"{max_seq_length}; {required}.")


def _check_padding(
    max_seq_length: int | None,
    pad_to_max_length: bool,
    pad_to_multiple_of: int | None,
) -> None:
  require(max_seq_length is not None or not pad_to_max_length,
          "pad_to_max_length: needs max_seq_length, which is None.")
  if pad_to_multiple_of is None:
    return
  require(not pad_to_max_length, "pad_to_multiple_of: received "
          f"{pad_to_multiple_of} and pad_to_max_length; give one of the two.")
  require(pad_to_multiple_of > 0, "pad_to_multiple_of: received "
          f"{pad_to_multiple_of}; must be at least 1.")
  require(max_seq_length is None or max_seq_length % pad_to_multiple_of == 0,
          f"max_seq_length: received {max_seq_length}; must be a multiple of "
          f"pad_to_multiple_of ({pad_to_multiple_of}), or padding exceeds it.")


def _check_equal_rows(ids_a: tf.RaggedTensor, ids_b: tf.RaggedTensor) -> None:
  """Rows of a and b must be equally many, or shapes would be broadcast."""
  _rows(ids_b, name="ids_b")
  message = "ids_a and ids_b: must have equally many rows"
  size_a, size_b = ids_a.shape[0], ids_b.shape[0]
  if size_a is not None and size_b is not None:
    require(size_a == size_b, f"{message}; received {size_a} and {size_b}.")
    return
  tf.debugging.assert_equal(ids_a.nrows(), ids_b.nrows(), message=message)


def _rows(ids: Any, *, name: str) -> _Pieces:
  """All of each row."""
  is_ragged = isinstance(ids, tf.RaggedTensor)
  received = f"shape {ids.shape}" if is_ragged else type(ids).__name__
  require(is_ragged and ids.shape.rank == 2 and ids.dtype.is_integer,
          f"{name}: must be a RaggedTensor of integers [B, (pieces)], as from "
          f"tokenize; received {received}.")
  splits = tf.cast(ids.row_splits, tf.int32)
  return _Pieces(
      tf.cast(ids.flat_values, tf.int32), splits[:-1, None],
      (splits[1:] - splits[:-1])[:, None])


def _take(flat: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
  """`flat` at these places; anything where they lie outside."""
  flat = tf.concat([flat, [0]], axis=0)
  return tf.gather(flat, tf.clip_by_value(places, 0, tf.size(flat) - 1))
