"""Text files -> documents -> sentences.

A file is UTF-8 text, plain or gzip. Lines end at "\n" only, as in the
original: U+2028 and the other separators of `str.splitlines` are part of a
line. A blank line ends a document, and so does the end of a file.

Standard library only.
"""

import collections
from collections.abc import Iterator, Sequence
import contextlib
import glob
import gzip
import logging
import os
import re
from typing import BinaryIO
import zlib

from bert_tf.config import InputError
from bert_tf.config import require

_LOGGER = logging.getLogger(__name__)

SENTENCE_SPLITTERS = ("none", "rules")

# A full stop after one of these does not end a sentence. What may also stand
# at the end of one ("etc.", "p.m.") is not here. English and a few French and
# Spanish titles: for other languages feed a sentence a line.
_ABBREVIATIONS = frozenset("""
  mr mrs ms messrs mm dr prof st ste sir rev revd hon fr sr sra mme mlle mlles
  gen col lt capt cpt maj sgt cpl adm cmdr gov pres sen rep supt
  mt ft co corp inc ltd bros jr dept univ assn
  vs viz cf ca approx al ibid e.g i.e eg ie
""".split())

# Nor after one of these, when a number follows: "No. 5", "Fig. 2", "Jan. 5".
_BEFORE_A_NUMBER = frozenset("""
  no nos nr p pp vol vols ch chap sec sect art fig figs eq eqs par ver v
  jan feb mar apr jun jul aug sep sept oct nov dec
""".split())

# A stop, what closes a quotation or a bracket, white space, what opens the
# next one; or an ideographic full stop, which needs no white space.
_CANDIDATE = re.compile(
    r"""(?<![.!?…]) (?P<stop>[.!?…؟۔।॥։]+) ["'”’»)\]}_*]* \s+
        (?=["'“‘«([{_*¿¡—–-]* \s? (?P<next>[^\W_]|[$£€]))
    | (?<![。！？｡]) [。！？｡]+ ["'”’」』）】]* \s* (?=\S)""",
    re.VERBOSE)

# "1.", "IV." or "b)." at the start of a sentence numbers it.
_ENUMERATOR = re.compile(r"\W*(?:\d+|[ivxlc]+|[^\W\d_])\W*", re.IGNORECASE)
# Nothing above is longer: a sentence without end must not cost its square.
_LONGEST_WORD = 40
_DOTTED_CAPITALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")


def expand_files(patterns: Sequence[str]) -> list[str]:
  """The files that names and globs stand for, sorted, each once.

  A name that exists is taken as it is, even if it holds a `*` or a `[`.
  `**` reaches into folders.

  Raises:
    InputError: a pattern matches no file, or it names a folder.
  """
  require(not isinstance(patterns, str), "patterns: must be a list of names.")
  require(len(patterns) > 0, "No input file was given: name at least one.")
  paths = set()
  for pattern in patterns:
    require(
        not os.path.isdir(pattern),
        f"{pattern}: is a folder; give the files in it, such as "
        f"{os.path.join(pattern, '*')}.")
    matches = [pattern] if os.path.exists(pattern) else [
      path for path in glob.glob(pattern, recursive=True)
      if not os.path.isdir(path)]
    require(
        len(matches) > 0,
        f"{pattern}: no such file, and as a glob it matches none; check the "
        f"name (the current folder is {os.getcwd()}).")
    paths.update(matches)
  return sorted(paths)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
  """Yields the text as bytes, and the file itself, whose place is known."""
  try:
    with open(path, "rb") as file:
      if path.endswith(".gz"):
        with gzip.GzipFile(fileobj=file) as text:
          yield text, file
      else:
        yield file, file
  except EOFError:
    raise InputError(
        f"{path}: the compressed file is cut short; fetch it again.") from None
  except (gzip.BadGzipFile, zlib.error) as error:
    raise InputError(
        f"{path}: not a whole gzip file ({error}); fetch it again, or drop "
        f"the suffix .gz if it is plain text.") from None
  except OSError as error:
    reason = error.strerror or error
    raise InputError(f"{path}: cannot be read: {reason}.") from None


