"""WordPiece in plain Python, by the rules of the original: what tests trust.

Written a rule at a time and for reading, with Python's own Unicode data
(version 14.0 in Python 3.11), and shares nothing with `bert_tf`.

`tokenize` follows the original's steps on strings. `tokenize_with_ranges`
follows characters through the same steps: a character is a pair of itself and
the number of the one in the text that it comes from.
"""

import functools
import unicodedata

CODE_POINTS = [
  code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
CJK_BLOCKS = (
  (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
  (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)
ASCII_PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


@functools.lru_cache(4096)
def is_dropped(char: str) -> bool:
  if char in "\t\n\r":
    return False
  # Cs: a byte that is not UTF-8, decoded with "surrogateescape".
  return (char in "\0\ufffd" or
          unicodedata.category(char) in ("Cc", "Cf", "Cs"))


@functools.lru_cache(4096)
def is_white_space(char: str) -> bool:
  return char in " \t\n\r" or unicodedata.category(char) == "Zs"


@functools.lru_cache(4096)
def is_cjk(char: str) -> bool:
  code = ord(char)
  return code >= 0x3400 and any(a <= code <= b for a, b in CJK_BLOCKS)


@functools.lru_cache(4096)
def is_punctuation(char: str) -> bool:
  return (char in ASCII_PUNCTUATION or
          unicodedata.category(char).startswith("P"))


def split_words(text: str | bytes, *, do_lower_case: bool) -> list[str]:
  """The words of a text: the original's basic tokenizer."""
  if isinstance(text, bytes):
    text = text.decode("utf-8", "ignore")
  cleaned = []
  for char in text:
    if is_dropped(char):
      continue
    if is_white_space(char):
      char = " "
    elif is_cjk(char):
      char = f" {char} "
    cleaned.append(char)
  words = []
  for token in "".join(cleaned).split():  # also at U+2028 and U+2029
    if do_lower_case:
      token = "".join(
          char for char in unicodedata.normalize("NFD", token.lower())
          if unicodedata.category(char) != "Mn")
    words += split_at_punctuation(token)
  return words


def split_at_punctuation(token: str) -> list[str]:
  words, current = [], ""
  for char in token:
    if is_punctuation(char):
      words += [current, char]
      current = ""
    else:
      current += char
  return [word for word in [*words, current] if word]


def sized_pieces_of_word(
    word: str, ids: dict[str, int]
) -> list[tuple[int, int]]:
  """(id, characters of the word): greedy, the longest match first.

  One [UNK] if any part has no match.
  """
  unknown = [(ids["[UNK]"], len(word))]
  if len(word) > 200:
    return unknown
  pieces, start = [], 0
  while start < len(word):
    for end in range(len(word), start, -1):
      piece = ("##" if start else "") + word[start:end]
      if piece in ids:
        pieces.append((ids[piece], end - start))
        start = end
        break
    else:
      return unknown
  return pieces


def pieces_of_word(word: str, ids: dict[str, int]) -> list[int]:
  return [piece for piece, _ in sized_pieces_of_word(word, ids)]


def tokenize(
    text: str | bytes, ids: dict[str, int], *, do_lower_case: bool
) -> list[int]:
  return [
    piece for word in split_words(text, do_lower_case=do_lower_case)
    for piece in pieces_of_word(word, ids)]


# The same with ranges.

Character = tuple[str, int]


def decoded(text: str | bytes) -> str:
  """Characters, and a lone surrogate for each byte that is not UTF-8."""
  if isinstance(text, bytes):
    return text.decode("utf-8", "surrogateescape")
  return text


def byte_starts(text: str) -> list[int]:
  """Where each character begins, and where the text ends."""
  starts = [0]
  for char in text:
    starts.append(
        starts[-1] + len(char.encode("utf-8", "surrogateescape")))
  return starts


def stripped_characters(token: list[Character]) -> list[Character]:
  """Lower-cased, decomposed, without Mn."""
  text = "".join(char for char, _ in token)
  # Lower case may be longer, but no longer for its context.
  sources = [
    source for char, source in token for _ in char.lower()]
  lowered = list(zip(text.lower(), sources, strict=True))
  parts = [
    (part, source) for char, source in lowered
    for part in unicodedata.normalize("NFD", char)]
  # Canonical ordering permutes characters; the places stay in order.
  places = [
    source for part, source in parts if unicodedata.category(part) != "Mn"]
  characters = [
    part for part in unicodedata.normalize("NFD", text.lower())
    if unicodedata.category(part) != "Mn"]
  return list(zip(characters, places, strict=True))


def words_of(
    characters: list[Character], *, do_lower_case: bool
) -> list[list[Character]]:
  tokens = [[]]
  for char, source in characters:
    if is_dropped(char):
      continue
    if is_white_space(char) or char in "\u2028\u2029":
      tokens.append([])
    elif is_cjk(char):
      tokens += [[(char, source)], []]
    else:
      tokens[-1].append((char, source))
  words = []
  for token in tokens:
    if do_lower_case:
      token = stripped_characters(token)
    words.append([])
    for char, source in token:
      if is_punctuation(char):
        words += [[(char, source)], []]
      else:
        words[-1].append((char, source))
  return [word for word in words if word]


def is_stripped(char: str) -> bool:
  return all(
      unicodedata.category(part) == "Mn"
      for part in unicodedata.normalize("NFD", char.lower()))


def ends_with_marks(text: str, *, do_lower_case: bool) -> list[int]:
  """Behind each character, and behind the marks that belong to it."""
  starts = byte_starts(text)
  ends, base = starts[1:], None
  for place, char in enumerate(text):
    if is_dropped(char):
      continue
    if do_lower_case and is_stripped(char):
      if base is not None:
        ends[base] = starts[place + 1]
    elif is_white_space(char) or char in "\u2028\u2029":
      base = None
    else:
      base = place
  return ends


def split_at_specials(
    text: str, special_tokens: tuple[str, ...]
) -> list[tuple[int, int, str | None]]:
  """(first place, place behind, token or None) of the parts of a text."""
  parts, start, place = [], 0, 0
  while place < len(text):
    token = next(
        (t for t in special_tokens if text.startswith(t, place)), None)
    if token is None:
      place += 1
      continue
    parts += [(start, place, None), (place, place + len(token), token)]
    start = place = place + len(token)
  return [*parts, (start, len(text), None)]


def tokenize_with_ranges(
    text: str | bytes,
    ids: dict[str, int],
    *,
    do_lower_case: bool,
    special_tokens: tuple[str, ...] = (),
) -> list[tuple[int, int, int]]:
  """(id, first byte, byte behind the last) of each piece."""
  text = decoded(text)
  starts = byte_starts(text)
  ends = ends_with_marks(text, do_lower_case=do_lower_case)
  found = []
  for first, behind, token in split_at_specials(text, special_tokens):
    if token is not None:
      found.append((ids[token], starts[first], ends[behind - 1]))
      continue
    characters = list(zip(text, range(len(text))))[first:behind]
    for word in words_of(characters, do_lower_case=do_lower_case):
      place = 0
      for piece, size in sized_pieces_of_word(
          "".join(char for char, _ in word), ids):
        found.append((
          piece, starts[word[place][1]], ends[word[place + size - 1][1]]))
        place += size
  return found
