"""One step: what it computes, however it is computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import distribution
from bert_tf import losses
from bert_tf import padding
from bert_tf import train_step
from bert_tf.config import BertConfig
from bert_tf.heads import BertForPreTraining
from bert_tf.optimization import AdamWeightDecay
from bert_tf.optimization import WarmupDecay

CONFIG = BertConfig(
    vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=16)
NO_DROPOUT = BertConfig(**{
  **CONFIG.to_dict(), "hidden_dropout_prob": 0.0,
  "attention_probs_dropout_prob": 0.0})


def make_batch(*, size=4, length=8, predictions=2, seed=0):
  rng = np.random.default_rng(seed)
  ids = rng.integers(5, 30, (size, length))
  return {
    "input_ids": tf.constant(ids, tf.int32),
    "input_mask": tf.ones((size, length), tf.int32),
    "segment_ids": tf.constant(
        np.arange(length)[None] // (length // 2) * np.ones((size, 1)),
        tf.int32),
    "masked_lm_positions": tf.constant(
        rng.integers(1, length, (size, predictions)), tf.int32),
    "masked_lm_ids": tf.constant(
        rng.integers(5, 30, (size, predictions)), tf.int32),
    "masked_lm_weights": tf.constant(
        rng.integers(0, 2, (size, predictions)) | [1, 0], tf.float32),
    "next_sentence_labels": tf.constant(rng.integers(0, 2, size), tf.int32),
  }


def spec_of(batch):
  return tf.nest.map_structure(
      lambda value: tf.TensorSpec(value.shape, value.dtype), batch)


class Run:
  """A model with its optimizer and its step."""

  def __init__(self, *, config=CONFIG, num_steps=20, batch=None,
               learning_rate=0.01, seed=7, dtype="float32", rematerialize=False,
               remove_padding=False, **options):
    tf.keras.utils.set_random_seed(1)
    self.batch = batch or make_batch()
    strategy = distribution.make_strategy()
    with strategy.scope():
      self.model = BertForPreTraining(config, dtype=dtype)
      self.model.encoder.rematerialize = rematerialize
      self.model.encoder.remove_padding = remove_padding
      self.optimizer = AdamWeightDecay(
          WarmupDecay(learning_rate, num_train_steps=num_steps))
      self.optimizer.build(self.model.trainable_variables)
      self.state = train_step.StepState(
          dynamic_loss_scale=dtype == "mixed_float16")
    self.train_step = train_step.make_train_step(
        self.model, self.optimizer, losses.PRETRAINING, strategy=strategy,
        seed=seed, batch_spec=spec_of(self.batch), state=self.state,
        **options)

  def step(self, number, batch=None):
    """The sums of one step, as floats."""
    sums, self.flags = self.train_step.one(
        batch or self.batch, tf.constant(number, tf.int64),
        tf.constant(False))
    return {name: float(value) for name, value in sums.items()}

  def values(self):
    return {v.path: v.numpy()
            for v in self.model.weights + self.optimizer.variables}


def test_one_batch_can_be_learnt_by_heart():
  run = Run(config=NO_DROPOUT, num_steps=150)
  for number in range(150):
    sums = run.step(number)
  metrics = losses.PRETRAINING.metrics(sums)
  assert metrics["mlm_loss"] < 0.05 and metrics["nsp_loss"] < 0.05
  assert metrics["mlm_accuracy"] > 0.99 and metrics["nsp_accuracy"] == 1


@pytest.mark.parametrize("make_strategy, is_one_pass", [
  (tf.distribute.get_strategy, True),
  (lambda: tf.distribute.OneDeviceStrategy("/cpu:0"), True),
  (lambda: tf.distribute.MirroredStrategy(["CPU:0"]), False)])
def test_an_update_in_one_pass_is_that_of_clipped_gradients(
    make_strategy, is_one_pass, monkeypatch):
  """Against `apply_if`, which is held against the original's steps."""
  monkeypatch.setattr(train_step, "LEAST_TO_COMPILE", 1230)
  shapes = {"kernel": (40, 30), "bias": (30,)}
  ends = []
  for is_ours in (True, False):
    strategy = make_strategy()
    with strategy.scope():
      variables = [
        keras.Variable(np.ones(shape), dtype="float32", name=name)
        for name, shape in shapes.items()]
      optimizer = AdamWeightDecay(0.1)
      optimizer.build(variables)

    def apply(gradients):
      if is_ours:
        update = train_step._make_update(optimizer, variables)
        assert hasattr(update, "get_concrete_function") is is_one_pass
        update(gradients, tf.constant(0.25), tf.constant(True))
      else:
        optimizer.apply_if(
            tf.constant(True), [0.25 * g for g in gradients], variables)

    rng = np.random.default_rng(3)
    for _ in range(3):
      gradients = [tf.constant(rng.normal(size=shape), tf.float32)
                   for shape in shapes.values()]
      tf.function(strategy.run, autograph=False)(apply, args=(gradients,))
    ends.append([np.array(v) for v in [*variables, *optimizer.variables]])
  assert ends[0][2] == 3  # steps
  for ours, theirs in zip(*ends):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
  monkeypatch.setattr(train_step, "LEAST_TO_COMPILE", 1231)
  assert not hasattr(
      train_step._make_update(optimizer, variables), "get_concrete_function")


