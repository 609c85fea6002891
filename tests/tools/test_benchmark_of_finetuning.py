"""The benchmark of fine-tuning; the peers are not run here."""

import argparse
import json
import math
import sys

from conftest import REPOSITORY
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.modeling import BertEncoder
from bert_tf.tokenization import BertTokenizer

sys.path[:0] = [str(REPOSITORY / "tools"),
                str(REPOSITORY / "tools" / "benchmarks" / "peers")]
import benchmark
from benchmarks import finetuning
from benchmarks.programs import Program
import finetuning_bert_tf
del sys.path[:2]


def found_of(seconds, start=9.0):
  return {
    "seconds": seconds, "start_seconds": start, "cpu_seconds": 3.0,
    "peak_bytes": 3 * 2**30, "version": "V 1", "losses": [0.7]}


def test_orders_are_compared_apart():
  """In random order 2 to 5 seconds, in any 1 to 1.5."""
  found = finetuning.ratios({
    "bert_tf": [found_of([1.0, 3.0])],
    "bert_tf --group_by_length": [found_of([1.0, 1.0])],
    "transformers": [found_of([5.0, 5.0])],
    "transformers compile": [found_of([6.0, 5.0])],
    "transformers compile group_by_length": [found_of([1.0, 2.0])]})
  assert found == {
    "random order": {"ours": "bert_tf", "peer": "transformers", "times": 2.5},
    "any order": {
      "ours": "bert_tf --group_by_length", "times": 1.5,
      "peer": "transformers compile group_by_length"}}


def test_the_report_of_fine_tuning(monkeypatch, capsys):
  monkeypatch.setattr(finetuning, "_measure", lambda arguments: {
    "MRPC float32": {
      "bert_tf": [found_of([1.0, 3.0]), found_of([4.0, 4.0])],
      "transformers": [found_of([3.0, 3.0]), found_of([8.0, 8.0])]}})
  monkeypatch.setattr(finetuning, "_figures", lambda arguments: {
    "MRPC": {"bert_tf": [{"accuracy": 0.75}, {"accuracy": 0.8}]}})
  benchmark.main(["finetuning", "--tasks=MRPC", "--precisions=float32"])
  lines = capsys.readouterr().out.splitlines()
  # 32 / 2 and 32 / 4 examples a second; 9 - 4 and 9 - 8 seconds to start.
  assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == [
    "bert_tf (V 1)", "MRPC float32", "12.0", "8.0", "16.0", "3.00", "3",
    "3,072"]
  # 3 / 2 and 8 / 4: the median of the inverse, 1 / 0.583.
  assert ("* MRPC float32, random order: bert_tf is 1.71 times as fast as "
          "transformers (at least 1.5 in random order)") in lines
  assert ("* MRPC, bert_tf, 3 epochs: accuracies of the dev rows 0.750, "
          "0.800") in lines
  assert json.loads(lines[-1])["bar"] == 1.5


@pytest.fixture
def sentences(tmp_path):
  folder = tmp_path / "SST-2"
  folder.mkdir()
  folder.joinpath("train.tsv").write_text("sentence\tlabel\n" + "".join(
      f"{word} {'x ' * (i % 3)}\t{i % 2}\n"
      for i, word in enumerate(["bad", "good"] * 64)))
  return tmp_path


def test_rows_are_drawn_without_replacement(sentences):
  task = finetuning.TASKS["SST-2"]
  rows = finetuning.read_rows(task, str(sentences), "train", 128)
  assert rows["label"].sum() == 64 and rows["label"].dtype == np.int32
  words = [text.split()[0] for text in rows["text"]]
  assert words == [["bad", "good"][label] for label in rows["label"]]
  assert words != ["bad", "good"] * 64
  assert len(finetuning.read_rows(task, str(sentences), "train")["text"]) == 128
  with pytest.raises(InputError, match="train.tsv: has 128 rows; 160 were"):
    finetuning.read_rows(task, str(sentences), "train", 160)


def test_another_task_is_noticed():
  program = Program("peer")
  finetuning.check_first_loss(program, {"losses": [0.6]})
  with pytest.raises(SystemExit, match="peer: its first loss is 1.1"):
    finetuning.check_first_loss(program, {"losses": [1.1]})


@pytest.mark.parametrize("variant", finetuning_bert_tf.VARIANTS)
def test_our_fine_tuning_learns(sentences, tmp_path, variant):
  """The real step in all variants, on a model of one layer and 8 pieces."""
  tf.keras.utils.set_random_seed(1)
  entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bad", "good", "x"]
  (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n")
  tokenizer = BertTokenizer.from_file(
      str(tmp_path / "vocab.txt"), do_lower_case=True)
  model = str(tmp_path / "model")
  checkpoints.save_model(model, BertEncoder(BertConfig(
      vocab_size=8, hidden_size=16, num_hidden_layers=1,
      num_attention_heads=2, intermediate_size=32, initializer_range=0.1,
      max_position_embeddings=16)), tokenizer)
  rows = finetuning.read_rows(
      finetuning.TASKS["SST-2"], str(sentences), "train", 128)
  request = finetuning.request_for(
      argparse.Namespace(init_checkpoint=model), steps=32)
  request["settings"] |= {
    "batch_size": 4, "max_seq_length": 8, "schedule": {
      "learning_rate": 0.01, "num_train_steps": 100, "num_warmup_steps": 1}}
  step, _ = finetuning_bert_tf.make_step(
      {**request, "variant": variant, "precision": "float32"}, rows)
  losses = [float(step()) for _ in range(64)]
  assert losses[0] == pytest.approx(math.log(2), abs=0.1)
  assert np.mean(losses[-8:]) < 0.3
