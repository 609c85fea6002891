"""SQuAD's figures by hand, by the rules of the official programs."""

import hypothesis
from hypothesis import strategies
import pytest

from bert_tf import squad_metrics


@pytest.mark.parametrize("text, normal", [
  ("", ""),
  ("Denver  Broncos\n", "denver broncos"),
  ("The cat, a dog and an Ant", "cat dog and ant"),
  # Articles are whole words only, and come after the punctuation.
  ("another theory", "another theory"),
  ("a.n. other", "other"),
  ("The-cat", "thecat"),
  ("U.S. $1,000.50", "us 100050"),
  # Punctuation outside of ASCII stays.
  ("“the” état — 10 €", "“ ” état — 10 €"),
  ("the a AN", ""),
  ("?!", ""),
])
def test_normal_form(text, normal):
  assert squad_metrics.normalize_answer(text) == normal


@pytest.mark.parametrize("answer, golds, exact, f1", [
  ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
  # Precision 2/3, recall 1.
  ("tall eiffel tower", ["Eiffel Tower"], 0.0, 0.8),
  # The best of the golds, for each figure.
  ("red car", ["blue car", "big red car", "bus"], 0.0, 0.8),
  ("red car", ["blue car", "red car"], 1.0, 1.0),
  # Each word as often as both have it: 1 of 3, 1 of 1.
  ("no no no", ["no"], 0.0, 0.5),
  ("no no", ["no no no"], 0.0, 0.8),
  ("car red", ["red car"], 0.0, 1.0),
  ("bus", ["red car"], 0.0, 0.0),
  # No answer.
  ("", [], 1.0, 1.0),
  ("the", [], 1.0, 1.0),
  ("car", [], 0.0, 0.0),
  ("", ["car"], 0.0, 0.0),
  # A gold of which nothing is left is none, unless it is the only one.
  ("", ["The", "car"], 0.0, 0.0),
  ("", ["The", "?"], 1.0, 1.0),
  ("car", ["The"], 0.0, 0.0),
])
def test_exact_match_and_f1(answer, golds, exact, f1):
  assert squad_metrics.exact_match(answer, golds) == exact
  assert squad_metrics.f1(answer, golds) == pytest.approx(f1)


@pytest.mark.parametrize(
    "function", [squad_metrics.exact_match, squad_metrics.f1])
def test_a_text_is_no_list_of_golds(function):
  with pytest.raises(ValueError, match="'car'; golds must be a list"):
    function("c", "car")


WORDS = strategies.lists(
    strategies.sampled_from(["the", "a", "cat", "Cat.", "dog", "?"]),
    max_size=5).map(" ".join)


@hypothesis.given(WORDS, WORDS)
def test_f1_of_two_texts_is_the_same_both_ways(one, other):
  value = squad_metrics.f1(one, [other])
  assert value == pytest.approx(squad_metrics.f1(other, [one]))
  assert squad_metrics.exact_match(one, [other]) <= value <= 1.0
  assert squad_metrics.f1(one, [one]) == 1.0


@hypothesis.given(strategies.text())
def test_a_normal_form_keeps_its_words(text):
  normal = squad_metrics.normalize_answer(text)
  assert normal == " ".join(normal.split())
  assert squad_metrics.exact_match(f" {text}", [normal]) == 1.0


GOLDS = {
  "paris": ["Paris", "in Paris"], "nothing": [], "car": ["a red car"],
  "silent": []}
PREDICTIONS = {
  "paris": "Paris", "nothing": "Rome", "car": "the red bus", "silent": ""}
ODDS = {"paris": -2.0, "nothing": 1.0, "car": -1.0, "silent": 3.0}


def test_evaluate():
  assert squad_metrics.evaluate(GOLDS, PREDICTIONS) == {
    # "red bus" has F1 0.5.
    "exact": 50.0, "f1": 62.5, "total": 4,
    "HasAns_exact": 50.0, "HasAns_f1": 75.0, "HasAns_total": 2,
    "NoAns_exact": 50.0, "NoAns_f1": 50.0, "NoAns_total": 2}


def test_evaluate_has_no_figures_of_questions_that_are_not_there():
  assert squad_metrics.evaluate({"q": ["x"]}, {"q": "x", "other": "y"}) == {
    "exact": 100.0, "f1": 100.0, "total": 1,
    "HasAns_exact": 100.0, "HasAns_f1": 100.0, "HasAns_total": 1}
  assert squad_metrics.evaluate({"q": []}, {"q": "x"}) == {
    "exact": 0.0, "f1": 0.0, "total": 1,
    "NoAns_exact": 0.0, "NoAns_f1": 0.0, "NoAns_total": 1}


@pytest.mark.parametrize("threshold, f1, has_answer, has_none", [
  # Odds equal to the threshold are not greater.
  (3.0, 62.5, 75.0, 50.0), (1.0, 62.5, 75.0, 50.0),
  (0.0, 87.5, 75.0, 100.0), (-1.5, 75.0, 50.0, 100.0),
  (-9.0, 50.0, 0.0, 100.0),
])
def test_evaluate_with_a_threshold(threshold, f1, has_answer, has_none):
  figures = squad_metrics.evaluate(
      GOLDS, PREDICTIONS, null_odds=ODDS, threshold=threshold)
  assert figures["f1"] == f1
  assert figures["HasAns_f1"] == has_answer
  assert figures["NoAns_f1"] == has_none
  # These are of all thresholds.
  assert figures["best_f1"] == 87.5


