"""One result, however the work is spread: over devices, processes, parts."""

import re

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import distribution
from bert_tf import losses
from bert_tf import pretraining
from bert_tf import train_step
from bert_tf.arguments import PretrainingConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.data import input_pipeline
from bert_tf.data import records
from bert_tf.heads import BertForPreTraining
from bert_tf.optimization import make_optimizer
from bert_tf.optimization import WarmupDecay
import training_process
from training_process import Training

LAYOUT = records.Layout(max_seq_length=32, max_predictions_per_seq=5)
MIRRORED = {"devices": 2, "distribution_strategy": "mirrored"}
SPREADS = {
  "one device": {},
  "mirrored": MIRRORED,
  "two workers": {"workers": 2},
  "four parts": {"gradient_accumulation_steps": 4},
  "mirrored, two parts": {**MIRRORED, "gradient_accumulation_steps": 2},
}
WAYS = [
  (name, jit) for jit in (False, True) for name in SPREADS
  if jit or name != "one device"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  return training_process.make_inputs(
      tmp_path_factory.mktemp("inputs"), dropout=0.0, layers=2)


@pytest.fixture(scope="module")
def reference(inputs):
  """50 steps on one device."""
  return Training(
      inputs, inputs / "reference", save_checkpoints_steps=50).finish()


def training_batches(inputs, batch_size=16):
  return input_pipeline.training_batches(
      [str(inputs / "train.tfrecord")], layout=LAYOUT, batch_size=batch_size,
      seed=12345)


def test_parts_of_a_batch_have_different_numbers_of_predictions(inputs):
  """Or else a mean over replicas would pass for one over the batch."""
  counts = np.array([
    np.sum(batch["masked_lm_weights"].numpy().reshape(4, -1), axis=1)
    for batch in training_batches(inputs).take(50)])  # [steps, parts]
  halves = counts.reshape(50, 2, 2).sum(axis=2)
  # By a tenth and more in most steps: a wrong mean is off by as much.
  assert np.mean(np.ptp(halves, axis=1) > 0.1 * halves.mean(axis=1)) > 0.5
  assert np.mean(np.ptp(counts, axis=1) > 0.2 * counts.mean(axis=1)) > 0.5


def assert_agree(one, other):
  """Losses, weights and slots of two runs, by the files they left."""
  lines, others = (training_process.lines_of(run) for run in (one, other))
  assert [line["step"] for line in lines] == list(range(1, 51))
  # The norm before clipping, which would hide a doubled gradient.
  for name in ("loss", "mlm_loss", "nsp_loss", "gradient_norm"):
    np.testing.assert_allclose(
        [line[name] for line in lines], [line[name] for line in others],
        rtol=1e-4, err_msg=name)
  values, expected = (
    training_process.values_of(run) for run in (one, other))
  assert set(values) == set(expected)
  kinds = {name[-2:] for name in values}
  assert {"_m", "_v"} <= kinds
  for name, value in expected.items():
    if re.search("key.bias", name):
      # It adds the same to all scores of a query, which softmax does not
      # feel. Its gradient is 0: weight and slots hold rounding, no more.
      assert np.abs(value).max() < 1e-6, name
      assert np.abs(values[name]).max() < 1e-6, name
      continue
    error = np.linalg.norm(
        values[name].astype(np.float64) - value.astype(np.float64))
    bound = 1e-5 if name.endswith(("_m", "_v")) else 1e-4
    assert error <= bound * np.linalg.norm(value), name


@pytest.mark.slow
@pytest.mark.parametrize("name, jit_compile", WAYS)
def test_the_result_is_that_of_one_device(
    inputs, reference, tmp_path, name, jit_compile):
  run = Training(
      inputs, tmp_path / "run", save_checkpoints_steps=50,
      jit_compile=jit_compile, **SPREADS[name]).finish()
  assert_agree(run, reference)


@pytest.mark.slow
def test_steps_in_a_loop_are_the_steps_alone_to_the_bit(inputs, tmp_path):
  folder = training_process.make_inputs(tmp_path / "inputs", dropout=0.1)
  # Lines of 10 steps, the sums of 7 and of 2 and the last step alone.
  loop, alone = (
    Training(folder, tmp_path / str(count), iterations_per_loop=count,
             deterministic=True, num_train_steps=30, log_steps=10,
             save_checkpoints_steps=15)
    for count in (7, 1))
  loop, alone = loop.finish(), alone.finish()
  assert training_process.differences(loop, alone) == []
  lines = training_process.lines_of(loop)
  assert [line["step"] for line in lines] == [10, 20, 30]


def functions_of(graph, seen=None):
  """A graph, and those of all functions that its ops call."""
  seen = {} if seen is None else seen
  yield graph
  for operation in graph.get_operations():
    for attribute in operation.node_def.attr.values():
      names = [attribute.func.name, *(f.name for f in attribute.list.func)]
      for name in filter(None, names):
        if name not in seen:
          seen[name] = graph._get_function(name).graph
          yield from functions_of(seen[name], seen)


def make_step(batch_spec, *, micro_batches, jit_compile, optimizer="adamw"):
  strategy = distribution.make_strategy()
  with strategy.scope():
    model = BertForPreTraining(BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32))
    optimizer = make_optimizer(optimizer, WarmupDecay(
        0.01, num_train_steps=50, num_warmup_steps=5))
    optimizer.build(model.trainable_variables)
    state = train_step.StepState()
  return train_step.make_train_step(
      model, optimizer, losses.PRETRAINING, strategy=strategy, seed=1,
      batch_spec=batch_spec, state=state, micro_batches=micro_batches,
      jit_compile=jit_compile)


