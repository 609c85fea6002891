"""Metrics by hand, and of tags as seqeval computes them."""

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from bert_tf import metrics


def test_accuracy_and_balanced_accuracy():
  labels = ["a", "a", "a", "a", "b"]
  predictions = ["a", "a", "a", "b", "c"]
  assert metrics.accuracy(labels, predictions) == 0.6
  # Recall 3/4 of "a" and 0 of "b"; "c" is no label.
  assert metrics.balanced_accuracy(labels, predictions) == 0.375


@pytest.mark.parametrize("labels, predictions", [
  ([], []), ([1], [1, 2]), ([[1]], [[1]]),
])
def test_lists_of_other_lengths_are_refused(labels, predictions):
  with pytest.raises(ValueError, match="same length"):
    metrics.accuracy(labels, predictions)


@pytest.mark.parametrize("labels, predictions, value", [
  # Two found, one missed, one too many: precision 2/3, recall 2/3.
  ("pppnn", "ppnpn", 2 / 3),
  # Precision 1, recall 1/4.
  ("ppppn", "pnnnn", 0.4),
  ("pn", "pn", 1.0),
  ("pn", "np", 0.0),
  # Nothing positive anywhere.
  ("nn", "nn", 0.0),
  # A third class is as good as "n".
  ("pno", "pon", 1.0),
])
def test_f1_of_one_class(labels, predictions, value):
  assert metrics.f1(
      list(labels), list(predictions), positive="p") == pytest.approx(value)


@pytest.mark.parametrize("labels, predictions, value", [
  # Right 2 and 2, wrong 1 and 1: (2 * 2 - 1 * 1) / sqrt(3 * 3 * 3 * 3).
  ("pppnnn", "ppnpnn", 1 / 3),
  ("ppnn", "ppnn", 1.0),
  ("pn", "np", -1.0),
  # Three classes: (4 * 6 - 12) / sqrt((36 - 12) * (36 - 12)).
  ("aabbcc", "aabccb", 0.5),
  # All wrong, three classes: (0 * 3 - 3) / (9 - 3).
  ("abc", "bca", -0.5),
  # A class that only the predictions have: (1 * 2 - 1) / sqrt(2 * 2).
  ("ab", "ac", 0.5),
  ("ppnn", "pppp", 0.0),
  ("pppp", "ppnn", 0.0),
  ("pp", "pp", 0.0),
  # The product of these counts has more than 64 bits.
  ("pppnnn" * 20000, "ppnpnn" * 20000, 1 / 3),
])
def test_matthews_correlation(labels, predictions, value):
  assert metrics.matthews_correlation(
      list(labels), list(predictions)) == pytest.approx(value)


@pytest.mark.parametrize("x, y, pearson, spearman", [
  ([1, 2, 3], [10, 30, 20], 0.5, 0.5),
  ([1, 2, 3], [5, 3, 1], -1.0, -1.0),
  # Centred (-1, 0, 1) and (-4, -3, 7): 11 / sqrt(2 * 74).
  ([1, 2, 3], [0, 1, 11], 0.904194, 1.0),
  # Ranks 1, 2.5, 2.5, 4 and 1, 4, 2, 3: 3 / sqrt(4.5 * 5).
  ([1, 2, 2, 3], [1, 4, 2, 3], 0.632456, 0.632456),
  ([1, 2, 3], [7, 7, 7], 0.0, 0.0),
  # The mean of these is not 0.1 to the last bit.
  ([0.1, 0.1, 0.1], [1, 2, 3], 0.0, 0.0),
  ([5], [5], 0.0, 0.0),
  # Squares that no float64 can hold.
  ([1e-200, 2e-200, 3e-200], [1e200, 3e200, 2e200], 0.5, 0.5),
])
def test_correlations(x, y, pearson, spearman):
  assert metrics.pearson_correlation(x, y) == pytest.approx(pearson, abs=1e-6)
  assert metrics.spearman_correlation(x, y) == pytest.approx(
      spearman, abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "function", [metrics.pearson_correlation, metrics.spearman_correlation])
def test_correlations_need_finite_numbers(function, bad):
  with pytest.raises(ValueError, match="value 1 of y"):
    function([1, 2, 3], [1, bad, 3])


PAIRS = strategies.lists(
    strategies.tuples(*[strategies.integers(-20, 20)] * 2), min_size=1)


@hypothesis.given(PAIRS)
def test_what_does_not_depend_on_which_is_the_label(pairs):
  x, y = (list(column) for column in zip(*pairs, strict=True))
  for function in (
      metrics.matthews_correlation, metrics.pearson_correlation,
      metrics.spearman_correlation, lambda *xy: metrics.f1(*xy, positive=x[0])):
    assert function(x, y) == pytest.approx(function(y, x))
    assert -1.0 <= function(x, y) <= 1.0


@hypothesis.given(PAIRS)
def test_spearman_sees_only_the_order(pairs):
  x, y = zip(*pairs, strict=True)
  value = metrics.spearman_correlation(x, y)
  assert metrics.spearman_correlation(
      np.power(x, 3), np.exp(np.array(y) / 8)) == pytest.approx(value)
  assert metrics.spearman_correlation(
      np.negative(x), y) == pytest.approx(-value)


