"""A stand-in for tensorflow_model_server: there is none to install here.

It speaks the same JSON and the same protos, the part of them that predicting
needs, and answers with a real export. It says in each answer's headers that it
is a stand-in. What it does not show: how the real server loads, batches and
warms up.

  python tests/stand_in_server.py --export_dir=export/spam --model_name=spam
"""

import argparse
import concurrent.futures
import http.server
import json
import re
import threading

from google.protobuf import json_format
import grpc
import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401: the operations of the tokenizer.
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

NAME = "stand-in for tensorflow_model_server"
_PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict")
_METADATA = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?/metadata")


class ServerError(Exception):
  """An error of the server's, with a code of gRPC and one of HTTP."""

  def __init__(self, code: grpc.StatusCode, status: int, message: str):
    super().__init__(message)
    self.code, self.status = code, status


def _invalid(message: str) -> ServerError:
  return ServerError(grpc.StatusCode.INVALID_ARGUMENT, 400, message)


class Model:
  """An export, under a name."""

  def __init__(self, path: str, name: str):
    self.name = name
    self._signatures = tf.saved_model.load(path).signatures
    with open(f"{path}/saved_model.pb", "rb") as file:
      meta_graph = saved_model_pb2.SavedModel.FromString(
          file.read()).meta_graphs[0]
    self.definitions = {
      key: value for key, value in meta_graph.signature_def.items()
      if not key.startswith("__")}

  def check(self, name: str) -> None:
    if name != self.name:
      raise ServerError(
          grpc.StatusCode.NOT_FOUND, 404,
          f"Servable not found for request: Latest({name})")

  def definition(self, signature: str):
    if signature not in self.definitions:
      raise _invalid(f'Serving signature name: "{signature}" not found in '
                     "signature def")
    return self.definitions[signature]

  def run(self, signature: str, inputs: dict) -> dict[str, np.ndarray]:
    known = self.definition(signature).inputs
    if set(inputs) != set(known):
      raise _invalid(f"input size does not match signature: {sorted(inputs)} "
                     f"!= {sorted(known)}")
    try:
      outputs = self._signatures[signature](**inputs)
    except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
      raise _invalid(str(error)) from None
    return {key: value.numpy() for key, value in outputs.items()}


def _from_json(value):
  """Bytes of {"b64": ...}; all else as it is."""
  if isinstance(value, dict):
    return tf.io.decode_base64(
        value["b64"].replace("+", "-").replace("/", "_").rstrip("=")).numpy()
  if isinstance(value, list):
    return [_from_json(item) for item in value]
  return value


def _to_json(values: np.ndarray):
  if values.dtype == object:
    return np.vectorize(bytes.decode, otypes=[object])(values).tolist()
  if values.dtype == np.float32:  # As few digits as tell it apart.
    return values.astype("U32").astype(float).tolist()
  return values.tolist()


def _predict_json(model: Model, body: dict) -> dict:
  """Rows ("instances") or columns ("inputs"), as the REST API has them."""
  signature = body.get("signature_name", "serving_default")
  known = model.definition(signature).inputs
  if ("instances" in body) == ("inputs" in body):
    raise _invalid("Missing 'inputs' or 'instances' key")
  given = body.get("inputs")
  if "instances" in body:
    rows = body["instances"]
    if len(known) > 1 and not isinstance(rows[0], dict):
      raise _invalid("instances is a plain list, but expecting list of objects")
    given = {key: [row[key] for row in rows] for key in rows[0]} if (
        isinstance(rows[0], dict) and set(rows[0]) != {"b64"}) else rows
  if not isinstance(given, dict):
    [name] = known
    given = {name: given}
  try:
    inputs = {
      key: tf.constant(_from_json(value), known[key].dtype)
      for key, value in given.items() if key in known}
  except (ValueError, TypeError) as error:
    raise _invalid(f"JSON Value: {error}") from None
  outputs = {key: _to_json(value)
             for key, value in sorted(model.run(signature, inputs).items())}
  if "inputs" in body:
    return {"outputs": outputs if len(outputs) > 1 else [*outputs.values()][0]}
  columns = zip(*outputs.values())
  return {"predictions": [
    dict(zip(outputs, row)) if len(outputs) > 1 else row[0]
    for row in columns]}


