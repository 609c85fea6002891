"""Tags and entities of raw text, in the graph.

A text of any length is read in windows that overlap, and each piece is tagged
where it has context on both sides. Words are those of the tokenizer, which
sets punctuation apart: a model that learnt words such as "U.S." as one takes
the tag of each of its parts here, and the parts join into one entity.

Shapes: B texts, P pieces of all texts, W windows, S most pieces in a text, C
tags, N entities of all texts.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from bert_tf import serving
from bert_tf.data import conll
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import is_inside


class _Ranges(NamedTuple):
  """Parts of texts: the text of each, its first byte and that behind it."""

  text: tf.Tensor
  start: tf.Tensor
  end: tf.Tensor

  def where(self, mask: tf.Tensor) -> "_Ranges":
    return _Ranges(*(tf.boolean_mask(x, mask) for x in self))


def _logits_of_pieces(
    infer: Callable, tokenizer: BertTokenizer, ids: tf.RaggedTensor, *,
    max_seq_length: int
) -> tf.Tensor:
  """The scores of all pieces, float32 [P, C], of `ids` [B, (pieces)].

  Windows begin half a window apart. A piece is scored in the one where it
  stands between the first and the last quarter, if there is one.
  """
  room = max_seq_length - 2
  stride = max(room // 2, 1)
  windows = tokenizer.pack_windows(
      ids, max_seq_length=max_seq_length, doc_stride=stride)
  logits = serving.in_blocks(
      infer, windows.inputs)["logits"]  # [W, S, C]
  texts = tf.range(tf.cast(ids.nrows(), tf.int32))
  first, end = (
    tf.searchsorted(windows.example, texts, side=side)
    for side in ("left", "right"))  # [B]
  text = tf.cast(ids.value_rowids(), tf.int32)  # [P]
  place = tf.range(tf.size(text)) - tf.gather(
      tf.cast(ids.row_starts(), tf.int32), text)
  window = tf.clip_by_value(
      tf.gather(first, text) + (place - room // 4) // stride,
      tf.gather(first, text), tf.gather(end, text) - 1)
  position = place - tf.gather(windows.start, window) + 1
  return tf.gather_nd(logits, tf.stack([window, position], axis=1))


def _type_of(label: str) -> str:
  return label[2:] if conll.is_iob([label]) else ""


def _entities(
    labels: Sequence[str], numbers: tf.Tensor, is_first: tf.Tensor,
    pieces: _Ranges
) -> tuple[tf.Tensor, _Ranges]:
  """Types string [N] and ranges [N] of the entities, in order.

  As `metrics.entities` reads tags: an "I-" that goes on nothing begins one.

  Args:
    labels: C tags.
    numbers: int [P]: of the tag of each piece, that of its word.
    is_first: bool [P]: whether a piece begins a word.
    pieces: all pieces, in order.
  """
  names = [_type_of(label) for label in labels]
  types = tf.constant(names)
  known = tf.constant([names.index(name) if name else -1 for name in names])
  begins = tf.constant([label.startswith("B-") for label in labels])
  of_piece = tf.gather(known, numbers)  # [P]: the type, -1 = none
  same_text = tf.equal(pieces.text[1:], pieces.text[:-1])
  before = tf.concat(
      [[-1], tf.where(same_text, of_piece[:-1], -1)], axis=0)[:tf.size(numbers)]
  is_entity = of_piece >= 0
  is_start = is_entity & is_first & (
      tf.gather(begins, numbers) | tf.not_equal(of_piece, before))
  entity = tf.cumsum(tf.cast(is_start, tf.int32)) - 1  # [P]
  found = pieces.where(is_start)
  return (
      tf.gather(types, tf.boolean_mask(numbers, is_start)),
      found._replace(end=tf.math.segment_max(
          tf.boolean_mask(pieces.end, is_entity),
          tf.boolean_mask(entity, is_entity))))


def _by_text(values, text, texts, padding):
  """[B, most in a text] of flat values and the text of each."""
  return tf.RaggedTensor.from_value_rowids(
      values, tf.cast(text, tf.int64), nrows=tf.size(texts, tf.int64),
      validate=False).to_tensor(padding)


def _cut(texts: tf.Tensor, found: _Ranges) -> tf.Tensor:
  """The bytes of all ranges, string [N].

  Byte by byte: `tf.strings.substr` would need its text beside each range, and
  a long text so many times over fills any memory.
  """
  characters = tf.strings.bytes_split(texts)  # [B, (bytes)]
  before = tf.gather(tf.cast(characters.row_starts(), tf.int32), found.text)
  places = tf.ragged.range(before + found.start, before + found.end)
  return tf.strings.unsorted_segment_join(
      tf.gather(characters.flat_values, places.flat_values),
      places.value_rowids(), tf.size(found.start))


def _entity_outputs(texts, types, found: _Ranges) -> dict[str, tf.Tensor]:
  return {
    name: _by_text(values, found.text, texts, padding)
    for name, values, padding in (
      ("entities", _cut(texts, found), ""), ("entity_types", types, ""),
      ("entity_starts", found.start, -1), ("entity_ends", found.end, -1))}


def make_signatures(
    model: keras.Model, tokenizer: BertTokenizer, description: dict[str, Any]
) -> dict[str, Callable]:
  """`Task.signatures`: text [B] -> tags of its pieces, and entities.

  Of each piece, [B, S]: `starts` and `ends` int32, the bytes of its text that
  it is from (-1 = padding); `tags` string (""), that of the first piece of
  its word; `probabilities` float32 (0). If the tags are IOB2, also of each
  entity, [B, most in a text]: `entities` and `entity_types` string (""),
  `entity_starts` and `entity_ends` int32 (-1).

  Pieces that are already made get `tags` [B, S], each by itself, with the
  `probabilities` and `logits` [B, S, C] of all tags.
  """
  names = description["labels"]
  labels = tf.constant(names)
  inside = tf.constant([is_inside(entry) for entry in tokenizer.vocabulary])
  infer = serving.inference(model)

  def tag(text):
    ids, start, end = tokenizer.tokenize_with_offsets(text)
    logits = _logits_of_pieces(
        infer, tokenizer, ids, max_seq_length=description["max_seq_length"])
    is_first = ~tf.gather(inside, ids.flat_values)  # [P]
    head = tf.gather(
        tf.where(is_first)[:, 0],
        tf.cumsum(tf.cast(is_first, tf.int32)) - 1)  # the word's first piece
    numbers = tf.gather(tf.argmax(logits, -1, output_type=tf.int32), head)
    best = tf.gather(tf.reduce_max(tf.nn.softmax(logits), axis=-1), head)
    pieces = _Ranges(
        tf.cast(ids.value_rowids(), tf.int32), start.flat_values,
        end.flat_values)
    outputs = {
      name: _by_text(values, pieces.text, text, padding)
      for name, values, padding in (
        ("starts", pieces.start, -1), ("ends", pieces.end, -1),
        ("tags", tf.gather(labels, numbers), ""),
        ("probabilities", best, 0.0))}
    if conll.is_iob(names):
      outputs |= _entity_outputs(
          text, *_entities(names, numbers, is_first, pieces))
    return outputs

  def tag_pieces(inputs):
    logits = infer(inputs)["logits"]  # [B, S, C]
    tags = tf.gather(labels, tf.argmax(logits, -1))
    return {
      "tags": tf.where(inputs["input_mask"] > 0, tags, ""),
      "probabilities": tf.nn.softmax(logits), "logits": logits}

  return {
    "serving_default": serving.of_texts(["text"], tag),
    "pre_tokenized": serving.of_pieces(model.config, tag_pieces)}
