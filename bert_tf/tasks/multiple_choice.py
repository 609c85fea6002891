"""Which of several choices goes on best from a text: SWAG and its like.

Devlin et al. 2019, section 4.4: an example is one sequence for each choice,
the text as A and the choice as B, and a softmax over the scores of their
pooled outputs.

Shapes: B texts, E examples, N choices, S sequence length.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf

from bert_tf import examples
from bert_tf import files
from bert_tf import losses
from bert_tf import metrics
from bert_tf import serving
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.tables import read_columns
from bert_tf.data.tables import renamed
from bert_tf.data.tfds_rows import read_tfds
from bert_tf.finetuning import Columns
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.heads import BertMultipleChoice
from bert_tf.tasks.classification import data_folder
from bert_tf.tasks.classification import find_table
from bert_tf.tasks.classification import log_softmax
from bert_tf.tasks.classification import results_text
from bert_tf.tasks.classification import table_text

# The field of JSON Lines, or the feature of TFDS, that holds all choices.
_LIST = "choices"


def _check_choices(choices: Sequence[Any], wheres: Sequence[str]) -> None:
  """All rows have the same number of texts, two or more."""
  for choices_of_row, where in zip(choices, wheres, strict=True):
    require(
        isinstance(choices_of_row, list) and len(choices_of_row) > 1
        and all(isinstance(choice, str) for choice in choices_of_row),
        f"{where}: has the choices {choices_of_row!r}; they must be a list of "
        "two texts or more.")
    number, first = len(choices_of_row), len(choices[0])
    require(
        number == first,
        f"{where}: has {number} choices, the first row ({wheres[0]}) has "
        f"{first}; all rows of a file must have as many.")


def _answers(rows: Columns) -> list[int]:
  """The numbers of the right choices, [E]."""
  answers = []
  for label, choices, where in zip(
      rows["label"], rows["choices"], rows["where"], strict=True):
    known = [str(i) for i in range(len(choices))]
    if not isinstance(label, str) or label.strip() not in known:
      raise InputError(
          f"{where}: has the label {label!r}; it must be the number of the "
          f"right choice, from 0 to {known[-1]}.")
    answers.append(int(label))
  return answers


def _gathered(
    found: Columns, columns: dict[str, str], choice_columns: Sequence[str]
) -> Columns:
  """Rows of `columns`, and `choices`: a list for each row."""
  rows = renamed(found, columns)
  if len(choice_columns) == 1:
    rows["choices"] = found[choice_columns[0]]
  else:
    rows["choices"] = list(map(
        list, zip(*(found[column] for column in choice_columns))))
  for text, where in zip(rows["text"], rows["where"], strict=True):
    require(isinstance(text, str), f"{where}: has the text {text!r}; it must "
            "be a text and no list.")
  _check_choices(rows["choices"], rows["where"])
  return rows


def _read_table(
    config: FinetuningConfig, path: str, columns: dict[str, str],
    choice_columns: Sequence[str]
) -> Columns:
  return _gathered(read_columns(
      path, [*columns.values(), *choice_columns],
      on_bad_utf8=config.on_bad_utf8), columns, choice_columns)


def _read(config: FinetuningConfig, split: str) -> Columns | None:
  columns = {"text": config.text_column}
  if split != "test":  # The labels of a test set are often kept back.
    columns["label"] = config.label_column
  named = list(config.choice_columns) or [_LIST]
  if config.tfds_name:
    # The label is the number of a choice, whatever names the classes have.
    found = read_tfds(
        config.tfds_name, split, [*columns.values(), *named], by_number=True,
        **config.tfds_options)
    return found and _gathered(found, columns, named)
  path = find_table(data_folder(config), split)
  if path is None:
    return None
  require(
      len(named) > 1 or path.endswith(".jsonl"),
      f"{path}: name the columns of the choices, two or more, such as "
      "--choice_columns=a,b,c,d; received "
      f"{', '.join(config.choice_columns) or 'none'}. Only a .jsonl file has "
      "them in one field.")
  return _read_table(config, path, columns, named)


def _read_swag(config: FinetuningConfig, split: str) -> Columns | None:
  """The files of Zellers et al. 2018: `sent2` is how each ending starts."""
  name = {"dev": "val"}.get(split, split)
  path = os.path.join(data_folder(config), f"{name}.csv")
  if not files.exists(path):
    return None
  columns = {"text": "sent1", "start": "sent2"}
  if split != "test":
    columns["label"] = "label"
  rows = _read_table(
      config, path, columns, [f"ending{i}" for i in range(4)])
  starts = rows.pop("start")
  rows["choices"] = [
    [f"{start} {ending}" for ending in endings]
    for start, endings in zip(starts, rows["choices"])]
  return rows


def _read_codah(config: FinetuningConfig, split: str) -> Columns | None:
  """The files of Chen et al. 2019: category, prompt, four endings, label."""
  path = os.path.join(data_folder(config), f"{split}.tsv")
  if not files.exists(path):
    return None
  return _read_table(
      config, path, {"text": "1", "label": "6"}, ["2", "3", "4", "5"])


def _describe(config: FinetuningConfig, rows: Columns) -> dict[str, Any]:
  del config, rows  # The model takes any number of choices.
  return {}


def _encode(tokenizer, description, rows: Columns) -> examples.Examples:
  number = len(rows["choices"][0])
  pieces = examples.tokenize(
      tokenizer, [text for text in rows["text"] for _ in range(number)],
      [choice for choices in rows["choices"] for choice in choices],
      max_seq_length=description["max_seq_length"])
  targets = {}
  if "label" in rows:
    targets["label"] = np.array(_answers(rows), np.int32)
  return examples.Examples(pieces, targets, choices=number)


def _make_model(bert_config, description, **kwargs) -> BertMultipleChoice:
  del description
  return BertMultipleChoice(bert_config, **kwargs)


def _metrics(description, rows, encoded, outputs) -> dict[str, float]:
  labels, logits = encoded.targets["label"], outputs["logits"]  # [E], [E, N]
  log_likelihood = log_softmax(logits)[np.arange(len(labels)), labels]
  return {"loss": float(-log_likelihood.mean()),
          "accuracy": metrics.accuracy(labels, logits.argmax(-1))}


def _predictions(description, rows: Columns, encoded, outputs):
  logits = outputs["logits"]
  probabilities = np.exp(log_softmax(logits))
  columns = {"prediction": [str(i) for i in logits.argmax(-1)]}
  if "label" in encoded.targets:
    columns["label"] = [str(i) for i in encoded.targets["label"]]
  for i in range(logits.shape[1]):
    columns[f"probability:{i}"] = [f"{x:.6f}" for x in probabilities[:, i]]
  columns["text"] = rows["text"]
  for i in range(logits.shape[1]):
    columns[f"choice:{i}"] = [choices[i] for choices in rows["choices"]]
  return {"predictions.tsv": table_text(list(columns), columns.values()),
          "test_results.tsv": results_text(probabilities)}


def _signatures(model, tokenizer, description):
  """text [B], choices [B, N] -> choice [B], and scores [B, N] of each.

  Pieces that are already made come as [B, N, S].
  """
  infer = serving.inference(model, rank=3)

  def outputs_of(inputs):
    logits = infer(inputs)["logits"]
    return {
      "choice": tf.argmax(logits, axis=-1, output_type=tf.int32),
      "probabilities": tf.nn.softmax(logits), "logits": logits}

  @tf.function(autograph=False, input_signature=[
    tf.TensorSpec([None], tf.string, name="text"),
    tf.TensorSpec([None, None], tf.string, name="choices")])
  def answer(text, choices):
    text = tf.ensure_shape(text, [None])
    batch, number = tf.unstack(tf.shape(tf.ensure_shape(choices, [None, None])))
    inputs = tokenizer(
        tf.repeat(text, number), tf.reshape(choices, [-1]),
        max_seq_length=description["max_seq_length"])
    length = tf.shape(inputs["input_ids"])[1]
    return outputs_of({
      name: tf.reshape(value, tf.stack([batch, number, length]))  # [B, N, S]
      for name, value in inputs.items()})

  return {
    "serving_default": answer,
    "pre_tokenized": serving.of_pieces(model.config, outputs_of, rank=3)}


TASK = Task(
    kind="multiple_choice",
    read=_read,
    describe=_describe,
    encode=_encode,
    make_model=_make_model,
    objective=losses.CLASSIFICATION,
    metrics=_metrics,
    predictions=_predictions,
    signatures=_signatures,
    head=("output_",),
    best_metric="accuracy",
    # What the paper took for SWAG.
    defaults={"learning_rate": 2e-5, "train_batch_size": 16})

TASKS = {
  "multiple_choice": TASK,
  "swag": dataclasses.replace(TASK, read=_read_swag),
  "codah": dataclasses.replace(TASK, read=_read_codah),
}
