"""The tokenizer: WordPiece inside the graph, with the original's ids.

  tokenizer = BertTokenizer.from_file("vocab.txt", do_lower_case=True)
  batch = tokenizer(["a text", "another"], max_seq_length=128)

Words come from `bert_tf.words`; TensorFlow Text's `FastWordpieceTokenizer`
finds their pieces; `bert_tf.packing` makes the encoder's input of them.
Unicode is version 14.0, whatever the version of Python or TensorFlow.

Shapes: B texts, C characters of words, W words, P pieces of all texts, V
entries, S length of a sequence.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text

from bert_tf import packing
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.vocabulary_files import check_vocabulary
from bert_tf.vocabulary_files import find_casing
from bert_tf.vocabulary_files import read_vocabulary
from bert_tf.vocabulary_files import SPECIAL_TOKENS
from bert_tf.words import FIRST_SPECIAL
from bert_tf.words import Words
from bert_tf.words import WordSplitter

# A word of more characters is [UNK], as in the original.
MAX_WORD_LENGTH = 200

_TEXTS = tf.TensorSpec([None], tf.string)


class BertTokenizer(tf.Module):
  """From text to the ids of WordPiece pieces, as the original has them.

  Works on lists, eager tensors, in `tf.data` and in a SavedModel. Text is
  UTF-8; bytes that are not are dropped and hold nothing apart, as where the
  original decodes with errors="ignore".

  Attributes:
    vocabulary: the entries, a tuple of str; `vocab_size` of them.
    do_lower_case: whether text is lower-cased and loses its accents.
    pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.

  >>> entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##se"]
  >>> tokenizer = BertTokenizer(entries, do_lower_case=True)
  >>> tokenizer.tokenize(["These", "the cat"]).to_list()
  [[5, 6], [5, 1]]
  """

  def __init__(
      self,
      vocabulary: Sequence[str | bytes],
      *,
      do_lower_case: bool,
      source: str = "vocabulary",
  ):
    """Checks the entries; `source` names them in errors."""
    super().__init__()
    entries = tuple(
        entry.decode("utf-8") if isinstance(entry, bytes) else entry
        for entry in vocabulary)
    check_vocabulary(entries, source=source)
    # In a function, since a tf.Module would track each entry of a tuple.
    self._entries = lambda: entries
    self.vocab_size = len(entries)
    self.do_lower_case = bool(do_lower_case)
    self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
        entries.index(token) for token in SPECIAL_TOKENS)
    self._splitter = WordSplitter(do_lower_case=self.do_lower_case)
    # `no_pretokenization`: these are words already. The limit is on bytes,
    # out of reach, since the original counts characters.
    model = tensorflow_text.build_fast_wordpiece_model(
        list(entries), 1 << 30, "##", "[UNK]", True, False)
    with tf.device("CPU:0"):
      self._wordpiece_model = tf.constant(np.frombuffer(model, np.uint8))
      self._piece_lengths = tf.constant(_piece_lengths(entries))
      self._endings = tf.constant([
        entry[2:] if is_inside(entry) else " " + entry for entry in entries])

  @classmethod
  def from_file(
      cls, path: str, do_lower_case: bool | None = None
  ) -> "BertTokenizer":
    """The tokenizer of a vocabulary file, an entry a line, or tokenizer.json.

    `do_lower_case` None asks `tokenizer_config.json` and `tokenizer.json`
    beside the file, then the vocabulary itself (`find_casing`).

    Raises:
      InputError: as `read_vocabulary` and `find_casing`.
    """
    entries = read_vocabulary(path)
    if do_lower_case is None:
      do_lower_case = find_casing(path, entries)
    return cls(entries, do_lower_case=do_lower_case, source=path)

  @property
  def vocabulary(self) -> tuple[str, ...]:
    return self._entries()

  @property
  def special_ids(self) -> dict[str, int]:
    """The five special tokens with their ids."""
    return dict(zip(SPECIAL_TOKENS, (
      self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id)))

  @tf.autograph.experimental.do_not_convert
  def tokenize(
      self,
      texts: Sequence[str | bytes] | tf.Tensor,
      *,
      allow_special_tokens: bool = False,
  ) -> tf.RaggedTensor:
    """The ids of the pieces of each text, without [CLS] and [SEP].

    Args:
      texts: B strings.
      allow_special_tokens: a literal "[MASK]" (or [PAD], [UNK], [CLS], [SEP])
        becomes that token. Otherwise it is split like any text, as in the
        original, so that nobody's text can inject one.

    Returns:
      A RaggedTensor int32 [B, (pieces)].

    Raises:
      InputError: `texts` is not a vector of strings.
    """
    texts = _as_texts(texts, name="texts")
    if allow_special_tokens:
      return self._tokenize_with_special_tokens(texts)
    return self._tokenize(texts)

  @tf.autograph.experimental.do_not_convert
  def tokenize_with_offsets(
      self,
      texts: Sequence[str | bytes] | tf.Tensor,
      *,
      allow_special_tokens: bool = False,
  ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    """The ids, and the part of its text that each piece comes from.

    Piece k of text i comes from `texts[i][start[i, k]:end[i, k]]`, in bytes of
    the text as it was given, before anything was dropped, lower-cased or
    stripped. No range is empty or splits a character; a mark that is stripped
    is in the range of the character before it. Ranges are in order. Two of
    them overlap only where one character gave several pieces, which share it.
    [UNK] has the whole of its word.

    Args: as for `tokenize`.

    Returns:
      `ids`, `start` and `end`: RaggedTensors int32 [B, (pieces)].

    Raises:
      InputError: `texts` is not a vector of strings.

    >>> tokenizer = BertTokenizer(
    ...     [*SPECIAL_TOKENS, "cafe", "##s"], do_lower_case=True)
    >>> ids, start, end = tokenizer.tokenize_with_offsets([" Cafés"])
    >>> ids.to_list(), start.to_list(), end.to_list()
    ([[5, 6]], [[1, 6]], [[6, 7]])
    """
    texts = _as_texts(texts, name="texts")
    if allow_special_tokens:
      return self._tokenize_with_offsets_and_special_tokens(texts)
    return self._tokenize_with_offsets(texts)

  @tf.autograph.experimental.do_not_convert
  def detokenize(self, ids: tf.RaggedTensor | tf.Tensor) -> tf.Tensor:
    """The text of pieces: words with a space between, `##` pieces joined on.

    What tokenizing dropped (case, accents, white space, which punctuation
    stood free) is not known any more; special tokens are written out. With
    `allow_special_tokens` the result is tokenized to the same ids (texts that
    mix marks of several combining classes apart).

    Args:
      ids: integers [B, (pieces)], ragged or dense, from 0 to V - 1.

    Returns:
      string [B]

    Raises:
      InputError: `ids` is not of rank 2 or not of integers.

    >>> tokenizer = BertTokenizer(
    ...     [*SPECIAL_TOKENS, "cafe", "##s"], do_lower_case=True)
    >>> tokenizer.detokenize(tokenizer.tokenize(["Cafés café", ""])).numpy()
    array([b'cafes cafe', b''], dtype=object)
    """
    is_batch = isinstance(ids, (tf.RaggedTensor, tf.Tensor)) and (
        ids.shape.rank == 2 and ids.dtype.is_integer)
    require(is_batch, "ids: must be integers [B, (pieces)], a tensor or a "
            f"RaggedTensor; received {ids!r}.")
    if isinstance(ids, tf.RaggedTensor):
      flat, row, rows = ids.flat_values, ids.value_rowids(), ids.nrows()
    else:
      shape = tf.shape(ids)
      flat, rows = tf.reshape(ids, [-1]), shape[0]
      row = tf.repeat(tf.range(rows), shape[1])
    with tf.device("CPU:0"):
      joined = tf.strings.unsorted_segment_join(
          tf.gather(self._endings, flat), row, rows)
      return tf.strings.regex_replace(joined, "^ ", "")

  # One function each, over strings of any number: a SavedModel stores it, and
  # the WordPiece model that it captures, once, whatever calls it.
  @tf.function(input_signature=[_TEXTS], autograph=False)
  def _tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
    return self._ids(texts, allow_special_tokens=False)

  @tf.function(input_signature=[_TEXTS], autograph=False)
  def _tokenize_with_special_tokens(self, texts: tf.Tensor) -> tf.RaggedTensor:
    return self._ids(texts, allow_special_tokens=True)

  @tf.function(input_signature=[_TEXTS], autograph=False)
  def _tokenize_with_offsets(
      self, texts: tf.Tensor
  ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    return self._ids_and_ranges(texts, allow_special_tokens=False)

  @tf.function(input_signature=[_TEXTS], autograph=False)
  def _tokenize_with_offsets_and_special_tokens(
      self, texts: tf.Tensor
  ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    return self._ids_and_ranges(texts, allow_special_tokens=True)

  def _ids(
      self, texts: tf.Tensor, *, allow_special_tokens: bool
  ) -> tf.RaggedTensor:
    with tf.device("CPU:0"):
      # A scalar would pass for a batch in C++, and be answered.
      texts = tf.ensure_shape(texts, [None])
      words = self._splitter.split(
          texts, special_tokens=SPECIAL_TOKENS if allow_special_tokens else ())
      ids, word_splits = self._pieces(words)
      return tf.RaggedTensor.from_row_splits(
          ids, tf.gather(word_splits, words.text_starts), validate=False)

  def _ids_and_ranges(
      self, texts: tf.Tensor, *, allow_special_tokens: bool
  ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    with tf.device("CPU:0"):
      texts = tf.ensure_shape(texts, [None])
      words, sources = self._splitter.split_with_sources(
          texts, special_tokens=SPECIAL_TOKENS if allow_special_tokens else ())
      ids, word_splits = self._pieces(words)
      lengths = self._lengths(ids, word_splits, words)
      # Pieces tile their words, and words the characters.
      behind = tf.cumsum(lengths)  # [P]
      start, end = sources.byte_ranges(
          tf.gather(words.sources, behind - lengths),
          tf.gather(words.sources, behind - 1))
      text_splits = tf.gather(word_splits, words.text_starts)
      ids, start, end = (
        tf.RaggedTensor.from_row_splits(flat, text_splits, validate=False)
        for flat in (ids, start, end))
      return ids, start, end

  def _pieces(self, words: Words) -> tuple[tf.Tensor, tf.Tensor]:
    """Ids int32 [P], and the first piece of each word, then P: int64 [W + 1].
    """
    is_long = words.lengths() > MAX_WORD_LENGTH
    words = tf.cond(
        tf.reduce_any(is_long),
        lambda: _shorten(words, is_long), lambda: words)
    wordpiece = tensorflow_text.FastWordpieceTokenizer(
        model_buffer=self._wordpiece_model, token_out_type=tf.int32)
    pieces = wordpiece.tokenize(words.to_strings())  # [W, (pieces)]
    ids = tf.cond(
        tf.reduce_any(words.characters >= FIRST_SPECIAL),
        lambda: self._put_special_ids(pieces, words),
        lambda: pieces.flat_values)
    return ids, pieces.row_splits

  def _put_special_ids(
      self, pieces: tf.RaggedTensor, words: Words) -> tf.Tensor:
    """The flat ids, with those of characters that are special tokens.

    Such a character is a word, and a word of one character is one piece.
    """
    first = tf.gather(words.characters, words.word_starts[:-1])  # [W]
    is_special = first >= FIRST_SPECIAL
    special_ids = tf.gather(
        list(self.special_ids.values()),
        tf.boolean_mask(first, is_special) - FIRST_SPECIAL)
    places = tf.boolean_mask(pieces.row_splits[:-1], is_special)
    return tf.tensor_scatter_nd_update(
        pieces.flat_values, places[:, None], special_ids)

  def _lengths(
      self, ids: tf.Tensor, word_splits: tf.Tensor, words: Words
  ) -> tf.Tensor:
    """How many characters of its word each piece takes: int32 [P].

    Zero in the table stands for special tokens, which take their whole word.
    """
    lengths = tf.cast(tf.gather(self._piece_lengths, ids), tf.int32)
    whole = tf.where(tf.equal(lengths, 0))
    word = tf.searchsorted(word_splits, whole[:, 0])
    return tf.tensor_scatter_nd_update(
        lengths, whole,
        tf.cast(tf.gather(words.lengths(), word), tf.int32))

  @tf.autograph.experimental.do_not_convert
  def __call__(
      self,
      texts: Sequence[str | bytes] | tf.Tensor,
      text_pairs: Sequence[str | bytes] | tf.Tensor | None = None,
      *,
      max_seq_length: int | None = None,
      truncation: str = "longest_first",
      pad_to_max_length: bool = False,
      pad_to_multiple_of: int | None = None,
  ) -> dict[str, tf.Tensor]:
    """The input of the encoder: [CLS] a [SEP], or [CLS] a [SEP] b [SEP].

    Args: `texts` and `text_pairs` are B strings each; the rest as in `pack`.

    Returns:
      `input_ids`, `input_mask`, `segment_ids`: int32 [B, S], as from `pack`.

    >>> tokenizer = BertTokenizer(
    ...     [*SPECIAL_TOKENS, "what", "cats"], do_lower_case=True)
    >>> tokenizer(["What"], ["Cats cats"])["input_ids"].numpy().tolist()
    [[2, 5, 3, 6, 6, 3]]
    """
    ids_b = None
    if text_pairs is not None:
      texts = _as_texts(texts, name="texts")
      text_pairs = _as_texts(text_pairs, name="text_pairs")
      _check_equal_sizes(texts, text_pairs)
      ids_b = self.tokenize(text_pairs)
    return self.pack(
        self.tokenize(texts), ids_b, max_seq_length=max_seq_length,
        truncation=truncation, pad_to_max_length=pad_to_max_length,
        pad_to_multiple_of=pad_to_multiple_of)

  @tf.autograph.experimental.do_not_convert
  def pack(
      self,
      ids_a: tf.RaggedTensor,
      ids_b: tf.RaggedTensor | None = None,
      *,
      max_seq_length: int | None = None,
      truncation: str = "longest_first",
      pad_to_max_length: bool = False,
      pad_to_multiple_of: int | None = None,
  ) -> dict[str, tf.Tensor]:
    """[CLS] a [SEP], or [CLS] a [SEP] b [SEP], truncated and padded.

    Args:
      ids_a: integers [B, (pieces)], as `tokenize` gives them.
      ids_b: the same for the second segment.
      max_seq_length: the greatest S, special tokens included. None: no limit.
      truncation: what becomes of a pair that is too long. "longest_first", as
        in the original's classification tasks: pieces go one by one from the
        end of the longer of the two, of b if they are equal. "only_second",
        as in its SQuAD: b is cut and a kept whole.
      pad_to_max_length: S is `max_seq_length`. Otherwise it is the length of
        the longest sequence of the batch.
      pad_to_multiple_of: S is the next multiple of this instead.

    Returns:
      int32 [B, S] each: `input_ids`; `input_mask`, 1 = token, 0 = padding;
      `segment_ids`, 1 for b and its [SEP].

    Raises:
      InputError: `max_seq_length` has no room for a piece, an argument has
        another type or value, or a and b are not equally many.
      tf.errors.InvalidArgumentError: "only_second", and a alone is too long.
    """
    return packing.pack(
        ids_a, ids_b, special_ids=self._packing_ids,
        max_seq_length=max_seq_length, truncation=truncation,
        pad_to_max_length=pad_to_max_length,
        pad_to_multiple_of=pad_to_multiple_of)

  @tf.autograph.experimental.do_not_convert
  def pack_windows(
      self,
      ids_a: tf.RaggedTensor,
      ids_b: tf.RaggedTensor | None = None,
      *,
      max_seq_length: int = 384,
      doc_stride: int = 128,
      max_query_length: int = 64,
      pad_to_max_length: bool = False,
      pad_to_multiple_of: int | None = None,
  ) -> packing.Windows:
    """Windows over long rows, each packed with the question before it.

    With `ids_b`, a window is [CLS] a [SEP] part-of-b [SEP]; without,
    [CLS] part-of-a [SEP]. The windows of a row begin `doc_stride` pieces apart
    (closer, if a window holds fewer), each as long as fits, and the last ends
    with the row: the spans of the original's SQuAD code. A row without pieces
    has one window.

    Args:
      ids_a, ids_b: integers [B, (pieces)], as `tokenize` gives them.
      max_seq_length: the greatest S, special tokens included.
      doc_stride: pieces from the start of a window to that of the next.
      max_query_length: where there is a b, a is cut to so many pieces.
      pad_to_max_length, pad_to_multiple_of: as in `pack`.

    Returns:
      A `packing.Windows`: the `inputs` of all windows, [W, S] each, and for
      each window its `example` (row), the `start` and `size` of its part, and
      the `position` of that part in the sequence. Piece k of the row is at
      position + k - start.

    Raises:
      InputError: as in `pack`.

    >>> tokenizer = BertTokenizer(
    ...     [*SPECIAL_TOKENS, "q", "a", "b", "c", "d"], do_lower_case=True)
    >>> windows = tokenizer.pack_windows(
    ...     tokenizer.tokenize(["q"]), tokenizer.tokenize(["a b c d"]),
    ...     max_seq_length=7, doc_stride=2, max_query_length=1)
    >>> windows.inputs["input_ids"].numpy().tolist()
    [[2, 5, 3, 6, 7, 8, 3], [2, 5, 3, 8, 9, 3, 0]]
    >>> windows.start.numpy().tolist()
    [0, 2]
    """
    return packing.pack_windows(
        ids_a, ids_b, special_ids=self._packing_ids,
        max_seq_length=max_seq_length, doc_stride=doc_stride,
        max_query_length=max_query_length,
        pad_to_max_length=pad_to_max_length,
        pad_to_multiple_of=pad_to_multiple_of)

  @property
  def _packing_ids(self) -> packing.SpecialIds:
    return packing.SpecialIds(self.pad_id, self.cls_id, self.sep_id)


def is_inside(entry: str) -> bool:
  """Whether an entry is a piece inside a word."""
  return entry.startswith("##") and len(entry) > 2


def _piece_lengths(entries: Sequence[str]) -> np.ndarray:
  """Characters in each piece, uint8 [V]: 0 for special tokens.

  An entry that is longer than words can be is never a piece.
  """
  return np.array([
    0 if entry in SPECIAL_TOKENS
    else min(len(entry) - 2 * is_inside(entry), 255)
    for entry in entries], np.uint8)


def _as_texts(texts: Any, *, name: str) -> tf.Tensor:
  """A string tensor of rank 1, or of unknown rank inside a graph."""
  try:
    texts = tf.convert_to_tensor(texts, tf.string)
  except (TypeError, ValueError) as error:
    raise InputError(
        f"{name}: must be a list of strings or a vector of strings; received "
        f"{type(texts).__name__}: {error}.") from None
  require(texts.shape.rank in (1, None), f"{name}: must be a list of strings "
          f"or a vector of strings; received shape {texts.shape}. Put a "
          "single text in a list; batch a dataset before tokenizing.")
  return tf.ensure_shape(texts, [None])


def _check_equal_sizes(texts: tf.Tensor, text_pairs: tf.Tensor) -> None:
  message = "texts and text_pairs: must be equally many"
  size, size_of_pairs = texts.shape[0], text_pairs.shape[0]
  if size is None or size_of_pairs is None:
    tf.debugging.assert_equal(
        tf.size(texts), tf.size(text_pairs), message=message)
    return
  require(size == size_of_pairs,
          f"{message}; received {size} and {size_of_pairs}.")


def _shorten(words: Words, is_long: tf.Tensor) -> Words:
  """Puts [UNK], as one character, in place of each word that is too long.

  The result has no sources, which it does not need.
  """
  unknown = FIRST_SPECIAL + SPECIAL_TOKENS.index("[UNK]")
  word = tf.repeat(tf.range(tf.size(is_long)), words.lengths())  # [C]
  is_long_here = tf.gather(is_long, word)
  is_first = tf.concat([[True], word[1:] != word[:-1]], axis=0)
  lengths = tf.where(is_long, tf.ones_like(words.lengths()), words.lengths())
  return words._replace(
      characters=tf.boolean_mask(
          tf.where(is_long_here, unknown, words.characters),
          is_first | ~is_long_here),
      word_starts=tf.concat([[0], tf.cumsum(lengths)], axis=0))
