"""What is written beside an exported model: for its server and its readers.

  assets.extra/tf_serving_warmup_requests   requests that a server answers to
                        itself before it takes any of others, so that the first
                        ones are not slow
  assets/labels.txt     a label a line, by number
  assets/model_card.json   what the model is, and how it came out

Source of the first: the "SavedModel Warmup" page of TensorFlow Serving.

Shapes: B rows of a request.
"""

import datetime
import importlib.metadata
import os
from typing import Any

from absl import logging
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import bert_tf
from bert_tf import files
from bert_tf.config import read_json
from bert_tf.config import write_json
from bert_tf.config import write_text
from bert_tf.task_descriptions import kind_of

WARMUP_FILE = "tf_serving_warmup_requests"
LABELS_FILE = "labels.txt"
CARD_FILE = "model_card.json"

# [MASK] is for fill_mask, and like any text elsewhere.
WARMUP_TEXT = "This is a [MASK] request."
# Rows of a request and repetitions of its text: a short one, and some of about
# 130 pieces.
_WARMUP_SIZES = ((1, 1), (8, 20))
_CHOICES = 2  # For an input of several texts a row.
_PIECES = 8  # For one of ids; within any model's positions.
# The input of serialized tf.Example; no other signature has one of this name.
_EXAMPLES = "inputs"
_WITHOUT_API = (
  "Wrote no warm-up requests into the export, so the first requests to a "
  "server will be slow: pip install -r requirements-serving.txt (%s).")


def _signatures(saved_model: str) -> dict[str, Any]:
  """{name: SignatureDef} of a SavedModel's folder."""
  with files.open_file(os.path.join(saved_model, "saved_model.pb"), "rb") as f:
    [meta_graph] = saved_model_pb2.SavedModel.FromString(f.read()).meta_graphs
  return {
    name: definition for name, definition in meta_graph.signature_def.items()
    if not name.startswith("__")}  # How to initialize.


def _value(name: str, info: Any, rows: int, text: str) -> np.ndarray:
  """The value of an input, [B] or [B, ...]."""
  rank = len(info.tensor_shape.dim)
  if info.dtype == tf.string:
    return np.full([rows, *[_CHOICES] * (rank - 1)], text, object)
  # Any vocabulary has the id 0; a mask of 1 is a piece to attend to.
  return np.full(
      [rows, *[_PIECES] * (rank - 1)], 1 if name.endswith("mask") else 0,
      tf.as_dtype(info.dtype).as_numpy_dtype)


def _examples(text_inputs: list[str], rows: int, text: str):
  """TensorFlow Serving's `Input`: a tf.Example with all texts a row."""
  from tensorflow_serving.apis import input_pb2
  example = tf.train.Example()
  for name in text_inputs:
    example.features.feature[name].bytes_list.value.append(text.encode())
  return input_pb2.Input(
      example_list=input_pb2.ExampleList(examples=[example] * rows))


def _warmup_log(
    name: str, definition: Any, text_inputs: list[str], *, rows: int,
    text: str
):
  """A PredictionLog for a signature: Classify, Regress or Predict."""
  from tensorflow_serving.apis import prediction_log_pb2
  log = prediction_log_pb2.PredictionLog()
  if list(definition.inputs) == [_EXAMPLES]:
    request = (log.regress_log if "outputs" in definition.outputs
               else log.classify_log).request
    request.input.CopyFrom(_examples(text_inputs, rows, text))
  else:
    request = log.predict_log.request
    for key, info in definition.inputs.items():
      request.inputs[key].CopyFrom(tf.make_tensor_proto(
          _value(key, info, rows, text), info.dtype))
  request.model_spec.signature_name = name
  return log


def _write_warmup(saved_model: str, signatures: dict[str, Any]) -> None:
  try:
    import tensorflow_serving.apis.prediction_log_pb2  # noqa: F401
  except ImportError as error:
    logging.warning(_WITHOUT_API, error)
    return
  default = signatures.get("serving_default")
  text_inputs = sorted(default.inputs) if default else []
  directory = os.path.join(saved_model, "assets.extra")
  files.make_directories(directory)
  with tf.io.TFRecordWriter(os.path.join(directory, WARMUP_FILE)) as writer:
    for rows, repeated in _WARMUP_SIZES:
      for name, definition in sorted(signatures.items()):
        log = _warmup_log(
            name, definition, text_inputs, rows=rows,
            text=" ".join([WARMUP_TEXT] * repeated))
        writer.write(log.SerializeToString())


def _read_beside(directory: str, name: str) -> dict[str, Any]:
  path = os.path.join(directory, name)
  return read_json(path) if files.exists(path) else {}


def _tensors(tensors: Any) -> dict[str, str]:
  """{name: type and shape}, such as "string [None]"."""
  return {
    name: f"{tf.as_dtype(info.dtype).name} "
          f"{tf.TensorShape(info.tensor_shape).as_list()}"
    for name, info in sorted(tensors.items())}


def _card(
    signatures: dict[str, Any], task: dict[str, Any] | None, model_dir: str,
    comparison: dict[str, Any] | None
) -> dict[str, Any]:
  """What is known of the model where it was trained; no path is in it."""
  run = _read_beside(os.path.join(model_dir, "training_state"), "run.json")
  return {
    "task": kind_of(task) if task else "pretraining",
    "data": {key: value for key, value in (
      ("task_name", task and task["task_name"]),
      ("num_train_rows", run.get("num_train_rows"))) if value},
    "metrics": _read_beside(model_dir, "eval_results.json"),
    **({"comparison": comparison} if comparison else {}),
    "signatures": {
      name: {"inputs": _tensors(definition.inputs),
             "outputs": _tensors(definition.outputs)}
      for name, definition in signatures.items()},
    "versions": {
      "bert_tf": bert_tf.__version__, "tensorflow": tf.__version__,
      "tensorflow_text": importlib.metadata.version("tensorflow-text")},
    "date": datetime.datetime.now(datetime.UTC).date().isoformat()}


def write_labels(path: str, labels: list[str]) -> None:
  """A label a line; one that has lines of its own stays on one."""
  write_text(
      path, "".join(label.replace("\n", "\\n") + "\n" for label in labels))


def write(
    assets: str, *, task: dict[str, Any] | None, model_dir: str,
    comparison: dict[str, Any] | None = None
) -> None:
  """Writes all of it around a SavedModel that is complete but for them.

  Without the package tensorflow-serving-api there are no warm-up requests, and
  a warning says so.

  Args:
    assets: the folder of that name in the SavedModel.
    task: the description of a fine-tuned model.
    model_dir: where the model comes from: its `eval_results.json` and
      `training_state/run.json` are read if they are there.
    comparison: of another precision, or frozen, with float32, for the card.
  """
  saved_model = os.path.dirname(assets)
  signatures = _signatures(saved_model)
  _write_warmup(saved_model, signatures)
  labels = (task or {}).get("labels")
  if labels:
    write_labels(os.path.join(assets, LABELS_FILE), labels)
  write_json(
      os.path.join(assets, CARD_FILE),
      _card(signatures, task, model_dir, comparison))
