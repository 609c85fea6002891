"""Batches without their padding, and with it again.

What looks at each piece alone, which is nearly all the work of an encoder,
then has fewer rows. In `keras.ops` and `lookup`.

Shapes: B batch, S sequence length, T pieces that are left, N attention heads,
D size of a head, H hidden size.
"""

from keras import ops

from bert_tf.lookup import look_up

# What is left of a batch without its padding is a multiple of so many pieces:
# few shapes, each compiled once.
PIECES_MULTIPLE = 64


def kept_places(input_mask):
  """Where the pieces of a batch stand in it, row after row.

  Of an `input_mask` [B, S]: numbers below B S, int32 [T], and how many of them
  are pieces. A few of the padding follow these, so that T is a multiple of
  PIECES_MULTIPLE, not 0, or B S.

  >>> places, number = kept_places(
  ...     ops.convert_to_tensor([[1, 1, 0], [1, 0, 0]]))
  >>> places.numpy(), int(number)
  (array([0, 1, 3, 2, 4, 5], dtype=int32), 3)
  """
  is_piece = ops.reshape(input_mask, (-1,)) > 0  # [B S]
  places = ops.concatenate([
    ops.nonzero(is_piece)[0], ops.nonzero(ops.logical_not(is_piece))[0]])
  number = ops.sum(ops.cast(is_piece, "int32"))
  rounded = ops.maximum(-(-number // PIECES_MULTIPLE), 1) * PIECES_MULTIPLE
  return ops.cast(places[:rounded], "int32"), number


def remove_padding(x, places):
  """[B, S, ...] to [T, ...] at `places` [T]."""
  return look_up(ops.reshape(x, (-1, *x.shape[2:])), places)


def restore_padding(x, places, shape):
  """`x` [T, H] to [B, S, H] of `shape` (B, S), with zeros as padding."""
  hidden = x.shape[-1]
  x = ops.scatter(places[:, None], x, (shape[0] * shape[1], hidden))
  return ops.reshape(x, (*shape, hidden))


def kept_rows(places, shape):
  """Which of the T pieces at `places` [T] each place of a batch has.

  Int32 [B, S] of `shape` (B, S); -1 for padding.
  """
  numbers = 1 + ops.arange(ops.shape(places)[0], dtype="int32")
  return restore_padding(numbers[:, None], places, shape)[:, :, 0] - 1


def head_places(places, rows, num_heads: int):
  """How pieces without padding become heads, and heads pieces again.

  Of `places` [T] and their `kept_rows` [B, S]: the rows of pieces' heads
  [T N, D] that make up [B, N, S, D], int32 [B, N, S], -1 for padding, and the
  rows of [B N S, D] that make up [T, N, D], int32 [T, N]. One look-up each way
  moves what a scatter and a transposition would.
  """
  length = ops.shape(rows)[1]
  heads = ops.arange(num_heads, dtype="int32")
  first = (places // length * num_heads)[:, None] + heads  # [T, N]
  to_pieces = first * length + (places % length)[:, None]
  rows = rows[:, None, :]  # [B, 1, S]
  to_heads = ops.where(rows < 0, -1, rows * num_heads + heads[:, None])
  return to_heads, to_pieces
