"""`BertConfig`, and what every module needs: input errors, files of JSON.

Standard library only.
"""

import dataclasses
import json
import math
from typing import Any

from bert_tf import files
from bert_tf.errors import InputError
from bert_tf.errors import require

HIDDEN_ACTIVATIONS = ("gelu", "gelu_exact", "relu", "tanh", "linear")
# What a position sees: all others, or those before it and itself.
ATTENTIONS = ("bidirectional", "left_to_right")

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

# Devlin et al. 2019, table 7: {name: (which of an encoder's hidden states,
# counting the embeddings as the first; whether their weighted sum is taken,
# or else they are joined)}.
FEATURES = {
  "embeddings": (slice(0, 1), False),
  "second_to_last": (slice(-2, -1), False),
  "last": (slice(-1, None), False),
  "weighted_sum_last_four": (slice(-4, None), True),
  "concat_last_four": (slice(-4, None), False),
  "weighted_sum_all": (slice(1, None), True),
}

# Keys that stand in the original's files and change nothing there either.
_IGNORED_KEYS = frozenset({
  "directionality", "pooler_fc_size", "pooler_num_attention_heads",
  "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
})


def read_json(path: str) -> Any:
  """The content of a JSON file; `InputError` names a bad file and line."""
  try:
    with files.open_file(path) as file:
      return json.load(file)
  except FileNotFoundError:
    raise InputError(f"{path}: no such file.") from None
  except OSError as error:
    raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise InputError(f"{path}: not valid JSON: {error}.") from None


def write_text(path: str, text: str) -> None:
  """Writes a file under a temporary name, then renames it."""
  with files.replacing(path) as temporary:
    with files.open_file(temporary, "w") as file:
      file.write(text)


def write_json(path: str, value: Any) -> None:
  """Writes JSON for people to read, as `write_text`."""
  write_text(path, json.dumps(
      value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def check_number(
    name: str, value: Any, kind: type, low: float, high: float = None
) -> None:
  """Raises `InputError` unless this is a number of that kind in that range."""
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
  `attention` "left_to_right" is the ablation of Devlin et al. 2019, section
  5.1; the key is written only then, so that other readers know all the keys
  of a BERT.

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
  attention: str = "bidirectional"

  def __post_init__(self):
    for name in (
        "vocab_size", "hidden_size", "num_hidden_layers",
        "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "type_vocab_size"):
      check_number(name, getattr(self, name), int, 1)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
      check_number(name, getattr(self, name), float, 0, 0.999)
    check_number("initializer_range", self.initializer_range, float, 0)
    require(
        self.hidden_size % self.num_attention_heads == 0,
        f"hidden_size: received {self.hidden_size}, which is not a multiple "
        f"of num_attention_heads ({self.num_attention_heads}).")
    require(
        self.hidden_act in HIDDEN_ACTIVATIONS,
        f"hidden_act: received {self.hidden_act!r}; must be one of "
        f"{', '.join(HIDDEN_ACTIVATIONS)}.")
    require(
        self.attention in ATTENTIONS,
        f"attention: received {self.attention!r}; must be one of "
        f"{', '.join(ATTENTIONS)}.")

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

  @property
  def is_causal(self) -> bool:
    return self.attention == "left_to_right"

  def to_dict(self) -> dict[str, Any]:
    values = dataclasses.asdict(self)
    if not self.is_causal:
      del values["attention"]
    return values
