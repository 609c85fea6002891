"""Exports that a server would not run are refused, and so is no other.

`make proof-serving` runs what is let through in TensorFlow 2.12.
"""

import os
import shutil
import tomllib

from conftest import REPOSITORY
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from bert_tf import export
from bert_tf import saved_model_check
from bert_tf.config import InputError
from bert_tf.heads import BertClassifier
from test_export import CONFIG
from test_export import LABELS
from test_export import TASK
from test_export import export_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """A real export, which was checked when it was made."""
  return export_model(
      tmp_path_factory.mktemp("classifier"),
      BertClassifier(CONFIG, num_classes=len(LABELS)), TASK).path


def test_the_list_is_that_of_tensorflow_2_12():
  ops = saved_model_check.serving_ops()
  # The attributes grad_a and grad_b came with 2.13.
  assert ops["MatMul"] == {"T", "transpose_a", "transpose_b"}
  assert ops["FastWordpieceTokenizeWithOffsets"] == set()
  assert ops["VarHandleOp"] == {
    "allowed_devices", "container", "dtype", "shape", "shared_name"}
  # Of a later TensorFlow Text; for no CPU; Python's; the runtime's own.
  assert not {"TFText>RoundRobinGenerateMasks", "TPUCompile", "PyFunc",
              "_FusedMatMul"} & set(ops)


# What is done to a real export.


def inner_node(meta_graph, op):
  """The last node of an op that stands in a function."""
  return [
    node for function in meta_graph.graph_def.library.function
    for node in function.node_def if node.op == op][-1]


def constant(meta_graph, text):
  """Lets a constant of strings hold a text."""
  for function in meta_graph.graph_def.library.function:
    for node in function.node_def:
      if node.op == "Const" and node.attr["value"].tensor.string_val:
        node.attr["value"].tensor.string_val[0] = text.encode()
        return
  raise AssertionError("no constant of strings")


def later_op(meta_graph):
  inner_node(meta_graph, "Softmax").op = "TFText>RoundRobinGenerateMasks"


def later_attribute(meta_graph):
  inner_node(meta_graph, "MatMul").attr["grad_a"].b = True


def compiled_function(meta_graph):
  meta_graph.graph_def.library.function[0].attr["_XlaMustCompile"].b = True


def compiled_node(meta_graph):
  inner_node(meta_graph, "Softmax").attr["_XlaMustCompile"].b = True


def float64(meta_graph):
  inner_node(meta_graph, "Softmax").attr["T"].type = (
      tf.float64.as_datatype_enum)


def float64_constant(meta_graph):
  inner_node(meta_graph, "Const").attr["value"].tensor.dtype = (
      tf.float64.as_datatype_enum)


def restored_by_nobody(meta_graph):
  [restore] = [node for node in meta_graph.graph_def.node
               if node.name == meta_graph.saver_def.restore_op_name]
  restore.input.remove("bert/pooler/dense/bias")


def written_twice(meta_graph):
  nodes = meta_graph.object_graph_def.nodes
  [bias] = [
    node for node in nodes if node.variable.name == "bert/pooler/dense/bias"]
  nodes.append(bias)


def file_of_this_machine(meta_graph):
  constant(meta_graph, os.path.abspath(__file__))


def folder_of_this_machine(meta_graph):
  meta_graph.graph_def.node[0].attr["_from"].s = f"{os.getcwd()}/x".encode()


def absent_asset(meta_graph):
  meta_graph.asset_file_def.add(filename="words.txt")


def absolute_asset(meta_graph):
  meta_graph.asset_file_def.add(filename=os.path.abspath(__file__))


@pytest.mark.parametrize("change, message", [
  (later_op, "node '.*Softmax' of function '__inference_.*': the op "
   "TFText>RoundRobinGenerateMasks is not in TensorFlow Serving 2.12 for "
   r"CPUs \(bert_tf/serving_ops.txt\); compute it from ops that are\.$"),
  (later_attribute, "node '.*MatMul.*' of function '.*': the op MatMul has the "
   "attribute grad_a, which TensorFlow Serving 2.12 passes over; leave it"),
  (compiled_function, "Serving: function '.*': must be compiled by XLA"),
  (compiled_node, "node '.*Softmax' of function '.*': must be compiled by XLA"),
  (float64, r"the op Softmax computes in float64 \(attribute T\); cast"),
  (float64_constant, r"op Const computes in float64 \(attribute value\)"),
  (restored_by_nobody, "signature '.*': reads the variable "
   "'bert/pooler/dense/bias', which the C\\+\\+ loader does not restore"),
  (written_twice, "variable 'bert/pooler/dense/bias': is written 2 times"),
  (file_of_this_machine, "names the file '/.*_check.py' of this machine"),
  (folder_of_this_machine, "the graph names '/.*/x', a path of this machine"),
  (absent_asset, "asset 'words.txt': is not in assets/"),
  (absolute_asset, "asset '/.*': is not in assets/"),
])
def test_a_broken_export_is_refused_by_name(
    exported, tmp_path, change, message):
  broken = tmp_path / "broken"
  shutil.copytree(exported, broken)
  saved_model_check.check(str(broken))
  path = broken / "saved_model.pb"
  saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
  change(saved_model.meta_graphs[0])
  path.write_bytes(saved_model.SerializeToString())
  with pytest.raises(InputError, match=message) as raised:
    saved_model_check.check(str(broken))
  assert "\n" not in str(raised.value)


