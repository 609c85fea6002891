"""Classes, several labels or a number for texts and pairs of texts.

Devlin et al. 2019, section 4.1: a linear layer over the pooled output, or over
a bidirectional LSTM. Rows: a text, or two, and a label each.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import functools
import os
from typing import Any

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf import examples
from bert_tf import files
from bert_tf import losses
from bert_tf import metrics
from bert_tf import serving
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.tables import SUFFIXES
from bert_tf.data.tables import read_columns
from bert_tf.data.tables import renamed
from bert_tf.data.tfds_rows import read_tfds
from bert_tf.finetuning import Columns
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.heads import BertClassifier


def data_folder(config: FinetuningConfig) -> str:
  """`config.data_dir`, for tasks whose files lie there.

  Raises:
    InputError: it is not given, or a file is, which such tasks do not read.
  """
  require(
      config.tfds_name is None,
      f"--tfds_name: received {config.tfds_name} with --task_name="
      f"{config.task_name}, which reads files in --data_dir alone.")
  require(
      config.data_dir is not None,
      f"--data_dir: not given; --task_name={config.task_name} needs the "
      "folder of its files.")
  given = config.train_file or config.predict_file
  require(
      given is None,
      f"--train_file, --predict_file: received {given} with "
      f"--task_name={config.task_name}; they are for squad. Put the file into "
      "--data_dir.")
  return config.data_dir


def find_table(data_dir: str, split: str) -> str | None:
  """The file of a split, in the first of the known forms that is there."""
  for suffix in SUFFIXES:
    path = os.path.join(data_dir, split + suffix)
    if files.exists(path):
      return path
  return None


def _read(config: FinetuningConfig, split: str) -> Columns | None:
  columns = {"text": config.text_column}
  if config.text_pair_column:
    columns["text_pair"] = config.text_pair_column
  if split != "test":  # The labels of a test set are often kept back.
    columns["label"] = config.label_column
  if config.tfds_name:
    rows = read_tfds(
        config.tfds_name, split, list(columns.values()),
        **config.tfds_options)
  else:
    path = find_table(data_folder(config), split)
    rows = path and read_columns(
        path, list(columns.values()), on_bad_utf8=config.on_bad_utf8)
  return rows and renamed(rows, columns)


def _description(config: FinetuningConfig, rows: Columns) -> dict[str, Any]:
  """Only what is not the rule, so that other readers know all the keys."""
  found = {}
  if config.head != "linear":
    found["head"] = config.head
  if "text_pair" in rows:
    found["is_pair"] = True
  if config.doc_stride is not None:
    found["doc_stride"] = config.doc_stride
  return found


def _describe_classes(config: FinetuningConfig, rows: Columns):
  labels = sorted(set(rows["label"]))
  require(
      len(labels) > 1,
      f"{config.data_source}: all training rows have the label "
      f"{labels[0]!r}; a classifier needs two or more.")
  found = {"labels": labels, **_description(config, rows)}
  if config.class_weights == "balanced":
    counts = np.array([rows["label"].count(label) for label in labels])
    # So that the mean over the training rows is 1.
    weights = len(rows["label"]) / (len(labels) * counts)
    found["class_weights"] = [round(float(x), 6) for x in weights]
  return found


def _split_labels(value) -> list[str]:
  """Several labels in a cell: a list, or text with commas."""
  if isinstance(value, list):
    return [str(label) for label in value]
  return [label.strip() for label in value.split(",") if label.strip()]


def _describe_labels(config: FinetuningConfig, rows: Columns):
  labels = sorted({
    label for value in rows["label"] for label in _split_labels(value)})
  require(
      bool(labels), f"{config.data_source}: no training row has a label.")
  return {"labels": labels, **_description(config, rows)}


def _number_of(numbers: dict[str, int], label: str, where: str) -> int:
  if label not in numbers:
    raise InputError(
        f"{where}: has the label {label!r}, which no training row has; they "
        f"have {', '.join(numbers)}. Mend the label, or train with examples "
        "of it.")
  return numbers[label]


def _class_targets(description, rows: Columns):
  known = {label: i for i, label in enumerate(description["labels"])}
  numbers = np.array([
    _number_of(known, label, where)
    for where, label in zip(rows["where"], rows["label"])], np.int32)
  targets = {"label": numbers}
  if "class_weights" in description:
    targets["weight"] = np.float32(description["class_weights"])[numbers]
  return targets


def _label_targets(description, rows: Columns):
  known = {label: i for i, label in enumerate(description["labels"])}
  targets = np.zeros((len(rows["label"]), len(known)), np.float32)
  for i, (where, value) in enumerate(zip(rows["where"], rows["label"])):
    for label in _split_labels(value):
      targets[i, _number_of(known, label, where)] = 1
  return {"label": targets}


def _number_targets(description, rows: Columns):
  del description
  numbers = []
  for where, value in zip(rows["where"], rows["label"]):
    try:
      numbers.append(float(value))
    except (TypeError, ValueError):
      raise InputError(
          f"{where}: has the label {value!r}; it must be a number.") from None
    require(np.isfinite(numbers[-1]),
            f"{where}: has the label {value!r}; it must be finite.")
  return {"label": np.array(numbers, np.float32)}


def _encode(targets_of: Callable):
  """`Task.encode` with one way to turn labels into targets."""

  def encode(tokenizer, description, rows: Columns) -> examples.Examples:
    targets = targets_of(description, rows) if "label" in rows else {}
    length, stride = (
      description.get(name) for name in ("max_seq_length", "doc_stride"))
    if stride is None:
      return examples.Examples(
          examples.tokenize(
              tokenizer, rows["text"], rows.get("text_pair"),
              max_seq_length=length), targets)
    require(
        "text_pair" not in rows,
        f"--doc_stride: received {stride}, and rows with two texts each; "
        "windows are over single texts. Leave it out.")
    pieces, documents = examples.tokenize_windows(
        tokenizer, rows["text"], max_seq_length=length, doc_stride=stride)
    if targets:
      targets = _even_out(targets, documents)
    return examples.Examples(pieces, targets, documents=documents)

  return encode


def _even_out(
    targets: dict[str, np.ndarray], documents: np.ndarray
) -> dict[str, np.ndarray]:
  """Targets with weights by which each text counts as much as another.

  A window has its share of what its text counts. The mean of all windows'
  weights is 1, and each counts 1 in the denominator of the loss.

  Args:
    targets: [E, ...]; with `weight`, what the label of each text counts.
    documents: int [R], the text of each window.
  """
  windows = np.bincount(documents)  # [E]
  of_texts = targets.get("weight", np.ones(len(windows), np.float32))
  share = of_texts / windows * (len(documents) / of_texts.sum())
  return {**targets, "weight": share.astype(np.float32),
          "divisor": np.ones(len(windows), np.float32)}


def _make_model(bert_config: BertConfig, description, **kwargs):
  labels = description.get("labels")
  return BertClassifier(
      bert_config, num_classes=len(labels) if labels else 1,
      head=description.get("head", "linear"), **kwargs)


def log_softmax(logits: np.ndarray) -> np.ndarray:
  """Over the last axis; of the same shape."""
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  return np.exp(-np.logaddexp(0, -logits))


def class_metrics(
    *more: Callable[[np.ndarray, np.ndarray], dict[str, float]]
) -> Callable[..., dict[str, float]]:
  """`Task.metrics` of classes: loss, accuracies, and what a task adds.

  Args:
    more: functions of the labels' and predictions' numbers, int [E].
  """

  def compute(description, rows, encoded, outputs) -> dict[str, float]:
    labels, logits = encoded.targets["label"], outputs["logits"]
    predictions = logits.argmax(-1)
    if len(set(predictions)) == 1 < len(set(labels)):
      logging.warning(
          "All %d rows are predicted as %r: so far nothing is learnt. If it "
          "stays so, try another --random_seed (or --num_restarts), a lower "
          "--learning_rate, or --class_weights=balanced.", len(labels),
          description["labels"][predictions[0]])
    log_likelihood = log_softmax(logits)[np.arange(len(labels)), labels]
    found = {
      "loss": float(-log_likelihood.mean()),
      "accuracy": metrics.accuracy(labels, predictions),
      "balanced_accuracy": metrics.balanced_accuracy(labels, predictions),
    }
    for function in more:
      found.update(function(labels, predictions))
    return found

  return compute


def _label_metrics(description, rows, encoded, outputs) -> dict[str, float]:
  labels, logits = encoded.targets["label"] > 0.5, outputs["logits"]
  nll = np.logaddexp(0, np.where(labels, -logits, logits))
  return {"loss": float(nll.mean()),
          **metrics.multilabel_f1(labels, logits > 0)}


def _number_metrics(description, rows, encoded, outputs) -> dict[str, float]:
  labels, numbers = encoded.targets["label"], outputs["logits"][:, 0]
  pearson = metrics.pearson_correlation(labels, numbers)
  spearman = metrics.spearman_correlation(labels, numbers)
  return {
    "loss": float(np.mean((labels - numbers) ** 2)), "pearson": pearson,
    "spearman": spearman, "pearson_spearman": (pearson + spearman) / 2}


def _cells(value) -> str:
  return ",".join(value) if isinstance(value, list) else value


def _cell_text(value: str) -> str:
  """A cell in one line and one column: tabs and line ends as in Python."""
  for character in "\t\n\r":
    value = value.replace(character, repr(character)[1:-1])
  return value


def table_text(header: Sequence[str], columns: Iterable[Sequence[str]]) -> str:
  """A TSV file of columns of text, all of one length."""
  rows = [header, *zip(*columns, strict=True)]
  return "".join("\t".join(map(_cell_text, row)) + "\n" for row in rows)


def _texts(rows: Columns) -> dict[str, list[str]]:
  return {name: rows[name] for name in ("text", "text_pair") if name in rows}


def results_text(values: np.ndarray) -> str:
  """As the original's `test_results.tsv`: numbers [E, C] alone, a row a line.
  """
  return "".join(
      "\t".join(f"{x:.7g}" for x in row) + "\n" for row in values)


def _predictions(answers_of: Callable):
  """`Task.predictions`: what was said beside what is right, and numbers.

  Args:
    answers_of: (description, logits) -> the answers as text, [E], and numbers
      [E, C].
  """

  def predict(description, rows: Columns, encoded, outputs) -> dict[str, str]:
    answers, values = answers_of(description, outputs["logits"])
    texts = _texts(rows)
    named = [f"probability:{label}" for label in description.get("labels", ())]
    columns = {"prediction": answers}
    if "label" in rows:
      columns["label"] = [_cells(value) for value in rows["label"]]
    columns.update({
      name: [f"{x:.6f}" for x in values[:, i]] for i, name in enumerate(named)})
    columns.update(texts)
    return {"predictions.tsv": table_text(list(columns), columns.values()),
            "test_results.tsv": results_text(values)}

  return predict


def _class_answers(description, logits):
  return ([description["labels"][i] for i in logits.argmax(-1)],
          np.exp(log_softmax(logits)))


def _label_answers(description, logits):
  return ([",".join(label for label, is_on in zip(
      description["labels"], row > 0) if is_on) for row in logits],
          _sigmoid(logits))


def _number_answers(description, logits):
  return [f"{x:.4f}" for x in logits[:, 0]], logits


def _logits(infer, tokenizer, description, *texts) -> tf.Tensor:
  """[B, C] of texts or pairs, or the means over their windows."""
  length, stride = (
    description.get(name) for name in ("max_seq_length", "doc_stride"))
  if stride is None:
    return infer(tokenizer(*texts, max_seq_length=length))["logits"]
  windows = tokenizer.pack_windows(
      tokenizer.tokenize(*texts), max_seq_length=length, doc_stride=stride)
  logits = serving.in_blocks(infer, windows.inputs)["logits"]  # [W, C]
  mean = functools.partial(
      tf.math.unsorted_segment_mean, segment_ids=windows.example,
      num_segments=tf.size(*texts))
  # The sum of very many windows is rounded in float32, and servers should not
  # need float64: so what is missing from the mean is added.
  rough = mean(logits)
  return rough + mean(logits - tf.gather(rough, windows.example))


def _signatures(outputs_of: Callable, method: str, method_outputs: Callable):
  """`Task.signatures`: what `outputs_of` says of texts and of pieces.

  Args:
    outputs_of: (labels string [C], logits [B, C]) -> {name: tensor [B, ...]}.
    method: of `serving.METHODS`.
    method_outputs: the same with the names that this method has.
  """

  def make(model, tokenizer, description):
    labels = tf.constant(description.get("labels", [""]))
    names = ["text"] + ["text_pair"] * bool(description.get("is_pair"))
    infer = serving.inference(model)

    def answer(outputs, *texts):
      return outputs(labels, _logits(infer, tokenizer, description, *texts))

    return {
      "serving_default": serving.of_texts(
          names, functools.partial(answer, outputs_of)),
      "pre_tokenized": serving.of_pieces(
          model.config,
          lambda inputs: outputs_of(labels, infer(inputs)["logits"])),
      method: serving.of_examples(
          names, functools.partial(answer, method_outputs)),
    }

  return make


def _for_each(labels, logits):
  """The labels beside all rows, string [B, C]."""
  return tf.repeat(labels[None], tf.shape(logits)[0], axis=0)


def _class_outputs(labels, logits):
  return {"label": tf.gather(labels, tf.argmax(logits, axis=-1)),
          "probabilities": tf.nn.softmax(logits), "logits": logits}


def _label_outputs(labels, logits):
  return {"probabilities": tf.sigmoid(logits), "logits": logits,
          "labels": _for_each(labels, logits)}


def _number_outputs(labels, logits):
  del labels
  return {"score": logits[:, 0]}


def _scores_of_classes(probabilities_of: Callable):
  """As Classify has it: `classes` string [B, C] and `scores` float32 [B, C].
  """
  return lambda labels, logits: {
    "classes": _for_each(labels, logits), "scores": probabilities_of(logits)}


TASK = Task(
    kind="classification",
    read=_read,
    describe=_describe_classes,
    encode=_encode(_class_targets),
    make_model=_make_model,
    objective=losses.CLASSIFICATION,
    metrics=class_metrics(),
    predictions=_predictions(_class_answers),
    signatures=_signatures(
        _class_outputs, "classify", _scores_of_classes(tf.nn.softmax)),
    head=("output_", "bilstm/"),
    best_metric="accuracy",
    reading=("doc_stride",))

MULTILABEL = dataclasses.replace(
    TASK,
    kind="multilabel",
    describe=_describe_labels,
    encode=_encode(_label_targets),
    objective=losses.MULTILABEL,
    metrics=_label_metrics,
    predictions=_predictions(_label_answers),
    signatures=_signatures(
        _label_outputs, "classify", _scores_of_classes(tf.sigmoid)),
    best_metric="micro_f1")

REGRESSION = dataclasses.replace(
    TASK,
    kind="regression",
    describe=_description,
    encode=_encode(_number_targets),
    objective=losses.REGRESSION,
    metrics=_number_metrics,
    predictions=_predictions(_number_answers),
    signatures=_signatures(
        _number_outputs, "regress",
        lambda labels, logits: {"outputs": logits[:, 0]}),
    best_metric="pearson_spearman")
