"""The paper's ablations end to end, and training by `compile` and `fit`.

Devlin et al. 2019, section 5.1 and table 5.
"""

import dataclasses
import functools
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import bert_tf
from bert_tf import checkpoints
from bert_tf import export
from bert_tf import finetuning
from bert_tf import losses
from bert_tf.arguments import ExportConfig
from bert_tf.config import BertConfig
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.optimization import AdamWeightDecay
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS
from saved_model_loader import Loader

CONFIG = BertConfig(
    vocab_size=31, hidden_size=12, num_hidden_layers=2,
    num_attention_heads=2, intermediate_size=20, max_position_embeddings=16,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    initializer_range=0.1)
CAUSAL = dataclasses.replace(CONFIG, attention="left_to_right")


def test_each_piece_learns_the_next():
  """In a row that counts on from a random number all but that follows."""
  keras.utils.set_random_seed(1)
  model = BertForPreTraining(CAUSAL)
  starts = np.random.default_rng(0).integers(0, 26, (64, 1))
  ids = np.int32(5 + (starts + np.arange(8)) % 26)
  batch = {"input_ids": tf.constant(ids), "input_mask": tf.ones_like(ids)}
  optimizer = keras.optimizers.Adam(0.01)
  optimizer.build(model.trainable_variables)

  @tf.function
  def step():
    with tf.GradientTape() as tape:
      sums = losses.LEFT_TO_RIGHT.sums(model(batch, training=True), batch)
      loss = losses.LEFT_TO_RIGHT.loss(sums, sums)
    variables = [
      v for v in model.trainable_variables
      if "pooler" not in v.path and "seq_relationship" not in v.path]
    optimizer.apply(tape.gradient(loss, [v.value for v in variables]),
                    variables)
    return sums

  for _ in range(100):
    sums = step()
  metrics = losses.LEFT_TO_RIGHT.metrics(
      {name: float(value) for name, value in sums.items()})
  assert metrics["lm_accuracy"] > 0.99 and metrics["lm_loss"] < 0.2


def test_packed_examples_predict_what_they_predict_apart():
  model = BertForPreTraining(CAUSAL)
  ids = np.random.default_rng(0).integers(5, 31, (1, 12), np.int32)
  lengths = (5, 4)  # and three of padding
  example_ids = np.repeat([1, 2, 0], [*lengths, 3])[None].astype(np.int32)
  packed = {
    "input_ids": ids, "input_mask": np.int32(example_ids > 0),
    "example_ids": example_ids,
    "position_ids": np.int32([[*range(5), *range(4), 0, 0, 0]])}
  apart = [{"input_ids": part, "input_mask": np.ones_like(part)}
           for part in (ids[:, :5], ids[:, 5:9])]
  together, first, second = (
    losses.LEFT_TO_RIGHT.sums(model(batch), batch)
    for batch in (packed, *apart))
  assert float(together["lm_total"]) == 4 + 3
  np.testing.assert_allclose(
      together["lm_loss"], first["lm_loss"] + second["lm_loss"], rtol=1e-5)


def record_batch(seed, *, packed):
  """Four rows as the pipeline gives them, some slots of padding."""
  generator = np.random.default_rng(seed)

  def integers(low, high, *shape):
    return generator.integers(low, high, shape, np.int32)

  weights = np.ones((4, 3), np.float32)
  weights[0, 1:] = 0
  batch = {
    "input_ids": integers(5, 31, 4, 10),
    "input_mask": np.ones((4, 10), np.int32),
    "segment_ids": integers(0, 2, 4, 10),
    "masked_lm_positions": integers(1, 10, 4, 3),
    "masked_lm_ids": integers(5, 31, 4, 3), "masked_lm_weights": weights,
    "next_sentence_labels": integers(0, 2, 4)}
  if packed:
    whole = lambda row: np.tile(np.int32(row), (4, 1))
    batch |= {
      "example_ids": whole([1] * 5 + [2] * 5),
      "position_ids": whole([*range(5)] * 2), "cls_positions": whole([0, 5]),
      "next_sentence_labels": integers(0, 2, 4, 2),
      "next_sentence_weights": np.float32([[1, 1], [1, 0], [1, 1], [1, 0]])}
  return batch


def train_by_hand(model, batches):
  """The steps of the training loop, spelled out; the loss of each."""
  optimizer = AdamWeightDecay(1e-4)
  optimizer.build(model.trainable_variables)
  variables = [v.value for v in model.trainable_variables]
  found = []
  for batch in batches:
    with tf.GradientTape() as tape:
      sums = losses.PRETRAINING.sums(model(batch, training=True), batch)
      loss = losses.PRETRAINING.loss(sums, losses.PRETRAINING.totals(batch))
    pairs = [
      (tf.convert_to_tensor(gradient), variable) for gradient, variable in zip(
          tape.gradient(loss, variables), model.trainable_variables)
      if gradient is not None]
    gradients, reached = zip(*pairs)
    gradients, norm = tf.clip_by_global_norm(gradients, 1.0)
    assert norm > 1.2  # or nothing is clipped
    optimizer.apply(gradients, reached)
    found.append(float(loss))
  return found


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("next_sentence", [True, False])
def test_compile_and_fit_give_what_the_loop_gives(packed, next_sentence):
  keras.utils.set_random_seed(1)
  one, two = BertForPreTraining(CONFIG), BertForPreTraining(CONFIG)
  two.set_weights(one.get_weights())
  batches = [record_batch(seed, packed=packed) for seed in range(4)]
  if not next_sentence:
    for batch in batches:
      del batch["next_sentence_labels"]
  expected = train_by_hand(one, batches)
  two.compile(
      AdamWeightDecay(1e-4, global_clipnorm=1.0),
      loss=bert_tf.pretraining_losses(next_sentence=next_sentence))
  to_fit = functools.partial(
      bert_tf.inputs_and_targets, next_sentence=next_sentence)
  ours = [
    two.fit(tf.data.Dataset.from_tensors(batch).map(to_fit), verbose=0)
    .history["loss"][0] for batch in batches]
  np.testing.assert_allclose(ours, expected, rtol=1e-5)
  for ours, theirs in zip(two.weights, one.weights):
    np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=ours.path)


