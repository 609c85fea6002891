"""Metrics by hand."""

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
