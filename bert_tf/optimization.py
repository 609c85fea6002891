"""The optimizers and the learning-rate schedule.

`AdamWeightDecay` is the original's (Devlin et al. 2019, appendix A.2: Adam
with decoupled weight decay), `Lamb` is for batches of many thousands (You et
al. 2020). They work in `compile`; a training loop calls `apply_if`, which can
leave a step out.
"""

import math
import re
from typing import Any, NamedTuple

import keras
from keras import ops
import numpy as np

from bert_tf.config import require
from bert_tf.layers import register

# As in the original: no decay on layer norms and biases, told by the path of
# a variable (`.../LayerNorm/gamma`).
NO_WEIGHT_DECAY = ("LayerNorm", "bias")
CLIP_NORM = 1.0

# (share of the steps that is left, power) -> share of the learning rate.
DECAYS = {
  "linear": lambda left, power: left,
  "polynomial": ops.power,
  "cosine": lambda left, power: 0.5 - 0.5 * ops.cos(math.pi * left),
  "constant": lambda left, power: ops.ones_like(left),
}


@register
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
  """Linear warm-up from 0, then a decay that ends at `num_train_steps`.

  The decay counts from step 0, not from the end of the warm-up.

  >>> schedule = WarmupDecay(
  ...     1e-4, num_train_steps=1000, num_warmup_steps=100)
  >>> [round(float(schedule(step)) * 1e6, 3) for step in (0, 99, 100, 1000)]
  [0.0, 99.0, 90.0, 0.0]

  Args:
    learning_rate: the highest, which the warm-up goes towards.
    num_train_steps: where the decay ends; the rate stays as it is there.
    num_warmup_steps: with the rate learning_rate * step / num_warmup_steps.
    decay: "linear" to 0; "polynomial": that to the power; "cosine": half a
      wave, to 0; "constant": none.
    power: of the polynomial decay.

  Raises:
    InputError: a decay of another name.
  """

  def __init__(
      self, learning_rate: float, *, num_train_steps: int,
      num_warmup_steps: int = 0, decay: str = "linear", power: float = 1.0
  ):
    require(
        decay in DECAYS,
        f"decay: received {decay!r}; must be one of {', '.join(DECAYS)}.")
    self.learning_rate = learning_rate
    self.num_train_steps = num_train_steps
    self.num_warmup_steps = num_warmup_steps
    self.decay = decay
    self.power = power

  def __call__(self, step):
    step = ops.cast(step, "float32")
    left = 1.0 - ops.minimum(step / self.num_train_steps, 1.0)
    warm = step / max(self.num_warmup_steps, 1)
    factor = ops.where(
        step < self.num_warmup_steps, warm,
        DECAYS[self.decay](left, self.power))
    return self.learning_rate * factor

  def get_config(self):
    return {
      "learning_rate": self.learning_rate,
      "num_train_steps": self.num_train_steps,
      "num_warmup_steps": self.num_warmup_steps,
      "decay": self.decay, "power": self.power,
    }


def layer_scales(paths: list[str], layer_decay: float) -> list[float]:
  """What the learning rate of each variable is multiplied with.

  As in ELECTRA (Clark et al. 2020, `_get_layer_lrs` of its optimization.py):
  with n layers the embeddings have depth 0, layer i has depth i + 1, and all
  above the encoder n + 2; the scale is layer_decay ** (n + 2 - depth).

  >>> layer_scales(
  ...     ["bert/embeddings/word_embeddings",
  ...      "bert/encoder/layer_0/output/dense/kernel",
  ...      "bert/encoder/layer_1/output/dense/kernel",
  ...      "bert/pooler/dense/kernel", "output_weights"], 0.5)
  [0.0625, 0.125, 0.25, 1.0, 1.0]
  """
  layers = [re.search(r"/encoder/layer_(\d+)/", f"/{path}") for path in paths]
  numbers = [None if found is None else int(found[1]) for found in layers]
  top = max((n for n in numbers if n is not None), default=-1) + 1 + 2

  def depth(path, number):
    if number is not None:
      return number + 1
    return 0 if "/embeddings/" in f"/{path}" else top

  return [layer_decay ** (top - depth(path, number))
          for path, number in zip(paths, numbers)]


class Factors(NamedTuple):
  """The numbers of one step of Adam, the same for all variables or scaled.

  Bias correction is in `scale` and `epsilon`: with sqrt(1 - beta_2^t) /
  (1 - beta_1^t) for the one and sqrt(1 - beta_2^t) times the other,
  scale * m / (sqrt(v) + epsilon) is m_hat / (sqrt(v_hat) + epsilon) (Kingma
  and Ba 2015, end of section 2).
  """

  rate: Any  # The learning rate.
  beta_1: Any
  beta_2: Any
  scale: Any
  epsilon: Any


