"""An export beside what it would be in float32: figures, tables, mistakes."""

import itertools
import json
import os
import re
import subprocess
import sys

from conftest import REPOSITORY
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import command_line
from bert_tf import export
from bert_tf import export_comparison
from bert_tf import finetuning
from bert_tf.arguments import ExportConfig
from bert_tf.config import InputError
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
import tiny_exports

DEV = [("no", "the cat sat"), ("perhaps", "dogs, dogs!"),
       ("yes, café", "on a mat"), ("no", "unable"), ("perhaps", "a cafe.")]

FIGURES = [
  "weights_bytes", "loss", "accuracy", "balanced_accuracy",
  "milliseconds_of_1", "milliseconds_of_32"]


def save_model(folder, kind):
  """A model directory with random weights."""
  description = tiny_exports.DESCRIPTIONS[kind]
  task = TASKS[description.get("kind", description["task_name"])]
  model = task.make_model(tiny_exports.CONFIG, description)
  generator = np.random.default_rng(3)
  for name, variable in checkpoints.checkpoint_names(model).items():
    variable.assign(generator.normal(
        1 if name.endswith("gamma") else 0, 0.4, variable.shape))
  checkpoints.save_model(
      str(folder / "model"), model,
      BertTokenizer(tiny_exports.ENTRIES, do_lower_case=True),
      task=description)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A classifier and its dev rows."""
  folder = tmp_path_factory.mktemp("compared")
  save_model(folder, "classification")
  (folder / "dev.tsv").write_text(
      "label\ttext\n" + "".join(f"{a}\t{b}\n" for a, b in DEV))
  return folder


@pytest.fixture(scope="module")
def result(folder):
  """Of the program, as a user calls it."""
  return subprocess.run(
      [sys.executable, str(REPOSITORY / "tools" / "export_saved_model.py"),
       f"--model_dir={folder / 'model'}", f"--export_dir={folder / 'export'}",
       "--precision=int8", f"--eval_flags=--data_dir='{folder}'"],
      capture_output=True, text=True)


@pytest.mark.slow
def test_the_figures_are_those_of_both_models(folder, result, tmp_path):
  assert result.returncode == 0, result.stderr
  card = folder / "export" / "1" / "assets" / "model_card.json"
  found = json.loads(card.read_text())["comparison"]
  assert sorted(found) == sorted(FIGURES)
  # What run_finetuning.py says of the model as it is.
  expected = finetuning.run(FinetuningConfig(
      task_name="classification", data_dir=str(folder), do_eval=True,
      output_dir=str(tmp_path), init_checkpoint=str(folder / "model")),
      TASKS["classification"])
  for name, value in expected.items():
    assert found[name]["float32"] == pytest.approx(value, abs=1e-5)
  # And what the export says of the rows.
  answer = tf.saved_model.load(str(folder / "export" / "1")).signatures[
      "serving_default"](text=tf.constant([text for _, text in DEV]))
  labels = tiny_exports.DESCRIPTIONS["classification"]["labels"]
  likelihood = [row[labels.index(label)] for row, (label, _) in zip(
      answer["probabilities"].numpy(), DEV)]
  assert found["loss"]["int8"] == pytest.approx(
      -np.log(likelihood).mean(), abs=1e-5)
  assert found["loss"]["int8"] != found["loss"]["float32"]
  assert 0 < found["milliseconds_of_1"]["int8"] < 1000
  # 23 words, 2 segments, 24 positions, norm; two layers; pooler; head.
  layer = 4 * (16 * 16 + 16) + 2 * 16 * 32 + 32 + 16 + 4 * 16
  whole = (23 + 2 + 24 + 2) * 16 + 2 * layer + 17 * 16 + 3 * 17
  rounded = 23 * 16 + 2 * (4 * 16 * 16 + 2 * 16 * 32) + 16 * 16
  scales = 23 + 2 * (5 * 16 + 32) + 16
  assert found["weights_bytes"] == {
    "float32": 4 * whole, "int8": 4 * (whole + scales) - 3 * rounded}


@pytest.mark.slow
def test_a_table_says_the_same(folder, result):
  card = folder / "export" / "1" / "assets" / "model_card.json"
  found = json.loads(card.read_text())["comparison"]
  head, *rows = [line.split() for line in result.stdout.splitlines()]
  assert head == ["float32", "int8", "change"]
  assert [row[0] for row in rows] == FIGURES
  loss = found["loss"]
  assert rows[1] == [
    "loss", f"{loss['float32']:.4f}", f"{loss['int8']:.4f}",
    f"{loss['int8'] - loss['float32']:+.4f}"]
  assert rows[0][3] == "x" and 0.25 < float(rows[0][4]) < 0.6


def test_without_dev_rows_there_are_size_and_time(tmp_path, capsys):
  save_model(tmp_path, "multiple_choice")
  path = export.run(ExportConfig(
      model_dir=str(tmp_path / "model"), export_dir=str(tmp_path / "export"),
      precision="bfloat16"), TASKS)
  with open(os.path.join(path, "assets", "model_card.json")) as file:
    found = json.load(file)["comparison"]
  assert sorted(found) == [
    "milliseconds_of_1", "milliseconds_of_32", "weights_bytes"]
  size = found["weights_bytes"]
  assert size["float32"] == 2 * size["bfloat16"]
  assert "x 0.50" in capsys.readouterr().out


@pytest.mark.parametrize("text, message", [
  ("--task_name=sts-b --data_dir=d", "task 'sts-b'; the model was fine-tuned "
   "for 'classification'"),
  ("--task_name=none --data_dir=d", "received the task 'none'"),
  ("--data_dir={empty}", "no dev rows there"),
  ("--do_predict", "--do_train or --do_predict"),
])
def test_rows_that_do_not_fit_are_refused(folder, tmp_path, text, message):
  evaluation = command_line.config_from_text(
      FinetuningConfig, text.format(empty=tmp_path), flag="eval_flags",
      output_dir="o", do_eval=True)
  source = checkpoints.open_source(str(folder / "model"))
  description = checkpoints.read_task(source)
  with pytest.raises(InputError, match=re.escape(message)):
    export_comparison.dev_outputs(
        evaluation, TASKS, description,
        checkpoints.load_tokenizer(source.path), model=None)
  with pytest.raises(InputError, match="no dev rows for a pretrained model"):
    export_comparison.dev_outputs(evaluation, TASKS, None, None, model=None)


@pytest.mark.parametrize("text, message", [
  ("--data_dri=x", "--eval_flags: received '--data_dri=x': Unknown command"),
  ("--max_seq_length=long", "--eval_flags: received '--max_seq_length=long': "),
  ("--data_dir='x", "No closing quotation"),
  ("sst-2", "which is not a flag"),
  ("--patience=3", "needs --do_train"),
])
def test_what_is_no_flag_is_named(text, message):
  with pytest.raises(InputError, match=re.escape(message)):
    command_line.config_from_text(
        FinetuningConfig, text, flag="eval_flags", output_dir="o",
        do_eval=True)


def test_flags_in_a_text_are_not_those_of_the_program():
  config = command_line.config_from_text(
      FinetuningConfig, "--data_dir='my folder' --choice_columns=a,b",
      flag="eval_flags", output_dir="o", do_eval=True)
  assert config == FinetuningConfig(
      data_dir="my folder", choice_columns=("a", "b"), output_dir="o",
      do_eval=True)


def test_float32_is_compared_with_nothing():
  with pytest.raises(InputError, match="--eval_flags: .*--precision=float32"):
    ExportConfig(model_dir="m", export_dir="e", eval_flags="--data_dir=d")


TEXT = tf.TensorSpec([None], tf.string, name="text")
CHOICES = tf.TensorSpec([None, None], tf.string, name="choices")


@pytest.mark.parametrize("specs, rows, expected", [
  ([TEXT], {"text": ["a", "b"]}, [{"text": ["a", "b", "a"]},
                                  {"text": ["b", "a", "b"]}]),
  ([TEXT], {"words": [["a", "b"], ["c"]]}, [{"text": ["a b", "c", "a b"]}]),
  ([TEXT, CHOICES], {"text": ["a"], "choices": [["x", "y"]], "label": ["0"]},
   [{"text": ["a"] * 3, "choices": [["x", "y"]] * 3}]),
  ([TEXT, CHOICES], None, [{
    "text": ["This is a [MASK] request."] * 3,
    "choices": [["This is a [MASK] request."] * 2] * 3}]),
])
def test_requests_hold_the_rows_in_turns(specs, rows, expected):

  @tf.function(input_signature=specs)
  def function(*texts):
    return {"y": texts[0]}

  found = itertools.islice(
      export_comparison._requests(function, rows, 3), len(expected))
  for request, wanted in zip(found, expected, strict=True):
    assert {name: value.numpy().astype(str).tolist()
            for name, value in request.items()} == wanted
