"""A small model of each kind, exported, and requests for its signatures."""

import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import export
from bert_tf.arguments import ExportConfig
from bert_tf.config import BertConfig
from bert_tf.heads import BertForPreTraining
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from bert_tf.vocabulary_files import SPECIAL_TOKENS

ENTRIES = [
  *SPECIAL_TOKENS, "the", "cat", "sat", "on", "a", "mat", "dog", "##s",
  "##ging", "un", "##able", "cafe", ".", ",", "!", "?", "[", "]", "mask",
  "where", "is", "\u7684"]
LENGTH = 24
CONFIG = {
  "vocab_size": len(ENTRIES), "hidden_size": 16, "num_hidden_layers": 2,
  "num_attention_heads": 2, "intermediate_size": 32,
  "max_position_embeddings": LENGTH}
LABELS = ["no", "perhaps", "yes, caf\u00e9"]

# What stands in task.json, and what of the config is another.
KINDS = {
  "pretrained": (None, {}),
  "pretrained from left to right": (None, {"attention": "left_to_right"}),
  "classification": (
      {"task_name": "classification", "labels": LABELS},
      {"hidden_act": "gelu_exact"}),
  "pair": (
      {"task_name": "classification", "labels": LABELS, "is_pair": True}, {}),
  "bilstm": (
      {"task_name": "classification", "labels": LABELS, "head": "bilstm"}, {}),
  "multilabel": ({"task_name": "multilabel", "labels": LABELS}, {}),
  "regression": ({"task_name": "regression"}, {}),
  "tagging": (
      {"task_name": "tagging", "labels": ["O", "B-X", "I-X", "B-Y", "I-Y"]},
      {}),
  "tagging without entities": (
      {"task_name": "tagging", "labels": ["ADJ", "NOUN"]}, {}),
  "spans": (
      {"task_name": "spans", "doc_stride": 4, "max_query_length": 6,
       "max_answer_length": 5}, {}),
  "multiple choice": ({"task_name": "multiple_choice"}, {}),
}

# Bytes that are not UTF-8 stand as lone surrogates.
TEXTS = [
  "The cat sat on a mat.", "", "un unable, dogging dogs!",
  "Caf\u00e9 \U0001f600 \u7684", "dogs \udcff\udcfe cat \udce4",
  "the [MASK] sat on a [MASK].", "dogs cats, a mat. " * 60,
  "  the\tcat \u00a0 \u0130\u03a3 " + "x" * 300,
]
OTHERS = [
  "A dog!", "a mat", "", "The cat sat. " * 20, "the dogs \udcff", "cat",
  "Where is the cat?", "is a dog a cat?"]


def export_model(kind: str, directory: pathlib.Path) -> str:
  """The SavedModel of a kind, with weights so far apart that it shows."""
  task, other = KINDS[kind]
  config = BertConfig(**{**CONFIG, **other})
  if task is None:
    model = BertForPreTraining(config)
  else:
    task = {"max_seq_length": LENGTH, **task}
    model = TASKS[task["task_name"]].make_model(config, task)
  generator = np.random.default_rng(3)
  for name, variable in checkpoints.checkpoint_names(model).items():
    variable.assign(generator.normal(
        1 if name.endswith("gamma") else 0, 0.4, variable.shape))
  model_dir = str(directory / "model")
  checkpoints.save_model(
      model_dir, model, BertTokenizer(ENTRIES, do_lower_case=True), task=task)
  return export.run(ExportConfig(
      model_dir=model_dir, export_dir=str(directory / "export")), TASKS)


def _example(text: str, text_pair: str) -> str:
  """A serialized `tf.train.Example` of two texts."""
  return tf.train.Example(features=tf.train.Features(feature={
    name: tf.train.Feature(bytes_list=tf.train.BytesList(
        value=[value.encode("utf-8", "surrogateescape")]))
    for name, value in (("text", text), ("text_pair", text_pair))}
  )).SerializeToString().decode("utf-8", "surrogateescape")


def _pieces(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  random = np.random.RandomState(5)
  mask = (np.arange(shape[-1]) < random.randint(4, 12, shape[:-1] + (1,)))
  ids = random.randint(5, len(ENTRIES), shape) * mask
  segments = (np.arange(shape[-1]) > 5) * mask
  return {
    "input_ids": ids, "input_word_ids": ids, "input_mask": mask.astype(int),
    "segment_ids": segments, "input_type_ids": segments}


# {(name, rank): the value of an input}.
_INPUTS = {
  ("text", 1): TEXTS, ("context", 1): TEXTS,
  ("text_pair", 1): OTHERS, ("question", 1): OTHERS,
  ("choices", 2): [
    [OTHERS[(i + j) % len(OTHERS)] for j in range(3)]
    for i in range(len(TEXTS))],
  ("inputs", 1): [_example(*both) for both in zip(TEXTS, OTHERS)],
  **{(name, len(shape)): value.tolist()
     for shape in ((4, 12), (4, 3, 12))
     for name, value in _pieces(shape).items()},
}


def request_for(function) -> dict[str, Any]:
  """{input: value} for a signature of a loaded SavedModel, as for `Loader`."""
  return {
    name: _INPUTS[name, spec.shape.rank]
    for name, spec in function.structured_input_signature[1].items()}


def answer_in_python(function, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
  """What a signature gives here, in the form of the answers of `Loader`."""
  specs = function.structured_input_signature[1]

  def tensor(name):
    value = np.array(inputs[name], object)
    if specs[name].dtype == tf.string:
      value = np.vectorize(
          lambda text: text.encode("utf-8", "surrogateescape"),
          otypes=[object])(value)
    return tf.constant(value.tolist(), specs[name].dtype)

  def plain(value):
    if value.dtype != tf.string:
      return value.numpy()
    return np.vectorize(
        lambda text: text.decode("utf-8", "surrogateescape"),
        otypes=[object])(value.numpy())

  return {
    name: plain(value)
    for name, value in function(
        **{name: tensor(name) for name in inputs}).items()}
