"""The programs one after the other, on real text, as a user runs them."""

import gzip
import json
import subprocess
import sys

from conftest import REPOSITORY
import pytest
from saved_model_loader import Loader

from bert_tf.config import BertConfig
from bert_tf.config import write_json

pytestmark = pytest.mark.slow


def run(script, **options):
  arguments = [
    f"--{name}" if value is True else f"--{name}={value}"
    for name, value in options.items()]
  result = subprocess.run(
      [sys.executable, str(REPOSITORY / script), *arguments],
      capture_output=True, text=True)
  assert result.returncode == 0, result.stderr[-2000:]
  return result.stderr


@pytest.fixture(scope="module")
def corpus(shared, tmp_path_factory):
  """Two books in prose: the first for training, some of the second held out."""
  folder = tmp_path_factory.mktemp("corpus")
  path = shared / "data" / "corpora" / "books_en.txt.gz"
  with gzip.open(path, "rt", encoding="utf-8") as file:
    documents = file.read().split("\n\n")
  (folder / "train.txt").write_text("\n\n".join(documents[:60]) + "\n")
  (folder / "heldout.txt").write_text("\n\n".join(documents[60:66]) + "\n")
  return folder


def test_from_raw_text_to_answers_in_cpp(corpus, shared):
  def path(*parts):
    return str(corpus.joinpath(*parts))

  run("tools/learn_vocabulary.py", input_file=path("train.txt"),
      output_file=path("vocab.txt"), vocab_size=2000)
  lengths = {"max_seq_length": 64, "max_predictions_per_seq": 10}
  for split in ("train", "heldout"):
    run("tools/create_pretraining_data.py", input_file=path(f"{split}.txt"),
        output_file=path(split, "records.tfrecord"),
        vocab_file=path("vocab.txt"), sentence_splitter="rules",
        dupe_factor=2, **lengths)
  write_json(path("bert_config.json"), BertConfig.from_size(
      "tiny", vocab_size=2000, num_attention_heads=4, initializer_range=0.1,
      hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).to_dict())
  run("run_pretraining.py", do_train=True, do_eval=True,
      input_file=path("train", "*.tfrecord"),
      eval_input_file=path("heldout", "*.tfrecord"),
      bert_config_file=path("bert_config.json"),
      vocab_file=path("vocab.txt"), output_dir=path("pretrained"),
      train_batch_size=16, eval_batch_size=16, max_eval_steps=20,
      learning_rate=1e-3, num_train_steps=1000, num_warmup_steps=100,
      **lengths)
  results = json.loads((corpus / "pretrained/eval_results.json").read_text())
  # ln 2000 = 7.6 is to know nothing; the frequencies alone give about 6.
  assert results["mlm_loss"] < 5.9
  assert results["mlm_accuracy"] > 1.5 * results["mlm_majority_accuracy"]

  rows = (shared / "data/glue/SST-2/train.tsv").read_text().split("\n")[1:8201]
  swapped = ["\t".join(row.split("\t")[::-1]) for row in rows]
  (corpus / "train.tsv").write_text("\n".join(["label\ttext", *swapped[:8000]]))
  (corpus / "dev.tsv").write_text("\n".join(["label\ttext", *swapped[8000:]]))
  run("tools/export_saved_model.py", model_dir=path("pretrained"),
      export_dir=path("export", "pretrained"))
  run("run_finetuning.py", task_name="classification", do_train=True,
      do_eval=True, do_predict=True, data_dir=str(corpus),
      init_checkpoint=path("export", "pretrained"), max_seq_length=64,
      output_dir=path("finetuned"), num_train_epochs=2, learning_rate=1e-3)
  results = json.loads((corpus / "finetuned/eval_results.json").read_text())
  assert results["accuracy"] > 0.6
  run("tools/export_saved_model.py", model_dir=path("finetuned"),
      export_dir=path("export", "classifier"))

  with Loader() as loader:
    filled = loader.ask(
        saved_model=path("export", "pretrained", "1"), signature="fill_mask",
        inputs={"text": ["She said that [MASK] was there.", "No mask."]})
    answers = loader.ask(
        saved_model=path("export", "classifier", "1"),
        signature="serving_default",
        inputs={"text": ["a gorgeous, witty film", "dull and awful"]})
  assert filled["pieces"].shape == (2, 1, 5)
  assert all(filled["pieces"][0, 0]) and not any(filled["pieces"][1, 0])
  assert answers["label"].tolist() == ["1", "0"]
  predictions = (corpus / "finetuned/predictions.tsv").read_text()
  assert len(predictions.splitlines()) == 201


def test_a_killed_pretraining_goes_on_with_the_same_command(corpus):
  """Depends on the records of the test above."""
  options = {
    "do_train": True, "input_file": str(corpus / "train" / "*.tfrecord"),
    "bert_config_file": str(corpus / "bert_config.json"),
    "vocab_file": str(corpus / "vocab.txt"), "max_seq_length": 64,
    "max_predictions_per_seq": 10, "train_batch_size": 8,
    "num_train_steps": 60, "num_warmup_steps": 10, "log_steps": 10,
    "save_checkpoints_steps": 20}
  run("run_pretraining.py", output_dir=str(corpus / "whole"), **options)
  process = subprocess.Popen(
      [sys.executable, str(REPOSITORY / "run_pretraining.py"),
       f"--output_dir={corpus / 'killed'}",
       *(f"--{name}={value}" for name, value in options.items())],
      stderr=subprocess.PIPE, text=True)
  for line in process.stderr:
    if "train step 30 " in line:
      process.kill()
      break
  process.wait()
  assert not (corpus / "killed" / "bert_config.json").exists()
  log = run("run_pretraining.py", output_dir=str(corpus / "killed"), **options)
  assert "Going on from step 20" in log

  def losses(name):
    text = (corpus / name / "metrics.jsonl").read_text()
    return [(line["step"], line["mlm_loss"]) for line in
            map(json.loads, text.splitlines())]

  assert [step for step, _ in losses("whole")] == list(range(10, 61, 10))
  assert dict(losses("killed")) == pytest.approx(
      dict(losses("whole")), rel=1e-5)