def make_packed_batch():
  """The examples of `make_batch`, two in a row of 16."""
  apart = make_batch()
  batch = {
    name: tf.reshape(apart[name], (2, -1)) for name in apart}
  starts = tf.constant([[0, 0, 8, 8]], tf.int32)
  return {
    **batch,
    "masked_lm_positions": batch["masked_lm_positions"] + starts,
    "example_ids": tf.constant([[1] * 8 + [2] * 8] * 2, tf.int32),
    "position_ids": tf.constant([[*range(8)] * 2] * 2, tf.int32),
    "cls_positions": tf.constant([[0, 8, 0]] * 2, tf.int32),
    "next_sentence_labels": tf.pad(
        batch["next_sentence_labels"], [[0, 0], [0, 1]]),
    "next_sentence_weights": tf.constant([[1.0, 1.0, 0.0]] * 2),
  }


def test_a_step_on_packed_rows_is_the_step_on_their_examples():
  packed, apart = (
    Run(config=NO_DROPOUT, batch=batch)
    for batch in (make_packed_batch(), make_batch()))
  one, two = packed.step(0), apart.step(0)
  assert set(one) == set(two)
  for name in one:
    np.testing.assert_allclose(one[name], two[name], rtol=1e-5, err_msg=name)
  values = apart.values()
  for name, value in packed.values().items():
    if name.endswith(("_m", "_v")):  # Adam's weights hide a factor.
      np.testing.assert_allclose(
          value, values[name], atol=1e-6, err_msg=name)


def test_a_step_is_clip_then_adam():
  run = Run(config=NO_DROPOUT)
  variables = run.model.trainable_variables
  before = [v.numpy() for v in variables]
  with tf.GradientTape() as tape:
    parts = losses.PRETRAINING.sums(run.model(run.batch), run.batch)
    loss = losses.PRETRAINING.loss(parts, losses.PRETRAINING.totals(run.batch))
  gradients = [
    np.array(tf.convert_to_tensor(g))
    for g in tape.gradient(loss, [v.value for v in variables])]
  norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients))
  assert norm > 1  # So that clipping matters; so do 0.01 * 0.01 * weights.
  sums = run.step(0)
  np.testing.assert_allclose(sums["gradient_norm"], norm, rtol=1e-5)
  for v, old, g in zip(variables, before, gradients):
    m, second = 0.1 * g / norm, 0.001 * (g / norm) ** 2
    decay = 0 if "LayerNorm" in v.path or "bias" in v.path else 0.01
    expected = old - 0.01 * (m / (np.sqrt(second) + 1e-6) + decay * old)
    # Adam turns tiny gradients into updates of size one: not those.
    clear = np.abs(g) > 1e-5
    np.testing.assert_allclose(
        v.numpy()[clear], expected[clear], atol=2e-5, err_msg=v.path)
  slots = {v.path: v.numpy() for v in run.optimizer.variables}
  for v, g in zip(variables, gradients):
    name = v.path.replace("/", "_")
    np.testing.assert_allclose(
        slots[f"adam_weight_decay/{name}_m"], 0.1 * g / norm, atol=1e-6)
    np.testing.assert_allclose(
        slots[f"adam_weight_decay/{name}_v"], 0.001 * (g / norm) ** 2,
        atol=1e-7)


