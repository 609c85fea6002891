"""Files of features: the original's JSON Lines, numpy's arrays, TFRecords.

Each is written pool after pool under a temporary name, so that memory does
not grow with the number of texts.

Shapes: R texts, P pieces of all texts of a pool, L layers, H hidden size.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import json
import shutil
import tempfile
import types
from typing import IO
from typing import NamedTuple
import zipfile

import numpy as np
import tensorflow as tf

from bert_tf import files
from bert_tf.config import InputError
from bert_tf.data.example_protos import encode_rows
from bert_tf.data.records import replacing


class Pool(NamedTuple):
  """The features of some consecutive texts.

  `ids`: int32 [P], the pieces of all texts, one text after the other.
  `row_splits`: int64 [R + 1]: text i has the pieces row_splits[i] to
  row_splits[i + 1]. `values`: float32 [R, L, H], or [P, L, H] where they were
  not pooled.
  """

  ids: np.ndarray
  row_splits: np.ndarray
  values: np.ndarray


class Form(NamedTuple):
  """What is the same for all texts of a file.

  `layers`: the L names, numbers or "embeddings". `vocabulary`: the entries.
  `is_pooled`: whether there is one vector a text and layer.
  """

  layers: Sequence[int | str]
  vocabulary: Sequence[str]
  is_pooled: bool


@contextlib.contextmanager
def _writing(
    path: str, pools: Iterable[Pool]
) -> Iterator[tuple[str, Iterator[Pool]]]:
  """Yields a temporary name, and the pools: what fails in their making is no
  error of the file's, and passes as it is."""
  failures = []

  def watched():
    try:
      yield from pools
    except Exception as failure:
      failures.append(failure)
      raise

  try:
    with replacing(path) as temporary:
      yield temporary, watched()
  except InputError:
    if failures:
      raise failures[0] from None
    raise


def write_jsonl(path: str, pools: Iterable[Pool], form: Form) -> None:
  """An object a text, as the original's extract_features.py wrote it.

    {"linex_index": 0, "features": [
      {"token": "[CLS]", "layers": [{"index": -1, "values": [...]}, ...]},
      ...]}

  Pooled: {"linex_index": 0, "layers": [{"index": -1, "values": [...]}, ...]}.
  `values` are H numbers, rounded to six digits after the point.

  Raises:
    InputError: the file cannot be written.
  """

  def layers_of(values):  # [L, H]
    return [{"index": index, "values": numbers}
            for index, numbers in zip(form.layers, values.tolist())]

  number = 0
  with (_writing(path, pools) as (temporary, pools),
        files.open_file(temporary, "w") as file):
    for pool in pools:
      for i, (start, end) in enumerate(
          zip(pool.row_splits[:-1], pool.row_splits[1:])):
        row = {"linex_index": number}
        # A text at a time: in float64 and as numbers of Python's they take
        # several times the room.
        values = np.round(
            pool.values[i if form.is_pooled else slice(start, end)]
            .astype(np.float64), 6)
        if form.is_pooled:
          row["layers"] = layers_of(values)
        else:
          row["features"] = [
            {"token": form.vocabulary[token], "layers": layers_of(x)}
            for token, x in zip(pool.ids[start:end], values)]
        file.write(json.dumps(row) + "\n")
        number += 1


def write_tfrecord(path: str, pools: Iterable[Pool], form: Form) -> None:
  """An example a text.

  Features: `linex_index`, int64; `input_ids`, int64, the pieces;
  `layer_-1` and so on, `layer_embeddings`, float: H values, or those of each
  piece after the other.

  Raises:
    InputError: the file cannot be written.
  """
  number = 0
  with (_writing(path, pools) as (temporary, pools),
        tf.io.TFRecordWriter(temporary) as writer):
    for pool in pools:
      for i, (start, end) in enumerate(
          zip(pool.row_splits[:-1], pool.row_splits[1:])):
        values = pool.values[i:i + 1] if form.is_pooled else (
            pool.values[start:end])
        [record] = encode_rows({
          "linex_index": np.array([[number]]),
          "input_ids": pool.ids[None, start:end],
          **{f"layer_{index}": values[:, j].reshape(1, -1)
             for j, index in enumerate(form.layers)}})
        writer.write(record)
        number += 1


class _Spool:
  """An array that grows along its first axis, in a file without a name."""

  def __init__(self, folder: str | None):
    self._file = tempfile.TemporaryFile(dir=folder)
    self._count, self._like = 0, None

  def add(self, values: np.ndarray) -> None:
    self._count, self._like = self._count + len(values), values[:0]
    self._file.write(np.ascontiguousarray(values).data)

  def write_npy(self, target: IO[bytes]) -> None:
    np.lib.format.write_array_header_1_0(target, {
      "descr": np.lib.format.dtype_to_descr(self._like.dtype),
      "fortran_order": False,
      "shape": (self._count, *self._like.shape[1:])})
    self._file.seek(0)
    shutil.copyfileobj(self._file, target, 1 << 20)

  def close(self) -> None:
    self._file.close()


def write_npz(path: str, pools: Iterable[Pool], form: Form) -> None:
  """Arrays for `numpy.load`, in the order of the texts.

  `layers`: the names of the L layers, strings. Pooled: `features`, float32
  [texts, L, H]. Else `features`, float32 [pieces, L, H]; `tokens`, strings
  [pieces]; `row_splits`, int64 [texts + 1]: text i has the pieces
  row_splits[i] to row_splits[i + 1].

  The number of texts stands before them in the file, so they are kept in
  temporary files until it is known: beside the output, or, where that is
  remote, in the temporary folder of this machine.

  Raises:
    InputError: the file cannot be written.
  """
  folder = None
  if files.is_local(path):
    folder = files.directory_of(path) or "."
  width = max(map(len, form.vocabulary))
  entries = np.array(form.vocabulary, f"<U{width}")
  names = ["features"] if form.is_pooled else [
    "features", "tokens", "row_splits"]
  spools = {}
  with _writing(path, pools) as (temporary, pools):
    try:
      spools = {name: _Spool(folder) for name in names}
      pieces = 0
      if not form.is_pooled:
        spools["row_splits"].add(np.zeros(1, np.int64))
      for pool in pools:
        spools["features"].add(pool.values)
        if not form.is_pooled:
          spools["tokens"].add(entries[pool.ids])
          spools["row_splits"].add(pieces + pool.row_splits[1:])
          pieces += len(pool.ids)
      # Without `tell`, for which some remote file systems have no answer.
      with (files.open_file(temporary, "wb") as file,
            zipfile.ZipFile(types.SimpleNamespace(
                write=file.write, flush=file.flush), "w") as archive):
        for name, spool in spools.items():
          with archive.open(f"{name}.npy", "w", force_zip64=True) as target:
            spool.write_npy(target)
        with archive.open("layers.npy", "w") as target:
          np.lib.format.write_array(
              target, np.array([str(index) for index in form.layers]))
    finally:
      for spool in spools.values():
        spool.close()


WRITERS = {
  "jsonl": write_jsonl, "npz": write_npz, "tfrecord": write_tfrecord}
