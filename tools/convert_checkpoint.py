"""Converts a checkpoint to another form, equal to the bit in float32.

  python tools/convert_checkpoint.py --input_dir=bert-base-uncased \\
      --output_dir=converted --to=google

Takes what --init_checkpoint takes. --to=google writes a model directory with
a TensorFlow 1 checkpoint under the original's names, --to=huggingface what
Transformers reads (needs safetensors), --to=keras a file for
`keras.saving.load_model`. An optimizer's slots are left out; what is left out
is said.
"""

from bert_tf import command_line
from bert_tf.checkpoint_arguments import ConversionConfig


def main(config: ConversionConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import conversion
  conversion.run(config)


if __name__ == "__main__":
  command_line.run(ConversionConfig, main, __doc__)
