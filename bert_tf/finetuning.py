"""Fine-tuning: one driver for all tasks, which it knows as records.

Devlin et al. 2019, section 4 and appendix A.3. Strings go into tf.data and
are tokenized in the graph, as they will be in the exported model.
"""

from collections.abc import Callable, Iterator
import dataclasses
import os
from typing import Any

from absl import logging
import keras
import numpy as np
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import distribution
from bert_tf import files
from bert_tf import monitoring
from bert_tf import training
from bert_tf.arguments import FinetuningConfig
from bert_tf.config import BertConfig
from bert_tf.config import require
from bert_tf.config import write_text
from bert_tf.data.input_pipeline import Replicas
from bert_tf.data.input_pipeline import deal
from bert_tf.losses import Objective
from bert_tf.reporting import write_results
from bert_tf.tokenization import BertTokenizer

# The rows of one split: {column: values}, all of one length.
Columns = dict[str, list]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """What a task is: functions over its rows, its model and its outputs.

  A `description` is what `task.json` keeps: all that a trained model needs
  to be used again.
  """

  # (config, split) -> rows of "train", "dev" or "test"; None: no such file.
  read: Callable[[FinetuningConfig, str], Columns | None]
  # (config, training rows) -> description.
  describe: Callable[[FinetuningConfig, Columns], dict[str, Any]]
  # (description, rows) -> {name: array [rows]} that the objective needs.
  targets: Callable[[dict, Columns], dict[str, np.ndarray]]
  # (BertConfig, description, dtype=) -> model over the encoder's inputs.
  make_model: Callable[..., keras.Model]
  objective: Objective
  # (description, targets, outputs) -> metrics.
  metrics: Callable[[dict, dict, dict], dict[str, float]]
  # (description, rows, outputs) -> rows of predictions.tsv, header first.
  predictions: Callable[[dict, Columns, dict], Iterator[list[str]]]
  # (model, tokenizer, description) -> {name: tf.function} to export.
  signatures: Callable[[keras.Model, BertTokenizer, dict], dict[str, Any]]
  # Prefixes of the head's variables, which no pretrained checkpoint has.
  head: tuple[str, ...]


def _tokenized(
    tokenizer: BertTokenizer, rows: Columns, targets: dict, *,
    max_seq_length: int
):
  """A function: indices int [B] -> the model's inputs and targets."""
  texts = tf.constant(rows["text"])
  targets = {name: tf.constant(value) for name, value in targets.items()}

  def batch(indices):
    inputs = tokenizer(
        tf.gather(texts, indices), max_seq_length=max_seq_length)
    return {**inputs, **{
      name: tf.gather(value, indices) for name, value in targets.items()}}

  return batch


