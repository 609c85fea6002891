"""Pretraining: the paper's two objectives over prepared records.

Devlin et al. 2019, section 3.1 and appendix A.2.
"""

import dataclasses
import functools
import math
from typing import Any

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import distribution
from bert_tf import losses
from bert_tf import monitoring
from bert_tf import train_step
from bert_tf import training
from bert_tf import training_state
from bert_tf.arguments import PretrainingConfig
from bert_tf.config import BertConfig
from bert_tf.config import require
from bert_tf.data import dynamic_masking
from bert_tf.data import input_pipeline
from bert_tf.data import masking
from bert_tf.data import records
from bert_tf.data.text_files import expand_files
from bert_tf.heads import BertForPreTraining
from bert_tf.reporting import write_results
from bert_tf.tokenization import BertTokenizer

_OBJECTIVES = {
  "masked_lm": losses.PRETRAINING, "left_to_right": losses.LEFT_TO_RIGHT}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inputs:
  """What the arguments name, found and checked before anything is made."""

  bert_config: BertConfig
  tokenizer: BertTokenizer
  source: checkpoints.ModelSource | None
  train_files: list[str]
  eval_files: list[str]
  layout: records.Layout
  mask: input_pipeline.Mask | None


def _check_inputs(config: PretrainingConfig) -> _Inputs:
  source = None
  if config.init_checkpoint:
    source = checkpoints.open_source(config.init_checkpoint)
  require(
      config.do_train or source is not None
      or training_state.has_state(config.output_dir),
      f"--do_eval without --do_train: neither {config.output_dir} holds a "
      "run, nor is there an --init_checkpoint to evaluate.")
  bert_config = checkpoints.find_config(
      source, config_file=config.bert_config_file,
      max_seq_length=config.max_seq_length)
  if config.objective == "left_to_right":
    bert_config = dataclasses.replace(bert_config, attention="left_to_right")
  require(
      config.objective == "left_to_right" or not bert_config.is_causal,
      f"--objective: received {config.objective} for a model whose config "
      'says "attention": "left_to_right"; give --objective=left_to_right.')
  tokenizer = checkpoints.find_tokenizer(
      source, bert_config, vocab_file=config.vocab_file,
      do_lower_case=config.do_lower_case,
      config_file=config.bert_config_file)
  train_files = expand_files(config.input_file)
  eval_files = expand_files(config.eval_input_file or config.input_file)
  layout = _check_records(
      sorted({*train_files, *eval_files}), config,
      vocab_size=bert_config.vocab_size)
  return _Inputs(
      bert_config=bert_config, tokenizer=tokenizer, source=source,
      train_files=train_files, eval_files=eval_files, layout=layout,
      mask=_find_mask(config, layout, tokenizer))


def _check_records(
    paths: list[str], config: PretrainingConfig, *, vocab_size: int
) -> records.Layout:
  """What the records hold: all the same, and of the lengths asked for."""
  layout = records.read_layout(paths[0])._replace(
      max_seq_length=config.max_seq_length)
  if layout.max_predictions_per_seq:
    layout = layout._replace(
        max_predictions_per_seq=config.max_predictions_per_seq)
  for path in paths:
    records.check_records(path, layout, vocab_size=vocab_size)
  if not config.nsp:
    layout = layout._replace(next_sentence=False)
  elif not layout.next_sentence:
    logging.info("The records hold no next-sentence labels: the loss is that "
                 "of the masked LM alone.")
  if not layout.max_predictions_per_seq:
    logging.info("The records hold no masks: each batch gets new ones.")
  return layout


def _find_mask(config, layout, tokenizer) -> input_pipeline.Mask | None:
  """What the objective needs done to a batch of records."""
  if config.objective == "left_to_right":
    return dynamic_masking.restore
  if layout.max_predictions_per_seq:
    return None
  return _make_mask(config, tokenizer)


def _make_mask(
    config: PretrainingConfig, tokenizer: BertTokenizer
) -> input_pipeline.Mask:
  """Masks batches of records that hold no masks, each anew."""
  return functools.partial(
      dynamic_masking.mask_batch,
      special_ids=(tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id),
      mask_id=tokenizer.mask_id, vocab_size=tokenizer.vocab_size,
      masked_lm_prob=config.masked_lm_prob,
      max_predictions_per_seq=config.max_predictions_per_seq,
      mask_share=config.mask_share, same_share=config.same_share,
      is_continuation=masking.continuation_table(tokenizer.vocabulary)
      if config.do_whole_word_mask else None)


