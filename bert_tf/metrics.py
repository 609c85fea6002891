"""Evaluation metrics on labels and predictions; numpy, no TensorFlow."""

from collections.abc import Sequence
import math

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


def _f1_of_counts(right: int, predicted: int, labelled: int) -> float:
  """F1 of numbers of positives; 0.0 if there are none of either kind."""
  total = int(predicted) + int(labelled)
  return 2 * int(right) / total if total else 0.0


def f1(labels: Sequence, predictions: Sequence, *, positive) -> float:
  """F1 of one class (MRPC, QQP): 0 to 1, harmonic mean of its two shares.

  These are precision, the share of right ones among the predictions of
  `positive`, and recall, the share of its labels that were found. Where no
  label and no prediction is `positive`, F1 is 0.0 and not undefined. Source:
  van Rijsbergen, Information Retrieval (1979), chapter 7.

  >>> f1([1, 1, 1, 0], [1, 1, 0, 1], positive=1)
  0.6666666666666666
  """
  labels, predictions = _as_arrays(labels, predictions)
  labelled, predicted = labels == positive, predictions == positive
  return _f1_of_counts(
      np.sum(labelled & predicted), np.sum(predicted), np.sum(labelled))


def matthews_correlation(labels: Sequence, predictions: Sequence) -> float:
  """Matthews' correlation coefficient (CoLA) of two classes or more.

  1: all right; 0: no better than chance; -1 with two classes: all wrong (with
  more, the least value is between -1 and 0). 0.0 where it is undefined: all
  labels, or all predictions, are the same. Source: Gorodkin, Comparing two
  K-category assignments by a K-category correlation coefficient (2004), which
  for two classes is Matthews' of 1975.

  >>> matthews_correlation([1, 1, 1, 0], [1, 1, 1, 1])
  0.0
  >>> matthews_correlation([1, 1, 0, 0], [1, 0, 0, 0])
  0.5773502691896258
  """
  labels, predictions = _as_arrays(labels, predictions)
  classes = np.unique(np.concatenate([labels, predictions]))
  # Python's integers: the product of four counts outgrows 64 bits.
  rows, right = len(labels), int(np.sum(labels == predictions))
  labelled = [int(np.sum(labels == name)) for name in classes]
  predicted = [int(np.sum(predictions == name)) for name in classes]
  covariance = right * rows - sum(
      l * p for l, p in zip(labelled, predicted, strict=True))
  variances = ((rows ** 2 - sum(n ** 2 for n in labelled))
               * (rows ** 2 - sum(n ** 2 for n in predicted)))
  return covariance / math.sqrt(variances) if variances else 0.0


def _as_numbers(x: Sequence, y: Sequence):
  x, y = _as_arrays(x, y)
  x, y = x.astype(np.float64), y.astype(np.float64)
  for name, values in (("x", x), ("y", y)):
    if not np.isfinite(values).all():
      row = int(np.argmin(np.isfinite(values)))
      raise ValueError(
          f"Received {values[row]} as value {row} of {name}; a correlation "
          "needs finite numbers.")
  return x, y


def _centred_unit(values: np.ndarray) -> np.ndarray:
  centred = values - values.mean()
  # The squares of very small or great numbers would not be representable.
  centred /= np.abs(centred).max()
  return centred / np.linalg.norm(centred)


