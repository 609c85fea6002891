"""The benchmarks of the step and its input; the peers are not run here."""

import json
import math
import os
import sys

from conftest import REPOSITORY
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.data import records

sys.path[:0] = [str(REPOSITORY / "tools"),
                str(REPOSITORY / "tools" / "benchmarks" / "peers")]
import benchmark
from benchmarks import finetuning
from benchmarks import harness
from benchmarks import input_pipeline
from benchmarks import pretraining_step
from benchmarks import programs
from benchmarks import serving
import step_bert_tf
import step_products
import step_timing
del sys.path[:2]


def test_our_fastest_is_held_against_their_fastest():
  """By medians; the ratio is the median of 8 / 10, 12 / 12 and 9 / 15."""
  seconds = {
    "bert_tf": [20.0, 21.0, 22.0], "bert_tf --jit_compile": [8.0, 12.0, 9.0],
    "keras_hub": [30.0, 1.0, 30.0], "transformers": [10.0, 12.0, 15.0]}
  compare = lambda: programs.compare(seconds, pretraining_step.PROGRAMS)
  assert compare() == {
    "ours": "bert_tf --jit_compile", "peer": "transformers", "ratio": 0.8}
  del seconds["bert_tf"], seconds["bert_tf --jit_compile"]
  assert compare() is None


def test_the_report_of_the_step(monkeypatch):
  run = lambda seconds, **more: {
    "seconds": seconds, "cpu_seconds": 3.0, "start_seconds": 20.0,
    "peak_bytes": 3 * 2**30,
    "version": "V 1", **more}
  found = {"bfloat16": {
    "bert_tf": [run([1.0, 1.2, 5.0]), run([1.4, 1.4, 1.4])],
    "keras_hub": [run([2.4]), run([2.0])],
    "products": [run([0.5], flops=100e9), run([0.5], flops=100e9)]}}
  monkeypatch.setattr(pretraining_step, "_measure", lambda arguments: found)
  names = []
  monkeypatch.setattr(benchmark.harness, "table", lambda report, machine: (
    names.append(report) or ""))
  benchmark.main(["pretraining_step", "--precisions=bfloat16", "--rounds=2"])
  [report] = names
  assert report.rows[1] == (
    "bert_tf (V 1)", "bfloat16", "1.300", "1.200", "1.400", "3.00", "20",
    "3,072")
  # 1.2 / 2.4 and 1.4 / 2.0.
  assert report.notes[2:] == [
    "bfloat16: bert_tf takes 0.60 times keras_hub (at most 0.8)",
    "bfloat16: the matrix products of a step are 100 GFLOP; alone they run "
    "at 200 GFLOP/s"]


def test_each_program_has_its_files():
  for program in (*pretraining_step.PROGRAMS.values(),
                  *finetuning.PROGRAMS.values(), *serving.PROGRAMS.values()):
    assert os.path.exists(os.path.join(harness.PEERS, f"{program.script}.py"))
    path = os.path.join(
        harness.PEERS, f"{program.packages or program.script}.txt")
    packages = os.path.exists(path) and harness.read_packages(path)
    assert bool(packages) == (
      not program.is_ours and program.script != "step_products")
    for name in (name for line in packages or [] for name in line):
      assert name.startswith("--") or "==" in name


def test_packages_are_lines_of_a_file(tmp_path):
  path = tmp_path / "packages.txt"
  path.write_text("# why\n\na==1 b==2  # these\n--no-deps c==3\n")
  assert harness.read_packages(str(path)) == [
    ["a==1", "b==2"], ["--no-deps", "c==3"]]


@pytest.mark.parametrize("flag", ["--skip=tokenizers", "--precisions=float8"])
def test_a_wrong_name_is_refused(flag, capsys):
  with pytest.raises(SystemExit):
    benchmark.main(["pretraining_step", flag])
  wanted = "keras_hub" if "skip" in flag else "bfloat16"
  assert wanted in capsys.readouterr().err


def test_another_task_is_noticed():
  """ln 30522 + ln 2 = 10.33 + 0.69."""
  pretraining_step.check_first_loss("peer", 11.1)
  with pytest.raises(SystemExit, match="peer: its first loss is 10.33"):
    pretraining_step.check_first_loss("peer", 10.33)


def test_every_row_of_the_batch_is_full():
  batch = pretraining_step.make_batch()
  assert {name: array.shape for name, array in batch.items()} == {
    "input_ids": (16, 128), "input_mask": (16, 128), "segment_ids": (16, 128),
    "masked_lm_positions": (16, 20), "masked_lm_ids": (16, 20),
    "masked_lm_weights": (16, 20), "next_sentence_labels": (16,)}
  assert batch["input_mask"].all() and batch["masked_lm_weights"].all()
  assert batch["segment_ids"].sum() == 16 * 64
  assert (np.diff(batch["masked_lm_positions"]) > 0).all()
  assert batch["input_ids"].max() < 30522


