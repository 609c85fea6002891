"""The arguments of `tools/extract_features.py`, as those of `arguments`.

Standard library only.
"""

import dataclasses
import os
import re

from bert_tf.arguments import check_options
from bert_tf.arguments import option
from bert_tf.config import require

# What is no number among the layers: the sum of the embeddings, normalized.
EMBEDDINGS = "embeddings"
# The ending of a file's name -> what is written, where no flag says it.
_FORMATS_BY_ENDING = {".npz": "npz", ".tfrecord": "tfrecord"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureConfig:
  """Arguments of `tools/extract_features.py`."""

  input_file: str = option(
      help="A text a line, or a pair: a ||| b. Plain or .gz, .bz2, .xz, .zst.")
  output_file: str = option(
      help="The file to write; one that is there is replaced at the end.")
  init_checkpoint: str = option(
      help="The model: a directory of Google's form, of tf-models' or Hugging "
           "Face's, a checkpoint's prefix or a SavedModel.")
  layers: tuple[str, ...] = option(
      ("-1", "-2", "-3", "-4"),
      help="Encoder layers, with commas, as the original counts them: 0 is "
           "the first one above the embeddings, -1 the last. The output of "
           "the embeddings themselves: embeddings.")
  pooling: str = option(
      "none", choices=("none", "cls", "mean", "max"),
      help="none: a vector for each piece and layer. Else one for each text "
           "and layer: that of [CLS], or the mean or the greatest values over "
           "all pieces, [CLS] and [SEP] among them.")
  output_format: str | None = option(
      None, choices=("jsonl", "npz", "tfrecord"),
      help="jsonl: the original's, an object a line. npz: numpy's arrays. "
           "tfrecord: an example a line. Not given: by the ending of "
           "--output_file, .npz or .tfrecord, and else jsonl.")
  bert_config_file: str | None = option(
      None, help="The model's config. Not given: that of the checkpoint.")
  vocab_file: str | None = option(
      None, help="The vocabulary. Not given: that of the checkpoint.")
  do_lower_case: bool | None = option(
      None, help="Casing of the vocabulary. Not given: as "
                 "tokenizer_config.json beside it says, or as it shows.")
  max_seq_length: int = option(
      128, low=3, help="Most pieces of a text or pair, [CLS] and [SEP] among "
                       "them; what is longer is cut.")
  batch_size: int = option(32, low=1, help="Texts in a batch.")
  on_bad_utf8: str = option(
      "error", choices=("error", "replace"),
      help="What to do with bytes that are not UTF-8.")

  def __post_init__(self):
    check_options(self)
    _ = self.layer_indices

  @property
  def layer_indices(self) -> tuple[int | str, ...]:
    """--layers as numbers, and `EMBEDDINGS`."""
    for layer in self.layers:
      require(
          layer == EMBEDDINGS or re.fullmatch("-?[0-9]+", layer) is not None,
          f"--layers: received {layer!r}; must be whole numbers, such as "
          f"-1,-2, or {EMBEDDINGS}.")
    indices = tuple(
        layer if layer == EMBEDDINGS else int(layer) for layer in self.layers)
    require(
        bool(indices) and len(set(indices)) == len(indices),
        f"--layers: received {','.join(self.layers)!r}; name at least one, and "
        "each once.")
    return indices

  @property
  def format(self) -> str:
    """What is written: jsonl, npz or tfrecord."""
    ending = os.path.splitext(self.output_file.lower())[1]
    return self.output_format or _FORMATS_BY_ENDING.get(ending, "jsonl")
