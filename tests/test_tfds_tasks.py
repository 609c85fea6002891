"""Tasks over datasets of TFDS, which its own code makes of small files here."""

import itertools
import json
import pathlib

import pytest

from bert_tf import finetuning
from bert_tf.config import InputError
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.tasks import TASKS
from small_models import config_for
from small_models import small_config
from small_models import write_start

SPLITS = ("train", "dev", "test")
# Rows of a split: so many that TFDS's order is not that of the file.
ROWS = 9
NLI = ("contradiction", "entailment", "neutral")
TWO = ("entailment", "not_entailment")
# Of each task: its folder, TFDS's name, the columns with {} for the row, the
# labels; other names of the splits' files.
GLUE = {
  "cola": ("CoLA", "cola", {"0": "s", "1": "", "2": "*", "3": "a {}"}, "01"),
  "sst-2": ("SST-2", "sst2", {"sentence": "a {}", "label": ""}, "10"),
  "mrpc": ("MRPC", "mrpc", {
    "Quality": "", "#1 ID": "1{}", "#2 ID": "2{}", "#1 String": "a \"{}",
    "#2 String": "b {}"}, "10"),
  "sts-b": ("STS-B", "stsb", {
    "index": "{}", "sentence1": "a {}", "sentence2": "b {}", "score": ""},
            ("3.800", "0.000", "5.000")),
  "qqp": ("QQP", "qqp", {
    "id": "{}", "question1": "a {}", "question2": "b {}",
    "is_duplicate": ""}, "01"),
  "qnli": ("QNLI", "qnli", {
    "index": "{}", "question": "a {}", "sentence": "b {}", "label": ""}, TWO),
  "rte": ("RTE", "rte", {
    "index": "{}", "sentence1": "a {}", "sentence2": "b {}", "label": ""},
          TWO),
  "wnli": ("WNLI", "wnli", {
    "index": "{}", "sentence1": "a {}", "sentence2": "b {}", "label": ""},
           "10"),
  **{name: ("MNLI", "mnli", {
    "index": "{}", "sentence1": "a {}", "sentence2": "b {}",
    "gold_label": ""}, NLI) for name in ("mnli", "mnli-mm")},
}


def lines_of(columns, labels, split):
  """A header and rows; those of test have no labels."""
  kept = [name for name, cell in columns.items() if cell or split != "test"]
  rows = [[columns[name].format(f"{split}{i}") or label for name in kept]
          for i, label in zip(range(ROWS), itertools.cycle(labels))]
  return ["\t".join(row) for row in [kept, *rows]]


def write_lines(path: pathlib.Path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(f"{line}\n" for line in lines))


def write_glue(folder: pathlib.Path):
  """All of GLUE as its authors give it, and MRPC as Microsoft does."""
  for name, (directory, _, columns, labels) in GLUE.items():
    for split in SPLITS:
      lines = lines_of(columns, labels, split)
      if name == "cola":
        lines = ["index\tsentence", *(
          line.replace("s\t*\t", "0\t") for line in lines[1:])
        ] if split == "test" else lines[1:]
      if not name.startswith("mnli") or split == "train":
        write_lines(folder / directory / f"{split}.tsv", lines)
        continue
      kind = "mismatched" if name == "mnli-mm" else "matched"
      write_lines(folder / directory / f"{split}_{kind}.tsv", [
        line.replace(split, f"{split} {kind} ") for line in lines])
  write_lines(folder / "AX" / "diagnostic.tsv", lines_of(
      GLUE["mnli"][2], NLI, "test"))
  train, dev, test = (
    (folder / "MRPC" / f"{split}.tsv").read_text().splitlines()
    for split in SPLITS)
  write_lines(folder / "MRPC" / "msr_train.txt", [
    f"\ufeff{train[0]}", *itertools.chain(*zip(dev[1:], train[1:]))])
  write_lines(folder / "MRPC" / "msr_test.txt", test)
  write_lines(folder / "MRPC" / "msr_dev_ids.txt", [
    "\t".join(line.split("\t")[1:3]) for line in dev[1:]])


@pytest.fixture
def serve(monkeypatch):
  """(what to answer to the address or addresses that TFDS wants)."""
  import tensorflow_datasets as tfds

  def give(answer):
    for name in ("download", "download_and_extract"):
      monkeypatch.setattr(
          tfds.download.DownloadManager, name,
          lambda self, addresses: answer(addresses))

  return give


