"""A tag for each word of a sentence: named entities, parts of speech.

Devlin et al. 2019, section 5.3: a layer over the first piece of each word,
without a CRF, with the maximal document context; or the same over a BiLSTM on
features of a frozen encoder.

Shapes: E examples, W words of a file, P their pieces, K words that have
pieces, C tags, B texts, S most pieces in a text, N most entities in one.
"""

import dataclasses
import functools
import os
from typing import Any, NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf import examples
from bert_tf import files
from bert_tf import losses
from bert_tf import metrics
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data import conll
from bert_tf.finetuning import Columns
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.heads import BertTokenClassifier
from bert_tf.tasks.classification import data_folder
from bert_tf.tasks.classification import log_softmax
from bert_tf.tasks.tagging_signature import make_signatures

# Words that are tokenized in one call.
_WORDS = 8192


class Notes(NamedTuple):
  """Which words the examples score: int [K] each, and [W]."""

  word: np.ndarray  # its number in the file
  example: np.ndarray  # the example that scores it
  position: np.ndarray  # of its first piece in that example
  labels: np.ndarray | None  # [W]: the number of each word's tag


class _Pieces(NamedTuple):
  """The pieces of all words, and where each word begins."""

  ids: np.ndarray  # int32 [P]
  starts: np.ndarray  # int64 [W + 1]: the first piece of each word, then P


class _Parts(NamedTuple):
  """What each example scores: words from `first` to before `end`, [E]."""

  sentence: np.ndarray
  first: np.ndarray
  end: np.ndarray


def _read(
    config: FinetuningConfig, split: str, *,
    features: tuple[str, str] | None = None
) -> Columns | None:
  """Of the files, or of TFDS; `features`: its words and tags, by name."""
  if config.tfds_name:
    if config.document_context:
      logging.info(
          "%s: its sentences are mixed, without their documents; each stands "
          "alone, as with --document_context=false.", config.tfds_name)
    words, tags = features or (config.text_column, config.label_column)
    return conll.read_tfds_tagged(
        config.tfds_name, split, words=words, tags=tags,
        **config.tfds_options)
  for suffix in conll.SUFFIXES:
    path = os.path.join(data_folder(config), split + suffix)
    if files.exists(path):
      rows = conll.read_tagged(path, on_bad_utf8=config.on_bad_utf8)
      require(
          "tags" in rows or split == "test",
          f"{path}: words have no tags; give each its tag, in the last column "
          "or in the field tags.")
      return rows
  return None


def _describe(config: FinetuningConfig, rows: Columns) -> dict[str, Any]:
  labels = sorted({tag for tags in rows["tags"] for tag in tags})
  if conll.is_iob(labels):
    types = sorted({tag[2:] for tag in labels if tag != "O"})
    labels = ["O", *(f"{kind}-{name}" for name in types for kind in "BI")]
  require(
      len(labels) > 1,
      f"{config.data_source}: all words of the training rows have the tag "
      f"{labels[0]!r}; there must be two tags or more.")
  found = {"labels": labels}
  if config.document_context and not config.tfds_name:
    found["document_context"] = True
  if config.features:
    found["features"] = config.features
  return found


def _labels_of(description, rows: Columns) -> np.ndarray:
  """The numbers of the words' tags, int32 [W]."""
  numbers = {tag: i for i, tag in enumerate(description["labels"])}
  for words, tags, where in zip(rows["words"], rows["tags"], rows["where"]):
    for i, tag in enumerate(tags):
      if tag not in numbers:
        raise InputError(
            f"{where}: word {i + 1} of the sentence, {words[i]!r}, has the "
            f"tag {tag!r}, which no training row has; they have "
            f"{', '.join(numbers)}. Mend the tag, or train with examples of "
            "it.")
  return np.array(
      [numbers[tag] for tags in rows["tags"] for tag in tags], np.int32)


def _tokenize(tokenizer, words: list[str], *, room: int) -> _Pieces:
  """Pieces of each word by itself, `room` of one at most."""
  ids, lengths = [], []
  for start in range(0, len(words), _WORDS):
    pieces = tokenizer.tokenize(words[start:start + _WORDS])
    ids.append(pieces.flat_values.numpy())
    lengths.append(pieces.row_lengths().numpy())
  ids, lengths = np.concatenate(ids), np.concatenate(lengths)
  empty, long = np.sum(lengths == 0), np.sum(lengths > room)
  if empty:
    logging.info(
        "%d of %d words have no pieces (control characters and the like) and "
        "get no tag.", empty, len(words))
  if long:
    logging.info(
        "%d of %d words are longer than %d pieces and were cut.", long,
        len(words), room)
  inside = np.arange(len(ids)) - np.repeat(
      np.cumsum(lengths) - lengths, lengths)
  return _Pieces(
      ids[inside < room],
      np.concatenate([[0], np.cumsum(np.minimum(lengths, room))]))


