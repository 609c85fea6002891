"""The step and the loop: what they compute, and that a run can go on."""

import json

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import distribution
from bert_tf import losses
from bert_tf import training
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.heads import BertForPreTraining
from bert_tf.optimization import AdamWeightDecay
from bert_tf.optimization import WarmupLinearDecay
from bert_tf.reporting import MetricsWriter
from bert_tf.reporting import TIMING_FIELDS

CONFIG = BertConfig(
    vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=16)
NO_DROPOUT = BertConfig(**{
  **CONFIG.to_dict(), "hidden_dropout_prob": 0.0,
  "attention_probs_dropout_prob": 0.0})


def make_batch(*, size=4, length=8, predictions=2, seed=0):
  rng = np.random.default_rng(seed)
  ids = rng.integers(5, 30, (size, length))
  return {
    "input_ids": tf.constant(ids, tf.int32),
    "input_mask": tf.ones((size, length), tf.int32),
    "segment_ids": tf.constant(
        np.arange(length)[None] // (length // 2) * np.ones((size, 1)),
        tf.int32),
    "masked_lm_positions": tf.constant(
        rng.integers(1, length, (size, predictions)), tf.int32),
    "masked_lm_ids": tf.constant(
        rng.integers(5, 30, (size, predictions)), tf.int32),
    "masked_lm_weights": tf.constant(
        rng.integers(0, 2, (size, predictions)) | [1, 0], tf.float32),
    "next_sentence_labels": tf.constant(rng.integers(0, 2, size), tf.int32),
  }


def spec_of(batch):
  return tf.nest.map_structure(
      lambda value: tf.TensorSpec(value.shape, value.dtype), batch)


class Run:
  """A model with its optimizer, state and step."""

  def __init__(self, directory, *, config=CONFIG, num_steps=20, batch=None,
               learning_rate=0.01, seed=7):
    tf.keras.utils.set_random_seed(1)
    self.batch = batch or make_batch()
    self.schedule = WarmupLinearDecay(
        learning_rate, num_train_steps=num_steps)
    strategy = distribution.make_strategy()
    with strategy.scope():
      self.model = BertForPreTraining(config)
      self.state = training.TrainingState(
          self.model, AdamWeightDecay(self.schedule), str(directory),
          identity=config.to_dict())
    self.step = training.make_train_step(
        self.model, self.state.optimizer, losses.PRETRAINING,
        strategy=strategy, seed=seed, batch_spec=spec_of(self.batch))
    self.directory = directory

  def train(self, batches, num_steps, **options):
    with MetricsWriter(
        str(self.directory), first_step=self.state.step,
        num_steps=num_steps) as writer:
      return training.train(
          self.state, self.step, batches, objective=losses.PRETRAINING,
          schedule=self.schedule, num_steps=num_steps, batch_size=4,
          writer=writer, **{
            "log_steps": 5, "save_steps": 5, "eval_steps": 10,
            "evaluation": None, **options})

  def values(self):
    return {v.path: v.numpy()
            for v in self.model.weights + self.state.optimizer.variables}


def test_one_batch_can_be_learnt_by_heart(tmp_path):
  run = Run(tmp_path, config=NO_DROPOUT, num_steps=150)
  for number in range(150):
    sums = run.step(run.batch, tf.constant(number, tf.int64))
  metrics = losses.PRETRAINING.metrics(
      {name: float(value) for name, value in sums.items()})
  assert metrics["mlm_loss"] < 0.05 and metrics["nsp_loss"] < 0.05
  assert metrics["mlm_accuracy"] > 0.99 and metrics["nsp_accuracy"] == 1


