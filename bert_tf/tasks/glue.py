"""GLUE, from the files that its authors give.

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
from bert_tf.finetuning import Columns
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.tasks import classification


class _Files(NamedTuple):
  """Where a task's rows are: names of files and of their columns."""

  text: str
  text_pair: str | None
  label: str
  # Columns by their names in test.tsv, where they are not those of the others.
  test_text: str | None = None
  dev: str = "dev.tsv"
  test: str = "test.tsv"
  train: str = "train.tsv"


def _reader(table: _Files) -> Callable[..., Columns | None]:

  def read(config: FinetuningConfig, split: str) -> Columns | None:
    path = os.path.join(
        classification.data_folder(config), getattr(table, split))
    if not files.exists(path):
      return None
    columns = {"text": table.text}
    if split == "test":
      columns["text"] = table.test_text or table.text
    else:
      columns["label"] = table.label
    if table.text_pair:
      columns["text_pair"] = table.text_pair
    rows = read_columns(
        path, list(columns.values()), on_bad_utf8=config.on_bad_utf8)
    return renamed(rows, columns)

  return read


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
      classification.TASK, read=_reader(_Files(*args, **kwargs)),
      metrics=classification.class_metrics(*more), best_metric=best,
      predictions=_predictions(name, classification.TASK))


_MNLI = ("sentence1", "sentence2", "gold_label")

TASKS = {
  "cola": _classes(
      "CoLA", "3", None, "1", test_text="sentence", more=[_matthews],
      best="matthews_correlation"),
  "sst-2": _classes("SST-2", "sentence", None, "label"),
  "mrpc": _classes(
      "MRPC", "#1 String", "#2 String", "Quality", more=[_f1], best="f1"),
  "sts-b": dataclasses.replace(
      classification.REGRESSION,
      read=_reader(_Files("sentence1", "sentence2", "score")),
      predictions=_predictions("STS-B", classification.REGRESSION)),
  "qqp": _classes(
      "QQP", "question1", "question2", "is_duplicate", more=[_f1], best="f1"),
  "mnli": _classes(
      "MNLI-m", *_MNLI, dev="dev_matched.tsv", test="test_matched.tsv"),
  "mnli-mm": _classes(
      "MNLI-mm", *_MNLI, dev="dev_mismatched.tsv", test="test_mismatched.tsv"),
  # The diagnostic rows, for a model that was trained on MNLI.
  "ax": _classes(
      "AX", *_MNLI, dev="dev_matched.tsv", test="diagnostic.tsv"),
  "qnli": _classes("QNLI", "question", "sentence", "label"),
  "rte": _classes("RTE", "sentence1", "sentence2", "label"),
  "wnli": _classes("WNLI", "sentence1", "sentence2", "label"),
}
