"""Files, standard input or a TFDS dataset -> documents.

Text is UTF-8, and its lines end at line feeds only, as in the original:
U+2028 and the other separators of `str.splitlines` are part of a line. It
comes as

  text           a blank line ends a document, and so does the end of a file
  jsonl          JSON Lines: an object a line, one of its fields the document
  wikiextractor  <doc ...>, the document, </doc>; as WikiExtractor writes it
  TFDS           an example of the dataset is a document

Standard library only; TensorFlow Datasets is imported where it is used.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import itertools
import json
import logging
import re
import sys
from typing import NamedTuple

from bert_tf.arguments import CorpusConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data import tfds_datasets
from bert_tf.data.text_files import check_compression
from bert_tf.data.text_files import expand_files
from bert_tf.data.text_files import read_lines
from bert_tf.data.text_files import size_on_disk
from bert_tf.data.text_files import STANDARD_INPUT
from bert_tf.data.text_files import suffixes

_LOGGER = logging.getLogger(__name__)

_SURROGATE = re.compile("[\ud800-\udfff]")
# What WikiExtractor writes for these in the text. The last one comes last.
_ESCAPES = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#x27;", "'"),
            ("&amp;", "&"))


class Document(NamedTuple):
  """A document: where it was, and its lines, stripped and not empty."""

  source: int  # The place of its file in `Corpus.names`.
  number: int  # Its place among all documents of its source, from 0.
  lines: list[str]


@dataclasses.dataclass(kw_only=True)
class Corpus:
  """Documents, and how much of them there is; `open_corpus` makes one."""

  names: list[str]  # Of the sources, for messages.
  size: int | None  # Of all sources, in `unit`; None: not known.
  unit: str  # "bytes", on the disk and compressed as they are, or "examples".
  read: Callable[[collections.Counter, int], Iterator[Document]]
  is_repeatable: bool = True
  _was_read: bool = False

  def documents(
      self, counts: collections.Counter, *, max_lines: int = sys.maxsize
  ) -> Iterator[Document]:
    """Reads the documents, in the same order each time.

    Args:
      counts: is given "bytes_read" or "examples_read", "lines_with_bad_utf8"
        and "files_without_text", while the documents are read.
      max_lines: a longer document of plain text, such as a big file without
        blank lines, comes in parts, for those whom the border is no matter.

    Raises:
      InputError: a source cannot be read, is cut short, is not in its format
        or not UTF-8; the message names file and line.
    """
    if self._was_read and not self.is_repeatable:
      raise ValueError("Standard input or a pipe can be read only once.")
    self._was_read = True
    return self.read(counts, max_lines)

  def share_done(self, counts: collections.Counter) -> float | None:
    """From 0 to 1, if `counts` was new for this pass; None: not known."""
    if self.size is None:
      return None
    return min(counts[f"{self.unit}_read"] / max(self.size, 1), 1.0)


def open_corpus(config: CorpusConfig) -> Corpus:
  """What the flags ask for; all that can be checked before reading is.

  Raises:
    InputError: a file does not exist, or this Python cannot unpack it; TFDS
      does not have the dataset, the split or the field.
  """
  if config.tfds_name:
    return _open_tfds(config)
  if config.input_file == ("-",):
    paths = [STANDARD_INPUT]
    size = None
  else:
    paths = expand_files(config.input_file)
    for path in paths:
      check_compression(path)
    size = size_on_disk(paths)
  return Corpus(
      names=paths, size=size, unit="bytes", is_repeatable=size is not None,
      read=functools.partial(_read_files, paths, config))


class _Input(NamedTuple):
  """What is being read, and how."""

  name: str  # For messages.
  config: CorpusConfig
  counts: collections.Counter
  max_lines: int


def _lines_of(text: str) -> list[str]:
  return [line for part in text.split("\n") if (line := part.strip())]


def _without_surrogates(text: str, where: str, source: _Input) -> str:
  """The text, if UTF-8 can hold it; halves of characters are bad UTF-8."""
  match = _SURROGATE.search(text)
  if match is None:
    return text
  require(
      source.config.on_bad_utf8 == "replace",
      f"{where}: character {match.start() + 1} of the text is not UTF-8; mend "
      "it, or pass --on_bad_utf8=replace.")
  source.counts["lines_with_bad_utf8"] += sum(
      _SURROGATE.search(line) is not None for line in text.split("\n"))
  return _SURROGATE.sub("\ufffd", text)


# Each makes documents, some without lines, of the lines of a file.


def _text_documents(
    lines: Iterator[str], source: _Input) -> Iterator[list[str]]:
  document = []
  for line in lines:
    line = line.strip()
    if line:
      document.append(line)
    if document and (not line or len(document) == source.max_lines):
      yield document
      document = []
  if document:
    yield document


def _json_field(line: str, where: str, field: str) -> str:
  advice = "each line must hold one JSON object"
  try:
    values = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise InputError(f"{where}: not JSON ({error}); {advice}.") from None
  if not isinstance(values, dict):
    raise InputError(f"{where}: received {line[:40]}; {advice}.")
  if field not in values:
    raise InputError(
        f"{where}: no field {field!r} in the object, which has "
        f"{', '.join(map(repr, values)) or 'none'}; give --text_field.")
  text = values[field]
  if not isinstance(text, str):
    raise InputError(
        f"{where}: the field {field!r} holds {json.dumps(text)[:40]}; it "
        "must hold a string.")
  return text


def _jsonl_documents(
    lines: Iterator[str], source: _Input) -> Iterator[list[str]]:
  for number, line in enumerate(lines, start=1):
    if not line or line.isspace():
      continue
    where = f"{source.name}:{number}"
    text = _json_field(line, where, source.config.text_field)
    if "\\u" in line:  # An escape can spell half of a character.
      text = _without_surrogates(text, where, source)
    yield _lines_of(text)


def _wikiextractor_documents(
    lines: Iterator[str], source: _Input) -> Iterator[list[str]]:
  document, start = None, 0
  for number, line in enumerate(lines, start=1):
    line = line.strip()
    if line.startswith("<doc ") and line.endswith(">"):
      require(
          document is None, f"{source.name}:{number}: a <doc> in that of "
          f"line {start}, which must first end with a line </doc>.")
      document, start = [], number
    elif line == "</doc>":
      require(
          document is not None, f"{source.name}:{number}: </doc> without a "
          "line <doc ...> before it.")
      yield document
      document = None
    elif line:
      if document is None:
        raise InputError(
            f"{source.name}:{number}: text outside of <doc ...> and </doc>; "
            "if the file is plain text, pass --input_format=text.")
      for escaped, character in _ESCAPES if "&" in line else ():
        line = line.replace(escaped, character)
      document.append(line)
  require(
      document is None, f"{source.name}: cut short: the <doc> of line {start} "
      "has no </doc>; fetch the file again.")


_FORMATS = {
  "text": _text_documents, "jsonl": _jsonl_documents,
  "wikiextractor": _wikiextractor_documents}


def _find_format(path: str, first_line: str) -> str:
  """The format of a file for which none was given."""
  if suffixes(path)[0] == ".jsonl":
    return "jsonl"
  if first_line.startswith("<doc "):
    return "wikiextractor"
  if first_line.startswith('{"'):
    try:
      json.loads(first_line)
    except (ValueError, RecursionError):
      return "text"
    raise InputError(
        f"{path}: looks like JSON Lines; pass --input_format=jsonl, or "
        "--input_format=text to take it as it is.")
  return "text"


def parse_documents(
    lines: Iterator[str], config: CorpusConfig, *, source: int, name: str,
    counts: collections.Counter, max_lines: int = sys.maxsize
) -> Iterator[Document]:
  """The documents of the lines of one file.

  Args:
    lines: as from `read_lines`.
    config: gives the format.
    source: the place of the file among all.
    name: of the file, for messages.
    counts, max_lines: as for `Corpus.documents`.

  Raises:
    InputError: the file is not in its format.
  """
  format_ = config.input_format
  if format_ == "auto":
    first_line = next(lines, "")
    lines = itertools.chain([first_line], lines)
    format_ = _find_format(name, first_line)
  has_text = False
  documents = _FORMATS[format_](lines, _Input(name, config, counts, max_lines))
  for number, document in enumerate(documents):
    has_text = has_text or bool(document)
    yield Document(source, number, document)
  if not has_text:
    counts["files_without_text"] += 1
    _LOGGER.warning("%s: holds no text.", name)


def _read_files(
    paths: Sequence[str], config: CorpusConfig, counts: collections.Counter,
    max_lines: int
) -> Iterator[Document]:
  for source, path in enumerate(paths):
    lines = read_lines(path, on_bad_utf8=config.on_bad_utf8, counts=counts)
    yield from parse_documents(
        lines, config, source=source, name=path, counts=counts,
        max_lines=max_lines)


def _open_tfds(config: CorpusConfig) -> Corpus:
  import tensorflow_datasets as tfds

  name, split, field = config.tfds_name, config.tfds_split, config.text_field
  builder = tfds_datasets.find(name, data_dir=config.tfds_data_dir)
  features = builder.info.features
  names = (
    list(features) if isinstance(features, tfds.features.FeaturesDict) else [])
  texts = [key for key in names if features[key].shape == ()
           and features[key].tf_dtype == "string"]
  require(
      field in texts,
      f"--text_field: received {field!r}; the dataset {name} has the fields "
      f"{', '.join(names) or '(none)'}, of them text: "
      f"{', '.join(texts) or '(none)'}.")
  tfds_datasets.prepare(builder)
  try:
    size = builder.info.splits[split].num_examples
  except (ValueError, KeyError) as error:
    first_line = str(error).strip().split("\n")[0]
    raise InputError(
        f"--tfds_split: received {split!r}; the dataset {name} has "
        f"{', '.join(builder.info.splits)}. {first_line}") from None
  full_name = f"tfds:{builder.info.full_name}:{split}"
  return Corpus(
      names=[full_name], size=size, unit="examples",
      read=functools.partial(_read_tfds, full_name, config))


def _read_tfds(
    name: str, config: CorpusConfig, counts: collections.Counter,
    max_lines: int
) -> Iterator[Document]:
  source = _Input(name, config, counts, max_lines)
  field = config.text_field
  # Anew, since other processes read too.
  builder = tfds_datasets.find(
      config.tfds_name, data_dir=config.tfds_data_dir)
  examples = tfds_datasets.read(builder, config.tfds_split, [field])
  for number, example in enumerate(examples):
    text = example[field]
    try:
      text = text.decode("utf-8")
    except UnicodeDecodeError:
      text = _without_surrogates(
          text.decode("utf-8", errors="surrogateescape"),
          f"{name}: example {number} (from 0)", source)
    counts["examples_read"] += 1
    yield Document(0, number, _lines_of(text))
