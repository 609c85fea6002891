"""Fine-tuning: one driver for all tasks, which it knows as records.

Devlin et al. 2019, section 4 and appendix A.3.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import math
import os
from typing import Any

from absl import logging
import keras
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import distribution
from bert_tf import examples
from bert_tf import files
from bert_tf import monitoring
from bert_tf import training
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.config import write_text
from bert_tf.examples import Examples
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.losses import Objective
from bert_tf.modeling import BertEncoder
from bert_tf.reporting import write_results
from bert_tf.task_descriptions import kind_of
from bert_tf.tokenization import BertTokenizer

# The rows of one split: {column: values}, all of one length.
Columns = dict[str, list]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """What a task is: functions over its rows, its model and its outputs.

  A `description` is what `task.json` keeps: all that a trained model needs
  to be used again.
  """

  # Which of the general forms it has, which is what its exports and
  # conversions go by.
  kind: str
  # (config, split) -> rows of "train", "dev" or "test"; None: no such file.
  read: Callable[[FinetuningConfig, str], Columns | None]
  # (config, training rows) -> description.
  describe: Callable[[FinetuningConfig, Columns], dict[str, Any]]
  # (tokenizer, description, rows) -> pieces, and targets where rows have them.
  encode: Callable[[BertTokenizer, dict, Columns], Examples]
  # (BertConfig, description, dtype=) -> model over the encoder's inputs.
  make_model: Callable[..., keras.Model]
  objective: Objective
  # (description, rows, examples, outputs) -> metrics.
  metrics: Callable[[dict, Columns, Examples, dict], dict[str, float]]
  # (description, rows, examples, outputs) -> {name of a file: its text}.
  predictions: Callable[[dict, Columns, Examples, dict], dict[str, str]]
  # (model, tokenizer, description) -> {name: tf.function} to export.
  signatures: Callable[[keras.Model, BertTokenizer, dict], dict[str, Any]]
  # Prefixes of the head's variables, which no pretrained checkpoint has.
  head: tuple[str, ...]
  # The one that says which of two models is better.
  best_metric: str
  # Flags, where they are not given and not as for most tasks.
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Keys of the description that say how outputs are read: their flags, where
  # given, are for a model that is trained already too.
  reading: tuple[str, ...] = ()

  def quality(self, results: Mapping[str, float]) -> float:
    """What the best is chosen by.

    The accuracy where there is no such figure: of tags that mark no entities.
    """
    return results.get(self.best_metric, results.get("accuracy", 0.0))

  def read_as(self, description: dict[str, Any], config: Any) -> dict[str, Any]:
    """The description, with what the config's flags say of reading."""
    given = {name: getattr(config, name, None) for name in self.reading}
    return {**description, **{
      name: value for name, value in given.items() if value is not None}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
  """The parts of one run, made from its config."""

  config: FinetuningConfig
  task: Task
  description: dict[str, Any]
  model: keras.Model
  tokenizer: BertTokenizer
  strategy: tf.distribute.Strategy

  @property
  def padding(self) -> dict[str, Any]:
    return {"max_seq_length": self.description["max_seq_length"],
            "pad_to_max_length": self.config.pad_to_max_length}

  def encode(self, rows: Columns) -> Examples:
    # Of which rows that is which the task then counts.
    logging.info(
        "%d rows, of which the first is %s.", len(rows["where"]),
        rows["where"][0])
    return self.task.encode(self.tokenizer, self.description, rows)


class Outputs:
  """Rows as examples, and what the model says of them.

  `with_model` has the same rows for another model, which are not read again.
  """

  def __init__(
      self, setup: Setup, rows: Columns, *, batch_size: int,
      encoded: Examples | None = None
  ):
    self._setup, self.rows, self._batch_size = setup, rows, batch_size
    self._encoded = encoded or setup.encode(rows)
    self._predict = examples.make_predictor(
        setup.model, self._encoded, batch_size=batch_size, **setup.padding)
    # Of the newest evaluation, as long as the model is the same.
    self._newest = None

  def evaluate(self) -> dict[str, float]:
    """The metrics of the model as it is."""
    self._newest = self._predict()
    setup = self._setup
    return setup.task.metrics(
        setup.description, self.rows, self._encoded, self._newest)

  def with_model(self, model: keras.Model) -> "Outputs":
    return Outputs(
        dataclasses.replace(self._setup, model=model), self.rows,
        batch_size=self._batch_size, encoded=self._encoded)

  def forget(self) -> None:
    """To be called where the model changes after its last evaluation."""
    self._newest = None

  def write_predictions(self) -> None:
    """Writes the files of the task, of the last evaluation if there was one."""
    setup, directory = self._setup, self._setup.config.output_dir
    outputs = self._newest or self._predict()
    files.make_directories(directory)
    written = setup.task.predictions(
        setup.description, self.rows, self._encoded, outputs)
    for name, text in written.items():
      write_text(os.path.join(directory, name), text)
    logging.info(
        "Wrote %s for %d rows into %s.", ", ".join(written),
        len(self.rows["where"]), directory)


class _Best:
  """The best model on the dev rows so far, kept in a folder of its own.

  Beside it stands what each evaluation came to. So a run that was cut goes on
  as one that was left alone.
  """

  def __init__(self, setup: Setup, dev: Outputs):
    self._setup = setup
    self._dev = dev
    self._directory = os.path.join(setup.config.output_dir, "best")
    self._file = os.path.join(self._directory, "evaluations.json")
    # {step: metrics}
    self._seen = {}
    if files.exists(self._file):
      self._seen = {int(k): v for k, v in read_json(self._file).items()}

  def __call__(self, step: int) -> dict[str, float]:
    """Evaluates, and saves the model if it is the best so far."""
    results = self._dev.evaluate()
    # What a run that was cut computed beyond its saved state comes again.
    self._seen = {k: v for k, v in self._seen.items() if k < step}
    self._seen[step] = results
    if self._best_step == step:
      checkpoints.save_model(
          self._directory, self._setup.model, self._setup.tokenizer,
          task=self._setup.description)
    files.make_directories(self._directory)
    write_json(self._file, {str(k): v for k, v in self._seen.items()})
    return results

  @property
  def _best_step(self) -> int:
    """Of equal ones the first."""
    quality = self._setup.task.quality
    return max(
        self._seen, key=lambda step: (quality(self._seen[step]), -step))

  def is_over(self) -> bool:
    """Whether --patience is at its end."""
    patience = self._setup.config.patience
    return patience is not None and bool(self._seen) and (
        sum(step > self._best_step for step in self._seen) >= patience)

  def take(self) -> tuple[dict[str, float], int]:
    """Makes the model what it was at its best; the metrics and step of then."""
    step = self._best_step
    checkpoints.load_weights(
        self._setup.model, checkpoints.open_source(self._directory))
    self._dev.forget()
    logging.info("The model of step %d was the best and is kept.", step)
    return self._seen[step], step


def rows_needed(config: FinetuningConfig, task: Task) -> dict[str, Columns]:
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
        f"{config.data_source}: no {split} rows there ({split}.tsv, a split "
        "of that name in TFDS, or as the README says for the task), which "
        "this run needs.")
  if config.max_train_examples and config.do_train:
    rows["train"] = {
      name: values[:config.max_train_examples]
      for name, values in rows["train"].items()}
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
    name = config.task_name or task.kind
    found = task.describe(config, rows["train"])
    require(
        config.features == found.get("features"),
        f"--features: received {config.features} with --task_name={name}, "
        "whose model has no such head.")
    return {
      **found, "task_name": name,
      **({"kind": task.kind} if task.kind != name else {}),
      "max_seq_length": config.max_seq_length}
  description = source and checkpoints.read_task(source)
  require(
      bool(description),
      f"Without --do_train, {config.output_dir} or --init_checkpoint must "
      f"hold a fine-tuned model; neither has a {checkpoints.TASK_FILE}.")
  require(
      kind_of(description) == task.kind,
      f"{source.path}: was trained for {description['task_name']!r}, not for "
      f"--task_name={config.task_name}.")
  return task.read_as(description, config)


