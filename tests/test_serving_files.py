"""What lies beside an exported model: warm-up requests, labels, the card."""

import collections
import datetime
import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

import bert_tf
from bert_tf import export
from bert_tf import serving_files
from bert_tf.arguments import ExportConfig
from bert_tf.config import write_json
from bert_tf.tasks import TASKS
from saved_model_loader import Loader
import tiny_exports


def warmup_of(version):
  apis = pytest.importorskip(
      "tensorflow_serving.apis.prediction_log_pb2",
      reason="needs requirements-serving.txt")
  path = os.path.join(version, "assets.extra", "tf_serving_warmup_requests")
  return [apis.PredictionLog.FromString(record)
          for record in tf.data.TFRecordDataset(path).as_numpy_iterator()]


def request_of(log):
  """(signature, kind, inputs as the loader takes them) of a PredictionLog."""
  kind = log.WhichOneof("log_type")
  request = getattr(log, kind).request
  if kind == "predict_log":
    inputs = {key: tf.make_ndarray(value)
              for key, value in request.inputs.items()}
  else:
    inputs = {"inputs": np.array([
      example.SerializeToString()
      for example in request.input.example_list.examples], object)}
  return request.model_spec.signature_name, kind, {
    key: (np.vectorize(lambda x: x.decode("utf-8", "surrogateescape"))(value)
          if value.dtype == object else value).tolist()
    for key, value in inputs.items()}


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


@pytest.mark.parametrize("kind", tiny_exports.KINDS)
def test_warm_up_requests_run_in_cpp(loader, tiny_export, kind):
  version = os.path.join(tiny_export(kind), "1")
  logs = warmup_of(version)
  kinds, sizes = collections.Counter(), []
  for log in logs:
    name, method, inputs = request_of(log)
    kinds[name, method] += 1
    answer = loader.ask(saved_model=version, signature=name, inputs=inputs)
    [rows] = {len(value) for value in (*inputs.values(), *answer.values())}
    sizes.append(rows)
  assert set(sizes) == {1, 8}
  assert kinds == {
    (name, f"{name if name in ('classify', 'regress') else 'predict'}_log"): 2
    for name in loader.ask(saved_model=version)}


def signature(inputs, outputs):
  """{name: type} -> a SignatureDef."""
  definition = meta_graph_pb2.SignatureDef()
  for tensors, names in (
      (definition.inputs, inputs), (definition.outputs, outputs)):
    for name, (dtype, rank) in names.items():
      tensors[name].dtype = dtype.as_datatype_enum
      for _ in range(rank):
        tensors[name].tensor_shape.dim.add(size=-1)
  return definition


@pytest.mark.parametrize("outputs, kind", [
  ({"classes": (tf.string, 2), "scores": (tf.float32, 2)}, "classify_log"),
  ({"outputs": (tf.float32, 1)}, "regress_log")])
def test_signatures_of_examples_get_examples(outputs, kind):
  pytest.importorskip(
      "tensorflow_serving", reason="needs requirements-serving.txt")
  log = serving_files._warmup_log(
      "by_example", signature({"inputs": (tf.string, 1)}, outputs),
      ["text", "text_pair"], rows=2, text="some")
  assert log.WhichOneof("log_type") == kind
  request = getattr(log, kind).request
  assert request.model_spec.signature_name == "by_example"
  examples = request.input.example_list.examples
  assert len(examples) == 2
  for example in examples:
    assert {name: list(feature.bytes_list.value) for name, feature in
            example.features.feature.items()} == {
      "text": [b"some"], "text_pair": [b"some"]}


def test_ids_and_masks_are_those_of_any_model():
  definition = signature(
      {"input_ids": (tf.int32, 2), "input_mask": (tf.int32, 2)}, {})
  values = {
    key: serving_files._value(key, info, 3, "unused")
    for key, info in definition.inputs.items()}
  assert values["input_ids"].dtype == np.int32
  assert values["input_ids"].tolist() == [[0] * 8] * 3
  assert values["input_mask"].tolist() == [[1] * 8] * 3


def test_without_the_protos_a_warning_says_how_to_get_them(
    tmp_path, monkeypatch, caplog):
  monkeypatch.setitem(
      sys.modules, "tensorflow_serving.apis.prediction_log_pb2", None)
  export_dir = tiny_exports.make_export(tmp_path, "regression")
  assert "pip install -r requirements-serving.txt" in caplog.text
  assert not os.path.exists(os.path.join(export_dir, "1", "assets.extra"))
  assert bert_tf.Predictor(export_dir)(["a cat"])


def test_labels_and_the_card_say_what_the_model_is(tiny_export, tmp_path):
  model_dir = tmp_path / "model"
  shutil.copytree(pathlib.Path(tiny_export("pair")).parent / "model", model_dir)
  write_json(str(model_dir / "eval_results.json"), {"accuracy": 0.75})
  (model_dir / "training_state").mkdir()
  write_json(str(model_dir / "training_state" / "run.json"), {
    "num_train_rows": 3668, "init_checkpoint": "/home/someone/bert"})
  version = pathlib.Path(export.run(
      ExportConfig(model_dir=str(model_dir), export_dir=str(tmp_path / "new")),
      TASKS))
  assert (version / "assets" / "labels.txt").read_text() == "0\n1\n"
  card = json.loads((version / "assets" / "model_card.json").read_text())
  text = "string [None]"
  signatures = card.pop("signatures")
  assert sorted(signatures) == ["classify", "pre_tokenized", "serving_default"]
  assert signatures["serving_default"] == {
    "inputs": {"text": text, "text_pair": text},
    "outputs": {"label": text, "logits": "float32 [None, 2]",
                "probabilities": "float32 [None, 2]"}}
  today = datetime.datetime.now(datetime.UTC).date()
  made = datetime.date.fromisoformat(card.pop("date"))
  assert 0 <= (today - made).days <= 1
  versions = card.pop("versions")
  assert versions["bert_tf"] == bert_tf.__version__
  assert versions["tensorflow"] == tf.__version__
  assert versions["tensorflow_text"].startswith("2.")
  assert card == {
    "task": "classification", "metrics": {"accuracy": 0.75},
    "data": {"task_name": "mrpc", "num_train_rows": 3668}}


def test_a_pretrained_model_has_a_card_and_no_labels(tiny_export):
  version = os.path.join(tiny_export("pretrained"), "1")
  assert not os.path.exists(os.path.join(version, "assets", "labels.txt"))
  with open(os.path.join(version, "assets", "model_card.json")) as file:
    card = json.load(file)
  assert (card["task"], card["data"], card["metrics"]) == (
    "pretraining", {}, {})
