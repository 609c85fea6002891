"""The tasks: one record each (`finetuning.Task`), by `--task_name`."""

from bert_tf.tasks import classification

TASKS = {
  "classification": classification.TASK,
}
