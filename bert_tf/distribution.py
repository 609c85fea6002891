"""Where a step runs: strategies, their replicas, and sums over them.

A replica is one device that works on its own rows of each batch; a worker is
a process, with one replica or several.
"""

from collections.abc import Callable
import json
import os
import socket
import time

from absl import logging
import tensorflow as tf

from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.input_pipeline import Replicas

_TF_CONFIG = "TF_CONFIG"
_TF_CONFIG_FORM = (
  'a JSON object such as {"cluster": {"worker": ["host1:2222", '
  '"host2:2222"]}, "task": {"type": "worker", "index": 0}}, with another '
  "index in each process")


def _one_device() -> tf.distribute.Strategy:
  has_gpu = bool(tf.config.list_physical_devices("GPU"))
  return tf.distribute.OneDeviceStrategy("/gpu:0" if has_gpu else "/cpu:0")


def _read_tf_config() -> tuple[list[str], str]:
  """(addresses of all workers, the own one) of the environment."""
  text = os.environ.get(_TF_CONFIG)
  require(
      bool(text),
      "--distribution_strategy=multi_worker_mirrored: the environment "
      f"variable {_TF_CONFIG} is not set; it must be {_TF_CONFIG_FORM}.")
  try:
    config = json.loads(text)
    cluster, task = config["cluster"], config["task"]
    own = cluster[task["type"]][task["index"]]
    addresses = [*cluster.get("chief", []), *cluster.get("worker", [])]
  except (ValueError, KeyError, TypeError, IndexError) as error:
    raise InputError(
        f"{_TF_CONFIG}: received {text!r} ({type(error).__name__}: {error}); "
        f"it must be {_TF_CONFIG_FORM}.") from None
  return addresses, own


def _is_listening(address: str) -> bool:
  host, _, port = address.rpartition(":")
  try:
    with socket.create_connection((host, int(port)), timeout=2):
      return True
  except (OSError, ValueError):
    return False


def _wait_for_workers(addresses: list[str], own: str, seconds: int) -> None:
  """Returns when each worker has been here; before TensorFlow waits for them.

  TensorFlow would wait for an hour, in code that no exception reaches. Each
  worker listens at its address until it has seen all others, then leaves the
  address to TensorFlow, which answers there for those who come later.

  Raises:
    InputError: the own address is taken, or somebody has not come in time.
  """
  missing = set(addresses) - {own}
  end = time.monotonic() + seconds
  try:
    listener = socket.create_server(
        ("", int(own.rpartition(":")[2])), reuse_port=False)
  except (OSError, ValueError) as error:
    raise InputError(
        f"{_TF_CONFIG}: cannot listen at {own}: {error}. Each worker needs a "
        "free port of its own.") from None
  with listener:
    while missing:
      missing = {each for each in missing if not _is_listening(each)}
      require(
          not missing or time.monotonic() < end,
          f"After {seconds} seconds not all {len(addresses)} workers have "
          f"joined: nothing answers at {', '.join(sorted(missing))}. Start "
          f"all of them within --worker_timeout, and see that {_TF_CONFIG} "
          "names the same addresses in each.")
      time.sleep(0.1)


def _multi_worker(worker_timeout: int) -> tf.distribute.Strategy:
  addresses, own = _read_tf_config()
  logging.info(
      "Worker %s waits for %d others, for %d seconds at most.", own,
      len(addresses) - 1, worker_timeout)
  _wait_for_workers(addresses, own, worker_timeout)
  strategy = tf.distribute.MultiWorkerMirroredStrategy()
  barrier(strategy)
  return strategy


def _tpu(name: str | None) -> tf.distribute.Strategy:
  try:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(
        name or "local")
  # OSError: no host to ask for a TPU of that name.
  except (ValueError, OSError, tf.errors.OpError) as error:
    raise InputError(
        f"--tpu_name: received {name!r}; no TPU there: {error}. It is the "
        "name or the grpc:// address of a TPU, or nothing on a TPU VM.",
    ) from None
  return tf.distribute.TPUStrategy(resolver)


def make_strategy(
    name: str = "one_device", *, tpu_name: str | None = None,
    worker_timeout: int = 600
) -> tf.distribute.Strategy:
  """The strategy of a name; must come before anything else of TensorFlow.

  Args:
    name: "one_device": the first GPU where there is one, else the CPU.
      "mirrored": all GPUs of this machine, or else its logical CPUs.
      "multi_worker_mirrored": the workers of the environment's TF_CONFIG.
      "tpu": a TPU.
    tpu_name: of the TPU; None: that of this machine.
    worker_timeout: seconds to wait for the other workers.

  Raises:
    InputError: TF_CONFIG is missing or wrong, or there is no such TPU.
  """
  makers = {
    "one_device": _one_device,
    "mirrored": tf.distribute.MirroredStrategy,
    "multi_worker_mirrored": lambda: _multi_worker(worker_timeout),
    "tpu": lambda: _tpu(tpu_name),
  }
  require(
      name in makers,
      f"--distribution_strategy: received {name!r}; must be one of "
      f"{', '.join(makers)}.")
  strategy = makers[name]()
  logging.info(
      "%d replicas, %d workers.", strategy.num_replicas_in_sync,
      num_workers(strategy))
  return strategy


def num_workers(strategy: tf.distribute.Strategy) -> int:
  """How many processes take part, each with this very program."""
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return 1
  spec = strategy.cluster_resolver.cluster_spec().as_dict()
  return len(spec.get("chief", [])) + len(spec.get("worker", []))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
  """Whether this process writes the files; one of all does."""
  if num_workers(strategy) == 1:
    return True
  resolver = strategy.cluster_resolver
  has_chief = bool(resolver.cluster_spec().as_dict().get("chief"))
  first = "chief" if has_chief else "worker"
  return resolver.task_type == first and resolver.task_id == 0


def check_batch_size(
    batch_size: int, *, num_replicas: int, micro_batches: int
) -> None:
  """Raises `InputError` unless the rows can be dealt out evenly."""
  require(
      batch_size % (num_replicas * micro_batches) == 0,
      f"--train_batch_size: received {batch_size}; {num_replicas} replicas, "
      f"each with --gradient_accumulation_steps={micro_batches}, need a "
      f"multiple of {num_replicas * micro_batches}.")


def distribute(
    strategy: tf.distribute.Strategy,
    make_batches: Callable[[Replicas], tf.data.Dataset]
) -> tf.distribute.DistributedDataset:
  """The batches of all replicas of this process.

  Each process makes its own dataset, of the rows of its own replicas: which
  rows these are does not depend on how the work is spread, and nothing is
  left to automatic sharding.
  """

  def of_process(context):
    count = strategy.num_replicas_in_sync // context.num_input_pipelines
    return make_batches(Replicas(
        first=context.input_pipeline_id * count, count=count,
        total=strategy.num_replicas_in_sync))

  return strategy.distribute_datasets_from_function(of_process)


def sum_over_replicas(values):
  """Sums a structure of tensors over all replicas; called inside of one."""
  context = tf.distribute.get_replica_context()
  if context.num_replicas_in_sync == 1:
    return values
  return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def replica_number():
  """This replica's number among all, int32: told apart for dropout."""
  context = tf.distribute.get_replica_context()
  return tf.convert_to_tensor(context.replica_id_in_sync_group, tf.int32)


def barrier(strategy: tf.distribute.Strategy) -> None:
  """Waits until all workers are here; at once where there is only one."""
  if num_workers(strategy) > 1:
    tf.function(strategy.run)(lambda: sum_over_replicas(tf.constant(1.0)))
