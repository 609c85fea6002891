"""The pretraining examples as TFRecords: one schema writes, reads and checks.

The features are those of the original project, so that its records can be
read here and ours there. Shapes: B batch size, S max_seq_length, P
max_predictions_per_seq, K examples in a packed row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import itertools
import json
import mmap
import os
import struct
from typing import Any, IO, NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf import files
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data import example_protos
from bert_tf.data.work_folder import STATS_FILE

# Of a record in a TFRecord file, and what stands before it.
_LENGTH = struct.Struct("<Q")

# What `check_records` looks at. One record shows the lengths; a foreign
# vocabulary shows only in some.
_NUM_CHECKED = 100


class Layout(NamedTuple):
  """What a record holds. Its single values are of shape [B] in a batch."""

  max_seq_length: int  # S
  max_predictions_per_seq: int = 0  # P; 0: not masked, see `dynamic_masking`
  max_examples_per_row: int = 0  # K; 0: not packed, a row is an example
  next_sentence: bool = True  # whether there are pairs with a label


class Feature(NamedTuple):
  """One column of the records.

  In a record whole numbers are int64 and a single value is a list of one, as
  Example protos have it; in a batch they are int32 and of shape [B].
  """

  length: int | None  # None: a single value
  dtype: tf.DType
  option: str = ""  # the flag that gives the length, for messages


def features(layout: Layout) -> dict[str, Feature]:
  """The columns of a layout, by name.

  >>> list(features(Layout(128, next_sentence=False)))
  ['input_ids', 'input_mask', 'segment_ids']
  """
  length, predictions, examples, _ = layout
  row = Feature(length, tf.int32, "max_seq_length")
  slots = Feature(predictions, tf.int32, "max_predictions_per_seq")
  each = Feature(examples or None, tf.int32)
  columns = {"input_ids": row,
             "input_mask": row,  # 1 = piece
             "segment_ids": row}
  if predictions:
    columns |= {"masked_lm_positions": slots, "masked_lm_ids": slots,
                # 0 = padding
                "masked_lm_weights": slots._replace(dtype=tf.float32)}
  if examples:
    columns |= {"example_ids": row,  # 0 = padding
                "position_ids": row, "cls_positions": each}
  if layout.next_sentence:
    columns["next_sentence_labels"] = each  # 0 = B follows A, 1 = random B
    if examples:
      columns["next_sentence_weights"] = each._replace(dtype=tf.float32)
  return columns


def signature(layout: Layout) -> dict[str, tf.TensorSpec]:
  """The batches that `parse` gives: [B, S], [B, P] or [B], B not known."""
  return {
    name: tf.TensorSpec(
        [None] + ([] if feature.length is None else [feature.length]),
        feature.dtype, name=name)
    for name, feature in features(layout).items()}


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
  """`files.replacing` for records.

  Raises:
    InputError: the file cannot be written, or the disk is full.
  """
  try:
    with files.replacing(path) as temporary:
      yield temporary
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
        f"{path}: cannot be written: {error}; check the folder's rights and "
        "the room on the disk.") from error


def write_records(
    path: str, batches: Iterable[Mapping[str, np.ndarray]]) -> int:
  """Writes the rows of all batches; returns how many there are.

  They go under a temporary name, which is renamed at the end.

  Args:
    path: the file.
    batches: the columns of a layout, arrays [B, S], [B, P], [B, K] or [B].

  Raises:
    InputError: the file cannot be written.
  """
  count = 0
  with replacing(path) as temporary:
    with tf.io.TFRecordWriter(temporary) as writer:
      for batch in batches:
        for record in example_protos.encode_rows(batch):
          writer.write(record)
          count += 1
  return count


def parse(serialized: tf.Tensor, layout: Layout) -> dict[str, tf.Tensor]:
  """Parses a batch of serialized examples, inside a graph or outside.

  Args:
    serialized: string [B].
    layout: what the records hold.

  Returns:
    The tensors of `signature`.

  Raises:
    tf.errors.InvalidArgumentError: records of another layout;
      `check_records` says it in words, before the training starts.
  """
  specs = signature(layout)
  parsed = tf.io.parse_example(serialized, {
    name: tf.io.FixedLenFeature(
        spec.shape[1:] or [1],
        tf.float32 if spec.dtype.is_floating else tf.int64)
    for name, spec in specs.items()
  })
  # A known batch size stays known: a TPU asks for it.
  size = -1 if serialized.shape[0] is None else serialized.shape[0]
  return {
    name: tf.reshape(
        tf.cast(parsed[name], spec.dtype),
        [size] + spec.shape[1:].as_list())
    for name, spec in specs.items()
  }


def _values(feature: tf.train.Feature) -> Sequence[float]:
  """The values of a feature, whatever their kind."""
  kind = feature.WhichOneof("kind")
  return getattr(feature, kind).value if kind else []


def _parse_one(where: str, record: bytes) -> Mapping[str, Any]:
  try:
    return tf.train.Example.FromString(record).features.feature
  except Exception as error:  # DecodeError; protobuf is not our dependency.
    raise InputError(
        f"{where} is not a tf.train.Example ({error}); make the records with "
        "tools/create_pretraining_data.py.") from None


def _first_records(path: str, count: int) -> Iterator[tuple[str, Mapping]]:
  """The first records, each with words that say which one it is."""
  require(files.is_file(path), f"{path}: no such file.")
  number = 0
  serialized = tf.data.TFRecordDataset(path).as_numpy_iterator()
  try:
    for record in itertools.islice(serialized, count):
      number += 1
      where = f"{path}: record {number}"
      yield where, _parse_one(where, record)
  except (tf.errors.DataLossError, tf.errors.PermissionDeniedError) as error:
    raise InputError(
        f"{path}: cannot be read as TFRecords after {number} records "
        f"({error.message}). Compressed files are not read.") from None
  require(number > 0, f"{path}: holds no record; make the records anew.")


def read_layout(path: str) -> Layout:
  """What the records of a file hold, by the first of them.

  Raises:
    InputError: no such file, no TFRecords, no record in it.
  """
  [(_, found)] = _first_records(path, 1)
  length = lambda name: len(_values(found[name])) if name in found else 0
  return Layout(
      max_seq_length=length("input_ids"),
      max_predictions_per_seq=length("masked_lm_positions"),
      max_examples_per_row=length("cls_positions"),
      next_sentence="next_sentence_labels" in found)


def _check_record(
    where: str, found: Mapping[str, Any],
    expected: Mapping[str, Feature], vocab_size: int | None
) -> None:
  """Raises `InputError` if a record is not of these shapes and this size."""
  missing = [name for name in expected if name not in found]
  require(
      not missing,
      f"{where} lacks {', '.join(missing)}; it holds "
      f"{', '.join(sorted(found)) or 'nothing'}. Make the records with "
      "tools/create_pretraining_data.py.")
  for name, feature in expected.items():
    size, wanted = len(_values(found[name])), feature.length or 1
    require(
        size == wanted,
        f"{where} has {size} {name}, and " + (
          f"--{feature.option} is {wanted}: pass --{feature.option}={size}, "
          "or make the records anew." if feature.option else
          f"{wanted} is expected; make the records anew."))
  if vocab_size is None:
    return
  for name in ("input_ids", "masked_lm_ids"):
    if name not in expected:
      continue
    highest = max(_values(found[name]))
    require(
        highest < vocab_size,
        f"{where} holds the id {highest} in {name}, and the vocabulary has "
        f"{vocab_size} entries: give the vocabulary that the records were "
        "made with, or make them anew.")


def check_records(
    path: str, layout: Layout, *, vocab_size: int | None = None) -> None:
  """Looks at the first records of a file before a training starts on it.

  Args:
    path: a TFRecord file, not compressed.
    layout: what they must hold.
    vocab_size: number of entries of the vocabulary, if ids shall be checked.

  Raises:
    InputError: no such file, no TFRecords, no record in it, a feature
      missing, another length (both numbers are in the message) or an id
      beyond the vocabulary.
  """
  expected = features(layout)
  for where, found in _first_records(path, _NUM_CHECKED):
    _check_record(where, found, expected, vocab_size)


def _count_in_stats(path: str) -> int | None:
  """The count in stats.json beside the file, if it is of this very file."""
  stats_path = os.path.join(files.directory_of(path), STATS_FILE)
  try:
    with files.open_file(stats_path) as file:
      entry = json.load(file)["files"][os.path.basename(path)]
    # Copying changes the time of a file, but not its size.
    is_fresh = entry["bytes"] == files.size(path)
    return entry["records"] if is_fresh else None
  except (OSError, ValueError, KeyError, TypeError):
    return None


def count_records(path: str) -> int:
  """How many records a file holds.

  `stats.json` beside the file says it, if it was written with this file;
  otherwise the lengths in front of the records do, without reading them. (A
  remote file without `stats.json` is read as a whole.)

  Raises:
    InputError: no such file, it cannot be read, or it does not end where a
      record does.
  """
  require(files.is_file(path), f"{path}: no such file.")
  count = _count_in_stats(path)
  if count is not None:
    return count
  size = files.size(path)
  if size == 0:
    return 0
  try:
    with files.open_file(path, "rb") as file:
      return _walk_records(path, size, _lengths_of(path, file))
  except OSError as error:
    raise InputError(f"{path}: cannot be read: {error.strerror}.") from None


def _lengths_of(path: str, file: IO[bytes]) -> Callable[[int], int]:
  """A function: (place of a record) -> bytes in it."""
  if files.is_local(path):
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return lambda place: _LENGTH.unpack_from(data, place)[0]
  logging.info(
      "%s: is read through to count its records, as no %s beside it has "
      "their number.", path, STATS_FILE)

  def length_at(place):
    file.seek(place)
    return _LENGTH.unpack(file.read(_LENGTH.size))[0]

  return length_at


def _walk_records(
    path: str, size: int, length_at: Callable[[int], int]) -> int:
  """Counts by the framing: uint64 length, uint32 CRC, data, uint32 CRC."""
  count, place = 0, 0
  while place + 16 <= size:
    place += length_at(place) + 16
    count += 1
  require(
      place == size,
      f"{path}: cut short after {count - (place > size)} records, or not a "
      "TFRecord file; make it anew.")
  return count
