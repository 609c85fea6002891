"""What a fine-tuned model is for: `task.json` and Hugging Face's way to say it.

Standard library only.
"""

from typing import Any

from bert_tf.config import require

# How Transformers says a task: the class of the model and, where one class
# does several tasks, the problem_type.
_CLASSES = {
  "classification": (
      "BertForSequenceClassification", "single_label_classification"),
  "multilabel": (
      "BertForSequenceClassification", "multi_label_classification"),
  "regression": ("BertForSequenceClassification", "regression"),
  "tagging": ("BertForTokenClassification", None),
  "spans": ("BertForQuestionAnswering", None),
  "multiple_choice": ("BertForMultipleChoice", None),
}
# Those whose outputs have names.
_WITH_LABELS = ("classification", "multilabel", "tagging")
# Longer texts than those of the paper are for those who ask for them.
_LONGEST = 512


def kind_of(task: dict[str, Any]) -> str:
  """Which of the general tasks a `task.json` is about.

  >>> kind_of({"task_name": "mrpc", "kind": "classification"})
  'classification'
  """
  return task.get("kind", task["task_name"])


def _task_name(values: dict[str, Any], num_outputs: int) -> str | None:
  """The task that a `config.json` says, or None."""
  names = values.get("architectures") or [""]
  architecture = str(names[0]).removeprefix("TF")
  problem_type = values.get("problem_type")
  if problem_type is None and num_outputs == 1:
    problem_type = "regression"  # As Transformers takes it.
  fitting = [
    task for task, (known, problem) in _CLASSES.items()
    if architecture == known
    and (problem_type is None or problem in (None, problem_type))]
  return fitting[0] if fitting else None


def _labels(values: dict[str, Any], num_labels: int) -> list[str]:
  """The labels by number, where none are given as Transformers names them."""
  names = values.get("id2label")
  if names is None:
    return [f"LABEL_{i}" for i in range(num_labels)]
  expected = [str(i) for i in range(num_labels)]
  require(
      isinstance(names, dict) and sorted(names, key=str) == sorted(expected)
      and all(isinstance(label, str) for label in names.values()),
      f"id2label: received {names!r}; must name each of the {num_labels} "
      f"outputs of the classifier, by its number from \"0\".")
  require(
      len(set(names.values())) == num_labels,
      f"id2label: received {names!r}; two numbers have one label.")
  return [names[i] for i in expected]


def huggingface_task(
    values: dict[str, Any], shapes: dict[str, tuple[int, ...]]
) -> dict[str, Any] | None:
  """The content of a `task.json`, from a Hugging Face `config.json`.

  Args:
    values: of the `config.json`.
    shapes: of the variables, by the original's names.

  Returns:
    None of a model that was not fine-tuned, or for a task unknown here.

  Raises:
    InputError: the labels do not fit the classifier.

  >>> huggingface_task(
  ...     {"architectures": ["BertForTokenClassification"],
  ...      "id2label": {"0": "O", "1": "B"}, "max_position_embeddings": 512},
  ...     {"output_weights": (2, 768)})
  {'task_name': 'tagging', 'max_seq_length': 512, 'labels': ['O', 'B']}
  """
  num_outputs = shapes.get("output_weights", (0,))[0]
  name = _task_name(values, num_outputs)
  head = "cls/squad/output_weights" if name == "spans" else "output_weights"
  if name is None or head not in shapes:
    return None
  task = {
    "task_name": name,
    "max_seq_length": min(
        values.get("max_position_embeddings", _LONGEST), _LONGEST)}
  if name in _WITH_LABELS:
    task["labels"] = _labels(values, num_outputs)
  return task


def to_huggingface_task(task: dict[str, Any]) -> dict[str, Any]:
  """The keys of a `config.json` that say a task, where Transformers has it.

  >>> to_huggingface_task({"task_name": "spans"})
  {'architectures': ['BertForQuestionAnswering']}
  """
  values, kind = {}, kind_of(task)
  if kind in _CLASSES:
    architecture, problem_type = _CLASSES[kind]
    values["architectures"] = [architecture]
    if problem_type:
      values["problem_type"] = problem_type
  labels = task.get("labels", ())
  if labels:
    values["id2label"] = {str(i): label for i, label in enumerate(labels)}
    values["label2id"] = {label: i for i, label in enumerate(labels)}
  elif kind == "regression":
    # Or else Transformers would expect two outputs.
    values["id2label"], values["label2id"] = {"0": "LABEL_0"}, {"LABEL_0": 0}
  return values
