"""What a checkpoint is and holds, whether it loads, how two differ."""

from collections.abc import Callable
import json
import re
from typing import Any

import numpy as np

from bert_tf import checkpoints
from bert_tf.checkpoint_arguments import InspectionConfig
from bert_tf.config import InputError
from bert_tf.model_source import ModelSource
from bert_tf.variable_names import variable_shapes

# The parts of a model by their variables, the first that matches.
_PARTS = (
  ("optimizer", r".*/adam_[mv]|.*\.OPTIMIZER_SLOT.*|global_step"),
  ("embeddings", "bert/embeddings/.*"),
  ("layer", r"bert/encoder/layer_(\d+)/.*"),
  ("pooler", "bert/pooler/.*"),
  ("masked LM", "cls/predictions/.*"),
  ("next sentence", "cls/seq_relationship/.*"),
  ("classifier", "output_(weights|bias)|(bilstm|features)/.*"),
  ("answer span", "cls/squad/.*"),
)
_MOST_SHOWN = 5
_NOT_FINITE = "holds values that are not finite"


def part_of(name: str) -> str:
  """The part of a model that a variable belongs to.

  >>> part_of("bert/encoder/layer_3/output/dense/bias"), part_of("x")
  ('layer 3', 'other')
  """
  for part, pattern in _PARTS:
    match = re.fullmatch(pattern, name)
    if match:
      return f"layer {match[1]}" if part == "layer" else part
  return "other"


def _by_part(names) -> dict[str, list[str]]:
  """Names by their part, in the order in which a model computes."""
  order = [part for part, _ in _PARTS[1:]] + ["optimizer", "other"]

  def place(part):
    kind, _, number = part.partition(" ")
    if kind == "layer":
      return order.index("layer"), int(number)
    return order.index(part), 0

  parts = {}
  for name in sorted(names):
    parts.setdefault(part_of(name), []).append(name)
  return {part: parts[part] for part in sorted(parts, key=place)}


def _describe_variable(source: ModelSource, name: str) -> dict[str, Any]:
  """Name, shape and L2 norm; with `error` in place of a norm that is none."""
  row = {"name": name, "shape": list(source.shapes[name]), "norm": None}
  try:
    norm = float(np.linalg.norm(
        np.asarray(source.read(name), np.float64).ravel()))
  except InputError as error:
    return {**row, "error": str(error)}
  if not np.isfinite(norm):
    return {**row, "error": _NOT_FINITE}
  return {**row, "norm": norm}


def _failure(call: Callable[[], Any]) -> str | None:
  """What is wrong according to the call, or None."""
  try:
    call()
  except InputError as error:
    return str(error)
  return None


def _load(
    shapes: dict[str, tuple[int, ...]], source: ModelSource, *,
    has_head: bool, unreadable: dict[str, str]
) -> tuple[str | None, list[str]]:
  """How a model of these variables loads, as `checkpoints.load_pretrained`.

  Returns:
    Why it does not, or None; the names that would be initialized.
  """
  try:
    found = checkpoints.match(
        shapes, source, has_head=has_head, new=checkpoints.MAY_BE_MISSING)
  except InputError as error:
    return str(error), []
  failure = next((unreadable[name] for name in found.values()
                  if name in unreadable), None)
  return failure, sorted(set(shapes) - set(found))


def _describe_fit(
    source: ModelSource, unreadable: dict[str, str]
) -> dict[str, Any]:
  """How the variables fit the models that the config asks for.

  Args:
    source: the checkpoint.
    unreadable: what is wrong with those of its variables that gave an error
      when they were read.
  """
  failure = _failure(lambda: checkpoints.config_of(source))
  if failure:
    return {"loads": {"encoder": failure}, "initialized": {}, "missing": [],
            "extra": []}
  shapes = variable_shapes(source.config)
  encoder = {name: shape for name, shape in shapes.items()
             if name.startswith("bert/")}
  needed, loads, initialized = set(), {}, {}
  for kind, part, has_head in (
      ("encoder", encoder, False), ("pretraining model", shapes, True)):
    needed.update(checkpoints.names_there(
        part, source, has_head=has_head).values())
    loads[kind], initialized[kind] = _load(
        part, source, has_head=has_head, unreadable=unreadable)
  loads["tokenizer"] = _failure(
      lambda: checkpoints.find_tokenizer(source, source.config))
  present = set(source.shapes)
  return {
    "loads": loads,
    "initialized": initialized,
    "missing": sorted(needed - present),
    "extra": sorted(present - needed),
  }