def test_multilabel_f1():
  labels = np.array([
    [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]], bool)
  predictions = np.array([
    [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
  # Right, predicted, labelled of each class: 2 2 3, 0 1 1, 0 0 0, 1 1 1.
  figures = metrics.multilabel_f1(labels, predictions)
  assert figures == pytest.approx({
    "micro_f1": 6 / 9, "macro_f1": (0.8 + 0 + 0 + 1) / 4, "exact_match": 0.5})


@pytest.mark.parametrize("labels, predictions", [
  ([[True]], [[True, False]]), ([True], [True]), ([[1]], [[1]]),
  ([[True]], [[0.7]]), (np.zeros([0, 3], bool), np.zeros([0, 3], bool)),
])
def test_multilabel_f1_needs_two_bool_arrays(labels, predictions):
  with pytest.raises(ValueError, match="two bool arrays"):
    metrics.multilabel_f1(labels, predictions)


@pytest.mark.parametrize("tags, found", [
  ("", []),
  ("O O", []),
  ("B-A I-A O B-B", [("A", 0, 1), ("B", 3, 3)]),
  ("B-A B-A I-A", [("A", 0, 0), ("A", 1, 2)]),
  # What IOB2 does not allow begins an entity.
  ("I-A I-A O I-A", [("A", 0, 1), ("A", 3, 3)]),
  ("B-A I-B I-A", [("A", 0, 0), ("B", 1, 1), ("A", 2, 2)]),
  ("B-A-B I-A-B I-A", [("A-B", 0, 1), ("A", 2, 2)]),
])
def test_entities(tags, found):
  assert metrics.entities(tags.split()) == found


@pytest.mark.parametrize("tag", [
  "", "o", "B", "B-", "I-", "-A", "E-A", "BI-A", "b-A", "O-A"])
def test_what_is_no_tag_is_refused_and_found(tag):
  with pytest.raises(ValueError, match=f"{tag!r} as tag 2"):
    metrics.entities(["O", "B-A", tag])
  assert metrics.check_iob2(["O", "B-A", tag]) == 2


@pytest.mark.parametrize("tags, wrong", [
  ("", None), ("O B-A I-A I-A B-A O B-B I-B", None),
  ("I-A", 0), ("B-A O I-A", 2), ("B-A I-B", 1), ("O B-A I-A I-B I-A", 3),
])
def test_check_iob2(tags, wrong):
  assert metrics.check_iob2(tags.split()) == wrong


# Labels, predictions; precision, recall, F1 and number of labelled entities
# as seqeval 1.2.2 computes them, on tags drawn at random.
SEQEVAL = [
  ("B-PER O I-LOC B-LOC", "B-PER O B-A-B O", 0.5, 0.333333, 0.4, 3),
  ("O B-PER O I-LOC I-A-B B-PER I-PER", "O B-PER O I-LOC O B-PER I-PER",
   1.0, 0.75, 0.857143, 4),
  ("I-LOC B-A-B O I-LOC", "I-LOC B-A-B B-LOC B-LOC", 0.75, 1.0, 0.857143, 3),
  ("I-PER I-PER B-PER I-A-B B-PER B-A-B I-A-B",
   "I-PER I-PER B-PER B-A-B B-PER O I-A-B", 0.8, 0.8, 0.8, 5),
  ("B-PER I-A-B I-PER B-PER B-LOC B-LOC O",
   "O I-LOC I-A-B B-PER I-LOC B-LOC O", 0.6, 0.5, 0.545455, 6),
  ("I-PER B-LOC B-A-B B-A-B", "I-PER I-PER B-A-B I-PER",
   0.333333, 0.25, 0.285714, 4),
  ("B-A-B I-PER O B-LOC I-PER B-PER I-LOC",
   "B-A-B I-PER B-PER B-LOC I-PER O I-LOC", 0.833333, 0.833333, 0.833333, 6),
]


@pytest.mark.parametrize(
    "labels, predictions, precision, recall, f1, support", SEQEVAL)
def test_entity_f1_is_that_of_seqeval(
    labels, predictions, precision, recall, f1, support):
  figures = metrics.entity_f1([labels.split()], [predictions.split()])
  del figures["types"]
  assert figures == pytest.approx(
      {"precision": precision, "recall": recall, "f1": f1,
       "support": support}, abs=1e-6)


def test_entity_f1_of_sentences_and_types():
  labels = [["B-A", "I-A"], ["B-A"], ["B-B", "O", "B-B"]]
  # The entity of the first sentence is cut short, one is of another type.
  predictions = [["B-A", "O"], ["I-A"], ["B-B", "O", "B-C"]]
  assert metrics.entity_f1(labels, predictions) == {
    "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 4,
    "types": {
      "A": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
      "B": {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2},
      "C": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }}


def test_entities_do_not_reach_over_sentences():
  whole = metrics.entity_f1([["B-A", "I-A"]], [["B-A", "I-A"]])
  parts = metrics.entity_f1([["B-A"], ["I-A"]], [["B-A"], ["I-A"]])
  assert (whole["support"], parts["support"]) == (1, 2)


@hypothesis.given(strategies.lists(strategies.lists(strategies.sampled_from(
    ["O", "B-A", "I-A", "B-B", "I-B"])), min_size=1))
def test_entity_f1_of_equal_tags_is_1_where_there_are_entities(sentences):
  figures = metrics.entity_f1(sentences, sentences)
  has_entities = any(tag != "O" for tags in sentences for tag in tags)
  assert figures["f1"] == figures["recall"] == float(has_entities)
  assert figures["support"] == sum(
      kind["support"] for kind in figures["types"].values())
  # Without a wrong tag, the "B-" are counted, and nothing else.
  if all(metrics.check_iob2(tags) is None for tags in sentences):
    assert figures["support"] == sum(
        tag.startswith("B") for tags in sentences for tag in tags)


@pytest.mark.parametrize("labels, predictions, message", [
  ([], [], "at least one"),
  ([["O"]], [["O"], ["O"]], "1 sentences of labels and 2"),
  ([["O"], ["O", "O"]], [["O"], ["O"]], "Sentence 1 .* 2 labels and 1"),
])
def test_sentences_of_other_lengths_are_refused(labels, predictions, message):
  with pytest.raises(ValueError, match=message):
    metrics.entity_f1(labels, predictions)
