"""The benchmark of serving; the peers are not run here."""

import json
import sys

from conftest import REPOSITORY
import numpy as np
import pytest

from bert_tf import checkpoints
from bert_tf.config import BertConfig
from bert_tf.modeling import BertEncoder
from bert_tf.tokenization import BertTokenizer

sys.path[:0] = [str(REPOSITORY / "tools"),
                str(REPOSITORY / "tools" / "benchmarks" / "peers")]
import benchmark
from benchmarks import harness
from benchmarks import serving
import serving_bert_tf
import serving_timing
del sys.path[:2]


def test_requests_go_round():
  assert serving.make_requests(["a", "b", "c"], batch_size=2, number=3) == [
    ["a", "b"], ["c", "a"], ["b", "c"]]


def test_texts_come_from_both_forms(tmp_path):
  for folder in ("glue/SST-2", "squad"):
    (tmp_path / folder).mkdir(parents=True)
  (tmp_path / "glue/SST-2/dev.tsv").write_text(
      "sentence\tlabel\na b\t1\nc d\t0\n")
  (tmp_path / "squad/dev-v1.1-8articles.json").write_text(json.dumps({"data": [
    {"paragraphs": [{"context": "one"}, {"context": "two"}]},
    {"paragraphs": [{"context": "three"}]}]}))
  assert sorted(serving.read_texts("sst-2", str(tmp_path))) == ["a b", "c d"]
  assert sorted(serving.read_texts("squad", str(tmp_path))) == [
    "one", "three", "two"]


def test_answers_that_differ_are_noticed():
  def found_of(*values):
    return {"base, squad, 1": {
      f"program {i}": [{"answers": [[value, 1 - value]]}]
      for i, value in enumerate(values)}}

  serving.check_answers(found_of(0.25, 0.2505))
  for wrong in (0.26, float("nan")):
    with pytest.raises(
        SystemExit, match="squad, 1: program 1 and program 0 differ by"):
      serving.check_answers(found_of(0.25, wrong))
  found = found_of(0.25, 0.26)
  runs = found["base, squad, 1"]
  runs["bert_tf frozen"] = runs.pop("program 1")
  serving.check_answers(found)
  runs["bert_tf frozen"][0]["answers"] = [[0.35, 0.65]]
  with pytest.raises(SystemExit, match="bert_tf frozen and program 0 differ"):
    serving.check_answers(found)


def test_the_report_of_serving(monkeypatch, capsys):
  """The 99th of 0.01 to 1 s lies between the two greatest."""
  hundred = [i / 100 for i in range(1, 101)]
  found_of = lambda seconds: [{
    "seconds": seconds, "answers": [[0.5, 0.5]], "version": "V 1",
    "cpu_seconds": 0.75}]
  monkeypatch.setattr(serving, "_measure", lambda arguments: {
    "base, squad, 1": {
      "bert_tf in Python": found_of(hundred),
      "onnxruntime": found_of([1.01] * 5)}})
  benchmark.main(["serving"])
  lines = capsys.readouterr().out.splitlines()
  assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == [
    "bert_tf in Python (V 1)", "base, squad, 1", "505.0", "990.1",
    "750.0", "100"]
  assert ("* base, squad, 1: bert_tf in Python takes 0.50 times onnxruntime"
          in lines)


@pytest.mark.parametrize("most_seconds, answered", [(10.0, 7), (0.0, 5)])
def test_the_clock_starts_when_all_is_warm(
    tmp_path, capsys, most_seconds, answered):
  texts = tmp_path / "texts.json"
  texts.write_text(json.dumps([[str(i)] for i in range(7)]))
  asked = []

  def answer(request):
    asked.append(request[0])
    return [[0.25, 0.75]]

  serving_timing.run(
      {"texts": str(texts), "warm_up": 2, "most_seconds": most_seconds},
      answer, version="V 1")
  found = harness.last_json(capsys.readouterr().out)
  assert len(found["seconds"]) == answered
  assert found["answers"] == [[0.25, 0.75]] and found["version"] == "V 1"
  assert asked == ["0", "0", "1", *map(str, range(answered))]


def test_logits_become_probabilities():
  """Of ln 1 and ln 3."""
  np.testing.assert_allclose(
      serving_timing.softmax(np.log([[1.0, 3.0]]) + 1000), [[0.25, 0.75]])


@pytest.mark.slow
def test_our_model_answers_in_python_and_in_cpp(tmp_path):
  """The model of the benchmark, but of one layer."""
  entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bad", "good"]
  (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n")
  checkpoints.save_model(
      str(tmp_path / "tiny"), BertEncoder(BertConfig(
          vocab_size=7, hidden_size=16, num_hidden_layers=1,
          num_attention_heads=2, intermediate_size=32,
          max_position_embeddings=serving.LENGTH)),
      BertTokenizer.from_file(
          str(tmp_path / "vocab.txt"), do_lower_case=True))
  serving.make_model("minilm", str(tmp_path / "m"), str(tmp_path / "tiny"))
  assert (tmp_path / "m" / "huggingface" / "model.safetensors").exists()
  path = str(tmp_path / "m" / "export" / "1")
  texts = ["good", "bad bad good"]
  keep, answer = serving_bert_tf.in_python(path)
  probabilities = answer(texts)
  assert probabilities.shape == (2, 2)
  np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
