"""The vectors of an encoder for texts, without training it further.

As the original's extract_features.py, for the feature-based approach of
Devlin et al. 2019, section 5.3. Texts of about the same length go together,
and what comes out is in the order of the texts.

Shapes: B texts in a batch, S sequence length, R texts of a pool, P their
pieces, L layers, H hidden size.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf.config import BertConfig
from bert_tf.config import require
from bert_tf.data import feature_files
from bert_tf.data.text_files import read_lines
from bert_tf.data.text_files import size_on_disk
from bert_tf.examples import Examples
from bert_tf.examples import make_batches_of
from bert_tf.examples import without_padding
from bert_tf.feature_arguments import EMBEDDINGS
from bert_tf.feature_arguments import FeatureConfig
from bert_tf.modeling import BertEncoder
from bert_tf.progress import Progress
from bert_tf.tokenization import BertTokenizer

# Bytes of values that a pool may hold, about.
_MOST_BYTES = 1 << 28
_BETWEEN = " ||| "
# Batches that are read ahead and sorted by length together.
POOL = 64


def split_pair(line: str) -> tuple[str, str]:
  """A line as a text and its pair, "" where it is a single text.

  As in the original: without white space around it, and at the last " ||| ".

  >>> split_pair(" who? ||| he "), split_pair("a | b")
  (('who?', 'he'), ('a | b', ''))
  """
  line = line.strip()
  first, between, second = line.rpartition(_BETWEEN)
  return (first, second) if between else (line, "")


def find_layer(layer: int | str, num_layers: int) -> int:
  """The place of a layer in the encoder's `hidden_states`.

  Args:
    layer: "embeddings", or as the original counts, from 0 for the first layer
      above the embeddings, or from -1 for the last one downwards.
    num_layers: of the encoder.

  Raises:
    InputError: the encoder has no such layer.

  >>> [find_layer(layer, 12) for layer in ("embeddings", 0, 11, -1, -12)]
  [0, 1, 12, 12, 1]
  """
  if layer == EMBEDDINGS:
    return 0
  require(
      -num_layers <= layer < num_layers,
      f"--layers: received {layer}; the model has {num_layers} layers: 0 to "
      f"{num_layers - 1}, or -1 to {-num_layers} from the last one, or "
      f"{EMBEDDINGS}.")
  return 1 + layer % num_layers


def mean_of_pieces(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  """The mean over the pieces of each text, [CLS] and [SEP] too: [B, H].

  Args:
    values: [B, S, H].
    mask: [B, S], 1 = piece, 0 = padding.

  >>> mean_of_pieces(
  ...     tf.constant([[[1.0], [3.0], [9.0]]]), tf.constant([[1, 1, 0]])
  ... ).numpy().tolist()
  [[2.0]]
  """
  weights = tf.cast(mask, values.dtype)[:, :, None]
  return tf.reduce_sum(weights * values, axis=1) / tf.reduce_sum(
      weights, axis=1)


def _greatest(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  hidden = tf.where(mask[:, :, None] > 0, values, values.dtype.min)
  return tf.reduce_max(hidden, axis=1)


# (values [B, S, H], mask [B, S]) -> [B, H], or [pieces of the batch, H].
POOLINGS = {
  "none": lambda values, mask: tf.boolean_mask(values, mask > 0),
  "cls": lambda values, mask: values[:, 0],
  "mean": mean_of_pieces,
  "max": _greatest,
}


def check_pooling(pooling: str, config: BertConfig) -> None:
  """Raises `InputError` where such a model's vectors would say nothing."""
  require(
      pooling != "cls" or not config.is_causal,
      "--pooling: received cls, but this model attends from left to right, so "
      "that [CLS] has seen no text; use mean or max.")


