"""Steps of fine-tuning with this library; see step_timing.

What `run_finetuning.py` runs: its tokenizer, its batches, its step. The
variant names a flag.
"""

import os
import sys

import step_timing

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__))))))
import numpy as np
import tensorflow as tf

import bert_tf
from bert_tf import checkpoints
from bert_tf import distribution
from bert_tf import examples
from bert_tf import losses
from bert_tf import optimization
from bert_tf import train_step
from bert_tf.heads import BertClassifier

# Whether the padding is removed, as `bert_tf.finetuning` decides.
VARIANTS = {
  "": True, "group_by_length": True, "jit_compile": False,
  "pad_to_max_length": False,
}
_DTYPES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def make_batches(request, rows, source) -> tf.data.Dataset:
  """Two passes over the rows, of the same batches."""
  settings = request["settings"]
  pair = rows["text_pair"].tolist() if "text_pair" in rows else None
  length = settings["max_seq_length"]
  encoded = examples.Examples(
      examples.tokenize(
          checkpoints.load_tokenizer(source), rows["text"].tolist(), pair,
          max_seq_length=length),
      {"label": rows["label"].astype(np.int32)})
  order = examples.training_order(
      encoded.lengths, batch_size=settings["batch_size"],
      num_steps=request["steps"], seed=request["seed"],
      group_by_length=request["variant"] == "group_by_length")
  return examples.training_batches(
      encoded, np.concatenate([order, order]), max_seq_length=length,
      pad_to_max_length=request["variant"] == "pad_to_max_length")


def make_step(request, rows):
  settings, source = request["settings"], request["init_checkpoint"]
  opened = checkpoints.open_source(source)
  strategy = distribution.make_strategy("one_device")
  with strategy.scope():
    model = BertClassifier(
        checkpoints.config_of(opened), num_classes=2,
        dtype=_DTYPES[request["precision"]])
    model.encoder.remove_padding = VARIANTS[request["variant"]]
    checkpoints.load_weights(
        model, opened, new=("output_", "bert/pooler/"))
    optimizer = optimization.make_optimizer(
        "adamw", optimization.WarmupDecay(**settings["schedule"]),
        bias_correction=True)
    optimizer.build(model.trainable_variables)
    state = train_step.StepState()
  batches = make_batches(request, rows, source)
  step = train_step.make_train_step(
      model, optimizer, losses.CLASSIFICATION, strategy=strategy,
      seed=request["seed"], batch_spec=batches.element_spec, state=state,
      jit_compile=request["variant"] == "jit_compile")
  iterator = iter(batches)

  def run():
    number = tf.constant(int(optimizer.iterations), tf.int64)
    sums, _ = step.one(next(iterator), number, tf.constant(False))
    return losses.CLASSIFICATION.metrics(sums)["loss"]

  return run, model.count_params()


if __name__ == "__main__":
  step_timing.main(
      make_step,
      version=f"bert_tf {bert_tf.__version__}, TensorFlow {tf.__version__}")
