"""The optimizer and learning-rate schedule of the original.

Devlin et al. 2019, appendix A.2: Adam with decoupled weight decay 0.01,
warm-up over the first steps, then linear decay.
"""

import keras
from keras import ops

from bert_tf.layers import register

# As in the original: no decay on layer norms and biases, told by the path of
# a variable (`.../LayerNorm/gamma`).
NO_WEIGHT_DECAY = ("LayerNorm", "bias")
CLIP_NORM = 1.0


@register
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
  """Linear warm-up from 0, then linear decay to 0 at `num_train_steps`.

  The decay counts from step 0, not from the end of the warm-up.

  >>> schedule = WarmupLinearDecay(
  ...     1e-4, num_train_steps=1000, num_warmup_steps=100)
  >>> [round(float(schedule(step)) * 1e6, 3) for step in (0, 99, 100, 1000)]
  [0.0, 99.0, 90.0, 0.0]
  """

  def __init__(
      self, learning_rate: float, *, num_train_steps: int,
      num_warmup_steps: int = 0
  ):
    self.learning_rate = learning_rate
    self.num_train_steps = num_train_steps
    self.num_warmup_steps = num_warmup_steps

  def __call__(self, step):
    step = ops.cast(step, "float32")
    remaining = 1.0 - ops.minimum(step / self.num_train_steps, 1.0)
    warm = step / max(self.num_warmup_steps, 1)
    factor = ops.where(step < self.num_warmup_steps, warm, remaining)
    return self.learning_rate * factor

  def get_config(self):
    return {
      "learning_rate": self.learning_rate,
      "num_train_steps": self.num_train_steps,
      "num_warmup_steps": self.num_warmup_steps,
    }


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
  """

  def __init__(
      self, learning_rate=1e-4, *, weight_decay_rate: float = 0.01,
      beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-6,
      bias_correction: bool = False, name: str = "adam_weight_decay", **kwargs
  ):
    super().__init__(learning_rate=learning_rate, name=name, **kwargs)
    self.weight_decay_rate = weight_decay_rate
    self.beta_1 = beta_1
    self.beta_2 = beta_2
    self.epsilon = epsilon
    self.bias_correction = bias_correction

  def build(self, variables):
    if self.built:
      return
    super().build(variables)
    self._m = self.add_optimizer_variables(variables, "m")
    self._v = self.add_optimizer_variables(variables, "v")
    self._decays = [
      not any(word in variable.path for word in NO_WEIGHT_DECAY)
      for variable in variables
    ]

  def update_step(self, gradient, variable, learning_rate):
    index = self._get_variable_index(variable)
    m, v = self._m[index], self._v[index]
    learning_rate = ops.cast(learning_rate, variable.dtype)
    gradient = ops.cast(gradient, variable.dtype)
    new_m = self.beta_1 * m + (1 - self.beta_1) * gradient
    new_v = self.beta_2 * v + (1 - self.beta_2) * ops.square(gradient)
    self.assign(m, new_m)
    self.assign(v, new_v)
    if self.bias_correction:
      step = ops.cast(self.iterations + 1, variable.dtype)
      new_m = new_m / (1 - ops.power(self.beta_1, step))
      new_v = new_v / (1 - ops.power(self.beta_2, step))
    update = new_m / (ops.sqrt(new_v) + self.epsilon)
    if self._decays[index]:
      update = update + self.weight_decay_rate * ops.convert_to_tensor(variable)
    self.assign_sub(variable, learning_rate * update)

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
    }
