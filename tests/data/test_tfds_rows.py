"""Rows of datasets in TFDS's own format, which are made here."""

import dataclasses

import numpy as np
import pytest

from bert_tf.config import InputError
from bert_tf.data.squad_files import read_tfds_questions
from bert_tf.data.tfds_rows import read_tfds
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.tasks import TASKS

PAIRS = [
  {"sentence1": "a b", "sentence2": "é", "label": 1, "score": 2.5,
   "words": ["x", "y"]},
  {"sentence1": "c", "sentence2": "d", "label": 0, "score": -1.0,
   "words": []},
]
CONTEXT = "Ada wrote to Bob."
QUESTIONS = [
  {"id": "1", "question": "Who?", "context": CONTEXT,
   "answers": [{"text": "Ada", "answer_start": 0},
               {"text": "Bob", "answer_start": 13}]},
  {"id": "2", "question": "When?", "context": CONTEXT, "answers": []},
]


def _builders():
  """Known to TFDS by their names, not prepared yet."""
  import tensorflow_datasets as tfds
  text = tfds.features.Text

  class TinyPairs(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self, disable_shuffling=True,
          features=tfds.features.FeaturesDict({
            "sentence1": text(), "sentence2": text(), "score": np.float32,
            "label": tfds.features.ClassLabel(names=["other", "same"]),
            "words": tfds.features.Sequence(text())}))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples(PAIRS),
              "validation": self._generate_examples(PAIRS[:1])}

    def _generate_examples(self, examples):
      yield from enumerate(examples)

  class TinySquad(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self, disable_shuffling=True,
          features=tfds.features.FeaturesDict({
            "id": text(), "question": text(), "context": text(),
            "answers": tfds.features.Sequence(
                {"text": text(), "answer_start": np.int32})}))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples(QUESTIONS)}

    def _generate_examples(self, examples):
      yield from enumerate(examples)

  return TinyPairs.name, TinySquad.name


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  pairs, squad = _builders()
  return pairs, squad, str(tmp_path_factory.mktemp("tfds"))


def test_features_are_columns_and_classes_have_their_names(prepared):
  pairs, _, folder = prepared
  rows = read_tfds(pairs, "train", ["sentence2", "label", "score", "words"],
                   data_dir=folder)
  assert rows == {
    "sentence2": ["é", "d"], "label": ["same", "other"],
    "score": ["2.5", "-1.0"], "words": [["x", "y"], []],
    "where": ["tfds:tiny_pairs/1.0.0:train:0", "tfds:tiny_pairs/1.0.0:train:1"]}
  assert read_tfds(
      pairs, "dev", ["score"], data_dir=folder)["score"] == ["2.5"]
  assert read_tfds(pairs, "test", ["score"], data_dir=folder) is None


def test_rows_without_a_class_are_left_out_and_bytes_are_checked(
    tmp_path, caplog):
  import tensorflow_datasets as tfds

  class TinyLabels(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self, disable_shuffling=True,
          features=tfds.features.FeaturesDict({
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["b", "a"])}))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      yield from enumerate([
        {"text": "x", "label": -1}, {"text": "y", "label": 0},
        {"text": b"z\xff", "label": 1}])

  caplog.set_level("INFO")
  read = lambda columns, **options: read_tfds(
      TinyLabels.name, "train", columns, data_dir=str(tmp_path), **options)
  rows = read(["label"])
  assert rows["label"] == ["b", "a"] and rows["where"] == [
    f"tfds:tiny_labels/1.0.0:train:{i}" for i in (1, 2)]
  assert "1 of 3 rows of tiny_labels, train, have no class (-1)" in caplog.text
  assert read(["label"], by_number=True)["label"] == ["0", "1"]
  assert read(["text"], on_bad_utf8="replace")["text"] == ["x", "y", "z\ufffd"]
  with pytest.raises(InputError, match="train:2: the feature 'text' is not UT"):
    read(["text"])


def test_a_task_reads_a_dataset(prepared):
  pairs, squad, folder = prepared
  config = FinetuningConfig(
      task_name="classification", tfds_name=pairs, tfds_data_dir=folder,
      text_column="sentence1", text_pair_column="sentence2", do_eval=True,
      output_dir="unused")
  task = TASKS["classification"]
  rows = task.read(config, "train")
  assert rows["text"] == ["a b", "c"] and rows["text_pair"] == ["é", "d"]
  assert task.describe(config, rows) == {
    "labels": ["other", "same"], "is_pair": True}
  numbers = TASKS["regression"].read(
      dataclasses.replace(config, label_column="score"), "dev")
  assert numbers["label"] == ["2.5"]
  questions = TASKS["squad"].read(
      dataclasses.replace(config, tfds_name=squad), "train")
  assert questions["id"] == ["1", "2"]


@pytest.mark.parametrize("task_name, labels, message", [
  ("classification", ["x", "x"], "a: all training rows have the label 'x'"),
  ("multilabel", [[], []], "a: no training row has a label"),
])
def test_labels_that_teach_nothing_are_told_with_the_name(
    task_name, labels, message):
  config = FinetuningConfig(
      task_name=task_name, tfds_name="a", do_eval=True, output_dir="unused")
  with pytest.raises(InputError, match=f"^{message}"):
    TASKS[task_name].describe(config, {"label": labels})


def test_questions_are_checked_as_those_of_files(prepared):
  _, squad, folder = prepared
  rows = read_tfds_questions(squad, "train", data_dir=folder)
  assert rows["answers"] == [QUESTIONS[0]["answers"], []]
  assert rows["is_impossible"] == [False, True]
  assert rows["where"][1] == "tfds:tiny_squad/1.0.0:train:1: question '2'"
  assert read_tfds_questions(squad, "dev", data_dir=folder) is None


def test_what_is_not_there_is_told(prepared, tmp_path):
  name = prepared[0]
  with pytest.raises(InputError, match="no feature text; there are sentence1"):
    read_tfds(name, "train", ["text"], data_dir=str(tmp_path))
  # Nothing was fetched for that.
  assert not list(tmp_path.iterdir())
  with pytest.raises(InputError, match="received 'no_such_set', with .*not fo"):
    read_tfds("no_such_set", "train", ["text"], data_dir=str(tmp_path))


def test_a_dataset_is_fetched_once_and_says_so(prepared, tmp_path, caplog):
  caplog.set_level("INFO")
  for _ in range(2):
    read_tfds(prepared[0], "train", ["label"], data_dir=str(tmp_path))
  [record] = [
    record for record in caplog.records if "is fetched" in record.message]
  assert record.message.startswith(
      f"tiny_pairs/1.0.0 is not in {tmp_path}/tiny_pairs/1.0.0 yet")
