"""Fine-tunes BERT on a task (Devlin et al. 2019, section 4).

  python run_finetuning.py --task_name=classification --data_dir=spam \\
    --init_checkpoint=runs/base --output_dir=runs/spam \\
    --do_train --do_eval --do_predict

The data folder holds train.tsv, dev.tsv and test.tsv with the columns label
and text. The model directory that comes out goes into
tools/export_saved_model.py.
"""

from bert_tf import command_line
from bert_tf.arguments import FinetuningConfig
from bert_tf.config import require


def main(config: FinetuningConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import search
  from bert_tf.tasks import TASKS
  require(
      config.task_name in TASKS,
      f"--task_name: received {config.task_name!r}; must be one of "
      f"{', '.join(TASKS)}.")
  search.run(config, TASKS[config.task_name])


if __name__ == "__main__":
  command_line.run(FinetuningConfig, main, __doc__)
