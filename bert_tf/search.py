"""Fine-tuning several times, of which the best on the dev rows is kept.

Devlin et al. 2019, section 4.1 (restarts on small sets) and appendix A.3 (the
values to try). Each trial is a run of its own in `trials/`, which goes on
where it was cut and is not run again when it is finished.
"""

from collections.abc import Iterator
import dataclasses
import itertools
import os

from absl import logging
import keras

from bert_tf import checkpoints
from bert_tf import files
from bert_tf import finetuning
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.config import write_text
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig

# Devlin et al. 2019, appendix A.3, and the rates of section 4.1.
GRID = {
  "learning_rate": (5e-5, 4e-5, 3e-5, 2e-5),
  "train_batch_size": (16, 32),
  "num_train_epochs": (2.0, 3.0, 4.0),
}
_TRIALS = "trials"


def trials(config: FinetuningConfig, task: Task) -> Iterator[FinetuningConfig]:
  """The configs of all trials; those of a search have a folder of their own."""
  free = [name for name in GRID if getattr(config, name) is None]
  values = [GRID[name] for name in free] if config.grid else []
  for combination in itertools.product(*values):
    chosen = dict(zip(free, combination))
    for i in range(config.num_restarts):
      trial = dataclasses.replace(
          config, **chosen, random_seed=config.random_seed + i,
          num_restarts=1, grid=False, do_predict=False,
      ).with_defaults(task.defaults)
      name = (f"rate_{trial.learning_rate:g}_batch_{trial.train_batch_size}_"
              f"epochs_{trial.num_train_epochs:g}_seed_{trial.random_seed}")
      yield dataclasses.replace(
          trial, output_dir=os.path.join(config.output_dir, _TRIALS, name))


def _result(trial: FinetuningConfig, task: Task) -> dict[str, float]:
  """The metrics of a trial, which is run if it is not finished."""
  results = os.path.join(trial.output_dir, "eval_results.json")
  if not files.exists(results):
    keras.utils.clear_session()
    finetuning.run(trial, task)
  return read_json(results)


def _write_table(path: str, found: dict[str, dict], task: Task) -> None:
  """All trials, the best first."""
  ranked = sorted(
      found, key=lambda name: task.quality(found[name]), reverse=True)
  names = sorted({name for results in found.values() for name in results})
  rows = [["trial", *names]] + [
    [os.path.basename(trial),
     *(f"{found[trial].get(name, float('nan')):.6g}" for name in names)]
    for trial in ranked]
  write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def run(config: FinetuningConfig, task: Task) -> dict[str, float]:
  """`finetuning.run`, or the best of several where the config asks for it.

  The model directory of the best trial is copied to `config.output_dir`,
  which also gets `trials.tsv`; then it is evaluated, and predicts.

  Raises:
    InputError: as `finetuning.run`; --grid with nothing left to try.
  """
  if not (config.grid or config.num_restarts > 1):
    return finetuning.run(config, task)
  tried = list(trials(config, task))
  require(
      len(tried) > 1,
      f"--grid: {', '.join(f'--{name}' for name in GRID)} are given, so there "
      "is nothing to try; leave one of them out.")
  found = {}
  for i, trial in enumerate(tried, 1):
    found[trial.output_dir] = _result(trial, task)
    value = task.quality(found[trial.output_dir])
    logging.info(
        "Trial %d of %d, %s: %s %.4f.", i, len(tried),
        os.path.basename(trial.output_dir), task.best_metric, value)
  files.make_directories(config.output_dir)
  _write_table(
      os.path.join(config.output_dir, "trials.tsv"), found, task)
  # Of equal ones the first.
  best = max(found, key=lambda name: task.quality(found[name]))
  logging.info("The best is %s.", os.path.basename(best))
  checkpoints.copy_model(best, config.output_dir)
  keras.utils.clear_session()
  return finetuning.run(dataclasses.replace(
      config, do_train=False, num_restarts=1, grid=False, keep_best=False,
      patience=None), task)
