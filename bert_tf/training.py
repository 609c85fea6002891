"""The loop around the steps, for every kind of model.

What a training does beside its steps: it goes on from a saved state, tells
how it is doing, evaluates, saves, and stops in good order when asked to.
"""

from collections.abc import Callable
import dataclasses
import signal
import time
from typing import Any

from absl import logging
import keras
import tensorflow as tf

from bert_tf import distribution
from bert_tf import files
from bert_tf import monitoring
from bert_tf import train_step
from bert_tf.arguments import TrainingConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.input_pipeline import Replicas
from bert_tf.losses import Objective
from bert_tf.optimization import WarmupDecay
from bert_tf.optimization import make_optimizer
from bert_tf.reporting import MetricsWriter
from bert_tf.training_state import TrainingState

# The exit status after SIGTERM, when the state has been saved: that of a
# process which the signal ended, as shells, Kubernetes and Slurm know it.
EXIT_TERMINATED = 128 + signal.SIGTERM

_DTYPE_POLICIES = {
  "none": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16",
}
# What a step raises when another worker is gone.
_WORKER_ERRORS = (
  tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError,
  tf.errors.CancelledError, tf.errors.DeadlineExceededError,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """What is trained: the parts that differ between kinds of training."""

  model: keras.Model  # made under the strategy
  objective: Objective
  num_steps: int
  num_warmup_steps: int
  # (first step, whose rows) -> endless batches of those rows.
  make_batches: Callable[[int, Replicas], tf.data.Dataset]
  # Sets the first weights, where there is no state to go on from.
  load_weights: Callable[[], None]
  # What must stay as it is while a run goes on.
  identity: dict[str, Any]
  # step -> the metrics of the model as it is; or None.
  evaluation: Callable[[int], dict[str, float]] | None
  eval_steps: int
  # What an example amounts to: {"examples": 1, "tokens": S, ...}, told a
  # second.
  amounts: dict[str, float]
  bias_correction: bool | None = None
  layer_decay: float = 1.0
  # Whether more steps would be of no use; asked before each step.
  is_over: Callable[[], bool] = lambda: False


def start(config: TrainingConfig) -> tf.distribute.Strategy:
  """Settles what holds for the whole process; before all of TensorFlow.

  Raises:
    InputError: the strategy cannot be had or does not divide the batch, or
      the --output_dir is a file.
  """
  require(
      not files.is_file(config.output_dir),
      f"--output_dir: {config.output_dir} is a file; name a folder.")
  strategy = distribution.make_strategy(
      config.distribution_strategy, tpu_name=config.tpu_name,
      worker_timeout=config.worker_timeout)
  distribution.check_batch_size(
      config.train_batch_size, num_replicas=strategy.num_replicas_in_sync,
      micro_batches=config.gradient_accumulation_steps)
  if config.deterministic:
    tf.config.experimental.enable_op_determinism()
  keras.utils.set_random_seed(config.random_seed % 2**32)
  return strategy


def dtype_policy(config: TrainingConfig) -> str:
  """The Keras policy of --mixed_precision: weights are float32 in each."""
  return _DTYPE_POLICIES[config.mixed_precision]


class _Termination:
  """Whether SIGTERM has come: a preemption, which leaves some seconds."""

  def __init__(self):
    self.has_come = False

  def _note(self, *_):
    self.has_come = True

  def __enter__(self):
    try:
      self._before = signal.signal(signal.SIGTERM, self._note)
    except ValueError:  # Not the main thread, which alone gets signals.
      self._before = None
    return self

  def __exit__(self, *error):
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)


