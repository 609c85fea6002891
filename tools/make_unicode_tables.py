"""Writes bert_tf/unicode_tables.py from Python's own Unicode data.

  python tools/make_unicode_tables.py > bert_tf/unicode_tables.py

It refuses to run on a Python whose tables are not the version that the
project has chosen: a vocabulary and the model trained with it belong to one
version of Unicode, and so must every later run.
"""

from collections.abc import Callable, Iterable, Iterator
import sys
import unicodedata

UNICODE_VERSION = "14.0.0"
CODE_POINTS = [
  code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
_HANGUL = range(0xAC00, 0xAC00 + 11172)  # decomposed by arithmetic


def _is_dropped(char: str) -> bool:
  return char in "\0\ufffd" or (
      unicodedata.category(char) in ("Cc", "Cf") and char not in "\t\n\r")


def _fold(char: str) -> str:
  """Lower case, canonical decomposition, no nonspacing marks."""
  decomposed = unicodedata.normalize("NFD", char.lower())
  return "".join(
      c for c in decomposed if unicodedata.category(c) != "Mn")


def _is_ignorable(char: str) -> bool:
  """Whether the rule for the final sigma looks past this character.

  `unicodedata` does not have the property, but `str.lower` shows it: an
  ignorable character lets the one before it decide.
  """
  return (f"A{char}Σ".lower()[-1], f" {char}Σ".lower()[-1]) == ("ς", "σ")


def _is_cased(char: str) -> bool:
  return f" {char}Σ".lower()[-1] == "ς"


def _is_breaking_mark(char: str) -> bool:
  return not _fold(char) and not _is_dropped(char) and any(
      unicodedata.combining(c) == 0
      for c in unicodedata.normalize("NFD", char))


def _ranges(holds: Callable[[str], bool]) -> Iterator[str]:
  first = last = None
  for code in CODE_POINTS:
    if not holds(chr(code)):
      continue
    if last is not None and code == last + 1:
      last = code
      continue
    if first is not None:
      yield f"(0x{first:04X}, 0x{last:04X}),"
    first = last = code
  yield f"(0x{first:04X}, 0x{last:04X}),"


def _folded_runs() -> Iterator[str]:
  """Runs of neighbours that each fold to one character, first to last.

  Up to three characters that fold to themselves do not end a run.
  """
  runs = []
  for code in CODE_POINTS:
    folded = _fold(chr(code))
    if len(folded) != 1 or folded == chr(code) or _is_dropped(chr(code)):
      continue
    start, targets = runs[-1] if runs else (0, "")
    length = code - start
    gap = "".join(map(chr, range(start + len(targets), code)[:4]))
    fits = len(gap) <= 3 and length < 60 and gap.isalpha() == bool(gap)
    if fits and all(_fold(c) == c for c in gap):
      runs[-1] = (start, targets + gap + folded)
    else:
      runs.append((code, folded))
  for start, targets in runs:
    yield f'(0x{start:04X}, "{targets}"),'


def _expansions() -> Iterator[str]:
  for code in CODE_POINTS:
    folded = _fold(chr(code))
    if len(folded) > 1 and code not in _HANGUL:
      parts = ", ".join(f"0x{ord(char):04X}" for char in folded)
      yield f"(0x{code:04X}, ({parts})),"


def _combining_classes() -> Iterator[str]:
  for code in CODE_POINTS:
    combining_class = unicodedata.combining(chr(code))
    if combining_class and unicodedata.category(chr(code)) != "Mn":
      yield f"(0x{code:04X}, {combining_class}),"


# Name, comment and items of each table.
TABLES = (
  ("WHITE_SPACE",
   "What separates words: Zs, tab, LF, CR, and the two separators that\n"
   "`str.split` knows beside them.",
   _ranges(lambda c: c.isspace() and not _is_dropped(c))),
  ("DROPPED",
   "Removed from the text: NUL, U+FFFD, and Cc and Cf other than tab, LF, CR.",
   _ranges(_is_dropped)),
  ("PUNCTUATION",
   "Category P*, and all of ASCII that is neither letter, digit nor control.",
   _ranges(lambda c: unicodedata.category(c)[0] == "P" or
           "!" <= c <= "~" and not c.isalnum())),
  ("CASED",
   "Cased and not case-ignorable: a capital sigma after one of these is final\n"
   "unless another follows.",
   _ranges(lambda c: _is_cased(c) and not _is_ignorable(c))),
  ("CASE_IGNORABLE",
   "What the rule for the final sigma looks past, beside DROPPED and STRIPPED.",
   _ranges(lambda c: _is_ignorable(c) and not _is_dropped(c) and _fold(c))),
  ("STRIPPED",
   "Nothing is left of these after lower case, decomposition and removal of\n"
   "Mn.",
   _ranges(lambda c: not _fold(c) and not _is_dropped(c))),
  ("BREAKING_MARKS",
   "Those of STRIPPED that have combining class 0 and so end a run of marks\n"
   "that canonical ordering may permute.",
   _ranges(_is_breaking_mark)),
  ("COMBINING_CLASSES",
   "Code points that are not Mn and yet are reordered, with their class.",
   _combining_classes()),
  ("FOLDED",
   "First code point of a run, and what it and its neighbours become after\n"
   "lower case, decomposition and removal of Mn.",
   _folded_runs()),
  ("EXPANDED",
   "The same, for those that become several code points (Hangul syllables\n"
   "apart).",
   _expansions()),
)


def _print_table(name: str, comment: str, items: Iterable[str]) -> None:
  print()
  for line in comment.splitlines():
    print(f"# {line}")
  print(f"{name} = (")
  line = " "
  for item in items:
    if len(line) + 1 + len(item) > 80:
      print(line)
      line = " "
    line += " " + item
  print(line + "\n)")


def main() -> None:
  if unicodedata.unidata_version != UNICODE_VERSION:
    sys.exit(
        f"This Python has Unicode {unicodedata.unidata_version}; the tables "
        f"are those of {UNICODE_VERSION}: run Python 3.11.")
  print(f'''"""Unicode {UNICODE_VERSION} as the tokenizer sees it.

Written by tools/make_unicode_tables.py from Python's `unicodedata`; do not
edit. Ranges hold their first and last code point. Frozen here because a
model's ids must not change with the version of Python, TensorFlow or ICU.
"""

UNICODE_VERSION = "{UNICODE_VERSION}"''')
  for name, comment, items in TABLES:
    _print_table(name, comment, items)


if __name__ == "__main__":
  main()