def test_the_clock_leaves_out_the_first_steps(capsys):
  losses = iter([5.0, 4.0, 3.0, 2.0, 1.0])
  step_timing.run(
      {"warm_up": 2, "steps": 3}, lambda: next(losses), version="V 1")
  found = harness.last_json(capsys.readouterr().out)
  assert found["losses"] == [5.0, 4.0, 3.0, 2.0, 1.0]
  assert len(found["seconds"]) == 3 and found["version"] == "V 1"


def test_the_matrix_products_of_a_step():
  """Worked out by hand: multiply-adds of the forward products."""
  layer = 4 * 2048 * 512 * 512 + 2 * 2048 * 512 * 2048
  attention = 2 * 16 * 8 * 128 * 128 * 64
  # Of the last layer 20 masked pieces and [CLS] of each of 16 rows.
  last = (2 * 2048 * 512 * 512 + 2 * 336 * 512 * 512 + 2 * 336 * 512 * 2048
          + 2 * 16 * 8 * 21 * 128 * 64)
  head = 320 * 512 * 512 + 320 * 512 * 30522
  found = step_products.shapes(
      pretraining_step.MODEL, pretraining_step.make_batch())
  assert sum(math.prod(batch) * rows * inner * columns
             for batch, rows, inner, columns in found) == (
                 3 * (layer + attention) + last + head)


def test_our_step_learns():
  """The real step, on a model of 2 layers and 30 pieces."""
  tf.keras.utils.set_random_seed(1)
  rng = np.random.default_rng(1)
  batch = {
    "input_ids": rng.integers(0, 30, [4, 8], dtype=np.int32),
    "input_mask": np.ones([4, 8], np.int32),
    "segment_ids": np.zeros([4, 8], np.int32),
    "masked_lm_positions": np.tile(np.int32([1, 5]), [4, 1]),
    "masked_lm_ids": rng.integers(0, 30, [4, 2], dtype=np.int32),
    "masked_lm_weights": np.ones([4, 2], np.float32),
    "next_sentence_labels": np.int32([0, 1, 1, 0])}
  step, _ = step_bert_tf.make_step({
    "variant": "", "model": {
      "vocab_size": 30, "num_hidden_layers": 2, "hidden_size": 16,
      "num_attention_heads": 2, "intermediate_size": 32, "dropout": 0.1,
      "max_position_embeddings": 8},
    "optimizer": {"schedule": {
      "learning_rate": 1e-2, "num_train_steps": 1000,
      "num_warmup_steps": 1}}}, batch)
  losses = [float(step()) for _ in range(40)]
  assert losses[0] == pytest.approx(math.log(30) + math.log(2), abs=0.2)
  assert losses[-1] < losses[0] - 1


def test_reading_is_counted_after_the_first_batches():
  taken = []
  batches = (taken.append(number) for number in range(1000))
  found = input_pipeline.measure(batches, batch_size=4, count=11)
  assert len(taken) == input_pipeline.WARM_UP + 2
  assert set(found) == {"rate", "rate_per_core"}


@pytest.mark.parametrize("is_masked", [True, False])
def test_batches_are_those_of_a_training(tmp_path, is_masked):
  layout = records.Layout(8, max_predictions_per_seq=3 if is_masked else 0)
  path = str(tmp_path / "a.tfrecord")
  records.write_records(path, [{
    name: np.ones([6] + [feature.length] * bool(feature.length),
                  feature.dtype.as_numpy_dtype)
    for name, feature in records.features(layout).items()}])
  vocab_file = tmp_path / "vocab.txt"
  vocab_file.write_text("[PAD]\na\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
  batches = input_pipeline.make_batches(
      path, vocab_file=str(vocab_file), batch_size=2)
  batch = next(iter(batches))
  assert batch["input_ids"].shape == (2, 8)
  assert batch["masked_lm_ids"].shape == (2, 3 if is_masked else 20)
  assert input_pipeline.kind_of(path) == ("static" if is_masked else "dynamic")


def test_the_report_of_the_input(tmp_path, monkeypatch, capsys):
  """Medians of 1, 2, 9 thousand; given files are not made anew."""
  monkeypatch.setattr(input_pipeline, "kind_of", lambda pattern: "static")
  monkeypatch.setattr(
      input_pipeline, "_measure_all",
      lambda arguments, patterns: {
        (kind, 32): [{"rate": rate, "rate_per_core": 2 * rate}
                     for rate in (9000, 1000, 2000)] for kind in patterns})
  benchmark.main(["input_pipeline", "--input_file=*.tfrecord"])
  lines = capsys.readouterr().out.splitlines()
  assert lines[4].split("|")[1:3] == [
    " masked before, batches of 32 ", " 4,000  "]
  assert "* masked before, batches of 32: 2,000 records a second" in lines
  assert json.loads(lines[-1])["bar"] == 20000