class _Loop:
  """A training on its way.

  The step that is logged runs alone, for the norms of its update; so do all
  steps with --iterations_per_loop=1.
  """

  def __init__(
      self, config: TrainingConfig, job: Job, state: TrainingState,
      schedule: Callable, *, strategy: tf.distribute.Strategy,
      writer: MetricsWriter, profile: monitoring.Profile,
      termination: _Termination
  ):
    self._config = config
    self._job = job
    self._state = state
    self._schedule = schedule
    self._strategy = strategy
    self._writer = writer
    self._profile = profile
    self._termination = termination
    self._is_chief = distribution.is_chief(strategy)
    self._is_alone = distribution.num_workers(strategy) == 1
    self._done = state.step
    # The step of the last line of metrics, and the sums since.
    self._logged = state.notes.get("logged", state.step)
    # Of this process, since that line: its steps, their time, and how much of
    # it passed in waiting for data.
    self._new_steps, self._seconds, self._waited = 0, 0.0, 0.0
    self._watch = monitoring.Watch(
        vocab_size=job.model.config.vocab_size,
        num_warmup_steps=job.num_warmup_steps)
    self._flags = None
    batches = distribution.distribute(
        strategy, lambda replicas: job.make_batches(state.step, replicas))
    self._iterator = iter(batches)
    self._step = train_step.make_train_step(
        job.model, state.optimizer, job.objective, strategy=strategy,
        seed=config.random_seed, batch_spec=batches.element_spec,
        state=state.step_state, jit_compile=config.jit_compile,
        micro_batches=config.gradient_accumulation_steps)
    self._sums = self._step.zeros()
    for name, value in state.notes.get("sums", {}).items():
      self._sums[name] = tf.constant(value, tf.float64)
    self._weights = [v.value for v in job.model.trainable_variables]
    self._before = None  # the weights before a step that is logged

  def run(self) -> dict[str, float] | None:
    """Runs to the end; the metrics of the last evaluation, if any."""
    results = None
    self._profile.on_step(self._done)
    while self._done < self._job.num_steps and not self._job.is_over():
      self._run_steps(self._next_count())
      self._profile.on_step(self._done)
      if self._is_due(self._config.log_steps, self._done):
        self._log()
      # Before the state is saved: a run that goes on from there has it.
      if (self._job.evaluation and self._is_chief
          and self._is_due(self._job.eval_steps, self._done)):
        results = self._job.evaluation(self._done)
        self._writer.write("eval", self._done, results)
      if self._is_due(self._config.save_checkpoints_steps, self._done):
        self._save()
      if self._is_stopping():
        self._stop()
    return results

  def _is_due(self, every: int, done: int) -> bool:
    return done % every == 0 or done == self._job.num_steps

  def _next_count(self) -> int:
    """How many steps to run in one call."""
    def left_of(every):
      return every - self._done % every

    to_end = self._job.num_steps - self._done
    to_log = min(left_of(self._config.log_steps), to_end)
    return max(1, min(
        self._config.iterations_per_loop, to_log - 1,
        left_of(self._config.save_checkpoints_steps),
        left_of(self._job.eval_steps)))

  def _run_steps(self, count: int) -> None:
    """Starts the next steps, and waits for those before them."""
    begin = time.monotonic()
    number = tf.constant(self._done, tf.int64)
    is_stopping = tf.constant(self._termination.has_come)
    if self._is_due(self._config.log_steps, self._done + 1):
      self._before = [tf.identity(weight) for weight in self._weights]
    flags = self._flags
    if count == 1:
      batch = next(self._iterator)
      self._waited += time.monotonic() - begin
      sums, self._flags = self._step.one(batch, number, is_stopping)
      self._sums = {
        name: value + sums[name] for name, value in self._sums.items()}
    else:
      self._sums, self._flags = self._step.many(
          self._iterator, number, tf.constant(count, tf.int64), is_stopping,
          self._sums)
    self._done += count
    self._new_steps += count
    # On an accelerator the call above has not waited for its results. One
    # step in flight keeps it busy.
    if flags is not None:
      _check_skipped(flags)
    self._seconds += time.monotonic() - begin

  def _is_stopping(self) -> bool:
    """The same on every worker, so that none waits for one that is gone."""
    if self._is_alone:
      return self._termination.has_come
    return int(self._flags.stopping) > 0

  def _save(self) -> None:
    # So that the next line of metrics is of all its steps, whichever process
    # made them.
    self._state.save({"logged": self._logged, "sums": {
      name: float(value) for name, value in self._sums.items()}})

  def _stop(self) -> None:
    self._save()
    distribution.barrier(self._strategy)
    logging.warning(
        "SIGTERM: stopped after step %d of %d, whose state is saved; the same "
        "command goes on from there.", self._done, self._job.num_steps)
    raise SystemExit(EXIT_TERMINATED)

  def _log(self) -> None:
    """Writes the metrics of the steps since the last time."""
    begin = time.monotonic()
    _check_skipped(self._flags)
    sums = {name: float(value) for name, value in self._sums.items()}
    update = [now - then for now, then in zip(self._weights, self._before)]
    norms = {"weight_norm": float(tf.linalg.global_norm(self._weights)),
             "update_norm": float(tf.linalg.global_norm(update))}
    self._before = None
    seconds = self._seconds + time.monotonic() - begin
    steps = self._done - self._logged
    metrics = {
      **_step_metrics(self._job.objective, sums, steps=steps), **norms,
      "learning_rate": float(self._schedule(self._done - 1))}
    if self._config.mixed_precision == "float16":
      metrics["loss_scale"] = float(
          self._state.step_state.loss_scale.numpy())
    examples = self._new_steps * self._config.train_batch_size
    for name, amount in self._job.amounts.items():
      metrics[f"{name}_per_second"] = examples * amount / seconds
    if self._config.peak_flops and "model_flops_per_second" in metrics:
      metrics["peak_share"] = (
          metrics["model_flops_per_second"] / self._config.peak_flops)
    if self._config.iterations_per_loop == 1:
      metrics["input_wait_share"] = self._waited / seconds
    self._writer.write("train", self._done, metrics)
    if self._is_chief:
      self._watch.check(self._done, metrics)
    self._logged = self._done
    self._new_steps, self._seconds, self._waited = 0, 0.0, 0.0
    self._sums = self._step.zeros()