def describe(source: ModelSource) -> dict[str, Any]:
  """A checkpoint as JSON values.

  Returns:
    A dict: `path`, `form`, `config`; `sizes`, the number of parameters in
    each part; `variables`, a list of `name`, `shape`, `norm` (of all values;
    null with an `error` where they cannot be read or are not finite);
    `missing` and `extra`, beside what a model for pretraining has; `loads`,
    null where it does, or else the error; `initialized`, by model, the names
    that stay at random because they are missing.
  """
  parts = _by_part(source.shapes)
  variables = [
    _describe_variable(source, name)
    for names in parts.values() for name in names]
  unreadable = {
    row["name"]: row["error"] for row in variables
    if row.get("error", _NOT_FINITE) != _NOT_FINITE}
  return {
    "path": source.path,
    "form": source.form,
    "config": source.config and source.config.to_dict(),
    "sizes": {
      part: sum(int(np.prod(source.shapes[name])) for name in names)
      for part, names in parts.items()},
    "variables": variables,
    **_describe_fit(source, unreadable),
  }


def compare(one: ModelSource, other: ModelSource) -> dict[str, Any]:
  """How two checkpoints differ, as JSON values.

  Returns:
    A dict: `differences`, for each part the `largest` absolute difference of
    two values and its `variable`; `only_in_first`, `only_in_second`;
    `other_shape`, names with both shapes; `config`, keys with both values.
  """
  shared = set(one.shapes) & set(other.shapes)
  unlike = {name for name in shared if one.shapes[name] != other.shapes[name]}
  differences = []
  for part, names in _by_part(shared - unlike).items():
    largest = [
      float(np.max(np.abs(
          np.asarray(one.read(name), np.float64)
          - np.asarray(other.read(name), np.float64)), initial=0.0))
      for name in names]
    # One that is not a number is larger than all.
    i = int(np.argmax(largest))
    differences.append({
      "part": part, "variable": names[i],
      "largest": largest[i] if np.isfinite(largest[i]) else None})
  configs = [
    source.config.to_dict() if source.config else {}
    for source in (one, other)]
  return {
    "differences": differences,
    "only_in_first": sorted(set(one.shapes) - shared),
    "only_in_second": sorted(set(other.shapes) - shared),
    "other_shape": {
      name: [list(one.shapes[name]), list(other.shapes[name])]
      for name in sorted(unlike)},
    "config": {
      key: [config.get(key) for config in configs]
      for key in sorted(configs[0].keys() | configs[1].keys())
      if configs[0].get(key) != configs[1].get(key)},
  }


def _shortened(names: list[str]) -> str:
  """A list for people: the first few, and how many more there are."""
  if not names:
    return "none"
  more = len(names) - _MOST_SHOWN
  return ", ".join(names[:_MOST_SHOWN]) + (
      f" and {more} more" if more > 0 else "")


def description_lines(found: dict[str, Any]) -> list[str]:
  """What `describe` found, for people."""
  lines = [f"{found['path']}: {found['form']}"]
  lines += [f"  {key} = {value}"
            for key, value in (found["config"] or {}).items()]
  lines += ["", f"  {'part':18} {'parameters':>13}"]
  lines += [f"  {part:18} {size:>13,}"
            for part, size in found["sizes"].items()]
  lines += ["", f"  {'variable':62} {'shape':>14} {'norm':>12}"]
  for row in found["variables"]:
    norm = row.get("error") or f"{row['norm']:12.6g}"
    shape = " x ".join(map(str, row["shape"]))
    lines.append(f"  {row['name']:62} {shape:>14} {norm}")
  lines += [
    "",
    f"  missing: {_shortened(found['missing'])}",
    f"  extra: {_shortened(found['extra'])}"]
  for what, failure in found["loads"].items():
    line, random = "loads", found["initialized"].get(what)
    if failure:
      line = f"does not load: {failure}"
    elif random:
      line += f", but for {_shortened(random)}, which are initialized at random"
    lines.append(f"  {what}: {line}")
  return lines


def comparison_lines(found: dict[str, Any]) -> list[str]:
  """What `compare` found, for people."""
  lines = [f"  {'part':18} {'largest difference':>18}  in"]
  for row in found["differences"]:
    largest = ("not finite" if row["largest"] is None
               else f"{row['largest']:.6g}")
    lines.append(f"  {row['part']:18} {largest:>18}  {row['variable']}")
  lines += [
    "",
    f"  only in the first: {_shortened(found['only_in_first'])}",
    f"  only in the second: {_shortened(found['only_in_second'])}"]
  for title in ("other_shape", "config"):
    lines += [f"  {name}: {first} and {second}"
              for name, (first, second) in found[title].items()]
  return lines


def run(config: InspectionConfig) -> None:
  """Prints what one checkpoint is, or how two differ.

  Raises:
    InputError: what is there is no checkpoint; a value that is to be
      compared cannot be read.
  """
  sources = [checkpoints.open_source(path) for path in config.model_dirs]
  if len(sources) == 1:
    found, lines_of = describe(*sources), description_lines
  else:
    found, lines_of = compare(*sources), comparison_lines
  print(json.dumps(found, indent=2) if config.json
        else "\n".join(lines_of(found)))
