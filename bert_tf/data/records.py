"""The pretraining examples as TFRecords: one schema writes, reads and checks.

The features are those of the original project, so that its records can be
read here and ours there. Shapes: B batch size, S max_seq_length, P
max_predictions_per_seq.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import itertools
import json
import mmap
import os
import struct
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_tf.config import InputError
from bert_tf.config import require

STATS_FILE = "stats.json"
# What `check_records` looks at. One record shows the lengths; a foreign
# vocabulary shows only in some.
_NUM_CHECKED = 100


class Feature(NamedTuple):
  """One column of the records.

  In a record whole numbers are int64 and a single value is a list of one, as
  Example protos have it; in a batch they are int32 and of shape [B].
  """

  name: str
  length: str | None  # The option that gives it; None: a single value.
  dtype: tf.DType


FEATURES = (
  Feature("input_ids", "max_seq_length", tf.int32),
  Feature("input_mask", "max_seq_length", tf.int32),  # 1 = piece
  Feature("segment_ids", "max_seq_length", tf.int32),
  Feature("masked_lm_positions", "max_predictions_per_seq", tf.int32),
  Feature("masked_lm_ids", "max_predictions_per_seq", tf.int32),
  # 0 = padding
  Feature("masked_lm_weights", "max_predictions_per_seq", tf.float32),
  # 0 = B follows A, 1 = random B
  Feature("next_sentence_labels", None, tf.int32),
)


def signature(
    *, max_seq_length: int, max_predictions_per_seq: int
) -> dict[str, tf.TensorSpec]:
  """The batches that `parse` gives: [B, S], [B, P] or [B], B not known."""
  lengths = {
    "max_seq_length": max_seq_length,
    "max_predictions_per_seq": max_predictions_per_seq,
  }
  return {
    feature.name: tf.TensorSpec(
        [None] + ([lengths[feature.length]] if feature.length else []),
        feature.dtype, name=feature.name)
    for feature in FEATURES
  }


def encode(batch: Mapping[str, np.ndarray]) -> Iterator[bytes]:
  """The rows of a batch as serialized `tf.train.Example` protos.

  Args:
    batch: an array for each of `FEATURES`: [B, S], [B, P] or [B].
  """
  columns = [
    (feature.name, feature.dtype.is_floating,
     batch[feature.name].reshape(len(batch[feature.name]), -1).tolist())
    for feature in FEATURES]
  for row in range(len(columns[0][-1])):
    example = tf.train.Example()
    features = example.features.feature
    for name, is_floating, rows in columns:
      kind = "float_list" if is_floating else "int64_list"
      getattr(features[name], kind).value.extend(rows[row])
    # Without it the features come in another order in each process.
    yield example.SerializeToString(deterministic=True)


@contextlib.contextmanager
def replacing(paths: Sequence[str]) -> Iterator[list[str]]:
  """Yields temporary names; renames them to `paths` if all went well.

  On an error nothing stays: no file under its final name is ever incomplete.

  Raises:
    InputError: the files cannot be written, or the disk is full.
  """
  temporary_paths = [f"{path}.tmp-{os.getpid()}" for path in paths]
  try:
    yield temporary_paths
    for temporary, path in zip(temporary_paths, paths):
      os.replace(temporary, path)
  except (OSError, tf.errors.PermissionDeniedError, tf.errors.NotFoundError,
          tf.errors.ResourceExhaustedError) as error:
    raise InputError(
        f"{paths[0]}: cannot be written: {error}; check the folder's rights "
        "and the room on the disk.") from error
  finally:
    for temporary in temporary_paths:
      with contextlib.suppress(FileNotFoundError):
        os.remove(temporary)


def write_records(
    path: str, batches: Iterable[Mapping[str, np.ndarray]]) -> int:
  """Writes the rows of all batches; returns how many there are.

  They go under a temporary name, which is renamed at the end.

  Raises:
    InputError: the file cannot be written.
  """
  count = 0
  with replacing([path]) as (temporary,):
    with tf.io.TFRecordWriter(temporary) as writer:
      for batch in batches:
        for record in encode(batch):
          writer.write(record)
          count += 1
  return count


def parse(
    serialized: tf.Tensor, *, max_seq_length: int,
    max_predictions_per_seq: int
) -> dict[str, tf.Tensor]:
  """Parses a batch of serialized examples, inside a graph or outside.

  Args:
    serialized: string [B].
    max_seq_length: S.
    max_predictions_per_seq: P.

  Returns:
    The tensors of `signature`.

  Raises:
    tf.errors.InvalidArgumentError: records of other lengths; `check_records`
      says it in words, before the training starts.
  """
  specs = signature(
      max_seq_length=max_seq_length,
      max_predictions_per_seq=max_predictions_per_seq)
  parsed = tf.io.parse_example(serialized, {
    name: tf.io.FixedLenFeature(
        spec.shape[1:] or [1],
        tf.float32 if spec.dtype.is_floating else tf.int64)
    for name, spec in specs.items()
  })
  return {
    name: tf.reshape(
        tf.cast(parsed[name], spec.dtype),
        [-1] + spec.shape[1:].as_list())
    for name, spec in specs.items()
  }


def _values(feature: tf.train.Feature) -> Sequence[float]:
  """The values of a feature, whatever their kind."""
  kind = feature.WhichOneof("kind")
  return getattr(feature, kind).value if kind else []


def _check_record(
    where: str, record: bytes, specs: Mapping[str, tf.TensorSpec],
    vocab_size: int | None
) -> None:
  """Raises `InputError` if a record is not of these shapes and this size."""
  try:
    features = tf.train.Example.FromString(record).features.feature
  except Exception as error:  # DecodeError; protobuf is not our dependency.
    raise InputError(
        f"{where} is not a tf.train.Example ({error}); make the records with "
        "tools/create_pretraining_data.py.") from None
  missing = [name for name in specs if name not in features]
  require(
      not missing,
      f"{where} lacks {', '.join(missing)}; it holds "
      f"{', '.join(sorted(features)) or 'nothing'}. Make the records with "
      "tools/create_pretraining_data.py.")
  for feature in FEATURES:
    values = _values(features[feature.name])
    expected = specs[feature.name].shape[1:].num_elements()
    require(
        len(values) == expected,
        f"{where} has {len(values)} {feature.name}, and " + (
          f"--{feature.length} is {expected}: pass --{feature.length}="
          f"{len(values)}, or make the records anew." if feature.length else
          f"{expected} is expected; make the records anew."))
  if vocab_size is None:
    return
  for name in ("input_ids", "masked_lm_ids"):
    highest = max(_values(features[name]))
    require(
        highest < vocab_size,
        f"{where} holds the id {highest} in {name}, and the vocabulary has "
        f"{vocab_size} entries: give the vocabulary that the records were "
        "made with, or make them anew.")


def check_records(
    path: str, *, max_seq_length: int, max_predictions_per_seq: int,
    vocab_size: int | None = None
) -> None:
  """Looks at the first records of a file before a training starts on it.

  Args:
    path: a TFRecord file, not compressed.
    max_seq_length: S.
    max_predictions_per_seq: P.
    vocab_size: number of entries of the vocabulary, if ids shall be checked.

  Raises:
    InputError: no such file, no TFRecords, no record in it, a feature
      missing, another length (both numbers are in the message) or an id
      beyond the vocabulary.
  """
  require(os.path.isfile(path), f"{path}: no such file.")
  specs = signature(
      max_seq_length=max_seq_length,
      max_predictions_per_seq=max_predictions_per_seq)
  count = 0
  records = tf.data.TFRecordDataset(path).as_numpy_iterator()
  try:
    for record in itertools.islice(records, _NUM_CHECKED):
      count += 1
      _check_record(f"{path}: record {count}", record, specs, vocab_size)
  except (tf.errors.DataLossError, tf.errors.PermissionDeniedError) as error:
    raise InputError(
        f"{path}: cannot be read as TFRecords after {count} records "
        f"({error.message}). Compressed files are not read.") from None
  require(count > 0, f"{path}: holds no record; make the records anew.")


def _count_in_stats(path: str) -> int | None:
  """The count in stats.json beside the file, if it is of this very file."""
  stats_path = os.path.join(os.path.dirname(path), STATS_FILE)
  try:
    with open(stats_path, encoding="utf-8") as file:
      entry = json.load(file)["files"][os.path.basename(path)]
    # Copying changes the time of a file, but not its size.
    is_fresh = entry["bytes"] == os.path.getsize(path)
    return entry["records"] if is_fresh else None
  except (OSError, ValueError, KeyError, TypeError):
    return None


def count_records(path: str) -> int:
  """How many records a file holds.

  `stats.json` beside the file says it, if it was written with this file;
  otherwise the lengths in front of the records do, without reading them.

  Raises:
    InputError: no such file, or it does not end where a record does.
  """
  require(os.path.isfile(path), f"{path}: no such file.")
  count = _count_in_stats(path)
  return _walk_records(path) if count is None else count


def _walk_records(path: str) -> int:
  """Counts by the framing: uint64 length, uint32 CRC, data, uint32 CRC."""
  size = os.path.getsize(path)
  if size == 0:
    return 0
  count = 0
  place = 0
  header = struct.Struct("<Q")
  with open(path, "rb") as file, mmap.mmap(
      file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    while place + 16 <= size:
      place += header.unpack_from(data, place)[0] + 16
      count += 1
  require(
      place == size,
      f"{path}: cut short after {count - (place > size)} records, or not a "
      "TFRecord file; make it anew.")
  return count
