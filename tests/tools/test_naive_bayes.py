"""Naive Bayes, against probabilities worked out by hand."""

import doctest
import pathlib
import sys

import pytest

DEMO = pathlib.Path(__file__).resolve().parents[2] / "tools" / "demo"
sys.path.insert(0, str(DEMO))
import naive_bayes
sys.path.remove(str(DEMO))

TEXTS = ["a a b", "b", "b c"]
LABELS = ["x", "x", "y"]
# Words a, b, c. x: counts 2, 2, 0 -> (3, 3, 1) / 7, prior 2/3.
#                y: counts 0, 1, 1 -> (1, 2, 2) / 5, prior 1/3.


@pytest.mark.parametrize("text, label", [
  ("a", "x"),      # 2/3 * 3/7   = 0.286     against  1/3 * 1/5  = 0.067
  ("b", "x"),      # 2/3 * 3/7   = 0.286     against  1/3 * 2/5  = 0.133
  ("c", "y"),      # 2/3 * 1/7   = 0.095     against  1/3 * 2/5  = 0.133
  ("a c", "x"),    # 2/3 * 3/49  = 0.041     against  1/3 * 2/25 = 0.027
  ("c a c", "y"),  # 2/3 * 3/343 = 0.0058    against  1/3 * 4/125 = 0.0107
  # 2/3 * 9/2401 = 0.0025 against 1/3 * 4/625 = 0.0021; with one half added
  # to each count it would be "y".
  ("a a c c", "x"),
  ("", "x"),       # the priors alone: 2/3 against 1/3
  ("unheard of", "x"),
  ("C, unheard!", "y"),
])
def test_label_is_that_of_the_probabilities_worked_out_by_hand(text, label):
  assert naive_bayes.naive_bayes_predictions(TEXTS, LABELS, [text]) == [label]


def test_the_prior_counts_texts_and_not_words():
  predictions = naive_bayes.naive_bayes_predictions(
      ["a b c d e f", "a", "a"], ["long", "short", "short"], ["unheard"])
  assert predictions == ["short"]


def test_texts_are_labeled_in_their_order_and_an_empty_one_is_no_problem():
  predictions = naive_bayes.naive_bayes_predictions(
      ["a", "b", ""], ["x", "y", "y"], ["b", "a", "b"])
  assert predictions == ["y", "x", "y"]


def test_example_of_the_docstring():
  assert doctest.testmod(naive_bayes).failed == 0