def _identity(config, bert_config, description, rows) -> dict[str, Any]:
  """What a run cannot change on its way: model, task, start and order."""
  return {
    **bert_config.to_dict(), **description,
    "num_train_rows": len(rows["where"]),
    **{name: getattr(config, name) for name in (
      "random_seed", "train_batch_size", "init_checkpoint", "optimizer",
      "freeze_layers", "group_by_length")}}


def _freeze(encoder: BertEncoder, num_layers: int) -> None:
  """The embeddings and so many of the lowest blocks are not trained."""
  require(
      num_layers <= len(encoder.encoder_layers),
      f"--freeze_layers: received {num_layers}; the model has "
      f"{len(encoder.encoder_layers)} layers.")
  if num_layers:
    for layer in (encoder.embeddings, *encoder.encoder_layers[:num_layers]):
      layer.trainable = False


def _tell_what_is_frozen(model: keras.Model) -> None:
  trained = sum(math.prod(v.shape) for v in model.trainable_variables)
  total = model.count_params()
  if trained < total:
    logging.info(
        "%s of %s parameters are trained.", f"{trained:,}", f"{total:,}")


def _set_up(
    config: FinetuningConfig, task: Task, rows: dict[str, Columns], *,
    strategy: tf.distribute.Strategy
) -> tuple[Setup, checkpoints.ModelSource | None]:
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
  # Once more: TFDS draws numbers too when it prepares a dataset, and weights
  # must be the same the next time, when it does not.
  keras.utils.set_random_seed(config.random_seed % 2**32)
  with strategy.scope():
    model = task.make_model(
        bert_config, description, dtype=training.dtype_policy(config))
  model.encoder.rematerialize = config.rematerialize
  # Where XLA does not need to know the shapes before.
  model.encoder.remove_padding = not (
      config.jit_compile or config.pad_to_max_length
      or config.distribution_strategy == "tpu")
  _freeze(model.encoder, config.freeze_layers)
  setup = Setup(
      config=config, task=task, description=description, model=model,
      tokenizer=tokenizer, strategy=strategy)
  return setup, source


