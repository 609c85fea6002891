"""One step of training and one of evaluation, for every kind of model.

The training step is written over `strategy.run`, with its parts in plain
sight: totals, forward, backward, sum over replicas, clip, apply. It does not
use `fit`, which under a strategy clips before the replicas are summed.
"""

from collections.abc import Callable, Iterable
import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from bert_tf import distribution
from bert_tf import fused
from bert_tf.losses import Objective
from bert_tf.optimization import CLIP_NORM
from bert_tf.optimization import dense

# Sums of a step beside those of the objective: 1 of a step without finite
# gradients, which changes nothing; and the norm of the gradients otherwise.
SKIPPED = "skipped_steps"
GRADIENT_NORM = "gradient_norm"
# So many steps without finite gradients in a row end a training.
MOST_SKIPPED = 10

# Of fewer weights than these the update is not compiled, which takes a second.
LEAST_TO_COMPILE = 2**20

# The loss scale of float16: as high as the gradients allow, found by doubling
# after so many good steps and halving after a bad one (Micikevicius et al.
# 2018, "Mixed Precision Training", section 3.2).
FIRST_LOSS_SCALE = 2.0**15
STEPS_TO_DOUBLE = 2000


def dropout_seed(seed: int, *places) -> tf.Tensor:
  """The int32 [2] seed of a place in the training, a hash of all numbers.

  The places are step, replica and micro-batch.
  """
  mixed = tf.constant([seed % 2**31, 0], tf.int32)
  for place in places:
    mixed = tf.random.experimental.stateless_fold_in(
        mixed, tf.cast(place, tf.int32))
  return mixed


class StepState(tf.Module):
  """What a step remembers beside weights and slots: saved with them.

  Attributes:
    loss_scale: float32; 1 but for float16.
    finite_steps: int32, in a row since the scale changed.
    skipped_in_a_row: int32; stays at MOST_SKIPPED once it is there.
  """

  def __init__(self, *, dynamic_loss_scale: bool = False):
    super().__init__()
    self.is_dynamic = dynamic_loss_scale
    first = FIRST_LOSS_SCALE if dynamic_loss_scale else 1.0

    def variable(value, dtype, name):
      # Every replica computes the same value.
      return tf.Variable(
          value, dtype=dtype, trainable=False, name=name,
          aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)

    self.loss_scale = variable(first, tf.float32, "loss_scale")
    self.finite_steps = variable(0, tf.int32, "finite_steps")
    self.skipped_in_a_row = variable(0, tf.int32, "skipped_in_a_row")

  @property
  def values(self) -> dict[str, tf.Variable]:
    return {f"step_state/{name}": getattr(self, name) for name in (
      "loss_scale", "finite_steps", "skipped_in_a_row")}

  def update(self, is_finite) -> None:
    """After a step; called in a replica."""
    skipped = tf.where(
        is_finite & (self.skipped_in_a_row < MOST_SKIPPED), 0,
        self.skipped_in_a_row + 1)
    self.skipped_in_a_row.assign(skipped)
    if not self.is_dynamic:
      return
    finite = tf.where(is_finite, self.finite_steps + 1, 0)
    is_long = finite >= STEPS_TO_DOUBLE
    factor = tf.where(is_finite, tf.where(is_long, 2.0, 1.0), 0.5)
    self.loss_scale.assign(tf.maximum(self.loss_scale * factor, 1.0))
    self.finite_steps.assign(tf.where(is_long, 0, finite))


class Flags(NamedTuple):
  """What a loop must know of its last step: int32 scalars."""

  stopping: Any  # how many workers want to stop; the same on each
  skipped_in_a_row: Any


class TrainStep(NamedTuple):
  """The compiled step, alone and in a loop; see `make_train_step`.

  Sums are {name: float64 scalar}.
  """

  # (batch, number, is_stopping) -> (sums, flags).
  one: Callable[..., tuple[dict[str, tf.Tensor], Flags]]
  # (iterator, first number, count, is_stopping, sums) -> (sums, flags): the
  # sums given, and those of so many steps added to them in turn.
  many: Callable[..., tuple[dict[str, tf.Tensor], Flags]]

  def zeros(self) -> dict[str, tf.Tensor]:
    """The sums of no step."""
    names, _ = self.one.get_concrete_function().structured_outputs
    return {name: tf.constant(0.0, tf.float64) for name in names}