def bad_batch():
  return {**make_batch(), "masked_lm_weights": tf.fill([4, 2], np.inf)}


def test_a_step_without_finite_gradients_changes_nothing():
  run = Run()
  run.step(0)
  before = run.values()
  sums = run.step(1, bad_batch())
  for name, value in run.values().items():
    if not name.endswith("iteration"):
      np.testing.assert_array_equal(value, before[name], err_msg=name)
  assert int(run.optimizer.iterations) == 2
  assert sums == {**dict.fromkeys(sums, 0.0), "skipped_steps": 1.0}


def test_steps_skipped_are_counted_in_a_row_and_ten_are_remembered():
  run = Run()
  seen = []
  for number, is_bad in enumerate([0, 1, 1, 0, *[1] * 10, 0]):
    run.step(number, bad_batch() if is_bad else None)
    seen.append(int(run.flags.skipped_in_a_row))
  # The good step at the end does not hide that there were ten.
  assert seen == [0, 1, 2, 0, *range(1, 11), 11]


def test_the_loss_scale_halves_after_a_bad_step_and_doubles_in_time(
    monkeypatch):
  monkeypatch.setattr(train_step, "STEPS_TO_DOUBLE", 3)
  run = Run(dtype="mixed_float16")
  scales = []
  for number, is_bad in enumerate([0, 1, 0, 0, 0, 0]):
    run.step(number, bad_batch() if is_bad else None)
    scales.append(float(run.state.loss_scale))
  # The first doubling comes three good steps after the bad one.
  assert scales == [2.0**15, 2.0**14, 2.0**14, 2.0**14, 2.0**15, 2.0**15]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_in_mixed_precision_the_step_is_nearly_that_of_float32(dtype):
  mixed, full = Run(config=NO_DROPOUT, dtype=dtype), Run(config=NO_DROPOUT)
  one, two = mixed.step(0), full.step(0)
  for name in ("mlm_loss", "nsp_loss", "gradient_norm"):
    np.testing.assert_allclose(one[name], two[name], rtol=0.02)
  values = full.values()
  for name, value in mixed.values().items():
    assert value.dtype == values[name].dtype
    if name.endswith("_v") and "key_bias" not in name:
      error = np.linalg.norm(value - values[name])
      assert error < 0.1 * np.linalg.norm(values[name]), name


def test_micro_batches_give_the_step_of_the_whole():
  # The weights of the predictions differ from row to row.
  parts, whole = Run(config=NO_DROPOUT, micro_batches=4), Run(
      config=NO_DROPOUT)
  for number in range(3):
    one, two = parts.step(number), whole.step(number)
    assert set(one) == set(two)
    for name in one:
      np.testing.assert_allclose(one[name], two[name], rtol=1e-5)
  values = whole.values()
  for name, value in parts.values().items():
    # The gradient of a key's bias is 0 but for rounding.
    if name.endswith(("_m", "_v")) and "key_bias" not in name:
      error = np.linalg.norm(value - values[name])
      assert error <= 1e-5 * np.linalg.norm(values[name]), name


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rematerialized_blocks_give_the_same_step_with_dropout(jit_compile):
  again, kept = (
    Run(jit_compile=jit_compile, rematerialize=rematerialize)
    for rematerialize in (True, False))
  one, two = again.step(0), kept.step(0)
  for name in one:
    np.testing.assert_allclose(one[name], two[name], rtol=1e-5, err_msg=name)
  values = kept.values()
  for name, value in again.values().items():
    # m is a tenth of the gradient, of every variable.
    if name.endswith("_m") and "key_bias" not in name:
      assert np.linalg.norm(value) > 0, name
      error = np.linalg.norm(value - values[name])
      assert error <= 1e-5 * np.linalg.norm(values[name]), name


@pytest.mark.parametrize("options", [
  {}, {"rematerialize": True}, {"micro_batches": 2}], ids=str)
