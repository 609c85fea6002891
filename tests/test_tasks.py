"""Tasks over texts: pairs, numbers, several labels, GLUE's own files."""

import json
import os

import numpy as np
import pytest

from bert_tf import finetuning
from bert_tf.config import InputError
from bert_tf.examples import Examples
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.tasks import TASKS
from small_models import config_for
from small_models import small_config
from small_models import write_start

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
           *"abcdefgh", "one", "two"]


@pytest.fixture
def folder(tmp_path):
  return write_start(tmp_path, ENTRIES, small_config(ENTRIES))


def run(folder, task_name, **options):
  return finetuning.run(
      config_for(folder, task_name, **options), TASKS[task_name])


def table(folder, name="predictions.tsv"):
  lines = (folder / "run" / name).read_text().splitlines()
  return [line.split("\t") for line in lines]


def test_a_pair_is_read_from_csv_and_learnt(folder):
  # The second text decides.
  rows = [f'"{a} {a}","{b}",{"same" if b == "one" else "other"}'
          for a in ("one", "two", *"ab") for b in ("one", "two")] * 3
  for split in ("train", "dev"):
    (folder / f"{split}.csv").write_text(
        "\n".join(["text,second,label", *rows]) + "\n")
  results = run(folder, "classification", text_pair_column="second",
                num_train_epochs=40.0)
  assert results["accuracy"] == 1.0
  assert json.loads((folder / "run" / "task.json").read_text()) == {
    "task_name": "classification", "labels": ["other", "same"],
    "is_pair": True, "max_seq_length": 8}
  header, first, *_ = table(folder)
  assert header == ["prediction", "label", "probability:other",
                    "probability:same", "text", "text_pair"]
  assert first[:2] == ["same", "same"] and first[4:] == ["one one", "one"]
  # The original's file: probabilities alone.
  numbers = np.array(table(folder, "test_results.tsv"), float)
  np.testing.assert_allclose(numbers.sum(1), 1, atol=1e-5)
  assert len(numbers) == 24 and numbers[0, 1] > 0.5


def test_a_number_is_learnt(folder):
  rows = [{"text": f"{word} {other}", "label": value}
          for word, value in (("one", 1.0), ("two", 2)) for other in "abcd"]
  for split in ("train", "dev"):
    (folder / f"{split}.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows))
  results = run(folder, "regression", num_train_epochs=100.0)
  assert results["pearson"] > 0.99 and results["loss"] < 0.05
  assert results["pearson_spearman"] == pytest.approx(
      (results["pearson"] + results["spearman"]) / 2)
  header, first, *_ = table(folder)
  assert header == ["prediction", "label", "text"]
  assert float(first[0]) == pytest.approx(1, abs=0.5) and first[1] == "1.0"


def test_several_labels_are_learnt(folder):
  rows = [{"text": " ".join([*words, "a"]), "label": list(words)}
          for words in ((), ("one",), ("two",), ("one", "two"))] * 4
  for split in ("train", "dev"):
    (folder / f"{split}.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows))
  results = run(folder, "multilabel", num_train_epochs=150.0)
  assert results["micro_f1"] == 1.0 and results["exact_match"] == 1.0
  assert [row[0] for row in table(folder)[1:5]] == ["", "one", "two", "one,two"]
  # In a table the labels of a cell have commas between them.
  rows = [{**row, "label": ",".join(row["label"])} for row in rows]
  (folder / "dev.jsonl").write_text(
      "".join(json.dumps(row) + "\n" for row in rows))
  again = run(folder, "multilabel", do_train=False, do_predict=False)
  assert again["micro_f1"] == 1.0


def test_metrics_of_several_labels_and_of_numbers_by_hand():
  # Sigmoids 3/4 and 1/4: -log likelihoods are log 4/3 where right.
  logits = np.log([[3, 1 / 3], [3, 3]]).astype(np.float32)
  found = TASKS["multilabel"].metrics(
      {"labels": ["a", "b"]}, {},
      Examples({}, {"label": np.float32([[1, 0], [0, 1]])}),
      {"logits": logits})
  assert found["loss"] == pytest.approx(
      (3 * np.log(4 / 3) + np.log(4)) / 4, rel=1e-6)
  assert found["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
  found = TASKS["regression"].metrics(
      {}, {}, Examples({}, {"label": np.float32([1, 2, 3])}),
      {"logits": np.float32([[1], [2], [5]])})
  assert found["loss"] == pytest.approx(4 / 3)
  # Deviations (-1, 0, 1) and (-5/3, -2/3, 7/3): 4 / sqrt(2 * 78/9).
  assert found["pearson"] == pytest.approx(4 / np.sqrt(2 * 78 / 9))
  assert found["spearman"] == pytest.approx(1)


@pytest.mark.parametrize("task_name, value, message", [
  ("regression", "much", "train.tsv:3: has the label 'much'; it must be a nu"),
  ("regression", "inf", "train.tsv:3: has the label 'inf'; it must be finite"),
])
def test_labels_that_are_no_numbers_are_refused(
    folder, task_name, value, message):
  (folder / "train.tsv").write_text(f"text\tlabel\na\t1\nb\t{value}\n")
  with pytest.raises(InputError, match=message):
    run(folder, task_name, do_eval=False, do_predict=False,
        num_train_epochs=8.0)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"spans", "squad"}))