def pearson_correlation(x: Sequence[float], y: Sequence[float]) -> float:
  """Pearson's correlation (STS-B): 1 and -1 on a line, 0 unrelated.

  0.0 where it is undefined: all values of `x`, or of `y`, are the same, and
  tell nothing of the other. Numbers that are not finite are a ValueError.
  Source: Pearson, Proceedings of the Royal Society 58 (1895).

  >>> round(pearson_correlation([1, 2, 3, 4], [1, 2, 3, 10]), 4)
  0.8854
  """
  x, y = _as_numbers(x, y)
  # Compared, for the mean of equal numbers may differ from them in a bit.
  if x.min() == x.max() or y.min() == y.max():
    return 0.0
  # Rounding must not lead out of the range.
  return float(np.clip(_centred_unit(x) @ _centred_unit(y), -1.0, 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
  """Ranks from 1 on; equal values share the mean of their ranks."""
  _, places, counts = np.unique(
      values, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[places]


def spearman_correlation(x: Sequence[float], y: Sequence[float]) -> float:
  """Spearman's rank correlation (STS-B): -1 to 1, Pearson's of the ranks.

  1: `y` grows wherever `x` grows. Equal values share the mean of their ranks.
  0.0 where all values of `x`, or of `y`, are the same. Source: Spearman, The
  proof and measurement of association between two things (1904).

  >>> spearman_correlation([1, 2, 3, 4], [1, 2, 3, 10])
  1.0
  >>> round(spearman_correlation([1, 2, 2, 3], [10, 40, 20, 30]), 4)
  0.6325
  """
  x, y = _as_numbers(x, y)
  return pearson_correlation(_ranks(x), _ranks(y))


def multilabel_f1(
    labels: Sequence, predictions: Sequence) -> dict[str, float]:
  """F1 over all cells and over classes, and the share of rows all right.

  All are 0 to 1. `micro_f1` counts every cell alike; `macro_f1` is the mean
  of the classes' F1, in which a class that no row has and none predicts counts
  0.0; `exact_match` is the share of rows with every class right. Source:
  Sebastiani, Machine learning in automated text categorization (2002), section
  7.1.

  Args:
    labels: Bool [rows, classes]: whether the row has the class.
    predictions: The same, as predicted.

  >>> multilabel_f1([[True, False], [True, True]],
  ...               [[True, False], [False, True]])
  {'micro_f1': 0.8, 'macro_f1': 0.8333333333333333, 'exact_match': 0.5}
  """
  labels, predictions = np.asarray(labels), np.asarray(predictions)
  if (labels.shape != predictions.shape or labels.ndim != 2 or not labels.size
      or labels.dtype != bool or predictions.dtype != bool):
    raise ValueError(
        f"Received labels {labels.dtype} {labels.shape} and predictions "
        f"{predictions.dtype} {predictions.shape}; must be two bool arrays "
        "[rows, classes] of the same shape, not empty.")
  right = np.sum(labels & predictions, axis=0)  # [classes]
  predicted = np.sum(predictions, axis=0)
  labelled = np.sum(labels, axis=0)
  by_class = [_f1_of_counts(*counts)
              for counts in zip(right, predicted, labelled, strict=True)]
  return {
    "micro_f1": _f1_of_counts(right.sum(), predicted.sum(), labelled.sum()),
    "macro_f1": float(np.mean(by_class)),
    "exact_match": float(np.mean(np.all(labels == predictions, axis=1))),
  }


def _split_tag(tag: str) -> tuple[str, str] | None:
  """("B", "PER") of "B-PER", ("O", "") of "O"; None: it is no IOB2 tag."""
  kind, _, name = tag.partition("-")
  if tag == "O" or (kind in ("B", "I") and name):
    return kind, name
  return None


def check_iob2(tags: Sequence[str]) -> int | None:
  """Index of the first wrong tag of a sentence in IOB2; None: all are right.

  Wrong is what is not "O", "B-" or "I-" with a type, and an "I-" that does
  not stand after a "B-" or "I-" of its type. Source: Tjong Kim Sang and
  Veenstra, Representing text chunks (1999).

  >>> check_iob2(["B-PER", "I-PER", "O", "B-LOC"])
  >>> check_iob2(["B-PER", "I-LOC", "O", "I-LOC"])
  1
  """
  previous = ""
  for i, tag in enumerate(tags):
    parts = _split_tag(tag)
    if parts is None or (parts[0] == "I" and parts[1] != previous):
      return i
    previous = parts[1]
  return None


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
  """The entities of a sentence's IOB2 tags: (type, first, last) of each.

  Reads what a model says as `conlleval` does: an "I-" after "O" or after
  another type begins an entity too. A tag that is not "O", "B-" or "I-" with
  a type is a ValueError. Source: Tjong Kim Sang and De Meulder, Introduction
  to the CoNLL-2003 shared task (2003).

  >>> entities(["B-PER", "I-PER", "B-PER", "O", "I-LOC"])
  [('PER', 0, 1), ('PER', 2, 2), ('LOC', 4, 4)]
  """
  found = []
  previous = ""
  for i, tag in enumerate(tags):
    parts = _split_tag(tag)
    if parts is None:
      raise ValueError(
          f"Received {tag!r} as tag {i} (the first is 0); a tag must be "
          "\"O\", or \"B-\" or \"I-\" with a type.")
    kind, name = parts
    if kind == "I" and name == previous:
      found[-1] = (name, found[-1][1], i)
    elif kind != "O":
      found.append((name, i, i))
    previous = name
  return found


def _entities_of_all(sentences: Sequence[Sequence[str]]) -> set:
  return {(name, sentence, first, last)
          for sentence, tags in enumerate(sentences)
          for name, first, last in entities(tags)}


def _entity_figures(labelled: set, predicted: set) -> dict:
  right = len(labelled & predicted)
  return {
    "precision": right / len(predicted) if predicted else 0.0,
    "recall": right / len(labelled) if labelled else 0.0,
    "f1": _f1_of_counts(right, len(predicted), len(labelled)),
    "support": len(labelled),
  }


def entity_f1(labels: Sequence[Sequence[str]],
              predictions: Sequence[Sequence[str]]) -> dict:
  """Precision, recall and F1 over entities (CoNLL-2003), 0 to 1.

  An entity is right if its type, first and last token are. Entities are read
  as `entities` does. What has no entity to count is 0.0. The same as
  `conlleval` (there in percent) and seqeval's default. Source: Tjong Kim Sang
  and De Meulder, Introduction to the CoNLL-2003 shared task (2003), section
  2.3.

  Args:
    labels: IOB2 tags of each sentence.
    predictions: The same, as predicted. Other lengths are a ValueError.

  Returns:
    precision, recall, f1, support (the number of labelled entities) over all
    types, and under "types" the same four of every type, in order of names.

  >>> figures = entity_f1([["B-PER", "I-PER", "O", "B-LOC"]],
  ...                     [["B-PER", "I-PER", "O", "O"]])
  >>> figures["precision"], figures["recall"], figures["f1"]
  (1.0, 0.5, 0.6666666666666666)
  >>> figures["types"]["LOC"]
  {'precision': 0.0, 'recall': 0.0, 'f1': 0.0, 'support': 1}
  """
  if len(labels) != len(predictions) or not len(labels):
    raise ValueError(
        f"Received {len(labels)} sentences of labels and {len(predictions)} "
        "of predictions; must be as many, and at least one.")
  for i, (wanted, got) in enumerate(zip(labels, predictions, strict=True)):
    if len(wanted) != len(got):
      raise ValueError(
          f"Sentence {i} (the first is 0): received {len(wanted)} labels and "
          f"{len(got)} predictions; each token must have one of both.")
  labelled = _entities_of_all(labels)
  predicted = _entities_of_all(predictions)
  names = sorted({name for name, *_ in labelled | predicted})
  return {
    **_entity_figures(labelled, predicted),
    "types": {
      name: _entity_figures({x for x in labelled if x[0] == name},
                            {x for x in predicted if x[0] == name})
      for name in names},
  }
