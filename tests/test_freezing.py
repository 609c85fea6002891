"""Weights as constants: the same answers, and where the numbers lie."""

import os
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import export
from bert_tf import freezing
from bert_tf.arguments import ExportConfig
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.tasks import TASKS
from saved_model_loader import Loader
from test_export import nodes_of
import tiny_exports


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


def frozen_export(plain: str, directory, **kwargs) -> str:
  """A frozen export, the first version, of the model of a plain one."""
  return export.run(ExportConfig(
      model_dir=str(pathlib.Path(plain).parent / "model"),
      export_dir=str(directory), freeze_graph=True, **kwargs), TASKS)


@pytest.mark.parametrize("kind", tiny_exports.KINDS)
def test_cpp_answers_as_it_does_from_variables(
    loader, tiny_export, tmp_path, kind):
  plain = os.path.join(tiny_export(kind), "1")
  frozen = frozen_export(tiny_export(kind), tmp_path)
  columns = tiny_exports.COLUMNS[kind]
  if kind == "multiple_choice":  # The rows with two choices.
    columns = {
      name: [values[i] for i in (0, 2, 3)] for name, values in columns.items()}
  signatures = [
    name for name, signature in loader.ask(saved_model=plain).items()
    if set(signature["inputs"]) == set(columns)]
  assert "serving_default" in signatures
  for signature in signatures:
    one, two = (
      loader.ask(saved_model=path, signature=signature, inputs=columns)
      for path in (plain, frozen))
    assert sorted(one) == sorted(two)
    for name, values in one.items():
      if values.dtype == np.float32:
        np.testing.assert_allclose(two[name], values, atol=1e-5)
      else:
        np.testing.assert_array_equal(two[name], values)


def variables_of(path):
  """The names of the variables on the disk."""
  reader = tf.train.load_checkpoint(
      os.path.join(path, "variables", "variables"))
  return {
    name.split("/")[1].replace(".S", "/")
    for name in reader.get_variable_to_shape_map() if "/" in name}


@pytest.mark.parametrize("kind", ["classification", "pretrained"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_numbers_lie_in_the_graph_alone_and_once(
    tiny_export, tmp_path, kind, precision):
  path = frozen_export(tiny_export(kind), tmp_path, precision=precision)
  variables = variables_of(path)
  # fill_mask reads its head outside of what all signatures share.
  assert {name for name in variables if not name.startswith("cls/")} == {
    "bert/embeddings/word_embeddings"}
  kernels = [
    node.attr["value"].tensor for node in nodes_of(SimpleNamespace(path=path))
    if node.op == "Const" and node.name.endswith("/query/kernel")]
  assert len(kernels) == tiny_exports.CONFIG.num_hidden_layers
  assert {tensor.dtype for tensor in kernels} == {
    tf.as_dtype(precision).as_datatype_enum}


def test_the_speed_is_shown_beside_that_of_variables(
    tiny_export, tmp_path, capsys):
  path = frozen_export(tiny_export("regression"), tmp_path)
  assert "float32, frozen" in capsys.readouterr().out
  card = read_json(os.path.join(path, "assets", "model_card.json"))
  found = card["comparison"]["milliseconds_of_1"]
  assert sorted(found) == ["float32", "float32, frozen"]


def test_training_cannot_start_from_it(tiny_export, tmp_path):
  path = frozen_export(tiny_export("pretrained"), tmp_path)
  with pytest.raises(InputError, match="--freeze_graph, .* give the model dir"):
    checkpoints.open_source(path)


def test_int8_is_refused_and_dev_rows_are_not():
  flags = {"model_dir": "m", "export_dir": "e", "freeze_graph": True}
  with pytest.raises(InputError, match="--freeze_graph: .* --precision=int8"):
    ExportConfig(**flags, precision="int8")
  assert ExportConfig(**flags, eval_flags="--data_dir=d").freeze_graph


def test_what_no_graph_can_hold_is_refused(tiny_export, tmp_path, monkeypatch):
  monkeypatch.setattr(freezing, "MOST_BYTES", 9000)
  with pytest.raises(InputError, match="--freeze_graph: .* holds 9,000"):
    frozen_export(tiny_export("pair"), tmp_path / "export")
  assert not (tmp_path / "export").exists()
