"""Several trainings, of which the best is kept."""

import dataclasses
import json

import pytest

from bert_tf import checkpoints
from bert_tf import finetuning
from bert_tf import search
from bert_tf.config import InputError
from bert_tf.tasks import TASKS
from small_models import config_for
from small_models import small_config
from small_models import write_start

TASK = TASKS["classification"]
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcd"]


@pytest.fixture
def config(tmp_path):
  rows = "label\ttext\n" + "x\ta b\ny\tc d\nx\ta\ny\tc\n" * 4
  for split in ("train", "dev", "test"):
    (tmp_path / f"{split}.tsv").write_text(rows)
  write_start(tmp_path, ENTRIES, small_config(ENTRIES))
  return config_for(
      tmp_path, "classification", num_train_epochs=1.0, learning_rate=None)


def test_the_grid_is_that_of_the_paper(config):
  free = dataclasses.replace(
      config, grid=True, train_batch_size=None, num_train_epochs=None)
  found = list(search.trials(free, TASK))
  assert len({trial.output_dir for trial in found}) == 24
  assert {(t.learning_rate, t.train_batch_size, t.num_train_epochs)
          for t in found} == {
    (rate, size, epochs) for rate in (5e-5, 4e-5, 3e-5, 2e-5)
    for size in (16, 32) for epochs in (2, 3, 4)}
  # Those given stay.
  found = list(search.trials(dataclasses.replace(config, grid=True), TASK))
  assert [(t.learning_rate, t.train_batch_size) for t in found] == [
    (5e-5, 8), (4e-5, 8), (3e-5, 8), (2e-5, 8)]
  seeds = list(search.trials(dataclasses.replace(
      config, num_restarts=3, random_seed=5), TASK))
  assert [t.random_seed for t in seeds] == [5, 6, 7]
  assert seeds[0].output_dir.endswith(
      "run/trials/rate_5e-05_batch_8_epochs_1_seed_5")
  assert not any(t.do_predict or t.grid or t.num_restarts > 1 for t in seeds)


def test_the_best_of_several_is_kept(config, tmp_path, monkeypatch):
  ran, original = [], finetuning.run

  def run(config, task):
    ran.append(config)
    return original(config, task)

  monkeypatch.setattr(finetuning, "run", run)
  several = dataclasses.replace(config, num_restarts=3, learning_rate=1e-2)
  # The second is the best, as if by luck.
  task = dataclasses.replace(TASK, metrics=lambda *parts: {
    "accuracy": [0.5, 0.75, 0.25, 0.75][min(len(ran), 4) - 1], "loss": 1.0})
  results = search.run(several, task)
  assert results["accuracy"] == 0.75 and len(ran) == 4
  trials = sorted((tmp_path / "run" / "trials").iterdir())
  table = (tmp_path / "run" / "trials.tsv").read_text().splitlines()
  assert [line.split("\t")[0] for line in table] == [
    "trial", trials[1].name, trials[0].name, trials[2].name]
  best, kept = (
    checkpoints.open_source(str(path)) for path in (trials[1], tmp_path / "run"))
  for name in best.shapes:
    assert (best.read(name) == kept.read(name)).all()
  assert (tmp_path / "run" / "predictions.tsv").exists()
  assert json.loads((tmp_path / "run" / "task.json").read_text())[
      "labels"] == ["x", "y"]
  # The same command again runs none of them.
  search.run(several, task)
  assert len(ran) == 5 and not ran[-1].do_train


def test_one_training_is_a_run_as_it_is(config, tmp_path):
  results = search.run(config, TASK)
  assert 0 <= results["accuracy"] <= 1
  assert not (tmp_path / "run" / "trials").exists()


def test_a_grid_without_a_choice_is_refused(config):
  with pytest.raises(InputError, match="so there is nothing to try"):
    search.run(dataclasses.replace(
        config, grid=True, learning_rate=1e-4), TASK)


@pytest.mark.parametrize("options", [
  {"patience": 2}, {"keep_best": True}, {"num_restarts": 2}, {"grid": True}])
def test_what_the_dev_rows_decide_needs_them(config, options):
  [name] = options
  with pytest.raises(InputError, match=f"--{name}: needs --do_train and --do"):
    dataclasses.replace(config, do_eval=False, **options)
  with pytest.raises(InputError, match=f"--{name}: does not go with"):
    dataclasses.replace(
        config, distribution_strategy="multi_worker_mirrored", **options)
