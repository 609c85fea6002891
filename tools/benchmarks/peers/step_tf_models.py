"""A pretraining step of tf-models-official, in Keras 2; see step_timing.

`BertPretrainerV2` with its own next-sentence head, and `create_optimizer`,
which makes its own `AdamWeightDecay`: it clips by the global norm 1.0. The
step is that of its `MaskedLMTask` without the metrics.
"""

from importlib import metadata
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import step_timing

import tensorflow as tf
import tf_keras
from official.nlp import optimization
from official.nlp.modeling import layers
from official.nlp.modeling import models
from official.nlp.modeling import networks


def gelu(x):
  return tf_keras.activations.gelu(x, approximate=True)


def make_model(sizes):
  initializer = tf_keras.initializers.TruncatedNormal(stddev=0.02)
  encoder = networks.BertEncoderV2(
      vocab_size=sizes["vocab_size"], hidden_size=sizes["hidden_size"],
      num_layers=sizes["num_hidden_layers"],
      num_attention_heads=sizes["num_attention_heads"],
      inner_dim=sizes["intermediate_size"], inner_activation=gelu,
      max_sequence_length=sizes["max_position_embeddings"],
      output_dropout=sizes["dropout"], attention_dropout=sizes["dropout"],
      initializer=initializer)
  head = layers.ClassificationHead(
      inner_dim=sizes["hidden_size"], num_classes=2, name="next_sentence",
      dropout_rate=sizes["dropout"], initializer=initializer)
  return models.BertPretrainerV2(
      encoder, mlm_activation=gelu, mlm_initializer=initializer,
      classification_heads=[head])


def make_optimizer(settings):
  schedule = settings["schedule"]
  # Decay, epsilon, clipping are those of the request, as constants there.
  return optimization.create_optimizer(
      schedule["learning_rate"], schedule["num_train_steps"],
      schedule["num_warmup_steps"])


def make_step(request, batch):
  model = make_model(request["model"])
  optimizer = make_optimizer(request["optimizer"])
  batch = {name: tf.convert_to_tensor(array) for name, array in batch.items()}
  batch["input_word_ids"] = batch.pop("input_ids")
  batch["input_type_ids"] = batch.pop("segment_ids")
  model({name: batch[name] for name in (
    "input_word_ids", "input_mask", "input_type_ids", "masked_lm_positions")})
  cross_entropy = tf_keras.losses.sparse_categorical_crossentropy

  @tf.function(
      jit_compile=request["variant"] == "jit_compile", autograph=False)
  def step(batch):
    with tf.GradientTape() as tape:
      outputs = model(batch, training=True)
      mlm = cross_entropy(
          batch["masked_lm_ids"], tf.cast(outputs["mlm_logits"], tf.float32),
          from_logits=True)
      nsp = cross_entropy(
          batch["next_sentence_labels"],
          tf.cast(outputs["next_sentence"], tf.float32), from_logits=True)
      weights = batch["masked_lm_weights"]
      loss = tf.reduce_sum(weights * mlm) / (
          tf.reduce_sum(weights) + 1e-5) + tf.reduce_mean(nsp)
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    return loss

  return lambda: step(batch), model.count_params()


if __name__ == "__main__":
  step_timing.main(
      make_step,
      set_bfloat16=lambda: tf_keras.mixed_precision.set_global_policy(
          "mixed_bfloat16"),
      version="tf-models-official " + metadata.version("tf-models-official")
              + f", TensorFlow {tf.__version__}")