def _train(
    setup: Setup, rows: Columns, source: checkpoints.ModelSource | None, *,
    dev: Outputs | None
) -> dict[str, float] | None:
  """Trains to the end, from the start or from the newest saved state."""
  _tell_what_is_frozen(setup.model)
  config, encoded = setup.config, setup.encode(rows)
  num_steps = int(
      encoded.number * config.num_train_epochs / config.train_batch_size)
  require(
      num_steps > 0,
      f"--num_train_epochs: {config.num_train_epochs} passes over the "
      f"training rows are less than one batch of {config.train_batch_size}.")
  lengths = encoded.lengths
  order = examples.training_order(
      lengths, batch_size=config.train_batch_size, num_steps=num_steps,
      seed=config.random_seed, group_by_length=config.group_by_length)

  def load_weights():
    if source:
      checkpoints.load_weights(
          setup.model, source, new=(*setup.task.head, "bert/pooler/"))

  best = None
  if dev and (config.keep_best or config.patience):
    best = _Best(setup, dev)
  tokens = int(lengths.mean())
  job = training.Job(
      model=setup.model, objective=setup.task.objective, num_steps=num_steps,
      num_warmup_steps=int(num_steps * config.warmup_proportion),
      make_batches=lambda first_step, replicas: examples.training_batches(
          encoded, order, first_step=first_step, replicas=replicas,
          **setup.padding),
      load_weights=load_weights,
      identity=_identity(config, setup.model.config, setup.description, rows),
      evaluation=best or (dev and (lambda step: dev.evaluate())),
      is_over=best.is_over if best else lambda: False,
      eval_steps=config.eval_steps or max(
          encoded.number // config.train_batch_size, 1),
      amounts={
        "examples": 1, "tokens": tokens * encoded.choices,
        "model_flops": encoded.choices * monitoring.flops_per_example(
            setup.model.config, sequence_length=tokens, predictions=0,
            read=None if setup.model.reads_sequence else 1,
            is_trained=setup.model.encoder.trainable)},
      # Fine-tuning of small sets is steadier with it.
      bias_correction=True, layer_decay=config.layer_decay)
  results, step = training.run(config, job, strategy=setup.strategy)
  if best:
    results, step = best.take()
  if distribution.is_chief(setup.strategy):
    checkpoints.save_model(
        config.output_dir, setup.model, setup.tokenizer,
        task=setup.description)
  return results and {"global_step": step, **results}


def run(config: FinetuningConfig, task: Task) -> dict[str, float]:
  """Fine-tunes, evaluates and predicts, as the config asks.

  In `config.output_dir`: the model directory with `task.json`,
  `metrics.jsonl`, TensorBoard files, `eval_results.json` and `.txt`, the
  task's predictions, and the state to resume from in `training_state/`.

  Returns:
    The metrics of the evaluation at the end; empty without `do_eval`.

  Raises:
    InputError: an input is missing or does not fit.
  """
  require(
      config.doc_stride is None or "doc_stride" in task.reading,
      f"--doc_stride: received {config.doc_stride}; --task_name="
      f"{config.task_name} makes no windows over long texts. Leave it out.")
  config = config.with_defaults(task.defaults)
  strategy = training.start(config)
  rows = rows_needed(config, task)
  setup, source = _set_up(config, task, rows, strategy=strategy)
  is_chief = distribution.is_chief(strategy)
  dev, results = None, None
  if config.do_eval and is_chief:
    dev = Outputs(setup, rows["dev"], batch_size=config.eval_batch_size)
  if config.do_train:
    results = _train(setup, rows["train"], source, dev=dev)
  else:
    checkpoints.load_finetuned(setup.model, source)
  if dev:
    results = results or dev.evaluate()
    write_results(config.output_dir, results)
  if config.do_predict and is_chief:
    # Without test rows those of dev, whose outputs may be there already.
    is_dev = dev and rows["test"] is rows["dev"]
    outputs = dev if is_dev else Outputs(
        setup, rows["test"], batch_size=config.predict_batch_size)
    outputs.write_predictions()
  distribution.barrier(strategy)
  return results or {}
