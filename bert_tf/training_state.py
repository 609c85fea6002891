"""The state that a run goes on from: weights, slots, step.

Kept apart from the model directory: to resume and to initialise are
different things.
"""

import json
import os
from typing import Any

from absl import logging
import keras
import tensorflow as tf

from bert_tf import files
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.tensorflow_checkpoints import object_name
from bert_tf.tensorflow_checkpoints import open_reader
from bert_tf.train_step import StepState

STATE_DIRECTORY = "training_state"
# The newest and, should its file be damaged, the one before.
_NUM_KEPT = 2
_ROOT = "variables"


def _check_identity(
    output_dir: str, before: dict[str, Any], now: dict[str, Any], *,
    is_part: bool
) -> None:
  names = set(now) if is_part else {*before, *now}
  changed = [
    f"{key} was {before.get(key)!r}, now {now.get(key)!r}"
    for key in sorted(names) if before.get(key) != now.get(key)
  ]
  require(
      not changed,
      f"{output_dir}: holds another run: {'; '.join(changed)}. Give another "
      "--output_dir, or go on as that run began.")


def has_state(output_dir: str) -> bool:
  """Whether there is a run to go on with."""
  return bool(tf.train.latest_checkpoint(
      os.path.join(output_dir, STATE_DIRECTORY)))


class _Notes(tf.train.experimental.PythonState):
  """Plain values in the same file as the variables.

  Not a variable of strings, which several workers cannot have: they send each
  other the first values, and no strings.
  """

  def __init__(self):
    super().__init__()
    self.values = {}

  def serialize(self):
    return json.dumps(self.values)

  def deserialize(self, string_value):
    self.values = json.loads(string_value)


class TrainingState:
  """What a run needs to go on, and where it is kept.

  Args:
    model: built.
    optimizer: is built here, for the model's trainable variables.
    output_dir: of the run; the state lies in a folder of it.
    identity: what must stay as it is while a run goes on.
    is_part: whether `identity` leaves out what does not matter, as to an
      evaluation alone.
    step_state: what the step remembers.
    is_chief: whether this process is the one that writes.

  Raises:
    InputError: the folder holds the state of a run with another identity.
  """

  def __init__(
      self, model: keras.Model, optimizer: keras.optimizers.Optimizer,
      output_dir: str, *, identity: dict[str, Any], step_state: StepState,
      is_part: bool = False, is_chief: bool = True
  ):
    directory = os.path.join(output_dir, STATE_DIRECTORY)
    self._identity = identity
    self._identity_file = os.path.join(directory, "run.json")
    if files.exists(self._identity_file):
      _check_identity(output_dir, read_json(self._identity_file), identity,
                      is_part=is_part)
    self._is_chief = is_chief
    self.model = model
    self.optimizer = optimizer
    self.step_state = step_state
    optimizer.build(model.trainable_variables)
    self._notes = _Notes()
    self._values = {
      **{v.path: v.value for v in model.weights + optimizer.variables},
      **step_state.values}
    self._manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(**{_ROOT: self._values}, notes=self._notes),
        directory, max_to_keep=_NUM_KEPT)

  @property
  def step(self) -> int:
    return int(self.optimizer.iterations.value.numpy())

  @property
  def notes(self) -> dict[str, Any]:
    """What the loop keeps from one state to the next: plain values."""
    return self._notes.values

  def _check_variables(self, path: str) -> None:
    """Raises `InputError` unless the state is one of this very model."""
    found = {
      name: tuple(shape)
      for key, shape in open_reader(path).get_variable_to_shape_map().items()
      if (name := object_name(key, root=_ROOT))}
    expected = {name: tuple(v.shape) for name, v in self._values.items()}
    wrong = [f"{name}: missing" for name in sorted(set(expected) - set(found))]
    wrong += [f"{name}: not in this run"
              for name in sorted(set(found) - set(expected))]
    wrong += [
      f"{name}: {found[name]} there, {expected[name]} here"
      for name in sorted(set(found) & set(expected))
      if found[name] != expected[name]]
    require(
        not wrong,
        f"{path}: is not the state of this run: {'; '.join(wrong)}. Go on "
        "with the program and the arguments it was made with, or give "
        "another --output_dir.")

  def restore(self) -> int:
    """Goes back to the newest state, if there is one; returns its step.

    A damaged file (a machine that stopped while it wrote, a full disk) is
    passed over for the state before it.

    Raises:
      InputError: none of them can be read, or one is of other variables.
    """
    damaged = []
    for path in reversed(self._manager.checkpoints):
      try:
        self._check_variables(path)
        self._manager.checkpoint.restore(path).assert_consumed()
      except InputError:
        raise  # Whole, but of other variables.
      except (
          tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        logging.warning("%s: is damaged and passed over: %s.", path, reason)
        damaged.append(path)
        continue
      logging.info("Going on from step %d: %s.", self.step, path)
      return self.step
    require(
        not damaged,
        f"{', '.join(damaged)}: cannot be read. Without them the run would "
        "begin anew: give another --output_dir, or remove these files.")
    return self.step

  def save(self, notes: dict[str, Any]) -> None:
    """Writes the state of the present step, on the chief."""
    self._notes.values = notes
    if not self._is_chief:
      return
    files.make_directories(os.path.dirname(self._identity_file))
    write_json(self._identity_file, self._identity)
    self._manager.save(checkpoint_number=self.step)
