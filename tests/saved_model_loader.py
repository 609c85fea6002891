"""Runs signatures of SavedModels in C++, in a process without `tensorflow`.

As tensorflow_model_server does it: TensorFlow's C++ loader (here out of the
Python package, through its C API), the op libraries of TensorFlow Text, the
tag "serve", and no XLA compilation.

  python tests/saved_model_loader.py < requests > answers

A request is a line of JSON, and so is its answer. What goes wrong with one
is its answer, and the next is served:

  {"saved_model": "export/1", "signature": "embedding",
   "inputs": {"text": ["a text"]}}
  {"outputs": {"embedding": {
      "dtype": "float32", "shape": [1, 2], "values": [0.1, 0.2]}}}

  {"saved_model": "export/1"}
  {"signatures": {"embedding": {"inputs": {"text": ["text:0", "string"]},
                                "outputs": ...}}}

  {"saved_model": "export/1", "threads": 8, "requests": [
      {"signature": ..., "inputs": ...}, ...]}
  {"answers": [{"outputs": ...}, {"error": "..."}, ...]}

  {"error": "..."}

An input may also be {"shape": [0, 2], "values": []}, which lists cannot say.
Bytes that are not UTF-8 are lone surrogates ("\\udcff"), as in Python's
"surrogateescape". Tests use it as `with Loader() as loader: loader.ask(...)`.
"""

import argparse
from collections.abc import Iterator
from concurrent import futures
import ctypes
import glob
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np

# Numbers of the enum TF_DataType.
_DTYPES = {
  1: "float32", 2: "float64", 3: "int32", 7: "string", 9: "int64", 10: "bool",
}
_STRING = 7
_SIZE_OF_STRING = 24  # sizeof(TF_TString)

_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_TEXT = ctypes.c_char_p
# {function: (result, arguments)}; handles are plain pointers.
_FUNCTIONS = {
  "TF_NewStatus": (_POINTER, []),
  "TF_GetCode": (_INT, [_POINTER]),
  "TF_Message": (_TEXT, [_POINTER]),
  "TF_NewGraph": (_POINTER, []),
  "TF_NewSessionOptions": (_POINTER, []),
  "TF_SetConfig": (None, [
    _POINTER, ctypes.c_char_p, ctypes.c_size_t, _POINTER]),
  "TF_EnableXLACompilation": (None, [_POINTER, ctypes.c_ubyte]),
  "TF_NewBuffer": (_POINTER, []),
  "TF_LoadLibrary": (_POINTER, [_TEXT, _POINTER]),
  "TF_LoadSessionFromSavedModel": (_POINTER, [
    _POINTER, _POINTER, _TEXT, _POINTER, _INT, _POINTER, _POINTER, _POINTER]),
  "TF_GraphOperationByName": (_POINTER, [_POINTER, _TEXT]),
  "TF_SessionRun": (None, [
    _POINTER, _POINTER, _POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT,
    _POINTER, _INT, _POINTER, _POINTER]),
  "TF_AllocateTensor": (_POINTER, [_INT, _POINTER, _INT, _SIZE]),
  "TF_DeleteTensor": (None, [_POINTER]),
  "TF_TensorType": (_INT, [_POINTER]),
  "TF_TensorData": (_POINTER, [_POINTER]),
  "TF_TensorByteSize": (_SIZE, [_POINTER]),
  "TF_NumDims": (_INT, [_POINTER]),
  "TF_Dim": (ctypes.c_int64, [_POINTER, _INT]),
  "TF_StringInit": (None, [_POINTER]),
  "TF_StringCopy": (None, [_POINTER, _TEXT, _SIZE]),
  "TF_StringGetDataPointer": (_POINTER, [_POINTER]),
  "TF_StringGetSize": (_SIZE, [_POINTER]),
  "TF_StringDealloc": (None, [_POINTER]),
}


class _Buffer(ctypes.Structure):
  """TF_Buffer."""

  _fields_ = [
    ("data", _POINTER), ("length", _SIZE), ("deallocator", _POINTER)]


