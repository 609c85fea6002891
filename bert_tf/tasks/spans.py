"""Answers to questions as parts of a text: SQuAD 1.1 and 2.0.

Devlin et al. 2019, sections 4.2 and 4.3, as the original's run_squad.py. A
long context becomes several windows, which are what is trained on.

Shapes: R questions, W windows of all questions, S sequence length, B questions
that an export is asked, P pieces of their contexts.
"""

from collections.abc import Sequence
import os
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bert_tf import answers
from bert_tf import examples
from bert_tf import files
from bert_tf import losses
from bert_tf import serving
from bert_tf import squad_metrics
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.data.squad_files import read_questions
from bert_tf.data.squad_files import read_tfds_questions
from bert_tf.finetuning import Columns
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.heads import BertSpanLabeler
from bert_tf.packing import Windows
from bert_tf.tokenization import BertTokenizer

# What a description says beside its names and its length, where a flag or the
# description does not.
DEFAULTS = {
  "doc_stride": 128, "max_query_length": 64, "max_answer_length": 30,
  "n_best_size": 20, "version_2_with_negative": False,
  "null_score_diff_threshold": 0.0,
}
# Contexts that are tokenized in one call, and questions packed in one.
_CONTEXTS, _QUESTIONS = 256, 1024
# What no sum of scores comes down to.
_LOWEST = -1e30


def _find_file(config: FinetuningConfig, split: str) -> str | None:
  flag = {"train": "train_file", "dev": "predict_file"}.get(split)
  if flag and getattr(config, flag):
    return getattr(config, flag)
  # Other questions than those of --predict_file are not asked for.
  if split == "test" and config.predict_file:
    return None
  require(
      config.data_dir is not None,
      f"--{flag or 'predict_file'}: not given, and no --data_dir in which "
      f"{split}-v1.1.json, {split}-v2.0.json or {split}.jsonl could lie; give "
      "one of the two.")
  versions = ["-v1.1.json", "-v2.0.json"]
  if config.version_2_with_negative:
    versions.reverse()
  for suffix in (*versions, ".jsonl"):
    path = os.path.join(config.data_dir, split + suffix)
    if files.exists(path):
      return path
  return None


def _read(config: FinetuningConfig, split: str) -> Columns | None:
  if config.tfds_name:
    return read_tfds_questions(
        config.tfds_name, split, **config.tfds_options)
  path = _find_file(config, split)
  return path and read_questions(path, on_bad_utf8=config.on_bad_utf8)


def _describe(config: FinetuningConfig, rows: Columns) -> dict[str, Any]:
  description = {
    name: value if getattr(config, name) is None else getattr(config, name)
    for name, value in DEFAULTS.items()}
  for where, known, is_impossible in zip(
      rows["where"], rows["answers"], rows["is_impossible"]):
    require(
        bool(known) or (
            is_impossible and description["version_2_with_negative"]),
        f"{where}: has no answer to train on. Pass "
        "--version_2_with_negative where some questions have none, and mark "
        "these with 'is_impossible' or an empty list of 'answers'.")
  return description


class _Contexts(NamedTuple):
  """The different contexts of the rows, as pieces."""

  number: np.ndarray  # [R]: that of each row
  ids: tf.RaggedTensor  # [number of contexts, (pieces)]
  start: np.ndarray  # [P]: the first byte of each piece
  end: np.ndarray  # [P]
  size: np.ndarray  # [number of contexts]: their bytes

  @property
  def splits(self) -> np.ndarray:
    return self.ids.row_splits.numpy()


def _tokenize_contexts(
    tokenizer: BertTokenizer, contexts: Sequence[str]
) -> _Contexts:
  """Each once: SQuAD has about five questions to a paragraph."""
  numbers = {}
  number = np.array([numbers.setdefault(x, len(numbers)) for x in contexts])
  batches = list(
      tf.data.Dataset.from_tensor_slices(tf.constant(list(numbers)))
      .batch(_CONTEXTS)
      .map(tokenizer.tokenize_with_offsets,
           num_parallel_calls=tf.data.AUTOTUNE))
  ids, start, end = (tf.concat(parts, axis=0) for parts in zip(*batches))
  return _Contexts(
      number, ids, start.flat_values.numpy(), end.flat_values.numpy(),
      np.array([len(context.encode("utf-8")) for context in numbers]))