def _split(
    starts: np.ndarray, first: int, end: int, *, limit: int
) -> list[tuple[int, int]]:
  """Words of a long sentence in parts of `limit` pieces, or of one word."""
  parts = []
  for word in range(first, end):
    begun = starts[first] < starts[word]
    if begun and starts[word + 1] - starts[first] > limit:
      parts.append((first, word))
      first = word
  return [*parts, (first, end)]


def _find_parts(
    pieces: _Pieces, sentence_starts: np.ndarray, *, room: int
) -> _Parts:
  """A sentence is a part, or several if it does not fit in the window.

  Args:
    pieces: of all words.
    sentence_starts: int [sentences + 1]: the first word of each, then W.
    room: pieces in a window.
  """
  starts, parts, long = pieces.starts, [], 0
  for i, (first, end) in enumerate(
      zip(sentence_starts[:-1], sentence_starts[1:])):
    found = [(first, end)]
    if starts[end] - starts[first] > room:
      # Half a window, so that each word has some context on both sides.
      found = _split(starts, first, end, limit=max(room // 2, 1))
      long += 1
    parts += [(i, *part) for part in found if starts[part[0]] < starts[part[1]]]
  if long:
    logging.info(
        "%d of %d sentences are longer than %d pieces and were split.", long,
        len(sentence_starts) - 1, room)
  return _Parts(*np.array(parts, np.int64).reshape(-1, 3).T)


def _windows(
    pieces: _Pieces, parts: _Parts, low: np.ndarray, high: np.ndarray, *,
    room: int
) -> tuple[np.ndarray, np.ndarray]:
  """First piece, and piece behind the last, of each part's window: [E] each.

  What the part leaves free is context: as much before it as behind it, more
  of one where there is less of the other, and whole words only.

  Args:
    pieces: of all words.
    parts: what to score.
    low: where the context may begin, a piece that begins a word, [E].
    high: behind where it must end, [E].
    room: pieces in a window.
  """
  start, end = pieces.starts[parts.first], pieces.starts[parts.end]
  free = room - (end - start)
  before, behind = start - low, high - end
  left = np.minimum(before, np.maximum(free // 2, free - behind))
  right = np.minimum(behind, free - left)
  bounds = np.unique(pieces.starts)
  first = bounds[np.searchsorted(bounds, start - left, side="left")]
  last = bounds[np.searchsorted(bounds, end + right, side="right") - 1]
  return first, last


def _bounds(
    rows: Columns, sentence_starts: np.ndarray, *, document_context: bool
) -> tuple[np.ndarray, np.ndarray]:
  """The words among which each sentence's context lies: first, end."""
  if not document_context:
    return sentence_starts[:-1], sentence_starts[1:]
  documents = np.array(rows["document"])
  first, end = (
    np.searchsorted(documents, documents, side=side)
    for side in ("left", "right"))
  return sentence_starts[first], sentence_starts[end]


def _assemble(
    tokenizer, pieces: _Pieces, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """[CLS] window [SEP] of all, flat, and where each begins: [E + 1]."""
  lengths = last - first + 2
  splits = np.concatenate([[0], np.cumsum(lengths)])
  places = np.arange(splits[-1]) - np.repeat(splits[:-1], lengths)
  source = np.repeat(first, lengths) + places - 1
  ids = pieces.ids[np.clip(source, 0, len(pieces.ids) - 1)]
  ids[splits[:-1]] = tokenizer.cls_id
  ids[splits[1:] - 1] = tokenizer.sep_id
  return ids, splits


def _encode(tokenizer, description, rows: Columns) -> examples.Examples:
  """An example for each sentence, or for each part of a long one.

  The first piece of each word has its tag as the label. All others, the
  context too, have none.
  """
  room = description["max_seq_length"] - 2
  sizes = [len(words) for words in rows["words"]]
  sentence_starts = np.concatenate([[0], np.cumsum(sizes)])
  pieces = _tokenize(
      tokenizer, [word for words in rows["words"] for word in words],
      room=room)
  parts = _find_parts(pieces, sentence_starts, room=room)
  require(
      len(parts.first) > 0,
      f"{rows['where'][0]}: neither this sentence nor any other has a piece; "
      "the words must hold more than white space and control characters.")
  low, high = _bounds(
      rows, sentence_starts,
      document_context=description.get("document_context", False))
  first, last = _windows(
      pieces, parts, pieces.starts[low[parts.sentence]],
      pieces.starts[high[parts.sentence]], room=room)
  ids, splits = _assemble(tokenizer, pieces, first, last)
  found = {"input_ids": ids, "segment_ids": np.zeros_like(ids)}

  sizes = parts.end - parts.first
  example = np.repeat(np.arange(len(sizes)), sizes)
  word = np.arange(sizes.sum()) - np.repeat(
      np.cumsum(sizes) - sizes, sizes) + parts.first[example]
  has_pieces = pieces.starts[word] < pieces.starts[word + 1]
  word, example = word[has_pieces], example[has_pieces]
  position = pieces.starts[word] - first[example] + 1
  labels = None
  if "tags" in rows:
    labels = _labels_of(description, rows)
    found["labels"] = np.full_like(ids, -1)
    found["labels"][splits[example] + position] = labels[word]
  return examples.Examples({
    name: tf.RaggedTensor.from_row_splits(values, splits)
    for name, values in found.items()}, {},
    notes=Notes(word, example, position, labels))


def _make_model(bert_config, description, **kwargs) -> BertTokenClassifier:
  return BertTokenClassifier(
      bert_config, num_classes=len(description["labels"]),
      features=description.get("features"), **kwargs)


def _scores(encoded, outputs) -> np.ndarray:
  """Logits of the words that have pieces, [K, C]."""
  return outputs["logits"][encoded.notes.example, encoded.notes.position]


def _predicted(description, rows: Columns, encoded, outputs):
  """The tags that the model gives the words of each sentence.

  A word without pieces is "O", or the first of the tags if that is none.
  """
  labels = description["labels"]
  numbers = np.full(
      sum(map(len, rows["words"])),
      labels.index("O") if "O" in labels else 0)
  numbers[encoded.notes.word] = _scores(encoded, outputs).argmax(-1)
  tags = iter(numbers)
  return [[labels[next(tags)] for _ in words] for words in rows["words"]]


def _metrics(description, rows: Columns, encoded, outputs):
  scores = log_softmax(_scores(encoded, outputs))
  wanted = encoded.notes.labels[encoded.notes.word]
  predicted = _predicted(description, rows, encoded, outputs)
  found = {
    "loss": float(-scores[np.arange(len(wanted)), wanted].mean()),
    "accuracy": metrics.accuracy(
        [tag for tags in rows["tags"] for tag in tags],
        [tag for tags in predicted for tag in tags])}
  if not conll.is_iob(description["labels"]):
    return found
  figures = metrics.entity_f1(rows["tags"], predicted)
  for name, of_type in figures["types"].items():
    logging.info(
        "%s: precision %.4f, recall %.4f, f1 %.4f of %d entities.", name,
        of_type["precision"], of_type["recall"], of_type["f1"],
        of_type["support"])
  return {**found, **{
    name: figures[name] for name in ("f1", "precision", "recall")}}


def _predictions(description, rows: Columns, encoded, outputs):
  """As `conlleval` takes it: word, tag (if it is known), predicted tag."""
  columns = [rows["words"], *([rows["tags"]] if "tags" in rows else []),
             _predicted(description, rows, encoded, outputs)]
  sentences = (
    "".join(" ".join(word) + "\n" for word in zip(*sentence, strict=True))
    for sentence in zip(*columns, strict=True))
  return {"predictions.txt": "\n".join(sentences)}


TASK = Task(
    kind="tagging",
    read=_read,
    describe=_describe,
    encode=_encode,
    make_model=_make_model,
    objective=losses.TAGGING,
    metrics=_metrics,
    predictions=_predictions,
    signatures=make_signatures,
    head=("output_", "features/"),
    # Of tags that are no IOB2 there is `accuracy` alone.
    best_metric="f1")

TASKS = {
  "tagging": TASK,
  "conll2003": dataclasses.replace(
      TASK, read=functools.partial(_read, features=("tokens", "ner")),
      defaults={"document_context": True}),
}
