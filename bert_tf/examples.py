"""The examples of a task in memory, as pieces, and batches of them.

Strings go through the tokenizer, in tf.data and by the functions that the
exported model holds, once: what stays is 8 bytes a piece. So the length of
each example is known, and those of about the same length can go together.

Shapes: E examples, R rows (E times the choices of an example, or the windows
of all examples), B batch, S sequence length, N choices.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf.data.input_pipeline import Replicas
from bert_tf.data.input_pipeline import deal
from bert_tf.tokenization import BertTokenizer

# Lengths are padded to a multiple of this: few shapes, each compiled once.
MULTIPLE = 16
# Batches that are sorted by length together, where that is asked for. More
# would save little padding.
POOL = 8
# Strings that are tokenized in one call.
_TEXTS = 2048
# Texts that are made windows of in one call: each may be long.
_LONG_TEXTS = 64
# What stands in padding, where it is not 0. A label of -1 counts nowhere.
_PADDING = {"labels": -1}


class Examples(NamedTuple):
  """What a task made of its rows.

  `pieces`: int32 [R, (S)] each, all of the same lengths: `input_ids`,
  `segment_ids`, and what a task adds for each piece (`labels`, -1 = none).
  `targets`: arrays [E, ...] that the objective needs. `choices`: N, where an
  example has N rows; else 1. `notes`: what the task itself needs to read the
  model's outputs. `documents`: where long texts have several rows, which are
  windows over them: the example of each row, int [R], rising from 0. Training
  then takes each window with the targets of its text, and the outputs of a
  text are the means of those of its windows.
  """

  pieces: dict[str, tf.RaggedTensor]
  targets: dict[str, np.ndarray]
  choices: int = 1
  notes: Any = None
  documents: np.ndarray | None = None

  @property
  def number(self) -> int:
    """What batches are made of: E; or R, if examples have windows."""
    return int(self.pieces["input_ids"].nrows()) // self.choices

  @property
  def lengths(self) -> np.ndarray:
    """Pieces of the longest row of each of them, [E] or [R]."""
    lengths = self.pieces["input_ids"].row_lengths().numpy()
    return lengths.reshape(-1, self.choices).max(1)


def without_padding(inputs: dict[str, tf.Tensor]) -> dict[str, tf.RaggedTensor]:
  """`pieces` of what `BertTokenizer` packed, [R, S] each."""
  lengths = tf.reduce_sum(inputs["input_mask"], axis=1)
  return {
    name: tf.RaggedTensor.from_tensor(inputs[name], lengths=lengths)
    for name in ("input_ids", "segment_ids")}


def log_some(is_so: np.ndarray, what: str) -> None:
  """Says of how many rows it is so, if it is so of any."""
  if is_so.any():
    logging.info(
        "%d of %d %s (%.1f %%).", is_so.sum(), is_so.size, what,
        100 * is_so.mean())


def tokenize(
    tokenizer: BertTokenizer, texts: Sequence[str],
    text_pairs: Sequence[str] | None = None, *, max_seq_length: int
) -> dict[str, tf.RaggedTensor]:
  """`pieces` of texts or of pairs.

  Those that were cut, and those without a piece, are counted in the log. (An
  empty text is [CLS] [SEP].)

  Args:
    tokenizer: what makes pieces.
    texts: R strings.
    text_pairs: R strings.
    max_seq_length: the greatest S, special tokens included.
  """
  columns = (texts,) if text_pairs is None else (texts, text_pairs)

  def pack(*texts):
    ids = [tokenizer.tokenize(text) for text in texts]
    inputs = tokenizer.pack(*ids, max_seq_length=max_seq_length)
    return without_padding(inputs), tf.stack([x.row_lengths() for x in ids])

  pieces, sizes = _in_batches(pack, columns, size=_TEXTS)  # [1 or 2, R]
  log_some(sizes.sum(0) + len(sizes) + 1 > max_seq_length,
           f"sequences are longer than {max_seq_length} pieces and were cut")
  for size, name in zip(sizes, ("text", "second text")):
    log_some(size == 0, f"sequences have an empty {name}")
  return pieces


def tokenize_windows(
    tokenizer: BertTokenizer, texts: Sequence[str], *, max_seq_length: int,
    doc_stride: int
) -> tuple[dict[str, tf.RaggedTensor], np.ndarray]:
  """`pieces` and `documents` of texts, of which the long ones are windows.

  Args:
    tokenizer: what makes pieces.
    texts: E strings.
    max_seq_length: the greatest S, special tokens included.
    doc_stride: pieces from the start of a window to that of the next; see
      `BertTokenizer.pack_windows`.
  """

  def pack(texts):
    ids = tokenizer.tokenize(texts)
    windows = tokenizer.pack_windows(
        ids, max_seq_length=max_seq_length, doc_stride=doc_stride)
    number = tf.math.bincount(
        windows.example, minlength=tf.size(texts), dtype=tf.int64)
    return without_padding(windows.inputs), tf.stack(
        [ids.row_lengths(), number])

  pieces, (sizes, number) = _in_batches(pack, [texts], size=_LONG_TEXTS)
  log_some(number > 1, f"texts are longer than {max_seq_length} pieces; with "
           f"the others they are {number.sum()} windows")
  log_some(sizes == 0, "texts are empty")
  return pieces, np.repeat(np.arange(len(texts)), number)


def _in_batches(
    pack: Callable, columns: Sequence[Sequence[str]], *, size: int
) -> tuple[dict[str, tf.RaggedTensor], np.ndarray]:
  """All pieces, and numbers of each string.

  Args:
    pack: columns of strings [size] -> (pieces, int64 [number, size]).
    columns: R strings each.
    size: strings in a batch.

  Returns:
    Pieces, and [number, R].
  """
  batches = list(
      tf.data.Dataset.from_tensor_slices(tuple(map(tf.constant, columns)))
      .batch(size).map(pack, num_parallel_calls=tf.data.AUTOTUNE))
  return (
    {name: tf.concat([pieces[name] for pieces, _ in batches], axis=0)
     for name in batches[0][0]},
    np.concatenate([numbers for _, numbers in batches], axis=1))


def make_batches_of(
    examples: Examples, *, max_seq_length: int, pad_to_max_length: bool = False
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
  """A function: indices int [B] -> the model's inputs and the targets.

  Inputs are int32 [B, S], or [B, N, S] where there are choices. Where there
  are windows, the indices are theirs.

  Args:
    examples: to choose from.
    max_seq_length: that of the examples: the greatest S.
    pad_to_max_length: S is this. False: the next multiple of 16 of the
      longest.
  """
  choices = examples.choices
  length = max_seq_length if pad_to_max_length else None
  targets = {name: tf.constant(x) for name, x in examples.targets.items()}
  documents = examples.documents

  @tf.autograph.experimental.do_not_convert
  def batch(indices):
    rows = tf.reshape(
        indices[:, None] * choices + tf.range(choices, dtype=indices.dtype),
        [-1])  # [B N]
    pieces = {name: tf.gather(x, rows) for name, x in examples.pieces.items()}
    lengths = pieces["input_ids"].row_lengths()
    longest = tf.constant(max_seq_length, tf.int64)
    if not pad_to_max_length:
      size = (tf.reduce_max(lengths) + MULTIPLE - 1) // MULTIPLE * MULTIPLE
      longest = tf.minimum(size, longest)
    padded = {
      name: x.to_tensor(_PADDING.get(name, 0), shape=tf.stack([-1, longest]))
      for name, x in pieces.items()}
    padded["input_mask"] = tf.sequence_mask(lengths, longest, tf.int32)
    padded = {name: tf.ensure_shape(x, [None, length])
              for name, x in padded.items()}
    if choices > 1:
      padded = {name: tf.reshape(x, [-1, choices, length or tf.shape(x)[1]])
                for name, x in padded.items()}
    if documents is not None:
      indices = tf.gather(documents, indices)
    return {**padded, **{
      name: tf.gather(x, indices) for name, x in targets.items()}}

  return batch


def training_order(
    lengths: np.ndarray, *, batch_size: int, num_steps: int, seed: int,
    group_by_length: bool = False
) -> np.ndarray:
  """Which examples each step takes, int32 [num_steps, batch_size].

  Each epoch has all examples in an order of its own. With `group_by_length`,
  out of the next `POOL` batches those of about the same length go together,
  and the batches come in a random order. A pure function of the arguments.

  >>> training_order(np.array([5, 9, 5, 9]), batch_size=2, num_steps=2, seed=0,
  ...                group_by_length=True)
  array([[3, 1],
         [0, 2]], dtype=int32)
  """
  total, number = num_steps * batch_size, len(lengths)
  epochs = -(-total // number)
  order = np.concatenate([
    np.random.RandomState([seed % 2**32, epoch]).permutation(number)
    for epoch in range(epochs)])[:total]
  if not group_by_length:
    return order.reshape(-1, batch_size).astype(np.int32)
  pools = []
  for i, start in enumerate(range(0, total, POOL * batch_size)):
    pool = order[start:start + POOL * batch_size]
    pool = pool[np.argsort(lengths[pool], kind="stable")]
    places = np.random.RandomState([seed % 2**32, epochs, i]).permutation(
        len(pool) // batch_size)
    pools.append(pool.reshape(-1, batch_size)[places])
  return np.concatenate(pools).astype(np.int32)


def training_batches(
    examples: Examples, order: np.ndarray, *, first_step: int = 0,
    replicas: Replicas = Replicas(), **padding: Any
) -> tf.data.Dataset:
  """The batches of an order, from a step on, of some replicas' rows.

  `padding` as in `make_batches_of`.
  """
  return (
    deal(tf.data.Dataset.from_tensor_slices(order[first_step:]), replicas)
    .map(make_batches_of(examples, **padding),
         num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    .prefetch(tf.data.AUTOTUNE))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
  """Batches as one array; rows that end earlier get zeros at their end."""
  if parts[0].ndim > 1:
    longest = max(part.shape[1] for part in parts)
    parts = [
      np.pad(part, [(0, 0), (0, longest - part.shape[1])]
             + [(0, 0)] * (part.ndim - 2))
      for part in parts]
  return np.concatenate(parts)


def _means(values: np.ndarray, documents: np.ndarray) -> np.ndarray:
  """Over the windows of each text, [R, C] -> [E, C]."""
  first = np.flatnonzero(np.diff(documents, prepend=-1))
  # In float32 the sum of very many windows would be wrong in the third place.
  sums = np.add.reduceat(values, first, dtype=np.float64)
  return np.float32(sums / np.bincount(documents)[:, None])


def make_predictor(
    model: Callable[..., dict[str, Any]], examples: Examples, *,
    batch_size: int, **padding: Any
) -> Callable[[], dict[str, np.ndarray]]:
  """A function: () -> {output: array [E, ...]} of the model as it is.

  The order is that of the examples, whatever that of the computation. Outputs
  of each piece are [E, S] of the longest S, zeros after the end of a row. Where
  there are windows, outputs must be [B, C] and their means are given.
  `padding` as in `make_batches_of`.
  """
  order = np.argsort(-examples.lengths, kind="stable")
  batches = (
    tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
    .map(make_batches_of(examples._replace(targets={}), **padding),
         num_parallel_calls=tf.data.AUTOTUNE)
    .prefetch(tf.data.AUTOTUNE))

  @tf.function(input_signature=[batches.element_spec])
  def predict(batch):
    return model(batch, training=False)

  def run():
    parts = [predict(batch) for batch in batches]
    places = np.argsort(order)
    outputs = {
      name: _joined([part[name].numpy() for part in parts])[places]
      for name in parts[0]}
    if examples.documents is None:
      return outputs
    return {name: _means(values, examples.documents)
            for name, values in outputs.items()}

  return run
