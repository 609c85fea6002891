"""The heads: likelihoods in chunks, left to right, BiLSTM, those of tasks."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import heads
from bert_tf import losses
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.heads import BertMultipleChoice
from bert_tf.heads import BertSpanLabeler
from bert_tf.heads import BertTokenClassifier

CONFIG = BertConfig(
    vocab_size=1009, hidden_size=12, num_hidden_layers=2,
    num_attention_heads=2, intermediate_size=20, max_position_embeddings=80,
    initializer_range=0.3)
CAUSAL = dataclasses.replace(CONFIG, attention="left_to_right")


def random_inputs(*, batch=3, length=65, padding=4, seed=0):
  """Rows of which the first ends in padding."""
  generator = np.random.default_rng(seed)
  mask = np.ones((batch, length), np.int32)
  mask[0, length - padding:] = 0
  ids = generator.integers(1, CONFIG.vocab_size, (batch, length), np.int32)
  return {
    "input_ids": ids * mask, "input_mask": mask,
    "segment_ids": generator.integers(0, 2, (batch, length), np.int32)}


def case(length):
  """(x [2, S, 5], table [30, 5], bias [30], labels, weights [2, S])."""
  generator = np.random.default_rng(1)
  normal = lambda *shape: generator.normal(size=shape).astype(np.float32)
  return (normal(2, length, 5), normal(30, 5), normal(30),
          generator.integers(0, 30, (2, length), np.int32), normal(2, length))


def expected_likelihoods(x, table, bias, labels, weights):
  """Values, hits and gradients of sum(weights * nll), in float64."""
  x, table, bias = (np.float64(value) for value in (x, table, bias))
  scores = x @ table.T + bias
  shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  nll = -np.log(np.take_along_axis(shares, labels[..., None], -1)[..., 0])
  change = (shares - np.eye(len(bias))[labels]) * weights[..., None]
  gradients = [change @ table, np.einsum("bsv,bsh->vh", change, x),
               change.sum((0, 1))]
  return nll, scores.argmax(-1) == labels, gradients


# One chunk; chunks of 32 and a rest; eight of 38 and less.
@pytest.mark.parametrize("length", [20, 65, 300])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_likelihoods_in_chunks_equal_those_of_all_positions(
    length, jit_compile):
  *values, labels, weights = case(length)
  variables = [tf.Variable(value) for value in values]

  @tf.function(jit_compile=jit_compile)
  def compute():
    with tf.GradientTape() as tape:
      nll, correct = heads.piece_likelihoods(
          *(tf.convert_to_tensor(v) for v in variables), tf.constant(labels))
      loss = tf.reduce_sum(weights * nll)
    return nll, correct, tape.gradient(loss, variables)

  nll, correct, gradients = compute()
  expected, hits, wanted = expected_likelihoods(*values, labels, weights)
  np.testing.assert_allclose(nll, expected, atol=1e-5)
  np.testing.assert_array_equal(correct, hits)
  assert 0 < hits.sum() < hits.size
  for gradient, value in zip(gradients, wanted):
    np.testing.assert_allclose(gradient, value, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_likelihoods_in_chunks_are_the_same_without_tensorflow():
  program = (
    "import os, sys\n"
    "os.environ['KERAS_BACKEND'] = 'jax'\n"
    "sys.modules['tensorflow'] = None\n"
    "import jax\n"
    "import numpy as np\n"
    "from bert_tf import heads\n"
    "generator = np.random.default_rng(1)\n"
    "normal = lambda *s: generator.normal(size=s).astype(np.float32)\n"
    "x, table, bias = normal(2, 65, 5), normal(30, 5), normal(30)\n"
    "labels = generator.integers(0, 30, (2, 65), np.int32)\n"
    "def loss(x, table, bias):\n"
    "  nll, correct = heads.piece_likelihoods(x, table, bias, labels)\n"
    "  return nll.sum(), correct.sum()\n"
    "(nll, correct), gradients = jax.value_and_grad(\n"
    "    loss, (0, 1, 2), has_aux=True)(x, table, bias)\n"
    "print(nll, correct, *(abs(g).sum() for g in gradients))\n")
  result = subprocess.run(
      [sys.executable, "-c", program], capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  *values, labels, weights = case(65)
  nll, hits, gradients = expected_likelihoods(
      *values, labels, np.ones_like(weights))
  np.testing.assert_allclose(
      [float(word) for word in result.stdout.split()],
      [nll.sum(), hits.sum(), *(np.abs(g).sum() for g in gradients)],
      rtol=1e-5)


def test_the_product_with_the_table_is_that_of_keras(monkeypatch):
  x, table = case(7)[:2]
  rows, table = tf.constant(x[:, 0]), tf.constant(table)
  ours = heads.times_transposed(rows, table)
  monkeypatch.setattr(keras.backend, "backend", lambda: "another")
  twin = heads.times_transposed(rows, table)
  assert ours.shape == twin.shape
  np.testing.assert_allclose(ours, twin, atol=1e-6)


def tensors_of_step(model, objective, batch):
  """(operation, elements) of all tensors of a step forward and backward."""
  batch = {name: tf.constant(value) for name, value in batch.items()}

  @tf.function(autograph=False)
  def step():
    with tf.GradientTape() as tape:
      sums = objective.sums(model(batch, training=True), batch)
      loss = objective.loss(sums, objective.totals(batch))
    gradients = tape.gradient(loss, [v.value for v in model.weights])
    return [tf.convert_to_tensor(g) for g in gradients if g is not None]

  graph = step.get_concrete_function().graph.as_graph_def(add_shapes=True)
  nodes = [*graph.node, *(
    node for function in graph.library.function for node in function.node_def)]
  return [
    (node.op, int(np.prod([dim.size for dim in shape.dim])))
    for node in nodes for shape in node.attr["_output_shapes"].list.shape
    if not shape.unknown_rank]


def test_scores_of_all_positions_never_exist():
  batch = random_inputs()
  tensors = tensors_of_step(
      BertForPreTraining(CAUSAL), losses.LEFT_TO_RIGHT, batch)
  largest = 3 * heads.CHUNK * CONFIG.vocab_size
  assert max(size for _, size in tensors) == largest
  # Two chunks, and each once more for the gradients: so none is kept.
  products = [size for name, size in tensors if name == "MatMul"]
  assert products.count(largest) == 2 + 2


def test_masked_positions_alone_have_scores():
  masked = {
    "masked_lm_positions": np.int32([[1, 2, 5], [3, 4, 9], [1, 0, 0]]),
    "masked_lm_ids": np.int32([[1, 2, 5], [3, 4, 9], [1, 0, 0]]),
    "masked_lm_weights": np.float32([[1, 1, 1], [1, 1, 1], [1, 0, 0]])}
  tensors = tensors_of_step(
      BertForPreTraining(CONFIG), losses.PRETRAINING,
      {**random_inputs(), **masked})
  # Attention is larger: [B, N, S, S]. Of the vocabulary there is the table.
  vocabulary = [size for _, size in tensors if size % CONFIG.vocab_size == 0]
  assert max(vocabulary) == CONFIG.vocab_size * CONFIG.hidden_size
  assert CONFIG.vocab_size * 3 * 3 in vocabulary


@pytest.mark.parametrize("make, rows", [
  (lambda: BertClassifier(CONFIG, num_classes=2), 3),
  (lambda: BertForPreTraining(CONFIG), 3 * (1 + 4)),
  (lambda: BertClassifier(CONFIG, num_classes=2, head="bilstm"), 3 * 65),
  (lambda: BertSpanLabeler(CONFIG), 3 * 65),
], ids=["pooler", "pooler and masked pieces", "all of bilstm", "all of spans"])
def test_the_last_block_is_computed_for_what_the_head_reads(make, rows):
  model = make()
  inputs = {
    **random_inputs(), "masked_lm_positions": np.ones((3, 4), np.int32)}
  graph = tf.function(lambda: model(inputs)).get_concrete_function().graph
  shapes = [operation.outputs[0].shape for operation in graph.get_operations()
            if operation.type == "MatMul"]
  found = [shape[0] for shape in shapes
           if shape[1] == CONFIG.intermediate_size]
  assert found == [3 * 65, rows]


def test_hidden_states_of_some_positions_are_refused():
  encoder = BertForPreTraining(CONFIG).encoder
  with pytest.raises(ValueError, match="ask for them without positions"):
    encoder(random_inputs(), positions=np.zeros((3, 1), np.int32),
            output_hidden_states=True)


def test_a_left_to_right_model_has_the_variables_of_a_masked_one():
  names = lambda model: {
    name: tuple(variable.shape)
    for name, variable in checkpoints.checkpoint_names(model).items()}
  assert names(BertForPreTraining(CAUSAL)) == names(BertForPreTraining(CONFIG))


def test_a_left_to_right_model_has_the_loss_and_gradients_of_its_logits():
  """Those of all positions, from the same parts without chunks."""
  model = BertForPreTraining(CAUSAL)
  batch = {name: tf.constant(v) for name, v in random_inputs().items()}
  weights = tf.cast(batch["input_mask"][:, 1:], tf.float32)
  variables = [v.value for v in model.trainable_variables]
  with tf.GradientTape(persistent=True) as tape:
    sums = losses.LEFT_TO_RIGHT.sums(model(batch), batch)
    ours = losses.LEFT_TO_RIGHT.loss(
        sums, losses.LEFT_TO_RIGHT.totals(batch))
    logits = model.mlm_head(
        model.encoder(batch)["sequence_output"],
        model.encoder.embedding_table)[:, :-1]
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(
        batch["input_ids"][:, 1:], logits)
    theirs = tf.reduce_sum(weights * nll) / tf.reduce_sum(weights)
  np.testing.assert_allclose(ours, theirs, rtol=1e-6)
  reached = set()
  for variable, one, two in zip(
      model.trainable_variables, tape.gradient(ours, variables),
      tape.gradient(theirs, variables)):
    assert (one is None) == (two is None)
    if one is not None:
      reached.add(variable.path)
      np.testing.assert_allclose(
          tf.convert_to_tensor(one), tf.convert_to_tensor(two), atol=1e-5)
  assert {v.path for v in model.trainable_variables} - reached == {
    "bert/pooler/dense/kernel", "bert/pooler/dense/bias",
    "cls/seq_relationship/output_weights", "cls/seq_relationship/output_bias"}
  assert "cls/predictions/transform/LayerNorm/gamma" in reached


def test_a_piece_is_predicted_from_those_before_it():
  keras.utils.set_random_seed(0)
  model = BertForPreTraining(CAUSAL)
  inputs = random_inputs(length=12, padding=0)
  before = np.array(model(inputs)["lm_nll"])
  assert before.shape == (3, 11)
  inputs["input_ids"][:, 6] += 1
  inputs["segment_ids"][:, 6] ^= 1
  after = np.array(model(inputs)["lm_nll"])
  # Column 5 is about piece 6 itself.
  np.testing.assert_array_equal(after[:, :5], before[:, :5])
  assert (np.abs(after - before)[:, 5:] > 1e-4).all()


def test_a_left_to_right_classifier_reads_the_last_piece():
  model = BertClassifier(CAUSAL, num_classes=4)
  inputs = random_inputs(length=10)
  logits = np.array(model(inputs)["logits"])
  sequence = np.array(model.encoder(inputs)["sequence_output"])
  last = np.stack([sequence[0, 5], sequence[1, 9], sequence[2, 9]])
  pooler = [np.array(w) for w in model.encoder.pooler.weights]
  pooled = np.tanh(last @ pooler[0] + pooler[1])
  weights, bias = (np.array(w) for w in model.head.weights)
  np.testing.assert_allclose(logits, pooled @ weights.T + bias, atol=1e-5)
  # Without the padding the first row is what it was.
  short = {name: value[:1, :6] for name, value in inputs.items()}
  np.testing.assert_allclose(model(short)["logits"], logits[:1], atol=1e-5)
  del short["input_mask"]
  np.testing.assert_allclose(model(short)["logits"], logits[:1], atol=1e-5)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def last_state(rows, kernel, recurrent, bias):
  """Of an LSTM over rows [S, H]; the gates in the order of Keras."""
  state = cell = np.zeros(len(recurrent))
  for row in rows:
    gates = np.split(row @ kernel + state @ recurrent + bias, 4)
    enter, forget, new, out = gates
    cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
    state = sigmoid(out) * np.tanh(cell)
  return state


@pytest.mark.parametrize("config", [CONFIG, CAUSAL], ids=["both", "left"])
def test_the_bilstm_equals_one_in_numpy(config):
  model = BertClassifier(config, num_classes=4, head="bilstm")
  inputs = random_inputs(length=10)
  logits = np.array(model(inputs)["logits"])
  sequence = np.array(model.encoder(inputs)["sequence_output"], np.float64)
  named = {name: np.array(v, np.float64) for name, v in
           checkpoints.checkpoint_names(model).items()}
  parts = lambda way: [
    named[f"bilstm/{way}_lstm/lstm_cell/{part}"]
    for part in ("kernel", "recurrent_kernel", "bias")]
  for row, length in enumerate((6, 10, 10)):
    pieces = sequence[row, :length]
    states = np.concatenate([
      last_state(pieces, *parts("forward")),
      last_state(pieces[::-1], *parts("backward"))])
    assert len(states) == CONFIG.hidden_size
    np.testing.assert_allclose(
        logits[row], states @ named["output_weights"].T + named["output_bias"],
        atol=1e-5)


def test_the_bilstm_is_the_same_under_xla_and_gets_gradients():
  model = BertClassifier(CONFIG, num_classes=4, head="bilstm")
  inputs = {k: tf.constant(v) for k, v in random_inputs(length=10).items()}
  variables = [
    v.value for v in model.trainable_variables if v.path[:6] == "bilstm"]
  assert len(variables) == 6

  def step():
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(model(inputs)["logits"] ** 2)
    return tape.gradient(loss, variables)

  plain, compiled = (
    tf.function(step, jit_compile=jit)() for jit in (False, True))
  for one, two in zip(plain, compiled):
    assert np.abs(one).max() > 1e-3
    np.testing.assert_allclose(one, two, atol=1e-4, rtol=1e-4)


def test_the_bilstm_survives_the_keras_file_format(tmp_path):
  model = BertClassifier(
      CAUSAL, num_classes=4, head="bilstm", dtype="mixed_bfloat16")
  path = str(tmp_path / "model.keras")
  model.save(path)
  again = keras.models.load_model(path)
  inputs = random_inputs(length=10)
  np.testing.assert_array_equal(
      model(inputs)["logits"], again(inputs)["logits"])
  assert {v.dtype for v in again.weights} == {"float32"}


def test_what_the_heads_cannot_do_is_refused():
  with pytest.raises(InputError, match="'lstm'; must be one of linear, bil"):
    BertClassifier(CONFIG, num_classes=2, head="lstm")
  model = BertClassifier(CONFIG, num_classes=2, head="bilstm")
  inputs = random_inputs(length=10)
  inputs["example_ids"] = inputs["input_mask"]
  with pytest.raises(InputError, match="packed rows"):
    model(inputs)


def test_a_token_classifier_scores_each_piece():
  model = BertTokenClassifier(CONFIG, num_classes=4)
  inputs = random_inputs(length=10)
  sequence = np.array(model.encoder(inputs)["sequence_output"])
  named = checkpoints.checkpoint_names(model)
  weights, bias = (np.array(named[name])
                   for name in ("output_weights", "output_bias"))
  assert weights.shape == (4, 12)
  logits = np.array(model(inputs)["logits"])
  assert logits.shape == (3, 10, 4)
  np.testing.assert_allclose(logits, sequence @ weights.T + bias, atol=1e-5)
  dropped = model(inputs, training=True, dropout_seed=[1, 2])["logits"]
  assert np.abs(dropped - logits).max() > 1e-2


def test_a_span_labeler_scores_each_piece_as_start_and_as_end():
  model = BertSpanLabeler(CONFIG)
  inputs = random_inputs(length=10)
  sequence = np.array(model.encoder(inputs)["sequence_output"])
  named = checkpoints.checkpoint_names(model)
  weights = np.array(named["cls/squad/output_weights"])
  assert weights.shape == (2, 12)
  assert named["cls/squad/output_bias"].shape == (2,)
  outputs = model(inputs)
  for i, name in enumerate(("start_logits", "end_logits")):
    np.testing.assert_allclose(
        outputs[name], sequence @ weights[i], atol=1e-5)


def test_choices_are_scored_as_rows_of_their_own():
  model = BertMultipleChoice(CONFIG)
  rows = random_inputs(batch=6, length=10)
  choices = {name: x.reshape(2, 3, 10) for name, x in rows.items()}
  pooled = np.array(model.encoder(rows)["pooled_output"])
  weights = np.array(checkpoints.checkpoint_names(model)["output_weights"])
  assert weights.shape == (1, 12)
  np.testing.assert_allclose(
      model(choices)["logits"], (pooled @ weights[0]).reshape(2, 3), atol=1e-5)
  # Of any number of rows and choices and of any length.
  traced = tf.function(model, input_signature=[{
    name: tf.TensorSpec([None, None, None], tf.int32) for name in choices}])
  np.testing.assert_allclose(
      traced({name: tf.constant(x) for name, x in choices.items()})["logits"],
      model(choices)["logits"], atol=1e-5)


@pytest.mark.parametrize("make", [
  lambda: BertTokenClassifier(CONFIG, num_classes=4), lambda:
  BertSpanLabeler(CONFIG), lambda: BertMultipleChoice(CONFIG)])
def test_models_of_tasks_survive_the_keras_file_format(tmp_path, make):
  model, path = make(), str(tmp_path / "model.keras")
  model.save(path)
  again = keras.models.load_model(path)
  inputs = random_inputs(length=10)
  if isinstance(model, BertMultipleChoice):
    inputs = {name: x[:, None] for name, x in inputs.items()}
  found = again(inputs)
  for name, expected in model(inputs).items():
    np.testing.assert_array_equal(found[name], expected)
