"""Pretrains BERT on records of masked sentence pairs.

Masked language model and next-sentence prediction, as in Devlin et al.
2019, section 3.1, on the TFRecord files that
tools/create_pretraining_data.py writes. A stopped run goes on when the same
command is given again.

  python run_pretraining.py --input_file=train.tfrecord --do_train \\
    --eval_input_file=heldout.tfrecord --do_eval --vocab_file=vocab.txt \\
    --bert_config_file=configs/models/uncased_L-12_H-768_A-12.json \\
    --output_dir=runs/base
"""

from bert_tf import command_line
from bert_tf.arguments import PretrainingConfig


def main(config: PretrainingConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import pretraining
  pretraining.run(config)


if __name__ == "__main__":
  command_line.run(PretrainingConfig, main, __doc__)
