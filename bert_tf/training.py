"""The training step and the loop around it, for every kind of model.

The step is written over `strategy.run`, with its parts in plain sight:
totals, forward, backward, sum over replicas, clip, apply. It does not use
`fit`, which under a strategy clips before the replicas are summed.
"""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from absl import logging
import keras
import tensorflow as tf

from bert_tf import distribution
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.losses import Objective
from bert_tf.optimization import CLIP_NORM
from bert_tf.reporting import MetricsWriter

STATE_DIRECTORY = "training_state"
# The sum that counts the steps without a finite gradient.
SKIPPED = "skipped_steps"


def dropout_seed(seed: int, step, replica) -> tf.Tensor:
  """The int32 [2] seed of one step on one replica, a hash of all three."""
  mixed = tf.constant([seed % 2**31, 0], tf.int32)
  for part in (step, replica):
    mixed = tf.random.experimental.stateless_fold_in(
        mixed, tf.cast(part, tf.int32))
  return mixed


def make_train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer,
    objective: Objective, *, strategy: tf.distribute.Strategy, seed: int,
    batch_spec: Any
) -> Callable:
  """`step(batch, number) -> sums`, one update of the model.

  The returned function is compiled once for `batch_spec`; its sums are
  those of the global batch. A step whose gradients are not finite changes no
  weight, adds nothing to the sums and counts as `SKIPPED`.
  """
  variables = model.trainable_variables

  def replica_step(batch, number):
    totals = distribution.sum_over_replicas(objective.totals(batch))
    step_seed = dropout_seed(seed, number, distribution.replica_number())
    with tf.GradientTape() as tape:
      outputs = model(batch, training=True, dropout_seed=step_seed)
      sums = objective.sums(outputs, batch)
      loss = objective.loss(sums, totals)
    gradients = tape.gradient(loss, [v.value for v in variables])
    # A batch without next-sentence labels leaves out the pooler and its
    # head. As in the original they stay as they are, undecayed.
    reached = [v for v, g in zip(variables, gradients) if g is not None]
    # Lookups in the tables give sparse gradients; all else here is dense.
    gradients = [
      tf.convert_to_tensor(g) for g in gradients if g is not None]
    gradients = distribution.sum_over_replicas(gradients)
    gradients, norm = tf.clip_by_global_norm(gradients, CLIP_NORM)
    # The summed gradients are the same everywhere, and so is the decision.
    is_finite = tf.math.is_finite(norm)

    def update():
      optimizer.apply(gradients, reached)
      return optimizer.iterations.value

    def skip():
      optimizer.iterations.assign_add(1)
      return optimizer.iterations.value

    tf.cond(is_finite, update, skip)
    sums = distribution.sum_over_replicas(sums)
    kept = {name: tf.where(is_finite, value, tf.zeros_like(value))
            for name, value in sums.items()}
    return {**kept, SKIPPED: tf.cast(~is_finite, tf.float32)}

  @tf.function(
      input_signature=[batch_spec, tf.TensorSpec((), tf.int64)],
      autograph=False)
  def train_step(batch, number):
    sums = strategy.run(replica_step, args=(batch, number))
    return tf.nest.map_structure(
        lambda value: strategy.experimental_local_results(value)[0], sums)

  return train_step


class _Sums:
  """Adds up the sums of steps without waiting for any of them."""

  def __init__(self):
    self._sums = None

  def add(self, sums: dict[str, tf.Tensor]) -> None:
    # float64: sums of many steps lose nothing to rounding.
    sums = {name: tf.cast(value, tf.float64) for name, value in sums.items()}
    if self._sums is not None:
      sums = {name: self._sums[name] + value for name, value in sums.items()}
    self._sums = sums

  def take(self) -> dict[str, float]:
    sums, self._sums = self._sums or {}, None
    return {name: float(value) for name, value in sums.items()}


def make_evaluator(
    model: keras.Model, objective: Objective, *, batch_spec: Any
) -> Callable[[Iterable], dict[str, float]]:
  """`evaluate(batches) -> metrics`, compiled once for `batch_spec`."""

  @tf.function(input_signature=[batch_spec])
  def eval_step(batch):
    return objective.sums(model(batch, training=False), batch)

  def evaluate(batches):
    sums = _Sums()
    for batch in batches:
      sums.add(eval_step(batch))
    return objective.metrics(sums.take())

  return evaluate


