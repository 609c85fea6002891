"""Classification of single texts (Devlin et al. 2019, section 4.1).

A linear layer over the pooled output, or over a bidirectional LSTM. Rows: a
text and a label each.
"""

import os

import numpy as np
import tensorflow as tf

from bert_tf import files
from bert_tf import finetuning
from bert_tf import losses
from bert_tf import metrics
from bert_tf.arguments import FinetuningConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.tables import read_columns
from bert_tf.heads import BertClassifier


def _read(config: FinetuningConfig, split: str):
  path = os.path.join(config.data_dir, f"{split}.tsv")
  if not files.exists(path):
    return None
  # The labels of a test set are often kept back.
  columns = [config.text_column]
  if split != "test":
    columns.append(config.label_column)
  rows = read_columns(path, columns, on_bad_utf8=config.on_bad_utf8)
  read = {"text": rows[config.text_column], "where": rows["where"]}
  if split != "test":
    read["label"] = rows[config.label_column]
  return read


def _describe(config: FinetuningConfig, rows) -> dict:
  labels = sorted(set(rows["label"]))
  require(
      len(labels) > 1,
      f"{config.data_dir}: all rows of train.tsv have the label "
      f"{labels[0]!r}; a classifier needs two or more.")
  # Only what is not the rule, so that other readers know all the keys.
  head = {} if config.head == "linear" else {"head": config.head}
  return {"labels": labels, **head}


def _make_model(bert_config: BertConfig, description: dict, **kwargs):
  return BertClassifier(
      bert_config, num_classes=len(description["labels"]),
      head=description.get("head", "linear"), **kwargs)


def _targets(description: dict, rows) -> dict[str, np.ndarray]:
  if "label" not in rows:
    return {}
  numbers = {label: i for i, label in enumerate(description["labels"])}
  for where, label in zip(rows["where"], rows["label"]):
    if label not in numbers:
      raise InputError(
          f"{where}: has the label {label!r}, which no training row has; "
          f"they have {', '.join(numbers)}. Mend the label, or train with "
          "examples of it.")
  return {"label": np.array([numbers[x] for x in rows["label"]], np.int32)}


def _log_softmax(logits: np.ndarray) -> np.ndarray:
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _metrics(description: dict, targets, outputs) -> dict[str, float]:
  del description
  labels, logits = targets["label"], outputs["logits"]
  predictions = logits.argmax(-1)
  log_likelihood = _log_softmax(logits)[np.arange(len(labels)), labels]
  return {
    "loss": float(-log_likelihood.mean()),
    "accuracy": metrics.accuracy(labels, predictions),
    "balanced_accuracy": metrics.balanced_accuracy(labels, predictions),
  }


def _predictions(description: dict, rows, outputs):
  labels = description["labels"]
  has_labels = "label" in rows
  yield ["prediction", *(["label"] if has_labels else []),
         *(f"probability:{label}" for label in labels), "text"]
  probabilities = np.exp(_log_softmax(outputs["logits"]))
  for i, row in enumerate(probabilities):
    yield [labels[row.argmax()], *([rows["label"][i]] if has_labels else []),
           *(f"{value:.6f}" for value in row), rows["text"][i]]


def _signatures(model, tokenizer, description: dict):
  """text [B] -> label string [B], probabilities and logits [B, C]."""
  labels = tf.constant(description["labels"])

  @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
  def classify(text):
    inputs = tokenizer(text, max_seq_length=description["max_seq_length"])
    logits = model(inputs, training=False)["logits"]
    return {
      "label": tf.gather(labels, tf.argmax(logits, axis=-1)),
      "probabilities": tf.nn.softmax(logits),
      "logits": logits,
    }

  return {"serving_default": classify}


TASK = finetuning.Task(
    read=_read,
    describe=_describe,
    targets=_targets,
    make_model=_make_model,
    objective=losses.CLASSIFICATION,
    metrics=_metrics,
    predictions=_predictions,
    signatures=_signatures,
    head=("output_", "bilstm/"))