def _majority_shares(batches: tf.data.Dataset) -> dict[str, float]:
  """The accuracies of always giving the most frequent answer.

  Without next-sentence labels in the records that of the masked LM alone.
  """
  pieces, labels = [], []
  name = "mlm"
  for batch in batches:
    if "masked_lm_ids" in batch:
      ids, weights = batch["masked_lm_ids"], batch["masked_lm_weights"]
    else:
      name = "lm"
      ids, weights = batch["input_ids"][:, 1:], losses.next_piece_weights(batch)
    pieces.append(ids.numpy()[weights.numpy() > 0])
    if "next_sentence_labels" in batch:
      values = batch["next_sentence_labels"].numpy()  # [B] or [B, K]
      weights = batch.get("next_sentence_weights", tf.ones_like(values))
      labels.append(values[weights.numpy() > 0])

  def share(values):
    counts = np.bincount(np.concatenate(values))
    return float(counts.max() / max(counts.sum(), 1))

  shares = {f"{name}_majority_accuracy": share(pieces)}
  if labels:
    shares["nsp_majority_accuracy"] = share(labels)
  return shares


def _make_evaluation(config: PretrainingConfig, model, inputs: _Inputs):
  """A function that evaluates the model as it is: {metric: value}."""
  batches = input_pipeline.evaluation_batches(
      inputs.eval_files, layout=inputs.layout, mask=inputs.mask,
      batch_size=config.eval_batch_size, seed=config.random_seed)
  batches = batches.take(config.max_eval_steps)
  evaluate = train_step.make_evaluator(
      model, _OBJECTIVES[config.objective], batch_spec=batches.element_spec)
  baselines = _majority_shares(batches)

  def evaluation():
    metrics = evaluate(batches)
    perplexities = {
      f"{name}_perplexity": float(np.exp(metrics[f"{name}_loss"]))
      for name in ("mlm", "lm") if f"{name}_loss" in metrics}
    return {**metrics, **perplexities, **baselines}

  return evaluation


def _flops_per_example(config: PretrainingConfig, inputs: _Inputs) -> int:
  first = inputs.layout.max_examples_per_row or 1
  return monitoring.flops_per_example(
      inputs.bert_config, sequence_length=config.max_seq_length,
      predictions=config.max_predictions_per_seq,
      pooled=first if inputs.layout.next_sentence else 0,
      read=None if inputs.bert_config.is_causal
      else config.max_predictions_per_seq + first)


def _identity(
    config: PretrainingConfig, bert_config: BertConfig
) -> dict[str, Any]:
  """What a run cannot change on its way: its model, its start, its order."""
  identity = bert_config.to_dict()
  if config.do_train:
    for name in ("random_seed", "train_batch_size", "init_checkpoint",
                 "objective", "nsp", "optimizer"):
      identity[name] = getattr(config, name)
  return identity


def run(config: PretrainingConfig) -> dict[str, float]:
  """Trains, evaluates and writes a model directory.

  In `config.output_dir`: the model directory, `metrics.jsonl`, TensorBoard
  files in `train/` and `eval/`, `eval_results.json` and `.txt`, and the
  state to resume from in `training_state/`. The same call goes on where a
  stopped run was.

  Returns:
    The metrics of the last evaluation; empty without `do_eval`.

  Raises:
    InputError: an input is missing or does not fit, before any work.
  """
  strategy = training.start(config)
  inputs = _check_inputs(config)
  with strategy.scope():
    model = BertForPreTraining(
        inputs.bert_config, dtype=training.dtype_policy(config))
  model.encoder.rematerialize = config.rematerialize
  logging.info(
      "%s parameters. A model that knows nothing has a masked-LM loss of "
      "ln %d = %.2f.", f"{model.count_params():,}",
      inputs.bert_config.vocab_size, math.log(inputs.bert_config.vocab_size))

  def load_weights():
    if inputs.source:
      checkpoints.load_pretrained(model, inputs.source)

  def make_batches(first_step, replicas):
    return input_pipeline.training_batches(
        inputs.train_files, layout=inputs.layout, mask=inputs.mask,
        batch_size=config.train_batch_size, seed=config.random_seed,
        first_step=first_step, replicas=replicas)

  evaluation = None
  if config.do_eval and distribution.is_chief(strategy):
    evaluation = _make_evaluation(config, model, inputs)
  job = training.Job(
      model=model, objective=_OBJECTIVES[config.objective],
      num_steps=config.num_train_steps,
      num_warmup_steps=config.num_warmup_steps, make_batches=make_batches,
      load_weights=load_weights,
      identity=_identity(config, inputs.bert_config),
      evaluation=evaluation and (lambda step: evaluation()),
      eval_steps=config.eval_steps or config.save_checkpoints_steps,
      amounts={
        "examples": 1, "tokens": config.max_seq_length,
        "model_flops": _flops_per_example(config, inputs)})
  results, step = training.run(
      config, job, strategy=strategy, do_train=config.do_train)
  if distribution.is_chief(strategy):
    if config.do_train:
      checkpoints.save_model(config.output_dir, model, inputs.tokenizer)
    if evaluation:
      results = {"global_step": step, **(results or evaluation())}
      write_results(config.output_dir, results)
  distribution.barrier(strategy)
  return results or {}