def _metadata_json(model: Model) -> dict:
  signatures = get_model_metadata_pb2.SignatureDefMap(
      signature_def=model.definitions)
  return {
    "model_spec": {
      "name": model.name, "signature_name": "", "version": "1"},
    "metadata": {"signature_def": json_format.MessageToDict(
        signatures, preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True)}}


def _make_handler(model: Model):

  class Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = NAME.replace(" ", "-"), ""

    def _answer(self, make):
      try:
        status, answer = 200, make()
      except ServerError as error:
        status, answer = error.status, {"error": str(error)}
      content = json.dumps(answer, indent=4, ensure_ascii=False).encode()
      self.send_response(status)
      self.send_header("Content-Type", "application/json")
      self.send_header("Content-Length", str(len(content)))
      self.end_headers()
      self.wfile.write(content)

    def _checked(self, pattern):
      match = pattern.fullmatch(self.path)
      if not match:
        raise _invalid(f"Malformed request: {self.command} {self.path}")
      model.check(match[1])

    def do_GET(self):

      def make():
        self._checked(_METADATA)
        return _metadata_json(model)

      self._answer(make)

    def do_POST(self):
      content = self.rfile.read(int(self.headers["Content-Length"]))

      def make():
        self._checked(_PREDICT)
        try:
          body = json.loads(content)
        except json.JSONDecodeError as error:
          raise _invalid(f"JSON Parse error: {error}") from None
        return _predict_json(model, body)

      self._answer(make)

    def log_message(self, *_):
      pass

  return Handler


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):

  def __init__(self, model: Model):
    self._model = model

  def _answer(self, context, request, make):
    context.send_initial_metadata((("server", NAME),))
    try:
      self._model.check(request.model_spec.name)
      return make()
    except ServerError as error:
      context.abort(error.code, str(error))

  def Predict(self, request, context):

    def make():
      signature = request.model_spec.signature_name or "serving_default"
      outputs = self._model.run(signature, {
        key: tf.constant(tf.make_ndarray(value), value.dtype)
        for key, value in request.inputs.items()})
      return predict_pb2.PredictResponse(outputs={
        key: tf.make_tensor_proto(value) for key, value in outputs.items()})

    return self._answer(context, request, make)

  def GetModelMetadata(self, request, context):

    def make():
      response = get_model_metadata_pb2.GetModelMetadataResponse()
      response.model_spec.name = self._model.name
      response.metadata["signature_def"].Pack(
          get_model_metadata_pb2.SignatureDefMap(
              signature_def=self._model.definitions))
      return response

    return self._answer(context, request, make)


class StandIn:
  """The server, for as long as a `with` lasts; `rest` and `grpc` are ports."""

  def __init__(
      self, path: str, *, model_name: str, rest: int = 0, grpc: int = 0
  ):
    model = Model(path, model_name)
    self._rest = http.server.ThreadingHTTPServer(
        ("localhost", rest), _make_handler(model))
    self.rest = self._rest.server_address[1]
    self._grpc = _grpc_server()
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Service(model), self._grpc)
    self.grpc = self._grpc.add_insecure_port(f"localhost:{grpc}")

  def __enter__(self) -> "StandIn":
    self._grpc.start()
    threading.Thread(target=self._rest.serve_forever, daemon=True).start()
    return self

  def __exit__(self, *_):
    self._rest.shutdown()
    self._rest.server_close()
    self._grpc.stop(None).wait()


def _grpc_server():
  return grpc.server(concurrent.futures.ThreadPoolExecutor(4))


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--export_dir", required=True, help="One version.")
  parser.add_argument("--model_name", default="model")
  parser.add_argument("--rest_api_port", type=int, default=8501)
  parser.add_argument("--port", type=int, default=8500, help="Of gRPC.")
  arguments = parser.parse_args()
  with StandIn(
      arguments.export_dir, model_name=arguments.model_name,
      rest=arguments.rest_api_port, grpc=arguments.port) as server:
    print(f"This is a {NAME}: REST on {server.rest}, gRPC on {server.grpc}.",
          flush=True)
    threading.Event().wait()


if __name__ == "__main__":
  main()
