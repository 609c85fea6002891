"""XNLI: does one sentence follow from another, in 15 languages.

Conneau et al. 2018, from the files that the original's run_classifier.py
reads: training rows are MultiNLI's, translated by machine, a file for each
language; dev and test rows were translated by people, all languages in one
file.
"""

import dataclasses
import os
from typing import Any

from bert_tf import files
from bert_tf.config import require
from bert_tf.data.tables import read_columns
from bert_tf.data.tables import renamed
from bert_tf.finetuning import Columns
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.tasks import classification


def _train_language(config: FinetuningConfig) -> str:
  return config.train_language or config.language


def _read_train(config: FinetuningConfig, folder: str) -> Columns:
  language = _train_language(config)
  path = os.path.join(folder, "multinli", f"multinli.train.{language}.tsv")
  require(
      files.exists(path),
      f"{path}: no such file. --train_language, or else --language, must be "
      f"one of those whose files are there; received {language!r}.")
  columns = {"text": "premise", "text_pair": "hypo", "label": "label"}
  rows = renamed(read_columns(
      path, list(columns.values()), on_bad_utf8=config.on_bad_utf8), columns)
  # The other files say "contradiction".
  rows["label"] = [
    "contradiction" if label == "contradictory" else label
    for label in rows["label"]]
  return rows


def _read(config: FinetuningConfig, split: str) -> Columns | None:
  folder = classification.data_folder(config)
  if split == "train":
    return _read_train(config, folder)
  path = os.path.join(folder, f"xnli.{split}.tsv")
  if not files.exists(path):
    return None
  # The test rows have their labels, too.
  columns = {"text": "sentence1", "text_pair": "sentence2",
             "label": "gold_label", "language": "language"}
  rows = renamed(read_columns(
      path, list(columns.values()), on_bad_utf8=config.on_bad_utf8), columns)
  languages = rows.pop("language")
  require(
      config.language in languages,
      f"--language: received {config.language!r}; {path} has rows in "
      f"{', '.join(sorted(set(languages)))}.")
  return {
    name: [value for value, language in zip(values, languages)
           if language == config.language]
    for name, values in rows.items()}


def _describe(config: FinetuningConfig, rows: Columns) -> dict[str, Any]:
  return {**classification.TASK.describe(config, rows),
          "train_language": _train_language(config)}


TASKS: dict[str, Task] = {
  "xnli": dataclasses.replace(
      classification.TASK, read=_read, describe=_describe)}
