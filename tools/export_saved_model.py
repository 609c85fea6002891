"""Exports a model directory as a SavedModel that takes strings.

  python tools/export_saved_model.py --model_dir=runs/spam --export_dir=export

Writes export/1 (the next number, if there are versions already), which
TensorFlow Serving loads. A pretrained model gets the signatures `embedding`
and `fill_mask` and can be fine-tuned from; a classifier answers with labels
and probabilities, to Serving's Classify too. Every model also takes pieces
that are made elsewhere. The README says what each signature is.
"""

from bert_tf import command_line
from bert_tf.arguments import ExportConfig


def main(config: ExportConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import export
  from bert_tf.tasks import TASKS
  export.run(config, TASKS)


if __name__ == "__main__":
  command_line.run(ExportConfig, main, __doc__)
