"""The arguments of the tools for checkpoints: inspect, convert, adapt.

As those of `arguments`; standard library only.
"""

import dataclasses
import re

from bert_tf.arguments import check_options
from bert_tf.arguments import option
from bert_tf.config import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectionConfig:
  """Arguments of `tools/inspect_checkpoint.py`."""

  model_dirs: tuple[str, ...] = option(
      positional=True,
      help="A checkpoint, or two to compare: whatever --init_checkpoint "
           "takes.")
  json: bool = option(False, help="Print JSON, for machines.")

  def __post_init__(self):
    check_options(self)
    require(
        len(self.model_dirs) in (1, 2),
        f"received {len(self.model_dirs)} directories; give one, or two to "
        "compare.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionConfig:
  """Arguments of `tools/convert_checkpoint.py`."""

  input_dir: str = option(
      help="The checkpoint: whatever --init_checkpoint takes.")
  output_dir: str = option(
      help="The folder to write, on this machine; it must be new or empty.")
  to: str = option(
      choices=("google", "huggingface", "keras"),
      help="google: a model directory, as the original's. huggingface: "
           "config.json and model.safetensors. keras: model.keras.")
  vocab_file: str | None = option(
      None, help="The vocabulary. Not given: that of --input_dir, if it has "
                 "one.")
  do_lower_case: bool | None = option(
      None, help="Casing of the vocabulary. Not given: as "
                 "tokenizer_config.json beside it says, or as it shows.")

  def __post_init__(self):
    check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
  """Arguments of `tools/adapt_checkpoint.py`."""

  input_dir: tuple[str, ...] = option(
      help="The checkpoint: whatever --init_checkpoint takes. Several, with "
           "commas: the mean of each variable.")
  output_dir: str = option(
      help="The model directory to write, on this machine; it must be new or "
           "empty.")
  layers: str | None = option(
      None, help="Layers to keep, which are numbered anew. first:N: the N "
                 "lowest. every:N: 0, N, 2 N, ...; of twelve, every:2 is 0, "
                 "2, 4, 6, 8, 10. Or their numbers, from 0 and rising, such "
                 "as 0,2,11.")
  max_position_embeddings: int | None = option(
      None, low=1, help="Positions of the new model. Fewer than the model "
                        "has: the first ones stay.")
  position_extension: str | None = option(
      None, choices=("tile", "interpolate"),
      help="How the table becomes longer. tile: it is repeated (Beltagy et "
           "al. 2020). interpolate: it is stretched. Not given: tile.")
  new_pieces_file: str | None = option(
      None, help="Entries to append to the vocabulary, one a line: words, or "
                 "pieces inside words as ##piece.")
  vocab_file: str | None = option(
      None, help="The vocabulary. Not given: that of --input_dir, if it has "
                 "one.")
  do_lower_case: bool | None = option(
      None, help="Casing of the vocabulary. Not given: as "
                 "tokenizer_config.json beside it says, or as it shows.")

  def __post_init__(self):
    check_options(self)
    require(
        bool(self.input_dir) and all(self.input_dir),
        f"--input_dir: received {','.join(self.input_dir)!r}; must be a "
        "path, or several with a comma between two.")
    require(
        len(self.input_dir) > 1 or self.layers is not None
        or self.max_position_embeddings is not None
        or self.new_pieces_file is not None,
        "Received nothing to change; give --layers, "
        "--max_position_embeddings, --new_pieces_file or several "
        "--input_dir. For another form alone there is "
        "tools/convert_checkpoint.py.")
    require(
        self.position_extension is None
        or self.max_position_embeddings is not None,
        f"--position_extension: received {self.position_extension!r} without "
        "--max_position_embeddings.")
    _ = self.layer_rule

  @property
  def layer_rule(self) -> tuple[str, tuple[int, ...]] | None:
    """("first", (N,)), ("every", (N,)) or ("list", numbers) of --layers."""
    if self.layers is None:
      return None
    match = re.fullmatch(
        r"(?:(first|every):)?([0-9]+(?:,[0-9]+)*)", self.layers)
    kind = match and (match[1] or "list")
    numbers = tuple(map(int, match[2].split(","))) if match else ()
    is_rising = all(a < b for a, b in zip(numbers, numbers[1:]))
    least = {"first": 1, "every": 2}.get(kind)
    require(
        kind == "list" and is_rising
        or least is not None and len(numbers) == 1 and numbers[0] >= least,
        f"--layers: received {self.layers!r}; must be first:N with N at least "
        "1, every:N with N at least 2, or rising numbers from 0, such as "
        "0,2,11.")
    return kind, numbers
