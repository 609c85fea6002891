"""The matrix products of a pretraining step and nothing else; see step_timing.

In the library's own environment: what the machine and TensorFlow leave to
gain. Forward, and backward to both operands.
"""

import math

import step_timing

import tensorflow as tf


def shapes(sizes, batch):
  """[(batch dimensions, rows, inner, columns)] of the forward products.

  Those that a step cannot do without: of the last layer only what the heads
  read, masked pieces and [CLS], though their keys and values are of all.
  """
  size, length = batch["input_ids"].shape
  masked = batch["masked_lm_ids"].size
  hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
  wide, tokens = sizes["intermediate_size"], size * length
  each, head = [size, heads], hidden // heads

  def layer(read):  # of each row
    rows = size * read
    return [([], tokens, hidden, hidden)] * 2 + [
      ([], rows, hidden, hidden)] * 2 + [
        (each, read, head, length), (each, read, length, head),
        ([], rows, hidden, wide), ([], rows, wide, hidden)]

  return layer(length) * (sizes["num_hidden_layers"] - 1) + layer(
      1 + masked // size) + [
        ([], masked, hidden, hidden),
        ([], masked, hidden, sizes["vocab_size"])]


def make_step(found, dtype):
  operands = [
    tuple(tf.cast(tf.random.normal([*batch, *shape]), dtype)
          for shape in ((rows, inner), (inner, columns), (rows, columns)))
    for batch, rows, inner, columns in found]

  @tf.function(autograph=False)
  def step(operands):
    last = []
    for x, w, gradient in operands:
      last += [tf.matmul(x, w), tf.matmul(gradient, w, transpose_b=True),
               tf.matmul(x, gradient, transpose_a=True)]
    # A little of each, so that none is left out.
    return tf.add_n([
      tf.cast(tf.reshape(y, [-1])[-1], tf.float32) for y in last])

  return lambda: step(operands)


def main():
  request, batch = step_timing.read_request()
  found = shapes(request["model"], batch)
  step = make_step(found, tf.as_dtype(request["precision"]))
  flops = sum(3 * 2 * math.prod(dimensions) * rows * inner * columns
              for dimensions, rows, inner, columns in found)
  step_timing.run(
      request, step, flops=flops, version=f"TensorFlow {tf.__version__}")


if __name__ == "__main__":
  main()
