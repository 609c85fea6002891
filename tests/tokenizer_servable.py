"""A tokenizer as a SavedModel by itself, with flat outputs."""

import tensorflow as tf

from bert_tf.tokenization import BertTokenizer

TEXT = tf.TensorSpec([None], tf.string, name="text")
TEXT_PAIR = tf.TensorSpec([None], tf.string, name="text_pair")


def save(tokenizer: BertTokenizer, path: str) -> None:
  """Signatures `tokenize`, `offsets`, `offsets_special`, `text`, `windows`.

  And `stored`, `stored_offsets`: the functions that every SavedModel of a
  tokenizer holds.
  """
  module = tf.Module()
  module.tokenizer = tokenizer

  @tf.function(input_signature=[TEXT])
  def tokenize(text):
    ids = tokenizer.tokenize(text)
    return {"ids": ids.flat_values, "splits": ids.row_splits}

  def offsets(text, allow_special_tokens):
    ids, start, end = tokenizer.tokenize_with_offsets(
        text, allow_special_tokens=allow_special_tokens)
    return {"ids": ids.flat_values, "splits": ids.row_splits,
            "start": start.flat_values, "end": end.flat_values}

  @tf.function(input_signature=[TEXT])
  def stored(text):
    return {"ids": tokenizer._tokenize(text).flat_values}

  @tf.function(input_signature=[TEXT])
  def stored_offsets(text):
    return {"ids": tokenizer._tokenize_with_offsets(text)[0].flat_values}

  @tf.function(input_signature=[TEXT])
  def text(text):
    return {"text": tokenizer.detokenize(tokenizer.tokenize(text))}

  @tf.function(input_signature=[TEXT, TEXT_PAIR])
  def windows(text, text_pair):
    found = tokenizer.pack_windows(
        tokenizer.tokenize(text), tokenizer.tokenize(text_pair),
        max_seq_length=16, doc_stride=4, max_query_length=3,
        pad_to_multiple_of=8)
    return {**found.inputs, "example": found.example, "start": found.start,
            "size": found.size, "position": found.position}

  signatures = {
    "tokenize": tokenize, "text": text, "windows": windows, "stored": stored,
    "stored_offsets": stored_offsets,
    "offsets": tf.function(
        lambda text: offsets(text, False), input_signature=[TEXT]),
    "offsets_special": tf.function(
        lambda text: offsets(text, True), input_signature=[TEXT]),
  }
  tf.saved_model.save(module, path, signatures=signatures)
