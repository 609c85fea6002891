"""Exports of tiny models with random weights, one for each kind of task."""

import pathlib

import numpy as np
import pytest

from bert_tf import checkpoints
from bert_tf import export
from bert_tf.arguments import ExportConfig
from bert_tf.config import BertConfig
from bert_tf.heads import BertForPreTraining
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS

ENTRIES = [
  *SPECIAL_TOKENS, "the", "cat", "sat", "on", "a", "mat", "dog", "##s",
  "##ging", "un", "##able", "cafe", ".", ",", "!", "[", "]", "mask"]
CONFIG = BertConfig(
    vocab_size=len(ENTRIES), hidden_size=16, num_hidden_layers=2,
    num_attention_heads=2, intermediate_size=32, max_position_embeddings=24)
# The task.json of each; a pretrained model has none.
DESCRIPTIONS = {
  "pretrained": None,
  "classification": {
    "task_name": "classification", "labels": ["no", "perhaps", "yes, café"],
    "max_seq_length": 12},
  "pair": {
    "task_name": "mrpc", "kind": "classification", "labels": ["0", "1"],
    "max_seq_length": 16, "is_pair": True},
  "multilabel": {
    "task_name": "multilabel", "labels": ["x", "y"], "max_seq_length": 12},
  "regression": {"task_name": "regression", "max_seq_length": 12},
  "tagging": {
    "task_name": "tagging", "labels": ["O", "B-X", "I-X"],
    "max_seq_length": 8},
  "spans": {
    "task_name": "squad", "kind": "spans", "max_seq_length": 16,
    "doc_stride": 4, "max_query_length": 6, "max_answer_length": 5,
    "n_best_size": 5, "version_2_with_negative": True,
    "null_score_diff_threshold": 0.0},
  "multiple_choice": {"task_name": "multiple_choice", "max_seq_length": 16},
}
# The others are tried with the slow tests.
_QUICK = ("pretrained", "pair", "tagging", "multiple_choice")
KINDS = [
  kind if kind in _QUICK else pytest.param(kind, marks=pytest.mark.slow)
  for kind in DESCRIPTIONS]
_TEXTS = [
  "The cat sat on a mat.", "", "dogs", "Caf\u00e9, un unable cat! " * 9,
  "a [MASK] sat on the [MASK]", "dogs dogging", "\u732b"]
# Rows of very different lengths, as columns.
COLUMNS = {
  "pretrained": {"text": _TEXTS},
  "classification": {"text": _TEXTS},
  "pair": {"text": _TEXTS, "text_pair": _TEXTS[::-1]},
  "multilabel": {"text": _TEXTS},
  "regression": {"text": _TEXTS},
  "tagging": {"text": _TEXTS},
  "spans": {"question": _TEXTS[::-1], "context": _TEXTS},
  "multiple_choice": {
    "text": _TEXTS[:4],
    "choices": [["a", "cat"], ["on", "a", "mat"], ["", "dogs " * 9],
                ["cat", "a"]]},
}


def make_export(directory: pathlib.Path, kind: str) -> str:
  """Writes `directory/model` and `directory/export/1`; returns the export."""
  description = DESCRIPTIONS[kind]
  if description is None:
    model = BertForPreTraining(CONFIG)
  else:
    task = description.get("kind", description["task_name"])
    model = TASKS[task].make_model(CONFIG, description)
  generator = np.random.default_rng(3)
  for name, variable in checkpoints.checkpoint_names(model).items():
    variable.assign(generator.normal(
        1 if name.endswith("gamma") else 0, 0.4, variable.shape))
  model_dir = str(directory / "model")
  checkpoints.save_model(
      model_dir, model, BertTokenizer(ENTRIES, do_lower_case=True),
      task=description)
  export_dir = str(directory / "export")
  export.run(ExportConfig(model_dir=model_dir, export_dir=export_dir), TASKS)
  return export_dir
