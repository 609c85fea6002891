"""run_pretraining, from records to a model directory, and its refusals."""

import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import pretraining
from bert_tf.arguments import PretrainingConfig
from bert_tf.arguments import PretrainingDataConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import write_json
from bert_tf.data import example_files
from bert_tf.reporting import MetricsWriter

TEXT = """The cat sat on the mat.
The dog ran after the cat.
Then the cat ran up the tree.

A ship left the port at dawn.
The sea was calm and the wind was warm.
At night the ship reached the island.

Bread needs flour and water.
Knead the bread and let it rest.
Then the bread goes into the oven.
"""
WORDS = sorted(set(TEXT.lower().replace(".", "").split()))
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
CONFIG = BertConfig(
    vocab_size=len(ENTRIES), hidden_size=16, num_hidden_layers=1,
    num_attention_heads=2, intermediate_size=32, max_position_embeddings=64)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """Records of a small text, its vocabulary and a config."""
  folder = tmp_path_factory.mktemp("inputs")
  (folder / "text.txt").write_text(TEXT)
  (folder / "vocab.txt").write_text("\n".join(ENTRIES) + "\n")
  write_json(str(folder / "bert_config.json"), CONFIG.to_dict())
  example_files.run(PretrainingDataConfig(
      input_file=(str(folder / "text.txt"),),
      output_file=(str(folder / "train.tfrecord"),),
      vocab_file=str(folder / "vocab.txt"), max_seq_length=32,
      max_predictions_per_seq=5, dupe_factor=20))
  return folder


def config_for(inputs: pathlib.Path, output_dir, **options):
  return PretrainingConfig(**{
    "input_file": (str(inputs / "train.tfrecord"),),
    "output_dir": str(output_dir),
    "bert_config_file": str(inputs / "bert_config.json"),
    "vocab_file": str(inputs / "vocab.txt"),
    "max_seq_length": 32, "max_predictions_per_seq": 5, "do_train": True,
    "train_batch_size": 8, "num_train_steps": 6, "num_warmup_steps": 2,
    "learning_rate": 1e-3, "save_checkpoints_steps": 3, "log_steps": 2,
    **options})