def _make_gradients(
    model: keras.Model, objective: Objective, *, jit_compile: bool
) -> Callable:
  """(batch, totals, seed, loss scale) -> (gradients, sums) of one replica.

  Compiled in a function of its own: XLA takes this part and no more, since
  what it compiles can hold no sum over replicas.
  """
  variables = [v.value for v in model.trainable_variables]

  def gradients_of(batch, totals, seed, loss_scale):
    with fused.steps():
      with tf.GradientTape() as tape:
        outputs = model(batch, training=True, dropout_seed=seed)
        sums = objective.sums(outputs, batch)
        loss = objective.loss(sums, totals) * loss_scale
      gradients = tape.gradient(loss, variables)
    return [None if g is None else dense(g) for g in gradients], sums

  return tf.function(
      gradients_of, autograph=False, jit_compile=jit_compile or None,
      # TensorFlow optimizes it by itself then, and so in the same way in a
      # loop of steps as in one step alone: the same bits.
      experimental_attributes={"_noinline": True})


def _over_micro_batches(gradients_of: Callable, batch, count: int):
  """The sums of (gradients, sums) over equal parts of a batch.

  Args:
    gradients_of: (part of the batch, its number) -> (gradients, sums).
    batch: {name: [B, ...]}.
    count: of the parts.
  """
  if count == 1:
    return gradients_of(batch, 0)
  parts = {
    name: tf.reshape(value, [count, -1, *value.shape[1:]])
    for name, value in batch.items()}

  def part(number):
    return {name: value[number] for name, value in parts.items()}

  first = gradients_of(part(0), 0)

  def add(number, *flat):
    more = tf.nest.flatten(gradients_of(part(number), number))
    # None: a variable that this objective does not reach.
    pairs = zip(flat, [value for value in more if value is not None])
    return (number + 1, *(one + two for one, two in pairs))

  flat = tf.nest.flatten(first)
  reached = [value for value in flat if value is not None]
  _, *summed = tf.while_loop(
      lambda number, *_: number < count, add, (tf.constant(1), *reached),
      parallel_iterations=1)
  summed = iter(summed)
  return tf.nest.pack_sequence_as(
      first, [value if value is None else next(summed) for value in flat])


def _clipping(gradients: list, scale):
  """(what clips the gradients as a factor, their norm, whether it is finite).

  Of gradients that were summed over the replicas, so that all decide alike;
  the factor is 0 where the norm is not finite.
  """
  norm = tf.linalg.global_norm(gradients) / scale
  is_finite = tf.math.is_finite(norm)
  factor = tf.where(
      is_finite, tf.minimum(1.0, CLIP_NORM / norm) / scale, 0.0)
  return factor, norm, is_finite


def _make_update(
    optimizer: keras.optimizers.Optimizer, variables: list
) -> Callable:
  """(gradients, factor, is_finite): clips, and applies to the variables."""

  def update(gradients, factor, is_finite):
    # 0 times infinity is 0 here.
    gradients = [tf.math.multiply_no_nan(g, factor) for g in gradients]
    optimizer.apply_if(is_finite, gradients, variables)

  has_copies = any(
      isinstance(v.value, tf.distribute.DistributedValues) for v in variables)
  number = sum(math.prod(v.shape) for v in variables)
  if (has_copies or not optimizer.is_elementwise
      or number < LEAST_TO_COMPILE):
    return update
  # XLA goes over the memory of weights, slots and gradients once, where the
  # operations one by one do so four times.
  return tf.function(update, autograph=False, jit_compile=True)


