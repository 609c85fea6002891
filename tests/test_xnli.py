"""XNLI: small files in the form of the official ones, through the driver."""

import json

import pytest

from bert_tf import finetuning
from bert_tf.config import InputError
from bert_tf.tasks import TASKS
import small_models

LABELS = ("neutral", "contradiction", "entailment")
# A premise, and the hypothesis that has each label.
PREMISES = {"zh": "\u732b", "en": "cat"}
HYPOTHESES = {"zh": ("\u72d7", "\u725b", "\u9e21"), "en": ("dog", "cow", "hen")}
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", '"', ".", "a",
           *PREMISES.values(), *HYPOTHESES["zh"], *HYPOTHESES["en"]]
TASK = TASKS["xnli"]
# Those of XNLI 1.0.
HEADER = (
  "language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\t"
  "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tpromptID\tpairID\t"
  "genre\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tsentence1_tokenized\t"
  "sentence2_tokenized\tmatch")


def xnli_row(language, label, premise, hypothesis):
  return "\t".join([
    language, label, "", "", "", "", premise, hypothesis, "1", "1", "face",
    *[label] * 5, f"{premise} .", f"{hypothesis} .", "True"])


@pytest.fixture
def folder(tmp_path):
  """Both languages; a quotation mark is a character as any other."""
  (tmp_path / "multinli").mkdir()
  labels = [label.replace("contradiction", "contradictory") for label in LABELS]
  for language, premise in PREMISES.items():
    rows = [f'"{premise} a\t{word}.\t{label}'
            for word, label in zip(HYPOTHESES[language], labels)] * 8
    (tmp_path / "multinli" / f"multinli.train.{language}.tsv").write_text(
        "\n".join(["premise\thypo\tlabel", *rows]) + "\n")
  for split in ("dev", "test"):
    # The languages take turns, which the official files do not.
    rows = [
      xnli_row(language, label, f'"{PREMISES[language]} a',
               f"{HYPOTHESES[language][i]}.")
      for i, label in enumerate(LABELS) for language in PREMISES]
    (tmp_path / f"xnli.{split}.tsv").write_text(
        "\n".join([HEADER, *rows]) + "\n")
  return small_models.write_start(
      tmp_path, ENTRIES, small_models.small_config(
          ENTRIES, num_hidden_layers=2))


def config_for(folder, **options):
  return small_models.config_for(folder, "xnli", **{
    "max_seq_length": 12, "num_train_epochs": 40.0, **options})


def predictions(folder):
  """{column: values}."""
  lines = (folder / "run" / "predictions.tsv").read_text().splitlines()
  header, *rows = [line.split("\t") for line in lines]
  return dict(zip(header, zip(*rows)))


def test_the_rows_are_those_that_the_original_reads(folder):
  config = config_for(folder)
  rows = TASK.read(config, "train")
  assert rows["text"][:3] == ['"\u732b a'] * 3
  assert rows["text_pair"][:3] == ["\u72d7.", "\u725b.", "\u9e21."]
  assert rows["label"] == list(LABELS) * 8
  assert rows["where"][0].endswith("multinli.train.zh.tsv:2")
  for split in ("dev", "test"):
    rows = TASK.read(config, split)
    assert rows["text_pair"] == ["\u72d7.", "\u725b.", "\u9e21."]
    assert rows["label"] == list(LABELS)
    # The lines of the file that has the other language between them.
    assert [int(where.rpartition(":")[2]) for where in rows["where"]] == [
      2, 4, 6]


def test_chinese_is_learnt_without_a_flag(folder):
  results = finetuning.run(config_for(folder), TASK)
  assert results["accuracy"] == 1.0
  assert json.loads((folder / "run" / "task.json").read_text()) == {
    "task_name": "xnli", "kind": "classification", "is_pair": True,
    "labels": ["contradiction", "entailment", "neutral"],
    "train_language": "zh", "max_seq_length": 12}
  found = predictions(folder)
  assert found["prediction"] == found["label"] == LABELS
  assert found["text"] == ('"\u732b a',) * 3


def test_one_language_is_learnt_and_another_is_judged(folder):
  finetuning.run(config_for(
      folder, train_language="en", language="zh"), TASK)
  assert predictions(folder)["text_pair"] == ("\u72d7.", "\u725b.", "\u9e21.")
  # What it learnt is English; the model that is there judges that, too.
  results = finetuning.run(config_for(
      folder, language="en", do_train=False), TASK)
  assert results["accuracy"] == 1.0
  assert predictions(folder)["text_pair"] == ("dog.", "cow.", "hen.")
  task = json.loads((folder / "run" / "task.json").read_text())
  assert task["train_language"] == "en"
  with pytest.raises(InputError, match="train_language was 'en', now 'zh'"):
    finetuning.run(config_for(folder), TASK)


@pytest.mark.parametrize("options, message", [
  ({"train_language": "cn"},
   "multinli.train.cn.tsv: no such file. --train_language, or else --langu"),
  ({"language": "cn", "do_train": False},
   "--language: received 'cn'; .*xnli.dev.tsv has rows in en, zh."),
])
def test_wrong_flags_are_refused(folder, options, message):
  with pytest.raises(InputError, match=message):
    finetuning.run(config_for(folder, **options), TASK)
  assert not (folder / "run").exists()
