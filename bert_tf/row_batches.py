"""Rows of named inputs -> batches for a signature -> a plain answer a row.

What a SavedModel in this process and one behind a server have in common:
`Answerer`. Rows of about the same length go together, and the answers are in
the order of the rows.

Shapes: R rows, B rows of a batch, W width of a padded output.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from bert_tf.config import InputError
from bert_tf.config import require

DEFAULT_SIGNATURE = "serving_default"
# Characters of a batch, each row as long as the longest: a few megabyte-long
# texts must not be one.
_MOST_CHARACTERS = 1 << 16
# Digits that tell any two float32 apart, and those that often do.
_DIGITS = (9, 8, 7)
# What signatures fill up short rows with, by the kind of the numpy type.
_PADDING = {"O": "", "i": -1, "f": 0}
# The inputs that come first where columns have no names; others follow by
# name.
_FIRST = ("text", "question")


class RefusedRows(InputError):
  """The model does not take these rows: what one of them holds is wrong."""


class Spec(NamedTuple):
  """An input or output: a numpy type, or "string"; None is any size."""

  dtype: str
  shape: tuple[int | None, ...]

  @property
  def is_text(self) -> bool:
    """Whether a row has one text of it."""
    return self.dtype == "string" and len(self.shape) == 1


class Signature(NamedTuple):
  """What a signature takes, in the order of unnamed columns, and gives."""

  inputs: dict[str, Spec]
  outputs: dict[str, Spec]


def make_signature(
    inputs: Mapping[str, Spec], outputs: Mapping[str, Spec]) -> Signature:
  """Puts the inputs into the order of unnamed columns.

  >>> one = Spec("string", (None,))
  >>> list(make_signature({"text_pair": one, "text": one}, {}).inputs)
  ['text', 'text_pair']
  """
  order = sorted(inputs, key=lambda name: (name not in _FIRST, name))
  return Signature({name: inputs[name] for name in order}, dict(outputs))


def _value(spec: Spec, name: str, value: Any, where: str) -> str | np.ndarray:
  """The value of an input in one row, checked: a text, or an array."""
  if spec.is_text:
    require(
        isinstance(value, (str, bytes)),
        f"{where}: {name}: received {value!r}; must be a text.")
    return value
  kind = "texts" if spec.dtype == "string" else f"numbers ({spec.dtype})"
  rank = len(spec.shape) - 1
  message = (f"{where}: {name}: received {value!r}; must be {kind} in lists "
             f"{rank} deep, all of one length.")
  try:
    array = np.array(value, object if spec.dtype == "string" else spec.dtype)
  except (ValueError, TypeError, OverflowError):
    raise InputError(message) from None
  require(array.ndim == rank, message)
  if spec.dtype == "string":
    require(all(isinstance(x, (str, bytes)) for x in array.flat), message)
  return array


def check_row(
    signature: Signature, values: Mapping[str, Any], where: str
) -> dict[str, str | np.ndarray]:
  """A row as `Answerer.answer` takes it; `where` names it in errors.

  Raises:
    InputError: an input is missing, is not known or is of another type.
  """
  require(
      set(values) == set(signature.inputs),
      f"{where}: received {', '.join(values) or 'nothing'}; the signature "
      f"takes {', '.join(signature.inputs)}.")
  return {name: _value(spec, name, values[name], where)
          for name, spec in signature.inputs.items()}


def row_size(row: Mapping[str, str | np.ndarray]) -> int:
  """About how long a row is: its characters, or numbers."""
  return sum(
      sum(map(len, value.flat)) if getattr(value, "dtype", None) == object
      else np.size(value) if isinstance(value, np.ndarray) else len(value)
      for value in row.values())


def _batches(
    rows: Sequence[Mapping[str, Any]], batch_size: int
) -> Iterator[list[int]]:
  """The numbers of the rows, together where like in shape and length."""
  shapes = [tuple(np.shape(value) for value in row.values()
                  if isinstance(value, np.ndarray)) for row in rows]
  sizes = [row_size(row) for row in rows]
  order = sorted(range(len(rows)), key=lambda i: (shapes[i], -sizes[i]))
  batch = []
  for i in order:
    longest = sizes[batch[0]] if batch else 0
    if batch and (len(batch) == batch_size or shapes[i] != shapes[batch[0]]
                  or longest * (len(batch) + 1) > _MOST_CHARACTERS):
      yield batch
      batch = []
    batch.append(i)
  if batch:
    yield batch


def _column(values: list[str | np.ndarray]) -> np.ndarray:
  """[B, ...] of the values of an input."""
  if isinstance(values[0], np.ndarray):
    return np.stack(values)
  return np.array(values, object)


def _shortened(values: np.ndarray) -> np.ndarray:
  """Short decimals that are the same float32: 0.1, not 0.10000000149."""
  wide = values.astype(np.float64)
  is_usual = np.isfinite(wide) & (wide != 0)
  exponent = np.floor(np.log10(np.abs(np.where(is_usual, wide, 1))))
  for digits in _DIGITS:
    scale = 10.0 ** (digits - 1 - exponent)
    short = np.where(is_usual, np.round(wide * scale) / scale, wide)
    wide = np.where(short.astype(np.float32) == values, short, wide)
  return wide


def _widths(values: np.ndarray) -> np.ndarray:
  """int [B]: how much of each row is no padding, of [B, W, ...]."""
  is_real = values != _PADDING[values.dtype.kind]
  is_real = is_real.reshape(*values.shape[:2], -1).any(-1)  # [B, W]
  last = values.shape[1] - is_real[:, ::-1].argmax(axis=1)
  return np.where(is_real.any(axis=1), last, 0)


def _plain(values: np.ndarray, *, is_padded: bool) -> list[Any]:
  """The values of an output by row; numbers and texts of Python's."""
  if values.dtype == object:
    values = np.vectorize(
        lambda x: x.decode("utf-8", "replace") if isinstance(x, bytes) else x,
        otypes=[object])(values)
  widths = None
  if is_padded and values.size and values.dtype.kind in _PADDING:
    widths = _widths(values)
  if values.dtype == np.float32:
    values = _shortened(values)
  plain = values.tolist()
  return plain if widths is None else [
    row[:width] for row, width in zip(plain, widths, strict=True)]


