"""Writes the vectors that an encoder has for each text of a file.

  python tools/extract_features.py --input_file=texts.txt \\
      --output_file=features.jsonl --init_checkpoint=bert-base-uncased

A text a line, or a pair as `a ||| b`; the order stays. A vector for each piece
of the last four layers, as the original's program of this name; --pooling=mean
gives one for each text instead, --layers others. JSON Lines, or numpy's arrays
for --output_file=features.npz, or TFRecords for features.tfrecord.
"""

from bert_tf import command_line
from bert_tf.feature_arguments import FeatureConfig


def main(config: FeatureConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import features
  features.run(config)


if __name__ == "__main__":
  command_line.run(FeatureConfig, main, __doc__)
