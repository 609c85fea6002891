"""Tasks as Hugging Face's `config.json` says them."""

import pytest

from bert_tf.config import InputError
from bert_tf.task_descriptions import huggingface_task
from bert_tf.task_descriptions import to_huggingface_task

TWO = {"output_weights": (2, 8)}
SPANS = {"cls/squad/output_weights": (2, 8)}
CLASSIFIER = "BertForSequenceClassification"


@pytest.mark.parametrize("values, shapes, expected", [
  ({"architectures": [CLASSIFIER]}, TWO,
   {"task_name": "classification", "labels": ["LABEL_0", "LABEL_1"]}),
  ({"architectures": [f"TF{CLASSIFIER}"], "id2label": {"1": "b", "0": "a"}},
   TWO, {"task_name": "classification", "labels": ["a", "b"]}),
  ({"architectures": [CLASSIFIER],
    "problem_type": "multi_label_classification"}, TWO,
   {"task_name": "multilabel", "labels": ["LABEL_0", "LABEL_1"]}),
  ({"architectures": [CLASSIFIER], "problem_type": "regression"},
   {"output_weights": (1, 8)}, {"task_name": "regression"}),
  # One output is a number, which is how Transformers takes it.
  ({"architectures": [CLASSIFIER]},
   {"output_weights": (1, 8)}, {"task_name": "regression"}),
  ({"architectures": ["BertForTokenClassification"],
    "id2label": {"0": "O", "1": "B-PER"}}, TWO,
   {"task_name": "tagging", "labels": ["O", "B-PER"]}),
  ({"architectures": ["BertForQuestionAnswering"]}, SPANS,
   {"task_name": "spans"}),
  ({"architectures": ["BertForMultipleChoice"]}, {"output_weights": (1, 8)},
   {"task_name": "multiple_choice"}),
  # Without a head, without a class, of another class.
  ({"architectures": [CLASSIFIER]}, SPANS, None),
  ({}, TWO, None),
  ({"architectures": None}, TWO, None),
  ({"architectures": ["BertForPreTraining"]}, TWO, None),
])
def test_the_task_of_a_config(values, shapes, expected):
  task = huggingface_task({**values, "max_position_embeddings": 64}, shapes)
  assert task == (expected and {**expected, "max_seq_length": 64})


@pytest.mark.parametrize("labels, message", [
  ({"0": "a"}, "must name each of the 2 outputs"),
  ({"0": "a", "2": "b"}, "must name each of the 2 outputs"),
  ({"0": "a", "1": 7}, "must name each of the 2 outputs"),
  (["a", "b"], "must name each of the 2 outputs"),
  ({"0": "a", "1": "a"}, "two numbers have one label"),
])
def test_labels_that_do_not_fit_the_classifier_are_refused(labels, message):
  with pytest.raises(InputError, match=message):
    huggingface_task({"architectures": [CLASSIFIER], "id2label": labels}, TWO)


def test_a_task_goes_there_and_comes_back():
  for name, labels, shape in (
      ("classification", ["x", "y"], (2, 8)),
      ("multilabel", ["x", "y"], (2, 8)),
      ("regression", None, (1, 8)), ("tagging", ["O", "I"], (2, 8)),
      ("multiple_choice", None, (1, 8))):
    task = {"task_name": name, "max_seq_length": 512}
    if labels:
      task["labels"] = labels
    values = to_huggingface_task(task)
    assert huggingface_task(values, {"output_weights": shape}) == task


def test_a_task_that_transformers_does_not_have_keeps_its_labels():
  assert to_huggingface_task({"task_name": "mine", "labels": ["x", "y"]}) == {
    "id2label": {"0": "x", "1": "y"}, "label2id": {"x": 0, "y": 1}}
