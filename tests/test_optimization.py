"""The optimizers and the schedule, by hand and against other computations."""

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import optimization
from bert_tf.config import InputError
from bert_tf.optimization import AdamWeightDecay
from bert_tf.optimization import Lamb
from bert_tf.optimization import WarmupDecay
from bert_tf.optimization import layer_scales
from bert_tf.optimization import make_optimizer

# What training can ask for: (name, arguments) of `make_optimizer`.
CHOICES = {
  "adamw": ("adamw", {}),
  "corrected": ("adamw", {"bias_correction": True, "layer_decay": 0.5}),
  "lamb": ("lamb", {}),
}
SHAPES = {
  "bert/embeddings/word_embeddings": (300, 16),
  "bert/embeddings/LayerNorm/gamma": (16,),
  "bert/encoder/layer_0/intermediate/dense/kernel": (16, 64),
  "bert/encoder/layer_0/intermediate/dense/bias": (64,),
  "bert/encoder/layer_1/output/dense/kernel": (64, 16),
  "bert/pooler/dense/kernel": (16, 16),
  "output_weights": (2, 16),
  "output_bias": (2,),
}


def variable_at(path, value):
  *scopes, name = path.split("/")
  variable = keras.Variable(value, name=name)
  variable._path = "/".join([*scopes, name])
  return variable


def make_problem(*, num_steps, seed=0):
  """({path: first value}, [{path: gradient} of each step])."""
  rng = np.random.default_rng(seed)

  def draw(size):
    return {path: rng.normal(size=shape, scale=size).astype(np.float32)
            for path, shape in SHAPES.items()}

  first = draw(0.5)
  first["output_weights"][:] = 0  # A norm of zero.
  return first, [draw(0.1 * (1 + step % 3)) for step in range(num_steps)]


def values_of(optimizer, variables):
  """All weights and slots, and the number of steps."""
  return [np.array(v) for v in [*variables, *optimizer.variables]]


def assert_close(ours, theirs, **tolerance):
  assert len(ours) == len(theirs)
  for one, two in zip(ours, theirs):
    np.testing.assert_allclose(one, two, **tolerance)


# The updates.


def test_thirty_steps_of_the_original(shared):
  golden = np.load(shared / "golden" / "adam_weight_decay_trajectory.npz")
  names = [key.removeprefix("initial:") for key in golden
           if key.startswith("initial:")]
  assert len(names) == 5
  variables = [
    variable_at(name.replace(".", "/"), golden[f"initial:{name}"])
    for name in names]
  optimizer = AdamWeightDecay(WarmupDecay(
      float(golden["learning_rate"]),
      num_train_steps=int(golden["num_train_steps"]),
      num_warmup_steps=int(golden["num_warmup_steps"])))
  for step in range(30):
    gradients = [tf.constant(golden[f"gradients:{name}"][step])
                 for name in names]
    gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
    optimizer.apply(gradients, variables)
    for name, variable in zip(names, variables):
      np.testing.assert_allclose(
          variable, golden[f"after_each_step:{name}"][step], atol=1e-6)


def test_one_step_by_hand():
  # m = 0.1 * 2 = 0.2, v = 0.001 * 4 = 0.004; the update is
  # 0.2 / (0.0632456 + 1e-6) = 3.1622277, and 0.01 * 3 for the kernel.
  kernel = variable_at("dense/kernel", [3.0])
  bias = variable_at("dense/bias", [3.0])
  AdamWeightDecay(0.5).apply(
      [tf.constant([2.0]), tf.constant([2.0])], [kernel, bias])
  np.testing.assert_allclose(bias, [3 - 0.5 * 3.1622277], atol=1e-6)
  np.testing.assert_allclose(
      bias.numpy() - kernel.numpy(), [0.5 * 0.01 * 3], atol=1e-6)


def test_bias_correction_makes_the_first_update_the_sign():
  # m / (1 - 0.9) = g and v / (1 - 0.999) = g^2: the update is g / |g|.
  bias = variable_at("dense/bias", [1.0, 1.0])
  AdamWeightDecay(0.1, bias_correction=True).apply(
      [tf.constant([5.0, -0.3])], [bias])
  np.testing.assert_allclose(bias, [0.9, 1.1], atol=1e-6)


