"""Running text -> sentences, by rules.

Standard library only.
"""

from collections.abc import Sequence
import re

SENTENCE_SPLITTERS = ("none", "rules")

# A full stop after one of these does not end a sentence. What may also stand
# at the end of one ("etc.", "p.m.") is not here. English and a few French and
# Spanish titles: for other languages feed a sentence a line.
_ABBREVIATIONS = frozenset("""
  mr mrs ms messrs mm dr prof st ste sir rev revd hon fr sr sra mme mlle mlles
  gen col lt capt cpt maj sgt cpl adm cmdr gov pres sen rep supt
  mt ft co corp inc ltd bros jr dept univ assn
  vs viz cf ca approx al ibid e.g i.e eg ie
""".split())

# Nor after one of these, when a number follows: "No. 5", "Fig. 2", "Jan. 5".
_BEFORE_A_NUMBER = frozenset("""
  no nos nr p pp vol vols ch chap sec sect art fig figs eq eqs par ver v
  jan feb mar apr jun jul aug sep sept oct nov dec
""".split())

_CJK_CLOSING = """["'”’」』）】〕］｝〗〟｣]"""

# A stop, what closes a quotation or a bracket, white space, and what opens the
# next one. Begins with a set of characters, which `re` searches fast.
_CANDIDATE = r"""
    (?P<stop>[.!?…؟۔।॥։] (?<![.!?…][.!?…؟۔।॥։]) [.!?…؟۔।॥։]*)
    ["'”’»)\]}_*]* \s+
    (?=["'“‘«([{_*¿¡—–-]* \s? (?P<next>[^\W_]|[$£€]))"""
# A stop of Chinese and Japanese, which needs no white space. The full-width ．
# is one after their characters only, and not before a digit. A sentence goes
# on after a quotation before a comma or と, って, など ("he said"), and a stop
# at the end of a title, 《谁？》, ends none.
_CJK_CANDIDATE = rf"""
    (?: (?<![。！？｡]) [。！？｡]++
      | (?<=[々\u3040-\u30ff\u3400-\u9fff」』）]) ．(?!\d))
    (?: {_CJK_CLOSING}++ (?![と、，；：]|って|など)
      | (?!{_CJK_CLOSING}|[》〉]))
    \s*+ (?=\S)"""
_CANDIDATES = re.compile(_CANDIDATE, re.VERBOSE)
_ALL_CANDIDATES = re.compile(f"{_CANDIDATE} | {_CJK_CANDIDATE}", re.VERBOSE)
_CJK_STOP = re.compile("[。！？｡．]")

# "1.", "IV." or "b)." at the start of a sentence numbers it.
_ENUMERATOR = re.compile(r"\W*(?:\d+|[ivxlc]+|[^\W\d_])\W*", re.IGNORECASE)
# Nothing above is longer: a sentence without end must not cost its square.
_LONGEST_WORD = 40
_DOTTED_CAPITALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")


def _ends_sentence(before: str, stop: str, following: str) -> bool:
  """Whether `stop` ends the sentence; `before` is what it has right before.

  Where it is in doubt it does not: two sentences in one do less harm to
  pretraining than half a sentence.
  """
  if following.islower():
    return False
  if stop != ".":
    return True
  if _ENUMERATOR.fullmatch(before):
    return False
  word = "".join(before.split()[-1:]).lstrip("\"'“‘«([{_*—–-")
  if word.lower() in _ABBREVIATIONS:
    return False
  if following.isdigit() and word.lower() in _BEFORE_A_NUMBER:
    return False
  # "J. Smith", "J.R.R. Tolkien", "the U.S. Army"; but "you and I. We".
  is_initial = word.isupper() and _DOTTED_CAPITALS.fullmatch(word)
  return word == "I" or not is_initial


def split_sentences(text: str) -> list[str]:
  """Finds the sentences of running text by rules for English.

  A sentence ends at `.`, `!`, `?` or their like, with closing quotes, before
  white space and a character that is not lower case, unless the word before
  a full stop is a known abbreviation, an initial or the number of an item.
  The stops of Chinese and Japanese end one without white space. No text is
  lost, apart from white space between sentences.

  >>> split_sentences("Mr. Hume left at 5 p.m. Nobody saw him.")
  ['Mr. Hume left at 5 p.m.', 'Nobody saw him.']
  """
  sentences = []
  start = 0
  candidates = _ALL_CANDIDATES if _CJK_STOP.search(text) else _CANDIDATES
  for match in candidates.finditer(text):
    stop, end = match["stop"], match.start()
    before = text[max(start, end - _LONGEST_WORD):end]
    if stop is None or _ends_sentence(before, stop, match["next"]):
      sentences.append(text[start:match.end()].strip())
      start = match.end()
  sentences.append(text[start:].strip())
  return [sentence for sentence in sentences if sentence]


def to_sentences(lines: Sequence[str], sentence_splitter: str) -> list[str]:
  """The sentences of a document's lines, in order.

  Args:
    lines: stripped and not empty.
    sentence_splitter: "none" takes a line for a sentence; "rules" takes it
      for running text, see `split_sentences`.

  >>> to_sentences(["One. Two.", "Three"], "rules")
  ['One.', 'Two.', 'Three']
  """
  if sentence_splitter not in SENTENCE_SPLITTERS:
    raise ValueError(
        f"sentence_splitter: received {sentence_splitter!r}; must be one of "
        f"{', '.join(SENTENCE_SPLITTERS)}.")
  if sentence_splitter == "none":
    return list(lines)
  return [
    sentence for line in lines for sentence in split_sentences(line)]
