"""Fine-tunes BERT on a task (Devlin et al. 2019, section 4).

  python run_finetuning.py --task_name=classification --data_dir=spam \\
    --init_checkpoint=runs/base --output_dir=runs/spam \\
    --do_train --do_eval --do_predict

The data folder holds train.tsv, dev.tsv and test.tsv with the columns label
and text. The model directory that comes out goes into
tools/export_saved_model.py.

Command lines of the original's run_squad.py work as they are.
"""

import dataclasses

from bert_tf import command_line
from bert_tf.config import require
from bert_tf.finetuning_arguments import FinetuningConfig


def find_task_name(config: FinetuningConfig) -> str:
  """`--task_name`, or squad where the flags are those of run_squad.py."""
  if config.task_name is not None:
    return config.task_name.lower()  # The original's README has MRPC.
  given = [config.train_file or "", config.predict_file or ""]
  require(
      config.version_2_with_negative
      or any(name.lower().endswith(".json") for name in given),
      "--task_name: not given. It is squad without being given if "
      "--train_file or --predict_file is .json or with "
      "--version_2_with_negative; for all other tasks give it.")
  return "squad"


def main(config: FinetuningConfig) -> None:
  name = find_task_name(config)
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import search
  from bert_tf.tasks import TASKS
  require(
      name in TASKS,
      f"--task_name: received {name!r}; must be one of {', '.join(TASKS)}.")
  search.run(dataclasses.replace(config, task_name=name), TASKS[name])


if __name__ == "__main__":
  command_line.run(FinetuningConfig, main, __doc__)
