"""A run that was stopped goes on with the same command, to the same bits.

Each run is processes of its own, stopped as they are stopped elsewhere: by
SIGKILL, by SIGTERM, by a damaged file.
"""

import random
import shutil
import signal
import time

import pytest

from bert_tf import pretraining
from bert_tf.arguments import PretrainingConfig
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import write_json
import training_process
from training_process import Training

STEPS = 60
# Evaluations fall between states and on them.
FLAGS = {
  "deterministic": True, "num_train_steps": STEPS, "do_eval": True,
  "eval_steps": 15, "max_eval_steps": 3, "save_checkpoints_steps": 5}
SETTINGS = {
  "masks drawn anew": {},
  # A line of metrics is of steps before and after the stop.
  "bfloat16 in micro-batches": {
    "mixed_precision": "bfloat16", "gradient_accumulation_steps": 2,
    "log_steps": 7},
  "float16": {"mixed_precision": "float16"},
}
TERMINATED = 143


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  return training_process.make_inputs(
      tmp_path_factory.mktemp("inputs"), dropout=0.1)


@pytest.fixture(scope="module")
def unmasked(tmp_path_factory):
  """Records without masks."""
  return training_process.make_inputs(
      tmp_path_factory.mktemp("unmasked"), dropout=0.1, masking="none")


@pytest.fixture(scope="module")
def undisturbed(inputs):
  return Training(inputs, inputs / "undisturbed", **FLAGS).finish()


@pytest.fixture(scope="module")
def undisturbed_workers(inputs):
  return Training(inputs, inputs / "workers", workers=2, **FLAGS).finish()


def kill_soon_after(training, step, rng):
  """SIGKILL at a random moment of the steps that follow."""
  training.wait_for_step(step)
  time.sleep(rng.uniform(0, 0.05))
  training.kill()


def assert_equal(run, undisturbed):
  assert training_process.differences(run, undisturbed) == []
  lines = [line["step"] for line in training_process.lines_of(run)
           if line["split"] == "train"]
  assert lines == [
    step for step, _ in training_process.events_of(run, "train")]
  assert lines[-1] == STEPS and sorted(set(lines)) == lines
  steps = [step for step, _ in training_process.events_of(run, "eval")]
  assert steps == [15, 30, 45, 60]
  assert (run / "eval_results.json").read_bytes() == (
      undisturbed / "eval_results.json").read_bytes()


