"""Trainings in processes of their own, on small real records.

They are started with the flags of run_pretraining.py and judged by the files
that they leave, as a user would. As a program,

  python tests/training_process.py DEVICES FLAGS...

is run_pretraining.py on a machine with so many logical CPU devices.
"""

from collections.abc import Callable
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = str(REPOSITORY / "run_pretraining.py")

# Sentences of very different lengths: so rows have 1 to 5 predictions.
TEXT = """The cat sat.
The dog ran after the cat and up the hill and round the house and home again.
Then the cat ran up the tree.
It slept.

A ship left the port at dawn.
The sea was calm and the wind was warm and the ship sailed on for seven days.
At night the ship reached the island.
It rained.

Bread needs flour and water.
Knead the bread and let it rest.
Then the bread goes into the oven for an hour until the crust is brown and hard.
Eat it.
"""
SECONDS = 300  # No training here takes so long, on a busy machine either.


def make_inputs(
    folder: pathlib.Path, *, dropout: float, layers: int = 1, **made
) -> pathlib.Path:
  """Records, their vocabulary and the config of a tiny model.

  Args:
    folder: where they go.
    dropout: of the model.
    layers: of the model.
    **made: arguments of tools/create_pretraining_data.py.
  """
  # Here, so that the program below can set devices before all else.
  from bert_tf.arguments import PretrainingDataConfig
  from bert_tf.config import BertConfig
  from bert_tf.config import write_json
  from bert_tf.data import example_files

  folder.mkdir(parents=True, exist_ok=True)
  words = sorted(set(TEXT.lower().replace(".", "").split()))
  entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
  (folder / "text.txt").write_text(TEXT)
  (folder / "vocab.txt").write_text("\n".join(entries) + "\n")
  write_json(str(folder / "bert_config.json"), BertConfig(
      vocab_size=len(entries), hidden_size=32, num_hidden_layers=layers,
      num_attention_heads=2, intermediate_size=64, max_position_embeddings=32,
      hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
  ).to_dict())
  example_files.run(PretrainingDataConfig(**{
    "input_file": (str(folder / "text.txt"),),
    "output_file": (str(folder / "train.tfrecord"),),
    "vocab_file": str(folder / "vocab.txt"), "max_seq_length": 32,
    "max_predictions_per_seq": 5, "dupe_factor": 60, "short_seq_prob": 0.5,
    "num_workers": 1, **made}))
  return folder


def _words(flags: dict) -> list[str]:
  return [
    f"--{'' if value else 'no'}{name}" if isinstance(value, bool)
    else f"--{name}={value}" for name, value in flags.items()]


def _free_addresses(count: int) -> list[str]:
  """Addresses on this machine at which nobody listens."""
  sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
  addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
  for each in sockets:
    each.close()
  return addresses


