"""The rows of a file, or of who sits at a terminal -> answers as JSON Lines.

`tools/predict.py` asks an export in its own process so, `tools/query_server.py`
one behind a server.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import json
import logging
import sys
from typing import Any
from typing import IO

from bert_tf import files
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.tables import iterate_rows
from bert_tf.data.tables import SUFFIXES
from bert_tf.data.text_files import read_lines
from bert_tf.data.text_files import size_on_disk
from bert_tf.data.text_files import STANDARD_INPUT
from bert_tf.data.text_files import suffixes
from bert_tf.progress import Progress
from bert_tf.row_batches import Answerer
from bert_tf.row_batches import check_row
from bert_tf.row_batches import RefusedRows
from bert_tf.row_batches import row_size
from bert_tf.serving_arguments import RowsConfig

_LOGGER = logging.getLogger(__name__)

# Batches that are read ahead and sorted by length together, and the most
# characters of them.
_POOL = 64
_MOST_CHARACTERS = 1 << 22

# A row as it was read: its file and line, and the values of the inputs.
Row = tuple[str, list[Any]]


def _text_rows(
    path: str, lines: Iterator[str], inputs: Sequence[str]
) -> Iterator[Row]:
  require(
      len(inputs) == 1,
      f"{path}: is read as a text a line, but the signature takes "
      f"{', '.join(inputs)}; give a .tsv, .csv or .jsonl with these, or "
      "--input_format.")
  for number, line in enumerate(lines, 1):
    yield f"{path}:{number}", [line]


def _read(
    config: RowsConfig, answerer: Answerer, path: str,
    counts: collections.Counter
) -> Iterator[Row]:
  """The rows of the input, unchecked; counts "bytes_read"."""
  inputs = list(answerer.signature(config.signature).inputs)
  columns = list(config.columns) or inputs
  require(
      len(columns) == len(inputs),
      f"--columns: received {', '.join(columns)}; the signature "
      f"{config.signature} takes {', '.join(inputs)}: a column for each.")
  suffix = suffixes(path)[0]
  if config.input_format != "auto":
    suffix = f".{config.input_format}"
  lines = read_lines(path, on_bad_utf8=config.on_bad_utf8, counts=counts)
  if suffix in SUFFIXES:
    return iterate_rows(path, lines, columns, suffix=suffix)
  return _text_rows(path, lines, inputs)


def _pools(
    rows: Iterator[tuple[str, dict]], batch_size: int
) -> Iterator[list[tuple[str, dict]]]:
  """Consecutive rows, as many as may be sorted together."""
  pool, size = [], 0
  for where, row in rows:
    pool.append((where, row))
    size += row_size(row)
    if len(pool) == _POOL * batch_size or size > _MOST_CHARACTERS:
      yield pool
      pool, size = [], 0
  if pool:
    yield pool


def _answer(
    config: RowsConfig, answerer: Answerer, pool: list[tuple[str, dict]]
) -> list[dict[str, Any]]:
  """The answers; a row that is refused is looked for, to name its line."""
  asked = {"signature": config.signature, "batch_size": config.batch_size}
  try:
    return answerer.answer([row for _, row in pool], **asked)
  except RefusedRows as error:
    if len(pool) == 1:
      raise RefusedRows(f"{pool[0][0]}: {error}") from None
    middle = len(pool) // 2
    for half in (pool[:middle], pool[middle:]):
      _answer(config, answerer, half)
    raise


@contextlib.contextmanager
def _writing(path: str | None) -> Iterator[IO[str]]:
  """Yields a file that takes its name at the end, or standard output."""
  try:
    if path is None:
      yield sys.stdout
      sys.stdout.flush()
      return
    with (files.replacing(path) as temporary,
          files.open_file(temporary, "w") as file):
      yield file
  except OSError as error:
    raise InputError(
        f"{path or 'standard output'}: cannot be written: "
        f"{error.strerror or error}.") from None


def _line(answer: dict[str, Any]) -> str:
  return json.dumps(answer, ensure_ascii=False) + "\n"


def answer_file(
    config: RowsConfig, answerer: Answerer, path: str, *, size: int | None
) -> int:
  """Answers all rows of a file, in their order; returns how many.

  What is kept in memory does not grow with the file, whose `size` on the disk
  is None if it is not known.

  Raises:
    InputError: there are no rows, or one does not fit the signature; the
      output is not written then.
  """
  counts = collections.Counter()
  signature = answerer.signature(config.signature)
  rows = (
    (where, check_row(signature, dict(zip(signature.inputs, values)), where))
    for where, values in _read(config, answerer, path, counts))
  progress = Progress("Answering", unit="rows")
  with _writing(config.output_file) as file:
    for pool in _pools(rows, config.batch_size):
      file.writelines(map(_line, _answer(config, answerer, pool)))
      counts["rows"] += len(pool)
      progress.update(
          counts["rows"], share=size and counts["bytes_read"] / size)
    require(counts["rows"] > 0, f"{path}: holds no rows.")
  return counts["rows"]


def _ask(name: str, *, is_text: bool) -> Any:
  """A value from the terminal; what is no text is written as JSON."""
  line = input(f"{name}{'' if is_text else ' (JSON)'}: ")
  if is_text:
    return line
  try:
    return json.loads(line)
  except json.JSONDecodeError as error:
    raise InputError(f"{name}: not valid JSON: {error}.") from None


def converse(config: RowsConfig, answerer: Answerer) -> None:
  """Asks for a row at the terminal and answers it, until the input ends."""
  signature = answerer.signature(config.signature)
  while True:
    try:
      row = check_row(signature, {
        name: _ask(name, is_text=spec.is_text)
        for name, spec in signature.inputs.items()}, "the row")
      [answer] = answerer.answer([row], signature=config.signature)
      print(_line(answer), end="", flush=True)
    except InputError as error:
      print(error, file=sys.stderr)
    except (EOFError, KeyboardInterrupt):
      print()
      return


def run(config: RowsConfig, open_answerer: Callable[[], Answerer]) -> None:
  """Answers what the config names; the model is opened when it is needed.

  Raises:
    InputError: as `answer_file` and as `open_answerer`.
  """
  if config.input_file is None and sys.stdin.isatty():
    require(
        config.output_file is None,
        f"--output_file: received {config.output_file} without --input_file; "
        "at the terminal the answers are printed.")
    converse(config, open_answerer())
    return
  path, size = config.input_file, None
  if path in (None, "-"):
    path = STANDARD_INPUT
  else:
    size = size_on_disk([path])  # Before the model is loaded.
  count = answer_file(config, open_answerer(), path, size=size)
  _LOGGER.info(
      "Answered %d rows%s.", count,
      f" in {config.output_file}" if config.output_file else "")