def test_epsilon_stands_beside_the_corrected_root():
  # g = epsilon: m_hat = g, sqrt(v_hat) = g, so the update is 1 / 2.
  bias = variable_at("dense/bias", [1.0])
  AdamWeightDecay(0.1, bias_correction=True, epsilon=0.25).apply(
      [tf.constant([0.25])], [bias])
  np.testing.assert_allclose(bias, [0.95], atol=1e-6)


def adam_in_numpy(first, gradients, *, rate, correct, scales, lamb):
  """Both papers' algorithms in float64, step by step, variable by variable."""
  weights = {path: value.astype(np.float64) for path, value in first.items()}
  m = {path: np.zeros_like(value) for path, value in weights.items()}
  v = {path: np.zeros_like(value) for path, value in weights.items()}
  for t, step in enumerate(gradients, start=1):
    for path, g in step.items():
      g = g.astype(np.float64)
      m[path] = 0.9 * m[path] + 0.1 * g
      v[path] = 0.999 * v[path] + 0.001 * g**2
      m_hat, v_hat = m[path], v[path]
      if correct:
        m_hat, v_hat = m_hat / (1 - 0.9**t), v_hat / (1 - 0.999**t)
      r = m_hat / (np.sqrt(v_hat) + 1e-6)
      ratio = 1.0
      if "LayerNorm" not in path and "bias" not in path:
        r = r + 0.01 * weights[path]
        norms = np.linalg.norm(weights[path]), np.linalg.norm(r)
        if lamb and norms[0] > 0 and norms[1] > 0:
          ratio = norms[0] / norms[1]
      weights[path] = weights[path] - rate * scales[path] * ratio * r
  return [*weights.values(), *m.values(), *v.values()]


@pytest.mark.parametrize("choice, correct, lamb", [
  ("adamw", False, False), ("corrected", True, False), ("lamb", True, True)])
def test_25_steps_are_those_of_the_papers(choice, correct, lamb):
  first, gradients = make_problem(num_steps=25)
  scales = dict.fromkeys(SHAPES, 1.0)
  if choice == "corrected":
    scales = dict(zip(SHAPES, (1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 4, 1, 1, 1)))
  name, arguments = CHOICES[choice]
  optimizer = make_optimizer(name, 0.02, **arguments)
  variables = [variable_at(path, value) for path, value in first.items()]
  for step in gradients:
    optimizer.apply([tf.constant(g) for g in step.values()], variables)
  ours = values_of(optimizer, variables)
  slots = ours[len(variables):][2:]  # The step and the rate are before them.
  expected = adam_in_numpy(
      first, gradients, rate=0.02, correct=correct, scales=scales, lamb=lamb)
  number = len(variables)
  assert_close(ours[:number], expected[:number], rtol=1e-4, atol=1e-5)
  assert_close(slots[:number], expected[number:2 * number], atol=1e-6)
  # 1 - 0.999 in float32 is 1.3e-5 less; the weights make up for it.
  assert_close(slots[number:], expected[2 * number:], rtol=3e-5)


def test_lamb_by_hand():
  # The first step has m_hat = g and v_hat = g^2, so r = (1, 1) + 0.01 w =
  # (1.03, 1.04); the ratio is 5 / sqrt(1.03^2 + 1.04^2) = 3.4159136.
  kernel = variable_at("dense/kernel", [3.0, 4.0])
  bias = variable_at("dense/bias", [3.0, 4.0])
  gradient = tf.constant([0.5, 7.0])
  Lamb(0.1).apply([gradient, gradient], [kernel, bias])
  np.testing.assert_allclose(
      kernel, [3 - 0.1 * 3.4159136 * 1.03, 4 - 0.1 * 3.4159136 * 1.04],
      atol=1e-5)
  np.testing.assert_allclose(bias, [2.9, 3.9], atol=1e-5)