class Answerer:
  """Answers rows by a function over columns.

  >>> signature = make_signature(
  ...     {"text": Spec("string", (None,))}, {"size": Spec("int64", (None,))})
  >>> lengths = Answerer(
  ...     "lengths", {"serving_default": signature}, lambda _, columns: {
  ...         "size": np.array([len(text) for text in columns["text"]])})
  >>> lengths(["a text", "two"])
  [{'size': 6}, {'size': 3}]

  Attributes:
    signatures: {name: `Signature`}.
  """

  def __init__(
      self, name: str, signatures: Mapping[str, Signature],
      call: Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]
  ):
    """`name` is of the model, for errors.

    `call` takes the name of a signature and {input: array [B, ...]}, and gives
    {output: array [B, ...]}; strings are arrays of objects.
    """
    self.signatures = dict(signatures)
    self._name, self._call = name, call

  def signature(self, name: str) -> Signature:
    """Raises `InputError` if the model has no such signature."""
    require(
        name in self.signatures,
        f"{self._name}: has no signature {name!r}; there are "
        f"{', '.join(sorted(self.signatures))}.")
    return self.signatures[name]

  def answer(
      self, rows: Sequence[Mapping[str, str | np.ndarray]], *,
      signature: str = DEFAULT_SIGNATURE, batch_size: int = 32
  ) -> list[dict[str, Any]]:
    """{output: value} of each row of `check_row`, as calling the object.

    A row never depends on those beside it: where a signature pads its outputs
    to the longest row, the padding is cut off again.
    """
    found = self.signature(signature)
    # Of several texts a row the width is that of the input.
    may_be_padded = all(len(spec.shape) == 1 for spec in found.inputs.values())
    answers = [{} for _ in rows]
    for places in _batches(rows, batch_size):
      outputs = self._call(signature, {
        name: _column([rows[i][name] for i in places])
        for name in found.inputs})
      for name, values in sorted(outputs.items()):
        shape = found.outputs[name].shape
        require(
            values.ndim > 0 and len(values) == len(places),
            f"{self._name}: the output {name!r} of {signature} has the shape "
            f"{values.shape} for {len(places)} rows; the rows must come first.")
        plain = _plain(values, is_padded=(
          may_be_padded and len(shape) > 1 and shape[1] is None))
        for i, value in zip(places, plain, strict=True):
          answers[i][name] = value
    return answers

  def __call__(
      self, *columns: Sequence[Any], signature: str = DEFAULT_SIGNATURE,
      batch_size: int = 32, **named: Sequence[Any]
  ) -> list[dict[str, Any]]:
    """The answers to rows that are given as columns.

    Args:
      columns: a list for each input, `text` before `text_pair`, `question`
        before `context`, and else by name: R values each.
      signature: its name.
      batch_size: the most rows to compute together.
      named: the same by the names of the inputs.

    Returns:
      A dict for each row, {output: value}.

    Raises:
      InputError: no such signature, or columns that do not fit it.
    """
    inputs = self.signature(signature).inputs
    require(
        len(columns) <= len(inputs) and not set(list(inputs)[:len(columns)])
        & set(named) and len(columns) + len(named) == len(inputs),
        f"Received {len(columns)} columns"
        f"{''.join(f', {name}' for name in named)}; the signature "
        f"{signature} takes {', '.join(inputs)}.")
    named = {**dict(zip(inputs, columns)), **named}
    for name, column in named.items():
      require(
          not isinstance(column, (str, bytes)),
          f"{name}: received {column!r}; must be a list with a value for "
          "each row.")
    sizes = {name: len(column) for name, column in named.items()}
    require(
        len(set(sizes.values())) == 1,
        "The columns must be of one length; received "
        f"{', '.join(f'{size} of {name}' for name, size in sizes.items())}.")
    rows = [
      check_row(self.signature(signature), dict(zip(named, values)), f"row {i}")
      for i, values in enumerate(zip(*named.values()))]
    return self.answer(rows, signature=signature, batch_size=batch_size)