def test_the_threshold_is_0():
  assert squad_metrics.evaluate(
      GOLDS, PREDICTIONS, null_odds=ODDS) == squad_metrics.evaluate(
          GOLDS, PREDICTIONS, null_odds=ODDS, threshold=0.0)


def test_an_answer_without_a_normal_form_is_still_an_answer():
  # Right by its text, wrong where the odds say that there is no answer.
  golds, predictions = {"q": ["The"]}, {"q": ""}
  assert squad_metrics.evaluate(golds, predictions)["HasAns_exact"] == 100.0
  assert squad_metrics.evaluate(
      golds, predictions, null_odds={"q": 1.0})["HasAns_exact"] == 0.0


@pytest.mark.parametrize("change, exact, exact_at, f1, f1_at", [
  # From 2 for the questions without an answer; exact 3, 3, 2, 2 and
  # F1 3, 3.5, 2.5, 2.5. The first of two equal scores is taken.
  ({}, 75.0, -2.0, 87.5, -1.0),
  # "nothing" first: 1, 2, 2 and 1, 2, 2.5.
  ({"nothing": -3.0}, 50.0, 0.0, 62.5, -1.0),
  # "car" last, "nothing" before it: F1 3, 2, 2, 2.5.
  ({"car": 5.0}, 75.0, -2.0, 75.0, -2.0),
])
def test_best_threshold(change, exact, exact_at, f1, f1_at):
  assert squad_metrics.best_threshold(GOLDS, PREDICTIONS, ODDS | change) == {
    "best_exact": exact, "best_exact_thresh": exact_at,
    "best_f1": f1, "best_f1_thresh": f1_at}


@pytest.mark.parametrize("order, exact, threshold", [
  (["yes", "no"], 100.0, 1.0), (["no", "yes"], 50.0, 0.0)])
def test_equal_odds_are_taken_in_their_order(order, exact, threshold):
  figures = squad_metrics.best_threshold(
      {"no": [], "yes": ["x"]}, {"yes": "x", "no": "x"},
      {key: 1.0 for key in order})
  assert figures["best_exact"] == exact
  assert figures["best_exact_thresh"] == threshold


def test_a_text_without_a_normal_form_is_an_answer_to_best_threshold():
  golds = {"no": [], "yes": ["x"]}
  odds = {"no": -1.0, "yes": 1.0}
  for text, best in (("", 100.0), ("the", 50.0)):
    figures = squad_metrics.best_threshold(
        golds, {"no": text, "yes": "x"}, odds)
    assert figures["best_exact"] == best


def test_odds_of_other_questions_are_not_looked_at():
  assert squad_metrics.best_threshold(
      GOLDS, PREDICTIONS, {"other": -9.0, **ODDS})["best_f1"] == 87.5


# The official figures of a text without a normal form are not always those of
# a threshold: these have one.
TEXTS = strategies.tuples(
    WORDS, strategies.sampled_from(["cat", "dog"])).map(" ".join)
QUESTIONS = strategies.lists(
    strategies.tuples(
        strategies.lists(TEXTS, max_size=2), TEXTS,
        strategies.integers(-3, 3)),
    min_size=1, max_size=6, unique_by=lambda question: question[2])


@hypothesis.given(QUESTIONS)
def test_the_best_threshold_is_one_that_evaluate_agrees_with(questions):
  golds, predictions, odds = (
    dict(enumerate(column)) for column in zip(*questions, strict=True))
  best = squad_metrics.best_threshold(golds, predictions, odds)
  for name in ("exact", "f1"):
    figures = [
      squad_metrics.evaluate(
          golds, predictions, null_odds=odds, threshold=threshold)[name]
      for threshold in (-9, *odds.values())]
    assert best[f"best_{name}"] == pytest.approx(max(figures))


@pytest.mark.parametrize("arguments, message", [
  (({}, {}), "no questions"),
  ((GOLDS, {"paris": "", "silent": ""}),
   "no prediction for 2 of 4 questions: nothing, car"),
  (({str(i): [] for i in range(7)}, {}), r"0, 1, 2, 3, 4, \.\.\."),
])
def test_missing_predictions_are_refused_by_name(arguments, message):
  with pytest.raises(ValueError, match=message):
    squad_metrics.evaluate(*arguments)
  with pytest.raises(ValueError, match=message):
    squad_metrics.best_threshold(*arguments, ODDS)


def test_missing_odds_are_refused_by_name():
  odds = {"paris": 0.0, "car": 0.0, "silent": 0.0}
  for function in (
      squad_metrics.best_threshold,
      lambda golds, predictions, odds: squad_metrics.evaluate(
          golds, predictions, null_odds=odds)):
    with pytest.raises(ValueError, match="no null odds for 1 .*: nothing"):
      function(GOLDS, PREDICTIONS, odds)
