"""Rows of a TensorFlow Datasets dataset, as those of a table.

Standard library only; `tfds_datasets` imports TensorFlow Datasets.
"""

from collections.abc import Sequence
from typing import Any

from bert_tf.config import require
from bert_tf.data import tfds_datasets

# What TFDS calls our splits; the first that is there.
_SPLITS = {
  "train": ("train",),
  "dev": ("validation", "validation_matched", "dev"),
  "test": ("test", "test_matched"),
}


def _plain(value: Any, feature: Any) -> Any:
  """A value as Python has it: text, a class by its name, lists of them."""
  if isinstance(value, dict):
    inner = getattr(feature, "feature", feature)
    return {name: _plain(part, inner[name]) for name, part in value.items()}
  if hasattr(feature, "int2str") and hasattr(feature, "names"):
    return feature.int2str(int(value)) if value >= 0 else ""
  if isinstance(value, bytes):
    return value.decode("utf-8")
  if getattr(value, "ndim", 0):
    inner = getattr(feature, "feature", feature)
    return [_plain(part, inner) for part in value]
  return value.item() if hasattr(value, "item") else value


def read_tfds(
    name: str, split: str, columns: Sequence[str], *,
    data_dir: str | None = None
) -> dict[str, list] | None:
  """Reads features of a dataset, which is fetched if it is not there yet.

  Args:
    name: of the dataset, such as glue/mrpc.
    split: "train", "dev" or "test": TFDS's train, validation, test.
    columns: names of features.
    data_dir: where prepared datasets lie.

  Returns:
    {feature: values}, classes by their names, and "where", the place of each
    row for errors about it; None if the dataset has no such split.

  Raises:
    InputError: no such dataset, or no such feature.
  """
  builder = tfds_datasets.find(name, data_dir=data_dir)
  features = builder.info.features
  missing = [column for column in columns if column not in features]
  require(
      not missing,
      f"--tfds_name: {name} has no feature {', '.join(missing)}; there are "
      f"{', '.join(features)}.")
  tfds_datasets.prepare(builder)
  theirs = next(
      (x for x in _SPLITS[split] if x in builder.info.splits), None)
  if theirs is None:
    return None
  rows = {column: [] for column in columns}
  rows["where"] = []
  examples = tfds_datasets.read(builder, theirs, columns)
  for number, example in enumerate(examples):
    for column in columns:
      rows[column].append(_plain(example[column], features[column]))
    rows["where"].append(f"tfds:{builder.info.full_name}:{theirs}:{number}")
  require(bool(rows["where"]), f"--tfds_name: {name} has no rows in {theirs}.")
  return rows