def _check_identity(
    output_dir: str, before: dict[str, Any], now: dict[str, Any]
) -> None:
  changed = [
    f"{key} was {before.get(key)!r}, now {now[key]!r}"
    for key in sorted(now) if before.get(key) != now[key]
  ]
  require(
      not changed,
      f"{output_dir}: holds another run: {'; '.join(changed)}. Give another "
      "--output_dir, or go on as that run began.")


class TrainingState:
  """What a run needs to go on: variables, optimizer, step.

  Kept apart from the model directory: to resume and to initialise are
  different things.

  Args:
    model: built.
    optimizer: is built here, for the model's trainable variables.
    output_dir: of the run; the state lies in a folder of it.
    identity: what must stay as it is while a run goes on.

  Raises:
    InputError: the folder holds the state of a run with another identity.
  """

  def __init__(
      self, model: keras.Model, optimizer: keras.optimizers.Optimizer,
      output_dir: str, *, identity: dict[str, Any]
  ):
    directory = os.path.join(output_dir, STATE_DIRECTORY)
    self._identity = identity
    self._identity_file = os.path.join(directory, "run.json")
    if os.path.exists(self._identity_file):
      _check_identity(output_dir, read_json(self._identity_file), identity)
    self.model = model
    self.optimizer = optimizer
    optimizer.build(model.trainable_variables)
    values = {v.path: v.value for v in model.weights + optimizer.variables}
    self._manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(variables=values), directory, max_to_keep=2)

  @property
  def step(self) -> int:
    return int(self.optimizer.iterations)

  def restore(self) -> int:
    """Goes back to the newest state, if there is one; returns its step."""
    newest = self._manager.latest_checkpoint
    if newest:
      self._manager.checkpoint.restore(newest).assert_consumed()
      logging.info("Going on from step %d: %s.", self.step, newest)
    return self.step

  def save(self) -> None:
    os.makedirs(os.path.dirname(self._identity_file), exist_ok=True)
    write_json(self._identity_file, self._identity)
    self._manager.save(checkpoint_number=self.step)


def _metrics(
    objective: Objective, sums: dict[str, float], *, steps: int
) -> dict[str, float]:
  """The metrics of some steps; waits for them."""
  skipped = sums.pop(SKIPPED)
  require(
      skipped < steps,
      f"None of the last {steps} steps had a finite gradient, so training "
      "stops. The newest saved state is from before; try a lower "
      "--learning_rate or a longer warm-up.")
  metrics = objective.metrics(sums)
  if skipped:
    logging.warning(
        "%d of %d steps had no finite gradient and were skipped.", skipped,
        steps)
    metrics[SKIPPED] = skipped
  return metrics


def train(
    state: TrainingState, step_function: Callable, batches: Iterable, *,
    objective: Objective, schedule: Callable, num_steps: int,
    batch_size: int, log_steps: int, save_steps: int, eval_steps: int,
    evaluation: Callable[[], dict[str, float]] | None, writer: MetricsWriter
) -> dict[str, float] | None:
  """Runs steps until `num_steps` of them are done, from the state's step.

  Args:
    state: model and optimizer; saved every `save_steps` and at the end.
    step_function: what `make_train_step` returned.
    batches: from the state's step on.
    objective: turns sums into the metrics to write.
    schedule: the learning rate of a step, counted from 0.
    num_steps: the number of the last step.
    batch_size: of a global batch, for the rate.
    log_steps: steps between two lines of metrics.
    save_steps: steps between two saved states.
    eval_steps: steps between two evaluations; there is one at the end.
    evaluation: gives the metrics of the model as it is, or None.
    writer: where the metrics go.

  Returns:
    The metrics of the last evaluation, or None if there was none.
  """
  if state.step >= num_steps:
    logging.info("All %d steps are done: nothing left to train.", num_steps)
  sums, iterator, results = _Sums(), iter(batches), None
  logged, seconds = state.step, 0.0
  for number in range(state.step, num_steps):
    start = time.monotonic()
    sums.add(step_function(next(iterator), tf.constant(number, tf.int64)))
    done = number + 1
    is_last = done == num_steps
    if done % log_steps == 0 or is_last:
      metrics = _metrics(objective, sums.take(), steps=done - logged)
      seconds += time.monotonic() - start
      metrics["learning_rate"] = float(schedule(number))
      metrics["examples_per_second"] = (done - logged) * batch_size / seconds
      writer.write("train", done, metrics)
      logged, seconds = done, 0.0
    else:
      seconds += time.monotonic() - start
    # Before the state is saved: a run that goes on from there has it.
    if evaluation and (done % eval_steps == 0 or is_last):
      results = evaluation()
      writer.write("eval", done, results)
    if done % save_steps == 0 or is_last:
      state.save()
  return results