def read_lines(
    path: str,
    *,
    on_bad_utf8: str = "error",
    counts: collections.Counter | None = None,
) -> Iterator[str]:
  """The lines of a text file, without their line ends.

  Args:
    path: plain text, or gzip if the name ends in `.gz`.
    on_bad_utf8: "error" refuses a line that is not UTF-8; "replace" puts
      U+FFFD for each bad byte, and logs how many lines were concerned.
    counts: is given "bytes_read" (of the file, as on the disk) and
      "lines_with_bad_utf8".

  Raises:
    InputError: the file cannot be read, is cut short, or holds a line that
      is not UTF-8; the message names file and line.
  """
  counts = collections.Counter() if counts is None else counts
  bytes_before = counts["bytes_read"]
  bad_lines = 0
  with _reading(path) as (text, file):
    for number, line in enumerate(text, start=1):
      if number % 1000 == 0:
        counts["bytes_read"] = bytes_before + file.tell()
      if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")  # A byte order mark.
      line = line.removesuffix(b"\n").removesuffix(b"\r")
      try:
        decoded = line.decode("utf-8")
      except UnicodeDecodeError as error:
        require(
            on_bad_utf8 == "replace",
            f"{path}:{number}: byte {error.start + 1} of the line is not "
            f"UTF-8; mend the file, or pass --on_bad_utf8=replace.")
        bad_lines += 1
        decoded = line.decode("utf-8", errors="replace")
      yield decoded
    counts["bytes_read"] = bytes_before + file.tell()
  if bad_lines:
    counts["lines_with_bad_utf8"] += bad_lines
    _LOGGER.warning(
        "%s: %d lines are not UTF-8; the bad bytes were replaced.", path,
        bad_lines)


def _ends_sentence(before: str, stop: str, following: str) -> bool:
  """Whether `stop` ends the sentence; `before` is what it has right before.

  Where it is in doubt it does not: two sentences in one do less harm to
  pretraining than half a sentence.
  """
  if following.islower():
    return False
  if stop != ".":
    return True
  if _ENUMERATOR.fullmatch(before):
    return False
  word = "".join(before.split()[-1:]).lstrip("\"'“‘«([{_*—–-")
  if word.lower() in _ABBREVIATIONS:
    return False
  if following.isdigit() and word.lower() in _BEFORE_A_NUMBER:
    return False
  # "J. Smith", "J.R.R. Tolkien", "the U.S. Army"; but "you and I. We".
  is_initial = word.isupper() and _DOTTED_CAPITALS.fullmatch(word)
  return word == "I" or not is_initial


def split_sentences(text: str) -> list[str]:
  """Finds the sentences of running text by rules for English.

  A sentence ends at `.`, `!`, `?` or their like, with closing quotes, before
  white space and a character that is not lower case, unless the word before
  a full stop is a known abbreviation, an initial or the number of an item.
  Ideographic full stops end one without white space. No text is lost, apart
  from white space between sentences.

  >>> split_sentences("Mr. Hume left at 5 p.m. Nobody saw him.")
  ['Mr. Hume left at 5 p.m.', 'Nobody saw him.']
  """
  sentences = []
  start = 0
  for match in _CANDIDATE.finditer(text):
    stop, end = match["stop"], match.start()
    before = text[max(start, end - _LONGEST_WORD):end]
    if stop is None or _ends_sentence(before, stop, match["next"]):
      sentences.append(text[start:match.end()].strip())
      start = match.end()
  sentences.append(text[start:].strip())
  return [sentence for sentence in sentences if sentence]


def read_documents(
    paths: Sequence[str],
    *,
    sentence_splitter: str = "none",
    on_bad_utf8: str = "error",
    counts: collections.Counter | None = None,
) -> Iterator[list[str]]:
  """The documents of text files, each a list of its sentences, not empty.

  Args:
    paths: files, see `read_lines`.
    sentence_splitter: "none" takes a line for a sentence; "rules" takes it
      for running text, see `split_sentences`.
    on_bad_utf8: see `read_lines`.
    counts: see `read_lines`; also "files_without_text".

  Raises:
    InputError: see `read_lines`.
  """
  if sentence_splitter not in SENTENCE_SPLITTERS:
    raise ValueError(f"Unknown sentence_splitter {sentence_splitter!r}.")
  counts = collections.Counter() if counts is None else counts
  for path in paths:
    document = []
    is_empty = True
    for line in read_lines(path, on_bad_utf8=on_bad_utf8, counts=counts):
      line = line.strip()
      if line:
        is_empty = False
        document += (
          [line] if sentence_splitter == "none" else split_sentences(line))
      elif document:
        yield document
        document = []
    if document:
      yield document
    if is_empty:
      counts["files_without_text"] += 1
      _LOGGER.warning("%s: holds no text.", path)
