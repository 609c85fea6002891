"""Sentences whose words have tags: CoNLL columns, JSON Lines, TFDS.

Standard library only.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import json
import logging
from typing import Any

from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.tables import read_columns
from bert_tf.data.tables import renamed
from bert_tf.data.text_files import read_lines
from bert_tf.data.tfds_rows import read_tfds
from bert_tf.metrics import check_iob2

_LOGGER = logging.getLogger(__name__)

# The endings of files that hold them.
SUFFIXES = (".txt", ".jsonl")
_DOCUMENT = "-DOCSTART-"


def is_iob(tags: Iterable[str]) -> bool:
  """Whether tags say where entities begin and go on.

  >>> is_iob(["O", "B-PER"]), is_iob(["NOUN", "VERB"])
  (True, False)
  """
  return any(tag.startswith(("B-", "I-")) for tag in tags)


def read_tagged(path: str, *, on_bad_utf8: str = "error") -> dict[str, list]:
  """Reads sentences as words, and their tags where the file has them.

  A name that ends in `.jsonl` has an object a line, with the lists `words`
  and `tags`; all others have CoNLL's form: a word a line, in columns with
  tabs (or else spaces) between them, the word first and its tag last, an
  empty line between two sentences. A line that begins with `-DOCSTART-`
  begins a document. In a file of one column words have no tags.

  Args:
    path: the file, UTF-8.
    on_bad_utf8: "error" or "replace".

  Returns:
    Lists of one length, an item a sentence: "words" and "tags", lists of
    str; "document", the number of its document, from 0; "where", file and
    line of its first word. No "tags" if the file has none.

  Raises:
    InputError: lines of another number of columns than the first, tags that
      are neither IOB2 (Tjong Kim Sang and Veenstra 1999) nor all without its
      prefixes, a word that is empty or holds a line break, or no sentence.
  """
  if path.endswith(".jsonl"):
    rows = _read_objects(path, on_bad_utf8)
  else:
    rows = _read_blocks(path, read_lines(path, on_bad_utf8=on_bad_utf8))
  require(bool(rows["words"]), f"{path}: holds no sentences.")
  if "tags" in rows:
    _check_tags(rows)
  # Lines are for errors in here.
  del rows["lines"]
  return rows


def read_tfds_tagged(
    name: str, split: str, *, words: str, tags: str, **options: Any
) -> dict[str, list] | None:
  """`read_tagged` of a TFDS dataset.

  TFDS has mixed the sentences and does not know their documents, so each is
  one of its own. Those without words, which it makes of the ends of files,
  are left out, and counted in the log.

  Args:
    name, split, options: as those of `tfds_rows.read_tfds`.
    words, tags: the features, lists of text or classes.
  """
  found = read_tfds(name, split, [words, tags], **options)
  if found is None:
    return None
  kept = [i for i, value in enumerate(found[words]) if value != []]
  require(bool(kept), f"--tfds_name: {name} has no words in its {split} rows.")
  if len(kept) < len(found[words]):
    _LOGGER.info(
        "%d of %d sentences of %s have no words and are left out.",
        len(found[words]) - len(kept), len(found[words]), name)
    found = {key: [values[i] for i in kept] for key, values in found.items()}
  _check_lists(found, [words, tags])
  rows = renamed(found, {"words": words, "tags": tags})
  _check_tags({**rows, "lines": [None] * len(kept)})
  return {**rows, "document": list(range(len(kept)))}


def _cells(where: str, line: str) -> list[str]:
  # Words may hold spaces of other kinds, so not `split()`.
  cells = (line.split("\t") if "\t" in line
           else [cell for cell in line.split(" ") if cell])
  require(
      all(cell.strip(" ") for cell in cells),
      f"{where}: has an empty column; give the word and its tag.")
  return cells


def _read_blocks(path: str, lines: Iterable[str]) -> dict[str, list]:
  rows = {"words": [], "tags": [], "document": [], "where": [], "lines": []}
  width, document, is_open = None, -1, False
  for number, line in enumerate(lines, 1):
    if not line.strip(" \t"):
      is_open = False
      continue
    where = f"{path}:{number}"
    cells = _cells(where, line)
    if cells[0] == _DOCUMENT:
      document, is_open = document + 1, False
      continue
    width = width or len(cells)
    require(
        len(cells) == width,
        f"{where}: has {len(cells)} columns, the first word's line has "
        f"{width}; each line is a word, or empty between two sentences.")
    if not is_open:
      is_open = True
      rows["words"].append([])
      rows["tags"].append([])
      rows["document"].append(max(document, 0))
      rows["where"].append(where)
      rows["lines"].append(number)
    rows["words"][-1].append(cells[0])
    rows["tags"][-1].append(cells[-1])
  if width == 1:
    del rows["tags"]
  return rows


def _has_tags(path: str, on_bad_utf8: str) -> bool:
  """Whether the first object has the field; if it is one."""
  for line in read_lines(path, on_bad_utf8=on_bad_utf8):
    if line.strip():
      try:
        return "tags" in json.loads(line)
      except (json.JSONDecodeError, TypeError):
        return False  # Reading the rows says what is wrong.
  return False


def _read_objects(path: str, on_bad_utf8: str) -> dict[str, list]:
  columns = ["words"] + ["tags"] * _has_tags(path, on_bad_utf8)
  rows = read_columns(path, columns, on_bad_utf8=on_bad_utf8)
  _check_lists(rows, columns)
  rows["document"] = [0] * len(rows["where"])
  rows["lines"] = [None] * len(rows["where"])
  return rows


def _check_lists(rows: dict[str, list], columns: Sequence[str]) -> None:
  """The columns of words and, if there are any, of tags."""
  for column in columns:
    for values, where in zip(rows[column], rows["where"], strict=True):
      require(
          isinstance(values, list) and bool(values) and all(
              isinstance(value, str) and value.strip(" ")
              and not set(value) & set("\r\n") for value in values),
          f"{where}: the field {column!r} must be a list of texts that are "
          f"not empty and hold no line breaks; received {values!r}.")
  for words, tags, where in zip(
      rows[columns[0]], rows[columns[-1]], rows["where"]):
    require(
        len(words) == len(tags),
        f"{where}: has {len(words)} words and {len(tags)} tags; each word "
        "must have one.")


def _check_tags(rows: dict[str, list]) -> None:
  """In a file with any tag of IOB2, all are, and in right order."""
  if not any(map(is_iob, rows["tags"])):
    return
  for tags, where, line in zip(rows["tags"], rows["where"], rows["lines"]):
    wrong = check_iob2(tags)
    if wrong is None:
      continue
    if line is None:
      place = f"{where}: word {wrong + 1}"
    else:
      place = f"{where.rpartition(':')[0]}:{line + wrong}: the word"
    before = f"behind {tags[wrong - 1]!r}" if wrong else "at the start"
    raise InputError(
        f"{place} has the tag {tags[wrong]!r} {before}; in IOB2 a tag is "
        "\"O\", or \"B-\" with a type, or \"I-\" with the type of the tag "
        "before it. Convert the tags (from IOB1, BIOES or the like).")
