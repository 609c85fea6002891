"""A pretraining step of KerasHub, in its own environment; see step_timing.

Its `BertBackbone` and `MaskedLMHead`, which gathers the masked positions. It
has no next-sentence head: a Dense layer on its pooled output stands in.

The step is a `tf.function` around a tape, Keras's custom training loop: tried
beside `fit`, with XLA and without, it was as fast.
"""

import step_timing

import keras
import keras_hub
import tensorflow as tf


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
  """Warm-up, then linear decay."""

  def __init__(self, *, learning_rate, num_train_steps, num_warmup_steps):
    self.rate = learning_rate
    self.last = num_train_steps
    self.warm_up = num_warmup_steps

  def __call__(self, step):
    step = tf.cast(step, tf.float32)
    return self.rate * tf.where(
        step < self.warm_up, step / self.warm_up, 1.0 - step / self.last)


def make_model(sizes):
  backbone = keras_hub.models.BertBackbone(
      vocabulary_size=sizes["vocab_size"],
      num_layers=sizes["num_hidden_layers"],
      num_heads=sizes["num_attention_heads"],
      hidden_dim=sizes["hidden_size"],
      intermediate_dim=sizes["intermediate_size"],
      dropout=sizes["dropout"],
      max_sequence_length=sizes["max_position_embeddings"])
  positions = keras.Input((None,), dtype="int32", name="mask_positions")
  outputs = backbone(backbone.input)
  head = keras_hub.layers.MaskedLMHead(
      token_embedding=backbone.token_embedding,
      intermediate_activation=lambda x: keras.activations.gelu(
          x, approximate=True),
      layer_norm_epsilon=1e-12)
  return keras.Model(
      {**backbone.input, "mask_positions": positions},
      {"mlm": head(outputs["sequence_output"], mask_positions=positions),
       "nsp": keras.layers.Dense(2, name="nsp")(outputs["pooled_output"])})


def make_optimizer(settings):
  optimizer = keras.optimizers.AdamW(
      Schedule(**settings["schedule"]), epsilon=settings["epsilon"],
      weight_decay=settings["weight_decay"],
      global_clipnorm=settings["clip_norm"])
  optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
  return optimizer


def make_step(request, batch):
  model = make_model(request["model"])
  optimizer = make_optimizer(request["optimizer"])
  optimizer.build(model.trainable_variables)
  inputs = {
    "token_ids": batch["input_ids"], "segment_ids": batch["segment_ids"],
    "padding_mask": batch["input_mask"],
    "mask_positions": batch["masked_lm_positions"]}
  labels = {name: batch[name] for name in (
    "masked_lm_ids", "masked_lm_weights", "next_sentence_labels")}
  inputs, labels = tf.nest.map_structure(
      tf.convert_to_tensor, (inputs, labels))
  cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits

  @tf.function(jit_compile=request["variant"] == "jit_compile", autograph=False)
  def step(inputs, labels):
    with tf.GradientTape() as tape:
      outputs = model(inputs, training=True)
      weights = labels["masked_lm_weights"]
      mlm = cross_entropy(
          labels["masked_lm_ids"], tf.cast(outputs["mlm"], tf.float32))
      nsp = cross_entropy(
          labels["next_sentence_labels"], tf.cast(outputs["nsp"], tf.float32))
      loss = tf.reduce_sum(weights * mlm) / (
          tf.reduce_sum(weights) + 1e-5) + tf.reduce_mean(nsp)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    optimizer.apply(gradients, variables)
    return loss

  return lambda: step(inputs, labels), model.count_params()


if __name__ == "__main__":
  step_timing.main(
      make_step,
      set_bfloat16=lambda: keras.config.set_dtype_policy("mixed_bfloat16"),
      version=f"KerasHub {keras_hub.__version__}, TensorFlow {tf.__version__}")