def _training_batches(
    make_batch, *, num_rows: int, batch_size: int, seed: int, first_step: int,
    replicas: Replicas = Replicas()
) -> tf.data.Dataset:
  """Endless batches; each epoch in its own order, a function of the seed."""

  def row_at(position):
    epoch, place = position // num_rows, position % num_rows
    return tf.random.experimental.index_shuffle(
        tf.cast(place, tf.int32),
        tf.stack([tf.cast(seed % 2**31, tf.int32), tf.cast(epoch, tf.int32)]),
        tf.constant(num_rows - 1, tf.int32))

  indices = (
    tf.data.Dataset.counter(first_step * batch_size)
    .map(row_at)
    .batch(batch_size, drop_remainder=True))
  return (
    deal(indices, replicas)
    .map(make_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    .prefetch(tf.data.AUTOTUNE))


def _make_predictor(model, make_batch, *, num_rows: int, batch_size: int):
  """A function: () -> {output: array [rows, ...]} of the model as it is."""
  batches = (
    tf.data.Dataset.range(num_rows).batch(batch_size)
    .map(make_batch, num_parallel_calls=tf.data.AUTOTUNE)
    .prefetch(tf.data.AUTOTUNE))

  @tf.function(input_signature=[batches.element_spec])
  def predict(batch):
    return model(batch, training=False)

  def run():
    parts = [predict(batch) for batch in batches]
    return {name: np.concatenate([part[name].numpy() for part in parts])
            for name in parts[0]}

  return run


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Setup:
  """The parts of one run, made from its config."""

  config: FinetuningConfig
  task: Task
  description: dict[str, Any]
  model: keras.Model
  tokenizer: BertTokenizer
  strategy: tf.distribute.Strategy

  def batches_of(self, rows: Columns):
    targets = self.task.targets(self.description, rows)
    return targets, _tokenized(
        self.tokenizer, rows, targets,
        max_seq_length=self.description["max_seq_length"])

  def make_evaluation(self, rows: Columns):
    targets, make_batch = self.batches_of(rows)
    predict = _make_predictor(
        self.model, make_batch, num_rows=len(rows["text"]),
        batch_size=self.config.eval_batch_size)
    return lambda: self.task.metrics(self.description, targets, predict())

  def write_predictions(self, rows: Columns) -> None:
    _, make_batch = self.batches_of({"text": rows["text"]})
    outputs = _make_predictor(
        self.model, make_batch, num_rows=len(rows["text"]),
        batch_size=self.config.predict_batch_size)()
    files.make_directories(self.config.output_dir)
    path = os.path.join(self.config.output_dir, "predictions.tsv")
    table = self.task.predictions(self.description, rows, outputs)
    write_text(path, "".join("\t".join(row) + "\n" for row in table))
    logging.info("Wrote %d predictions: %s", len(rows["text"]), path)


def _rows_needed(config: FinetuningConfig, task: Task) -> dict[str, Columns]:
  """{split: rows} of what the config asks for; a missing file is an error."""
  rows = {}
  for split, is_needed in (
      ("train", config.do_train), ("dev", config.do_eval),
      ("test", config.do_predict)):
    if is_needed:
      rows[split] = task.read(config, split)
  if config.do_predict and rows["test"] is None:
    rows["test"] = rows.get("dev") or task.read(config, "dev")
  for split, found in rows.items():
    require(
        found is not None,
        f"{config.data_dir}: no {split}.tsv there, which the task needs.")
  return rows


def _find_source(config: FinetuningConfig) -> checkpoints.ModelSource | None:
  """Where training starts; without training, the fine-tuned model."""
  is_finished = files.exists(
      os.path.join(config.output_dir, checkpoints.TASK_FILE))
  if not config.do_train and is_finished:
    return checkpoints.open_source(config.output_dir)
  if config.init_checkpoint:
    return checkpoints.open_source(config.init_checkpoint)
  return None


def _description(config, task, rows, source) -> dict[str, Any]:
  """Of the training rows; without training, of the fine-tuned model."""
  if config.do_train:
    return {
      **task.describe(config, rows["train"]), "task_name": config.task_name,
      "max_seq_length": config.max_seq_length}
  description = source and checkpoints.read_task(source)
  require(
      bool(description),
      f"Without --do_train, {config.output_dir} or --init_checkpoint must "
      f"hold a fine-tuned model; neither has a {checkpoints.TASK_FILE}.")
  require(
      description["task_name"] == config.task_name,
      f"{source.path}: was trained for {description['task_name']!r}, not for "
      f"--task_name={config.task_name}.")
  return description


def _identity(config, bert_config, description, rows) -> dict[str, Any]:
  """What a run cannot change on its way: model, task, start and order."""
  return {
    **bert_config.to_dict(), **description,
    "num_train_rows": len(rows["text"]),
    **{name: getattr(config, name) for name in (
      "random_seed", "train_batch_size", "init_checkpoint", "optimizer")}}


def _set_up(
    config: FinetuningConfig, task: Task, rows: dict[str, Columns], *,
    strategy: tf.distribute.Strategy
) -> tuple[_Setup, checkpoints.ModelSource | None]:
  """Finds and checks what the config names, and makes the model."""
  source = _find_source(config)
  description = _description(config, task, rows, source)
  bert_config = checkpoints.find_config(
      source, config_file=config.bert_config_file,
      max_seq_length=description["max_seq_length"])
  tokenizer = checkpoints.find_tokenizer(
      source, bert_config, vocab_file=config.vocab_file,
      do_lower_case=config.do_lower_case,
      config_file=config.bert_config_file)
  with strategy.scope():
    model = task.make_model(
        bert_config, description, dtype=training.dtype_policy(config))
  model.encoder.rematerialize = config.rematerialize
  setup = _Setup(
      config=config, task=task, description=description, model=model,
      tokenizer=tokenizer, strategy=strategy)
  return setup, source


def _train(
    setup: _Setup, rows: Columns, source: checkpoints.ModelSource | None, *,
    evaluation
) -> dict[str, float] | None:
  """Trains to the end, from the start or from the newest saved state."""
  config, num_rows = setup.config, len(rows["text"])
  num_steps = int(num_rows * config.num_train_epochs / config.train_batch_size)
  require(
      num_steps > 0,
      f"--num_train_epochs: {config.num_train_epochs} passes over the "
      f"training rows are less than one batch of {config.train_batch_size}.")
  _, make_batch = setup.batches_of(rows)

  def load_weights():
    if source:
      checkpoints.load_weights(
          setup.model, source, new=(*setup.task.head, "bert/pooler/"))

  length = setup.description["max_seq_length"]
  job = training.Job(
      model=setup.model, objective=setup.task.objective, num_steps=num_steps,
      num_warmup_steps=int(num_steps * config.warmup_proportion),
      make_batches=lambda first_step, replicas: _training_batches(
          make_batch, num_rows=num_rows, batch_size=config.train_batch_size,
          seed=config.random_seed, first_step=first_step, replicas=replicas),
      load_weights=load_weights,
      identity=_identity(config, setup.model.config, setup.description, rows),
      evaluation=evaluation,
      eval_steps=config.eval_steps or max(
          num_rows // config.train_batch_size, 1),
      amounts={
        "examples": 1, "tokens": length,
        "model_flops": monitoring.flops_per_example(
            setup.model.config, sequence_length=length, predictions=0)},
      # Fine-tuning of small sets is steadier with it.
      bias_correction=True, layer_decay=config.layer_decay)
  results, step = training.run(config, job, strategy=setup.strategy)
  if distribution.is_chief(setup.strategy):
    checkpoints.save_model(
        config.output_dir, setup.model, setup.tokenizer,
        task=setup.description)
  return results and {"global_step": step, **results}


def run(config: FinetuningConfig, task: Task) -> dict[str, float]:
  """Fine-tunes, evaluates and predicts, as the config asks.

  In `config.output_dir`: the model directory with `task.json`,
  `metrics.jsonl`, TensorBoard files, `eval_results.json` and `.txt`,
  `predictions.tsv`, and the state to resume from in `training_state/`.

  Returns:
    The metrics of the evaluation at the end; empty without `do_eval`.

  Raises:
    InputError: an input is missing or does not fit.
  """
  strategy = training.start(config)
  rows = _rows_needed(config, task)
  setup, source = _set_up(config, task, rows, strategy=strategy)
  is_chief = distribution.is_chief(strategy)
  evaluation, results = None, None
  if config.do_eval and is_chief:
    evaluation = setup.make_evaluation(rows["dev"])
  if config.do_train:
    results = _train(setup, rows["train"], source, evaluation=evaluation)
  else:
    checkpoints.load_weights(setup.model, source)
  if config.do_predict and is_chief:
    setup.write_predictions(rows["test"])
  if evaluation:
    results = results or evaluation()
    write_results(config.output_dir, results)
  distribution.barrier(strategy)
  return results or {}
