"""Blocks computed again in the backward pass: the same result, less memory."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.heads import BertForPreTraining
from bert_tf.losses import PRETRAINING

CONFIG = BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=16, initializer_range=0.3,
    hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3)


def make_batch(*, size=3, length=11, seed=0):
  rng = np.random.default_rng(seed)
  mask = np.ones((size, length), np.int32)
  mask[-1, 6:] = 0
  return {
    "input_ids": tf.constant(rng.integers(0, 40, (size, length)), tf.int32),
    "input_mask": tf.constant(mask),
    "masked_lm_positions": tf.constant([[1, 3]] * size),
    "masked_lm_ids": tf.constant(rng.integers(0, 40, (size, 2)), tf.int32),
    "masked_lm_weights": tf.ones((size, 2)),
    "next_sentence_labels": tf.zeros((size,), tf.int32),
  }


def make_model(dtype="float32"):
  keras.utils.set_random_seed(3)
  return BertForPreTraining(CONFIG, dtype=dtype)


def loss_and_gradients(model, batch, seed):
  with tf.GradientTape() as tape:
    outputs = model(batch, training=True, dropout_seed=seed)
    sums = PRETRAINING.sums(outputs, batch)
    loss = PRETRAINING.loss(sums, sums)
  gradients = tape.gradient(
      loss, [v.value for v in model.trainable_variables])
  return loss, [None if g is None else tf.convert_to_tensor(g)
                for g in gradients]


COMPILED = {
  "eager": lambda function: function,
  "function": tf.function,
  "jit": lambda function: tf.function(function, jit_compile=True),
}


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("how", [
  "eager", "function", pytest.param("jit", marks=pytest.mark.slow)])
def test_losses_and_all_gradients_are_the_same_with_dropout(how, dtype):
  model, batch = make_model(dtype), make_batch()
  seed, other = tf.constant([5, 6]), tf.constant([5, 7])
  results = {}
  for again in (False, True):
    model.encoder.rematerialize = again
    step = COMPILED[how](
        lambda batch, seed: loss_and_gradients(model, batch, seed))
    results[again] = step(batch, seed)
    assert abs(step(batch, other)[0] - results[again][0]) > 1e-3  # dropped
  (loss, gradients), (loss_again, gradients_again) = (
      results[False], results[True])
  np.testing.assert_allclose(loss_again, loss, rtol=1e-5)
  largest = max(np.abs(g).max() for g in gradients)
  for variable, one, two in zip(
      model.trainable_variables, gradients, gradients_again):
    assert two is not None, variable.path
    # A key's bias has no gradient but for rounding, so the scale is of all.
    np.testing.assert_allclose(
        two, one, rtol=1e-5, atol=1e-6 * largest, err_msg=variable.path)


def test_without_training_nothing_is_computed_again():
  model, batch = make_model(), make_batch()
  kept = model(batch)["mlm_logits"]
  model.encoder.rematerialize = True
  np.testing.assert_array_equal(model(batch)["mlm_logits"], kept)


# In a process of its own: TensorFlow takes the number of its devices once.
IN_TWO_REPLICAS = """
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from bert_tf import distribution
from bert_tf.train_step import dropout_seed
from tests.test_rematerialization import *

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
  model = make_model()
batch = make_batch()

def replica(batch):
  seed = dropout_seed(1, 0, distribution.replica_number(), 0)
  return loss_and_gradients(model, batch, seed)

results = []
for again in (False, True):
  model.encoder.rematerialize = again
  step = tf.function(lambda: strategy.run(replica, args=(batch,)))
  loss, gradients = step()
  results.append((loss.values, [g.values for g in gradients]))
(losses, gradients), (losses_again, gradients_again) = results
# The same rows, but another mask in each replica.
assert abs(losses[0] - losses[1]) > 1e-3, losses
np.testing.assert_allclose(losses_again, losses, rtol=1e-5)
for one, two in zip(gradients, gradients_again):
  np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
print("done", len(gradients))
"""


def test_two_replicas_draw_apart_and_recompute_what_they_drew():
  result = subprocess.run(
      [sys.executable, "-c", IN_TWO_REPLICAS], capture_output=True, text=True)
  count = len(make_model().trainable_variables)
  assert result.stdout == f"done {count}\n", result.stderr


# Prints by how many MiB one step raises the process's highest memory.
MEMORY_OF_A_STEP = """
import resource, sys
import numpy as np
import tensorflow as tf
from bert_tf.config import BertConfig
from bert_tf.modeling import BertEncoder

def highest():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

encoder = BertEncoder(BertConfig(
    vocab_size=100, hidden_size=128, num_hidden_layers=8,
    num_attention_heads=4, intermediate_size=512),
    rematerialize=sys.argv[1] == "again")

def step(ids):
  with tf.GradientTape() as tape:
    outputs = encoder(
        {"input_ids": ids}, training=True, dropout_seed=tf.constant([1, 2]))
    loss = tf.reduce_mean(outputs["sequence_output"] ** 2)
  return tape.gradient(loss, [v.value for v in encoder.encoder_layers[
      0].trainable_variables])

step = tf.function(step, jit_compile=sys.argv[2] == "jit" or None)
step(tf.zeros((1, 4), tf.int32))
before = highest()
step(tf.zeros((8, 384), tf.int32))
print(highest() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["function", "jit"])
def test_a_step_needs_less_memory(how):
  # What 8 blocks keep of 3,072 pieces is about 700 MiB; of one, a tenth.
  mebibytes = {}
  for blocks in ("kept", "again"):
    result = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_A_STEP, blocks, how],
        capture_output=True, text=True, check=True)
    mebibytes[blocks] = float(result.stdout)
  assert mebibytes["again"] < 0.5 * mebibytes["kept"], mebibytes
