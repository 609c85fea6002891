"""Pretraining: the paper's two objectives over prepared records.

Devlin et al. 2019, section 3.1 and appendix A.2.
"""

import dataclasses
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
from bert_tf.config import BertConfig
from bert_tf.config import PretrainingConfig
from bert_tf.config import require
from bert_tf.data import input_pipeline
from bert_tf.data import records
from bert_tf.data.corpus import expand_files
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
  for path in sorted({*train_files, *eval_files}):
    records.check_records(
        path, max_seq_length=config.max_seq_length,
        max_predictions_per_seq=config.max_predictions_per_seq,
        vocab_size=bert_config.vocab_size)
  return _Inputs(
      bert_config=bert_config, tokenizer=tokenizer, source=source,
      train_files=train_files, eval_files=eval_files)


def _majority_shares(batches: tf.data.Dataset) -> dict[str, float]:
  """The accuracies of always giving the most frequent answer."""
  pieces, labels = [], []
  for batch in batches:
    is_used = batch["masked_lm_weights"].numpy() > 0
    pieces.append(batch["masked_lm_ids"].numpy()[is_used])
    labels.append(batch["next_sentence_labels"].numpy())

  def share(values):
    counts = np.bincount(np.concatenate(values))
    return float(counts.max() / max(counts.sum(), 1))

  return {
    "mlm_majority_accuracy": share(pieces),
    "nsp_majority_accuracy": share(labels),
  }


def _make_evaluation(config: PretrainingConfig, model, files: list[str]):
  """A function that evaluates the model as it is: {metric: value}."""
  batches = input_pipeline.evaluation_batches(
      files, batch_size=config.eval_batch_size,
      max_seq_length=config.max_seq_length,
      max_predictions_per_seq=config.max_predictions_per_seq)
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
          inputs.train_files, batch_size=config.train_batch_size,
          max_seq_length=config.max_seq_length,
          max_predictions_per_seq=config.max_predictions_per_seq,
          seed=config.random_seed, first_step=state.step))
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
    evaluation = _make_evaluation(config, model, inputs.eval_files)
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