@pytest.mark.parametrize("micro_batches, jit_compile", [
  (1, False), (4, False), (2, True)])
def test_the_step_has_static_shapes_and_no_strings_as_a_tpu_needs(
    inputs, micro_batches, jit_compile):
  """There is no TPU here: this is what can be seen without one."""
  spec = training_batches(inputs).element_spec
  for value in spec.values():
    assert value.shape.is_fully_defined() and value.dtype != tf.string
  step = make_step(spec, micro_batches=micro_batches, jit_compile=jit_compile)
  graphs = list(functions_of(step.one.get_concrete_function().graph))
  operations = [each for graph in graphs for each in graph.get_operations()]
  assert len(graphs) > 1 and len(operations) > 500
  for operation in operations:
    assert "Ragged" not in operation.type, operation.name
    if "redundant_placeholder" in operation.name:
      continue  # Stands in the condition of a loop for what it does not read.
    for tensor in operation.outputs:
      assert tensor.shape.is_fully_defined(), (operation.type, tensor)
      assert tensor.dtype not in (tf.string, tf.variant), tensor


@pytest.mark.parametrize("value, message", [
  (None, "TF_CONFIG is not set.*JSON object such as"),
  ("{", "TF_CONFIG: received '{'.*JSONDecodeError.*must be a JSON object"),
  ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG: .*KeyError: 'task'"),
  ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
   "TF_CONFIG: .*IndexError"),
  ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
   "TF_CONFIG: .*KeyError: 'chief'"),
])
def test_a_wrong_tf_config_is_refused(monkeypatch, value, message):
  monkeypatch.delenv("TF_CONFIG", raising=False)
  if value is not None:
    monkeypatch.setenv("TF_CONFIG", value)
  with pytest.raises(InputError, match=message):
    distribution.make_strategy("multi_worker_mirrored")


def test_a_tpu_that_is_not_there_is_refused():
  with pytest.raises(InputError, match="--tpu_name: received 'nowhere'"):
    distribution.make_strategy("tpu", tpu_name="nowhere")


def test_a_batch_that_replicas_and_parts_do_not_divide_is_refused():
  distribution.check_batch_size(24, num_replicas=4, micro_batches=3)
  with pytest.raises(InputError, match="received 24; 4 replicas.*of 16"):
    distribution.check_batch_size(24, num_replicas=4, micro_batches=4)


def test_fewer_records_than_one_batch_are_refused(inputs, tmp_path):
  count = read_json(str(inputs / "stats.json"))["instances"]
  config = PretrainingConfig(
      input_file=(str(inputs / "train.tfrecord"),), do_train=True,
      output_dir=str(tmp_path / "run"), max_seq_length=32,
      bert_config_file=str(inputs / "bert_config.json"),
      vocab_file=str(inputs / "vocab.txt"), max_predictions_per_seq=5,
      train_batch_size=count + 1, num_train_steps=1, num_warmup_steps=0)
  with pytest.raises(
      InputError, match=f"hold {count} records.*one batch of {count + 1}"):
    pretraining.run(config)
  assert not (tmp_path / "run" / "bert_config.json").exists()


def error_of(training):
  """The line that says why a program gave up."""
  (line,) = [line for line in training.log().splitlines()
             if line.startswith("run_pretraining.py: error: ")]
  return line


@pytest.mark.slow
def test_two_replicas_refuse_what_they_cannot_share(inputs, tmp_path):
  few = tmp_path / "few"
  few.mkdir()
  for name in ("vocab.txt", "bert_config.json"):
    (few / name).write_bytes((inputs / name).read_bytes())
  with tf.io.TFRecordWriter(str(few / "train.tfrecord")) as writer:
    for record in tf.data.TFRecordDataset(
        str(inputs / "train.tfrecord")).take(1):
      writer.write(record.numpy())
  undivided = Training(
      inputs, tmp_path / "undivided", train_batch_size=6,
      gradient_accumulation_steps=2, **MIRRORED)
  lacking = Training(few, tmp_path / "lacking", train_batch_size=2, **MIRRORED)
  assert undivided.wait() == [1] and lacking.wait() == [1]
  assert "--train_batch_size: received 6; 2 replicas" in error_of(undivided)
  assert "a multiple of 4" in error_of(undivided)
  assert "1 records, fewer than one batch of 2" in error_of(lacking)
  for name in ("undivided", "lacking"):
    assert not list((tmp_path / name).glob("*.ckpt*"))


@pytest.mark.slow
def test_a_worker_that_never_joins_is_named(inputs, tmp_path):
  training = Training(
      inputs, tmp_path / "run", workers=2, absent=1, worker_timeout=5)
  assert training.wait(seconds=60) == [1]
  there, absent = training.addresses
  error = error_of(training)
  assert f"nothing answers at {absent}." in error and there not in error
  assert "--worker_timeout" in error
  assert not (tmp_path / "run").exists()
