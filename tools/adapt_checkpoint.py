"""Makes a model to train further: averaged, smaller, longer, with new words.

  python tools/adapt_checkpoint.py --input_dir=bert-base-uncased \\
      --output_dir=adapted --new_pieces_file=new_pieces.txt

Takes what --init_checkpoint takes and writes a model directory. In this
order: several --input_dir are averaged, --layers keeps some of the layers,
--max_position_embeddings makes the table of positions longer or shorter,
--new_pieces_file appends entries to the vocabulary. All else stays equal to
the bit; an optimizer's slots are left out.
"""

from bert_tf import command_line
from bert_tf.checkpoint_arguments import AdaptationConfig


def main(config: AdaptationConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import adaptation
  adaptation.run(config)


if __name__ == "__main__":
  command_line.run(AdaptationConfig, main, __doc__)
