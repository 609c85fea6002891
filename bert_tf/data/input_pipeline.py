"""TFRecord files to batches, in an order that is a pure function of a seed.

The records of all epochs form one endless sequence, fixed by (seed, file
list). Step t takes records [t * batch, (t + 1) * batch) of it, so the place
in the data is the number of steps and nothing else needs to be saved.

The order: each epoch has its own permutation of the files; a file is read in
chunks, and each chunk is permuted. (The tool that writes the files has
shuffled all examples together already; the chunks only make epochs differ.)
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from bert_tf.config import require
from bert_tf.data import records

# Records that are permuted together, and held in memory for it.
CHUNK = 4096

# (batch, seed=int32 [2]) -> batch: hides pieces, see `dynamic_masking`.
Mask = Callable[..., dict[str, tf.Tensor]]


class Replicas(NamedTuple):
  """Those of all replicas of a training that one process feeds."""

  first: int = 0
  count: int = 1
  total: int = 1


def _seed(*parts) -> tf.Tensor:
  """An int32 [2] seed from a run's seed and places, as a hash of them."""
  seed = tf.stack([tf.cast(parts[0], tf.int32), 0])
  for part in parts[1:]:
    seed = tf.random.experimental.stateless_fold_in(
        seed, tf.cast(part, tf.int32))
  return seed


def _file_at(position, num_files: int, seed: int):
  """Which file stands at a position of the endless sequence of files."""
  epoch, index = position // num_files, position % num_files
  return tf.random.experimental.index_shuffle(
      tf.cast(index, tf.int32), tf.cast(_seed(seed, epoch), tf.int32),
      tf.constant(num_files - 1, tf.int32))


def find_place(
    step: int, *, batch_size: int, counts: Sequence[int], seed: int
) -> tuple[int, int]:
  """(position in the sequence of files, records to skip there) of a step.

  >>> find_place(3, batch_size=4, counts=[10], seed=1)
  (1, 2)
  """
  epoch, remaining = divmod(step * batch_size, sum(counts))
  position = epoch * len(counts)
  while True:
    count = counts[int(_file_at(position, len(counts), seed))]
    if remaining < count:
      return position, remaining
    remaining -= count
    position += 1


def _records_of_file(path, seed) -> tf.data.Dataset:
  """The serialized records of one file, permuted within chunks."""

  def permute(chunk_number, chunk):
    shuffled = tf.random.experimental.stateless_shuffle(
        chunk, tf.random.experimental.stateless_fold_in(
            seed, tf.cast(chunk_number, tf.int32)))
    return tf.data.Dataset.from_tensor_slices(shuffled)

  chunks = tf.data.TFRecordDataset(path, buffer_size=1 << 20).batch(CHUNK)
  return chunks.enumerate().flat_map(permute)


def deal(batches: tf.data.Dataset, replicas: Replicas) -> tf.data.Dataset:
  """From global batches to the batches of some replicas, one after another.

  Replica r of R gets the rows [r B / R, (r + 1) B / R) of each batch of B.
  """
  if replicas.total == 1:
    return batches
  last = replicas.first + replicas.count

  def parts(values):
    size = values.shape[0] // replicas.total
    dealt = tf.reshape(values, [replicas.total, size, *values.shape[1:]])
    return dealt[replicas.first:last]

  return batches.map(
      lambda batch: tf.nest.map_structure(parts, batch)).unbatch()


def _parsed(
    serialized: tf.data.Dataset, layout: records.Layout, mask: Mask | None,
    *, seed: int, first_batch: int
) -> tf.data.Dataset:
  """Batches of records to batches of tensors, masked if they are not yet."""

  def parse(number, batch):
    batch = records.parse(batch, layout)
    if mask is not None:
      masked = mask(batch, seed=_seed(seed, number, 2))
      # Where the size of a batch is known it stays so.
      rows = batch["input_ids"].shape[:1]
      batch = {name: tf.ensure_shape(value, rows + value.shape[1:])
               for name, value in masked.items()}
    return batch

  return (
    serialized.enumerate(first_batch)
    .map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    .prefetch(tf.data.AUTOTUNE))


def training_batches(
    files: Sequence[str], *, layout: records.Layout, batch_size: int,
    seed: int, first_step: int = 0, mask: Mask | None = None,
    replicas: Replicas = Replicas()
) -> tf.data.Dataset:
  """Endless batches for training, from a given step on.

  Args:
    files: TFRecord files; their order does not matter.
    layout: what every record holds.
    batch_size: records a batch, over all replicas.
    seed: fixes the order and the masks.
    first_step: number of batches that were consumed before.
    mask: for records that are not masked: (batch, seed=int32 [2]) -> batch,
      such as `dynamic_masking.mask_batch`. Each step has masks of its own.
    replicas: whose rows of each batch to give, one replica after another.

  Returns:
    A dataset of dicts in the record schema, see `records.signature`.
  """
  files = sorted(files)
  counts = [records.count_records(path) for path in files]
  require(
      sum(counts) >= batch_size,
      f"{len(files)} files hold {sum(counts)} records, fewer than one batch "
      f"of {batch_size}.")
  position, skipped = find_place(
      first_step, batch_size=batch_size, counts=counts, seed=seed)
  paths = tf.constant(files)

  def read(position):
    path = tf.gather(paths, _file_at(position, len(files), seed))
    return _records_of_file(path, _seed(seed, position, 1))

  # No position in a file is needed once the first one is behind.
  first = read(tf.constant(position, tf.int64)).skip(skipped)
  rest = tf.data.Dataset.counter(position + 1).flat_map(read)
  batches = first.concatenate(rest).batch(batch_size, drop_remainder=True)
  if mask is None:
    # Nobody parses what another process will use.
    batches = deal(batches, replicas)
  batches = _parsed(batches, layout, mask, seed=seed, first_batch=first_step)
  # Masks are drawn for a whole batch, so that they are the same ones however
  # it is dealt out.
  return batches if mask is None else deal(batches, replicas)


def evaluation_batches(
    files: Sequence[str], *, layout: records.Layout, batch_size: int,
    seed: int = 0, mask: Mask | None = None
) -> tf.data.Dataset:
  """Each record once, in the order of the files; the last batch is short.

  Arguments as for `training_batches`; the masks are the same each time.
  """
  batches = tf.data.TFRecordDataset(
      sorted(files), buffer_size=1 << 20).batch(batch_size)
  return _parsed(batches, layout, mask, seed=seed, first_batch=0)
