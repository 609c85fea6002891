"""From text to words inside the graph, exactly as the original does it.

The steps of the original's basic tokenizer: controls are dropped, CJK
characters become words of their own, white space separates; if lower-casing,
each word is lower-cased, decomposed and loses its nonspacing marks; then every
punctuation character becomes a word of its own.

Here they are one table lookup for each code point and arithmetic on the
results. No case folding, normalisation or regular expression of TensorFlow's
is involved, since each of them follows another version of Unicode; the table
(`bert_tf.unicode_tables`) travels inside the graph.

Shapes: B texts, N characters in all of them, W words, C characters of words.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_tf import unicode_tables

# What is known of a character: what it becomes in the low 21 bits (nothing,
# if DROP; itself, if EXPAND) and what to do with it in these.
CODE_POINT = (1 << 21) - 1
SPACE = 1 << 21  # separates words
ISOLATED = 1 << 22  # is a word of its own
DROP = 1 << 23  # leaves no trace
EXPAND = 1 << 24  # becomes several characters
SIGMA = 1 << 25  # capital sigma: depends on its neighbours
REORDER = 1 << 26  # takes part in canonical ordering
BREAK = 1 << 27  # dropped, but ends a run of canonical ordering
CASED = 1 << 28
CASE_IGNORABLE = 1 << 29
ATTACHED = 1 << 30  # dropped, but in the range of the character before it
IRREGULAR = DROP | EXPAND | SIGMA | REORDER

# Characters from here on stand for special tokens. Unicode ends below.
FIRST_SPECIAL = 0x110000

_PAGE = 256
_HANGUL_FIRST, _HANGUL_COUNT = 0xAC00, 11172
_FINAL_SIGMA = 0x3C2
_ATTACHED_TAIL = DROP | ATTACHED

# The blocks that the original calls CJK.
_CJK = (
  (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF),
  (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
  (0x2F800, 0x2FA1F),
)


class Words(NamedTuple):
  """The words of a batch of texts, as code points."""

  characters: tf.Tensor  # int32 [C]
  word_starts: tf.Tensor  # int64 [W + 1]: the first character of each, then C
  text_starts: tf.Tensor  # int64 [B + 1]: the first word of each, then W
  sources: tf.Tensor  # int32 [C]: place among the N characters given

  def lengths(self) -> tf.Tensor:
    """Characters in each word: int64 [W]."""
    return self.word_starts[1:] - self.word_starts[:-1]

  def to_strings(self) -> tf.Tensor:
    """The words in UTF-8: string [W]."""
    return tf.strings.unicode_encode(
        tf.RaggedTensor.from_row_splits(
            self.characters, self.word_starts, validate=False), "UTF-8")


class Sources(NamedTuple):
  """Where the N decoded characters of a batch stand in its texts.

  Character i begins at byte `starts[i]` of its text and ends where the next
  one begins (a line feed, as the last of each text, sees to that). What is
  attached to it ends with character `last_attached[i]`.
  """

  starts: tf.Tensor  # int64 [N]
  last_attached: tf.Tensor  # int32 [N]: i, if nothing is attached

  def byte_ranges(
      self, first: tf.Tensor, last: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """First byte, and byte behind the last, of runs of characters: int32."""
    end = tf.gather(self.last_attached, last) + 1
    return (tf.cast(tf.gather(self.starts, first), tf.int32),
            tf.cast(tf.gather(self.starts, end), tf.int32))


def _mark(table: np.ndarray, ranges, flag: int) -> None:
  for first, last in ranges:
    table[first:last + 1] |= flag


@functools.lru_cache(maxsize=2)
def character_table(do_lower_case: bool) -> tuple[np.ndarray, np.ndarray]:
  """`pages` [4352] and `rows`, int32.

  What is known of a character c is `c + rows[pages[c >> 8] + (c & 255)]`: most
  pages have nothing to add, and rows that are equal are stored once.
  """
  code_points = np.arange(FIRST_SPECIAL, dtype=np.int32)
  table = code_points.copy()
  if do_lower_case:
    for start, targets in unicode_tables.FOLDED:
      table[start:start + len(targets)] = [ord(c) for c in targets]
  # Punctuation is what a character has become; CJK, what it was.
  flags = np.zeros_like(table)
  _mark(flags, unicode_tables.PUNCTUATION, ISOLATED)
  flags = flags[table]
  _mark(flags, _CJK, ISOLATED)
  _mark(flags, unicode_tables.WHITE_SPACE, SPACE)
  _mark(flags, unicode_tables.DROPPED, DROP)
  if do_lower_case:
    _mark(flags, unicode_tables.STRIPPED, _ATTACHED_TAIL)
    _mark(flags, unicode_tables.BREAKING_MARKS, BREAK)
    _mark(flags, unicode_tables.CASED, CASED)
    _mark(flags, unicode_tables.CASE_IGNORABLE, CASE_IGNORABLE)
    _mark(flags, ((0x3A3, 0x3A3),), SIGMA)
    _mark(
        flags, ((c, c) for c, _ in unicode_tables.COMBINING_CLASSES), REORDER)
    _mark(flags, ((c, c) for c, _ in unicode_tables.EXPANDED), EXPAND)
    flags[_HANGUL_FIRST:_HANGUL_FIRST + _HANGUL_COUNT] |= EXPAND
  rows, row_of_page = np.unique(
      ((table | flags) - code_points).reshape(-1, _PAGE), axis=0,
      return_inverse=True)
  return (row_of_page.reshape(-1) * _PAGE).astype(np.int32), rows.reshape(-1)


def _end_lines(texts: tf.Tensor) -> tf.Tensor:
  """A line feed after each text keeps neighbours apart: nothing crosses it."""
  return tf.strings.join([texts, "\n"])


def _find(mask: tf.Tensor) -> tf.Tensor:
  """The places where a vector is true: int64 [...]."""
  return tf.where(mask)[:, 0]


def _has(entries: tf.Tensor, flag: int) -> tf.Tensor:
  return tf.not_equal(tf.bitwise.bitwise_and(entries, flag), 0)


def _replace(
    values: tf.Tensor, places: tf.Tensor, updates: tf.Tensor) -> tf.Tensor:
  return tf.tensor_scatter_nd_update(values, places[:, None], updates)


class WordSplitter(tf.Module):
  """Splits text into normalised words; call `split` inside a tf.function."""

  def __init__(self, *, do_lower_case: bool):
    super().__init__()
    self.do_lower_case = do_lower_case
    pages, rows = character_table(do_lower_case)
    # Eager constants, so that every function of a SavedModel shares one copy.
    with tf.device("CPU:0"):
      self._pages = tf.constant(pages)
      self._rows = tf.constant(rows)

  def split(
      self,
      texts: tf.Tensor,
      *,
      special_tokens: Sequence[str] = (),
  ) -> Words:
    """The words of `texts`, a string [B] in UTF-8.

    Bytes that are not UTF-8 are dropped, as U+FFFD is.

    Args:
      texts: string [B].
      special_tokens: literals that stay whole, such as "[MASK]": each is a
        word of one character, `FIRST_SPECIAL` plus its place in this list.
    """
    decoded = tf.strings.unicode_decode(
        _end_lines(texts), "UTF-8", errors="replace")
    entries = self._entries(decoded.flat_values, special_tokens)
    return self._split(entries, decoded.row_splits)

  def split_with_sources(
      self,
      texts: tf.Tensor,
      *,
      special_tokens: Sequence[str] = (),
  ) -> tuple[Words, Sources]:
    """The words, as from `split`, and where their characters come from.

    A mark that is stripped is attached to the character before it, whatever
    was dropped between them, unless that is white space. Canonical ordering
    permutes characters, not their places: sources never decrease.
    """
    decoded, starts = tf.strings.unicode_decode_with_offsets(
        _end_lines(texts), "UTF-8", errors="replace")
    entries = self._entries(decoded.flat_values, special_tokens)
    last_attached = tf.range(tf.size(entries))
    if self.do_lower_case or special_tokens:
      last_attached = tf.cond(
          tf.reduce_any(_has(entries, ATTACHED)),
          lambda: _attach(entries, last_attached), lambda: last_attached)
    return (self._split(entries, decoded.row_splits),
            Sources(starts.flat_values, last_attached))

  def _entries(
      self, code_points: tf.Tensor, special_tokens: Sequence[str]
  ) -> tf.Tensor:
    """What is known of each decoded character: int32 [N]."""
    entries = self._look_up(code_points)
    for index, token in enumerate(special_tokens):
      entries = _keep_whole(
          entries, code_points, token, FIRST_SPECIAL + index)
    return entries

  def _split(self, entries: tf.Tensor, row_splits: tf.Tensor) -> Words:
    """The words, given the N characters and the first of each text."""
    sources = tf.range(tf.size(entries))  # [N]
    entries, sources = tf.cond(
        tf.reduce_any(_has(entries, IRREGULAR)),
        lambda: self._rewrite(entries, sources), lambda: (entries, sources))

    is_space = _has(entries, SPACE)
    is_isolated = _has(entries, ISOLATED)
    ends_word = is_space | is_isolated
    is_start = is_isolated | tf.concat([[True], ends_word], axis=0)[:-1]
    kept = _find(~is_space)  # [C]
    starts = _find(tf.gather(is_start, kept))  # [W]
    kept_sources = tf.gather(sources, kept)
    characters = tf.bitwise.bitwise_and(tf.gather(entries, kept), CODE_POINT)
    text_starts = tf.searchsorted(
        tf.gather(kept_sources, starts),
        tf.cast(row_splits, tf.int32), out_type=tf.int64)
    count = tf.size(kept, out_type=tf.int64)
    word_starts = tf.concat([starts, [count]], axis=0)
    return Words(characters, word_starts, text_starts, kept_sources)

  def _look_up(self, code_points: tf.Tensor) -> tf.Tensor:
    row = tf.gather(self._pages, tf.bitwise.right_shift(code_points, 8))
    return code_points + tf.gather(
        self._rows, row + tf.bitwise.bitwise_and(code_points, _PAGE - 1))

  def _rewrite(
      self, entries: tf.Tensor, sources: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Does what a lookup alone cannot; entries that say DROP are gone."""
    if self.do_lower_case:
      entries = tf.cond(
          tf.reduce_any(_has(entries, SIGMA)),
          lambda: _lower_sigma(entries), lambda: entries)
      entries, sources = tf.cond(
          tf.reduce_any(_has(entries, EXPAND)),
          lambda: self._expand(entries, sources), lambda: (entries, sources))
      entries = tf.cond(
          tf.reduce_any(_has(entries, REORDER)),
          lambda: _reorder(entries), lambda: entries)
    kept = _find(~_has(entries, DROP))
    return tf.gather(entries, kept), tf.gather(sources, kept)

  def _expand(
      self, entries: tf.Tensor, sources: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts the characters of its decomposition in place of each EXPAND."""
    is_expand = _has(entries, EXPAND)
    parts = _decompose(tf.bitwise.bitwise_and(
        tf.boolean_mask(entries, is_expand), CODE_POINT))  # [E, 3]
    is_part = parts > 0
    counts = _replace(
        tf.ones_like(entries), _find(is_expand),
        tf.reduce_sum(tf.cast(is_part, tf.int32), axis=1))
    entries, sources = tf.repeat(entries, counts), tf.repeat(sources, counts)
    entries = _replace(
        entries, _find(_has(entries, EXPAND)),
        self._look_up(tf.boolean_mask(parts, is_part)))
    return entries, sources


def _attach(entries: tf.Tensor, last_attached: tf.Tensor) -> tf.Tensor:
  """Puts the last of what is attached to each character in its place."""
  is_base = ~_has(entries, DROP)
  attached = tf.cast(_find(_has(entries, ATTACHED)), tf.int32)
  index = tf.gather(tf.cumsum(tf.cast(is_base, tf.int32)), attached) - 1
  # A mark before all others goes to a base behind it, where it is not greater
  # than the place that is there already.
  bases = tf.gather(_find(is_base), tf.maximum(index, 0))
  return tf.tensor_scatter_nd_max(last_attached, bases[:, None], attached)


def _decompose(code_points: tf.Tensor) -> tf.Tensor:
  """[E] -> [E, 3]: the decomposition without marks, zeros behind it."""
  # A Hangul syllable by the arithmetic of the Unicode standard, section 3.12.
  index = code_points - _HANGUL_FIRST
  trailing = index % 28
  hangul = tf.stack([
    0x1100 + index // 588, 0x1161 + index % 588 // 28,
    tf.where(trailing > 0, 0x11A7 + trailing, 0)], axis=1)
  known = tf.constant([c for c, _ in unicode_tables.EXPANDED])
  parts = tf.constant([
    (*p, 0)[:3] for _, p in unicode_tables.EXPANDED])
  place = tf.minimum(
      tf.searchsorted(known, code_points), tf.size(known) - 1)
  is_known = tf.equal(tf.gather(known, place), code_points)
  return tf.where(is_known[:, None], tf.gather(parts, place), hangul)


def _lower_sigma(entries: tf.Tensor) -> tf.Tensor:
  """Makes each capital sigma final if its neighbours say so.

  It is final after a cased character and not before one; what is
  case-ignorable or dropped does not count. (Unicode standard, table 3-17.)
  """
  counts = ~_has(entries, DROP | CASE_IGNORABLE)
  places = _find(counts)
  is_cased = tf.pad(
      tf.gather(_has(entries, CASED), places), [[1, 1]])
  sigmas = _find(_has(entries, SIGMA))
  index = tf.searchsorted(places, sigmas)  # one less in `is_cased`
  is_final = tf.gather(is_cased, index) & ~tf.gather(is_cased, index + 2)
  finals = tf.boolean_mask(sigmas, is_final)
  return _replace(entries, finals, tf.fill(tf.shape(finals), _FINAL_SIGMA))


def _reorder(entries: tf.Tensor) -> tf.Tensor:
  """Canonical ordering of the few marks that are not stripped."""
  is_mark = _has(entries, REORDER)
  is_break = ~is_mark & (~_has(entries, DROP) | _has(entries, BREAK))
  places = _find(is_mark)
  marks = tf.gather(entries, places)
  known = tf.constant([c for c, _ in unicode_tables.COMBINING_CLASSES])
  classes = tf.constant([c for _, c in unicode_tables.COMBINING_CLASSES])
  combining_class = tf.gather(classes, tf.searchsorted(
      known, tf.bitwise.bitwise_and(marks, CODE_POINT)))
  run = tf.gather(tf.cumsum(tf.cast(is_break, tf.int64)), places)
  order = tf.argsort(
      run * 256 + tf.cast(combining_class, tf.int64), stable=True)
  return _replace(entries, places, tf.gather(marks, order))


def _keep_whole(
    entries: tf.Tensor, code_points: tf.Tensor, token: str, character: int
) -> tf.Tensor:
  """Turns each occurrence of a literal into one isolated character."""
  size = tf.size(code_points)
  padded = tf.pad(code_points, [[0, len(token)]])
  is_match = tf.fill([size], True)
  for offset, char in enumerate(token):
    is_match &= tf.equal(padded[offset:offset + size], ord(char))
  places = _find(is_match)[:, None] + tf.range(len(token), dtype=tf.int64)
  updates = [character | ISOLATED] + [_ATTACHED_TAIL] * (len(token) - 1)
  return tf.tensor_scatter_nd_update(
      entries, places[:, :, None],
      tf.broadcast_to(updates, tf.shape(places)))