def test_every_task_asks_for_its_folder(name):
  config = FinetuningConfig(task_name=name, output_dir="unused", do_eval=True)
  with pytest.raises(InputError, match=f"--task_name={name} needs the folder"):
    TASKS[name].read(config, "dev")
  config = FinetuningConfig(
      task_name=name, output_dir="unused", do_eval=True, data_dir="a",
      predict_file="b")
  with pytest.raises(InputError, match="received b with .* are for squad"):
    TASKS[name].read(config, "dev")


# Rows of train, dev and test, and the labels.
GLUE = {
  "cola": ("CoLA", 8551, 1043, 1063, ["0", "1"]),
  "sst-2": ("SST-2", 67349, 872, 1821, ["0", "1"]),
  "mrpc": ("MRPC", 3668, 408, 1725, ["0", "1"]),
  "sts-b": ("STS-B", 5749, 1500, 1379, None),
  "rte": ("RTE", 2490, 277, 3000, ["entailment", "not_entailment"]),
  "wnli": ("WNLI", 635, 71, 146, ["0", "1"]),
  "qnli": ("QNLI", None, 5463, 5463, ["entailment", "not_entailment"]),
}


@pytest.mark.parametrize("name", GLUE)
def test_glue_is_read_as_it_is_given(shared, name):
  directory, *sizes, labels = GLUE[name]
  task = TASKS[name]
  config = FinetuningConfig(
      task_name=name, data_dir=str(shared / "data" / "glue" / directory),
      output_dir="unused", do_eval=True)
  for split, size in zip(("train", "dev", "test"), sizes):
    rows = task.read(config, split)
    if size is None:
      assert rows is None
      continue
    assert len(rows["text"]) == len(rows["where"]) == size
    assert ("label" in rows) == (split != "test")
    if split == "dev":
      description = task.describe(config, rows)
      assert description.get("labels") == labels
      assert description.get("is_pair", False) == (
          name not in ("cola", "sst-2"))


def test_a_tab_or_a_line_end_in_a_text_breaks_no_table():
  written = TASKS["classification"].predictions(
      {"labels": ["x", "y"]}, {"text": ["a\tb\nc\\d"], "where": ["1"]}, None,
      {"logits": np.float32([[0, 0]])})
  header, row, end = written["predictions.tsv"].split("\n")
  assert row.split("\t") == ["x", "0.500000", "0.500000", r"a\tb\nc\d"]
  assert len(header.split("\t")) == 4 and not end


def test_similarities_for_the_leaderboard_are_from_0_to_5():
  written = TASKS["sts-b"].predictions(
      {}, {"text": ["a", "b", "c"], "where": ["1", "2", "3"]}, None,
      {"logits": np.float32([[-0.5], [2.25], [5.5]])})
  assert written["STS-B.tsv"] == (
      "index\tprediction\n0\t0.000\n1\t2.250\n2\t5.000\n")
  assert written["test_results.tsv"] == "-0.5\n2.25\n5.5\n"


def test_the_metrics_that_glue_reports():
  outputs = {"logits": np.float32([[0, 1], [0, 1], [1, 0], [1, 0], [0, 1]])}
  encoded = Examples({}, {"label": np.array([1, 1, 1, 0, 0])})
  of = lambda name: TASKS[name].metrics(
      {"labels": ["0", "1"]}, {}, encoded, outputs)
  # Two of three are found, and one is too many.
  assert of("mrpc")["f1"] == of("qqp")["f1"] == pytest.approx(2 / 3)
  assert of("cola")["matthews_correlation"] == pytest.approx(
      (2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
  for name, task in TASKS.items():
    if task.kind == "classification":
      assert task.best_metric in of(name), name


def test_a_model_of_mnli_answers_the_diagnostic_rows(folder):
  header = "sentence1\tsentence2\tgold_label"
  labels = ("contradiction", "entailment", "neutral")
  rows = [f"a\t{b}\t{label}" for b, label in zip("bcd", labels)] * 4
  for name in ("train", "dev_matched", "dev_mismatched"):
    (folder / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
  run(folder, "mnli", do_predict=False, num_train_epochs=80.0)
  (folder / "diagnostic.tsv").write_text("sentence1\tsentence2\na\tb\na\tc\n")
  again = dict(bert_config_file=None, vocab_file=None, do_train=False,
               init_checkpoint=str(folder / "run"),
               output_dir=str(folder / "again"))
  run(folder, "ax", do_eval=False, **again)
  answers = (folder / "again" / "predictions.tsv").read_text().splitlines()
  assert [row.split("\t")[0] for row in answers[1:]] == [
    "contradiction", "entailment"]
  # As the leaderboard takes it.
  assert (folder / "again" / "AX.tsv").read_text() == (
      "index\tprediction\n0\tcontradiction\n1\tentailment\n")
  assert run(folder, "mnli-mm", do_predict=False, **again)["accuracy"] == 1.0
  (folder / "dev.tsv").write_text("text\tlabel\na\t1\n")
  with pytest.raises(InputError, match="was trained for 'mnli', not for"):
    run(folder, "regression", do_predict=False, **again)
  assert not os.path.exists(folder / "again" / "task.json")
