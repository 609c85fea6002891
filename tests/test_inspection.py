"""What a checkpoint is and holds, and how two differ."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

from conftest import REPOSITORY
import numpy as np
import pytest

from bert_tf import checkpoints
from bert_tf import inspection
from bert_tf.config import BertConfig
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.tokenization import BertTokenizer

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##se"]
CONFIG = BertConfig(
    vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=12)
BIAS = "bert/encoder/layer_1/attention/self/key/bias"
TABLE = "bert/embeddings/token_type_embeddings"
# Weights and biases, counted by hand.
SIZES = {
  "embeddings": (7 + 12 + 2) * 8 + 2 * 8,
  "layer 0": 4 * (8 * 8 + 8) + 2 * 8 * 16 + 16 + 8 + 4 * 8,
  "layer 1": 4 * (8 * 8 + 8) + 2 * 8 * 16 + 16 + 8 + 4 * 8,
  "pooler": 8 * 8 + 8,
  "masked LM": 8 * 8 + 8 + 2 * 8 + 7,
  "next sentence": 2 * 8 + 2,
}


def save(directory, model, **values):
  for name, value in values.items():
    checkpoints.checkpoint_names(model)[name].assign(value)
  checkpoints.save_model(
      str(directory), model, BertTokenizer(ENTRIES, do_lower_case=True))
  return str(directory)


def describe(path):
  return inspection.describe(checkpoints.open_source(path))


def compare(*paths):
  return inspection.compare(*map(checkpoints.open_source, paths))


def test_a_model_directory_is_described(tmp_path):
  path = save(tmp_path, BertForPreTraining(CONFIG), **{
    BIAS: [3, 0, 0, 4, 0, 0, 0, 0]})
  found = describe(path)
  assert found["form"] == "checkpoint"
  assert found["config"] == CONFIG.to_dict()
  assert found["sizes"] == SIZES and list(found["sizes"]) == list(SIZES)
  rows = {row["name"]: row for row in found["variables"]}
  assert rows[BIAS] == {"name": BIAS, "shape": [8], "norm": 5.0}
  assert len(rows) == 5 + 2 * 16 + 2 + 5 + 2
  assert found["missing"] == found["extra"] == []
  assert found["loads"] == {
    "encoder": None, "pretraining model": None, "tokenizer": None}


def test_what_is_missing_and_what_is_extra_is_named(tmp_path):
  path = save(tmp_path, BertClassifier(CONFIG, num_classes=3))
  found = describe(path)
  assert found["extra"] == ["output_bias", "output_weights"]
  assert found["sizes"]["classifier"] == 3 * 8 + 3
  assert [name for name in found["missing"] if "transform" not in name] == [
    "cls/predictions/output_bias", "cls/seq_relationship/output_bias",
    "cls/seq_relationship/output_weights"]
  assert found["loads"]["encoder"] is None
  assert found["loads"]["pretraining model"] is None
  assert found["initialized"] == {
    "encoder": [], "pretraining model": found["missing"]}


def test_a_missing_pooler_is_told_and_a_missing_layer_does_not_load(tmp_path):
  path = save(tmp_path, BertForPreTraining(CONFIG))
  source = checkpoints.open_source(path)
  without = {name: shape for name, shape in source.shapes.items()
             if not name.startswith("bert/pooler/")}
  pooler = ["bert/pooler/dense/bias", "bert/pooler/dense/kernel"]
  found = inspection.describe(dataclasses.replace(source, shapes=without))
  assert found["missing"] == pooler
  assert found["initialized"] == {
    "encoder": pooler, "pretraining model": pooler}
  assert found["loads"]["encoder"] is None
  assert found["loads"]["pretraining model"] is None
  assert (
    "  encoder: loads, but for bert/pooler/dense/bias, "
    "bert/pooler/dense/kernel, which are initialized at random"
  ) in inspection.description_lines(found)
  del without[BIAS]
  found = inspection.describe(dataclasses.replace(source, shapes=without))
  for kind in ("encoder", "pretraining model"):
    assert f"{BIAS}: missing" in found["loads"][kind]
    assert found["initialized"][kind] == []


def test_values_that_are_no_numbers_are_named(tmp_path):
  path = save(tmp_path, BertForPreTraining(CONFIG), **{BIAS: [np.nan] * 8})
  rows = {row["name"]: row for row in describe(path)["variables"]}
  assert rows[BIAS]["norm"] is None
  assert rows[BIAS]["error"] == "holds values that are not finite"


def test_a_damaged_file_and_a_missing_config_are_described(tmp_path):
  path = save(tmp_path, BertForPreTraining(CONFIG))
  data = tmp_path / "bert_model.ckpt.data-00000-of-00001"
  data.write_bytes(data.read_bytes()[:-100])
  (tmp_path / "vocab.txt").unlink()
  found = describe(path)
  damaged = [row for row in found["variables"] if row["norm"] is None]
  assert 0 < len(damaged) < 5
  assert all("Is the file whole?" in row["error"] for row in damaged)
  assert found["loads"]["encoder"] is None
  assert "cannot be read" in found["loads"]["pretraining model"]
  assert "Found no vocab.txt" in found["loads"]["tokenizer"]
  os.remove(tmp_path / "bert_config.json")
  found = describe(path)
  assert found["config"] is None
  assert "has no bert_config.json" in found["loads"]["encoder"]


def test_two_that_differ_in_one_value(tmp_path):
  model = BertForPreTraining(CONFIG)
  one = save(tmp_path / "one", model, **{BIAS: [1.0] * 8})
  other = save(tmp_path / "other", model, **{BIAS: [1.0] * 7 + [0.5]})
  found = compare(one, other)
  assert [row["part"] for row in found["differences"]] == list(SIZES)
  for row in found["differences"]:
    if row["part"] == "layer 1":
      assert (row["largest"], row["variable"]) == (0.5, BIAS)
    else:
      assert row["largest"] == 0.0
  assert not any(found[key] for key in (
      "only_in_first", "only_in_second", "other_shape", "config"))


def test_two_of_other_shapes_are_compared_where_they_can_be(tmp_path):
  one = save(tmp_path / "one", BertForPreTraining(CONFIG))
  other = save(tmp_path / "other", BertClassifier(BertConfig(**{
    **CONFIG.to_dict(), "type_vocab_size": 3, "num_hidden_layers": 1,
  }), num_classes=2))
  found = compare(one, other)
  assert [row["part"] for row in found["differences"]] == [
    "embeddings", "layer 0", "pooler"]
  assert found["other_shape"] == {TABLE: [[2, 8], [3, 8]]}
  assert found["only_in_second"] == ["output_bias", "output_weights"]
  assert len(found["only_in_first"]) == 16 + 5 + 2
  assert found["config"] == {
    "num_hidden_layers": [2, 1], "type_vocab_size": [2, 3]}


def test_slots_of_an_optimizer_are_a_part_of_their_own(shared):
  found = describe(str(shared / "golden" / "google_checkpoint_with_adam"))
  # Two moments of each parameter, and the step.
  parameters = sum(found["sizes"].values()) - found["sizes"]["optimizer"]
  assert found["sizes"]["optimizer"] == 2 * parameters + 1
  assert list(found["sizes"])[-1] == "optimizer"
  assert "global_step" in found["extra"]


def test_an_output_table_of_its_own_is_told(shared, tmp_path):
  safetensors = pytest.importorskip("safetensors.numpy")
  golden = shared / "golden" / "huggingface_checkpoint"
  shutil.copytree(golden, tmp_path / "model")
  tensors = safetensors.load_file(golden / "model.safetensors")
  tensors["cls.predictions.decoder.weight"] = (
      2 * tensors["bert.embeddings.word_embeddings.weight"])
  safetensors.save_file(tensors, tmp_path / "model" / "model.safetensors")
  found = describe(str(tmp_path / "model"))
  assert found["loads"]["encoder"] is None
  assert "decoder/kernel differs" in found["loads"]["pretraining model"]


@pytest.mark.parametrize("form, extra", [
  ("google_checkpoint", ["global_step"]), ("tf_models_checkpoint", []),
  ("huggingface_checkpoint", []), ("huggingface_tf_checkpoint", [])])
def test_every_form_is_whole(shared, form, extra):
  if form == "huggingface_checkpoint":
    pytest.importorskip("safetensors")
  found = describe(str(shared / "golden" / form))
  assert (found["missing"], found["extra"]) == ([], extra)
  assert found["loads"]["encoder"] is None
  assert found["loads"]["pretraining model"] is None


def test_the_same_weights_in_two_forms_are_equal(shared):
  pytest.importorskip("safetensors")
  found = compare(str(shared / "golden" / "huggingface_checkpoint"),
                  str(shared / "golden" / "huggingface_tf_checkpoint"))
  assert [row["largest"] for row in found["differences"]] == 7 * [0.0]
  del found["differences"]
  assert not any(found.values())


def test_the_program_prints_it(tmp_path):
  path = save(tmp_path, BertForPreTraining(CONFIG))
  script = str(REPOSITORY / "tools" / "inspect_checkpoint.py")

  def run(*arguments):
    result = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout

  assert json.loads(run(path, "--json")) == describe(path)
  lines = inspection.comparison_lines(compare(path, path))
  assert run(path, path) == "\n".join(lines) + "\n"


def test_people_read_lines(tmp_path):
  path = save(tmp_path, BertClassifier(CONFIG, num_classes=3), **{
    BIAS: [3, 0, 0, 4, 0, 0, 0, 0]})
  lines = inspection.description_lines(describe(path))
  words = [line.split() for line in lines]
  assert lines[0] == f"{path}/bert_model.ckpt: checkpoint"
  assert "  hidden_size = 8" in lines
  assert ["classifier", "27"] in words
  assert [BIAS, "8", "5"] in words
  assert ["output_weights", "3", "x", "8"] in [row[:4] for row in words]
  assert "  extra: output_bias, output_weights" in lines
  assert any(line.startswith("  missing: cls/predictions/output_bias,")
             and line.endswith("and 2 more") for line in lines)
  assert "  encoder: loads" in lines