def _check_skipped(flags: train_step.Flags) -> None:
  """Waits for the step; ends a training that gets nowhere."""
  require(
      int(flags.skipped_in_a_row) < train_step.MOST_SKIPPED,
      f"{train_step.MOST_SKIPPED} steps in a row had no finite gradient, so "
      "training stops. The newest saved state is from before; try a lower "
      "--learning_rate, a longer warm-up, or bfloat16 in the place of "
      "float16.")


def _step_metrics(
    objective: Objective, sums: dict[str, float], *, steps: int
) -> dict[str, float]:
  """The metrics of some steps, of which some may have been skipped."""
  skipped = int(sums.pop(train_step.SKIPPED))
  norm = sums.pop(train_step.GRADIENT_NORM)
  metrics = {}
  if skipped < steps:
    metrics = {**objective.metrics(sums),
               train_step.GRADIENT_NORM: norm / (steps - skipped)}
  if skipped:
    logging.warning(
        "%d of %d steps had no finite gradient and were skipped.", skipped,
        steps)
    metrics[train_step.SKIPPED] = skipped
  return metrics


def _make_state(
    config: TrainingConfig, job: Job, schedule: Callable, *,
    strategy: tf.distribute.Strategy, do_train: bool
) -> TrainingState:
  """The state of the job, restored where there is one, else at its start."""
  bias_correction = config.bias_correction
  if bias_correction is None:
    bias_correction = job.bias_correction
  with strategy.scope():
    state = TrainingState(
        job.model,
        make_optimizer(
            config.optimizer, schedule, bias_correction=bias_correction,
            layer_decay=job.layer_decay),
        config.output_dir, identity=job.identity, is_part=not do_train,
        is_chief=distribution.is_chief(strategy),
        step_state=train_step.StepState(
            dynamic_loss_scale=config.mixed_precision == "float16"))
  if not state.restore():
    job.load_weights()
  return state


def run(
    config: TrainingConfig, job: Job, *, strategy: tf.distribute.Strategy,
    do_train: bool = True
) -> tuple[dict[str, float] | None, int]:
  """Trains to the end, from the start or from the newest saved state.

  Args:
    config: of the engine.
    job: what is trained.
    strategy: what `start` returned.
    do_train: False: leaves the model as the saved state has it.

  Returns:
    The metrics of the last evaluation, None where there was none, and the
    number of steps that are done.

  Raises:
    InputError: the state is of another run, another worker is gone, or ten
      steps in a row had no finite gradient.
    SystemExit: with EXIT_TERMINATED after SIGTERM, when the state is saved.
  """
  schedule = WarmupDecay(
      config.learning_rate, num_train_steps=job.num_steps,
      num_warmup_steps=job.num_warmup_steps,
      decay=config.learning_rate_schedule, power=config.polynomial_power)
  state = _make_state(
      config, job, schedule, strategy=strategy, do_train=do_train)
  if do_train and state.step >= job.num_steps:
    logging.info("All %d steps are done: nothing left to train.",
                 job.num_steps)
  if not do_train or state.step >= job.num_steps or job.is_over():
    return None, state.step
  is_chief = distribution.is_chief(strategy)
  monitoring.check_batch(
      job.model.config, next(iter(job.make_batches(state.step, Replicas()))))
  with MetricsWriter(
      config.output_dir, first_step=state.step, num_steps=job.num_steps,
      is_chief=is_chief,
  ) as writer, _Termination() as termination, monitoring.Profile(
      # Of several workers the chief is profiled.
      config.profile_range if is_chief else None,
      config.output_dir) as profile:
    try:
      results = _Loop(
          config, job, state, schedule, strategy=strategy, writer=writer,
          profile=profile, termination=termination).run()
    except _WORKER_ERRORS as error:
      if distribution.num_workers(strategy) == 1:
        raise
      raise InputError(
          f"Another worker is gone ({type(error).__name__}). Start all "
          "workers again with the same command: they go on from the newest "
          f"saved state. TensorFlow says: {str(error).splitlines()[0]}"
      ) from error
  return results, state.step