def adam_direction(m, v, gradient, factors: Factors):
  """(new m, new v, update before the learning rate), in `keras.ops`."""
  m = m + (gradient - m) * (1.0 - factors.beta_1)
  v = v + (ops.square(gradient) - v) * (1.0 - factors.beta_2)
  return m, v, factors.scale * m / (ops.sqrt(v) + factors.epsilon)


def adam_step_in_ops(variable, m, v, gradient, factors: Factors) -> None:
  """`adam_step` under any backend."""
  new_m, new_v, direction = adam_direction(m, v, gradient, factors)
  m.assign(new_m)
  v.assign(new_v)
  variable.assign_sub(factors.rate * direction)


def adam_step(variable, m, v, gradient, factors: Factors) -> None:
  """One step of Adam, without decay, on variables of one dtype and shape.

  TensorFlow has a kernel that goes over the memory once, in several threads:
  half the time of the single operations on a CPU.
  """
  if keras.backend.backend() != "tensorflow":
    adam_step_in_ops(variable, m, v, gradient, factors)
    return
  import tensorflow as tf
  # In an update under a strategy, the handle of this device's copy.
  handles = [
    (each.value if isinstance(each, keras.Variable) else each).handle
    for each in (variable, m, v)]
  # Powers of 0 switch off the kernel's correction, which leaves epsilon out.
  zero = ops.zeros((), variable.dtype)
  tf.raw_ops.ResourceApplyAdam(
      var=handles[0], m=handles[1], v=handles[2], beta1_power=zero,
      beta2_power=zero, lr=factors.rate * factors.scale,
      beta1=factors.beta_1, beta2=factors.beta_2, epsilon=factors.epsilon,
      grad=gradient)


def dense(gradient):
  """TensorFlow gives the gradient of a lookup as a list of rows.

  Keras would clip and square the rows one by one; those of one word must be
  added up before.
  """
  if keras.backend.backend() != "tensorflow":
    return gradient
  import tensorflow as tf
  return tf.convert_to_tensor(gradient)


@register
class AdamWeightDecay(keras.optimizers.Optimizer):
  """The original's AdamWeightDecayOptimizer.

    m = beta_1 m + (1 - beta_1) g
    v = beta_2 v + (1 - beta_2) g^2
    w = w - learning_rate (m / (sqrt(v) + epsilon) + weight_decay_rate w)

  There is no bias correction unless asked for: pretraining goes without, as
  the original did; fine-tuning of small sets is steadier with it (Mosbach et
  al. 2021; Zhang et al. 2021). Gradients come in already clipped and, under
  a strategy, already summed over the replicas.

  `layer_decay` below 1 gives lower layers lower learning rates, see
  `layer_scales`: for fine-tuning.

  Attributes:
    is_elementwise: whether what becomes of a number follows from that number,
      its slots and its gradient alone.
  """

  is_elementwise = True

  def __init__(
      self, learning_rate=1e-4, *, weight_decay_rate: float = 0.01,
      beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-6,
      bias_correction: bool = False, layer_decay: float = 1.0,
      name: str = "adam_weight_decay", **kwargs
  ):
    super().__init__(learning_rate=learning_rate, name=name, **kwargs)
    self.weight_decay_rate = weight_decay_rate
    self.beta_1 = beta_1
    self.beta_2 = beta_2
    self.epsilon = epsilon
    self.bias_correction = bias_correction
    self.layer_decay = layer_decay

  def build(self, variables):
    if self.built:
      return
    super().build(variables)
    self._m = self.add_optimizer_variables(variables, "m")
    self._v = self.add_optimizer_variables(variables, "v")
    paths = [variable.path for variable in variables]
    self._decays = [
      not any(word in path for word in NO_WEIGHT_DECAY) for path in paths]
    self._scales = layer_scales(paths, self.layer_decay)

  def apply_if(self, is_finite, gradients: list, variables: list) -> None:
    """A step that changes no weight and no slot unless `is_finite`.

    It counts in `iterations` either way. There is no branch: a step left out
    has learning rate 0 and betas of 1 (which may turn -0 into 0). What else
    Keras does in `apply` (clipping, moving averages, accumulation) is left to
    the caller.

    Args:
      is_finite: bool scalar, the same on every replica.
      gradients: finite always; zeros, say, where `is_finite` is false.
      variables: those of the gradients, Keras variables.
    """
    if not self.built:
      self.build(variables)
    super()._backend_update_step(
        [dense(gradient) for gradient in gradients], variables,
        self._factors(self.learning_rate, is_finite))
    self._iterations.assign_add(1)

  def _backend_apply_gradients(self, grads, trainable_variables):
    super()._backend_apply_gradients(
        [dense(gradient) for gradient in grads], trainable_variables)

  def _backend_update_step(self, grads, trainable_variables, learning_rate):
    # What Keras hands on to `update_step` in the place of a learning rate
    # goes the right way to each replica, and is computed once.
    super()._backend_update_step(
        grads, trainable_variables, self._factors(learning_rate, True))

  def _factors(self, learning_rate, is_finite) -> Factors:
    # In float32 1 - 0.999 is 0.000999987: v gets that much less than the
    # share of g^2 that the original gives it.
    root = math.sqrt(
        (1.0 - float(np.float32(self.beta_2))) / (1.0 - self.beta_2))
    scale = root
    if self.bias_correction:
      step = ops.cast(self.iterations + 1, "float32")
      one, two = (  # 1 - beta^t, with all digits for beta near 1.
        -ops.expm1(step * math.log(max(beta, 1e-30)))
        for beta in (self.beta_1, self.beta_2))
      root = root * ops.sqrt(two)
      scale = root / one
    return Factors(
        rate=ops.where(
            is_finite, ops.convert_to_tensor(learning_rate), 0.0),
        beta_1=ops.where(is_finite, self.beta_1, 1.0),
        beta_2=ops.where(is_finite, self.beta_2, 1.0),
        scale=scale, epsilon=self.epsilon * root)

  def _of_variable(self, variable, gradient, factors):
    """(m, v, weight decay, gradient, factors) for one variable."""
    index = self._get_variable_index(variable)
    decay = self.weight_decay_rate if self._decays[index] else 0.0
    factors = factors._replace(rate=factors.rate * self._scales[index])
    gradient, *factors = (
      ops.cast(value, variable.dtype) for value in (gradient, *factors))
    return self._m[index], self._v[index], decay, gradient, Factors(*factors)

  def update_step(self, gradient, variable, factors):
    m, v, decay, gradient, factors = self._of_variable(
        variable, gradient, factors)
    if decay:
      weights = ops.convert_to_tensor(variable)
      self.assign_sub(variable, factors.rate * decay * weights)
    adam_step(variable, m, v, gradient, factors)

  def _all_reduce_sum_gradients(self, grads_and_vars):
    # Keras would sum over the replicas a second time here. Adam does not
    # feel the factor in its weights, only m and v would show it.
    return grads_and_vars

  def get_config(self):
    return {
      **super().get_config(),
      "weight_decay_rate": self.weight_decay_rate,
      "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon,
      "bias_correction": self.bias_correction,
      "layer_decay": self.layer_decay,
    }


