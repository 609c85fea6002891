"""Checkpoints from each form to each: equal to the bit."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import conversion
from bert_tf.checkpoint_arguments import ConversionConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.heads import BertTokenClassifier
from bert_tf.inspection import part_of
from bert_tf.modeling import BertEncoder
from bert_tf.tokenization import BertTokenizer

import transformers_models as models
from transformers_models import KINDS

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##se"]
CONFIG = BertConfig(
    vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=12)
FORMS = ("google", "huggingface", "keras")


@pytest.fixture(autouse=True)
def safetensors():
  return pytest.importorskip("safetensors.numpy")


def convert(source, target, to, **options):
  conversion.run(ConversionConfig(
      input_dir=str(source), output_dir=str(target), to=to, **options))
  return target


def save(directory, model, **options):
  checkpoints.save_model(
      str(directory), model, BertTokenizer(ENTRIES, do_lower_case=False),
      **options)
  return directory


def bits_of(directory):
  """{name: (type, shape, bytes)} of every variable, as it is read."""
  source = checkpoints.open_source(str(directory))
  arrays = {name: np.asarray(source.read(name)) for name in source.shapes}
  return {name: (array.dtype, array.shape, array.tobytes())
          for name, array in arrays.items()}


def checkpoint_bits(directory):
  """The same of a TensorFlow checkpoint, read without this project."""
  reader = tf.train.load_checkpoint(str(directory / "bert_model.ckpt"))
  return {
    name: (reader.get_tensor(name).dtype, tuple(shape),
           reader.get_tensor(name).tobytes())
    for name, shape in reader.get_variable_to_shape_map().items()
    if name != "global_step"}


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_googles_checkpoint_comes_back_through_any_two_forms(
    shared, tmp_path, first, second):
  golden = shared / "golden" / "google_checkpoint"
  one = convert(golden, tmp_path / "one", first)
  two = convert(one, tmp_path / "two", second)
  again = convert(two, tmp_path / "again", "google")
  assert checkpoint_bits(again) == checkpoint_bits(golden)
  assert bits_of(one) == bits_of(two) == bits_of(again)
  assert (BertConfig.from_json_file(str(again / "bert_config.json"))
          == BertConfig.from_json_file(str(golden / "bert_config.json")))
  assert ((again / "vocab.txt").read_bytes()
          == (golden / "vocab.txt").read_bytes())


@pytest.mark.parametrize("to", FORMS)
def test_transformers_h5_becomes_its_safetensors(
    shared, tmp_path, safetensors, to):
  golden = shared / "golden" / "huggingface_checkpoint"
  one = convert(
      shared / "golden" / "huggingface_tf_checkpoint", tmp_path / "one", to)
  two = convert(one, tmp_path / "two", "huggingface")
  expected = safetensors.load_file(golden / "model.safetensors")
  found = safetensors.load_file(two / "model.safetensors")
  assert sorted(found) == sorted(expected)
  for name, value in expected.items():
    assert found[name].dtype == value.dtype
    np.testing.assert_array_equal(found[name], value)
  theirs = json.loads((golden / "config.json").read_text())
  ours = json.loads((two / "config.json").read_text())
  assert {key: ours[key] for key in set(ours) & set(theirs)} == {
    key: theirs[key] for key in set(ours) & set(theirs)}
  assert set(ours) - set(theirs) == {"position_embedding_type"}


@pytest.mark.parametrize("to", FORMS)
def test_tf_models_checkpoint_keeps_its_outputs(shared, tmp_path, to):
  golden = shared / "golden" / "tf_models_checkpoint"
  expected = np.load(golden / "expected_outputs.npz")
  converted = convert(golden, tmp_path / "converted", to)
  heads = checkpoints.load_pretraining_model(str(converted))({
    name: expected[name].astype(np.int32) for name in (
        "input_ids", "input_mask", "segment_ids", "masked_lm_positions")})
  for name in ("mlm_logits", "nsp_logits"):
    np.testing.assert_allclose(heads[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_directory_holds_travels(tmp_path, to, kind):
  make, task, architecture = KINDS[kind]
  if task is not None:
    task = {"task_name": kind, "max_seq_length": 12, **task}
  start = save(tmp_path / "start", make(CONFIG), task=task)
  there = convert(start, tmp_path / "there", to)
  again = convert(there, tmp_path / "again", "google")
  assert bits_of(there) == bits_of(again) == bits_of(start)
  assert sorted(os.listdir(again)) == sorted(os.listdir(start))
  for name in os.listdir(start):
    if not name.startswith("bert_model"):
      assert (again / name).read_text() == (start / name).read_text()
  if to == "keras":
    model = keras.saving.load_model(there / "model.keras")
    assert type(model) is type(make(CONFIG))
  if to == "huggingface":
    values = json.loads((there / "config.json").read_text())
    assert values["architectures"] == [architecture]
    assert values.get("id2label") == (
        {"0": "a", "1": "b", "2": "c"} if task and task.get("labels")
        else None)
    # What Hugging Face says of the task is enough.
    os.remove(there / "task.json") if task else None
    last = convert(there, tmp_path / "last", "google")
    assert bits_of(last) == bits_of(start)
    assert checkpoints.read_task(checkpoints.open_source(last)) == task


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_computed_the_same_from_what_is_written(tmp_path, kind):
  kept = np.load(models.OUTPUTS)
  model = models.write_model(kind, tmp_path)
  # To the byte what it read.
  assert models.digest(tmp_path / "huggingface") == kept[f"{kind}/digest"]
  for name, value in models.outputs_of(model, kind).items():
    np.testing.assert_allclose(value, kept[f"{kind}/{name}"], atol=1e-5)


def test_a_release_without_pooler_and_next_sentence_is_converted(
    tmp_path, safetensors, caplog):
  start = save(tmp_path / "start", BertForPreTraining(CONFIG))
  there = convert(start, tmp_path / "there", "huggingface")
  weights = there / "model.safetensors"
  values = safetensors.load_file(weights)
  safetensors.save_file({
    name: value for name, value in values.items()
    if "pooler" not in name and "seq_relationship" not in name}, weights)
  again = convert(there, tmp_path / "again", "google")
  expected = {name: bits for name, bits in bits_of(start).items()
              if "pooler" not in name and "seq_relationship" not in name}
  assert bits_of(again) == expected and len(expected) == 5 + 2 * 16 + 5
  with caplog.at_level("WARNING"):
    whole = bits_of(convert(there, tmp_path / "keras", "keras"))
  assert {name: whole[name] for name in expected} == expected
  assert "needs bert/pooler/dense/bias, bert/pooler/dense/kernel, cls/seq_re" \
      in caplog.text


def test_slots_of_an_optimizer_are_left_out(shared, tmp_path):
  golden = shared / "golden" / "google_checkpoint_with_adam"
  converted = convert(golden, tmp_path / "converted", "google")
  expected = {name: bits for name, bits in checkpoint_bits(golden).items()
              if "adam" not in name}
  assert checkpoint_bits(converted) == expected


def test_nothing_stays_of_what_failed(tmp_path, monkeypatch):
  start = save(tmp_path / "start", BertForPreTraining(CONFIG))

  def fail(*_):
    raise OSError("No space left on device")

  monkeypatch.setitem(conversion._WRITERS, "google", fail)
  with pytest.raises(OSError):
    convert(start, tmp_path / "there", "google")
  assert os.listdir(tmp_path) == ["start"]


def test_what_is_there_is_not_written_over(tmp_path):
  start = save(tmp_path / "start", BertForPreTraining(CONFIG))
  before = bits_of(start)
  with pytest.raises(InputError, match="is there already"):
    convert(start, start, "huggingface")
  assert bits_of(start) == before
  (tmp_path / "empty").mkdir()
  assert bits_of(convert(start, tmp_path / "empty", "keras")) == before
  with pytest.raises(InputError, match="must be on this machine"):
    convert(start, "ram://there", "google")


def test_what_a_form_has_no_place_for_is_refused(tmp_path):
  causal = BertConfig(**{**CONFIG.to_dict(), "attention": "left_to_right"})
  start = save(tmp_path / "causal", BertEncoder(causal))
  with pytest.raises(InputError, match="attention: is 'left_to_right'"):
    convert(start, tmp_path / "there", "huggingface")
  start = save(tmp_path / "bilstm", BertClassifier(
      CONFIG, num_classes=2, head="bilstm"))
  with pytest.raises(InputError, match="head of LSTMs"):
    convert(start, tmp_path / "there", "huggingface")
  there = convert(start, tmp_path / "there", "keras")
  assert bits_of(there) == bits_of(start)


def test_a_tagger_of_features_travels_where_its_task_goes_along(tmp_path):
  start = save(
      tmp_path / "start",
      BertTokenClassifier(CONFIG, num_classes=3, features="weighted_sum_all"),
      task={"task_name": "tagging", "labels": ["O", "B-X", "I-X"],
            "max_seq_length": 12, "features": "weighted_sum_all"})
  with pytest.raises(InputError, match="head of LSTMs"):
    convert(start, tmp_path / "there", "huggingface")
  there = convert(start, tmp_path / "there", "keras")
  again = convert(there, tmp_path / "again", "google")
  assert bits_of(there) == bits_of(again) == bits_of(start)
  assert len(bits_of(start)) == 5 + 2 * 16 + 2 + 1 + 2 * 6 + 2
  model = keras.saving.load_model(there / "model.keras")
  assert model.features == "weighted_sum_all"
  assert {part_of(name) for name in bits_of(start)} == {
    "embeddings", "layer 0", "layer 1", "pooler", "classifier"}
  os.remove(start / "task.json")
  with pytest.raises(InputError, match="no task.json says which"):
    convert(start, tmp_path / "other", "keras")


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_keras_file_that_is_not_whole_is_refused(tmp_path, size):
  start = save(tmp_path / "start", BertEncoder(CONFIG))
  there = convert(start, tmp_path / "there", "keras")
  file = there / "model.keras"
  file.write_bytes(file.read_bytes()[:size])
  with pytest.raises(InputError, match="model.keras: cannot be read"):
    checkpoints.load_encoder(str(there))


def test_a_vocabulary_given_here_goes_along(tmp_path):
  start = save(tmp_path / "start", BertEncoder(CONFIG))
  shutil.move(start / "vocab.txt", tmp_path / "other.txt")
  os.remove(start / "tokenizer_config.json")
  there = convert(
      start, tmp_path / "there", "google", do_lower_case=True,
      vocab_file=str(tmp_path / "other.txt"))
  tokenizer = checkpoints.load_tokenizer(str(there))
  assert tokenizer.vocabulary == tuple(ENTRIES) and tokenizer.do_lower_case
