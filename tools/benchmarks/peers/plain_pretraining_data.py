"""Pretraining data in plain Python, the way of the original: for comparison.

  python plain_pretraining_data.py SENTENCES VOCAB_FILE OUTPUT DUPE_FACTOR S P

The original's recipe and its way of doing it: one process, all in memory, a
Python string for each piece, an object for each example and a proto for each
record; its own tokenizer. Prints a line of JSON: seconds from the first line
read to the last record written, and how many there are. (Its own program runs
on TensorFlow 1 only.)
"""

import json
import random
import sys
import time
import types

# The original's module opens the vocabulary with TensorFlow 1.
sys.modules["tensorflow"] = types.SimpleNamespace(
    gfile=types.SimpleNamespace(
        GFile=lambda path, mode: open(path, mode, encoding="utf-8")))
from bert import tokenization
del sys.modules["tensorflow"]
import tensorflow as tf


class Example:
  """A pair of segments with its masks."""

  def __init__(self, tokens, segment_ids, positions, labels, is_random_next):
    self.tokens = tokens
    self.segment_ids = segment_ids
    self.positions = positions
    self.labels = labels
    self.is_random_next = is_random_next


def read_documents(path, tokenizer):
  documents = [[]]
  with open(path, encoding="utf-8") as file:
    for line in file:
      line = line.strip()
      if not line:
        documents.append([])
      elif tokens := tokenizer.tokenize(line):
        documents[-1].append(tokens)
  return [document for document in documents if document]


def truncate(a, b, limit, rng):
  while len(a) + len(b) > limit:
    longer = a if len(a) > len(b) else b
    if rng.random() < 0.5:
      del longer[0]
    else:
      longer.pop()


def mask(tokens, most, vocabulary, rng):
  candidates = [place for place, token in enumerate(tokens)
                if token not in ("[CLS]", "[SEP]")]
  rng.shuffle(candidates)
  number = min(most, max(1, round(len(tokens) * 0.15)))
  masked, positions = list(tokens), sorted(candidates[:number])
  for place in positions:
    if rng.random() < 0.8:
      masked[place] = "[MASK]"
    elif rng.random() < 0.5:
      masked[place] = rng.choice(vocabulary)
  return masked, positions, [tokens[place] for place in positions]


def pair(chunk, document, documents, limit, rng):
  """(A, B, whether B is random, sentences to put back)."""
  a_end = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
  a = [token for sentence in chunk[:a_end] for token in sentence]
  b, put_back = [], 0
  is_random = len(chunk) == 1 or rng.random() < 0.5
  if is_random:
    other = document
    while other is document:
      other = rng.choice(documents)
    for sentence in other[rng.randrange(len(other)):]:
      b += sentence
      if len(b) >= limit - len(a):
        break
    put_back = len(chunk) - a_end
  else:
    b = [token for sentence in chunk[a_end:] for token in sentence]
  return a, b, is_random, put_back


def examples_of(document, documents, length, most, vocabulary, rng):
  limit = length - 3
  target = limit if rng.random() >= 0.1 else rng.randint(2, limit)
  chunk, size, place = [], 0, 0
  while place < len(document):
    chunk.append(document[place])
    size += len(document[place])
    if place == len(document) - 1 or size >= target:
      a, b, is_random, put_back = pair(
          chunk, document, documents, target, rng)
      place -= put_back
      truncate(a, b, limit, rng)
      tokens = ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
      segment_ids = [0] * (len(a) + 2) + [1] * (len(b) + 1)
      masked, positions, labels = mask(tokens, most, vocabulary, rng)
      yield Example(masked, segment_ids, positions, labels, is_random)
      chunk, size = [], 0
    place += 1


def serialize(example, tokenizer, length, most):
  def padded(values, size):
    return list(values) + [0] * (size - len(values))

  integers = lambda values: tf.train.Feature(
      int64_list=tf.train.Int64List(value=values))
  ids = tokenizer.convert_tokens_to_ids
  features = {
    "input_ids": integers(padded(ids(example.tokens), length)),
    "input_mask": integers(padded([1] * len(example.tokens), length)),
    "segment_ids": integers(padded(example.segment_ids, length)),
    "masked_lm_positions": integers(padded(example.positions, most)),
    "masked_lm_ids": integers(padded(ids(example.labels), most)),
    "masked_lm_weights": tf.train.Feature(float_list=tf.train.FloatList(
        value=padded([1.0] * len(example.positions), most))),
    "next_sentence_labels": integers([int(example.is_random_next)])}
  return tf.train.Example(features=tf.train.Features(
      feature=features)).SerializeToString()


def main(path, vocab_file, output, passes, length, most):
  tokenizer = tokenization.FullTokenizer(
      vocab_file=vocab_file, do_lower_case=True)
  vocabulary = list(tokenizer.vocab)
  rng = random.Random(1)
  start = time.perf_counter()
  documents = read_documents(path, tokenizer)
  rng.shuffle(documents)
  examples = [
    example for _ in range(int(passes)) for document in documents
    for example in examples_of(
        document, documents, int(length), int(most), vocabulary, rng)]
  rng.shuffle(examples)
  with tf.io.TFRecordWriter(output) as writer:
    for example in examples:
      writer.write(serialize(example, tokenizer, int(length), int(most)))
  print(json.dumps({"seconds": time.perf_counter() - start,
                    "instances": len(examples)}))


if __name__ == "__main__":
  main(*sys.argv[1:])