def config_of(folder, task_name, tfds_name=None, **options):
  place = {"tfds_name": tfds_name, "tfds_data_dir": str(folder / "tfds")} if (
      tfds_name) else {"data_dir": str(folder)}
  return FinetuningConfig(
      task_name=task_name, output_dir="unused", do_eval=True, **place,
      **options)


def answer_glue(folder):
  def answer(addresses):
    if isinstance(addresses, dict):
      return {key: folder / "MRPC" / f"msr_{key}.txt" for key in addresses}
    if "bit.ly" in addresses:
      return folder / "AX" / "diagnostic.tsv"
    return folder

  return answer


@pytest.mark.parametrize("name", [*GLUE, "ax"])
def test_glue_is_what_its_own_files_give(tmp_path, serve, name):
  write_glue(tmp_path)
  serve(answer_glue(tmp_path))
  directory, tfds_name = ("AX", "ax") if name == "ax" else GLUE[name][:2]
  read = TASKS[name].read
  for split in SPLITS:
    ours = read(config_of(tmp_path / directory, name), split)
    theirs = read(config_of(tmp_path, name, f"glue/{tfds_name}"), split)
    if name == "ax" and split != "test":
      assert ours is theirs is None
      continue
    number = ROWS
    if name == "sts-b" and split != "test":
      ours["label"], theirs["label"] = (
        list(map(float, rows["label"])) for rows in (ours, theirs))
    wheres = theirs.pop("where")
    assert len(ours.pop("where")) == len(set(wheres)) == number
    assert theirs == ours and ("label" in ours) == (split != "test")
    assert all(where.startswith(f"tfds:glue/{tfds_name}/") for where in wheres)
    # TFDS had them in another order.
    assert wheres != sorted(wheres)


def test_mnlis_other_rows_are_no_diagnostic_ones(tmp_path, serve):
  write_glue(tmp_path)
  serve(answer_glue(tmp_path))
  config = config_of(tmp_path, "ax", "glue/mnli")
  assert TASKS["ax"].read(config, "test") is None
  rows = TASKS["mnli-mm"].read(
      config_of(tmp_path, "mnli-mm", "glue/mnli_mismatched"), "dev")
  assert rows["text"][0] == "a dev mismatched 0"


def test_a_model_is_the_same_from_files_and_from_tfds(tmp_path, serve):
  write_glue(tmp_path)
  serve(answer_glue(tmp_path))
  entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", '"',
             *(f"{split}{i}" for split in SPLITS for i in range(ROWS))]
  write_start(tmp_path, entries, small_config(entries))
  written = []
  for kind, options in (
      ("files", {"data_dir": str(tmp_path / "MRPC")}),
      ("tfds", {"data_dir": None, "tfds_name": "glue/mrpc",
                "tfds_data_dir": str(tmp_path / "tfds")})):
    run = tmp_path / kind
    finetuning.run(config_for(
        tmp_path, "mrpc", output_dir=str(run), num_train_epochs=2.0,
        do_eval=False, **options), TASKS["mrpc"])
    written.append([(run / name).read_text() for name in (
      "task.json", "MRPC.tsv", "test_results.tsv")])
  assert written[0] == written[1]
  assert len(written[0][1].splitlines()) == 1 + ROWS


CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Ann NNP B-NP B-PER
Lee NNP I-NP I-PER