def make_packed_batch():
  """The examples of `make_batch`, two in a row of 16."""
  apart = make_batch()
  batch = {
    name: tf.reshape(apart[name], (2, -1)) for name in apart}
  starts = tf.constant([[0, 0, 8, 8]], tf.int32)
  return {
    **batch,
    "masked_lm_positions": batch["masked_lm_positions"] + starts,
    "example_ids": tf.constant([[1] * 8 + [2] * 8] * 2, tf.int32),
    "position_ids": tf.constant([[*range(8)] * 2] * 2, tf.int32),
    "cls_positions": tf.constant([[0, 8, 0]] * 2, tf.int32),
    "next_sentence_labels": tf.pad(
        batch["next_sentence_labels"], [[0, 0], [0, 1]]),
    "next_sentence_weights": tf.constant([[1.0, 1.0, 0.0]] * 2),
  }


def test_a_step_on_packed_rows_is_the_step_on_their_examples(tmp_path):
  packed, apart = (
    Run(tmp_path / name, config=NO_DROPOUT, batch=batch)
    for name, batch in (("packed", make_packed_batch()),
                        ("apart", make_batch())))
  one, two = (
    run.step(run.batch, tf.constant(0, tf.int64)) for run in (packed, apart))
  assert set(one) == set(two)
  for name in one:
    np.testing.assert_allclose(one[name], two[name], rtol=1e-5, err_msg=name)
  values = apart.values()
  for name, value in packed.values().items():
    if name.endswith(("_m", "_v")):  # Adam's weights hide a factor.
      np.testing.assert_allclose(
          value, values[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("make", [make_batch, make_packed_batch])
def test_without_next_sentence_labels_its_weights_stay(make, tmp_path):
  batch = make()
  del batch["next_sentence_labels"]
  run = Run(tmp_path, batch=batch)
  before = run.values()
  run.train([batch] * 5, 5)
  stayed = {
    v.path for v in run.model.trainable_variables
    if np.array_equal(v.numpy(), before[v.path])}
  assert stayed == {
    "bert/pooler/dense/kernel", "bert/pooler/dense/bias",
    "cls/seq_relationship/output_weights", "cls/seq_relationship/output_bias"}
  (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert "nsp" not in line
  assert json.loads(line)["loss"] == json.loads(line)["mlm_loss"] > 0
  evaluate = training.make_evaluator(
      run.model, losses.PRETRAINING, batch_spec=spec_of(batch))
  assert set(evaluate([batch])) == {"loss", "mlm_loss", "mlm_accuracy"}


def test_a_step_is_clip_then_adam(tmp_path):
  run = Run(tmp_path, config=NO_DROPOUT)
  variables = run.model.trainable_variables
  before = [v.numpy() for v in variables]
  with tf.GradientTape() as tape:
    sums = losses.PRETRAINING.sums(run.model(run.batch), run.batch)
    loss = losses.PRETRAINING.loss(sums, losses.PRETRAINING.totals(run.batch))
  gradients = [
    np.array(tf.convert_to_tensor(g))
    for g in tape.gradient(loss, [v.value for v in variables])]
  norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients))
  assert norm > 1  # So that clipping matters; so do 0.01 * 0.01 * weights.
  run.step(run.batch, tf.constant(0, tf.int64))
  for v, old, g in zip(variables, before, gradients):
    m, second = 0.1 * g / norm, 0.001 * (g / norm) ** 2
    decay = 0 if "LayerNorm" in v.path or "bias" in v.path else 0.01
    expected = old - 0.01 * (m / (np.sqrt(second) + 1e-6) + decay * old)
    # Adam turns tiny gradients into updates of size one: not those.
    clear = np.abs(g) > 1e-5
    np.testing.assert_allclose(
        v.numpy()[clear], expected[clear], atol=2e-5, err_msg=v.path)
  slots = {v.path: v.numpy() for v in run.state.optimizer.variables}
  for v, g in zip(variables, gradients):
    name = v.path.replace("/", "_")
    np.testing.assert_allclose(
        slots[f"adam_weight_decay/{name}_m"], 0.1 * g / norm, atol=1e-6)
    np.testing.assert_allclose(
        slots[f"adam_weight_decay/{name}_v"], 0.001 * (g / norm) ** 2,
        atol=1e-7)


def test_a_step_without_finite_gradients_changes_nothing(tmp_path):
  bad = {**make_batch(), "masked_lm_weights": tf.fill([4, 2], np.inf)}
  run = Run(tmp_path)
  run.step(run.batch, tf.constant(0, tf.int64))
  before = run.values()
  sums = run.step(bad, tf.constant(1, tf.int64))
  for name, value in run.values().items():
    if not name.endswith("iteration"):
      np.testing.assert_array_equal(value, before[name], err_msg=name)
  assert run.state.step == 2
  assert {name: float(value) for name, value in sums.items()} == {
    **dict.fromkeys(sums, 0.0), "skipped_steps": 1.0}


def test_skipped_steps_are_told_and_nothing_else_stops_the_run(tmp_path):
  bad = {**make_batch(), "masked_lm_weights": tf.fill([4, 2], np.inf)}
  run = Run(tmp_path)
  run.train([run.batch, bad, run.batch, run.batch, run.batch], 5)
  (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert json.loads(line)["skipped_steps"] == 1
  assert np.isfinite(json.loads(line)["mlm_loss"])
  other = Run(tmp_path / "other")
  with pytest.raises(InputError, match="None of the last 5 steps"):
    other.train([bad] * 10, 10)
  assert not (tmp_path / "other" / "training_state").exists()


def test_dropout_depends_on_seed_step_and_replica_alone():
  seeds = {
    (seed, step, replica): tuple(
        training.dropout_seed(seed, step, replica).numpy())
    for seed in (1, 2) for step in (0, 1, 2) for replica in (0, 1)}
  assert len(set(seeds.values())) == 12
  assert seeds[1, 2, 1] == tuple(training.dropout_seed(1, 2, 1).numpy())


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path):
  batches = [make_batch(seed=i) for i in range(20)]
  whole = Run(tmp_path / "whole")
  assert whole.state.restore() == 0
  whole.train(batches, 20)
  first = Run(tmp_path / "parts")
  # Stopped after 13 steps: the newest state is that of step 10.
  with pytest.raises(StopIteration):
    first.train(batches[:13], 20)
  second = Run(tmp_path / "parts")
  assert second.state.restore() == 10
  second.train(batches[10:], 20)
  for name, value in whole.values().items():
    np.testing.assert_array_equal(value, second.values()[name], err_msg=name)

  def lines(name):
    text = (tmp_path / name / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items()
             if k not in TIMING_FIELDS}
            for line in text.splitlines()]

  assert lines("whole") == lines("parts")
  assert [line["step"] for line in lines("whole")] == [5, 10, 15, 20]


