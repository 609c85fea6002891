"""Exports a model directory as a SavedModel that takes strings.

  python tools/export_saved_model.py --model_dir=runs/spam --export_dir=export

Writes export/1 (the next number, if there are versions already), which
TensorFlow Serving loads. A pretrained model gets the signatures `embedding`
and `fill_mask` and can be fine-tuned from; a classifier answers with labels
and probabilities, to Serving's Classify too. Every model also takes pieces
that are made elsewhere. The README says what each signature is.

  --precision=int8 --eval_flags='--data_dir=spam'

makes it smaller, and prints what that does to its size, its answers to the
dev rows and its time.

  --precision=bfloat16 --freeze_graph

answers in the shortest time on processors that multiply bfloat16.
"""

from bert_tf import command_line
from bert_tf.arguments import ExportConfig
from bert_tf.finetuning_arguments import FinetuningConfig


def main(config: ExportConfig) -> None:
  evaluation = None
  if config.eval_flags is not None:
    # Required for fine-tuning; nothing is written there.
    evaluation = command_line.config_from_text(
        FinetuningConfig, config.eval_flags, flag="eval_flags",
        output_dir=config.model_dir, do_eval=True)
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import export
  from bert_tf.tasks import TASKS
  export.run(config, TASKS, evaluation=evaluation)


if __name__ == "__main__":
  command_line.run(ExportConfig, main, __doc__)
