"""What is wrong with what the user gave. Standard library only."""


class InputError(ValueError):
  """What the user gave is wrong, and the message says how to mend it.

  Programs print the message alone, without a traceback, and exit with 1.
  """


def require(condition: bool, message: str) -> None:
  """Raises `InputError(message)` unless the condition holds."""
  if not condition:
    raise InputError(message)
