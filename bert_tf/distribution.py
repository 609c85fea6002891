"""Where a step runs: the strategy, and sums over its replicas."""

import tensorflow as tf


def make_strategy() -> tf.distribute.Strategy:
  """One device: the first GPU where there is one, else the CPU."""
  has_gpu = bool(tf.config.list_physical_devices("GPU"))
  return tf.distribute.OneDeviceStrategy("/gpu:0" if has_gpu else "/cpu:0")


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