def test_a_label_and_a_scope_may_look_like_paths(exported, tmp_path):
  other = tmp_path / "other"
  shutil.copytree(exported, other)
  path = other / "saved_model.pb"
  saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
  [meta_graph] = saved_model.meta_graphs
  constant(meta_graph, f"{os.getcwd()}/is/no/file")
  inner_node(meta_graph, "Softmax").name = f"of{os.getcwd()}/scope"
  path.write_bytes(saved_model.SerializeToString())
  saved_model_check.check(str(other))


# What Python's own ways of saving make of it.

X = tf.TensorSpec([None, 1], name="x")


class Compiled(tf.Module):

  @tf.function(input_signature=[X], jit_compile=True)
  def call(self, x):
    return {"y": 2 * x}


class Growing(tf.Module):
  """An array that grows, which TensorFlow 2.12 does not do in this way."""

  @tf.function(input_signature=[X])
  def call(self, x):
    array = tf.TensorArray(tf.float32, 0, dynamic_size=True)
    for i in tf.range(tf.shape(x)[0]):
      array = array.write(i, x[i])
    return {"y": array.stack()}


class InPython(tf.Module):

  @tf.function(input_signature=[X])
  def call(self, x):
    return {"y": tf.ensure_shape(tf.numpy_function(np.sin, [x], tf.float32),
                                 [None, 1])}


class Precise(tf.Module):

  @tf.function(input_signature=[X])
  def call(self, x):
    return {"y": tf.cast(tf.cast(x, tf.float64) + 1, tf.float32)}


class WithFile(tf.Module):
  """Reads a file whose name is a constant."""

  @tf.function(input_signature=[X])
  def call(self, x):
    size = tf.strings.length(tf.io.read_file(os.path.abspath(__file__)))
    return {"y": x + tf.cast(size, tf.float32)}


class HoldsModel(tf.Module):
  """A Keras model as an attribute: what it reads is not what is restored."""

  def __init__(self):
    super().__init__()
    self.model = keras.Sequential(
        [keras.Input([1]), keras.layers.Dense(1, name="dense")])

  @tf.function(input_signature=[X])
  def call(self, x):
    return {"y": self.model(x)}


class HoldsBoth(HoldsModel):
  """Its raw variables beside it: they are found, and written twice."""

  def __init__(self):
    super().__init__()
    self.raw = [v.value for v in self.model.variables]


@pytest.mark.parametrize("module, message", [
  (Compiled, "must be compiled by XLA"),
  (Growing, "ListSetItem has the attribute resize_if_index_out_of_bounds"),
  (InPython, "the op PyFunc(Stateless)? is not in TensorFlow Serving"),
  (Precise, "computes in float64"),
  (WithFile, "names the file"),
  (HoldsModel, "reads the variable 'sequential.*/dense/bias'"),
  (HoldsBoth, "variable 'sequential.*/dense/bias': is written 2 times"),
])
def test_what_no_server_runs_is_not_exported(tmp_path, module, message):
  made = module()
  directory = tmp_path / "export"
  with pytest.raises(InputError, match=message):
    export.save(made, {"serving_default": made.call}, str(directory),
                files=lambda assets: os.makedirs(assets, exist_ok=True))
  assert not directory.exists()


def test_keras_own_export_writes_everything_twice(tmp_path):
  HoldsModel().model.export(str(tmp_path / "1"), verbose=False)
  with pytest.raises(InputError, match="/dense/bias.*: is written 2 times"):
    saved_model_check.check(str(tmp_path / "1"))


def test_the_list_lies_in_what_is_installed():
  project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
  assert project["tool"]["setuptools"]["package-data"] == {
    "bert_tf": [os.path.basename(saved_model_check.OPS_FILE)]}
