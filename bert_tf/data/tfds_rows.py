"""Rows of a TensorFlow Datasets dataset, as those of a table.

Standard library only; `tfds_datasets` imports TensorFlow Datasets.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import logging
from typing import Any

from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data import tfds_datasets

_LOGGER = logging.getLogger(__name__)

# What TFDS calls our splits; the first that is there.
_SPLITS = {
  "train": ("train",),
  "dev": ("validation", "dev"),
  "test": ("test",),
}


def _find_split(
    split: str, suffixes: Sequence[str], known: Iterable[str]
) -> str | None:
  names = [name + suffix for suffix in suffixes for name in _SPLITS[split]]
  return next((name for name in names if name in known), None)


def _is_class(value: Any, feature: Any) -> bool:
  # A sequence of classes has the methods of its classes.
  return hasattr(feature, "int2str") and not getattr(value, "ndim", 0)


def _plain(value: Any, feature: Any, *, by_number: bool, errors: str) -> Any:
  """A value as a table would have it: text, or a list or a dict of it."""
  how = {"by_number": by_number, "errors": errors}
  inner = getattr(feature, "feature", feature)
  if isinstance(value, dict):
    return {
      name: _plain(part, inner[name], **how) for name, part in value.items()}
  if getattr(value, "ndim", 0):
    return [_plain(part, inner, **how) for part in value]
  if isinstance(value, bytes):
    return value.decode("utf-8", errors=errors)
  if _is_class(value, feature) and not by_number:
    return feature.int2str(int(value))
  return str(value)


def _row(
    example: dict[str, Any], features: Any, where: str, *, by_number: bool,
    errors: str
) -> dict[str, Any]:
  row = {"where": where}
  for column, value in example.items():
    try:
      row[column] = _plain(
          value, features[column], by_number=by_number, errors=errors)
    except UnicodeDecodeError:
      raise InputError(
          f"{where}: the feature {column!r} is not UTF-8; mend it, or pass "
          "--on_bad_utf8=replace.") from None
  return row


def read_tfds(
    name: str, split: str, columns: Sequence[str], *,
    data_dir: str | None = None, suffixes: Sequence[str] = ("", "_matched"),
    by_number: bool = False, on_bad_utf8: str = "error"
) -> dict[str, list] | None:
  """Reads features of a dataset, which is fetched if it is not there yet.

  A row with a class of -1, as TFDS says that there is none, is left out, and
  counted in the log.

  Args:
    name: of the dataset, such as glue/mrpc.
    split: "train", "dev" or "test": TFDS's train, validation, test.
    columns: names of features.
    data_dir: where prepared datasets lie.
    suffixes: endings that its names of splits may have; the first that is
      there.
    by_number: classes are the numbers of their names, from 0.
    on_bad_utf8: "error" or "replace".

  Returns:
    {feature: values}, as text: classes by their names, numbers as they are
    written; lists and dicts of it where the feature is a sequence. And
    "where", the place of each row for errors about it. None if the dataset
    has no such split.

  Raises:
    InputError: no such dataset, no such feature, or no row.
  """
  builder = tfds_datasets.find(name, data_dir=data_dir)
  features = builder.info.features
  missing = [column for column in columns if column not in features]
  require(
      not missing,
      f"--tfds_name: {name} has no feature {', '.join(missing)}; there are "
      f"{', '.join(features)}.")
  tfds_datasets.prepare(builder)
  theirs = _find_split(split, suffixes, builder.info.splits)
  if theirs is None:
    return None
  rows, skipped = {column: [] for column in [*columns, "where"]}, 0
  for number, example in enumerate(
      tfds_datasets.read(builder, theirs, columns)):
    if any(_is_class(value, features[column]) and value < 0
           for column, value in example.items()):
      skipped += 1
      continue
    row = _row(
        example, features, f"tfds:{builder.info.full_name}:{theirs}:{number}",
        by_number=by_number,
        errors="strict" if on_bad_utf8 == "error" else on_bad_utf8)
    for column, values in rows.items():
      values.append(row[column])
  if skipped:
    _LOGGER.info(
        "%d of %d rows of %s, %s, have no class (-1) and are left out.",
        skipped, skipped + len(rows["where"]), name, theirs)
  require(bool(rows["where"]), f"--tfds_name: {name} has no rows in {theirs}.")
  return rows