def test_lamb_has_ratio_one_where_a_norm_is_zero():
  zero = variable_at("one/kernel", [0.0, 0.0])
  still = variable_at("two/kernel", [0.0])
  Lamb(0.1).apply(
      [tf.constant([2.0, -3.0]), tf.constant([0.0])], [zero, still])
  np.testing.assert_allclose(zero, [-0.1, 0.1], atol=1e-6)
  np.testing.assert_array_equal(still, [0.0])


@pytest.mark.parametrize("path, decays", [
  ("bert/encoder/layer_0/output/dense/kernel", True),
  ("bert/encoder/layer_0/output/dense/bias", False),
  ("bert/embeddings/LayerNorm/gamma", False),
  ("bert/embeddings/LayerNorm/beta", False),
  ("bert/embeddings/word_embeddings", True),
  ("cls/predictions/output_bias", False),
  ("cls/seq_relationship/output_weights", True),
])
def test_what_decays(path, decays):
  variable = variable_at(path, [2.0])
  AdamWeightDecay(1.0).apply([tf.constant([0.0])], [variable])
  np.testing.assert_allclose(variable, [2 - 0.02 if decays else 2.0])


def test_rows_of_one_word_are_added_before_they_are_clipped_and_squared():
  # g = (1 + 2, 0), whose norm 3 is clipped to 1.5.
  table = variable_at("word_embeddings", [[1.0], [1.0]])
  rows = tf.IndexedSlices(
      tf.constant([[1.0], [2.0]]), tf.constant([0, 0]), tf.constant([2, 1]))
  optimizer = AdamWeightDecay(0.1, global_clipnorm=1.5)
  optimizer.apply([rows], [table])
  np.testing.assert_allclose(optimizer._m[0], [[0.15], [0.0]], rtol=1e-5)
  np.testing.assert_allclose(
      optimizer._v[0], [[0.001 * 2.25], [0.0]], rtol=3e-5)


# The kernel, and where it must run.


@pytest.mark.parametrize("correct", [False, True])
def test_the_kernel_is_equal_to_its_twin(correct):
  rng = np.random.default_rng(0)
  optimizer = AdamWeightDecay(0.01, bias_correction=correct)
  for shape in [(768, 3072), (2, 768), (768,), ()]:
    def draw():
      return tf.constant(rng.normal(size=shape), tf.float32)

    weights, m, v = draw(), draw(), tf.square(draw())
    ours = [tf.Variable(value) for value in (weights, m, v)]
    twins = [tf.Variable(value) for value in (weights, m, v)]
    for _ in range(3):
      gradient = draw()
      factors = optimizer._factors(0.01, True)
      optimization.adam_step(*ours, gradient, factors)
      optimization.adam_step_in_ops(*twins, gradient, factors)
      optimizer.iterations.assign_add(1)
    for one, two in zip(ours, twins):
      np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


