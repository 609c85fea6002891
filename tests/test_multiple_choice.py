"""Multiple choice: files, sequences, figures, exports."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import export
from bert_tf import finetuning
from bert_tf.arguments import ExportConfig
from bert_tf.config import InputError
from bert_tf.examples import Examples
from bert_tf.heads import BertMultipleChoice
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS
from saved_model_loader import Loader
from saved_model_loader import LoaderError
import small_models

ENTRIES = [*SPECIAL_TOKENS, *"abcdefgh", "one", "two"]
CONFIG = small_models.small_config(ENTRIES)
TASK = TASKS["multiple_choice"]


@pytest.fixture
def folder(tmp_path):
  return small_models.write_start(tmp_path, ENTRIES, CONFIG)


def config_for(folder, task_name="multiple_choice", **options):
  return small_models.config_for(
      folder, task_name, **{"num_train_epochs": 30.0, **options})


def write_objects(path: pathlib.Path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_choice_is_learnt_from_json_lines(folder):
  # The choice that repeats the text is the right one.
  rows = [{"text": right, "choices": choices, "label": choices.index(right)}
          for right in ("one", "two") for other in "abcd"
          for choices in ([right, other, other], [other, right, other],
                          [other, other, right])]
  for split in ("train", "dev"):
    write_objects(folder / f"{split}.jsonl", rows)
  results = finetuning.run(config_for(folder), TASK)
  assert results["accuracy"] == 1.0 and results["loss"] < 0.5
  assert json.loads((folder / "run" / "task.json").read_text()) == {
    "task_name": "multiple_choice", "max_seq_length": 8}
  header, first, second, *rest = [
    line.split("\t") for line in
    (folder / "run" / "predictions.tsv").read_text().splitlines()]
  assert header == [
    "prediction", "label", "probability:0", "probability:1", "probability:2",
    "text", "choice:0", "choice:1", "choice:2"]
  assert first[:2] == ["0", "0"] and first[5:] == ["one", "one", "a", "a"]
  assert second[:2] == ["1", "1"] and len(rest) == 22
  numbers = np.array([line.split("\t") for line in (
    folder / "run" / "test_results.tsv").read_text().splitlines()], float)
  assert numbers.shape == (24, 3)
  np.testing.assert_allclose(numbers.sum(1), 1, atol=1e-5)
  # A file with another number of choices, and its labels kept back.
  write_objects(folder / "test.jsonl", [
    {"text": "two", "choices": ["two", "a"]}])
  finetuning.run(config_for(
      folder, do_train=False, do_eval=False, bert_config_file=None), TASK)
  header, first = (
      folder / "run" / "predictions.tsv").read_text().splitlines()
  assert header.split("\t") == [
    "prediction", "probability:0", "probability:1", "text", "choice:0",
    "choice:1"]
  assert first.split("\t")[0] == "0"


@pytest.mark.parametrize("name, content", [
  ("dev.csv", 'text,right,x,y\n"a b",1,"c, c",d\n'),
  ("dev.tsv", "text\tright\tx\ty\na b\t1\tc, c\td\n"),
  ("dev.jsonl", '{"text": "a b", "right": 1, "x": "c, c", "y": "d"}\n'),
])
def test_choices_are_columns_of_any_table(folder, name, content):
  (folder / name).write_text(content)
  rows = TASK.read(config_for(
      folder, label_column="right", choice_columns=("x", "y")), "dev")
  line = 1 if name == "dev.jsonl" else 2
  assert rows == {
    "text": ["a b"], "label": ["1"], "choices": [["c, c", "d"]],
    "where": [f"{folder / name}:{line}"]}


def test_columns_have_numbers_in_a_file_without_a_header(folder):
  (folder / "dev.tsv").write_text("x\ta\tc\td\t1\n")
  rows = TASK.read(config_for(
      folder, text_column="1", label_column="4", choice_columns=("2", "3")),
      "dev")
  assert (rows["text"], rows["choices"], rows["label"]) == (
    ["a"], [["c", "d"]], ["1"])


def test_sequences_are_the_text_and_each_choice():
  tokenizer = BertTokenizer(ENTRIES, do_lower_case=True)
  rows = {"text": ["a", "b c"], "choices": [["d", "e f"], ["", "g"]],
          "label": ["1", "0"], "where": ["x:1", "x:2"]}
  encoded = TASK.encode(tokenizer, {"max_seq_length": 8}, rows)
  a, b, c, d, e, f, g = range(5, 12)
  assert encoded.pieces["input_ids"].to_list() == [
    [2, a, 3, d, 3], [2, a, 3, e, f, 3], [2, b, c, 3, 3], [2, b, c, 3, g, 3]]
  assert encoded.pieces["segment_ids"].to_list()[1] == [0, 0, 0, 1, 1, 1]
  assert encoded.targets["label"].tolist() == [1, 0]
  assert (encoded.choices, encoded.number) == (2, 2)
  assert encoded.lengths.tolist() == [6, 6]


def test_empty_texts_and_choices_are_counted(caplog):
  caplog.set_level("INFO")
  TASK.encode(
      BertTokenizer(ENTRIES, do_lower_case=True), {"max_seq_length": 8},
      {"text": ["", "b c"], "choices": [["d", "e f"], ["", "g"]],
       "where": ["x:1", "x:2"]})
  assert [record.message for record in caplog.records] == [
    "2 of 4 sequences have an empty text (50.0 %).",
    "1 of 4 sequences have an empty second text (25.0 %)."]


def test_metrics_by_hand():
  # Probabilities 3/4 and 1/4 twice: right once.
  outputs = {"logits": np.log([[3.0, 1.0], [3.0, 1.0]])}
  encoded = Examples({}, {"label": np.array([0, 1])}, choices=2)
  assert TASK.metrics({}, {}, encoded, outputs) == {
    "loss": pytest.approx((np.log(4 / 3) + np.log(4)) / 2), "accuracy": 0.5}


def test_swag_is_read_as_it_is_given(folder):
  # A is sent1; B is sent2 and an ending.
  columns = "video-id,fold-ind,startphrase,sent1,sent2,gold-source," + (
      "ending0,ending1,ending2,ending3")
  row = ('0,v,1,"A man sits. He","A man sits, here.",He,gold,"eats, then '
         'sleeps.",runs.,sings.,flies.')
  for name in ("train", "val"):
    (folder / f"{name}.csv").write_text(f",{columns},label\n{row},2\n")
  (folder / "test.csv").write_text(f",{columns}\n{row}\n")
  task = TASKS["swag"]
  expected = {
    "text": ["A man sits, here."], "choices": [[
      "He eats, then sleeps.", "He runs.", "He sings.", "He flies."]]}
  for split, name in (("train", "train"), ("dev", "val"), ("test", "test")):
    label = {} if split == "test" else {"label": ["2"]}
    assert task.read(config_for(folder, "swag"), split) == {
      **expected, **label, "where": [f"{folder / name}.csv:2"]}
  # The paper's: 3 epochs, 2e-5, 16.
  config = config_for(
      folder, "swag", learning_rate=None, train_batch_size=None,
      num_train_epochs=None).with_defaults(task.defaults)
  assert (config.num_train_epochs, config.learning_rate,
          config.train_batch_size) == (3.0, 2e-5, 16)
  assert TASKS["swag"].read(config_for(folder / "none", "swag"), "dev") is None


def test_codah_is_read_as_it_is_given(shared):
  config = config_for(shared / "data" / "codah", "codah")
  for split, number in (("train", 1665), ("dev", 556), ("test", 555)):
    rows = TASKS["codah"].read(config, split)
    assert {len(values) for values in rows.values()} == {number}
    assert {len(choices) for choices in rows["choices"]} == {4}
    assert set(rows["label"]) == {"0", "1", "2", "3"}
  assert rows["text"][0] == "Suzy reached the exam centre on time. She"
  assert rows["choices"][0][2] == "met her friends at the gate."
  assert rows["label"][0] == "2"


def row(**values):
  return json.dumps({
    "text": "a", "choices": ["b", "c"], "label": 0, **values}) + "\n"


@pytest.mark.parametrize("content, message", [
  (row() + row(choices=list("bcd")),
   "train.jsonl:2: has 3 choices, the first row .*:1. has 2; all rows"),
  (row() + row(label=2),
   "train.jsonl:2: has the label '2'; it must be the number.*from 0 to 1"),
  (row(label="b"), "train.jsonl:1: has the label 'b'; it must be the number"),
  (row(label=["0"]), "has the label .'0'.; it must be the number"),
  (row(choices="b"), "train.jsonl:1: has the choices 'b'; they must be a li"),
  (row(choices=["b"]), "has the choices .'b'.; they must be a list of two"),
  (row(choices=["b", None]), "has the choices .'b', None.; they must be"),
  (row(text=["a"]), "train.jsonl:1: has the text .'a'.; it must be a text"),
  ('{"text": "a", "label": 0}\n', "the field 'choices' must be a text, a nu"),
])
def test_bad_rows_are_refused(folder, content, message):
  (folder / "train.jsonl").write_text(content)
  with pytest.raises(InputError, match=message):
    finetuning.run(config_for(folder, do_eval=False, do_predict=False), TASK)
  assert not (folder / "run" / "task.json").exists()


def test_columns_that_are_not_named_are_asked_for(folder):
  (folder / "train.csv").write_text("text,label,x,y\na,0,b,c\n")
  for columns, message in (
      ((), r"train.csv: name the columns.*--choice_columns=a,b,c,d"),
      (("x",), "train.csv: name the columns.*, two or more.*; received x"),
      (("x", "z"), "train.csv:1: no column z; there are text, label, x, y")):
    with pytest.raises(InputError, match=message):
      TASK.read(config_for(folder, choice_columns=columns), "train")


# Exports.


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """(path of an export, its model, its tokenizer)."""
  directory = tmp_path_factory.mktemp("multiple_choice")
  model, tokenizer = BertMultipleChoice(CONFIG), BertTokenizer(
      ENTRIES, do_lower_case=True)
  generator = np.random.default_rng(3)
  for name, variable in checkpoints.checkpoint_names(model).items():
    variable.assign(generator.normal(
        1 if name.endswith("gamma") else 0, 0.4, variable.shape))
  # The task of another author's files is exported by its kind.
  checkpoints.save_model(
      str(directory / "model"), model, tokenizer,
      task={"task_name": "swag", "kind": "multiple_choice",
            "max_seq_length": 8})
  path = export.run(ExportConfig(
      model_dir=str(directory / "model"),
      export_dir=str(directory / "export")), TASKS)
  return path, model, tokenizer


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


@pytest.mark.parametrize("texts, choices", [
  (["a b", "c"], [["one", "two", "a b c d e f g h one two"], ["d", "", "e"]]),
  (["a"], [["one", "two"]]),
  ([""], [["one"]]),
])
def test_cpp_chooses_as_the_model_does(loader, exported, texts, choices):
  path, model, tokenizer = exported
  answer = loader.ask(
      saved_model=path, signature="serving_default",
      inputs={"text": texts, "choices": choices})
  # One sequence at a time.
  expected = np.array([[
    float(model({
      name: x[None] for name, x in tokenizer(
          [text], [choice], max_seq_length=8).items()})["logits"][0, 0])
    for choice in row] for text, row in zip(texts, choices)])
  np.testing.assert_allclose(answer["logits"], expected, atol=1e-5)
  exponents = np.exp(expected)
  np.testing.assert_allclose(
      answer["probabilities"], exponents / exponents.sum(1, keepdims=True),
      atol=1e-5)
  assert answer["choice"].dtype == np.int32
  assert answer["choice"].tolist() == expected.argmax(1).tolist()
  in_python = tf.saved_model.load(path).signatures["serving_default"](
      text=tf.constant(texts), choices=tf.constant(choices))
  for name, value in answer.items():
    np.testing.assert_allclose(in_python[name], value, atol=1e-5)


@pytest.mark.parametrize("choices", [[["b", "c"], ["d", "e"]], [["b"], ["c"]]])
def test_texts_and_choices_must_be_as_many(loader, exported, choices):
  # Whichever the server comes to first.
  with pytest.raises(LoaderError, match="equally many|Incompatible shapes"):
    loader.ask(
        saved_model=exported[0], signature="serving_default",
        inputs={"text": ["a"], "choices": choices})


def test_no_texts_have_no_answers(loader, exported):
  answer = tf.saved_model.load(exported[0]).signatures["serving_default"](
      text=tf.zeros([0], tf.string), choices=tf.zeros([0, 3], tf.string))
  assert {name: tuple(value.shape) for name, value in answer.items()} == {
    "choice": (0,), "probabilities": (0, 3), "logits": (0, 3)}
