"""Evaluation metrics on labels and predictions; numpy, no TensorFlow."""

from collections.abc import Sequence

import numpy as np


def _as_arrays(labels: Sequence, predictions: Sequence):
  labels, predictions = np.asarray(labels), np.asarray(predictions)
  if labels.shape != predictions.shape or labels.ndim != 1 or not labels.size:
    raise ValueError(
        f"Received {labels.shape} labels and {predictions.shape} "
        "predictions; must be two lists of the same length, not empty.")
  return labels, predictions


def accuracy(labels: Sequence, predictions: Sequence) -> float:
  """Share of predictions that equal their label.

  >>> accuracy(["a", "b", "b", "b"], ["a", "b", "b", "a"])
  0.75
  """
  labels, predictions = _as_arrays(labels, predictions)
  return float(np.mean(labels == predictions))


def balanced_accuracy(labels: Sequence, predictions: Sequence) -> float:
  """Mean over the classes among the labels of each class's recall.

  >>> balanced_accuracy(["a", "b", "b", "b"], ["a", "b", "b", "a"])
  0.8333333333333333
  """
  labels, predictions = _as_arrays(labels, predictions)
  recalls = [
    np.mean(predictions[labels == label] == label)
    for label in np.unique(labels)
  ]
  return float(np.mean(recalls))
