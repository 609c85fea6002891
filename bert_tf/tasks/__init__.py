"""The tasks: one record each (`finetuning.Task`), by `--task_name`."""

from bert_tf.tasks import classification
from bert_tf.tasks import glue
from bert_tf.tasks import multiple_choice
from bert_tf.tasks import spans
from bert_tf.tasks import tagging
from bert_tf.tasks import xnli

TASKS = {
  "classification": classification.TASK,
  "multilabel": classification.MULTILABEL,
  "regression": classification.REGRESSION,
  **glue.TASKS,
  **xnli.TASKS,
  **multiple_choice.TASKS,
  **tagging.TASKS,
  "spans": spans.TASK,
  "squad": spans.TASK,
}
