"""Asks a TensorFlow Serving that holds an export: over REST or gRPC.

Rows go and come as for an export in this process, see `row_batches`. What a
signature takes is asked of the server first. REST needs the standard library
and numpy alone.

Sources: the server's "RESTful API" page and its `prediction_service.proto`.
"""

import base64
from collections.abc import Callable
import http.client
import json
from typing import Any
from typing import NamedTuple
import urllib.error
import urllib.parse
import urllib.request

import numpy as np

from bert_tf.config import InputError
from bert_tf.errors import one_line
from bert_tf.row_batches import Answerer
from bert_tf.row_batches import make_signature
from bert_tf.row_batches import RefusedRows
from bert_tf.row_batches import Signature
from bert_tf.row_batches import Spec

# Seconds until an answer must have come; the server itself gives up after 30
# with its own defaults.
_TIMEOUT = 60.0
# Types under TensorFlow's names for them -> numpy's.
_DTYPES = {
  "DT_STRING": "string", "DT_FLOAT": "float32", "DT_DOUBLE": "float64",
  "DT_INT32": "int32", "DT_INT64": "int64", "DT_BOOL": "bool",
}
_WITHOUT_API = (
  "gRPC needs the protos of TensorFlow Serving ({error}): pip install -r "
  "requirements-serving.txt, or use --protocol=rest.")

Columns = dict[str, np.ndarray]


class _Connection(NamedTuple):
  """A model behind a server.

  `metadata`: {signature: {"inputs": {name: {...}}, ...}} as in JSON; `call`:
  as `Answerer` has it, with the signature itself.
  """

  metadata: dict[str, Any]
  call: Callable[[str, Signature, Columns], Columns]


def _spec(info: dict[str, Any]) -> Spec:
  """Of a TensorInfo as JSON."""
  sizes = [
    int(dim.get("size", 0)) for dim in info["tensor_shape"].get("dim", [])]
  return Spec(
      _DTYPES.get(info["dtype"], info["dtype"]),
      tuple(None if size < 0 else size for size in sizes) or (None,))


def _json_value(value: Any) -> Any:
  """Text as it is, and bytes as the REST API has them."""
  if isinstance(value, bytes):
    return {"b64": base64.b64encode(value).decode("ascii")}
  return value


def _json_column(column: np.ndarray) -> list:
  if column.dtype == object:
    column = np.vectorize(_json_value, otypes=[object])(column)
  return column.tolist()


def _fetch(url: str, body: dict[str, Any] | None = None) -> Any:
  """The JSON that a GET, or a POST of `body`, answers."""
  data = None if body is None else json.dumps(body).encode("utf-8")
  request = urllib.request.Request(
      url, data, {"Content-Type": "application/json"})
  try:
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
      return json.load(response)
  except urllib.error.HTTPError as error:
    content = error.read().decode("utf-8", "replace")
    try:
      content = json.loads(content)["error"]
    except (json.JSONDecodeError, KeyError, TypeError):
      pass  # Not the server itself, perhaps a proxy before it.
    kind = RefusedRows if error.code == 400 and body else InputError
    raise kind(f"{url}: the server says: {one_line(content)} (HTTP "
               f"{error.code}).") from None
  except (http.client.HTTPException, ValueError):
    raise InputError(
        f"{url}: what answers there speaks no HTTP with JSON. Is this the REST "
        "port (8501) of a TensorFlow Serving, and not that of gRPC (8500)?"
    ) from None
  except OSError as error:
    reason = getattr(error, "reason", None) or error
    raise InputError(
        f"{url}: no answer: {one_line(reason)}. Is the server up, and is this "
        "its REST port?") from None


def _connect_rest(address: str, model_name: str) -> _Connection:
  url = f"http://{address}/v1/models/{urllib.parse.quote(model_name)}"
  metadata = _fetch(f"{url}/metadata")["metadata"]["signature_def"]

  def call(name, signature, columns):
    answer = _fetch(f"{url}:predict", {
      "signature_name": name,
      "inputs": {key: _json_column(column)
                 for key, column in columns.items()}})["outputs"]
    if len(signature.outputs) == 1:  # It comes without its name.
      answer = {key: answer for key in signature.outputs}
    return {
      key: np.array(value, object if signature.outputs[key].dtype == "string"
                    else signature.outputs[key].dtype)
      for key, value in answer.items()}

  return _Connection(metadata["signature_def"], call)


def _connect_grpc(address: str, model_name: str) -> _Connection:
  try:
    from google.protobuf import json_format
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import get_model_metadata_pb2
    from tensorflow_serving.apis import predict_pb2
    from tensorflow_serving.apis import prediction_service_pb2_grpc
  except ImportError as error:
    raise InputError(_WITHOUT_API.format(error=error)) from None
  service = prediction_service_pb2_grpc.PredictionServiceStub(
      grpc.insecure_channel(address, options=[
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1)]))

  def ask(method, request):
    request.model_spec.name = model_name
    try:
      return method(request, timeout=_TIMEOUT)
    except grpc.RpcError as error:
      is_refused = error.code() == grpc.StatusCode.INVALID_ARGUMENT
      raise (RefusedRows if is_refused else InputError)(
          f"{address}: the server says: {one_line(error.details())} "
          f"({error.code().name}).") from None

  def call(name, signature, columns):
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = name
    for key, column in columns.items():
      request.inputs[key].CopyFrom(tf.make_tensor_proto(
          column.tolist(), signature.inputs[key].dtype, column.shape))
    outputs = ask(service.Predict, request).outputs
    return {key: tf.make_ndarray(value) for key, value in outputs.items()}

  answer = ask(
      service.GetModelMetadata, get_model_metadata_pb2.GetModelMetadataRequest(
          metadata_field=["signature_def"]))
  signatures = get_model_metadata_pb2.SignatureDefMap()
  answer.metadata["signature_def"].Unpack(signatures)
  metadata = json_format.MessageToDict(
      signatures, preserving_proto_field_name=True)
  return _Connection(metadata["signature_def"], call)


_PROTOCOLS = {"rest": _connect_rest, "grpc": _connect_grpc}


def connect(address: str, *, model_name: str, protocol: str) -> Answerer:
  """A model behind a server, to be asked as a `Predictor` is.

  Args:
    address: host:port, of the protocol's port.
    model_name: as the server calls it.
    protocol: "rest" or "grpc".

  Raises:
    InputError: nobody answers there, or has no such model.
  """
  connection = _PROTOCOLS[protocol](address, model_name)
  signatures = {
    name: make_signature(*(
      {key: _spec(info) for key, info in signature.get(kind, {}).items()}
      for kind in ("inputs", "outputs")))
    for name, signature in connection.metadata.items()
    if not name.startswith("__")}  # How to initialize.
  return Answerer(
      f"{model_name} on {address}", signatures,
      lambda name, columns: connection.call(name, signatures[name], columns))