ENTRIES = [*SPECIAL_TOKENS, "the", "a", "cat", "dog", "saw", "axe"]
HEADED = dataclasses.replace(CONFIG, vocab_size=len(ENTRIES))


@pytest.mark.slow
def test_the_head_is_kept_and_rebuilt(tmp_path):
  """Left to right with a BiLSTM; then the fine-tuned directory alone."""
  rows = [f"{label}\t{article} {word}" for article in ("the", "a")
          for label, word in (("animal", "cat"), ("animal", "dog"),
                              ("tool", "saw"), ("tool", "axe"))]
  for split in ("train", "dev"):
    (tmp_path / f"{split}.tsv").write_text(
        "\n".join(["label\ttext", *rows]) + "\n")
  start, output_dir = str(tmp_path / "start"), tmp_path / "out"
  config = dataclasses.replace(HEADED, attention="left_to_right")
  checkpoints.save_model(
      start, BertForPreTraining(config), BertTokenizer(
          ENTRIES, do_lower_case=True))
  options = {
    "task_name": "classification", "data_dir": str(tmp_path),
    "output_dir": str(output_dir), "max_seq_length": 8}
  task = TASKS["classification"]
  trained = finetuning.run(FinetuningConfig(
      **options, do_train=True, do_eval=True, head="bilstm",
      init_checkpoint=start, train_batch_size=8, num_train_epochs=30.0,
      learning_rate=1e-2), task)
  assert trained["accuracy"] == 1
  assert json.loads((output_dir / "task.json").read_text())[
    "head"] == "bilstm"
  kept = json.loads((output_dir / "bert_config.json").read_text())
  assert kept["attention"] == "left_to_right"
  again = finetuning.run(
      FinetuningConfig(**options, do_eval=True, do_predict=True), task)
  np.testing.assert_allclose(again["loss"], trained["loss"], rtol=1e-5)


def test_a_linear_head_leaves_no_key():
  rows = {"label": ["b", "a"]}
  describe = TASKS["classification"].describe
  config = FinetuningConfig(
      task_name="classification", data_dir="d", output_dir="o", do_train=True,
      bert_config_file="c")
  assert describe(config, rows) == {"labels": ["a", "b"]}
  assert describe(dataclasses.replace(config, head="bilstm"), rows) == {
    "labels": ["a", "b"], "head": "bilstm"}


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "bilstm"])
@pytest.mark.parametrize("attention", ["bidirectional", "left_to_right"])
def test_exports_of_every_kind_answer_in_cpp(tmp_path, head, attention):
  config = dataclasses.replace(HEADED, attention=attention)
  model = BertClassifier(config, num_classes=2, head=head)
  generator = np.random.default_rng(0)
  for variable in model.weights:
    variable.assign(generator.normal(0, 0.5, variable.shape))
  tokenizer = BertTokenizer(ENTRIES, do_lower_case=True)
  task = {"task_name": "classification", "labels": ["no", "yes"],
          "max_seq_length": 8}
  if head != "linear":
    task["head"] = head
  model_dir = str(tmp_path / "model")
  checkpoints.save_model(model_dir, model, tokenizer, task=task)
  path = export.run(ExportConfig(
      model_dir=model_dir, export_dir=str(tmp_path / "export")), TASKS)
  texts = ["the cat saw a dog", "", "axe", "dog " * 20]
  with Loader() as loader:
    answer = loader.ask(
        saved_model=path, signature="serving_default", inputs={"text": texts})
    nothing = loader.ask(
        saved_model=path, signature="serving_default", inputs={"text": []})
  assert nothing["logits"].shape == (0, 2)
  for text, logits in zip(texts, answer["logits"]):
    inputs = tokenizer([text], max_seq_length=8)
    np.testing.assert_allclose(logits, model(inputs)["logits"][0], atol=1e-5)
  assert np.abs(np.diff(answer["logits"], axis=0)).max() > 0.01
  names = {name for name, _ in tf.train.list_variables(
      os.path.join(model_dir, "bert_model.ckpt"))}
  assert {name for name in names if not name.startswith("bert/")} == {
    "output_weights", "output_bias", *(
      f"bilstm/{way}_lstm/lstm_cell/{part}"
      for way in ("forward", "backward") if head == "bilstm"
      for part in ("kernel", "recurrent_kernel", "bias"))}
