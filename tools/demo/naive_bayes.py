"""Multinomial naive Bayes on word counts: the baseline beside BERT."""

import re
from collections.abc import Sequence

import numpy as np


def _words(text: str) -> list[str]:
  return re.findall(r"\w+", text.lower())


def naive_bayes_predictions(
    train_texts: Sequence[str], train_labels: Sequence[str],
    texts: Sequence[str],
) -> list[str]:
  """The most probable label of each text, by its lower-cased words.

  log P(label) + sum over words of log P(word | label), each estimated from
  the training texts with one added to every count of a word (Manning et al.
  2008, "Introduction to Information Retrieval", section 13.2). Words that no
  training text holds are passed over; of equal labels the first by name wins.

  >>> naive_bayes_predictions(["a tensor", "a file"], ["x", "y"], ["The file"])
  ['y']
  """
  labels = sorted(set(train_labels))
  vocabulary = {
    word: i for i, word in enumerate(
        dict.fromkeys(word for text in train_texts for word in _words(text)))
  }
  counts = np.ones((len(labels), len(vocabulary)))  # [labels, words]
  texts_of_label = np.zeros(len(labels))
  for text, label in zip(train_texts, train_labels, strict=True):
    row = labels.index(label)
    texts_of_label[row] += 1
    columns = [vocabulary[word] for word in _words(text)]
    counts[row] += np.bincount(
        np.array(columns, int), minlength=len(vocabulary))
  log_prior = np.log(texts_of_label / texts_of_label.sum())
  log_likelihood = np.log(counts / counts.sum(axis=1, keepdims=True))
  predictions = []
  for text in texts:
    columns = [vocabulary[word] for word in _words(text) if word in vocabulary]
    scores = log_prior + log_likelihood[:, columns].sum(axis=1)
    predictions.append(labels[int(scores.argmax())])
  return predictions