class Training:
  """A training on its way: one process, or one for each worker.

  Attributes:
    output_dir: of the training.
    processes: those that were started.
    addresses: of the workers.
  """

  def __init__(
      self, inputs: pathlib.Path, output_dir: pathlib.Path, *,
      devices: int = 1, workers: int = 0, absent: int = 0, **flags
  ):
    """Starts it.

    Args:
      inputs: what `make_inputs` returned.
      output_dir: of the training.
      devices: logical CPU devices of a process.
      workers: 0: one process, without TF_CONFIG.
      absent: of the workers, the last ones, which are not started.
      **flags: of run_pretraining.py, in the place of those below or more.
    """
    self.output_dir = output_dir
    self._logs = []
    flags = {
      "input_file": inputs / "train.tfrecord", "output_dir": output_dir,
      "bert_config_file": inputs / "bert_config.json",
      "vocab_file": inputs / "vocab.txt", "max_seq_length": 32,
      "max_predictions_per_seq": 5, "do_train": True, "train_batch_size": 16,
      "num_train_steps": 50, "num_warmup_steps": 5, "learning_rate": 1e-3,
      "log_steps": 1, **flags}
    if workers:
      flags["distribution_strategy"] = "multi_worker_mirrored"
    program = [PROGRAM] if devices == 1 else [__file__, str(devices)]
    self.addresses = _free_addresses(workers)
    self.processes = [
      self._start(number, [sys.executable, *program, *_words(flags)])
      for number in range(max(workers, 1) - absent)]

  def _start(self, number: int, command: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_CONFIG", None)
    if self.addresses:
      environment["TF_CONFIG"] = json.dumps({
        "cluster": {"worker": self.addresses},
        "task": {"type": "worker", "index": number}})
    # Beside the folder, in which there must be nothing else.
    path = f"{self.output_dir}.{number}.log"
    self._logs.append(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as log:
      return subprocess.Popen(
          command, stdout=log, stderr=log, cwd=REPOSITORY, env=environment)

  def log(self, worker: int = 0) -> str:
    """What a process has said so far."""
    return pathlib.Path(self._logs[worker]).read_text()

  def wait(self, seconds: float = SECONDS) -> list[int]:
    """The exit statuses; after so many seconds the test has failed."""
    end = time.monotonic() + seconds
    try:
      return [process.wait(max(end - time.monotonic(), 0.1))
              for process in self.processes]
    except subprocess.TimeoutExpired:
      logs = "\n".join(self.log(i) for i in range(len(self.processes)))
      raise AssertionError(f"No end after {seconds} s:\n{logs}") from None
    finally:
      self.kill()

  def finish(self) -> pathlib.Path:
    """Waits for an end that is as it should be; the output folder."""
    statuses = self.wait()
    for number, status in enumerate(statuses):
      assert status == 0, f"worker {number}: {status}\n{self.log(number)}"
    return self.output_dir

  def kill(self) -> None:
    """SIGKILL to all processes that are there still."""
    for process in self.processes:
      process.kill()
    for process in self.processes:
      process.wait()

  def wait_until(self, condition: Callable[[], bool]) -> None:
    """Looks again and again, until it holds; the training must not end."""
    end = time.monotonic() + SECONDS
    while not condition():
      is_alive = self.processes[0].poll() is None
      if not is_alive or time.monotonic() > end:
        self.kill()
        raise AssertionError(f"Has not come about:\n{self.log()}")
      time.sleep(0.0005)

  def wait_for_step(self, step: int) -> None:
    self.wait_until(lambda: last_step(self.output_dir) >= step)

  def kill_in_a_save(self, first_step: int) -> None:
    """SIGKILL while a state is half written, at this step or later."""
    self.wait_for_step(first_step)
    process = self.processes[0]

    def has_caught():
      if not is_half_saved(self.output_dir):
        return False
      # It may have gone on since: look again at a process that stands still.
      process.send_signal(signal.SIGSTOP)
      if is_half_saved(self.output_dir):
        return True
      process.send_signal(signal.SIGCONT)
      return False

    self.wait_until(has_caught)
    self.kill()


def state_directory(output_dir: pathlib.Path) -> pathlib.Path:
  return output_dir / "training_state"


def saved_steps(output_dir: pathlib.Path) -> list[int]:
  """The steps of the states that are whole, as TensorFlow's list has them."""
  path = state_directory(output_dir) / "checkpoint"
  if not path.exists():
    return []
  return [
    int(line.rpartition("-")[2].strip('"\n'))
    for line in path.read_text().splitlines()
    if line.startswith("all_model_checkpoint_paths")]


def is_half_saved(output_dir: pathlib.Path) -> bool:
  """Whether there are files of a state that is not in the list yet."""
  folder = state_directory(output_dir)
  if not folder.is_dir():
    return False
  newest = max(saved_steps(output_dir), default=0)
  for name in os.listdir(folder):
    number = name.removeprefix("ckpt-").partition(".")[0].partition("_")[0]
    if name.startswith("ckpt-") and int(number) > newest:
      return True
  return False


def lines_of(output_dir: pathlib.Path) -> list[dict]:
  """metrics.jsonl, but for what differs between equal runs."""
  from bert_tf.reporting import TIMING_FIELDS

  path = output_dir / "metrics.jsonl"
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  return [
    {name: value for name, value in json.loads(line).items()
     if name not in TIMING_FIELDS}
    for line in lines if line.endswith("\n")]


def last_step(output_dir: pathlib.Path) -> int:
  """The last step that metrics.jsonl tells of; 0: none."""
  path = output_dir / "metrics.jsonl"
  lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
  return json.loads(lines[-1])["step"] if lines else 0


def events_of(output_dir: pathlib.Path, split: str) -> list[tuple]:
  """(step, {name: value}) of the event files, as TensorBoard reads them.

  Without what differs between equal runs.
  """
  import tensorflow as tf
  from bert_tf.reporting import TIMING_FIELDS

  found = []
  for path in sorted((output_dir / split).glob("events.out.tfevents.*")):
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      event = tf.compat.v1.Event.FromString(record)
      values = {
        value.tag: value.simple_value for value in event.summary.value
        if value.tag not in TIMING_FIELDS}
      if values:
        found.append((event.step, values))
  return found


def values_of(output_dir: pathlib.Path) -> dict:
  """{name: array}: weights, slots and the rest of the newest state."""
  import numpy as np
  import tensorflow as tf
  from bert_tf import tensorflow_checkpoints

  reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(
      str(state_directory(output_dir))))
  return {
    name: np.asarray(reader.get_tensor(key))
    for key in reader.get_variable_to_shape_map()
    if (name := tensorflow_checkpoints.object_name(key, root="variables"))}


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
  """In what two runs differ that should be equal to the bit."""
  first, second = values_of(one), values_of(other)
  found = sorted(set(first) ^ set(second))
  found += [name for name in sorted(set(first) & set(second))
            if first[name].tobytes() != second[name].tobytes()]
  if lines_of(one) != lines_of(other):
    found.append("metrics.jsonl")
  for split in ("train", "eval"):
    if events_of(one, split) != events_of(other, split):
      found.append(f"the event files of {split}")
  return found


def _main() -> None:
  import tensorflow as tf
  devices = int(sys.argv.pop(1))
  tf.config.set_logical_device_configuration(
      tf.config.list_physical_devices("CPU")[0],
      [tf.config.LogicalDeviceConfiguration()] * devices)
  sys.argv[0] = PROGRAM
  sys.path[0] = str(REPOSITORY)
  runpy.run_path(PROGRAM, run_name="__main__")


if __name__ == "__main__":
  _main()
