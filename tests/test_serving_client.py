"""REST and gRPC against a stand-in server that answers with real exports."""

import json
import os
import socket
import subprocess
import sys
import urllib.request

from conftest import REPOSITORY
import numpy as np
import pytest

import bert_tf
from bert_tf import serving_client
from bert_tf.config import InputError
from bert_tf.row_batches import check_row
from bert_tf.row_batches import RefusedRows
from bert_tf.serving_arguments import QueryConfig
import tiny_exports

pytest.importorskip(
    "tensorflow_serving", reason="needs requirements-serving.txt")
from stand_in_server import StandIn  # noqa: E402: it needs the protos.


@pytest.fixture(scope="module")
def served(tiny_export):
  """Loads and serves the export of a kind when it is first asked for."""
  made = {}

  def serve(kind):
    if kind not in made:
      server = StandIn(
          os.path.join(tiny_export(kind), "1"), model_name="tiny").__enter__()
      made[kind] = bert_tf.Predictor(tiny_export(kind)), server
    return made[kind]

  yield serve
  for _, server in made.values():
    server.__exit__()


def address(server, protocol):
  return f"localhost:{server.rest if protocol == 'rest' else server.grpc}"


def connect(server, protocol, model_name="tiny"):
  return serving_client.connect(
      address(server, protocol), model_name=model_name, protocol=protocol)


def assert_equal_answers(one, two):
  """Equal but for the last digits of numbers."""
  assert type(one) is type(two)
  if isinstance(one, dict):
    assert sorted(one) == sorted(two)
    for key in one:
      assert_equal_answers(one[key], two[key])
  elif isinstance(one, list):
    assert len(one) == len(two)
    for first, second in zip(one, two):
      assert_equal_answers(first, second)
  elif isinstance(one, float):
    assert one == pytest.approx(two, abs=1e-5)
  else:
    assert one == two


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("kind", tiny_exports.KINDS)
def test_a_server_answers_as_the_predictor(served, kind, protocol):
  predictor, server = served(kind)
  client = connect(server, protocol)
  assert client.signatures == predictor.signatures
  columns = tiny_exports.COLUMNS[kind]
  for name, signature in client.signatures.items():
    if set(signature.inputs) == set(columns):
      assert_equal_answers(*(
        answerer(**columns, signature=name, batch_size=3)
        for answerer in (client, predictor)))


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_bytes_that_are_not_utf8_arrive(served, protocol):
  predictor, server = served("pair")
  texts = [b"the \xff cat", b"dogs"]
  assert_equal_answers(
      connect(server, protocol)(texts, texts), predictor(texts, texts))


@pytest.mark.parametrize("protocol, message", [
  ("rest", r"Servable not found for request: Latest\(other\) \(HTTP 404\)"),
  ("grpc", r"Servable not found for request: Latest\(other\) \(NOT_FOUND\)")])
def test_another_model_is_not_there(served, protocol, message):
  _, server = served("pair")
  with pytest.raises(InputError, match=message):
    connect(server, protocol, "other")


@pytest.mark.parametrize("protocol, message", [
  ("rest", "no answer: .*refused.* Is the server up"),
  ("grpc", "the server says: .*UNAVAILABLE")])
def test_nobody_answers(protocol, message):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  with pytest.raises(InputError, match=message):
    serving_client.connect(
        f"localhost:{port}", model_name="tiny", protocol=protocol)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_what_the_model_refuses_says_so(served, protocol):
  # Another number of choices than the same texts: a shape that breaks inside.
  _, server = served("pair")
  client = connect(server, protocol)
  row = check_row(
      client.signature("serving_default"), {"text": "a", "text_pair": "b"}, "")
  row["text_pair"] = np.array(["b", "c"], object)
  with pytest.raises(RefusedRows, match="the server says: "):
    client.answer([row])


def test_what_is_no_model_server_is_an_error(served):
  _, server = served("pair")
  with pytest.raises(InputError, match="speaks no HTTP with JSON.*REST"):
    serving_client.connect(
        f"localhost:{server.grpc}", model_name="tiny", protocol="rest")


def test_without_the_protos_grpc_says_how_to_get_them(monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
  with pytest.raises(InputError, match="requirements-serving.txt, or use"):
    serving_client.connect("localhost:1", model_name="m", protocol="grpc")


def test_a_server_has_a_port():
  assert QueryConfig().address == "localhost:8501"
  assert QueryConfig(protocol="grpc").address == "localhost:8500"
  assert QueryConfig(server="models.lan:80").address == "models.lan:80"
  with pytest.raises(InputError, match="--server: received 'http://x'"):
    QueryConfig(server="http://x")


# The stand-in itself.


def test_the_stand_in_says_what_it_is_and_answers_rows(served):
  _, server = served("pair")

  def post(body):
    request = urllib.request.Request(
        f"http://localhost:{server.rest}/v1/models/tiny:predict",
        json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
      return response.headers["Server"].strip(), json.load(response)

  name, rows = post({"instances": [
    {"text": "a cat", "text_pair": "b"}, {"text": "a", "text_pair": "c"}]})
  assert name == "stand-in-for-tensorflow_model_server"
  [first, second] = rows["predictions"]
  assert list(first) == ["label", "logits", "probabilities"]
  columns = post({"inputs": {"text": ["a cat", "a"], "text_pair": ["b", "c"]}})
  assert columns[1] == {"outputs": {
    name: [first[name], second[name]] for name in first}}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_program_asks_the_server(served, tmp_path, protocol):
  predictor, server = served("pair")
  columns = tiny_exports.COLUMNS["pair"]
  rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
  (tmp_path / "rows.jsonl").write_text(
      "".join(json.dumps(row) + "\n" for row in rows))
  result = subprocess.run(
      [sys.executable, str(REPOSITORY / "tools" / "query_server.py"),
       f"--server={address(server, protocol)}", "--model_name=tiny",
       f"--protocol={protocol}", f"--input_file={tmp_path}/rows.jsonl"],
      capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  answers = [json.loads(line) for line in result.stdout.splitlines()]
  assert_equal_answers(answers, predictor(**columns))
  # REST needs no TensorFlow, whose start takes seconds.
  assert protocol == "grpc" or "oneDNN" not in result.stderr
