"""SavedModels that take strings, for TensorFlow Serving and for reuse.

What is saved is a `servable.Servable`; that of a pretrained encoder is also
what fine-tuning can start from.

Shapes: B texts, S sequence length, H hidden size, M masks in a text, K best
pieces.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import functools
import os
import shutil
from typing import Any

from absl import logging
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import export_comparison
from bert_tf import saved_model_check
from bert_tf import serving
from bert_tf import serving_files
from bert_tf.arguments import ExportConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.errors import one_line
from bert_tf.export_comparison import Candidate
from bert_tf.features import POOLINGS
from bert_tf.features import check_pooling
from bert_tf.finetuning import Task
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.freezing import freeze
from bert_tf.freezing import is_frozen
from bert_tf.heads import BertForPreTraining
from bert_tf.modeling import BertEncoder
from bert_tf.quantization import quantize
from bert_tf.servable import ReusableEncoder
from bert_tf.servable import Servable
from bert_tf.servable import trained_weights
from bert_tf.task_descriptions import kind_of
from bert_tf.tokenization import BertTokenizer

# How many pieces fill_mask gives for each mask.
TOP_K = 5


def _encoder_signatures(
    infer: Callable, config: BertConfig, tokenizer: BertTokenizer, *,
    pooling: str, l2_normalize: bool, has_pooler: bool
) -> dict[str, Callable]:
  """text [B], or pieces -> `embedding` [B, H], pooled from the last layer.

  Pieces also get `sequence_output` [B, S, H], zeros for the padding, and,
  where there is a pooler, `pooled_output` [B, H].
  """
  check_pooling(pooling, config)

  def embed(sequence, inputs):
    embedding = POOLINGS[pooling](sequence, inputs["input_mask"])
    return tf.math.l2_normalize(embedding, -1) if l2_normalize else embedding

  def embed_text(text):
    inputs = tokenizer(text, max_seq_length=config.max_position_embeddings)
    return {"embedding": embed(infer(inputs)["sequence_output"], inputs)}

  def encode(inputs):
    tf.debugging.assert_positive(
        tf.reduce_max(inputs["input_mask"], axis=1),
        message="input_mask: each row must hold a piece")
    outputs = infer(inputs)
    sequence = outputs["sequence_output"]
    pooled = {"pooled_output": outputs["pooled_output"]} if has_pooler else {}
    return {
      "embedding": embed(sequence, inputs), "sequence_output": sequence,
      **pooled}

  embedding = serving.of_texts(["text"], embed_text)
  return {
    "serving_default": embedding, "embedding": embedding,
    "pre_tokenized": serving.of_pieces(config, encode)}


def _fill_mask_signature(
    model: BertForPreTraining, infer: Callable, tokenizer: BertTokenizer
) -> Callable:
  """text [B] with "[MASK]" in it -> the best pieces for each of its masks.

  `pieces` string [B, M, K] and `probabilities` float32 [B, M, K], best
  first; texts with fewer masks are padded with "" and 0.
  """
  entries = tf.constant(tokenizer.vocabulary)

  def fill_mask(text):
    inputs = tokenizer.pack(
        tokenizer.tokenize(text, allow_special_tokens=True),
        max_seq_length=model.config.max_position_embeddings)
    is_mask = tf.equal(inputs["input_ids"], tokenizer.mask_id)  # [B, S]
    places = tf.where(is_mask)  # [N, 2]: the masks of all texts
    logits = model.mlm_head(
        tf.gather_nd(infer(inputs)["sequence_output"], places),
        model.encoder.embedding_table)
    best, ids = tf.math.top_k(tf.nn.softmax(logits), k=TOP_K)  # [N, K]

    def by_text(values, padding):  # [B, M, K]
      return tf.RaggedTensor.from_value_rowids(
          values, places[:, 0], nrows=tf.shape(is_mask, tf.int64)[0],
          validate=False).to_tensor(padding)

    return {
      "pieces": by_text(tf.gather(entries, ids), ""),
      "probabilities": by_text(best, 0.0),
    }

  return serving.of_texts(["text"], fill_mask)


def _dtype(precision: str) -> str | None:
  """What Keras layers store and compute in; int8 begins as float32."""
  return "bfloat16" if precision == "bfloat16" else None


def _pretrained(
    source: checkpoints.ModelSource, config: BertConfig, *, precision: str
):
  """Of a checkpoint with or without the pretraining heads.

  Returns:
    The model, its encoder, and the names of what is missing, so untrained.
  """
  has_heads = any(name.startswith("cls/predictions") for name in source.shapes)
  make = BertForPreTraining if has_heads else BertEncoder
  model = make(config, dtype=_dtype(precision))
  untrained = checkpoints.load_pretrained(model, source)
  if precision == "int8":
    quantize(model)
  return model, model.encoder if has_heads else model, untrained


def _make_pretrained(
    source, config, tokenizer, *, precision: str, freeze_graph: bool, **kwargs
) -> Candidate:
  """`kwargs` say how texts are embedded."""
  model, encoder, untrained = _pretrained(
      source, config, precision=precision)
  if freeze_graph:
    freeze(encoder)
  infer = serving.inference(encoder)
  signatures = _encoder_signatures(
      infer, config, tokenizer, has_pooler=not any(
          name.startswith("bert/pooler/") for name in untrained), **kwargs)
  # From left to right a piece predicts the next one, and no [MASK].
  if model is not encoder and not config.is_causal:
    signatures["fill_mask"] = _fill_mask_signature(model, infer, tokenizer)
  return Candidate(
      model=model, signatures=signatures, untrained=untrained)


def _make_finetuned(
    source, config, tokenizer, description: dict[str, Any], task: Task, *,
    precision: str, freeze_graph: bool
) -> Candidate:
  model = task.make_model(config, description, dtype=_dtype(precision))
  checkpoints.load_finetuned(model, source)
  if precision == "int8":
    quantize(model)
  if freeze_graph:
    freeze(model)
  return Candidate(
      model=model,
      signatures=task.signatures(model, tokenizer, description))


def _make_servable(
    made: Candidate, tokenizer: BertTokenizer, *, is_reusable: bool
) -> Servable:
  if is_reusable:
    return ReusableEncoder(made.model, tokenizer, untrained=made.untrained)
  servable = Servable(made.model, tokenizer, untrained=made.untrained)
  # A pooler that nobody has trained is no weight, but the call reads it.
  trained = trained_weights(made.model, untrained=made.untrained)
  servable.untrained_variables = [
    v.value for name, v in checkpoints.checkpoint_names(made.model).items()
    if name.startswith("bert/") and name not in trained
    and not is_frozen(made.model, v)]
  return servable


def _next_version(export_dir: str) -> int:
  versions = [int(name) for name in os.listdir(export_dir) if name.isdecimal()]
  return max(versions, default=0) + 1


@contextlib.contextmanager
def _new_version(export_dir: str) -> Iterator[str]:
  """Yields a temporary folder, to become the next version of an export.

  Raises:
    InputError: it cannot be written: a full disk, no permission. As after any
      other error nothing of it is left.
  """
  was_there = os.path.isdir(export_dir)
  # A server passes over a name that is not a number.
  temporary = os.path.join(export_dir, f"incomplete-{os.getpid()}")
  try:
    os.makedirs(export_dir, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    yield temporary
  except (OSError, tf.errors.OpError) as error:
    # TensorFlow says "the file; the reason [Op:SaveV2]".
    reason = getattr(error, "strerror", None) or (
        str(error).rpartition("; ")[2].partition(" [Op:")[0])
    raise InputError(
        f"{export_dir}: cannot be written: {one_line(reason)}. Nothing is left "
        "there of this export; make room or name another --export_dir."
    ) from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
    if not was_there:
      with contextlib.suppress(OSError):
        os.rmdir(export_dir)  # If it is empty.


def save(
    servable: Servable, signatures: Mapping[str, Callable], export_dir: str,
    *, files: Callable[[str], None]
) -> str:
  """Writes the next version of an export and returns its path.

  Args:
    servable: what holds the variables and the tokenizer.
    signatures: {name: tf.function with an input signature}.
    export_dir: the folder of all versions.
    files: writes what travels along into a folder: the assets.

  Raises:
    InputError: it cannot be written, or a server would not run it.
  """
  # Not traced before: saving would trace them again, with constants of their
  # own.
  for name, function in signatures.items():
    setattr(servable, f"signature_{name}", function)
  with _new_version(export_dir) as temporary:
    tf.saved_model.save(
        servable, temporary, signatures=dict(signatures),
        options=tf.saved_model.SaveOptions(
            experimental_custom_gradients=False))
    serving.set_method_names(temporary, signatures)
    files(os.path.join(temporary, "assets"))
    saved_model_check.check(temporary)
    path = os.path.join(export_dir, str(_next_version(export_dir)))
    os.rename(temporary, path)
  logging.info(
      "Exported %s with the signatures %s.", path, ", ".join(signatures))
  return path


def _description(
    config: ExportConfig, tasks: Mapping[str, Task],
    source: checkpoints.ModelSource
) -> dict[str, Any] | None:
  """Of a fine-tuned model, with what the flags say; None of a pretrained one.

  Raises:
    InputError: the task is not known, or flags do not fit it.
  """
  description = checkpoints.read_task(source)
  require(
      config.null_score_diff_threshold is None
      or bool((description or {}).get("version_2_with_negative")),
      f"--null_score_diff_threshold: {config.model_dir} was not fine-tuned "
      "with --version_2_with_negative, so it never answers with nothing.")
  if description is None:
    return None
  require(
      config.pooling is None and not config.l2_normalize,
      f"--pooling, --l2_normalize: {config.model_dir} was fine-tuned for "
      f"{description['task_name']!r} and exports no embeddings. Leave them "
      "out, or export a pretrained model.")
  kind = kind_of(description)
  require(
      kind in tasks,
      f"{config.model_dir}: was fine-tuned for the task {kind!r}; known "
      f"are {', '.join(tasks)}.")
  return tasks[kind].read_as(description, config)


def _maker(
    config: ExportConfig, tasks: Mapping[str, Task],
    source: checkpoints.ModelSource, tokenizer: BertTokenizer,
    description: dict[str, Any] | None
) -> Callable[..., Candidate]:
  """A function: (precision=, freeze_graph=) -> what the export is made of."""
  bert_config = checkpoints.config_of(source)
  if description is None:
    return functools.partial(
        _make_pretrained, source, bert_config, tokenizer,
        pooling=config.pooling or "mean", l2_normalize=config.l2_normalize)
  return functools.partial(
      _make_finetuned, source, bert_config, tokenizer, description,
      tasks[kind_of(description)])


def run(
    config: ExportConfig, tasks: Mapping[str, Task], *,
    evaluation: FinetuningConfig | None = None
) -> str:
  """Exports a model directory; returns the path of the new version.

  In another precision than float32, or frozen, it is compared with variables
  in float32: a table is printed, and is in the card.

  Args:
    config: what to export.
    tasks: by name.
    evaluation: of `config.eval_flags`, the dev rows to compare on.

  Raises:
    InputError: no model, no vocabulary, or a task that is not known.
  """
  require(
      not os.path.isfile(config.export_dir),
      f"{config.export_dir}: is a file; --export_dir must name a folder.")
  source = checkpoints.open_source(config.model_dir)
  bert_config = checkpoints.config_of(source)
  tokenizer = checkpoints.find_tokenizer(
      source, bert_config, vocab_file=config.vocab_file,
      do_lower_case=config.do_lower_case)
  description = _description(config, tasks, source)
  make = _maker(config, tasks, source, tokenizer, description)
  made = make(
      precision=config.precision, freeze_graph=config.freeze_graph)
  comparison = None
  name = config.precision + ", frozen" * config.freeze_graph
  if name != "float32":
    exact = make(precision="float32", freeze_graph=False)
    comparison = export_comparison.compare(
        {"float32": exact, name: made},
        dev=evaluation and export_comparison.dev_outputs(
            evaluation, tasks, description, tokenizer, model=exact.model))
    print("\n".join(export_comparison.lines(comparison)))

  def files(directory):
    checkpoints.save_model_files(
        directory, bert_config, tokenizer, task=description)
    serving_files.write(
        directory, task=description, model_dir=source.directory,
        comparison=comparison)

  servable = _make_servable(
      made, tokenizer,
      is_reusable=description is None and name == "float32")
  return save(servable, made.signatures, config.export_dir, files=files)
