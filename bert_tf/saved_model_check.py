"""What a written SavedModel may hold, so that every server can load it.

Python loads much that TensorFlow Serving does not: newer ops, functions that
must be compiled, variables that the C++ loader does not find, files that are
on this machine alone. `check` reads what lies on the disk and refuses it.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import functools
import os
import re
import sys
import tempfile
from typing import Any

from google.protobuf import message
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from bert_tf.errors import InputError

OPS_FILE = os.path.join(os.path.dirname(__file__), "serving_ops.txt")
_MUST_COMPILE = "_XlaMustCompile"
# Older versions pass over an attribute that they do not know, with a line in
# their log. These say nothing about what is computed.
_WITHOUT_EFFECT = {("VarHandleOp", "debug_name")}


@functools.cache
def serving_ops() -> dict[str, frozenset[str]]:
  """{op: its attributes} of the oldest TensorFlow Serving that exports are for.

  >>> sorted(serving_ops()["MatMul"])
  ['T', 'transpose_a', 'transpose_b']
  """
  with open(OPS_FILE, encoding="utf-8") as file:
    rows = [line.split() for line in file if not line.startswith("#")]
  return {name: frozenset(attributes) for name, *attributes in rows}


def _nodes(
    graph: graph_pb2.GraphDef
) -> Iterator[tuple[str, node_def_pb2.NodeDef]]:
  """(where it stands, node) of the graph and of all its functions."""
  for node in graph.node:
    yield f"node {node.name!r}", node
  for function in graph.library.function:
    for node in function.node_def:
      yield (
        f"node {node.name!r} of function {function.signature.name!r}", node)


def _is_float64(value: attr_value_pb2.AttrValue) -> bool:
  return tf.float64.as_datatype_enum in (
    value.type, value.tensor.dtype, *value.list.type)


def _problems_of_node(
    where: str, node: node_def_pb2.NodeDef, functions: set[str]
) -> Iterator[str]:
  known = serving_ops()
  if node.op not in known and node.op not in functions:
    yield (
      f"{where}: the op {node.op} is not in TensorFlow Serving 2.12 for CPUs "
      "(bert_tf/serving_ops.txt); compute it from ops that are")
    return
  for name, value in node.attr.items():
    if name.startswith("_"):  # No attribute of the op, but a remark on it.
      continue
    if (node.op in known and name not in known[node.op]
        and (node.op, name) not in _WITHOUT_EFFECT):
      yield (
        f"{where}: the op {node.op} has the attribute {name}, which "
        "TensorFlow Serving 2.12 passes over; leave it at its default")
    if _is_float64(value):
      yield (
        f"{where}: the op {node.op} computes in float64 (attribute {name}); "
        "cast its inputs to float32")


def _problems_of_graph(graph: graph_pb2.GraphDef) -> Iterator[str]:
  functions = {f.signature.name for f in graph.library.function}
  compiled = [
    (f"function {f.signature.name!r}", f.attr) for f in graph.library.function]
  for where, node in _nodes(graph):
    yield from _problems_of_node(where, node, functions)
    compiled.append((where, node.attr))
  for where, attributes in compiled:
    if _MUST_COMPILE in attributes and attributes[_MUST_COMPILE].b:
      yield (
        f"{where}: must be compiled by XLA, which servers are not made for; "
        "take jit_compile=True off it")


def _reached(graph: graph_pb2.GraphDef, tensor: str) -> set[str]:
  """The names of all nodes that a tensor of the main graph depends on."""
  by_name = {node.name: node for node in graph.node}
  found, left = set(), [tensor]
  while left:
    name = left.pop().removeprefix("^").partition(":")[0]
    if name not in found:
      found.add(name)
      left += by_name[name].input
  return found


def _problems_of_variables(
    meta_graph: meta_graph_pb2.MetaGraphDef
) -> Iterator[str]:
  """Each is restored where it is read, and lies on the disk once."""
  graph = meta_graph.graph_def
  variables = {node.name for node in graph.node if node.op == "VarHandleOp"}
  restored = _reached(graph, meta_graph.saver_def.restore_op_name)
  for name, signature in meta_graph.signature_def.items():
    for output in signature.outputs.values():
      for missing in sorted(
          variables & _reached(graph, output.name) - restored):
        yield (
          f"signature {name!r}: reads the variable {missing!r}, which the "
          "C++ loader does not restore; let the module hold the raw variable "
          "(`variable.value` of a Keras variable), not the Keras model")
  names = [
    node.variable.name for node in meta_graph.object_graph_def.nodes
    if node.WhichOneof("kind") == "variable"]
  for name in sorted({name for name in names if names.count(name) > 1}):
    yield (
      f"variable {name!r}: is written {names.count(name)} times; let the "
      "module hold raw variables alone, each of another name, and neither "
      "Keras models nor layers")


def _texts(value: Any) -> Iterator[bytes]:
  """All strings in a message, or in the value of one of its fields."""
  if isinstance(value, str):
    yield value.encode()
  elif isinstance(value, bytes):
    yield value
  elif isinstance(value, message.Message):
    for _, part in value.ListFields():
      yield from _texts(part)
  elif isinstance(value, Mapping):
    for part in (*value.keys(), *value.values()):
      yield from _texts(part)
  elif isinstance(value, Iterable):
    for part in value:
      yield from _texts(part)


def _path_of_this_machine() -> re.Pattern[bytes]:
  """Finds a path below one of the folders where files may come from."""
  folders = {
    os.getcwd(), sys.prefix, sys.base_prefix, tempfile.gettempdir(),
    os.path.expanduser("~"), os.path.dirname(tf.__file__),
    os.path.dirname(__file__)}
  folders.discard("/")  # Everything is below it: that says nothing.
  either = "|".join(re.escape(folder) for folder in sorted(folders))
  # Not within a path: the scope "a/tmp/" of a node is no folder.
  return re.compile(rf"(?<![\w./-])(?:{either})/[\w./-]*".encode())


def _problems_of_paths(
    directory: str, meta_graph: meta_graph_pb2.MetaGraphDef
) -> Iterator[str]:
  """Nothing lies outside of the directory. Changes the constants."""
  for asset in meta_graph.asset_file_def:
    path = os.path.join("assets", asset.filename)
    if os.path.isabs(asset.filename) or not os.path.isfile(
        os.path.join(directory, path)):
      yield (
        f"asset {asset.filename!r}: is not in assets/; let a "
        "tf.saved_model.Asset of the module name the file")
  pattern = _path_of_this_machine()
  for where, node in _nodes(meta_graph.graph_def):
    if "value" not in node.attr:
      continue
    # A label may look like a path; a file that is here is no chance.
    for text in node.attr["value"].tensor.string_val:
      if pattern.match(text) and os.path.exists(text):
        yield (
          f"{where}: names the file {text.decode(errors='replace')!r} of this "
          "machine; let the module hold a tf.saved_model.Asset, or its content")
    node.attr["value"].ClearField("tensor")
  for text in _texts(meta_graph):
    for found in pattern.findall(text):
      yield (
        f"the graph names {found.decode(errors='replace')!r}, a path of this "
        "machine; save without debug information")


def _problems(directory: str) -> Iterator[str]:
  with open(os.path.join(directory, "saved_model.pb"), "rb") as file:
    saved_model = saved_model_pb2.SavedModel.FromString(file.read())
  [meta_graph] = saved_model.meta_graphs
  yield from _problems_of_graph(meta_graph.graph_def)
  yield from _problems_of_variables(meta_graph)
  yield from _problems_of_paths(directory, meta_graph)


def check(directory: str) -> None:
  """Refuses a SavedModel that TensorFlow Serving may not load or run.

  Args:
    directory: the SavedModel, wherever it lies now: it may be moved.

  Raises:
    InputError: it holds an op or an attribute that TensorFlow Serving 2.12 or
      TensorFlow Text 2.12 lacks; a function that must be compiled; numbers in
      float64; a variable that is not restored, or is written twice; a file
      outside of it. The first of these is named, and how many there are.
  """
  problems = list(_problems(directory))
  if problems:
    more = f" (and {len(problems) - 1} more like it)" if problems[1:] else ""
    raise InputError(
        f"this SavedModel would not run in TensorFlow Serving: {problems[0]}"
        f"{more}.")
