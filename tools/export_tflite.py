"""Writes a model as a TFLite file, over ids of fixed shapes.

  python tools/export_tflite.py --model_dir=runs/spam \\
    --output_file=mobile/spam.tflite --max_seq_length=64

Its signature takes input_ids, input_mask and segment_ids, int32 [B, S], and
gives what the signature pre_tokenized of a SavedModel gives, but for strings.
The vocabulary lies beside it, and the labels by number.
"""

from bert_tf import command_line
from bert_tf.arguments import TFLiteConfig


def main(config: TFLiteConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import tflite
  from bert_tf.tasks import TASKS
  tflite.run(config, TASKS)


if __name__ == "__main__":
  command_line.run(TFLiteConfig, main, __doc__)
