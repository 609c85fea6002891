"""SQuAD's exact match and F1, as its official program computes them.

Rajpurkar et al., SQuAD (2016), section 6.1; Know What You Don't Know (2018)
for questions without an answer, whose prediction must be the empty text.
Figures are equal to those of evaluate-v2.0.py, and to those of SQuAD 1.1's
unless golds are but articles and punctuation, which only 2.0's leaves out. A
question's golds are the texts of its answers, none where it has no answer.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import re
import string

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")

Golds = Mapping[str, Sequence[str]]


def normalize_answer(text: str) -> str:
  """The text as answers are compared.

  Lower case, then without ASCII punctuation, then without the words a, an,
  the, then with single spaces between words.

  >>> normalize_answer("The  U.S. President's \\"plan A\\"")
  'us presidents plan'
  """
  text = text.lower().translate(_NO_PUNCTUATION)
  return " ".join(_ARTICLE.sub(" ", text).split())


def _normal_golds(golds: Sequence[str]) -> list[str]:
  if isinstance(golds, str):
    raise ValueError(f"Received {golds!r}; golds must be a list of texts.")
  # Golds of which nothing is left are no answers, unless there is no other.
  return [gold for text in golds if (gold := normalize_answer(text))] or [""]


def exact_match(answer: str, golds: Sequence[str]) -> float:
  """1.0 if the normal form of the answer is that of one gold, else 0.0.

  Golds with an empty normal form are left out; without golds the right
  answer is "".

  >>> exact_match("the Eiffel tower.", ["Eiffel Tower", "tower"])
  1.0
  """
  return float(normalize_answer(answer) in _normal_golds(golds))


def _token_f1(answer: list[str], gold: list[str]) -> float:
  if not answer or not gold:
    return float(answer == gold)
  common = (Counter(answer) & Counter(gold)).total()
  if not common:
    return 0.0
  # Not 2 * common / (both lengths): the official program's last bit, on which
  # a tie between two thresholds may depend.
  precision, recall = common / len(answer), common / len(gold)
  return 2 * precision * recall / (precision + recall)


def f1(answer: str, golds: Sequence[str]) -> float:
  """F1 of the answer's words against the gold it fits best, 0 to 1.

  Words are those of the normal form, counted as often as they stand there.
  1.0 if both have no words, 0.0 if one has none. Golds as in `exact_match`.

  >>> f1("the tall Eiffel tower", ["Eiffel Tower", "Paris"])
  0.8
  """
  words = normalize_answer(answer).split()
  return max(_token_f1(words, gold.split()) for gold in _normal_golds(golds))


def _require_all(golds: Golds, given: Mapping, what: str) -> None:
  if not golds:
    raise ValueError("Received no questions; must be one or more.")
  missing = [key for key in golds if key not in given]
  if missing:
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    raise ValueError(
        f"Received no {what} for {len(missing)} of {len(golds)} questions: "
        f"{shown}. Every question must have one.")


def _percent(scores: Iterable[float], total: int) -> float:
  return 100.0 * sum(scores) / total


def _scores(golds: Golds, predictions: Mapping[str, str]) -> dict[str, dict]:
  return {
    name: {key: score(predictions[key], texts) for key, texts in golds.items()}
    for name, score in (("exact", exact_match), ("f1", f1))}


def evaluate(golds: Golds, predictions: Mapping[str, str], *,
             null_odds: Mapping[str, float] | None = None,
             threshold: float = 0.0) -> dict[str, float]:
  """The figures of the official program, in percent.

  Predictions of other questions are not looked at; a question without a
  prediction is a ValueError that names it.

  Args:
    golds: The texts of the answers of each question.
    predictions: The text predicted for each question, "" for no answer.
    null_odds: How much more likely no answer is than the predicted one. With
      it the `best_` figures of `best_threshold` are there too.
    threshold: A question with greater odds counts as predicted to have no
      answer. 0 is right for BERT's odds, a difference of logits; the official
      program's default, 1, is meant for probabilities.

  Returns:
    exact, f1, total over all questions; HasAns_exact, HasAns_f1, HasAns_total
    over those with an answer and NoAns_exact, NoAns_f1, NoAns_total over those
    without, as far as there are any.

  >>> figures = evaluate({"q1": ["in Paris", "Paris"], "q2": []},
  ...                    {"q1": "near Paris", "q2": ""})
  >>> figures["exact"], figures["HasAns_exact"], figures["NoAns_exact"]
  (50.0, 0.0, 100.0)
  """
  _require_all(golds, predictions, "prediction")
  scores = _scores(golds, predictions)
  if null_odds is not None:
    _require_all(golds, null_odds, "null odds")
    for key, texts in golds.items():
      if null_odds[key] > threshold:
        for by_question in scores.values():
          by_question[key] = float(not texts)
  groups = {
    "": list(golds),
    "HasAns_": [key for key, texts in golds.items() if texts],
    "NoAns_": [key for key, texts in golds.items() if not texts],
  }
  figures = {}
  for prefix, keys in groups.items():
    if keys:
      for name, by_question in scores.items():
        figures[prefix + name] = _percent(
            (by_question[key] for key in keys), len(keys))
      figures[f"{prefix}total"] = len(keys)
  if null_odds is not None:
    figures |= best_threshold(golds, predictions, null_odds)
  return figures


def best_threshold(golds: Golds, predictions: Mapping[str, str],
                   null_odds: Mapping[str, float]) -> dict[str, float]:
  """The thresholds of null odds with the greatest exact match and F1.

  Starts with no answer to any question, then takes the predictions as they
  are in the order of their odds, equal odds in the order of `null_odds`. Each
  adds its score; one to a question without an answer takes away 1, unless it
  is "". The first of equally good thresholds is taken, and 0.0 if none is
  better than no answers at all. (Equal odds are not kept together, and 0.0 is
  no such threshold where odds are negative: so it is in the official program.)

  Args:
    golds: The texts of the answers of each question.
    predictions: The best text of each question that is not empty.
    null_odds: How much more likely no answer is than that text.

  Returns:
    best_exact and best_f1 in percent, best_exact_thresh, best_f1_thresh.

  >>> figures = best_threshold({"q1": ["Paris"], "q2": []},
  ...                          {"q1": "Paris", "q2": "Rome"},
  ...                          {"q1": -3.5, "q2": 1.5})
  >>> figures["best_f1"], figures["best_f1_thresh"]
  (100.0, -3.5)
  """
  _require_all(golds, predictions, "prediction")
  _require_all(golds, null_odds, "null odds")
  order = sorted((key for key in null_odds if key in golds), key=null_odds.get)
  figures = {}
  for name, by_question in _scores(golds, predictions).items():
    score = best = sum(not texts for texts in golds.values())
    threshold = 0.0
    for key in order:
      score += by_question[key] if golds[key] else -bool(predictions[key])
      if score > best:
        best, threshold = score, null_odds[key]
    figures[f"best_{name}"] = 100.0 * best / len(golds)
    figures[f"best_{name}_thresh"] = threshold
  return figures
