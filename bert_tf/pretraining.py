"""Pretraining: the paper's two objectives over prepared records.

Devlin et al. 2019, section 3.1 and appendix A.2.
"""

import dataclasses
import functools
import math
import os
from typing import Any

from absl import logging
import keras
import numpy as np
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import distribution
from bert_tf import losses
from bert_tf import training
from bert_tf.arguments import PretrainingConfig
from bert_tf.config import BertConfig
from bert_tf.config import require
from bert_tf.data import dynamic_masking
from bert_tf.data import input_pipeline
from bert_tf.data import masking
from bert_tf.data import records
from bert_tf.data.text_files import expand_files
from bert_tf.heads import BertForPreTraining
from bert_tf.optimization import AdamWeightDecay
from bert_tf.optimization import WarmupLinearDecay
from bert_tf.reporting import MetricsWriter
from bert_tf.reporting import write_results
from bert_tf.tokenization import BertTokenizer

# What some checkpoints lack stays as initialized.
_MAY_BE_NEW = ("cls/", "bert/pooler/")


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
      not os.path.isfile(config.output_dir),
      f"--output_dir: {config.output_dir} is a file; name a folder.")
  require(
      config.do_train or source is not None or bool(
          tf.train.latest_checkpoint(os.path.join(
              config.output_dir, training.STATE_DIRECTORY))),
      f"--do_eval without --do_train: neither {config.output_dir} holds a "
      "run, nor is there an --init_checkpoint to evaluate.")
  bert_config = checkpoints.find_config(
      source, config_file=config.bert_config_file,
      max_seq_length=config.max_seq_length)
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
      mask=None if layout.max_predictions_per_seq else _make_mask(
          config, tokenizer))


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
  if not layout.next_sentence:
    logging.info("The records hold no next-sentence labels: the loss is that "
                 "of the masked LM alone.")
  if not layout.max_predictions_per_seq:
    logging.info("The records hold no masks: each batch gets new ones.")
  return layout


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
  for batch in batches:
    is_used = batch["masked_lm_weights"].numpy() > 0
    pieces.append(batch["masked_lm_ids"].numpy()[is_used])
    if "next_sentence_labels" in batch:
      values = batch["next_sentence_labels"].numpy()  # [B] or [B, K]
      weights = batch.get("next_sentence_weights", tf.ones_like(values))
      labels.append(values[weights.numpy() > 0])

  def share(values):
    counts = np.bincount(np.concatenate(values))
    return float(counts.max() / max(counts.sum(), 1))

  shares = {"mlm_majority_accuracy": share(pieces)}
  if labels:
    shares["nsp_majority_accuracy"] = share(labels)
  return shares


def _make_evaluation(config: PretrainingConfig, model, inputs: _Inputs):
  """A function that evaluates the model as it is: {metric: value}."""
  batches = input_pipeline.evaluation_batches(
      inputs.eval_files, layout=inputs.layout, mask=inputs.mask,
      batch_size=config.eval_batch_size, seed=config.random_seed)
  batches = batches.take(config.max_eval_steps)
  evaluate = training.make_evaluator(
      model, losses.PRETRAINING, batch_spec=batches.element_spec)
  baselines = _majority_shares(batches)

  def evaluation():
    metrics = evaluate(batches)
    perplexity = float(np.exp(metrics["mlm_loss"]))
    return {**metrics, "mlm_perplexity": perplexity, **baselines}

  return evaluation


def _identity(
    config: PretrainingConfig, bert_config: BertConfig
) -> dict[str, Any]:
  """What a run cannot change on its way: its model, its start, its order."""
  identity = bert_config.to_dict()
  if config.do_train:
    for name in ("random_seed", "train_batch_size", "init_checkpoint"):
      identity[name] = getattr(config, name)
  return identity


def _train(
    config: PretrainingConfig, inputs: _Inputs, state: training.TrainingState,
    *, schedule, strategy, evaluation
) -> dict[str, float] | None:
  batches = strategy.experimental_distribute_dataset(
      input_pipeline.training_batches(
          inputs.train_files, layout=inputs.layout, mask=inputs.mask,
          batch_size=config.train_batch_size, seed=config.random_seed,
          first_step=state.step))
  step_function = training.make_train_step(
      state.model, state.optimizer, losses.PRETRAINING, strategy=strategy,
      seed=config.random_seed, batch_spec=batches.element_spec)
  with MetricsWriter(
      config.output_dir, first_step=state.step,
      num_steps=config.num_train_steps) as writer:
    return training.train(
        state, step_function, batches, objective=losses.PRETRAINING,
        schedule=schedule, num_steps=config.num_train_steps,
        batch_size=config.train_batch_size, log_steps=config.log_steps,
        save_steps=config.save_checkpoints_steps, writer=writer,
        eval_steps=config.eval_steps or config.save_checkpoints_steps,
        evaluation=evaluation)


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
  inputs = _check_inputs(config)
  keras.utils.set_random_seed(config.random_seed % 2**32)
  strategy = distribution.make_strategy()
  with strategy.scope():
    model = BertForPreTraining(inputs.bert_config)
    schedule = WarmupLinearDecay(
        config.learning_rate, num_train_steps=config.num_train_steps,
        num_warmup_steps=config.num_warmup_steps)
    state = training.TrainingState(
        model, AdamWeightDecay(schedule), config.output_dir,
        identity=_identity(config, inputs.bert_config))
  if not state.restore() and inputs.source:
    checkpoints.load_weights(model, inputs.source, new=_MAY_BE_NEW)
  logging.info(
      "%s parameters. A model that knows nothing has a masked-LM loss of "
      "ln %d = %.2f.", f"{model.count_params():,}",
      inputs.bert_config.vocab_size, math.log(inputs.bert_config.vocab_size))
  evaluation, results = None, None
  if config.do_eval:
    evaluation = _make_evaluation(config, model, inputs)
  if config.do_train:
    results = _train(
        config, inputs, state, schedule=schedule, strategy=strategy,
        evaluation=evaluation)
    checkpoints.save_model(config.output_dir, model, inputs.tokenizer)
  if evaluation is None:
    return {}
  results = {"global_step": state.step, **(results or evaluation())}
  write_results(config.output_dir, results)
  return results
