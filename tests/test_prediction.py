"""Files and terminals: `tools/predict.py` over a real export."""

import gzip
import json
import os
import pty
import subprocess
import sys

from conftest import REPOSITORY
import numpy as np
import pytest

import bert_tf
from bert_tf import prediction
from bert_tf.config import InputError
from bert_tf.row_batches import Answerer
from bert_tf.row_batches import make_signature
from bert_tf.row_batches import RefusedRows
from bert_tf.row_batches import Spec
from bert_tf.serving_arguments import PredictConfig
import tiny_exports

TEXT = Spec("string", (None,))


@pytest.fixture
def export_dir(tiny_export):
  return tiny_export("pair")


class Lengths(Answerer):
  """Answers with the lengths of texts, and refuses "bad"."""

  def __init__(self, *names):
    self.calls = []
    super().__init__("lengths", {"serving_default": make_signature(
        {name: TEXT for name in names},
        {name: Spec("int32", (None,)) for name in names})}, self._run)

  def _run(self, signature, columns):
    self.calls.append(columns)
    if any("bad" in column for column in columns.values()):
      raise RefusedRows("it is bad")
    return {name: lengths_of(column) for name, column in columns.items()}


def lengths_of(column):
  return np.array(list(map(len, column)))


def answer(tmp_path, content, *names, name="rows.txt", **options):
  """The answers to a file of such content; `Lengths` gives them."""
  path = tmp_path / name
  path.write_bytes(content)
  config = PredictConfig(
      export_dir="unused", input_file=str(path),
      output_file=str(tmp_path / "answers.jsonl"), **options)
  prediction.run(config, lambda: Lengths(*(names or ["text"])))
  return [json.loads(line)
          for line in (tmp_path / "answers.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name, content, names, options", [
  ("rows.txt", "ab\n\nc\u00e9d\n".encode(), ("text",), {}),
  # Without the time, so that each process names the test alike.
  ("rows.txt.gz", gzip.compress(b"ab\n\nabc", mtime=0), ("text",), {}),
  ("rows.tsv", b"id\ttext\n1\tab\n2\t\n3\tabc\n", ("text",), {}),
  ("rows.csv", b'text\nab\n""\n"a,c"\n', ("text",), {}),
  ("rows.jsonl", b'{"text": "ab"}\n{"text": ""}\n\n{"text": 123}\n',
   ("text",), {}),
  ("rows.tsv", b"1\tab\n2\t\n3\tabc\n", ("text",), {"columns": ("1",)}),
  ("rows", b"s\nab\n\nabc\n", ("text",),
   {"columns": ("s",), "input_format": "tsv"}),
])
def test_all_forms_of_rows_are_read(tmp_path, name, content, names, options):
  answers = answer(tmp_path, content, *names, name=name, **options)
  assert answers == [{"text": 2}, {"text": 0}, {"text": 3}]


def test_columns_are_those_of_the_inputs(tmp_path):
  content = b"context\tquestion\nabc\ta\nab\tabcd\n"
  answers = answer(tmp_path, content, "question", "context", name="rows.tsv")
  assert answers == [
    {"question": 1, "context": 3}, {"question": 4, "context": 2}]
  answers = answer(
      tmp_path, content, "question", "context", name="rows.tsv",
      columns=("context", "question"))
  assert answers[0] == {"question": 3, "context": 1}


@pytest.mark.parametrize("name, content, names, message", [
  ("rows.txt", b"", ("text",), "rows.txt: holds no rows"),
  ("rows.tsv", b"text\n", ("text",), "rows.tsv: holds no rows"),
  ("rows.txt", b"a\n\xff\n", ("text",), "rows.txt:2: byte 1 .* not UTF-8"),
  ("rows.txt", b"a\n", ("text", "text_pair"), "takes text, text_pair; give"),
  ("rows.tsv", b"a\tb\n", ("text",), "rows.tsv:1: no column text"),
  ("rows.tsv", b"text\tb\na\n", ("text",), "rows.tsv:2: has 1 columns"),
  ("rows.jsonl", b'{"text": "a"}\n{"texts": "a"}\n', ("text",),
   "rows.jsonl:2: the field 'text'"),
  ("rows.jsonl", b'{"text": ["a"]}\n', ("text",),
   r"rows.jsonl:1: text: received \['a'\]; must be a text"),
  ("rows.jsonl", b'{"text": "a"}\n{"text": \n', ("text",),
   "rows.jsonl:2: not valid JSON"),
  ("rows.txt", b"good\nfine\nbad\ngood\n", ("text",), "rows.txt:3: it is bad"),
])
def test_bad_rows_are_named_and_nothing_is_written(
    tmp_path, name, content, names, message):
  (tmp_path / "answers.jsonl").write_text("kept")
  with pytest.raises(InputError, match=message):
    answer(tmp_path, content, *names, name=name)
  assert (tmp_path / "answers.jsonl").read_text() == "kept"
  assert sorted(os.listdir(tmp_path)) == ["answers.jsonl", name]


@pytest.mark.parametrize("options, message", [
  ({"columns": ("a", "b")}, "--columns: received a, b; .* takes text"),
  ({"signature": "other"}, "has no signature 'other'"),
  ({"input_file": "/nowhere.txt"}, "/nowhere.txt: cannot be read: No such"),
  ({"output_file": "/nowhere/x.jsonl"}, "/nowhere/x.jsonl: cannot be written"),
])
def test_bad_flags_are_refused(tmp_path, options, message):
  (tmp_path / "rows.txt").write_text("a\n")
  config = PredictConfig(**{
    "export_dir": "unused", "input_file": str(tmp_path / "rows.txt"),
    "output_file": str(tmp_path / "answers.jsonl"), **options})
  with pytest.raises(InputError, match=message):
    prediction.run(config, lambda: Lengths("text"))


def test_rows_are_read_and_answered_pool_by_pool(tmp_path, monkeypatch):
  monkeypatch.setattr(prediction, "_POOL", 2)
  path, lengths = tmp_path / "rows.txt", Lengths("text")
  path.write_text("".join("a" * (n % 7) + "\n" for n in range(20)))
  config = PredictConfig(
      export_dir="unused", input_file=str(path), batch_size=3,
      output_file=str(tmp_path / "answers.jsonl"))
  prediction.run(config, lambda: lengths)
  assert [json.loads(line)["text"] for line in
          (tmp_path / "answers.jsonl").read_text().splitlines()] == [
    n % 7 for n in range(20)]
  # Six rows are sorted by length together, the longest first.
  assert [list(map(len, call["text"])) for call in lengths.calls] == [
    [5, 4, 3], [2, 1, 0], [6, 4, 3], [2, 1, 0], [6, 5, 3], [2, 1, 0], [5, 4]]


def test_a_pool_has_only_so_many_characters(monkeypatch):
  monkeypatch.setattr(prediction, "_MOST_CHARACTERS", 10)
  rows = [("x", {"text": "a" * n}) for n in (4, 4, 4, 20, 1)]
  assert [len(pool) for pool in prediction._pools(iter(rows), 32)] == [3, 1, 1]


# The program.


def run(*flags, **options):
  return subprocess.run(
      [sys.executable, str(REPOSITORY / "tools" / "predict.py"), *flags],
      capture_output=True, text=True, **options)


@pytest.mark.slow
def test_the_program_answers_a_file_and_a_pipe(tmp_path, export_dir):
  columns = tiny_exports.COLUMNS["pair"]
  expected = bert_tf.Predictor(export_dir)(**columns)
  table = "".join(f"{a}\t{b}\n" for a, b in zip(*columns.values()))
  (tmp_path / "rows.tsv").write_text("text\ttext_pair\n" + table)
  result = run(
      f"--export_dir={export_dir}", f"--input_file={tmp_path}/rows.tsv",
      f"--output_file={tmp_path}/answers.jsonl")
  assert result.returncode == 0, result.stderr
  assert f"Answered 7 rows in {tmp_path}/answers.jsonl." in result.stderr
  piped = run(
      f"--export_dir={export_dir}", "--input_format=tsv", "--columns=0,1",
      input=table)
  for text in ((tmp_path / "answers.jsonl").read_text(), piped.stdout):
    assert [json.loads(line) for line in text.splitlines()] == expected


@pytest.mark.slow
def test_the_program_talks_at_a_terminal(export_dir):
  [expected] = bert_tf.Predictor(export_dir)(["the cat"], ["a dog"])
  ours, theirs = pty.openpty()
  process = subprocess.Popen(
      [sys.executable, str(REPOSITORY / "tools" / "predict.py"),
       f"--export_dir={export_dir}"],
      stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  os.write(ours, b"the cat\na dog\n\x04")  # Control and D ends it.
  output, errors = process.communicate()
  os.close(ours)
  os.close(theirs)
  assert process.returncode == 0, errors
  assert output.startswith("text: text_pair: {")
  assert json.loads(output.split(": ", 2)[2].split("text: ")[0]) == expected


def test_a_wrong_row_at_the_terminal_is_no_end(monkeypatch, capsys):
  lines = iter(["bad", "good", ""])
  monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
  config = PredictConfig(export_dir="unused")
  with pytest.raises(StopIteration):
    prediction.converse(config, Lengths("text"))
  output = capsys.readouterr()
  assert output.out == '{"text": 4}\n{"text": 0}\n'
  assert output.err == "it is bad\n"


def test_what_is_no_text_is_asked_for_as_json(monkeypatch, capsys):
  asked = []
  lines = iter(["a text", "[1, ", "a text", '["b", "c"]'])

  def read(prompt):
    asked.append(prompt)
    line = next(lines, None)
    if line is None:
      raise EOFError
    return line

  monkeypatch.setattr("builtins.input", read)
  signature = make_signature(
      {"text": TEXT, "choices": Spec("string", (None, None))},
      {"n": Spec("int32", (None,))})
  answerer = Answerer("x", {"serving_default": signature}, lambda _, columns: {
    "n": lengths_of(columns["choices"])})
  prediction.converse(PredictConfig(export_dir="unused"), answerer)
  assert asked == ["text: ", "choices (JSON): "] * 2 + ["text: "]
  output = capsys.readouterr()
  assert output.out == '{"n": 2}\n\n'
  assert output.err.startswith("choices: not valid JSON: ")
