"""Tab-separated files: rows in, columns out; errors name file and row."""

from collections.abc import Sequence

from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.text_files import read_lines


def read_columns(
    path: str, columns: Sequence[str], *, on_bad_utf8: str = "error"
) -> dict[str, list[str]]:
  """Reads columns of a TSV file, without any quoting, as GLUE's files are.

  Args:
    path: the file, UTF-8 with or without a byte order mark.
    columns: names, which the first row must then hold; or numbers from 0,
      all of them, in a file without a header.
    on_bad_utf8: "error" or "replace".

  Returns:
    {column: values}, all of one length, and "where": each row's file and
    line, for errors about it. Empty lines are passed over, but in a file of
    one column they are rows.

  Raises:
    InputError: a column is not there, a row has another number of columns
      than the first, or there are no rows.
  """
  by_number = all(column.isdigit() for column in columns)
  places, width, rows = {}, None, {column: [] for column in columns}
  rows["where"] = []
  lines = read_lines(path, on_bad_utf8=on_bad_utf8)
  for number, line in enumerate(lines, 1):
    cells = line.split("\t")
    if not line and width != 1:
      continue
    if width is None:
      width = len(cells)
      places = _find_columns(path, columns, cells, by_number=by_number)
      if not by_number:
        continue
    if len(cells) != width:
      raise InputError(
          f"{path}:{number}: has {len(cells)} columns, the first row has "
          f"{width}; a text must not hold tabs or line breaks.")
    for column, place in places.items():
      rows[column].append(cells[place])
    rows["where"].append(f"{path}:{number}")
  require(bool(rows["where"]), f"{path}: holds no rows.")
  return rows


def _find_columns(path, columns, first_row, *, by_number):
  names = [str(i) for i in range(len(first_row))] if by_number else first_row
  missing = [column for column in columns if column not in names]
  require(
      not missing,
      f"{path}:1: no column {', '.join(missing)}; there are "
      f"{', '.join(names)}. Name others, or give their numbers from 0 for a "
      "file without a header.")
  return {column: names.index(column) for column in columns}
