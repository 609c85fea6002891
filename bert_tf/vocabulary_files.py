"""Vocabulary files: an entry a line, and the casing that they want.

Standard library only.
"""

from collections.abc import Sequence
import os
from typing import Any

from bert_tf import files
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import require

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENIZER_CONFIG = "tokenizer_config.json"

# Of a piece, "##" apart: the most that TensorFlow Text takes.
MAX_PIECE_BYTES = 256


def _check_entries(entries: Sequence[str], *, source: str) -> dict[str, int]:
  """Raises `InputError`, with the line; returns the line of each entry."""
  first_line = {}
  for line, entry in enumerate(entries, start=1):
    where = f"{source}:{line}"
    require(entry != "", f"{where}: an empty line; entry {line - 1} of a "
            "vocabulary must be a piece. Remove it or give it a name.")
    require(not entry.endswith("\r"), f"{where}: ends in CR LF; a vocabulary "
            "has LF line ends. Convert it (dos2unix).")
    require(entry not in first_line, f"{where}: {entry!r} stands in line "
            f"{first_line.get(entry)} already; entries must differ.")
    first_line[entry] = line
    if 4 * len(entry) > MAX_PIECE_BYTES:  # may be too long
      size = len(entry.removeprefix("##").encode("utf-8"))
      require(size <= MAX_PIECE_BYTES, f"{where}: an entry of {size} bytes; "
              f"at most {MAX_PIECE_BYTES} are possible.")
  return first_line


def check_vocabulary(entries: Sequence[str], *, source: str) -> None:
  """Raises `InputError`, with the line, if this is not a BERT vocabulary."""
  first_line = _check_entries(entries, source=source)
  missing = [token for token in SPECIAL_TOKENS if token not in first_line]
  require(not missing, f"{source}: not a BERT vocabulary: {', '.join(missing)} "
          f"missing among its {len(entries)} entries.")


def _read_lines(path: str) -> list[str]:
  """The lines of a file.

  They end at "\\n" alone: the released Chinese vocabulary holds U+2028.

  Raises:
    InputError: no such file, not UTF-8, a byte order mark.
  """
  try:
    with files.open_file(path, "rb") as file:
      data = file.read()
  except OSError as error:
    raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
  require(not data.startswith(b"\xef\xbb\xbf"), f"{path}:1: starts with "
          "a byte order mark; save the file as UTF-8 without one.")
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise InputError(f"{path}:{line}: not valid UTF-8.") from None
  entries = text.split("\n")
  if entries[-1] == "":
    entries.pop()
  return entries


def read_entries(path: str) -> list[str]:
  """The entries of a part of a vocabulary, one a line, checked.

  Raises:
    InputError: as `read_vocabulary`; special tokens may be missing.
  """
  entries = _read_lines(path)
  _check_entries(entries, source=path)
  return entries


def read_vocabulary(path: str) -> list[str]:
  """The entries of a vocabulary file, checked.

  Raises:
    InputError: no such file, not UTF-8, a byte order mark, CR LF, an empty or
      a repeated line, a special token missing. It names the file and line.
  """
  entries = _read_lines(path)
  check_vocabulary(entries, source=path)
  return entries


def find_casing(vocab_file: str, entries: Sequence[str]) -> bool:
  """Whether a vocabulary wants its text lower-cased.

  `tokenizer_config.json` beside the file knows; else a `##` piece with a
  capital letter shows a cased vocabulary, and no capital anywhere (`[CLS]`
  and `<S>` aside) a lower-cased one.

  Raises:
    InputError: neither tells, or the configuration asks for a tokenizer that
      is not the original's.
  """
  path = os.path.join(files.directory_of(vocab_file), TOKENIZER_CONFIG)
  if files.exists(path):
    values = read_json(path)
    require(isinstance(values, dict), f"{path}: must hold a JSON object.")
    do_lower_case = values.get("do_lower_case")
    if isinstance(do_lower_case, bool):
      _check_tokenizer_config(path, values)
      return do_lower_case
  pieces = [entry for entry in entries
            if not (entry[0], entry[-1]) in (("[", "]"), ("<", ">"))]
  capitals = [piece for piece in pieces if piece != piece.lower()]
  if any(piece.startswith("##") for piece in capitals):
    return False
  require(not capitals, f"{vocab_file}: cannot tell whether it is a cased "
          f"vocabulary (it holds {capitals[:1]}, but no ## piece with a "
          "capital letter): give --do_lower_case or --nodo_lower_case.")
  return True


def _check_tokenizer_config(path: str, values: dict[str, Any]) -> None:
  """Refuses settings of other projects that would change the ids."""
  do_lower_case = values["do_lower_case"]
  for key, allowed in (
      ("strip_accents", (None, do_lower_case)),
      ("tokenize_chinese_chars", (True,)), ("do_basic_tokenize", (True,))):
    value = values.get(key, allowed[0])
    require(value in allowed, f"{path}: {key} is {value!r}; this tokenizer is "
            f"the original BERT's, for which it is {allowed[-1]!r}.")