def lines_of(output_dir):
  text = (pathlib.Path(output_dir) / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_a_run_leaves_a_model_directory_and_metrics(inputs, tmp_path):
  results = pretraining.run(config_for(inputs, tmp_path, do_eval=True))
  assert {"bert_config.json", "bert_model.ckpt.index", "vocab.txt",
          "tokenizer_config.json", "metrics.jsonl", "eval_results.json",
          "eval_results.txt", "training_state"} <= set(os.listdir(tmp_path))
  model = checkpoints.load_pretraining_model(str(tmp_path))
  assert model.config == CONFIG
  lines = lines_of(tmp_path)
  assert [(line["split"], line["step"]) for line in lines] == [
    ("train", 2), ("eval", 3), ("train", 4), ("train", 6), ("eval", 6)]
  assert set(lines[0]) == {
    "split", "step", "time", "loss", "mlm_loss", "mlm_accuracy", "nsp_loss",
    "nsp_accuracy", "learning_rate", "gradient_norm", "weight_norm",
    "update_norm", "examples_per_second", "tokens_per_second",
    "model_flops_per_second", "input_wait_share"}
  assert results["global_step"] == 6
  assert results["mlm_perplexity"] == pytest.approx(
      np.exp(results["mlm_loss"]))
  text = (tmp_path / "eval_results.txt").read_text()
  assert "global_step = 6\n" in text
  assert json.loads(
      (tmp_path / "eval_results.json").read_text()) == results
  assert list((tmp_path / "train").glob("events.out.tfevents.*"))


def test_majority_shares_by_hand():
  batches = [
    {"masked_lm_ids": np.array([[7, 8], [7, 9]]),
     "masked_lm_weights": np.array([[1.0, 1.0], [1.0, 0.0]]),
     "next_sentence_labels": np.array([0, 1])},
    {"masked_lm_ids": np.array([[7, 0]]),
     "masked_lm_weights": np.array([[1.0, 0.0]]),
     "next_sentence_labels": np.array([1])},
  ]
  # 7, 8, 7 and 7 count; the labels are 0, 1 and 1.
  shares = pretraining._majority_shares(
      [{k: tf.constant(v) for k, v in batch.items()} for batch in batches])
  assert shares["mlm_majority_accuracy"] == 0.75
  assert shares["nsp_majority_accuracy"] == pytest.approx(2 / 3)


def test_majority_shares_of_packed_rows_and_without_labels():
  batch = {
    "masked_lm_ids": tf.constant([[7, 8]]),
    "masked_lm_weights": tf.constant([[1.0, 0.0]]),
    # 1, 1, 1 and 0 count.
    "next_sentence_labels": tf.constant([[1, 1, 0], [1, 0, 0]]),
    "next_sentence_weights": tf.constant([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])}
  shares = pretraining._majority_shares([batch])
  assert shares["nsp_majority_accuracy"] == 0.75
  del batch["next_sentence_labels"]
  assert pretraining._majority_shares([batch]) == {
    "mlm_majority_accuracy": 1.0}


def test_a_run_that_was_cut_goes_on_with_the_same_command(inputs, tmp_path):
  pretraining.run(config_for(inputs, tmp_path / "whole"))
  config = config_for(inputs, tmp_path / "parts")

  class Cut(Exception):
    pass

  def cut(step, original=MetricsWriter.write):
    def write(self, split, number, metrics):
      original(self, split, number, metrics)
      if number == step:
        raise Cut
    return write

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(MetricsWriter, "write", cut(4))
    with pytest.raises(Cut):
      pretraining.run(config)
  assert not (tmp_path / "parts" / "bert_config.json").exists()
  pretraining.run(config)
  whole = checkpoints.load_pretraining_model(str(tmp_path / "whole"))
  parts = checkpoints.load_pretraining_model(str(tmp_path / "parts"))
  for one, two in zip(whole.weights, parts.weights, strict=True):
    np.testing.assert_array_equal(one, two, err_msg=one.path)
  assert [line["step"] for line in lines_of(tmp_path / "parts")] == [2, 4, 6]


def test_pretraining_goes_on_from_a_model_directory(inputs, tmp_path):
  pretraining.run(config_for(inputs, tmp_path / "one"))
  config = PretrainingConfig(
      input_file=(str(inputs / "train.tfrecord"),), do_eval=True,
      output_dir=str(tmp_path / "two"), init_checkpoint=str(tmp_path / "one"),
      max_seq_length=32, max_predictions_per_seq=5)
  again = pretraining.run(config)
  first = pretraining.run(config_for(
      inputs, tmp_path / "one", do_train=False, do_eval=True))
  assert again["mlm_loss"] == pytest.approx(first["mlm_loss"], rel=1e-5)


@pytest.mark.parametrize("options, message", [
  ({"input_file": ("nowhere*.tfrecord",)}, r"nowhere\*.tfrecord"),
  ({"max_seq_length": 16}, "32.*16|16.*32"),
  ({"max_seq_length": 65}, "--max_seq_length: received 65.*64 positions"),
  ({"max_predictions_per_seq": 6}, "5.*6|6.*5"),
  ({"vocab_file": "missing.txt"}, "missing.txt"),
  ({"output_dir": __file__}, "is a file; name a folder"),
  ({"bert_config_file": "missing.json"}, "missing.json: no such file"),
  ({"init_checkpoint": "missing"}, "missing: neither a checkpoint"),
  ({"train_batch_size": 100000}, "fewer than one batch of 100000"),
  ({"do_train": False, "do_eval": True}, "neither .* holds a run"),
])
def test_wrong_inputs_are_refused(inputs, tmp_path, options, message):
  with pytest.raises(InputError, match=message):
    pretraining.run(config_for(
        inputs, **{"output_dir": tmp_path / "run", **options}))
  assert not (tmp_path / "run" / "bert_config.json").exists()


def test_a_vocabulary_of_another_size_is_refused(inputs, tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join([*ENTRIES, "more"]) + "\n")
  sizes = f"{len(ENTRIES) + 1} entries.*is {len(ENTRIES)}"
  with pytest.raises(InputError, match=sizes):
    pretraining.run(config_for(
        inputs, tmp_path / "run", vocab_file=str(path)))


def test_a_vocabulary_without_mask_is_refused(inputs, tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(x for x in ENTRIES if x != "[MASK]") + "\n")
  with pytest.raises(InputError, match=r"\[MASK\] missing"):
    pretraining.run(config_for(
        inputs, tmp_path / "run", vocab_file=str(path)))


def test_another_model_in_the_same_place_is_refused(inputs, tmp_path):
  pretraining.run(config_for(inputs, tmp_path / "run"))
  other = tmp_path / "other.json"
  write_json(str(other), {**CONFIG.to_dict(), "num_hidden_layers": 2})
  with pytest.raises(InputError, match="num_hidden_layers was 1, now 2"):
    pretraining.run(config_for(
        inputs, tmp_path / "run", bert_config_file=str(other)))
  with pytest.raises(InputError, match="random_seed was 12345, now 1"):
    pretraining.run(config_for(inputs, tmp_path / "run", random_seed=1))


@pytest.mark.parametrize("made, labels", [
  ({"masking": "none"}, True), ({"nsp": False}, False),
  ({"pack_sequences": True}, True),
  ({"masking": "none", "nsp": False, "pack_sequences": True,
    "do_whole_word_mask": True}, False)])
def test_every_kind_of_records_is_trained_on(inputs, tmp_path, made, labels):
  example_files.run(PretrainingDataConfig(
      input_file=(str(inputs / "text.txt"),),
      output_file=(str(tmp_path / "train.tfrecord"),),
      vocab_file=str(inputs / "vocab.txt"), max_seq_length=32,
      max_predictions_per_seq=5, dupe_factor=20, num_workers=1, **made))
  results = pretraining.run(config_for(
      inputs, tmp_path / "run",
      input_file=(str(tmp_path / "train.tfrecord"),), num_train_steps=4,
      num_warmup_steps=1, do_eval=True, max_eval_steps=2,
      do_whole_word_mask=made.get("do_whole_word_mask", False)))
  assert ("nsp_accuracy" in results) == labels
  assert 0 < results["mlm_loss"] < 2 * np.log(len(ENTRIES))
  assert np.isfinite(results["loss"])


def test_records_of_two_kinds_are_refused(inputs, tmp_path):
  example_files.run(PretrainingDataConfig(
      input_file=(str(inputs / "text.txt"),),
      output_file=(str(tmp_path / "plain.tfrecord"),),
      vocab_file=str(inputs / "vocab.txt"), max_seq_length=32,
      max_predictions_per_seq=5, num_workers=1, masking="none"))
  with pytest.raises(InputError, match="lacks masked_lm_positions"):
    pretraining.run(config_for(inputs, tmp_path / "run", input_file=(
      str(inputs / "train.tfrecord"), str(tmp_path / "plain.tfrecord")),
      num_train_steps=4, num_warmup_steps=1))
