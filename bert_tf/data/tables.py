"""Tables of rows: TSV, CSV and JSON Lines; errors name file and row."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import csv
import json

from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.text_files import read_lines

# The endings of files that hold tables.
SUFFIXES = (".tsv", ".csv", ".jsonl")


def _tsv_rows(path: str, lines: Iterable[str]) -> Iterator[tuple[int, list]]:
  """(line, cells), without any quoting, as GLUE's files are."""
  del path
  width = None
  for number, line in enumerate(lines, 1):
    cells = line.split("\t")
    width = width or len(cells)
    # In a file of one column an empty line is a row.
    if line or width == 1:
      yield number, cells


def _csv_rows(path: str, lines: Iterable[str]) -> Iterator[tuple[int, list]]:
  """(line where the row ends, cells), quoted as in RFC 4180."""
  reader = csv.reader((f"{line}\n" for line in lines), strict=True)
  try:
    for cells in reader:
      if cells:
        yield reader.line_num, cells
  except csv.Error as error:
    raise InputError(f"{path}:{reader.line_num}: not valid CSV: {error}."
                     ) from None


def _object_rows(
    path: str, lines: Iterable[str], columns: Sequence[str]
) -> Iterator[tuple[str, list]]:
  """Of JSON Lines: numbers as they are written, lists as lists."""
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    where = f"{path}:{number}"
    try:
      # Numbers stay text, as they would be in the other forms.
      row = json.loads(line, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
      raise InputError(f"{where}: not valid JSON: {error}.") from None
    require(isinstance(row, dict), f"{where}: must hold a JSON object.")
    for column in columns:
      require(
          isinstance(row.get(column), (str, list)),
          f"{where}: the field {column!r} must be a text, a number or a list; "
          f"received {row.get(column)!r}. There are {', '.join(row)}.")
    yield where, [row[column] for column in columns]


def read_columns(
    path: str, columns: Sequence[str], *, on_bad_utf8: str = "error"
) -> dict[str, list]:
  """Reads columns of a table, whose form the ending of its name tells.

  `.csv` is quoted as usual, `.jsonl` holds an object a line; all others are
  TSV without any quoting, as GLUE's files are.

  Args:
    path: the file, UTF-8 with or without a byte order mark.
    columns: names, which the first row must then hold; or numbers from 0,
      all of them, in a file without a header.
    on_bad_utf8: "error" or "replace".

  Returns:
    {column: values}, all of one length, and "where": each row's file and
    line, for errors about it. Empty lines are passed over, but in a TSV file
    of one column they are rows.

  Raises:
    InputError: a column is not there, a row has another number of columns
      than the first, or there are no rows.
  """
  lines = read_lines(path, on_bad_utf8=on_bad_utf8)
  suffix = next(filter(path.endswith, SUFFIXES), ".tsv")
  columns = list(dict.fromkeys(columns))
  rows = {**{column: [] for column in columns}, "where": []}
  for where, values in iterate_rows(path, lines, columns, suffix=suffix):
    rows["where"].append(where)
    for column, value in zip(columns, values, strict=True):
      rows[column].append(value)
  require(bool(rows["where"]), f"{path}: holds no rows.")
  return rows


def iterate_rows(
    path: str, lines: Iterable[str], columns: Sequence[str], *, suffix: str
) -> Iterator[tuple[str, list]]:
  """The rows of a table one by one, as `read_columns` has them.

  Args:
    path: names the file in errors.
    lines: of the file.
    columns: as for `read_columns`.
    suffix: its form, one of `SUFFIXES`.

  Yields:
    File and line of a row, and its values in the order of the columns.

  Raises:
    InputError: as `read_columns`, but for no rows at all.
  """
  if suffix == ".jsonl":
    return _object_rows(path, lines, columns)
  cells = (_csv_rows if suffix == ".csv" else _tsv_rows)(path, lines)
  return _cell_rows(path, cells, columns)


def renamed(
    rows: dict[str, list], columns: dict[str, str]
) -> dict[str, list]:
  """Columns under our names, {ours: theirs}, and "where"."""
  return {**{ours: rows[theirs] for ours, theirs in columns.items()},
          "where": rows["where"]}


def _cell_rows(path, numbered_cells, columns):
  by_number = all(column.isdigit() for column in columns)
  places, width = [], None
  for number, cells in numbered_cells:
    if width is None:
      width = len(cells)
      places = _find_columns(path, columns, cells, by_number=by_number)
      if not by_number:
        continue
    if len(cells) != width:
      raise InputError(
          f"{path}:{number}: has {len(cells)} columns, the first row has "
          f"{width}; a text must not hold tabs or line breaks.")
    yield f"{path}:{number}", [cells[place] for place in places]


def _find_columns(path, columns, first_row, *, by_number):
  names = [str(i) for i in range(len(first_row))] if by_number else first_row
  missing = [column for column in columns if column not in names]
  require(
      not missing,
      f"{path}:1: no column {', '.join(missing)}; there are "
      f"{', '.join(names)}. Name others, or give their numbers from 0 for a "
      "file without a header.")
  return [names.index(column) for column in columns]