@pytest.mark.slow
def test_a_run_killed_three_times_ends_as_one_left_alone(
    inputs, undisturbed, tmp_path):
  rng = random.Random(5)
  start = lambda: Training(inputs, tmp_path / "run", **FLAGS)
  # Before there is any state, then in a save, then between two.
  kill_soon_after(start(), rng.randrange(1, 4), rng)
  start().kill_in_a_save(rng.randrange(10, 30))
  assert training_process.is_half_saved(tmp_path / "run")
  begun = training_process.saved_steps(tmp_path / "run")
  last = start()
  step = rng.randrange(35, 40)
  last.wait_until(lambda: (
      training_process.last_step(tmp_path / "run") % 5 in (2, 3)
      and training_process.last_step(tmp_path / "run") > step))
  last.kill()
  assert not training_process.is_half_saved(tmp_path / "run")
  saved = training_process.saved_steps(tmp_path / "run")
  assert begun and max(begun) < max(saved) < STEPS
  assert_equal(start().finish(), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_run_goes_on_to_the_same_bits(
    inputs, unmasked, tmp_path, name):
  flags = {**FLAGS, **SETTINGS[name]}
  folder = unmasked if name == "masks drawn anew" else inputs
  alone = Training(folder, tmp_path / "alone", **flags)
  killed = Training(folder, tmp_path / "run", **flags)
  rng = random.Random(name)
  kill_soon_after(killed, rng.randrange(10, 40), rng)
  alone.finish()
  assert 0 < max(training_process.saved_steps(tmp_path / "run")) < STEPS
  run = Training(folder, tmp_path / "run", **flags).finish()
  assert_equal(run, alone.output_dir)
  # The state of the loss scale is the same and not that of a new start.
  finite = training_process.values_of(run)["step_state/finite_steps"]
  assert finite == (STEPS if name == "float16" else 0)


@pytest.mark.slow
def test_sigterm_saves_at_once_and_ends_with_143(
    inputs, undisturbed, tmp_path):
  flags = {**FLAGS, "save_checkpoints_steps": 25}
  training = Training(inputs, tmp_path / "run", **flags)
  training.wait_for_step(30)
  training.processes[0].send_signal(signal.SIGTERM)
  assert training.wait() == [TERMINATED], training.log()
  saved = training_process.saved_steps(tmp_path / "run")
  assert saved[0] == 25 and 30 <= saved[1] < 50, saved
  assert saved[1] == training_process.last_step(tmp_path / "run")
  assert f"SIGTERM: stopped after step {saved[1]} of 60" in training.log()
  assert not (tmp_path / "run" / "bert_config.json").exists()
  again = Training(inputs, tmp_path / "run", **flags)
  assert_equal(again.finish(), undisturbed)
  assert f"Going on from step {saved[1]}:" in again.log()


def halve(path):
  data = path.read_bytes()
  path.write_bytes(data[:len(data) // 2])


DAMAGES = {
  "half of the data": lambda folder, step: halve(
      folder / f"ckpt-{step}.data-00000-of-00001"),
  "half of the index": lambda folder, step: halve(
      folder / f"ckpt-{step}.index"),
  "empty files": lambda folder, step: [
    path.write_bytes(b"") for path in folder.glob(f"ckpt-{step}.*")],
}


@pytest.mark.slow
def test_a_damaged_state_is_passed_over_for_the_one_before(
    inputs, undisturbed, tmp_path):
  trainings = []
  for name, damage in DAMAGES.items():
    shutil.copytree(undisturbed, tmp_path / name)
    damage(training_process.state_directory(tmp_path / name), STEPS)
    trainings.append(Training(inputs, tmp_path / name, **FLAGS))
  for training in trainings:
    assert_equal(training.finish(), undisturbed)
    path = training_process.state_directory(training.output_dir) / "ckpt-60"
    assert f"{path}: is damaged and passed over: " in training.log()
    assert "Going on from step 55: " in training.log()


def config_for(inputs, output_dir, **options):
  return PretrainingConfig(**{
    "input_file": (str(inputs / "train.tfrecord"),),
    "output_dir": str(output_dir), "do_train": True,
    "bert_config_file": str(inputs / "bert_config.json"),
    "vocab_file": str(inputs / "vocab.txt"), "max_seq_length": 32,
    "max_predictions_per_seq": 5, "train_batch_size": 8,
    "num_train_steps": 2, "num_warmup_steps": 1, "save_checkpoints_steps": 1,
    **options})


@pytest.fixture(scope="module")
def short(inputs):
  """A run of two steps, in this process."""
  pretraining.run(config_for(inputs, inputs / "short"))
  return inputs / "short"


def test_a_run_without_a_whole_state_does_not_begin_anew(
    inputs, short, tmp_path):
  shutil.copytree(short, tmp_path / "run")
  folder = training_process.state_directory(tmp_path / "run")
  for step in (1, 2):
    DAMAGES["empty files"](folder, step)
  with pytest.raises(
      InputError, match="ckpt-2, .*ckpt-1: cannot be read.*remove these"):
    pretraining.run(config_for(inputs, tmp_path / "run"))
  assert training_process.saved_steps(tmp_path / "run") == [1, 2]


def edit(path, **changes):
  write_json(str(path), {**read_json(str(path)), **changes})


def test_another_config_is_refused_by_the_key_that_differs(
    inputs, short, tmp_path):
  config = tmp_path / "bert_config.json"
  config.write_bytes((inputs / "bert_config.json").read_bytes())
  edit(config, hidden_dropout_prob=0.2)
  for options, message in (
      ({"bert_config_file": str(config)}, "hidden_dropout_prob was 0.1, now"),
      ({"train_batch_size": 4}, "train_batch_size was 8, now 4"),
      ({"random_seed": 1}, "random_seed was 12345, now 1")):
    with pytest.raises(InputError, match=message):
      pretraining.run(config_for(inputs, short, **options))


def test_missing_and_extra_variables_of_a_state_are_listed(
    inputs, short, tmp_path):
  """As another program may have left them, which called itself this one."""
  run, config = tmp_path / "run", tmp_path / "bert_config.json"
  shutil.copytree(short, run)
  identity = training_process.state_directory(run) / "run.json"
  config.write_bytes((inputs / "bert_config.json").read_bytes())
  changed = {"num_hidden_layers": 2, "intermediate_size": 48}
  edit(config, **changed)
  edit(identity, optimizer="lamb", **changed)
  before = identity.read_bytes()
  with pytest.raises(InputError) as raised:
    pretraining.run(config_for(
        inputs, run, bert_config_file=str(config), optimizer="lamb"))
  message = str(raised.value)
  layer = "bert/encoder/layer_{}/intermediate/dense/"
  for part in (
      f"{layer.format(1)}kernel: missing",
      f"{layer.format(0)}bias: (64,) there, (48,) here",
      "adam_weight_decay/bert_pooler_dense_bias_m: not in this run",
      "another --output_dir"):
    assert part in message, part
  assert identity.read_bytes() == before


@pytest.mark.slow
def test_sigterm_to_one_worker_stops_both_after_the_same_step(
    inputs, undisturbed_workers, tmp_path):
  training = Training(inputs, tmp_path / "run", workers=2, **FLAGS)
  training.wait_for_step(12)
  training.processes[1].send_signal(signal.SIGTERM)
  assert training.wait() == [TERMINATED] * 2, training.log()
  step = training_process.last_step(tmp_path / "run")
  assert max(training_process.saved_steps(tmp_path / "run")) == step < STEPS
  for worker in (0, 1):
    assert f"stopped after step {step} of 60" in training.log(worker)
  run = Training(inputs, tmp_path / "run", workers=2, **FLAGS).finish()
  assert_equal(run, undisturbed_workers)


@pytest.mark.slow
def test_when_a_worker_is_killed_the_other_ends_and_all_can_go_on(
    inputs, undisturbed_workers, tmp_path):
  # The second worker, then the first, which leads the others.
  for killed, step in ((1, 12), (0, 30)):
    training = Training(inputs, tmp_path / "run", workers=2, **FLAGS)
    training.wait_for_step(step)
    training.processes[killed].kill()
    statuses = training.wait(seconds=150)
    assert statuses[killed] == -signal.SIGKILL
    assert statuses[1 - killed] == 1, training.log(1 - killed)
    log = training.log(1 - killed)
    assert "error: Another worker is gone" in log, log
    assert "Start all workers again with the same command" in log
  run = Training(inputs, tmp_path / "run", workers=2, **FLAGS).finish()
  assert_equal(run, undisturbed_workers)