class _Output(ctypes.Structure):
  """TF_Output: one output of an operation."""

  _fields_ = [("operation", _POINTER), ("index", _INT)]


class LoaderError(Exception):
  """What the C++ library, or a request, says is wrong."""


# Protocol buffers.


def _varint(data: bytes, place: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    byte = data[place]
    value |= (byte & 0x7F) << shift
    place, shift = place + 1, shift + 7
    if byte < 0x80:
      return value, place


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
  """(field number, value) of a message: an int, or bytes."""
  place = 0
  while place < len(data):
    key, place = _varint(data, place)
    number, wire_type = key >> 3, key & 7
    if wire_type == 0:
      value, place = _varint(data, place)
    else:
      size = {1: 8, 5: 4}.get(wire_type)
      if size is None:  # length-delimited
        size, place = _varint(data, place)
      value, place = data[place:place + size], place + size
    yield number, value


def _map(message: bytes, field: int) -> dict[str, bytes]:
  """A map field with string keys: repeated messages {1: key, 2: value}."""
  entries = (dict(_fields(v)) for n, v in _fields(message) if n == field)
  return {entry[1].decode(): entry.get(2, b"") for entry in entries}


def _tensor_info(message: bytes) -> tuple[str, str]:
  """TensorInfo {1: name, 2: dtype} -> (name, dtype)."""
  info = dict(_fields(message))
  return info[1].decode(), _DTYPES.get(info.get(2), "unknown")


def read_signatures(meta_graph: bytes) -> dict[str, dict[str, Any]]:
  """MetaGraphDef -> {name: {"inputs": {argument: (tensor, dtype)}, ...}}."""
  return {
    name: {
      # SignatureDef {1: inputs, 2: outputs}
      kind: {key: _tensor_info(value)
             for key, value in _map(signature, field).items()}
      for kind, field in (("inputs", 1), ("outputs", 2))}
    for name, signature in _map(meta_graph, 5).items()
    if not name.startswith("__")  # how to initialize
  }


# TensorFlow's C API.


class Runtime:
  """The C library with the op libraries of TensorFlow Text."""

  def __init__(self, tensorflow_dir: str, text_dir: str):
    self._library = ctypes.CDLL(
        os.path.join(tensorflow_dir, "libtensorflow_cc.so.2"))
    for name, (result, arguments) in _FUNCTIONS.items():
      function = getattr(self._library, name)
      function.restype, function.argtypes = result, arguments
      setattr(self, name.removeprefix("TF_"), function)
    # tensorflow::DisableXlaCompilation(): a function that must be compiled
    # becomes an error. TF_EnableXLACompilation concerns the others only.
    self._library._ZN10tensorflow21DisableXlaCompilationEv()
    for path in sorted(glob.glob(
        os.path.join(text_dir, "python", "ops", "*.so"))):
      self.checked(self.LoadLibrary, path.encode())

  def checked(self, function, *arguments):
    """Calls a function whose last argument is a status."""
    status = self.NewStatus()
    result = function(*arguments, status)
    if self.GetCode(status) != 0:
      message = self.Message(status).decode("utf-8", "replace")
      raise LoaderError(f"code {self.GetCode(status)}: {message}")
    return result

  def new_tensor(self, values: np.ndarray, dtype: int) -> int:
    """A tensor of an array, which holds str if its type is string."""
    is_string = dtype == _STRING
    size = values.size * _SIZE_OF_STRING if is_string else values.nbytes
    dims = (ctypes.c_int64 * values.ndim)(*values.shape)
    tensor = self.AllocateTensor(dtype, dims, values.ndim, size)
    data = self.TensorData(tensor)
    if not is_string:
      ctypes.memmove(data, values.tobytes(), size)
      return tensor
    for i, text in enumerate(values.reshape(-1)):
      content = text.encode("utf-8", "surrogateescape")
      place = data + i * _SIZE_OF_STRING
      self.StringInit(place)
      self.StringCopy(place, content, len(content))
    return tensor

  def _strings_of(self, tensor: int) -> Iterator[int]:
    if self.TensorType(tensor) == _STRING and self.TensorByteSize(tensor):
      data = self.TensorData(tensor)
      yield from range(
          data, data + self.TensorByteSize(tensor), _SIZE_OF_STRING)

  def delete_input(self, tensor: int) -> None:
    for place in self._strings_of(tensor):
      self.StringDealloc(place)
    self.DeleteTensor(tensor)

  def read(self, tensor: int) -> dict[str, Any]:
    """The tensor in the form of an answer, its values flat."""
    dtype = _DTYPES.get(self.TensorType(tensor), "unknown")
    if dtype == "unknown":
      raise LoaderError(f"an output of type {self.TensorType(tensor)}")
    shape = [self.Dim(tensor, i) for i in range(self.NumDims(tensor))]
    if dtype == "string":
      values = [
        ctypes.string_at(
            self.StringGetDataPointer(place), self.StringGetSize(place)
        ).decode("utf-8", "surrogateescape")
        for place in self._strings_of(tensor)]
    else:
      content = ctypes.string_at(
          self.TensorData(tensor), self.TensorByteSize(tensor))
      values = np.frombuffer(content, dtype).tolist()
    return {"dtype": dtype, "shape": shape, "values": values}


class SavedModel:
  """A session on a SavedModel.

  Args:
    runtime: the library.
    path: of the SavedModel.
    threads: within an operation, below 128; not given: all cores.
  """

  def __init__(
      self, runtime: Runtime, path: str, *, threads: int | None = None
  ):
    self._runtime = runtime
    self._graph = runtime.NewGraph()
    options = runtime.NewSessionOptions()
    runtime.EnableXLACompilation(options, 0)
    if threads is not None:
      # ConfigProto {2: intra_op_parallelism_threads}
      config = bytes([2 << 3, threads])
      runtime.checked(runtime.SetConfig, options, config, len(config))
    meta_graph = runtime.NewBuffer()
    self._session = runtime.checked(
        runtime.LoadSessionFromSavedModel, options, None, path.encode(),
        (_TEXT * 1)(b"serve"), 1, self._graph, meta_graph)
    buffer = _Buffer.from_address(meta_graph)
    self.signatures = read_signatures(
        ctypes.string_at(buffer.data, buffer.length))

  def _output(self, tensor_name: str) -> _Output:
    operation, _, index = tensor_name.partition(":")
    found = self._runtime.GraphOperationByName(
        self._graph, operation.encode())
    if not found:
      raise LoaderError(f"the graph has no operation {operation!r}")
    return _Output(found, int(index or 0))

  def _feed(self, signature, inputs: dict[str, Any]) -> dict[str, Any]:
    """{tensor's name: (array, type)}, checked against the signature."""
    if set(inputs) != set(signature["inputs"]):
      raise LoaderError(
          f"received the inputs {sorted(inputs)}; the signature has "
          f"{sorted(signature['inputs'])}")
    feed = {}
    for key, value in inputs.items():
      name, dtype = signature["inputs"][key]
      shape = None
      if isinstance(value, dict):
        shape, value = value["shape"], value["values"]
      array = np.array(value, object if dtype == "string" else dtype)
      if shape is not None:
        array = array.reshape(shape)
      if dtype == "string" and not all(
          isinstance(text, str) for text in array.reshape(-1)):
        raise LoaderError(f"{key}: strings are needed")
      numbers = {dtype: number for number, dtype in _DTYPES.items()}
      feed[name] = array, numbers[dtype]
    return feed

  def run(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a signature."""
    runtime = self._runtime
    if name not in self.signatures:
      raise LoaderError(
          f"no signature {name!r}; there are {sorted(self.signatures)}")
    signature = self.signatures[name]
    feed = self._feed(signature, inputs)
    fetches = [tensor for tensor, _ in signature["outputs"].values()]
    feed_places = (_Output * len(feed))(*map(self._output, feed))
    fetch_places = (_Output * len(fetches))(*map(self._output, fetches))
    given = (_POINTER * len(feed))(
        *(runtime.new_tensor(*value) for value in feed.values()))
    found = (_POINTER * len(fetches))()
    try:
      runtime.checked(
          runtime.SessionRun, self._session, None, feed_places, given,
          len(feed), fetch_places, found, len(fetches), None, 0, None)
      return {key: runtime.read(tensor)
              for key, tensor in zip(signature["outputs"], found)}
    finally:
      # Outputs first: they may share the memory of inputs.
      for tensor in filter(None, found):
        runtime.DeleteTensor(tensor)
      for tensor in given:
        runtime.delete_input(tensor)


_MISTAKES = (LoaderError, KeyError, ValueError, TypeError)


def _run(model: SavedModel, request: dict[str, Any]) -> dict[str, Any]:
  try:
    return {"outputs": model.run(request["signature"], request["inputs"])}
  except _MISTAKES as error:
    return {"error": f"{type(error).__name__}: {error}"}


def _answer(line: str, runtime: Runtime, models: dict) -> dict[str, Any]:
  try:
    request = json.loads(line)
    path = request["saved_model"]
    if path not in models:
      models[path] = SavedModel(runtime, path)
    if "requests" in request:
      # ctypes gives up Python's lock for the time of each call.
      with futures.ThreadPoolExecutor(request["threads"]) as pool:
        return {"answers": list(pool.map(
            lambda one: _run(models[path], one), request["requests"]))}
    if "signature" not in request:
      return {"signatures": models[path].signatures}
    return _run(models[path], request)
  except _MISTAKES as error:
    return {"error": f"{type(error).__name__}: {error}"}


def _folder_of(package: str) -> str | None:
  """Where a package lies, which is not imported."""
  spec = importlib.util.find_spec(package)
  return spec.submodule_search_locations[0] if spec else None


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
      "--tensorflow_dir", default=_folder_of("tensorflow"),
      help="The folder of libtensorflow_cc.so.2. Not given: this Python's.")
  parser.add_argument(
      "--tensorflow_text_dir", default=_folder_of("tensorflow_text"),
      help="The folder of the package tensorflow_text, in the same way.")
  arguments = parser.parse_args()
  # Whatever tried to import it now would fail.
  sys.modules["tensorflow"] = None
  runtime = Runtime(arguments.tensorflow_dir, arguments.tensorflow_text_dir)
  models = {}
  for line in sys.stdin:
    print(json.dumps(_answer(line, runtime, models)), flush=True)


# The tests' side.


def _arrays(answer: dict[str, Any]) -> dict[str, np.ndarray]:
  """The outputs of an answer, or its error raised."""
  if "error" in answer:
    raise LoaderError(answer["error"])
  return {
    name: np.array(
        output["values"],
        object if output["dtype"] == "string" else output["dtype"]
    ).reshape(output["shape"])
    for name, output in answer["outputs"].items()}


class Loader:
  """The process, for as long as a `with` lasts."""

  def __init__(self, *arguments: str):
    self._arguments = arguments

  def __enter__(self) -> "Loader":
    self._process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), *self._arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return self

  def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      raise RuntimeError(
          f"the loader died with status {self._process.wait()}")
    return json.loads(line)

  def ask(self, **request) -> dict[str, Any]:
    """The answer to a request; its outputs as arrays.

    Raises:
      LoaderError: the answer is an error.
      RuntimeError: there is no answer: the process has died.
    """
    answer = self._exchange(request)
    return answer.get("signatures") or _arrays(answer)

  def ask_together(
      self, saved_model: str, requests: list[dict[str, Any]], *, threads: int
  ) -> list[dict[str, np.ndarray]]:
    """The answers of one session to requests that come at once.

    Raises: as `ask`.
    """
    answer = self._exchange({
      "saved_model": saved_model, "requests": requests, "threads": threads})
    return [_arrays(one) for one in answer.get("answers", [answer])]

  def __exit__(self, *_) -> None:
    self._process.stdin.close()
    self._process.wait()
    self._process.stdout.close()


if __name__ == "__main__":
  main()
