"""The configurations: frozen dataclasses that check themselves.

`BertConfig` is the shape of a model, in the keys of the original
`bert_config.json`. The others are the arguments of the programs; a field's
default and its help text have their one home here, and
`bert_tf.command_line` makes the flags from them.

Standard library only.
"""

import dataclasses
import json
import math
import os
from typing import Any

HIDDEN_ACTIVATIONS = ("gelu", "gelu_exact", "relu", "tanh", "linear")

# Layers and hidden size of the released models. Heads are 64 wide and the
# feed-forward layer is four times the hidden size in all of them.
# Base and large: Devlin et al. 2019, section 3. The 24 miniatures: Turc et
# al. 2019, "Well-Read Students Learn Better"; four of them have names.
SIZES = {
  "tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512),
  "base": (12, 768), "large": (24, 1024),
  **{
    f"L-{layers}_H-{hidden}": (layers, hidden)
    for layers in (2, 4, 6, 8, 10, 12) for hidden in (128, 256, 512, 768)
  },
}

# Keys that stand in the original's files and change nothing there either.
_IGNORED_KEYS = frozenset({
  "directionality", "pooler_fc_size", "pooler_num_attention_heads",
  "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
})


class InputError(ValueError):
  """What the user gave is wrong, and the message says how to mend it.

  Programs print the message alone, without a traceback, and exit with 1.
  """


def require(condition: bool, message: str) -> None:
  """Raises `InputError(message)` unless the condition holds."""
  if not condition:
    raise InputError(message)


def read_json(path: str) -> Any:
  """The content of a JSON file; `InputError` names a bad file and line."""
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except FileNotFoundError:
    raise InputError(f"{path}: no such file.") from None
  except OSError as error:
    raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise InputError(f"{path}: not valid JSON: {error}.") from None


def write_text(path: str, text: str) -> None:
  """Writes a file under a temporary name, then renames it."""
  temporary = f"{path}.tmp-{os.getpid()}"
  try:
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
      file.write(text)
    os.replace(temporary, path)
  finally:
    if os.path.exists(temporary):
      os.remove(temporary)


