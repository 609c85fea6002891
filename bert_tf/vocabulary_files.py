"""Vocabulary files: an entry a line, and the casing that they want.

In a Hugging Face directory the vocabulary may stand in `tokenizer.json` alone.

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
TOKENIZER_JSON = "tokenizer.json"

# Classes of Hugging Face that do what the original does, "Fast" apart. The
# last two do what their tokenizer.json says.
_CLASSES = (
  "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer",
  "MobileBertTokenizer", "PreTrainedTokenizer", "TokenizersBackend")
_ASK = "give --do_lower_case or --nodo_lower_case (do_lower_case= in Python)"

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


def _entries_of_json(path: str) -> list[str]:
  """The entries of a `tokenizer.json`, by their ids."""
  values = read_json(path)
  model = values.get("model") if isinstance(values, dict) else None
  require(
      isinstance(model, dict) and isinstance(model.get("vocab"), dict),
      f"{path}: must hold an object with model.vocab, as Hugging Face's "
      "tokenizers write it.")
  for key, needed in (
      ("type", "WordPiece"), ("unk_token", "[UNK]"),
      ("continuing_subword_prefix", "##")):
    require(
        model.get(key, needed) == needed,
        f"{path}: model.{key} is {model.get(key)!r}; BERT's is {needed!r}, "
        "and no other tokenizer is read here.")
  ids = model["vocab"]
  require(
      set(map(repr, ids.values())) == set(map(repr, range(len(ids)))),
      f"{path}: model.vocab has {len(ids)} entries; their ids must be 0 to "
      f"{len(ids) - 1}, each once.")
  entries = sorted(ids, key=ids.get)
  require(
      not any("\n" in entry for entry in entries),
      f"{path}: model.vocab has an entry with a line end in it.")
  added = [token["content"] for token in values.get("added_tokens") or ()
           if token["content"] not in ids]
  require(
      not added,
      f"{path}: added_tokens: {', '.join(added)} stand beside the "
      "vocabulary, whole words that are never split; this tokenizer knows "
      f"{', '.join(SPECIAL_TOKENS)} alone.")
  return entries


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
  """The entries of a vocabulary file or a `tokenizer.json`, checked.

  Raises:
    InputError: no such file, not UTF-8, a byte order mark, CR LF, an empty or
      a repeated line, a special token missing. It names the file and line.
      The JSON of a tokenizer that is not BERT's.
  """
  entries = (
    _entries_of_json(path) if path.endswith(".json") else _read_lines(path))
  check_vocabulary(entries, source=path)
  return entries


def find_casing(vocab_file: str, entries: Sequence[str]) -> bool:
  """Whether a vocabulary wants its text lower-cased.

  `tokenizer_config.json` beside the file knows; else the normalizer in
  `tokenizer.json`; else a `##` piece with a capital letter shows a cased
  vocabulary, and no capital anywhere (`[CLS]` and `<S>` aside) a lower-cased
  one. Names of files and folders say nothing.

  Raises:
    InputError: none of them tells, or the configuration asks for a tokenizer
      that is not the original's.
  """
  directory = files.directory_of(vocab_file)
  config_file = os.path.join(directory, TOKENIZER_CONFIG)
  values = read_json(config_file) if files.exists(config_file) else {}
  require(isinstance(values, dict), f"{config_file}: must hold a JSON object.")
  do_lower_case = values.get("do_lower_case")
  require(
      do_lower_case in (None, True, False),
      f"{config_file}: do_lower_case is {do_lower_case!r}; must be true or "
      "false.")
  if do_lower_case is None:
    tokenizer_file = (
      vocab_file if vocab_file.endswith(".json")
      else os.path.join(directory, TOKENIZER_JSON))
    do_lower_case = (
      _casing_of_json(tokenizer_file) if files.exists(tokenizer_file)
      else _casing_of_entries(vocab_file, entries))
  _check_settings(config_file, values, do_lower_case=do_lower_case)
  return do_lower_case


def _casing_of_json(path: str) -> bool:
  """What the normalizer of a `tokenizer.json` does."""
  values = read_json(path)
  parts = values if isinstance(values, dict) else {}
  for part, needed in (
      ("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
    found = (parts.get(part) or {}).get("type")
    require(
        found == needed,
        f"{path}: {part} is {found!r}; BERT's is {needed!r}. To have the "
        f"original's all the same, {_ASK}.")
  normalizer = parts["normalizer"]
  do_lower_case = normalizer.get("lowercase", True)
  require(
      isinstance(do_lower_case, bool),
      f"{path}: normalizer.lowercase is {do_lower_case!r}; must be true or "
      "false.")
  _check_settings(path, normalizer, do_lower_case=do_lower_case)
  return do_lower_case


def _casing_of_entries(vocab_file: str, entries: Sequence[str]) -> bool:
  pieces = [entry for entry in entries
            if not (entry[0], entry[-1]) in (("[", "]"), ("<", ">"))]
  capitals = [piece for piece in pieces if piece != piece.lower()]
  if any(piece.startswith("##") for piece in capitals):
    return False
  require(not capitals, f"{vocab_file}: cannot tell whether it is a cased "
          f"vocabulary (it holds {capitals[:1]}, but no ## piece with a "
          f"capital letter): {_ASK}.")
  return True


def _check_settings(
    path: str, values: dict[str, Any], *, do_lower_case: bool
) -> None:
  """Refuses settings of other projects that would change the ids."""
  for key, allowed in (
      ("strip_accents", (None, do_lower_case)),
      ("tokenize_chinese_chars", (True,)), ("do_basic_tokenize", (True,)),
      # What tokenizer.json calls its own.
      ("handle_chinese_chars", (True,)), ("clean_text", (True,))):
    value = values.get(key, allowed[0])
    require(value in allowed, f"{path}: {key} is {value!r}; this tokenizer is "
            f"the original BERT's, for which it is {allowed[-1]!r}. To have "
            f"that all the same, {_ASK}.")
  name = values.get("tokenizer_class")
  require(name is None or str(name).removesuffix("Fast") in _CLASSES,
          f"{path}: tokenizer_class is {name!r}; this tokenizer is the "
          f"original BERT's. To have that all the same, {_ASK}.")