def _make_function(
    encoder: BertEncoder, layers: Sequence[int | str], pooling: str
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
  """(inputs [B, S]) -> [B, L, H], or [pieces of the batch, L, H]."""
  places = [
    find_layer(layer, encoder.config.num_hidden_layers) for layer in layers]
  check_pooling(pooling, encoder.config)
  spec = tf.TensorSpec([None, None], tf.int32)

  @tf.function(input_signature=[{
    name: spec for name in ("input_ids", "input_mask", "segment_ids")}])
  @tf.autograph.experimental.do_not_convert
  def function(inputs):
    states = encoder(
        inputs, training=False, output_hidden_states=True)["hidden_states"]
    return tf.stack([
      tf.cast(POOLINGS[pooling](states[place], inputs["input_mask"]),
              tf.float32)
      for place in places], axis=1)

  return function


def _tokenize(
    tokenizer: BertTokenizer, pairs: list[tuple[str, str]],
    max_seq_length: int
) -> tuple[dict[str, tf.RaggedTensor], int]:
  """`Examples.pieces` of texts and pairs, and how many were cut.

  A second text without a piece is none, as in the original: it has no [SEP].
  """
  ids_a = tokenizer.tokenize([first for first, _ in pairs])
  ids_b = tokenizer.tokenize([second for _, second in pairs])
  size_b = ids_b.row_lengths()
  size = ids_a.row_lengths() + size_b + 2 + tf.cast(size_b > 0, tf.int64)
  parts, places = [], []
  for chosen in (size_b == 0, size_b > 0):
    rows = tf.where(chosen)[:, 0]
    if len(rows):
      is_pair = bool(size_b[rows[0]] > 0)
      parts.append(without_padding(tokenizer.pack(
          tf.gather(ids_a, rows), tf.gather(ids_b, rows) if is_pair else None,
          max_seq_length=max_seq_length)))
      places.append(rows)
  order = tf.argsort(tf.concat(places, axis=0))
  pieces = {
    name: tf.gather(tf.concat([part[name] for part in parts], axis=0), order)
    for name in parts[0]}
  return pieces, int(tf.reduce_sum(tf.cast(size > max_seq_length, tf.int32)))


def _compute_pool(
    function: Callable, pieces: dict[str, tf.RaggedTensor], *,
    shape: tuple[int, int], is_pooled: bool, batch_size: int,
    max_seq_length: int, pad_to_max_length: bool
) -> feature_files.Pool:
  """The features of a pool: batches by length, results in the old order."""
  batch_of = make_batches_of(
      Examples(pieces, {}), max_seq_length=max_seq_length,
      pad_to_max_length=pad_to_max_length)
  splits = pieces["input_ids"].row_splits.numpy()
  lengths = np.diff(splits)
  values = np.empty(
      (len(lengths) if is_pooled else splits[-1], *shape), np.float32)
  order = np.argsort(-lengths, kind="stable")
  for start in range(0, len(order), batch_size):
    rows = order[start:start + batch_size]
    found = function(batch_of(tf.constant(rows))).numpy()
    values[rows if is_pooled else np.concatenate(
        [np.arange(splits[row], splits[row + 1]) for row in rows])] = found
  return feature_files.Pool(
      pieces["input_ids"].flat_values.numpy(), splits, values)


def _small_enough(
    pieces: dict[str, tf.RaggedTensor], most: int
) -> Iterator[dict[str, tf.RaggedTensor]]:
  """Consecutive rows that have about `most` pieces together."""
  ends = pieces["input_ids"].row_splits.numpy()[1:]
  starts = np.flatnonzero(np.diff((ends - 1) // most, prepend=-1))
  for start, end in zip(starts, [*starts[1:], len(ends)]):
    yield {name: x[start:end] for name, x in pieces.items()}


def extract(
    lines: Iterable[str], encoder: BertEncoder, tokenizer: BertTokenizer, *,
    layers: Sequence[int | str] = (-1, -2, -3, -4), pooling: str = "none",
    max_seq_length: int = 128, batch_size: int = 32,
    pad_to_max_length: bool = False
) -> Iterator[feature_files.Pool]:
  """The features of all lines, in their order, some thousands at a time.

  What is read ahead, and what is kept, does not grow with the lines.

  Args:
    lines: a text each, or a pair, as `split_pair` reads it.
    encoder: as it is; there is no dropout.
    tokenizer: of its vocabulary.
    layers: as `find_layer` takes them.
    pooling: "none": a vector for each piece and layer. "cls": that of [CLS];
      "mean", "max": over all pieces of a text, [CLS] and [SEP] among them.
    max_seq_length: the most pieces of a text; what is cut is counted in the
      log.
    batch_size: B.
    pad_to_max_length: S is `max_seq_length`. False: the next multiple of 16
      of the longest in the batch.

  Yields:
    A `feature_files.Pool`.

  Raises:
    InputError: the encoder has no such layer, or its [CLS] sees no text.
  """
  function = _make_function(encoder, layers, pooling)
  is_pooled = pooling != "none"
  shape = len(layers), encoder.config.hidden_size
  most = max(_MOST_BYTES // (4 * shape[0] * shape[1]), 1)
  lines, count, cut = iter(lines), 0, 0
  while texts := list(itertools.islice(lines, POOL * batch_size)):
    pieces, number = _tokenize(
        tokenizer, list(map(split_pair, texts)), max_seq_length)
    count, cut = count + len(texts), cut + number
    for part in [pieces] if is_pooled else _small_enough(pieces, most):
      yield _compute_pool(
          function, part, shape=shape, is_pooled=is_pooled,
          batch_size=batch_size, max_seq_length=max_seq_length,
          pad_to_max_length=pad_to_max_length)
  if cut:
    logging.info(
        "%d of %d texts (%.1f %%) are longer than %d pieces and were cut.",
        cut, count, 100 * cut / count, max_seq_length)


def _load(config: FeatureConfig) -> tuple[BertEncoder, BertTokenizer]:
  """The model, which must have all but, perhaps, the pooler."""
  source = checkpoints.open_source(config.init_checkpoint)
  bert_config = checkpoints.find_config(
      source, config_file=config.bert_config_file,
      max_seq_length=config.max_seq_length)
  tokenizer = checkpoints.find_tokenizer(
      source, bert_config, vocab_file=config.vocab_file,
      do_lower_case=config.do_lower_case, config_file=config.bert_config_file)
  encoder = BertEncoder(bert_config)
  # No feature comes from the pooler.
  checkpoints.load_weights(encoder, source, new=("bert/pooler/",))
  return encoder, tokenizer


def run(config: FeatureConfig) -> None:
  """Writes the features of a file of texts.

  Raises:
    InputError: no text, no model, no vocabulary, no such layer, or a file
      that cannot be read or written.
  """
  size = size_on_disk([config.input_file])
  counts = collections.Counter()
  lines = read_lines(
      config.input_file, on_bad_utf8=config.on_bad_utf8, counts=counts)
  first = next(lines, None)
  require(
      first is not None,
      f"{config.input_file}: is empty; it must hold a text a line.")
  encoder, tokenizer = _load(config)
  progress = Progress("Extracting", unit="texts")

  def pools():
    for pool in extract(
        itertools.chain([first], lines), encoder, tokenizer,
        layers=config.layer_indices, pooling=config.pooling,
        max_seq_length=config.max_seq_length, batch_size=config.batch_size):
      yield pool
      counts["texts"] += len(pool.row_splits) - 1
      progress.update(
          counts["texts"], share=size and counts["bytes_read"] / size)

  feature_files.WRITERS[config.format](
      config.output_file, pools(), feature_files.Form(
          config.layer_indices, tokenizer.vocabulary,
          config.pooling != "none"))
  logging.info(
      "Wrote the features of %d texts to %s.", counts["texts"],
      config.output_file)
