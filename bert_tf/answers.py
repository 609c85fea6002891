"""From the scores of windows to answers: the n best of each question.

Devlin et al. 2019, sections 4.2 and 4.3, and the original's run_squad.py.

Shapes: R questions, W windows of all questions, in the order of these, S
sequence length, P pieces of all contexts, N best.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import json
from typing import NamedTuple

import numpy as np

# By so much is no answer better or worse where there is nothing to choose.
NO_SPAN = -10000.0
# Questions that are worked on together.
_QUESTIONS = 1024


class Windows(NamedTuple):
  """Which part of which context is where in each window.

  Piece k of a context is at `position + k - first`; its characters are the
  bytes `piece_start` to `piece_end` at k + `begin` of its question.
  """

  row: np.ndarray  # int [W]: the question, ascending
  first: np.ndarray  # int [W]: the first piece, counted in the context
  size: np.ndarray  # int [W]: how many pieces of the context
  position: np.ndarray  # int [W]: where the first of them is in the window
  begin: np.ndarray  # int [R]: where the pieces of its context begin
  piece_start: np.ndarray  # int [P]
  piece_end: np.ndarray  # int [P]


class Answer(NamedTuple):
  """A part of a context; "" is no answer."""

  text: str
  start_logit: float
  end_logit: float

  @property
  def score(self) -> float:
    return self.start_logit + self.end_logit


class Found(NamedTuple):
  """Of one question: the best answers, best first, and no answer."""

  best: list[Answer]
  null: Answer

  @property
  def text(self) -> str:
    """The best of the answers; "" if there is none at all."""
    return self.best[0].text if self.best else ""

  @property
  def null_odds(self) -> float:
    """How much more likely no answer is than the best one."""
    if not self.best:
      return -NO_SPAN
    return self.null.score - self.best[0].score


def has_most_context(windows: Windows, length: int) -> np.ndarray:
  """Where each piece counts: in the window with most context around it.

  That is the greatest min(pieces to its left, to its right) + 0.01 * size, the
  first such window on a tie.

  Args:
    windows: the windows of whole questions.
    length: S.

  Returns:
    bool [W, S]: in each row, pieces of the context that count there.
  """
  place = np.arange(length)[None]  # [1, S]
  offset = place - windows.position[:, None]  # [W, S]
  is_context = (offset >= 0) & (offset < windows.size[:, None])
  window = np.nonzero(is_context)[0]  # [all pieces of all windows]
  offset = offset[is_context]
  # Whole numbers, in which equal contexts are equal.
  size = windows.size[window]
  context = 100 * np.minimum(offset, size - 1 - offset) + size
  # A number of its own for each piece of each question.
  most = int((windows.first + windows.size).max(initial=0))
  piece = windows.row[window].astype(np.int64) * most + (
      windows.first[window] + offset)
  order = np.lexsort((window, -context, piece))
  is_first = np.ones(len(order), bool)
  is_first[1:] = piece[order][1:] != piece[order][:-1]
  counts = np.zeros(len(order), bool)
  counts[order[is_first]] = True
  found = np.zeros_like(is_context)
  found[is_context] = counts
  return found


class _Pairs(NamedTuple):
  """Possible answers, flat: [number] each."""

  window: np.ndarray
  start: np.ndarray  # place in the window
  end: np.ndarray  # the last place
  start_logit: np.ndarray
  end_logit: np.ndarray


def _best_places(logits: np.ndarray, is_window: np.ndarray, n: int):
  """Of each window the places with the greatest scores, [W, N]."""
  return np.argsort(
      np.where(is_window, -logits, np.inf), axis=1, kind="stable")[:, :n]


def _pairs(
    windows: Windows, start_logits: np.ndarray, end_logits: np.ndarray, *,
    n_best_size: int, max_answer_length: int
) -> _Pairs:
  """The n best starts with the n best ends of each window, where they fit.

  As in the original, the best are chosen among all pieces of the window, of
  which those of the question then fit nowhere.
  """
  place = np.arange(start_logits.shape[1])[None]
  behind = (windows.position + windows.size)[:, None]  # The place of [SEP].
  may_end = (place >= windows.position[:, None]) & (place < behind)  # [W, S]
  may_start = has_most_context(windows, start_logits.shape[1])
  starts, ends = (
    _best_places(logits, place <= behind, n_best_size)
    for logits in (start_logits, end_logits))  # [W, N]
  length = ends[:, None] - starts[:, :, None] + 1  # [W, N, N]
  fits = (length >= 1) & (length <= max_answer_length)
  fits &= np.take_along_axis(may_start, starts, 1)[:, :, None]
  fits &= np.take_along_axis(may_end, ends, 1)[:, None]
  window, i, j = np.nonzero(fits)
  start, end = starts[window, i], ends[window, j]
  return _Pairs(
      window, start, end, start_logits[window, start], end_logits[window, end])


def _of_each_row(
    order: np.ndarray, row: np.ndarray, number: int
) -> Iterator[np.ndarray]:
  """`order`, which sorts by row, in a part for each row."""
  splits = np.searchsorted(row[order], np.arange(number + 1))
  return (order[one:other] for one, other in zip(splits[:-1], splits[1:]))


def _distinct(
    pairs: _Pairs, chosen: np.ndarray, windows: Windows, context: bytes,
    begin: int, n_best_size: int
) -> list[Answer]:
  """The answers of one question, best first, each text once."""
  found = {}
  for k in chosen:
    if len(found) == n_best_size:
      break
    window = pairs.window[k]
    shift = begin + windows.first[window] - windows.position[window]
    text = context[windows.piece_start[shift + pairs.start[k]]:
                   windows.piece_end[shift + pairs.end[k]]].decode(
                       "utf-8", "replace")
    if text not in found:
      found[text] = Answer(
          text, float(pairs.start_logit[k]), float(pairs.end_logit[k]))
  return list(found.values())


def _find_some(
    windows: Windows, contexts: Sequence[str], start_logits: np.ndarray,
    end_logits: np.ndarray, **options
) -> list[Found]:
  """`find_answers` of some questions, whose rows count from 0."""
  # Sums of 64 bits, as the original's: fewer ties.
  start_logits, end_logits = (
    logits.astype(np.float64) for logits in (start_logits, end_logits))
  pairs = _pairs(windows, start_logits, end_logits, **options)
  row = windows.row[pairs.window]
  order = np.lexsort((-(pairs.start_logit + pairs.end_logit), row))
  null_order = np.lexsort(
      (start_logits[:, 0] + end_logits[:, 0], windows.row))
  found = []
  for i, (chosen, nulls) in enumerate(zip(
      _of_each_row(order, row, len(contexts)),
      _of_each_row(null_order, windows.row, len(contexts)))):
    best = _distinct(
        pairs, chosen, windows, contexts[i].encode("utf-8"), windows.begin[i],
        options["n_best_size"])
    null = Answer("", *(float(logits[nulls[0], 0])
                        for logits in (start_logits, end_logits)))
    found.append(Found(best, null))
  return found


def find_answers(
    windows: Windows, contexts: Sequence[str], outputs: Mapping, *,
    n_best_size: int, max_answer_length: int
) -> list[Found]:
  """The best answers of each question, over all its windows.

  An answer is a part of its context as this was given, from the first byte of
  a piece to the last of another in the same window. Its start counts in the
  window with most context around it. Its score is the sum of its two logits.
  No answer has the least such sum of [CLS] in any window.

  Args:
    windows: of all questions; each question has one or more.
    contexts: R texts.
    outputs: `start_logits` and `end_logits`, float [W, S].
    n_best_size: how many answers at most, and how many starts and ends of
      each window are looked at.
    max_answer_length: in pieces.

  Returns:
    R of them. A question whose context has no piece has no answers at all.
  """
  found = []
  for first in range(0, len(contexts), _QUESTIONS):
    rows = slice(first, first + _QUESTIONS)
    some = slice(*np.searchsorted(windows.row, [rows.start, rows.stop]))
    part = Windows(
        windows.row[some] - first, windows.first[some], windows.size[some],
        windows.position[some], windows.begin[rows], windows.piece_start,
        windows.piece_end)
    found += _find_some(
        part, contexts[rows], outputs["start_logits"][some],
        outputs["end_logits"][some], n_best_size=n_best_size,
        max_answer_length=max_answer_length)
  return found


def best_texts(
    found: Mapping[str, Found], *, threshold: float | None = None
) -> dict[str, str]:
  """The answer to each question.

  Args:
    found: by the question's id.
    threshold: the answer is "" where the null odds are greater. None: never.
  """
  return {
    name: "" if threshold is not None and one.null_odds > threshold
    else one.text for name, one in found.items()}


def n_best(
    found: Found, *, n_best_size: int, with_null: bool
) -> list[dict[str, str | float]]:
  """The answers to one question as the original's `nbest_predictions.json`.

  Args:
    found: the answers.
    n_best_size: as for `find_answers`.
    with_null: no answer is one of them: at its place, or behind the last.

  Returns:
    {"text", "probability", "start_logit", "end_logit"} each, best first; the
    probabilities, a softmax over the scores, add up to 1.

  >>> found = Found([Answer("a", 2.0, 0.0)], Answer("", 1.0, 1.0))
  >>> [(x["text"], x["probability"])
  ...  for x in n_best(found, n_best_size=2, with_null=True)]
  [('a', 0.5), ('', 0.5)]
  """
  answers = list(found.best)
  if with_null or not answers:
    place = sum(answer.score >= found.null.score for answer in answers)
    answers.insert(place, found.null)
    # One that is worse than all is there beside them.
    answers = answers[:max(n_best_size, place + 1)]
  scores = np.array([answer.score for answer in answers])
  exponents = np.exp(scores - scores.max())
  return [
    {"text": answer.text, "probability": float(probability),
     "start_logit": answer.start_logit, "end_logit": answer.end_logit}
    for answer, probability in zip(answers, exponents / exponents.sum())]


def prediction_files(
    found: Mapping[str, Found], *, n_best_size: int,
    threshold: float | None = None
) -> dict[str, str]:
  """The original's files: {name: JSON}, in the order of the questions.

  `predictions.json`: {id: text}. `nbest_predictions.json`: {id: as from
  `n_best`}. With a threshold, `null_odds.json`: {id: number}.

  Args: as for `best_texts` and `n_best`.
  """
  with_null = threshold is not None
  contents = {
    "predictions.json": best_texts(found, threshold=threshold),
    "nbest_predictions.json": {
      name: n_best(one, n_best_size=n_best_size, with_null=with_null)
      for name, one in found.items()},
  }
  if with_null:
    contents["null_odds.json"] = {
      name: one.null_odds for name, one in found.items()}
  return {name: json.dumps(content, indent=4) + "\n"
          for name, content in contents.items()}