@register
class Lamb(AdamWeightDecay):
  """LAMB (You et al. 2020, algorithm 2), with the identity as its phi.

    r = m_hat / (sqrt(v_hat) + epsilon) + weight_decay_rate w
    w = w - learning_rate |w| / |r| r

  The norms are those of one variable. The ratio is 1 where one of them is 0,
  and for layer norms and biases, which have no decay either.
  """

  is_elementwise = False

  def __init__(
      self, learning_rate=1e-3, *, bias_correction: bool = True,
      name: str = "lamb", **kwargs
  ):
    super().__init__(
        learning_rate, bias_correction=bias_correction, name=name, **kwargs)

  def update_step(self, gradient, variable, factors):
    if not self._decays[self._get_variable_index(variable)]:
      super().update_step(gradient, variable, factors)
      return
    m, v, decay, gradient, factors = self._of_variable(
        variable, gradient, factors)
    new_m, new_v, update = adam_direction(m, v, gradient, factors)
    self.assign(m, new_m)
    self.assign(v, new_v)
    weights = ops.convert_to_tensor(variable)
    update = update + decay * weights
    weight_norm, update_norm = (
      ops.sqrt(ops.sum(ops.square(value))) for value in (weights, update))
    ratio = ops.where(
        ops.logical_and(weight_norm > 0, update_norm > 0),
        ops.divide_no_nan(weight_norm, update_norm), 1.0)
    self.assign_sub(variable, factors.rate * ratio * update)


OPTIMIZERS = {"adamw": AdamWeightDecay, "lamb": Lamb}


def make_optimizer(
    name: str, schedule: Any, *, bias_correction: bool | None = None,
    weight_decay_rate: float = 0.01, layer_decay: float = 1.0
) -> AdamWeightDecay:
  """The optimizer of a name.

  Args:
    name: "adamw" or "lamb".
    schedule: of the learning rate, or a float.
    bias_correction: of Adam's moments; None: with "lamb" only.
    weight_decay_rate: not on layer norms and biases.
    layer_decay: see `layer_scales`.

  Raises:
    InputError: an optimizer of another name.
  """
  require(
      name in OPTIMIZERS,
      f"optimizer: received {name!r}; must be one of {', '.join(OPTIMIZERS)}.")
  chosen = {} if bias_correction is None else {
    "bias_correction": bias_correction}
  return OPTIMIZERS[name](
      schedule, weight_decay_rate=weight_decay_rate, layer_decay=layer_decay,
      **chosen)
