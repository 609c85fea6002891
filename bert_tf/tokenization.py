"""The tokenizer: WordPiece inside the graph, with the original's ids.

  tokenizer = BertTokenizer.from_file("vocab.txt", do_lower_case=True)
  batch = tokenizer(["a text", "another"], max_seq_length=128)

Words come from `bert_tf.words`; TensorFlow Text's `FastWordpieceTokenizer`
finds their pieces. Unicode is version 14.0, whatever the version of Python or
TensorFlow.

Shapes: B texts, W words, S length of a sequence.
"""

from collections.abc import Sequence
import os
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text

from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.words import FIRST_SPECIAL
from bert_tf.words import Words
from bert_tf.words import WordSplitter

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENIZER_CONFIG = "tokenizer_config.json"

# A word of more characters is [UNK], as in the original.
MAX_WORD_LENGTH = 200

_TEXTS = tf.TensorSpec([None], tf.string)


def check_vocabulary(entries: Sequence[str], *, source: str) -> None:
  """Raises `InputError`, with the line, if this is not a BERT vocabulary."""
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
  missing = [token for token in SPECIAL_TOKENS if token not in first_line]
  require(not missing, f"{source}: not a BERT vocabulary: {', '.join(missing)} "
          f"missing among its {len(entries)} entries.")


def read_vocabulary(path: str) -> list[str]:
  """The entries of a vocabulary file, checked.

  Lines end at "\\n" alone: the released Chinese vocabulary holds U+2028.

  Raises:
    InputError: no such file, not UTF-8, a byte order mark, CR LF, an empty or
      a repeated line, a special token missing. It names the file and line.
  """
  try:
    with open(path, "rb") as file:
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
  path = os.path.join(os.path.dirname(vocab_file), TOKENIZER_CONFIG)
  if os.path.exists(path):
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


class BertTokenizer(tf.Module):
  """From text to the ids of WordPiece pieces, as the original has them.

  Works on lists, eager tensors, in `tf.data` and in a SavedModel. Text is
  UTF-8; bytes that are not are dropped.

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

  @classmethod
  def from_file(
      cls, path: str, do_lower_case: bool | None = None
  ) -> "BertTokenizer":
    """The tokenizer of a vocabulary file, an entry a line.

    `do_lower_case` None asks `tokenizer_config.json` beside the file, then
    the vocabulary itself (`find_casing`).

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

  # One function each, over strings of any number: a SavedModel stores it, and
  # the WordPiece model that it captures, once, whatever calls it.
  @tf.function(input_signature=[_TEXTS], autograph=False)
  def _tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
    return self._pieces(texts, allow_special_tokens=False)

  @tf.function(input_signature=[_TEXTS], autograph=False)
  def _tokenize_with_special_tokens(self, texts: tf.Tensor) -> tf.RaggedTensor:
    return self._pieces(texts, allow_special_tokens=True)

  def _pieces(
      self, texts: tf.Tensor, *, allow_special_tokens: bool
  ) -> tf.RaggedTensor:
    with tf.device("CPU:0"):
      # The kernels below kill the process if they are given a scalar.
      texts = tf.ensure_shape(texts, [None])
      words = self._splitter.split(
          texts, special_tokens=SPECIAL_TOKENS if allow_special_tokens else ())
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
      return tf.RaggedTensor.from_row_splits(
          ids, tf.gather(pieces.row_splits, words.text_starts),
          validate=False)

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

  @tf.autograph.experimental.do_not_convert
  def __call__(
      self,
      texts: Sequence[str | bytes] | tf.Tensor,
      text_pairs: Sequence[str | bytes] | tf.Tensor | None = None,
      *,
      max_seq_length: int | None = None,
      pad_to_max_length: bool = False,
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
        pad_to_max_length=pad_to_max_length)

  @tf.autograph.experimental.do_not_convert
  def pack(
      self,
      ids_a: tf.RaggedTensor,
      ids_b: tf.RaggedTensor | None = None,
      *,
      max_seq_length: int | None = None,
      pad_to_max_length: bool = False,
  ) -> dict[str, tf.Tensor]:
    """[CLS] a [SEP], or [CLS] a [SEP] b [SEP], truncated and padded.

    What is too long loses pieces at its end, one by one from the longer of
    the two, from b if they are equal.

    Args:
      ids_a: integers [B, (pieces)], as `tokenize` gives them.
      ids_b: the same for the second segment.
      max_seq_length: the greatest S, special tokens included. None: no limit.
      pad_to_max_length: S is `max_seq_length`. Otherwise it is the length of
        the longest sequence of the batch.

    Returns:
      int32 [B, S] each: `input_ids`; `input_mask`, 1 = token, 0 = padding;
      `segment_ids`, 1 for b and its [SEP].

    Raises:
      InputError: `max_seq_length` has no room for a piece.
    """
    specials = 2 if ids_b is None else 3
    if max_seq_length is None:
      require(not pad_to_max_length,
              "pad_to_max_length: needs max_seq_length, which is None.")
    else:
      require(max_seq_length > specials, f"max_seq_length: received "
              f"{max_seq_length}; {specials} special tokens and a piece need "
              f"at least {specials + 1}.")
    flat_a, starts_a, size_a = _flatten(ids_a, name="ids_a")
    if ids_b is None:
      flat_b, starts_b, size_b = flat_a, starts_a, tf.zeros_like(size_a)
    else:
      flat_b, starts_b, size_b = _flatten(ids_b, name="ids_b")
    if max_seq_length is not None:
      size_a, size_b = truncated_sizes(
          size_a, size_b, room=max_seq_length - specials)
    size = size_a + size_b + specials  # [B, 1]
    length = max_seq_length if pad_to_max_length else tf.reduce_max(
        tf.concat([size[:, 0], [specials]], axis=0))
    place = tf.range(length)[None, :]  # [1, S]
    start_b = size_a + 2
    is_b = (place >= start_b) & (place < size) & (ids_b is not None)
    input_ids = tf.where(
        is_b, _take(flat_b, starts_b + place - start_b),
        _take(flat_a, starts_a + place - 1))
    is_separator = (place == size_a + 1) | (place == size - 1)
    for is_token, token_id in (
        (is_separator, self.sep_id), (place == 0, self.cls_id),
        (place >= size, self.pad_id)):
      input_ids = tf.where(is_token, token_id, input_ids)
    return {
      "input_ids": input_ids,
      "input_mask": tf.cast(place < size, tf.int32),
      "segment_ids": tf.cast(is_b, tf.int32),
    }