# (the gradients of each step of each of two replicas) -> all values at the
# end; the second of three steps is left out.
STEPS = """
import os, sys
{head}
import keras
import numpy as np
from bert_tf.optimization import make_optimizer

data = dict(np.load(sys.argv[1]))
paths = [key[6:] for key in data if key.startswith("first:")]

def run(name, arguments):
  optimizer = make_optimizer(name, 0.02, **arguments)
  variables = []
  for path in paths:
    variables.append(keras.Variable(data["first:" + path], name="x"))
    variables[-1]._path = path
  optimizer.build(variables)
  step = make_step(optimizer, variables)
  for number in range(3):
    step([data[f"{{number}}:{{path}}"] for path in paths], number != 1)
  return [np.array(v) for v in [*variables, *optimizer.variables]]

{body}
found = {{}}
for choice, (name, arguments) in {choices}.items():
  with scope():
    for number, value in enumerate(run(name, arguments)):
      found[f"{{choice}}:{{number}}"] = value
np.savez(sys.argv[2], **found)
"""
IN_JAX = ("""
os.environ["KERAS_BACKEND"] = "jax"
sys.modules["tensorflow"] = None
""", """
import contextlib
scope = contextlib.nullcontext

def make_step(optimizer, variables):
  import jax
  compiled = jax.jit(optimizer.stateless_apply)  # As under `fit`.

  def step(gradients, is_finite):
    gradients = [keras.ops.convert_to_tensor(g) for g in gradients]
    if not is_finite:
      optimizer.apply_if(
          keras.ops.convert_to_tensor(False), [0 * g for g in gradients],
          variables)
      return
    values = compiled([v.value for v in optimizer.variables], gradients,
                      [v.value for v in variables])
    for v, value in zip([*variables, *optimizer.variables], sum(values, [])):
      v.assign(value)
  return step
""")
IN_TWO_REPLICAS = ("""
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
scope = strategy.scope
""", """
def make_step(optimizer, variables):
  def replica_step(gradients, is_finite):
    context = tf.distribute.get_replica_context()
    # A quarter on the first and three quarters on the second.
    share = 0.25 + 0.5 * tf.cast(context.replica_id_in_sync_group, tf.float32)
    gradients = context.all_reduce("SUM", [share * g for g in gradients])
    gradients = [tf.where(is_finite, g, 0.0) for g in gradients]
    optimizer.apply_if(is_finite, gradients, variables)

  @tf.function
  def step(gradients, is_finite):
    strategy.run(replica_step, args=(gradients, is_finite))

  def call(gradients, is_finite):
    assert strategy.num_replicas_in_sync == 2
    step(gradients, tf.constant(is_finite))
    for v in [*variables, *optimizer.variables]:
      one, two = strategy.experimental_local_results(v.value)
      np.testing.assert_array_equal(one.numpy(), two.numpy())
  return call
""")


@pytest.mark.slow
@pytest.mark.parametrize("head, body", [
  pytest.param(*IN_JAX, id="jax"),
  pytest.param(*IN_TWO_REPLICAS, id="two replicas")])
