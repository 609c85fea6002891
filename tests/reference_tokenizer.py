"""WordPiece in plain Python, by the rules of the original: what tests trust.

Written a rule at a time and for reading, with Python's own Unicode data
(version 14.0 in Python 3.11), and shares nothing with `bert_tf`.
"""

import unicodedata

CODE_POINTS = [
  code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
CJK_BLOCKS = (
  (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
  (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)
ASCII_PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def is_dropped(char: str) -> bool:
  if char in "\t\n\r":
    return False
  return char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf")


def is_white_space(char: str) -> bool:
  return char in " \t\n\r" or unicodedata.category(char) == "Zs"


def is_cjk(char: str) -> bool:
  code = ord(char)
  return code >= 0x3400 and any(a <= code <= b for a, b in CJK_BLOCKS)


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


def pieces_of_word(word: str, ids: dict[str, int]) -> list[int]:
  """Greedy longest match first; one [UNK] if any part has no match."""
  unknown = [ids["[UNK]"]]
  if len(word) > 200:
    return unknown
  pieces, start = [], 0
  while start < len(word):
    for end in range(len(word), start, -1):
      piece = ("##" if start else "") + word[start:end]
      if piece in ids:
        pieces.append(ids[piece])
        start = end
        break
    else:
      return unknown
  return pieces


def tokenize(
    text: str | bytes, ids: dict[str, int], *, do_lower_case: bool
) -> list[int]:
  return [
    piece for word in split_words(text, do_lower_case=do_lower_case)
    for piece in pieces_of_word(word, ids)]