def _pack(
    tokenizer: BertTokenizer, description, rows: Columns, contexts: _Contexts
) -> tuple[dict[str, tf.RaggedTensor], answers.Windows]:
  """The pieces of all windows, and where the windows are."""
  pieces, places, lengths = [], [], []
  for first in range(0, len(rows["where"]), _QUESTIONS):
    some = slice(first, first + _QUESTIONS)
    ids = tokenizer.tokenize(rows["question"][some])
    lengths.append(ids.row_lengths().numpy())
    windows = _windows(
        tokenizer, description, ids,
        tf.gather(contexts.ids, contexts.number[some]))
    pieces.append(examples.without_padding(windows.inputs))
    places.append(np.stack([
      windows.example + first, windows.start, windows.size,
      windows.position]))
  longest = {**DEFAULTS, **description}["max_query_length"]
  lengths = np.concatenate(lengths)
  examples.log_some(
      lengths > longest,
      f"questions are longer than {longest} pieces and were cut")
  examples.log_some(lengths == 0, "questions are empty")
  examples.log_some(
      np.diff(contexts.splits)[contexts.number] == 0,
      "questions have an empty context")
  return (
    {name: tf.concat([part[name] for part in pieces], axis=0)
     for name in pieces[0]},
    answers.Windows(
        *np.concatenate(places, axis=1),
        begin=contexts.splits[contexts.number], piece_start=contexts.start,
        piece_end=contexts.end))


def _windows(tokenizer, description, ids, context_ids) -> Windows:
  values = {**DEFAULTS, **description}
  return tokenizer.pack_windows(
      ids, context_ids, max_seq_length=values["max_seq_length"],
      doc_stride=values["doc_stride"],
      max_query_length=values["max_query_length"])


def _answer_bytes(rows: Columns) -> np.ndarray:
  """First byte and the one behind the last of each first answer: [R, 2].

  -1 and -1 where there is no answer.
  """
  found = np.full((len(rows["where"]), 2), -1)
  for i, (context, known) in enumerate(zip(rows["context"], rows["answers"])):
    if known and not rows["is_impossible"][i]:
      start = len(context[:known[0]["answer_start"]].encode("utf-8"))
      found[i] = start, start + len(known[0]["text"].encode("utf-8"))
  return found


def _answer_pieces(rows: Columns, contexts: _Contexts) -> np.ndarray:
  """The first and the last piece of each first answer, in its context: [R, 2].

  They are those that share a byte with it. (The original searches among the
  words around for pieces whose text is that of the answer.)
  """
  place = _answer_bytes(rows)
  # One text of all contexts: each search is among the bytes of all of them.
  before = np.concatenate([[0], np.cumsum(contexts.size)])
  of_pieces = np.repeat(before[:-1], np.diff(contexts.splits))
  shift = before[contexts.number]
  first = np.searchsorted(
      contexts.end + of_pieces, place[:, 0] + shift, side="right")
  last = np.searchsorted(
      contexts.start + of_pieces, place[:, 1] + shift, side="left") - 1
  found = np.stack([first, last], axis=1)
  has_answer = place[:, 1] >= 0
  for i in np.nonzero(has_answer & (first > last))[0]:
    raise InputError(
        f"{rows['where'][i]}: the answer {rows['answers'][i][0]['text']!r} "
        "has no character that the tokenizer keeps; mend it, or leave the "
        "question out.")
  return np.where(
      has_answer[:, None],
      found - contexts.splits[contexts.number][:, None], -1)


def _targets(
    rows: Columns, contexts: _Contexts, windows: answers.Windows
) -> dict[str, np.ndarray]:
  """Places in the window, int32 [W]; [CLS], 0, without the whole answer."""
  pieces = _answer_pieces(rows, contexts)[windows.row] - (
      windows.first[:, None])  # [W, 2]: from the start of the window's part
  is_whole = (pieces[:, 0] >= 0) & (pieces[:, 1] < windows.size)
  is_found = np.zeros(len(rows["where"]), bool)
  is_found[windows.row[is_whole]] = True
  has_answer = np.array([bool(known) for known in rows["answers"]])
  examples.log_some(
      has_answer & ~is_found,
      "questions have an answer that is whole in no window")
  places = np.where(
      is_whole[:, None], pieces + windows.position[:, None], 0)
  return {"start": places[:, 0].astype(np.int32),
          "end": places[:, 1].astype(np.int32)}