def _make_replica_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer,
    objective: Objective, *, seed: int, state: StepState, micro_batches: int,
    jit_compile: bool
) -> Callable:
  """(rows, number, is_stopping) -> (sums, flags), run in each replica."""

  def replica_step(batch, number, is_stopping):
    gradients_of = _make_gradients(model, objective, jit_compile=jit_compile)
    totals, stopping = distribution.sum_over_replicas(
        (objective.totals(batch), tf.cast(is_stopping, tf.float32)))
    replica = distribution.replica_number()
    scale = tf.identity(state.loss_scale)
    gradients, sums = _over_micro_batches(
        lambda part, place: gradients_of(
            part, totals, dropout_seed(seed, number, replica, place), scale),
        batch, micro_batches)
    # A batch without next-sentence labels leaves out the pooler and its
    # head. As in the original they stay as they are, undecayed.
    reached = [v for v, g in zip(model.trainable_variables, gradients)
               if g is not None]
    gradients, sums = distribution.sum_over_replicas(
        ([g for g in gradients if g is not None], sums))
    factor, norm, is_finite = _clipping(gradients, scale)
    _make_update(optimizer, reached)(gradients, factor, is_finite)
    state.update(is_finite)
    # float64: sums of many steps lose nothing to rounding.
    kept = {name: tf.where(is_finite, tf.cast(value, tf.float64), 0.0)
            for name, value in {**sums, GRADIENT_NORM: norm}.items()}
    kept[SKIPPED] = tf.cast(~is_finite, tf.float64)
    return kept, Flags(
        tf.cast(stopping, tf.int32), tf.identity(state.skipped_in_a_row))

  return replica_step


def make_train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer,
    objective: Objective, *, strategy: tf.distribute.Strategy, seed: int,
    batch_spec: Any, state: StepState, micro_batches: int = 1,
    jit_compile: bool = False
) -> TrainStep:
  """One update of the model from one global batch.

  The same update however the batch is spread over replicas and
  micro-batches: both means of the loss are over the global batch, the
  gradients are clipped when they have been summed. A step whose gradients
  are not finite changes no weight and no slot, adds nothing to the sums and
  counts as `SKIPPED`; it is a step all the same.

  Args:
    model: built under the strategy.
    optimizer: built for the model's trainable variables; has `apply_if` and
      `is_elementwise`.
    objective: what is minimised.
    strategy: where.
    seed: of dropout.
    batch_spec: of the batches, whose sizes must be known.
    state: of the loss scale and of the steps skipped.
    micro_batches: parts of a replica's batch, worked through in turn.
    jit_compile: compile forward and backward pass with XLA.

  Returns:
    Functions that are compiled once and give the sums of the objective over
    the global batch. They also take whether this worker wants to stop, and
    tell how many workers do, so that all stop after the same step.
  """
  replica_step = _make_replica_step(
      model, optimizer, objective, seed=seed, state=state,
      micro_batches=micro_batches, jit_compile=jit_compile)
  number_spec = tf.TensorSpec((), tf.int64)
  bool_spec = tf.TensorSpec((), tf.bool)

  @tf.function(
      input_signature=[batch_spec, number_spec, bool_spec], autograph=False)
  def one(batch, number, is_stopping):
    outcome = strategy.run(replica_step, args=(batch, number, is_stopping))
    return tf.nest.map_structure(
        lambda value: strategy.experimental_local_results(value)[0], outcome)

  @tf.function(autograph=False)
  def many(iterator, first, count, is_stopping, sums):

    def body(number, sums, _):
      more, flags = one(next(iterator), number, is_stopping)
      sums = {name: sums[name] + more[name] for name in sums}
      return number + 1, sums, flags

    zeros = Flags(tf.constant(0), tf.constant(0))
    _, sums, flags = tf.while_loop(
        lambda number, *_: number < first + count, body, (first, sums, zeros),
        parallel_iterations=1)
    return sums, flags

  return TrainStep(one=one, many=many)


def make_evaluator(
    model: keras.Model, objective: Objective, *, batch_spec: Any
) -> Callable[[Iterable], dict[str, float]]:
  """`evaluate(batches) -> metrics`, compiled once for `batch_spec`.

  It runs on the first device alone, whatever the strategy of the training.
  """

  @tf.function(input_signature=[batch_spec])
  def eval_step(batch):
    return objective.sums(model(batch, training=False), batch)

  def evaluate(batches):
    sums = {}
    for batch in batches:
      # float64: sums of many batches lose nothing to rounding.
      sums = {name: sums.get(name, 0.0) + tf.cast(value, tf.float64)
              for name, value in eval_step(batch).items()}
    return objective.metrics(
        {name: float(value) for name, value in sums.items()})

  return evaluate
