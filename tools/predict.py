"""Asks an exported SavedModel, without a server.

  python tools/predict.py --export_dir=export/spam \\
      --input_file=messages.txt --output_file=answers.jsonl

An answer for each text, in their order, as a line of JSON. A signature with
several inputs (text and text_pair, question and context) takes a table with
columns of these names, .tsv or .csv, or JSON Lines (.jsonl). Without
--input_file it asks at the terminal:

  python tools/predict.py --export_dir=export/spam
"""

from bert_tf import command_line
from bert_tf.serving_arguments import PredictConfig


def main(config: PredictConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import prediction

  def load():
    from bert_tf.predictor import Predictor
    return Predictor(config.export_dir)

  prediction.run(config, load)


if __name__ == "__main__":
  command_line.run(PredictConfig, main, __doc__)