def write_json(path: str, value: Any) -> None:
  """Writes JSON for people to read, as `write_text`."""
  write_text(path, json.dumps(
      value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _check_number(
    name: str, value: Any, kind: type, low: float, high: float = None
) -> None:
  allowed = (int,) if kind is int else (int, float)
  is_number = isinstance(value, allowed) and not isinstance(value, bool)
  bounds = f"at least {low}" if high is None else f"between {low} and {high}"
  highest = math.inf if high is None else high
  if not (is_number and math.isfinite(value) and low <= value <= highest):
    noun = "a whole number" if kind is int else "a number"
    raise InputError(f"{name}: received {value!r}; must be {noun} {bounds}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
  """The shape of a BERT model, in the keys of `bert_config.json`.

  `hidden_act` "gelu" is the tanh approximation, as in the original code;
  "gelu_exact" is the form with erf, which checkpoints from Hugging Face use.

  >>> BertConfig.from_size("tiny", vocab_size=100).num_attention_heads
  2
  """

  vocab_size: int
  hidden_size: int = 768
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  intermediate_size: int = 3072
  hidden_act: str = "gelu"
  hidden_dropout_prob: float = 0.1
  attention_probs_dropout_prob: float = 0.1
  max_position_embeddings: int = 512
  type_vocab_size: int = 2
  initializer_range: float = 0.02

  def __post_init__(self):
    for name in (
        "vocab_size", "hidden_size", "num_hidden_layers",
        "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "type_vocab_size"):
      _check_number(name, getattr(self, name), int, 1)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
      _check_number(name, getattr(self, name), float, 0, 0.999)
    _check_number("initializer_range", self.initializer_range, float, 0)
    require(
        self.hidden_size % self.num_attention_heads == 0,
        f"hidden_size: received {self.hidden_size}, which is not a multiple "
        f"of num_attention_heads ({self.num_attention_heads}).")
    require(
        self.hidden_act in HIDDEN_ACTIVATIONS,
        f"hidden_act: received {self.hidden_act!r}; must be one of "
        f"{', '.join(HIDDEN_ACTIVATIONS)}.")

  @classmethod
  def from_size(cls, size: str, **overrides) -> "BertConfig":
    """The config of a released size: "base", "tiny", "L-4_H-256", ..."""
    require(
        size in SIZES,
        f"size: received {size!r}; must be one of {', '.join(SIZES)}.")
    layers, hidden = SIZES[size]
    return cls(**{
      "hidden_size": hidden, "num_hidden_layers": layers,
      "num_attention_heads": hidden // 64, "intermediate_size": 4 * hidden,
      **overrides})

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> "BertConfig":
    """From the keys of `bert_config.json`; an unknown key is an error."""
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known - _IGNORED_KEYS)
    require(
        not unknown,
        f"Unknown key in the model config: {', '.join(unknown)}; known are "
        f"{', '.join(sorted(known))}.")
    require("vocab_size" in values, "vocab_size: missing in the model config.")
    return cls(**{k: v for k, v in values.items() if k in known})

  @classmethod
  def from_json_file(cls, path: str) -> "BertConfig":
    """Reads `bert_config.json`; errors name the file and the key."""
    values = read_json(path)
    require(isinstance(values, dict), f"{path}: must hold a JSON object.")
    try:
      return cls.from_dict(values)
    except InputError as error:
      raise InputError(f"{path}: {error}") from None

  def to_dict(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


def option(default: Any = dataclasses.MISSING, *, help: str, **metadata):
  """A dataclass field that becomes a flag; without a default, a required one.

  `choices=(...)` restricts the values; the flag and `check_options` obey it.
  """
  return dataclasses.field(
      default=default, metadata={"help": help, **metadata})


def check_options(config: Any) -> None:
  """Checks each field of an options dataclass against its metadata."""
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    choices = field.metadata.get("choices")
    if choices and value is not None:
      require(
          value in choices,
          f"--{field.name}: received {value!r}; must be one of "
          f"{', '.join(choices)}.")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is not None and value is not None:
      kind = int if isinstance(value, int) else float
      _check_number(f"--{field.name}", value, kind, low, high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
  """Arguments of `tools/learn_vocabulary.py`."""

  input_file: tuple[str, ...] = option(
      help="Text files, .txt or .txt.gz, as names or globs, with commas.")
  output_file: str = option(help="The vocabulary to write, an entry a line.")
  vocab_size: int = option(
      30522, low=100, help="Number of entries, special ones included.")
  init_vocab_file: str | None = option(
      None, help="A vocabulary to extend: its entries keep their ids, new ones "
                 "fill its [unused] slots first and are appended then, up to "
                 "--vocab_size. Not given: a new one is learnt.")
  num_unused: int = option(
      0, low=0, help="Slots [unused0], [unused1], ... for later additions: so "
                     "many in a new vocabulary, left free in an extended one.")
  do_lower_case: bool = option(
      True, help="Lower-case the text and strip accents.")
  on_bad_utf8: str = option(
      "error", choices=("error", "replace"),
      help="What to do with bytes that are not UTF-8.")

  def __post_init__(self):
    check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingDataConfig:
  """Arguments of `tools/create_pretraining_data.py`."""

  input_file: tuple[str, ...] = option(
      help="Text files, .txt or .txt.gz, as names or globs, with commas; a "
           "blank line ends a document.")
  output_file: tuple[str, ...] = option(
      help="TFRecord files to write, with commas; the examples are dealt to "
           "them in turn. stats.json is written beside the first.")
  vocab_file: str = option(help="The WordPiece vocabulary, an entry a line.")
  do_lower_case: bool | None = option(
      None, help="Lower-case the text and strip accents. Not given: as "
                 "tokenizer_config.json beside the vocabulary says, or as "
                 "the vocabulary itself shows.")
  do_whole_word_mask: bool = option(
      False, help="Mask all pieces of a word or none.")
  max_seq_length: int = option(
      128, low=8, help="Length of an example, [CLS] and [SEP] included.")
  max_predictions_per_seq: int = option(
      20, low=1, help="Most masked pieces in an example.")
  random_seed: int = option(
      12345, low=0, help="The same seed gives the same bytes.")
  dupe_factor: int = option(
      10, low=1, help="Passes over the corpus, each with its own masks.")
  masked_lm_prob: float = option(
      0.15, low=0.0, high=1.0, help="Share of pieces to mask.")
  short_seq_prob: float = option(
      0.1, low=0.0, high=1.0,
      help="Probability that a document gets, for one pass, a random, shorter "
           "target length.")
  sentence_splitter: str = option(
      "none", choices=("none", "rules"),
      help="none: a sentence a line, as in the original. rules: a line is "
           "running text, and sentences are found in it.")
  on_bad_utf8: str = option(
      "error", choices=("error", "replace"),
      help="What to do with bytes that are not UTF-8.")

  def __post_init__(self):
    check_options(self)
    require(
        self.max_predictions_per_seq <= self.max_seq_length - 3,
        f"--max_predictions_per_seq: received {self.max_predictions_per_seq}; "
        f"a sequence of {self.max_seq_length} holds at most "
        f"{self.max_seq_length - 3} pieces beside [CLS] and two [SEP].")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
  """Arguments of `run_pretraining.py`."""

  input_file: tuple[str, ...] = option(
      help="TFRecord files for training, as names or globs, with commas.")
  output_dir: str = option(
      help="The model directory to write; the run's state and metrics too.")
  bert_config_file: str | None = option(
      None, help="bert_config.json: the shape of the model. Not given: that "
                 "of --init_checkpoint.")
  vocab_file: str | None = option(
      None, help="The vocabulary of the records. Not given: that of "
                 "--init_checkpoint.")
  do_lower_case: bool | None = option(
      None, help="Casing of the vocabulary. Not given: as "
                 "tokenizer_config.json beside it says, or as it shows.")
  init_checkpoint: str | None = option(
      None, help="Where to start: a checkpoint's prefix, a model directory, "
                 "a Hugging Face directory or an exported SavedModel.")
  eval_input_file: tuple[str, ...] = option(
      (), help="Held-out TFRecord files. Not given: --input_file.")
  max_seq_length: int = option(
      128, low=8, help="Length of the records.")
  max_predictions_per_seq: int = option(
      20, low=1, help="Masked positions of the records.")
  do_train: bool = option(False, help="Train.")
  do_eval: bool = option(
      False, help="Evaluate, during training and at its end.")
  train_batch_size: int = option(32, low=1, help="Examples a step.")
  eval_batch_size: int = option(8, low=1, help="Examples an evaluation step.")
  learning_rate: float = option(
      5e-5, low=0.0, help="The highest learning rate, after the warm-up.")
  num_train_steps: int = option(100000, low=1, help="Steps in all.")
  num_warmup_steps: int = option(
      10000, low=0, help="Steps over which the learning rate rises.")
  save_checkpoints_steps: int = option(
      1000, low=1, help="Steps between two saved states.")
  eval_steps: int | None = option(
      None, low=1, help="Steps between two evaluations. Not given: "
                        "--save_checkpoints_steps.")
  max_eval_steps: int = option(
      100, low=1, help="Batches an evaluation takes at most.")
  log_steps: int = option(
      100, low=1, help="Steps between two lines of metrics.")
  random_seed: int = option(
      12345, low=0, help="Fixes initial weights, order of data and dropout.")

  def __post_init__(self):
    check_options(self)
    require(
        self.do_train or self.do_eval,
        "Received neither --do_train nor --do_eval; give at least one.")
    require(
        self.bert_config_file or self.init_checkpoint,
        "Received neither --bert_config_file nor --init_checkpoint; one of "
        "them must give the shape of the model.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
  """Arguments of `run_finetuning.py`."""

  task_name: str = option(help="The task; see bert_tf/tasks.")
  data_dir: str = option(help="The folder of train.tsv, dev.tsv, test.tsv.")
  output_dir: str = option(
      help="The model directory to write; the run's state and metrics too.")
  init_checkpoint: str | None = option(
      None, help="Where to start: a checkpoint's prefix, a model directory, "
                 "a Hugging Face directory or an exported SavedModel. Not "
                 "given: random weights. Without --do_train: the fine-tuned "
                 "model, if it is not that of --output_dir.")
  bert_config_file: str | None = option(
      None, help="bert_config.json: the shape of the model. Not given: that "
                 "of --init_checkpoint.")
  vocab_file: str | None = option(
      None, help="The vocabulary. Not given: that of --init_checkpoint.")
  do_lower_case: bool | None = option(
      None, help="Casing of the vocabulary. Not given: as "
                 "tokenizer_config.json beside it says, or as it shows.")
  text_column: str = option(
      "text", help="Column of the text: a name in the header, or a number "
                   "from 0 in files that have none.")
  label_column: str = option(
      "label", help="Column of the label, in the same way.")
  max_seq_length: int = option(
      128, low=8, help="Longer texts are cut; [CLS] and [SEP] count.")
  do_train: bool = option(False, help="Train on train.tsv.")
  do_eval: bool = option(
      False, help="Evaluate on dev.tsv, during training and at its end.")
  do_predict: bool = option(
      False, help="Write predictions.tsv for test.tsv, or for dev.tsv where "
                  "there is no test.tsv.")
  train_batch_size: int = option(32, low=1, help="Examples a step.")
  eval_batch_size: int = option(8, low=1, help="Examples an evaluation step.")
  predict_batch_size: int = option(
      8, low=1, help="Examples a prediction step.")
  learning_rate: float = option(
      5e-5, low=0.0, help="The highest learning rate, after the warm-up.")
  num_train_epochs: float = option(
      3.0, low=0.0, help="Passes over the training examples.")
  warmup_proportion: float = option(
      0.1, low=0.0, high=1.0,
      help="Share of the steps over which the learning rate rises.")
  save_checkpoints_steps: int = option(
      1000, low=1, help="Steps between two saved states.")
  eval_steps: int | None = option(
      None, low=1, help="Steps between two evaluations. Not given: once an "
                        "epoch.")
  log_steps: int = option(
      50, low=1, help="Steps between two lines of metrics.")
  on_bad_utf8: str = option(
      "error", choices=("error", "replace"),
      help="What to do with bytes that are not UTF-8.")
  random_seed: int = option(
      12345, low=0, help="Fixes the head's weights, order and dropout.")

  def __post_init__(self):
    check_options(self)
    require(
        self.do_train or self.do_eval or self.do_predict,
        "Received none of --do_train, --do_eval, --do_predict; give at "
        "least one.")
    require(
        not self.do_train or self.bert_config_file or self.init_checkpoint,
        "Received neither --bert_config_file nor --init_checkpoint; one of "
        "them must give the shape of the model.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
  """Arguments of `tools/export_saved_model.py`."""

  model_dir: str = option(
      help="A model directory, pretrained or fine-tuned, or any other "
           "checkpoint that --init_checkpoint takes.")
  export_dir: str = option(
      help="Where the versions lie; the next one is written.")
  vocab_file: str | None = option(
      None, help="The vocabulary. Not given: that of --model_dir.")
  do_lower_case: bool | None = option(
      None, help="Casing of the vocabulary. Not given: as "
                 "tokenizer_config.json beside it says, or as it shows.")

  def __post_init__(self):
    check_options(self)
