"""A pretraining step of this library; see step_timing.

What `run_pretraining.py` runs with --mixed_precision, and with --jit_compile or
--rematerialize in the variants of those names. Unlike the others' it counts
the right answers of both tasks, tells the norm of the gradients and looks
whether they are finite.
"""

import os
import sys

import step_timing

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__))))))
import keras
import tensorflow as tf

import bert_tf
from bert_tf import distribution
from bert_tf import losses
from bert_tf import optimization
from bert_tf import train_step
from bert_tf.config import BertConfig
from bert_tf.heads import BertForPreTraining


def make_step(request, batch):
  sizes, settings = dict(request["model"]), request["optimizer"]
  dropout = sizes.pop("dropout")
  strategy = distribution.make_strategy("one_device")
  with strategy.scope():
    model = BertForPreTraining(BertConfig(
        **sizes, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout))
    model.encoder.rematerialize = request["variant"] == "rematerialize"
    # Its other settings are those of the request.
    optimizer = optimization.make_optimizer(
        "adamw", optimization.WarmupDecay(**settings["schedule"]))
    optimizer.build(model.trainable_variables)
    state = train_step.StepState()
  batch = {name: tf.constant(array) for name, array in batch.items()}
  step = train_step.make_train_step(
      model, optimizer, losses.PRETRAINING, strategy=strategy, seed=1,
      batch_spec=tf.nest.map_structure(tf.TensorSpec.from_tensor, batch),
      state=state, jit_compile=request["variant"] == "jit_compile")

  def run():
    number = tf.constant(int(optimizer.iterations), tf.int64)
    sums, _ = step.one(batch, number, tf.constant(False))
    return losses.PRETRAINING.metrics(sums)["loss"]

  return run, model.count_params()


if __name__ == "__main__":
  step_timing.main(
      make_step,
      set_bfloat16=lambda: keras.config.set_dtype_policy("mixed_bfloat16"),
      version=f"bert_tf {bert_tf.__version__}, TensorFlow {tf.__version__}")
