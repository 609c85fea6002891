"""A checkpoint to go on from: averaged, with other layers, positions, pieces.

Each step takes a model and returns it changed, in this order:

  average          several checkpoints become their mean
  take_layers      a smaller student keeps some of the layers
  resize_positions the table of positions becomes longer or shorter
  add_pieces       the vocabulary gets new entries at its end

Variables are read one by one, when they are written; what no step is about
stays equal to the bit. Pooler, heads and `task.json` travel.

Shapes: V vocabulary, K new entries, M positions, N new positions, H hidden
size.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import re
from typing import Any
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import conversion
from bert_tf.checkpoint_arguments import AdaptationConfig
from bert_tf.config import BertConfig
from bert_tf.config import require
from bert_tf.model_source import Tensors
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import MAX_WORD_LENGTH
from bert_tf.tokenization import is_inside
from bert_tf.vocabulary_files import read_entries
from bert_tf.words import WordSplitter

_LAYER = re.compile(r"(?<=^bert/encoder/layer_)\d+(?=/)")
_POSITIONS = "bert/embeddings/position_embeddings"
# What has a row, or a number, for each entry of the vocabulary.
_BY_PIECE = ("bert/embeddings/word_embeddings", "cls/predictions/output_bias")


class Model(NamedTuple):
  """A checkpoint with what stands beside it; `path` names it in errors."""

  path: str
  config: BertConfig
  tensors: Tensors
  tokenizer: BertTokenizer | None
  task: dict[str, Any] | None


def open_model(
    path: str, *, vocab_file: str | None = None,
    do_lower_case: bool | None = None
) -> Model:
  """The model of any path that `checkpoints.open_source` takes."""
  source = checkpoints.open_source(path)
  config = checkpoints.config_of(source)
  return Model(
      path, config, conversion.bert_tensors(source, config),
      conversion.tokenizer_of(
          source, config, vocab_file=vocab_file, do_lower_case=do_lower_case),
      checkpoints.read_task(source))


def _changed(
    tensors: Tensors, shapes: dict[str, tuple[int, ...]],
    change: Callable[[np.ndarray], np.ndarray]
) -> Tensors:
  """Tensors of which those in `shapes` are changed, to these shapes."""

  def read(name):
    array = tensors.read(name)
    return change(array) if name in shapes else array

  return Tensors({**tensors.shapes, **shapes}, read)


def _differences(one: dict[str, Any], other: dict[str, Any]) -> str:
  """What two dicts differ in, for people.

  >>> _differences({"a": 1, "b": 2}, {"b": 3})
  'a: 1 and none; b: 2 and 3'
  """
  return "; ".join(
      f"{key}: {one.get(key, 'none')} and {other.get(key, 'none')}"
      for key in sorted(one.keys() | other.keys())
      if one.get(key, "none") != other.get(key, "none"))


def _vocabulary_difference(
    one: BertTokenizer | None, other: BertTokenizer | None
) -> str:
  """The same of two vocabularies: the first line, or the casing."""
  if one is None or other is None:
    return "" if one is other else (
        f"the {'second' if one else 'first'} has no vocabulary (name one for "
        "both with --vocab_file)")
  for line, (a, b) in enumerate(zip(one.vocabulary, other.vocabulary), 1):
    if a != b:
      return f"line {line} of the vocabulary: {a!r} and {b!r}"
  if one.do_lower_case != other.do_lower_case:
    return f"do_lower_case: {one.do_lower_case} and {other.do_lower_case}"
  return ""


def average(models: Sequence[Model]) -> Model:
  """The arithmetic mean of models of one shape, variable by variable.

  Sums are float64, so that the order of the models changes the float32
  result by no more than its rounding. One variable is summed at a time.
  (Wortsman et al. 2022, "Model soups".)

  Raises:
    InputError: the models differ in their config, vocabulary, task or
      variables; it names what differs.
  """
  first, *others = models
  for other in others:
    difference = (
        _differences(first.config.to_dict(), other.config.to_dict())
        or _vocabulary_difference(first.tokenizer, other.tokenizer)
        or _differences(first.task or {}, other.task or {})
        or _differences(first.tensors.shapes, other.tensors.shapes))
    require(
        not difference,
        f"--input_dir: {first.path} and {other.path} have no mean, since they "
        f"differ in {difference}.")

  def read(name):
    if not others:
      return first.tensors.read(name)
    total = first.tensors.read(name).astype(np.float64)
    for other in others:
      total += other.tensors.read(name)
    return (total / len(models)).astype(np.float32)

  return first._replace(tensors=Tensors(first.tensors.shapes, read))


def chosen_layers(
    rule: tuple[str, tuple[int, ...]], num_layers: int) -> list[int]:
  """The layers that `AdaptationConfig.layer_rule` asks for.

  Every other: one layer out of two, as DistilBERT starts (Sanh et al. 2019,
  section 3). The first ones: as BERT-PKD does (Sun et al. 2019).

  Raises:
    InputError: there are no such layers, or these are all there are.

  >>> chosen_layers(("every", (2,)), 12)
  [0, 2, 4, 6, 8, 10]
  """
  kind, numbers = rule
  if kind == "every":
    layers = list(range(0, num_layers, numbers[0]))
  else:
    layers = list(range(numbers[0]) if kind == "first" else numbers)
  text = ",".join(map(str, numbers))
  received = text if kind == "list" else f"{kind}:{text}"
  require(
      layers[-1] < num_layers,
      f"--layers: received {received}; the model has {num_layers} layers, 0 "
      f"to {num_layers - 1}.")
  require(
      len(layers) < num_layers,
      f"--layers: received {received}; these are all {num_layers} layers of "
      "the model: leave the flag out.")
  return layers


def take_layers(model: Model, layers: Sequence[int]) -> Model:
  """The model with these of its layers, which become 0, 1, 2, ..."""
  new_number = {str(old): str(new) for new, old in enumerate(layers)}
  there = {}
  for name in model.tensors.shapes:
    match = _LAYER.search(name)
    if not match:
      there[name] = name
    elif match[0] in new_number:
      there[_LAYER.sub(new_number[match[0]], name)] = name
  logging.info("Layers %s are kept.", ", ".join(map(str, layers)))
  return model._replace(
      config=dataclasses.replace(model.config, num_hidden_layers=len(layers)),
      tensors=Tensors(
          {name: model.tensors.shapes[old] for name, old in there.items()},
          lambda name: model.tensors.read(there[name])))


def tile(table: np.ndarray, size: int) -> np.ndarray:
  """[M, H] to [N, H]: repeated, or cut to the first N.

  As Longformer's positions start (Beltagy et al. 2020, section 5): what
  attention learnt of neighbours holds everywhere but at the seams.

  >>> tile(np.array([[1.0], [2.0]]), 5).ravel().tolist()
  [1.0, 2.0, 1.0, 2.0, 1.0]
  """
  return table[np.arange(size) % len(table)]


def interpolate(table: np.ndarray, size: int) -> np.ndarray:
  """[M, H] to [N, H]: stretched; the first and the last row stay.

  New position i lies at i (M - 1) / (N - 1) of the old ones, between two
  rows, and is their weighted mean.

  >>> interpolate(np.array([[1.0], [3.0], [4.0]]), 5).ravel().tolist()
  [1.0, 2.0, 3.0, 3.5, 4.0]
  """
  # In whole numbers, so that a position that is an old one is exactly it.
  below, rest = np.divmod(
      np.arange(size) * (len(table) - 1), size - 1)  # [N]
  above = np.minimum(below + 1, len(table) - 1)
  share = (rest / (size - 1))[:, None]  # float64 [N, 1]
  return ((1 - share) * table[below] + share * table[above]).astype(
      table.dtype)


def resize_positions(
    model: Model, size: int, *, extension: str | None = None) -> Model:
  """The model with `size` positions.

  Args:
    model: of any number of positions.
    size: N. If there are more, the first N stay.
    extension: "tile" (None means it) or "interpolate", if there are fewer.

  A task whose sequences would be longer has them cut to N.

  Raises:
    InputError: there are N already, or the extension is of no use.
  """
  there = model.config.max_position_embeddings
  flag = f"--max_position_embeddings: received {size}"
  require(
      size != there,
      f"{flag}, as the model has already: leave the flag out.")
  require(
      size > there or extension is None,
      f"{flag} and --position_extension={extension}; the model has {there} "
      "positions, of which the first ones stay: leave the second flag out.")
  task = model.task
  if task and task["max_seq_length"] > size:
    logging.warning(
        "The max_seq_length of the task falls from %d to %d.",
        task["max_seq_length"], size)
    task = {**task, "max_seq_length": size}
  resize = interpolate if extension == "interpolate" else tile
  shape = (size, model.config.hidden_size)
  return model._replace(
      task=task,
      config=dataclasses.replace(model.config, max_position_embeddings=size),
      tensors=_changed(
          model.tensors, {_POSITIONS: shape},
          lambda table: resize(table, size)))


def _split_texts(
    texts: Sequence[str], *, do_lower_case: bool) -> list[list[str]]:
  """The words that the tokenizer makes of each text."""
  splitter = WordSplitter(do_lower_case=do_lower_case)
  with tf.device("CPU:0"):
    words = tf.function(splitter.split, autograph=False)(tf.constant(texts))
  strings = [word.decode("utf-8") for word in words.to_strings().numpy()]
  starts = words.text_starts.numpy()
  return [strings[a:b] for a, b in zip(starts, starts[1:])]


def read_new_pieces(path: str, tokenizer: BertTokenizer) -> list[str]:
  """New entries for a vocabulary, one a line; each can be found in text.

  Raises:
    InputError: the file cannot be read or is empty; an entry is empty,
      stands twice or is in the vocabulary, is longer than words are, or no
      text has it after the tokenizer split and normalised it. It names the
      file and line.
  """
  entries = read_entries(path)
  require(bool(entries), f"{path}: holds no entry; give one a line.")
  number_of = {entry: i for i, entry in enumerate(tokenizer.vocabulary)}
  # Inside a word there is something before it: in Chinese, each character is
  # a word, and a word of one character has no inside.
  texts = [f"a{entry[2:]}" if is_inside(entry) else entry
           for entry in entries]
  all_words = _split_texts(texts, do_lower_case=tokenizer.do_lower_case)
  for line, (entry, text, words) in enumerate(
      zip(entries, texts, all_words), 1):
    where = f"{path}:{line}: {entry!r}"
    require(
        entry.split() == [entry],
        f"{where} holds white space; give one entry a line, without any.")
    require(
        entry not in number_of,
        f"{where} is in the vocabulary already, as line "
        f"{number_of.get(entry, 0) + 1}; remove it.")
    require(
        words == [text],
        f"{where} would never be found: of {text!r} the tokenizer "
        f"(do_lower_case {tokenizer.do_lower_case}) makes {words}. Give the "
        "words that it makes.")
    require(
        len(text) <= MAX_WORD_LENGTH,
        f"{where} would never be found: a word of more than "
        f"{MAX_WORD_LENGTH} characters is [UNK].")
  return entries


def split_entry(entry: str, number_of: dict[str, int]) -> list[int] | None:
  """The pieces of a word, or of what a `##` entry continues a word with.

  The longest piece first, as the tokenizer does. Those of `##x` are pieces
  inside a word from the first on, since there the model has met `x` so far:
  `##s` means something else than `s`.

  Args:
    entry: a word as the tokenizer makes it, or `##` and what is inside one.
    number_of: the id of each entry of the vocabulary.

  Returns:
    Their ids, or None if there are none, where the tokenizer has [UNK].

  >>> split_entry("these", {"the": 5, "##se": 6})
  [5, 6]
  >>> split_entry("##sese", {"the": 5, "##se": 6})
  [6, 6]
  """
  prefix = "##" if is_inside(entry) else ""
  rest, ids = entry.removeprefix(prefix), []
  while rest:
    sizes = range(len(rest), 0, -1)
    size = next((n for n in sizes if prefix + rest[:n] in number_of), None)
    if size is None:
      return None
    ids.append(number_of[prefix + rest[:size]])
    prefix, rest = "##", rest[size:]
  return ids


def append_means(
    array: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
  """[V, ...] to [V + K, ...]: then the mean of each group of rows.

  >>> append_means(np.array([1.0, 2.0, 4.0]), [[0, 1], [2]]).tolist()
  [1.0, 2.0, 4.0, 1.5, 4.0]
  """
  means = [array[list(group)].mean(axis=0, dtype=np.float64)
           for group in groups]
  return np.concatenate([array, np.asarray(means, array.dtype)])


def add_pieces(model: Model, path: str) -> Model:
  """The model with the entries of a file at the end of its vocabulary.

  All entries keep their ids, and [unused] slots stay free (to fill them,
  which needs no new row, is `vocabulary.extend_vocabulary`'s way). The row
  of a new entry in the embedding table, and its bias in the masked-LM head,
  are the means of those of the pieces that it was so far: see `split_entry`.
  What was [UNK] starts as [UNK]. Words that merely begin with a new entry
  may be split in another way than before: the longest piece is taken first.

  Raises:
    InputError: there is no vocabulary, or as `read_new_pieces`.
  """
  old = model.tokenizer
  require(
      old is not None,
      f"--new_pieces_file: {model.path} has no vocabulary to extend; name it "
      "with --vocab_file.")
  entries = read_new_pieces(path, old)
  number_of = {entry: i for i, entry in enumerate(old.vocabulary)}
  groups = [split_entry(entry, number_of) for entry in entries]
  unknown = [entry for entry, ids in zip(entries, groups) if ids is None]
  if unknown:
    logging.warning(
        "%d new entries were [UNK] and start as it: %s%s.", len(unknown),
        ", ".join(unknown[:5]), ", ..." if len(unknown) > 5 else "")
  groups = [ids or [old.unk_id] for ids in groups]
  tokenizer = BertTokenizer(
      [*old.vocabulary, *entries], do_lower_case=old.do_lower_case)
  shapes = {
    name: (tokenizer.vocab_size, *model.tensors.shapes[name][1:])
    for name in _BY_PIECE if name in model.tensors.shapes}
  logging.info("%d entries are new: the vocabulary has %d.", len(entries),
               tokenizer.vocab_size)
  return model._replace(
      config=dataclasses.replace(
          model.config, vocab_size=tokenizer.vocab_size),
      tokenizer=tokenizer,
      tensors=_changed(
          model.tensors, shapes, lambda array: append_means(array, groups)))


def run(config: AdaptationConfig) -> None:
  """Reads checkpoints, changes what is asked for, writes a model directory.

  The folder appears under its name when it is complete.

  Raises:
    InputError: a checkpoint cannot be read, a change is not possible, or the
      folder is there already.
  """
  model = average([
    open_model(path, vocab_file=config.vocab_file,
               do_lower_case=config.do_lower_case)
    for path in config.input_dir])
  if config.layer_rule:
    model = take_layers(model, chosen_layers(
        config.layer_rule, model.config.num_hidden_layers))
  if config.max_position_embeddings is not None:
    model = resize_positions(
        model, config.max_position_embeddings,
        extension=config.position_extension)
  if config.new_pieces_file is not None:
    model = add_pieces(model, config.new_pieces_file)
  conversion.write_model(
      config.output_dir, "google", model.tensors, model.config,
      tokenizer=model.tokenizer, task=model.task)
