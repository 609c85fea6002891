"""Operations counted in the graph, warnings, and profiles of real steps."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import losses
from bert_tf import monitoring
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining

# No two sizes are alike, so that none can stand for another.
B, S, P, K, V = 3, 40, 5, 2, 89
CONFIG = dict(
    vocab_size=V, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=56, max_position_embeddings=50)


def int32(*shape):
  return tf.TensorSpec(shape, tf.int32)


PLAIN = {
  "input_ids": int32(B, S), "input_mask": int32(B, S),
  "segment_ids": int32(B, S), "masked_lm_positions": int32(B, P),
  "masked_lm_ids": int32(B, P),
  "masked_lm_weights": tf.TensorSpec((B, P), tf.float32),
}
PAIRS = {**PLAIN, "next_sentence_labels": int32(B)}
PACKED = {
  **PLAIN, "example_ids": int32(B, S), "position_ids": int32(B, S),
  "cls_positions": int32(B, K), "next_sentence_labels": int32(B, K),
  "next_sentence_weights": tf.TensorSpec((B, K), tf.float32)}


def product_flops(outputs):
  """2 m n k of each matrix product that the outputs need, in their graph.

  From the shapes of what each operation takes and gives alone.
  """
  seen, waiting, total = set(), [output.op for output in outputs], 0
  while waiting:
    op = waiting.pop()
    if op in seen:
      continue
    seen.add(op)
    waiting += [tensor.op for tensor in op.inputs]
    assert "Call" not in op.type, "a function, into which this does not look"
    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
      is_transposed = op.get_attr(
          "transpose_a" if op.type == "MatMul" else "adj_x")
      inner = op.inputs[0].shape[-2 if is_transposed else -1]
      total += 2 * math.prod(op.outputs[0].shape) * inner
    else:
      assert op.type not in ("Einsum", "Conv2D", "XlaDotV2"), op.type
  return total


def counted(model, objective, batch, *, with_gradients=True):
  """Operations of one example, in the graph of a model's step."""

  @tf.function(autograph=False)
  def step(batch):
    with tf.GradientTape() as tape:
      outputs = model(batch, training=True, dropout_seed=tf.constant([1, 2]))
      sums = objective.sums(outputs, batch)
      loss = objective.loss(sums, sums)
    if not with_gradients:
      return [loss]
    variables = [v.value for v in model.trainable_variables]
    return [gradient for gradient in tape.gradient(loss, variables)
            if gradient is not None]

  return product_flops(step.get_concrete_function(batch).outputs) / B


@pytest.mark.parametrize("batch, pooled", [
  (PAIRS, 1), (PLAIN, 0), (PACKED, K)], ids=["pairs", "plain", "packed"])
def test_the_operations_of_pretraining_are_those_of_the_graph(batch, pooled):
  config = BertConfig(**CONFIG)
  assert counted(
      BertForPreTraining(config), losses.PRETRAINING, batch
  ) == monitoring.flops_per_example(
      config, sequence_length=S, predictions=P, pooled=pooled,
      read=P + max(pooled, 1))


def test_left_to_right_all_positions_but_the_last_predict():
  config = BertConfig(**CONFIG, attention="left_to_right")
  # The backward pass computes the scores again, which does not count.
  forward = counted(
      BertForPreTraining(config), losses.LEFT_TO_RIGHT, PLAIN,
      with_gradients=False)
  assert 3 * forward == monitoring.flops_per_example(
      config, sequence_length=S, predictions=P)


def test_the_operations_of_fine_tuning_are_those_of_the_graph():
  batch = {name: PLAIN[name]
           for name in ("input_ids", "input_mask", "segment_ids")}
  for attention in ("bidirectional", "left_to_right"):
    config = BertConfig(**CONFIG, attention=attention)
    assert counted(
        BertClassifier(config, num_classes=7), losses.CLASSIFICATION,
        {**batch, "label": int32(B)}
    ) == monitoring.flops_per_example(
        config, sequence_length=S, predictions=0, num_classes=7, read=1)
    assert counted(
        BertClassifier(config, num_classes=7), losses.CLASSIFICATION,
        {**batch, "label": int32(B)}, with_gradients=False
    ) == monitoring.flops_per_example(
        config, sequence_length=S, predictions=0, num_classes=7, read=1,
        is_trained=False)


def make_batch(**changed):
  batch = {
    "input_ids": np.full((B, S), V - 1), "input_mask": np.ones((B, S), int),
    "segment_ids": np.ones((B, S), int), "masked_lm_ids": np.zeros((B, P), int),
    "masked_lm_positions": np.full((B, P), S - 1),
    "masked_lm_weights": np.full((B, P), 7.5),
    "position_ids": np.full((B, S), 49), "cls_positions": np.full((B, K), 0),
    "next_sentence_labels": np.array([0, 1, 1]), "other": np.full((B,), -9),
  }
  for name, value in changed.items():
    batch[name].flat[1] = value
  return {name: tf.constant(value) for name, value in batch.items()}


def test_a_batch_at_all_limits_passes():
  monitoring.check_batch(BertConfig(**CONFIG), make_batch())
  monitoring.check_batch(
      BertConfig(**CONFIG), {"input_ids": np.zeros((1, 50), int)})


