"""GLUE, from the files that its authors give, or from TFDS.

Wang et al. 2019; Devlin et al. 2019, section 4.1. WNLI is there, although the
paper leaves it out (its dev rows contradict its training rows). Predictions
come as the leaderboard takes them, too: `CoLA.tsv` and so on, to be zipped.
"""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import os
from typing import NamedTuple

import numpy as np

from bert_tf import files
from bert_tf import metrics
from bert_tf.data.tables import read_columns
from bert_tf.data.tables import renamed
from bert_tf.data.tfds_rows import read_tfds
from bert_tf.finetuning import Columns
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.tasks import classification


class _Source(NamedTuple):
  """Where a task's rows are: names of files and columns, and in TFDS."""

  text: str
  text_pair: str | None
  label: str
  # Columns by their names in test.tsv, where they are not those of the others.
  test_text: str | None = None
  dev: str = "dev.tsv"
  test: str = "test.tsv"
  train: str = "train.tsv"
  # TFDS's names of the texts, where they are not those of the columns.
  features: tuple[str, ...] = ()
  # Labels are 0 and 1 in the files, and have names in TFDS.
  by_number: bool = False
  # Endings of TFDS's splits.
  suffixes: tuple[str, ...] = ("",)


def _read_files(
    source: _Source, config: FinetuningConfig, split: str) -> Columns | None:
  path = os.path.join(
      classification.data_folder(config), getattr(source, split))
  if not files.exists(path):
    return None
  columns = {"text": source.text}
  if split == "test":
    columns["text"] = source.test_text or source.text
  else:
    columns["label"] = source.label
  if source.text_pair:
    columns["text_pair"] = source.text_pair
  rows = read_columns(
      path, list(columns.values()), on_bad_utf8=config.on_bad_utf8)
  return renamed(rows, columns)


def _read_features(
    source: _Source, config: FinetuningConfig, split: str) -> Columns | None:
  """The same of TFDS: as the files have them, and in their order."""
  names = source.features or (source.text, source.text_pair)
  columns = {
    ours: name for ours, name in zip(("text", "text_pair"), names) if name}
  if split != "test":  # There the labels are -1, or 0.
    columns["label"] = "label"
  rows = read_tfds(
      config.tfds_name, split, [*columns.values(), "idx"],
      suffixes=source.suffixes, by_number=source.by_number,
      **config.tfds_options)
  if rows is None:
    return None
  # TFDS mixes the rows; the leaderboard takes them as they are in the file.
  order = np.argsort([int(number) for number in rows["idx"]], kind="stable")
  return {name: [values[i] for i in order]
          for name, values in renamed(rows, columns).items()}


def _reader(source: _Source) -> Callable[..., Columns | None]:
  return lambda config, split: (
    _read_features if config.tfds_name else _read_files)(source, config, split)


def _f1(labels, predictions) -> dict[str, float]:
  return {"f1": metrics.f1(labels, predictions, positive=1)}


def _matthews(labels, predictions) -> dict[str, float]:
  return {"matthews_correlation":
              metrics.matthews_correlation(labels, predictions)}


def _submission(lines: Iterable[str]) -> str:
  """As GLUE's leaderboard takes it."""
  return "index\tprediction\n" + "".join(
      f"{i}\t{line}\n" for i, line in enumerate(lines))


def _predictions(name: str, task: Task) -> Callable[..., dict[str, str]]:
  """`Task.predictions`, with the file for the leaderboard."""

  def predict(description, rows, encoded, outputs) -> dict[str, str]:
    written = task.predictions(description, rows, encoded, outputs)
    if task.kind == "regression":  # Similarities are from 0 to 5.
      numbers = np.clip(outputs["logits"][:, 0], 0, 5)
      answers = [f"{x:.3f}" for x in numbers]
    else:
      answers = [description["labels"][i]
                 for i in outputs["logits"].argmax(-1)]
    return {**written, f"{name}.tsv": _submission(answers)}

  return predict


def _classes(name: str, *args, more=(), best="accuracy", **kwargs) -> Task:
  return dataclasses.replace(
      classification.TASK, read=_reader(_Source(*args, **kwargs)),
      metrics=classification.class_metrics(*more), best_metric=best,
      predictions=_predictions(name, classification.TASK))


_MNLI = ("sentence1", "sentence2", "gold_label")
_MNLI_FEATURES = ("premise", "hypothesis")

TASKS = {
  "cola": _classes(
      "CoLA", "3", None, "1", test_text="sentence", features=("sentence",),
      by_number=True, more=[_matthews], best="matthews_correlation"),
  "sst-2": _classes("SST-2", "sentence", None, "label", by_number=True),
  "mrpc": _classes(
      "MRPC", "#1 String", "#2 String", "Quality",
      features=("sentence1", "sentence2"), by_number=True, more=[_f1],
      best="f1"),
  "sts-b": dataclasses.replace(
      classification.REGRESSION,
      read=_reader(_Source("sentence1", "sentence2", "score")),
      predictions=_predictions("STS-B", classification.REGRESSION)),
  "qqp": _classes(
      "QQP", "question1", "question2", "is_duplicate", by_number=True,
      more=[_f1], best="f1"),
  "mnli": _classes(
      "MNLI-m", *_MNLI, dev="dev_matched.tsv", test="test_matched.tsv",
      features=_MNLI_FEATURES, suffixes=("_matched", "")),
  "mnli-mm": _classes(
      "MNLI-mm", *_MNLI, dev="dev_mismatched.tsv", test="test_mismatched.tsv",
      features=_MNLI_FEATURES, suffixes=("_mismatched", "")),
  # The diagnostic rows, for a model that was trained on MNLI.
  "ax": _classes(
      "AX", *_MNLI, dev="dev_matched.tsv", test="diagnostic.tsv",
      features=_MNLI_FEATURES),
  "qnli": _classes("QNLI", "question", "sentence", "label"),
  "rte": _classes("RTE", "sentence1", "sentence2", "label"),
  "wnli": _classes(
      "WNLI", "sentence1", "sentence2", "label", by_number=True),
}