def test_a_step_without_padding_is_the_step_with_it(options, monkeypatch):
  monkeypatch.setattr(padding, "PIECES_MULTIPLE", 4)
  # The longest row is shorter than the batch: 18 pieces of 32.
  mask = tf.sequence_mask([7, 3, 2, 6], 8, tf.int32)
  batch = {**make_batch(), "input_mask": mask,
           "masked_lm_positions": tf.ones((4, 2), tf.int32)}
  bare, whole = (
    Run(config=NO_DROPOUT, batch=batch, remove_padding=is_on, **options)
    for is_on in (True, False))
  for number in range(3):
    one, two = bare.step(number), whole.step(number)
    for name in one:
      np.testing.assert_allclose(one[name], two[name], rtol=1e-5)
  values = whole.values()
  for name, value in bare.values().items():
    # The gradient of a key's bias is 0 but for rounding.
    if name.endswith(("_m", "_v")) and "key_bias" not in name:
      error = np.linalg.norm(value - values[name])
      assert error <= 1e-5 * np.linalg.norm(values[name]), name


def test_rematerialized_blocks_are_computed_twice():
  counts = []
  for rematerialize in (False, True):
    nodes = nodes_of_a_step(rematerialize=rematerialize)
    counts.append(sum(node.op == "BatchMatMulV2" for node in nodes))
  # Two of the attention a block; recomputed, there are as many once more.
  assert counts[1] >= counts[0] + 2 * CONFIG.num_hidden_layers


def nodes_of_a_step(**options):
  graph = Run(**options).train_step.one.get_concrete_function().graph
  graph = graph.as_graph_def()
  return [*graph.node, *(
    node for function in graph.library.function
    for node in function.node_def)]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_for_products_alone(dtype):
  half = tf.as_dtype(dtype.removeprefix("mixed_")).as_datatype_enum
  full = tf.float32.as_datatype_enum
  found = {}
  for node in nodes_of_a_step(dtype=dtype):
    found.setdefault(node.op, set()).add(node.attr["T"].type)
  assert found["BatchMatMulV2"] == {half}
  assert half in found["MatMul"]
  for op in ("Softmax", "Rsqrt", "SparseSoftmaxCrossEntropyWithLogits",
             "ResourceApplyAdam", "L2Loss"):
    assert found[op] == {full}, op
  # Of gelu: x^3.
  assert found["Pow"] == {full}


def test_a_loop_of_steps_is_the_steps_to_the_bit():
  batches = [make_batch(seed=i) for i in range(5)]
  one, many = Run(), Run()
  alone = one.train_step.zeros()
  for number, batch in enumerate(batches):
    more = one.step(number, batch)
    alone = {name: float(value) + more[name] for name, value in alone.items()}
  stacked = tf.data.Dataset.from_tensor_slices(
      tf.nest.map_structure(lambda *values: tf.stack(values), *batches))
  iterator = iter(stacked)
  sums, _ = many.train_step.many(
      iterator, tf.constant(0, tf.int64), tf.constant(2, tf.int64),
      tf.constant(False), many.train_step.zeros())
  sums, flags = many.train_step.many(
      iterator, tf.constant(2, tf.int64), tf.constant(3, tf.int64),
      tf.constant(True), sums)
  assert {name: float(value) for name, value in sums.items()} == alone
  assert int(flags.stopping) == 1
  values = one.values()
  for name, value in many.values().items():
    np.testing.assert_array_equal(value, values[name], err_msg=name)


def test_dropout_depends_on_its_place_alone():
  seeds = {
    (seed, *places): tuple(train_step.dropout_seed(seed, *places).numpy())
    for seed in (1, 2) for places in np.ndindex(3, 2, 2)}
  assert len(set(seeds.values())) == 24
  assert seeds[1, 2, 1, 0] == tuple(
      train_step.dropout_seed(1, 2, 1, 0).numpy())


def test_evaluation_is_exact_over_batches_of_other_sizes():
  model = BertForPreTraining(CONFIG)
  whole = make_batch(size=5)
  spec = tf.nest.map_structure(
      lambda v: tf.TensorSpec([None, *v.shape[1:]], v.dtype), whole)
  evaluate = train_step.make_evaluator(
      model, losses.PRETRAINING, batch_spec=spec)
  parts = [
    {name: value[:2] for name, value in whole.items()},
    {name: value[2:] for name, value in whole.items()}]
  one, two = evaluate([whole]), evaluate(parts)
  assert set(one) == set(two)
  for name in one:
    np.testing.assert_allclose(one[name], two[name], rtol=1e-5)
