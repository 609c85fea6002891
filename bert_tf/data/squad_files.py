"""Questions about texts: SQuAD's own JSON (v1.1 and v2.0) and JSON Lines.

Rajpurkar et al. 2016 and 2018. Standard library only.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import json
import re
from typing import Any

from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.data.text_files import read_lines
from bert_tf.data.text_files import suffixes
from bert_tf.data.tfds_rows import read_tfds

_KINDS = {
  str: "a text", list: "a list", dict: "an object", bool: "true or false",
  int: "a whole number"}


def _field(where: str, value: dict, name: str, *kinds: type) -> Any:
  """The field of an object, of one of these types."""
  found = value.get(name)
  # True is an int too, as Python has it.
  if isinstance(found, bool) and bool not in kinds or not isinstance(
      found, kinds):
    needed = " or ".join(_KINDS[kind] for kind in kinds)
    shown = f"{found!r:.60}" if name in value else "no such field"
    raise InputError(f"{where}: {name!r} must be {needed}; received {shown}.")
  return found


def _objects(where: str, value: dict, name: str) -> Iterator[tuple[int, dict]]:
  for number, item in enumerate(_field(where, value, name, list), 1):
    require(
        isinstance(item, dict),
        f"{where}: {name!r} must hold objects; received {item!r:.60}.")
    yield number, item


def _official(path: str) -> Iterator[tuple[str, str, dict]]:
  """(where, context, question) of SQuAD's own form."""
  content = read_json(path)
  require(
      isinstance(content, dict) and isinstance(content.get("data"), list),
      f"{path}: is not SQuAD's JSON, an object with a list 'data'. If it "
      "holds an object a line, let its name end in .jsonl.")
  for i, article in _objects(path, content, "data"):
    for j, paragraph in _objects(f"{path}: article {i}", article, "paragraphs"):
      where = f"{path}: article {i}, paragraph {j}"
      context = _field(where, paragraph, "context", str)
      for k, question in _objects(where, paragraph, "qas"):
        number = _field(f"{where}, question {k}", question, "id", str, int)
        yield f"{path}: question {str(number)!r}", context, question


def _json_lines(path: str, on_bad_utf8: str) -> Iterator[tuple[str, str, dict]]:
  for number, line in enumerate(read_lines(path, on_bad_utf8=on_bad_utf8), 1):
    if not line.strip():
      continue
    where = f"{path}:{number}"
    try:
      question = json.loads(line)
    except json.JSONDecodeError as error:
      raise InputError(f"{where}: not valid JSON: {error}.") from None
    require(isinstance(question, dict), f"{where}: must hold a JSON object.")
    name = str(_field(where, question, "id", str, int))
    where = f"{where}: question {name!r}"
    yield where, _field(where, question, "context", str), question


def _answer(where: str, context: str, answer: dict) -> dict[str, Any]:
  """The answer as it stands in the context.

  As in the original, another white space in it is no difference.
  """
  text = _field(where, answer, "text", str)
  start = _field(where, answer, "answer_start", int)
  require(
      bool(text.strip()),
      f"{where}: has the answer {text!r}; a question without an answer has "
      "an empty list of answers.")
  if 0 <= start and context.startswith(text, start):
    return {"text": text, "answer_start": start}
  words = re.compile(r"\s+".join(map(re.escape, text.split())))
  after = len(context) - len(context[max(start, 0):].lstrip())
  found = words.match(context, after) if start >= 0 else None
  require(
      found is not None,
      f"{where}: has the answer {text!r} at character {start}, where its "
      f"context has {context[max(start, 0):][:len(text)]!r}. Mend "
      "'answer_start', which counts characters from 0, or leave the "
      "question out.")
  return {"text": found[0], "answer_start": found.start()}


def _check_text(where: str, name: str, text: str) -> None:
  try:
    text.encode("utf-8")
  except UnicodeEncodeError as error:
    raise InputError(
        f"{where}: character {error.start} of {name!r} is half of a surrogate "
        "pair, which no text can hold; mend it.") from None


def _answers(where: str, context: str, question: dict) -> list[dict] | None:
  if "answers" not in question:
    return None
  return [_answer(where, context, answer)
          for _, answer in _objects(where, question, "answers")]


def read_questions(
    path: str, *, on_bad_utf8: str = "error"
) -> dict[str, list]:
  """Reads questions about texts.

  `.jsonl` holds an object a line with `id`, `question`, `context` and, where
  they are known, `answers` and `is_impossible`; all else is SQuAD's own JSON.

  Args:
    path: the file, UTF-8.
    on_bad_utf8: "error" or "replace"; for JSON Lines only.

  Returns:
    Columns of one length: `id`, `question`, `context`; `answers`, a list of
    {"text", "answer_start" in characters} each, as they stand in the context,
    or None where the file does not say; `is_impossible`, as the file says, or
    else whether the list is there and empty; `where`, the file and the
    question, for errors about it.

  Raises:
    InputError: a field is missing or of another type, two questions have one
      id, an answer is not in its context where it says, an impossible
      question has answers, or there is no question. (The original leaves out
      questions whose answer is not there, with a warning.)
  """
  is_lines = suffixes(path)[0] == ".jsonl"
  questions = _json_lines(path, on_bad_utf8) if is_lines else _official(path)
  return _columns(questions, source=path)


def read_tfds_questions(
    name: str, split: str, **options: Any
) -> dict[str, list] | None:
  """`read_questions` of a TFDS dataset in SQuAD's form.

  Args, returned None and errors as those of `tfds_rows.read_tfds`.
  """
  rows = read_tfds(
      name, split, ["id", "question", "context", "answers"], **options)
  if rows is None:
    return None
  numbered = zip(*(rows[column] for column in (
    "where", "id", "question", "context", "answers")))
  return _columns((
    (f"{where}: question {name!r}", context, {
      "id": name, "question": question, "answers": [
        {"text": text, "answer_start": int(start)} for text, start in zip(
            answers["text"], answers["answer_start"], strict=True)]})
    for where, name, question, context, answers in numbered), source=name)


def _columns(
    questions: Iterable[tuple[str, str, dict]], *, source: str
) -> dict[str, list]:
  """Columns of (where, context, question), checked."""
  rows = {name: [] for name in (
    "id", "question", "context", "answers", "is_impossible", "where")}
  seen = set()
  for where, context, question in questions:
    name = str(question["id"])
    require(name not in seen, f"{where}: there are two questions of this id; "
            "give each its own, by which predictions go.")
    seen.add(name)
    text = _field(where, question, "question", str)
    for column, value in (("question", text), ("context", context)):
      _check_text(where, column, value)
    answers = _answers(where, context, question)
    is_impossible = answers == []
    if "is_impossible" in question:
      is_impossible = _field(where, question, "is_impossible", bool)
    require(
        not (is_impossible and answers),
        f"{where}: 'is_impossible' is true, and there are answers; drop one "
        "of the two.")
    for column, value in zip(
        rows, (name, text, context, answers, is_impossible, where)):
      rows[column].append(value)
  require(bool(seen), f"{source}: holds no questions.")
  return rows