"""


def test_conll_2003_is_what_its_own_files_give(tmp_path, serve, caplog):
  caplog.set_level("INFO")
  for name in ("train", "valid", "test"):
    (tmp_path / f"{name}.txt").write_text(CONLL)
  (tmp_path / "dev.txt").write_text(CONLL)
  serve(lambda address: tmp_path)
  task = TASKS["conll2003"]
  for split in SPLITS:
    ours = task.read(config_of(tmp_path, "conll2003"), split)
    rows = task.read(config_of(tmp_path, "conll2003", "conll2003"), split)
    assert sorted(zip(rows["words"], rows["tags"])) == sorted(
        zip(ours["words"], ours["tags"]))
    # No sentence is another's context.
    assert rows["document"] == [0, 1]
  # TFDS makes a sentence of the end of the file.
  assert caplog.text.count(
      "1 of 3 sentences of conll2003 have no words and are left out") == 3
  config = config_of(tmp_path, "conll2003", "conll2003").with_defaults(
      task.defaults)
  caplog.clear()
  assert task.describe(config, task.read(config, "train")) == {
    "labels": ["O", "B-ORG", "I-ORG", "B-PER", "I-PER"]}
  assert "each stands alone, as with --document_context=false" in caplog.text


def test_any_tags_of_words_are_read(tmp_path, serve):
  for name in ("train", "valid", "test"):
    (tmp_path / f"{name}.txt").write_text(CONLL)
  serve(lambda address: tmp_path)
  rows = TASKS["tagging"].read(config_of(
      tmp_path, "tagging", "conll2003", text_column="tokens",
      label_column="pos"), "dev")
  assert sorted(rows["tags"]) == [["NNP", "NNP"], ["NNP", "VBZ"]]
  with pytest.raises(InputError, match="no feature text, label; there are "):
    TASKS["tagging"].read(
        config_of(tmp_path, "tagging", "conll2003"), "dev")


def test_choices_are_a_list_or_features(tmp_path, serve):
  # TFDS wants a row of each of its many splits.
  lines = [
    {"ctx": f"He {i}", "activity_label": "x", "split_type": kind,
     "source_id": source, "endings": ["a", "b", "c", f"d {i}"]}
    for i, (kind, source) in enumerate(itertools.product(
        ("indomain", "zeroshot"), ("activitynet", "wikihow")))]
  for name in ("train", "validation", "test"):
    write_lines(tmp_path / f"{name}.jsonl", [
      json.dumps({**line, **({"label": i} if name != "test" else {})})
      for i, line in enumerate(lines)])
  serve(lambda addresses: {
    key: tmp_path / f"{key}.jsonl" for key in addresses})
  task = TASKS["multiple_choice"]
  config = config_of(
      tmp_path, "multiple_choice", "hellaswag", text_column="context",
      choice_columns=("endings",))
  for split in SPLITS:
    rows = task.read(config, split)
    assert sorted(zip(rows["text"], rows["choices"])) == [
      (f"He {i}", ["a", "b", "c", f"d {i}"]) for i in range(4)]
    assert ("label" in rows) == (split != "test")
    assert all(text == f"He {label}" for text, label in zip(
        rows["text"], rows.get("label", "")))

  for name in ("train", "dev"):
    part = tmp_path / "physicaliqa-train-dev"
    write_lines(part / f"{name}.jsonl", [json.dumps(
        {"id": "1", "goal": "sit", "sol1": "a", "sol2": "b"})])
    write_lines(part / f"{name}-labels.lst", ["1"])
  serve(lambda address: tmp_path)
  rows = task.read(config_of(
      tmp_path, "multiple_choice", "piqa", text_column="goal",
      choice_columns=("sol1", "sol2")), "dev")
  assert (rows["text"], rows["label"], rows["choices"]) == (
    ["sit"], ["1"], [["a", "b"]])


def test_questions_of_squad_2_are_read(tmp_path, serve):
  context = "Ann sat."
  questions = [
    {"id": "1", "question": "Who?", "is_impossible": False,
     "answers": [{"text": "Ann", "answer_start": 0}]},
    {"id": "2", "question": "Why?", "is_impossible": True, "answers": [],
     "plausible_answers": [{"text": "Ann", "answer_start": 0}]}]
  for split in ("train", "dev"):
    (tmp_path / f"{split}-v2.0.json").write_text(json.dumps({"data": [
      {"title": "x", "paragraphs": [
        {"context": context, "qas": questions}]}]}))
  serve(lambda addresses: {
    key: tmp_path / f"{key}-v2.0.json" for key in addresses})
  task, options = TASKS["squad"], {"version_2_with_negative": True}
  rows = task.read(config_of(tmp_path, "squad", "squad/v2.0", **options), "dev")
  ours = task.read(config_of(tmp_path, "squad", **options), "dev")
  by_id = sorted(range(2), key=lambda i: rows["id"][i])
  for name in ours.keys() - {"where"}:
    assert [rows[name][i] for i in by_id] == ours[name], name


@pytest.mark.parametrize("name", ["swag", "codah"])
def test_what_tfds_does_not_have_is_refused(tmp_path, name):
  with pytest.raises(
      InputError, match=f"--task_name={name}, which reads files in --data_dir"):
    TASKS[name].read(config_of(tmp_path, name, "swag"), "train")


def test_a_dataset_and_files_are_one_too_many(tmp_path):
  for flag in ("data_dir", "train_file", "predict_file"):
    with pytest.raises(InputError, match="received squad and the files a; gi"):
      config_of(tmp_path, "squad", "squad", **{flag: "a"})
