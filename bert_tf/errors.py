"""What is wrong with what the user gave. Standard library only."""


class InputError(ValueError):
  """What the user gave is wrong, and the message says how to mend it.

  Programs print the message alone, without a traceback, and exit with 1.
  """


def one_line(text: object) -> str:
  """What another library says of an error, to be quoted within a sentence.

  >>> one_line("Not there:\\n  a.txt.")
  'Not there: a.txt'
  """
  return " ".join(str(text).split()).removesuffix(".")


def require(condition: bool, message: str) -> None:
  """Raises `InputError(message)` unless the condition holds."""
  if not condition:
    raise InputError(message)
