"""From a frozen dataclass to a program: the one place that knows absl.flags.

A script is one config and one call:

  if __name__ == "__main__":
    command_line.run(PretrainingConfig, pretraining.run, __doc__)
"""

import dataclasses
import logging as python_logging
import os
import shlex
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from absl import app
from absl import flags
from absl import logging

from bert_tf.config import InputError

# Flags of the original programs that have nothing to steer here: they parse,
# so that old command lines run, and warn.
_OBSOLETE_FLAGS = {
  "use_tpu": flags.DEFINE_boolean,
  "master": flags.DEFINE_string,
  "tpu_name": flags.DEFINE_string,
  "tpu_zone": flags.DEFINE_string,
  "gcp_project": flags.DEFINE_string,
  "num_tpu_cores": flags.DEFINE_integer,
  "iterations_per_loop": flags.DEFINE_integer,
  "verbose_logging": flags.DEFINE_boolean,
  "use_one_hot_embeddings": flags.DEFINE_boolean,
}

_DEFINE_BY_TYPE = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
  tuple[str, ...]: flags.DEFINE_list,
}


def _value_type(annotation: Any) -> Any:
  """`bool | None` is a flag of type bool without a default."""
  if isinstance(annotation, types.UnionType):
    (annotation,) = set(typing.get_args(annotation)) - {type(None)}
  return annotation


def _split_fields(
    config_class: type
) -> tuple[list[dataclasses.Field], list[dataclasses.Field]]:
  """The fields that are flags, and the one (or none) that has no name there."""
  flagged, positional = [], []
  for field in dataclasses.fields(config_class):
    (positional if "positional" in field.metadata else flagged).append(field)
  return flagged, positional


def define_flags(
    config_class: type, values: flags.FlagValues = flags.FLAGS
) -> None:
  """One absl flag for each field of a dataclass, plus the obsolete ones."""
  hints = typing.get_type_hints(config_class)
  for field in _split_fields(config_class)[0]:
    is_required = field.default is dataclasses.MISSING
    default = None if is_required else field.default
    if isinstance(default, tuple):
      default = list(default)
    help_text = field.metadata["help"]
    if "choices" in field.metadata:
      flags.DEFINE_enum(
          field.name, default, list(field.metadata["choices"]), help_text,
          flag_values=values, module_name=sys.argv[0])
    else:
      define = _DEFINE_BY_TYPE[_value_type(hints[field.name])]
      define(field.name, default, help_text, flag_values=values,
             module_name=sys.argv[0])
    if is_required:
      flags.mark_flag_as_required(field.name, values)
  for name, define in _OBSOLETE_FLAGS.items():
    if name not in values:
      define(name, None, "Obsolete: has no effect.", flag_values=values,
             module_name=sys.argv[0])


def config_from_flags(
    config_class: type, arguments: list[str],
    values: flags.FlagValues = flags.FLAGS
) -> Any:
  """The dataclass with the values of the parsed flags.

  Raises:
    InputError: there are arguments beside them, and no field takes them.
  """
  for name in _OBSOLETE_FLAGS:
    is_ours = name in {field.name for field in dataclasses.fields(config_class)}
    if not is_ours and values[name].present:
      logging.warning("--%s has no effect in this program.", name)
  flagged, positional = _split_fields(config_class)
  if arguments and not positional:
    raise InputError(
        f"received {arguments[0]!r}, which is not a flag; see --help.")
  found = {field.name: tuple(arguments) for field in positional}
  for field in flagged:
    value = values[field.name].value
    found[field.name] = tuple(value) if isinstance(value, list) else value
  return config_class(**found)


def config_from_text(
    config_class: type, text: str, *, flag: str, **given: Any
) -> Any:
  """The dataclass of flags that stand in a text, as on a command line.

  Args:
    config_class: what they are the flags of.
    text: such as `--task_name=sst-2 --data_dir='my folder'`.
    flag: where the text was given, for messages.
    given: flags that stand before those of the text.

  Raises:
    InputError: they are no flags of that class, or do not fit.
  """
  values = flags.FlagValues()
  define_flags(config_class, values)
  try:
    arguments = values([
      flag, *(f"--{name}={value}" for name, value in given.items()),
      *shlex.split(text)])
    return config_from_flags(config_class, arguments[1:], values)
  except (flags.Error, ValueError) as error:
    raise InputError(f"--{flag}: received {text!r}: {error}") from None


def _is_worth_saying(record: python_logging.LogRecord) -> bool:
  """All that we say; of what the libraries say, the warnings."""
  is_ours = record.pathname.startswith(os.path.dirname(__file__))
  return is_ours or record.levelno >= python_logging.WARNING


def run_program(main: Callable[[list[str]], None]) -> None:
  """absl's `app.run`, for programs that define their flags themselves.

  An `InputError` becomes one line on standard error and exit status 1.
  """
  # TensorFlow's own remarks on this machine's processor and libraries.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(
      python_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  handler.addFilter(_is_worth_saying)

  def call(argv):
    try:
      main(argv)
    except InputError as error:
      sys.exit(f"{os.path.basename(argv[0])}: error: {error}")

  app.run(call)


def run(config_class: type, main: Callable[[Any], Any], doc: str) -> None:
  """Makes flags of a dataclass, parses them and calls `main(config)`."""
  sys.modules["__main__"].__doc__ = doc
  define_flags(config_class)

  def call(argv):
    main(config_from_flags(config_class, argv[1:]))

  run_program(call)