@pytest.mark.parametrize("name, value, message", [
  ("input_ids", V, r"input_ids: received 89 .* 0 to 88 \(vocab_size\)"),
  ("input_ids", -1, "input_ids: received -1 "),
  ("input_mask", 2, r"input_mask: received 2 .* 0 to 1 "),
  ("segment_ids", 2, r"segment_ids: received 2 .* 0 to 1 \(type_vocab_size"),
  ("position_ids", 50,
   r"position_ids: received 50 .* 0 to 49 \(max_position_embeddings\)"),
  ("masked_lm_ids", V, r"masked_lm_ids: received 89 .* 0 to 88 "),
  ("masked_lm_positions", S, r"masked_lm_positions: received 40 .* 0 to 39 "),
  ("cls_positions", S, r"cls_positions: received 40 .* 0 to 39 "),
  ("next_sentence_labels", 2, r"next_sentence_labels: received 2 .* 0 to 1 "),
])
def test_ids_beyond_the_config_are_refused(name, value, message):
  with pytest.raises(InputError, match=message):
    monitoring.check_batch(BertConfig(**CONFIG), make_batch(**{name: value}))


def test_rows_longer_than_the_positions_are_refused():
  with pytest.raises(InputError, match="rows of 51 pieces.*ngs is 50"):
    monitoring.check_batch(
        BertConfig(**CONFIG), {"input_ids": np.zeros((1, 51), int)})


def test_the_values_of_all_replicas_are_looked_at():
  strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
  for ids in ([[1], [2]], [[1], [V]]):
    batch = {"input_ids": strategy.experimental_distribute_values_from_function(
        lambda context, ids=ids: tf.constant([
          ids[context.replica_id_in_sync_group]]))}
    if ids[1] == [V]:
      with pytest.raises(InputError, match="received 89"):
        monitoring.check_batch(BertConfig(**CONFIG), batch)
    else:
      monitoring.check_batch(BertConfig(**CONFIG), batch)


@pytest.fixture
def warnings(caplog):
  def taken():
    texts = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return texts
  return taken


def watch(**options):
  return monitoring.Watch(**{
    "vocab_size": 30522, "num_warmup_steps": 100, **options})


@pytest.mark.parametrize("name", ["mlm_loss", "lm_loss"])
def test_a_loss_at_that_of_a_guess_is_told_once(warnings, name):
  # ln 30522 = 10.33, of which 98 % are 10.12.
  guess = watch()
  guess.check(999, {name: 10.4})
  assert not warnings()
  guess.check(1100, {"loss": 11.0, name: 10.13})
  [text] = warnings()
  assert "loss is 10.13 after 1100 steps" in text and "10.33" in text
  guess.check(1200, {name: 10.4})
  assert not warnings()


def test_a_loss_is_judged_at_the_first_line_after_the_warm_up(warnings):
  guess = watch(num_warmup_steps=10000)
  guess.check(9999, {"mlm_loss": 10.4})
  guess.check(10000, {"mlm_loss": 10.11})
  guess.check(10100, {"mlm_loss": 10.4})
  watch().check(5000, {"loss": 12.0})  # A fine-tuning knows no such loss.
  assert not warnings()
  guess = watch(num_warmup_steps=10000)
  guess.check(10000, {"mlm_loss": float("nan")})
  assert "loss is nan" in warnings()[0]


def test_waiting_for_data_is_told_once_and_not_of_the_start(warnings):
  waits = watch()
  waits.check(100, {"input_wait_share": 0.9})
  waits.check(200, {"input_wait_share": 0.2})
  waits.check(300, {})
  assert not warnings()
  waits.check(400, {"input_wait_share": 0.21})
  [text] = warnings()
  assert text.startswith("21% of the time")
  waits.check(500, {"input_wait_share": 0.9})
  assert not warnings()


def profiles_of(directory):
  return list(pathlib.Path(directory).rglob("*.xplane.pb"))


def run_steps(profile, numbers):
  """Real steps; returns after which of them a profile is on its way."""
  running = []
  for done in numbers:
    tf.linalg.matmul(tf.ones((9, 9)), tf.ones((9, 9))).numpy()
    profile.on_step(done)
    running.append(profile._is_running)
  return running


def test_a_profile_of_the_given_steps(tmp_path):
  with monitoring.Profile((1, 3), str(tmp_path)) as profile:
    assert run_steps(profile, range(6)) == [
      False, True, True, False, False, False]
    assert profiles_of(tmp_path / "profile")
  assert len(profiles_of(tmp_path)) == 1


def test_steps_may_jump_and_none_need_be_asked_for(tmp_path):
  with monitoring.Profile((3, 7), str(tmp_path)) as profile:
    assert run_steps(profile, [0, 5, 10, 15]) == [False, True, False, False]
  with monitoring.Profile((3, 7), str(tmp_path / "after")) as profile:
    assert run_steps(profile, [8, 9]) == [False, False]
  with monitoring.Profile(None, str(tmp_path / "none")) as profile:
    assert run_steps(profile, [0, 1]) == [False, False]
  assert len(profiles_of(tmp_path)) == 1


def test_a_profile_ends_when_the_training_does(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    with monitoring.Profile((0, 100), str(tmp_path / "one")) as profile:
      run_steps(profile, range(3))
      raise KeyboardInterrupt
  # It has ended: another can begin.
  with monitoring.Profile((0, 100), str(tmp_path / "two")) as profile:
    assert run_steps(profile, range(3)) == [True, True, True]
  assert len(profiles_of(tmp_path / "one")) == 1
  assert len(profiles_of(tmp_path / "two")) == 1


def test_a_profile_that_fails_does_not_end_the_training(tmp_path, warnings):
  tf.profiler.experimental.start(str(tmp_path / "other"))
  try:
    with monitoring.Profile((0, 2), str(tmp_path)) as profile:
      assert run_steps(profile, range(3)) == [False, False, False]
  finally:
    tf.profiler.experimental.stop()
  told = [text for text in warnings() if text.startswith("No profile: ")]
  assert len(told) == 1
  with monitoring.Profile((0, 2), str(tmp_path)) as profile:
    profile.on_step(0)
    tf.profiler.experimental.stop()  # Somebody else does.
    profile.on_step(2)
  assert [text for text in warnings() if text.startswith("No profile: ")]