def _encode(tokenizer, description, rows: Columns) -> examples.Examples:
  contexts = _tokenize_contexts(tokenizer, rows["context"])
  pieces, windows = _pack(tokenizer, description, rows, contexts)
  targets = {}
  if all(known is not None for known in rows["answers"]):
    targets = _targets(rows, contexts, windows)
  return examples.Examples(pieces, targets, notes=windows)


def _make_model(bert_config: BertConfig, description, **kwargs):
  del description
  return BertSpanLabeler(bert_config, **kwargs)


def _find(description, rows: Columns, encoded, outputs):
  """{id: answers.Found} of all questions, and the threshold, or None."""
  values = {**DEFAULTS, **description}
  found = answers.find_answers(
      encoded.notes, rows["context"], outputs,
      n_best_size=values["n_best_size"],
      max_answer_length=values["max_answer_length"])
  is_version_2 = values["version_2_with_negative"]
  return (dict(zip(rows["id"], found)),
          values["null_score_diff_threshold"] if is_version_2 else None)


def _loss(encoded: examples.Examples, outputs) -> float:
  """That of training, over all windows."""
  places = np.arange(outputs["start_logits"].shape[1])
  is_window = places < encoded.lengths[:, None]
  total = 0.0
  for name in ("start", "end"):
    logits = np.where(is_window, outputs[f"{name}_logits"], -np.inf)
    targets = encoded.targets[name][:, None]
    total += np.mean(np.logaddexp.reduce(logits, axis=1)
                     - np.take_along_axis(logits, targets, 1)[:, 0])
  return float(total / 2)


def _metrics(description, rows, encoded, outputs) -> dict[str, float]:
  for where, known in zip(rows["where"], rows["answers"]):
    require(
        known is not None,
        f"{where}: has no field 'answers', against which predictions could "
        "be judged. Leave out --do_eval.")
  golds = {
    name: [answer["text"] for answer in known]
    for name, known in zip(rows["id"], rows["answers"])}
  found, threshold = _find(description, rows, encoded, outputs)
  odds = {} if threshold is None else {
    "null_odds": {name: one.null_odds for name, one in found.items()},
    "threshold": threshold}
  return {"loss": _loss(encoded, outputs),
          **squad_metrics.evaluate(golds, answers.best_texts(found), **odds)}


def _predictions(description, rows, encoded, outputs) -> dict[str, str]:
  found, threshold = _find(description, rows, encoded, outputs)
  return answers.prediction_files(
      found, threshold=threshold,
      n_best_size={**DEFAULTS, **description}["n_best_size"])


def _has_most_context(windows: Windows, splits: tf.Tensor) -> tf.Tensor:
  """`answers.has_most_context` in the graph: bool [W, S].

  Args:
    windows: of all contexts.
    splits: int32 [B + 1], where the pieces of each context begin.
  """
  column = lambda x: x[:, None]
  offset = tf.range(tf.shape(windows.inputs["input_ids"])[1])[None] - (
      column(windows.position))  # [W, S]
  size = column(windows.size)
  is_context = (offset >= 0) & (offset < size)
  context = 100 * tf.minimum(offset, size - 1 - offset) + size
  # What is no piece of a context goes together at the end.
  piece = tf.where(
      is_context,
      column(tf.gather(splits, windows.example) + windows.start) + offset,
      splits[-1])
  number = splits[-1] + 1
  most = tf.math.unsorted_segment_max(context, piece, number)  # [P + 1]
  is_most = is_context & tf.equal(context, tf.gather(most, piece))
  window = column(tf.range(tf.shape(offset)[0]))
  first = tf.math.unsorted_segment_min(
      tf.where(is_most, window, tf.int32.max), piece, number)
  return is_most & tf.equal(window, tf.gather(first, piece))


class _Best(NamedTuple):
  """The best answer to each question, [B] each."""

  score: tf.Tensor  # `_LOWEST` or less where there is none
  first: tf.Tensor  # its first piece, counted in the context
  last: tf.Tensor
  null_score: tf.Tensor