def test_the_reported_learning_rate_is_that_of_the_step(tmp_path):
  run = Run(tmp_path, num_steps=10, learning_rate=0.01)
  run.train([run.batch] * 10, 10)
  lines = [json.loads(line) for line in
           (tmp_path / "metrics.jsonl").read_text().splitlines()]
  # Steps count from 0: the fifth has number 4.
  np.testing.assert_allclose(
      [line["learning_rate"] for line in lines], [0.006, 0.001], rtol=1e-5)


def test_evaluation_is_exact_over_batches_of_other_sizes():
  model = BertForPreTraining(CONFIG)
  whole = make_batch(size=5)
  spec = tf.nest.map_structure(
      lambda v: tf.TensorSpec([None, *v.shape[1:]], v.dtype), whole)
  evaluate = training.make_evaluator(
      model, losses.PRETRAINING, batch_spec=spec)
  parts = [
    {name: value[:2] for name, value in whole.items()},
    {name: value[2:] for name, value in whole.items()}]
  one, two = evaluate([whole]), evaluate(parts)
  assert set(one) == set(two)
  for name in one:
    np.testing.assert_allclose(one[name], two[name], rtol=1e-5)


def test_evaluations_come_when_they_are_due(tmp_path):
  run = Run(tmp_path)
  steps = []

  def evaluation():
    steps.append(run.state.step)
    return {"mlm_loss": float(len(steps))}

  result = run.train(
      [run.batch] * 14, 14, eval_steps=6, evaluation=evaluation)
  assert steps == [6, 12, 14]
  assert result == {"mlm_loss": 3.0}