def truncated_sizes(
    size_a: tf.Tensor, size_b: tf.Tensor, *, room: int
) -> tuple[tf.Tensor, tf.Tensor]:
  """How much of each is left if the longer one gives way, b on a tie.

  The original takes one piece at a time; this is where that ends.

  >>> [int(size) for size in truncated_sizes(7, 3, room=8)]
  [5, 3]
  """
  kept_a = tf.minimum(size_a, tf.maximum((room + 1) // 2, room - size_b))
  return kept_a, tf.minimum(size_b, room - kept_a)


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


def _flatten(
    ids: tf.RaggedTensor, *, name: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """All ids in one vector, and start and size of each row: int32 [B, 1]."""
  require(isinstance(ids, tf.RaggedTensor), f"{name}: must be a RaggedTensor, "
          f"as from tokenize; received {type(ids).__name__}.")
  splits = tf.cast(ids.row_splits, tf.int32)
  flat = tf.cast(ids.flat_values, tf.int32)
  return flat, splits[:-1, None], (splits[1:] - splits[:-1])[:, None]


def _take(flat: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
  """`flat` at these places; anything where they lie outside."""
  flat = tf.concat([flat, [0]], axis=0)
  return tf.gather(flat, tf.clip_by_value(places, 0, tf.size(flat) - 1))


def _shorten(words: Words, is_long: tf.Tensor) -> Words:
  """Puts [UNK], as one character, in place of each word that is too long."""
  unknown = FIRST_SPECIAL + SPECIAL_TOKENS.index("[UNK]")
  word = tf.repeat(tf.range(tf.size(is_long)), words.lengths())  # [C]
  is_long_here = tf.gather(is_long, word)
  is_first = tf.concat([[True], word[1:] != word[:-1]], axis=0)
  kept = is_first | ~is_long_here
  lengths = tf.where(is_long, tf.ones_like(words.lengths()), words.lengths())
  return words._replace(
      characters=tf.boolean_mask(
          tf.where(is_long_here, unknown, words.characters), kept),
      word_starts=tf.concat([[0], tf.cumsum(lengths)], axis=0),
      sources=tf.boolean_mask(words.sources, kept))