def _best_span(
    windows: Windows, outputs, splits: tf.Tensor, *, longest: int
) -> _Best:
  """The best of all spans of up to `longest` pieces in all windows."""
  number = tf.size(splits) - 1
  mask = tf.sequence_mask(
      windows.position + windows.size,
      tf.shape(windows.inputs["input_ids"])[1])  # [W, S]
  # Behind each start, the scores of all ends that fit.
  ends = tf.pad(
      tf.where(mask, outputs["end_logits"], _LOWEST),
      [[0, 0], [0, longest - 1]], constant_values=_LOWEST)
  best_ends = tf.nn.max_pool1d(
      ends[..., None], longest, 1, "VALID")[..., 0]  # [W, S]
  scores = tf.where(
      _has_most_context(windows, splits),
      outputs["start_logits"] + best_ends, _LOWEST)
  of_window = tf.reduce_max(scores, axis=1)  # [W]
  score = tf.math.unsorted_segment_max(of_window, windows.example, number)
  window = tf.range(tf.size(of_window))
  window = tf.math.unsorted_segment_min(
      tf.where(tf.equal(of_window, tf.gather(score, windows.example)),
               window, tf.int32.max), windows.example, number)  # [B]
  start = tf.argmax(tf.gather(scores, window), axis=1, output_type=tf.int32)
  behind = tf.gather(
      tf.gather(ends, window), start[:, None] + tf.range(longest)[None],
      batch_dims=1)  # [B, longest]
  end = start + tf.argmax(behind, axis=1, output_type=tf.int32)
  shift = tf.gather(windows.start - windows.position, window)
  null_scores = outputs["start_logits"][:, 0] + outputs["end_logits"][:, 0]
  return _Best(
      score, start + shift, end + shift, tf.math.unsorted_segment_min(
          null_scores, windows.example, number))


def _signatures(
    model: keras.Model, tokenizer: BertTokenizer, description: dict
) -> dict[str, Any]:
  """question, context [B] -> `answer`, `start`, `end` and `score` [B].

  `answer` is `context[start:end]` in bytes, or "" with 0 and 0 where there is
  none. `score` is that of the best part of the context above that of no
  answer; -10000 where the context has no piece. All parts of up to the
  greatest length are compared, where predictions compare those of the n best
  starts with the n best ends; windows and most context are as for these.
  """
  values = {**DEFAULTS, **description}
  infer = serving.inference(model)
  least = _LOWEST / 2
  if values["version_2_with_negative"]:
    least = -values["null_score_diff_threshold"]

  def answer(question, context):
    ids, starts, ends = tokenizer.tokenize_with_offsets(context)
    windows = _windows(
        tokenizer, description, tokenizer.tokenize(question), ids)
    splits = tf.cast(ids.row_splits, tf.int32)
    best = _best_span(
        windows, serving.in_blocks(infer, windows.inputs), splits,
        longest=values["max_answer_length"])
    has_span = best.score > _LOWEST / 2
    score = tf.where(
        has_span, best.score - best.null_score, answers.NO_SPAN)
    is_answered = has_span & (score >= least)

    def byte(of_pieces, piece):  # [B]
      flat = tf.concat([of_pieces.flat_values, [0]], axis=0)
      return tf.where(is_answered, tf.gather(
          flat, tf.where(is_answered, splits[:-1] + piece, 0)), 0)

    start, end = byte(starts, best.first), byte(ends, best.last)
    return {"answer": tf.strings.substr(context, start, end - start),
            "start": start, "end": end, "score": score}

  return {
    "serving_default": serving.of_texts(("question", "context"), answer),
    # The window's own scores: what it is a window of is not known here.
    "pre_tokenized": serving.of_pieces(model.config, infer)}


TASK = Task(
    kind="spans",
    read=_read,
    describe=_describe,
    encode=_encode,
    make_model=_make_model,
    objective=losses.SPANS,
    metrics=_metrics,
    predictions=_predictions,
    signatures=_signatures,
    head=("cls/squad/",),
    best_metric="f1",
    defaults={"max_seq_length": 384},
    reading=tuple(DEFAULTS))