def test_it_is_the_same_elsewhere(tmp_path, head, body):
  if "jax" in head:
    pytest.importorskip("jax")
  first, gradients = make_problem(num_steps=3)
  problem = {f"first:{path}": value for path, value in first.items()}
  for number, step in enumerate(gradients):
    problem |= {f"{number}:{path}": value for path, value in step.items()}
  np.savez(tmp_path / "problem.npz", **problem)
  program = STEPS.format(head=head, body=body, choices=CHOICES)
  result = subprocess.run(
      [sys.executable, "-c", program, tmp_path / "problem.npz",
       tmp_path / "found.npz"], capture_output=True, text=True,
      env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
  assert result.returncode == 0, result.stderr
  found = np.load(tmp_path / "found.npz")
  for choice in CHOICES:
    expected = train(choice, first, gradients, lambda step: step)
    ours = [found[f"{choice}:{number}"] for number in range(len(expected))]
    assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def train(choice, first, gradients, wrap):
  """All values after the steps, of which the second is left out."""
  name, arguments = CHOICES[choice]
  optimizer = make_optimizer(name, 0.02, **arguments)
  variables = [variable_at(path, value) for path, value in first.items()]
  optimizer.build(variables)
  step = wrap(lambda gradients, is_finite: optimizer.apply_if(
      is_finite, gradients, variables))
  for number, each in enumerate(gradients):
    is_finite = number != 1
    step([tf.constant(is_finite * g) for g in each.values()],
         tf.constant(is_finite))
  return values_of(optimizer, variables)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("where", ["function", "jit", "one device"])
def test_it_is_the_same_in_a_function_compiled_or_not(choice, where):
  first, gradients = make_problem(num_steps=3)
  strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
  expected = train(choice, first, gradients, lambda step: step)
  if where == "one device":
    with strategy.scope():
      ours = train(choice, first, gradients, lambda step: tf.function(
          lambda *args: strategy.run(step, args=args)))
  else:
    ours = train(choice, first, gradients, lambda step: tf.function(
        step, jit_compile=where == "jit"))
  assert_close(ours, expected, rtol=1e-5, atol=1e-6)


# Steps left out.


NUMBERS = arrays.arrays(np.float32, 6, elements=st.floats(
    -1e6, 1e6, width=32, allow_subnormal=False))


@settings(max_examples=50)
@given(weights=NUMBERS, m=NUMBERS, v=NUMBERS, steps=st.integers(0, 10**6),
       choice=st.sampled_from(sorted(CHOICES)))
def test_a_step_left_out_changes_nothing(weights, m, v, steps, choice):
  name, arguments = CHOICES[choice]
  optimizer = make_optimizer(name, 0.5, **arguments)
  variables = [variable_at(f"dense/{kind}", weights)
               for kind in ("kernel", "bias")]
  optimizer.build(variables)
  optimizer.iterations.assign(steps)
  for slot in optimizer._m:
    slot.assign(m)
  for slot in optimizer._v:
    slot.assign(abs(v))
  before = values_of(optimizer, variables)
  optimizer.apply_if(
      tf.constant(False), [tf.zeros(6), tf.zeros(6)], variables)
  assert int(optimizer.iterations) == steps + 1
  optimizer.iterations.assign(steps)
  for one, two in zip(values_of(optimizer, variables), before):
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_step_that_is_not_left_out_is_a_step(choice):
  first, gradients = make_problem(num_steps=3)
  name, arguments = CHOICES[choice]
  ends = []
  for is_plain in (True, False):
    optimizer = make_optimizer(name, 0.02, **arguments)
    variables = [variable_at(path, value) for path, value in first.items()]
    for step in gradients:
      tensors = [tf.constant(g) for g in step.values()]
      if is_plain:
        optimizer.apply(tensors, variables)
      else:
        optimizer.apply_if(tf.constant(True), tensors, variables)
    ends.append(values_of(optimizer, variables))
  for one, two in zip(*ends):
    np.testing.assert_array_equal(one, two)


# The learning rate.


@pytest.mark.parametrize("decay, power, rates", [
  # Of 1,000 steps with 100 to warm up: at 0, 1, 99, 100, 500, 1000, 1100.
  ("linear", 1.0, (0, 0.01, 0.99, 0.9, 0.5, 0, 0)),
  ("polynomial", 0.5, (0, 0.01, 0.99, 0.9486833, 0.7071068, 0, 0)),
  ("polynomial", 2.0, (0, 0.01, 0.99, 0.81, 0.25, 0, 0)),
  # (1 + cos(0.1 pi)) / 2 = (1 + 0.9510565) / 2.
  ("cosine", 1.0, (0, 0.01, 0.99, 0.9755283, 0.5, 0, 0)),
  ("constant", 1.0, (0, 0.01, 0.99, 1, 1, 1, 1)),
])
def test_warmup_and_decay(decay, power, rates):
  schedule = WarmupDecay(
      1e-4, num_train_steps=1000, num_warmup_steps=100, decay=decay,
      power=power)
  ours = [float(schedule(step)) for step in (0, 1, 99, 100, 500, 1000, 1100)]
  np.testing.assert_allclose(ours, 1e-4 * np.array(rates), atol=1e-10)


@pytest.mark.parametrize("decay", optimization.DECAYS)
def test_without_warmup_the_first_step_has_the_full_rate(decay):
  assert float(WarmupDecay(0.5, num_train_steps=4, decay=decay)(0)) == 0.5


@settings(max_examples=100)
@given(decay=st.sampled_from(sorted(optimization.DECAYS)),
       power=st.floats(0.1, 4.0), steps=st.integers(1, 10**6),
       warmup=st.integers(0, 10**6), step=st.integers(0, 2 * 10**6))
def test_a_rate_is_between_zero_and_the_highest_and_falls_after_the_warmup(
    decay, power, steps, warmup, step):
  schedule = WarmupDecay(
      0.25, num_train_steps=steps, num_warmup_steps=warmup, decay=decay,
      power=power)
  now, then = float(schedule(step)), float(schedule(step + 1))
  assert 0 <= now <= 0.25
  if step >= warmup:
    assert then <= now + 1e-7
  elif step + 1 < warmup:
    assert now <= then


def test_a_decay_of_another_name_is_refused():
  with pytest.raises(
      ValueError, match="'step'; must be one of linear, polynomial, cosine"):
    WarmupDecay(0.1, num_train_steps=1, decay="step")


def test_lower_layers_have_lower_rates():
  # Three layers: tops are 0.1 ** 0, layer_2 ** 2, layer_0 ** 4.
  scales = {
    "bert/embeddings/word_embeddings": 1e-5,
    "bert/embeddings/LayerNorm/beta": 1e-5,
    "bert/encoder/layer_0/attention/self/query/kernel": 1e-4,
    "bert/encoder/layer_1/output/LayerNorm/gamma": 1e-3,
    "bert/encoder/layer_2/output/dense/bias": 1e-2,
    "bert/pooler/dense/kernel": 1,
    "cls/predictions/transform/dense/kernel": 1,
    "output_weights": 1,
  }
  np.testing.assert_allclose(
      layer_scales(list(scales), 0.1), list(scales.values()))
  assert layer_scales(list(scales), 1.0) == [1.0] * 8
  assert layer_scales(["encoder/layer_11/output/dense/kernel",
                       "embeddings/word_embeddings"], 0.5) == [
                           0.25, 0.5**14]
  assert layer_scales(["dense/kernel", "dense/bias"], 0.5) == [1.0, 1.0]


def test_a_lower_rate_is_lower_for_the_decay_too():
  # One layer: its rate is 0.5 ** 2, which takes 0.01 * 0.25 * 2 from 2.
  variables = [variable_at("bert/encoder/layer_0/output/dense/kernel", [2.0]),
               variable_at("bert/pooler/dense/kernel", [2.0])]
  AdamWeightDecay(1.0, layer_decay=0.5).apply(
      [tf.constant([0.0])] * 2, variables)
  np.testing.assert_allclose(variables[0], [1.995])
  np.testing.assert_allclose(variables[1], [1.98])


# As Keras optimizers.


def test_optimizers_have_names():
  schedule = WarmupDecay(0.5, num_train_steps=4)
  adamw, lamb = (make_optimizer(name, schedule) for name in ("adamw", "lamb"))
  assert type(adamw) is AdamWeightDecay and not adamw.bias_correction
  assert type(lamb) is Lamb and lamb.bias_correction
  assert make_optimizer("adamw", 0.1, bias_correction=True).bias_correction
  assert not make_optimizer("lamb", 0.1, bias_correction=False).bias_correction
  with pytest.raises(InputError, match="'sgd'; must be one of adamw, lamb"):
    make_optimizer("sgd", schedule)


@pytest.mark.parametrize("name", optimization.OPTIMIZERS)
def test_an_optimizer_survives_its_config(name):
  optimizer = make_optimizer(
      name, WarmupDecay(0.5, num_train_steps=4, decay="polynomial", power=0.5),
      bias_correction=name == "adamw", weight_decay_rate=0.1, layer_decay=0.8)
  again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
  assert type(again) is type(optimizer)
  assert again.get_config() == optimizer.get_config()
  assert again.bias_correction is (name == "adamw")
  assert (again.weight_decay_rate, again.layer_decay) == (0.1, 0.8)
  assert float(again.learning_rate) == 0.5


@pytest.mark.parametrize("name", optimization.OPTIMIZERS)
def test_a_compiled_model_goes_on_from_its_file(tmp_path, name):
  keras.utils.set_random_seed(1)
  inputs = keras.Input((2,))
  hidden = keras.layers.Dense(4, activation="relu")(inputs)
  model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
  model.compile(
      make_optimizer(name, WarmupDecay(
          0.1, num_train_steps=100, num_warmup_steps=10)), loss="mse")
  x = np.random.default_rng(0).normal(size=(128, 2))
  y = x @ [[1.0], [-2.0]]
  losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
  assert losses[-1] < 0.1 * losses[0]
  model.save(tmp_path / "model.keras")
  again = keras.models.load_model(tmp_path / "model.keras")
  assert int(again.optimizer.iterations) == 20 * 4
  for each in (model, again):
    each.fit(x, y, epochs=2, shuffle=False, verbose=0)
  ours, theirs = (values_of(each.optimizer, each.trainable_variables)
                  for each in (model, again))
  assert len(ours) == 4 + 1 + 2 * 4
  for one, two in zip(ours, theirs):
    np.testing.assert_array_equal(one, two)
