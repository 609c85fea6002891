"""The loop: metrics, evaluations, and that a run can go on."""

import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from test_train_step import CONFIG
from test_train_step import bad_batch
from test_train_step import make_batch
from test_train_step import make_packed_batch
from test_train_step import spec_of

from bert_tf import losses
from bert_tf import train_step
from bert_tf import training
from bert_tf.arguments import TrainingConfig
from bert_tf.config import InputError
from bert_tf.heads import BertForPreTraining
from bert_tf.reporting import TIMING_FIELDS


class Run:
  """A small training in a folder."""

  def __init__(self, directory, **options):
    self.config = TrainingConfig(**{
      "output_dir": str(directory), "train_batch_size": 4,
      "learning_rate": 0.01, "log_steps": 5, "save_checkpoints_steps": 5,
      "random_seed": 1, **options})
    self.directory = directory

  def train(self, batches, num_steps, *, evaluation=None, eval_steps=10):
    strategy = training.start(self.config)
    with strategy.scope():
      self.model = BertForPreTraining(CONFIG)

    def make_batches(first_step, replicas):
      assert replicas.total == 1
      return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(
          lambda *values: tf.stack(values), *batches)).skip(first_step)

    results, self.step = training.run(
        self.config, training.Job(
            model=self.model, objective=losses.PRETRAINING,
            num_steps=num_steps, num_warmup_steps=0,
            make_batches=make_batches, load_weights=lambda: None,
            identity=CONFIG.to_dict(), evaluation=evaluation,
            eval_steps=eval_steps, amounts={"examples": 1}),
        strategy=strategy)
    return results

  def values(self):
    """Weights, slots and all else of the newest state."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(
        os.path.join(self.directory, "training_state")))
    return {key: reader.get_tensor(key)
            for key in reader.get_variable_to_shape_map()
            if key.startswith("variables/")}

  def lines(self):
    text = (self.directory / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def without_times(lines):
  return [{key: value for key, value in line.items()
           if key not in TIMING_FIELDS} for line in lines]


@pytest.mark.parametrize("make", [make_batch, make_packed_batch])
def test_without_next_sentence_labels_its_weights_stay(make, tmp_path):
  batch = make()
  del batch["next_sentence_labels"]
  run = Run(tmp_path, train_batch_size=len(batch["input_ids"]))
  run.train([batch] * 5, 5)
  # The same seed makes the weights of the start once more.
  strategy = training.start(run.config)
  with strategy.scope():
    first = BertForPreTraining(CONFIG)
  stayed = {
    one.path for one, two in zip(
        first.trainable_variables, run.model.trainable_variables)
    if np.array_equal(one.numpy(), two.numpy())}
  assert stayed == {
    "bert/pooler/dense/kernel", "bert/pooler/dense/bias",
    "cls/seq_relationship/output_weights", "cls/seq_relationship/output_bias"}
  evaluate = train_step.make_evaluator(
      run.model, losses.PRETRAINING, batch_spec=spec_of(batch))
  assert set(evaluate([batch])) == {"loss", "mlm_loss", "mlm_accuracy"}
  (line,) = run.lines()
  assert not [key for key in line if key.startswith("nsp")]
  assert line["loss"] == line["mlm_loss"] > 0


def test_skipped_steps_are_told_and_left_out_of_the_means(tmp_path):
  run, clean = Run(tmp_path / "run"), Run(tmp_path / "clean")
  good = make_batch()
  run.train([good, bad_batch(), good, good, good], 5)
  (line,) = run.lines()
  assert line["skipped_steps"] == 1
  clean.train([good] * 5, 5)
  (other,) = clean.lines()
  assert "skipped_steps" not in other
  assert line["mlm_loss"] == pytest.approx(other["mlm_loss"], rel=0.2)
  assert 0 < line["gradient_norm"] < 2 * other["gradient_norm"]


def test_an_interval_of_skipped_steps_alone_is_no_end(tmp_path):
  run = Run(tmp_path)
  run.train([bad_batch()] * 5 + [make_batch()] * 5, 10)
  first, second = run.lines()
  assert first["skipped_steps"] == 5 and "loss" not in first
  assert second["loss"] > 0


def test_ten_skipped_steps_in_a_row_end_the_training(tmp_path):
  run = Run(tmp_path, save_checkpoints_steps=100, log_steps=100)
  with pytest.raises(InputError, match="10 steps in a row.*--learning_rate"):
    run.train([make_batch()] * 3 + [bad_batch()] * 20, 23)
  # Noticed at once, not at the next line of metrics.
  assert not (tmp_path / "training_state").exists()
  assert run.lines() == []


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path):
  batches = [make_batch(seed=i) for i in range(20)]
  whole = Run(tmp_path / "whole")
  whole.train(batches, 20)
  parts = Run(tmp_path / "parts")
  # Stopped after 13 steps: the newest state is that of step 10.
  with pytest.raises(StopIteration):
    parts.train(batches[:13], 20)
  parts.train(batches, 20)
  for name, value in whole.values().items():
    np.testing.assert_array_equal(value, parts.values()[name], err_msg=name)
  assert without_times(whole.lines()) == without_times(parts.lines())
  assert [line["step"] for line in whole.lines()] == [5, 10, 15, 20]


def test_a_loop_of_steps_writes_what_single_steps_write(tmp_path):
  batches = [make_batch(seed=i) for i in range(20)]
  one = Run(tmp_path / "one")
  many = Run(tmp_path / "many", iterations_per_loop=3)
  one.train(batches, 20)
  many.train(batches, 20)
  assert without_times(one.lines()) == without_times(many.lines())
  for name, value in one.values().items():
    np.testing.assert_array_equal(value, many.values()[name], err_msg=name)


def test_sigterm_saves_at_once_and_the_run_goes_on(tmp_path):
  batches = [make_batch(seed=i) for i in range(20)]
  whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
  whole.train(batches, 20, evaluation=lambda step: {}, eval_steps=7)

  def evaluation(step):
    os.kill(os.getpid(), signal.SIGTERM)
    return {}

  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(SystemExit) as stopped:
    parts.train(batches, 20, evaluation=evaluation, eval_steps=7)
  assert stopped.value.code == 143
  assert signal.getsignal(signal.SIGTERM) == before
  assert tf.train.latest_checkpoint(
      str(tmp_path / "parts" / "training_state")).endswith("ckpt-7")
  parts.train(batches, 20, evaluation=lambda step: {}, eval_steps=7)
  for name, value in whole.values().items():
    np.testing.assert_array_equal(value, parts.values()[name], err_msg=name)
  assert without_times(whole.lines()) == without_times(parts.lines())


def test_the_reported_learning_rate_is_that_of_the_step(tmp_path):
  run = Run(tmp_path)
  run.train([make_batch()] * 10, 10)
  # Steps count from 0: the fifth has number 4.
  np.testing.assert_allclose(
      [line["learning_rate"] for line in run.lines()], [0.006, 0.001],
      rtol=1e-5)


def test_the_norms_of_weights_and_update_by_hand(tmp_path):
  run = Run(tmp_path, log_steps=1)
  weights = []

  def evaluation(step):
    weights.append(np.concatenate(
        [v.numpy().ravel() for v in run.model.trainable_variables]))
    return {}

  run.train([make_batch()] * 2, 2, evaluation=evaluation, eval_steps=1)
  line = [line for line in run.lines() if line["split"] == "train"][1]
  assert line["weight_norm"] == pytest.approx(
      np.linalg.norm(weights[1]), rel=1e-5)
  assert line["update_norm"] == pytest.approx(
      np.linalg.norm(weights[1] - weights[0]), rel=1e-4)


def test_evaluations_come_when_they_are_due(tmp_path):
  run = Run(tmp_path)
  calls = []

  def evaluation(step):
    calls.append(None)
    return {"mlm_loss": float(len(calls))}

  result = run.train(
      [make_batch()] * 14, 14, eval_steps=6, evaluation=evaluation)
  lines = [line for line in run.lines() if line["split"] == "eval"]
  assert [line["step"] for line in lines] == [6, 12, 14]
  assert result == {"mlm_loss": 3.0}
