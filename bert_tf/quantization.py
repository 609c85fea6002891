"""Weights of 8 bits, for serving.

Weights alone: each matrix is kept in int8 and computed with in float32, by
scales that it is divided by. So nothing is measured on data, and what it does
to the outputs is the rounding of the weights.

Shapes: V vocabulary, H hidden size, K, N inputs and outputs of a kernel.
"""

import contextlib

import keras

from bert_tf.layers import BertEmbeddings
from bert_tf.layers import Dense

# Keras would otherwise round what the kernels are multiplied with, too.
_WEIGHTS_ALONE = keras.quantizers.Int8QuantizationConfig(
    activation_quantizer=None)
# The layers that are rounded, and what of them.
_MATRICES = {Dense: "kernel", BertEmbeddings: "word_embeddings"}


def quantize(model: keras.Model) -> None:
  """Rounds the matrices of a built model to int8, in place.

  Each number becomes the nearest of 255 that are evenly spaced, from the
  greatest magnitude of its column in a kernel [K, N], or of its row in the
  word embeddings [V, H], down to its negative. Beside each matrix then stands
  another variable, its name with `_scale`: [N], or [V, 1].

  Kernels are those of all Dense layers. Small matrices stay as they are:
  positions, segments, the heads of tasks; and so do LSTMs.

  >>> layer = Dense(2)
  >>> layer.build((None, 2))
  >>> _ = layer.kernel.assign([[0.5, -0.06], [-1.27, 0.2]])
  >>> quantize(keras.Sequential([layer]))
  >>> layer.kernel.numpy().tolist()
  [[50, -38], [-127, 127]]
  """
  for layer in model._flatten_layers():
    matrix = getattr(layer, _MATRICES.get(type(layer), ""), None)
    if matrix is None:
      continue
    # As the layer was built: names are paths, and scopes make the paths.
    *scopes, _, _ = matrix.path.split("/")
    with contextlib.ExitStack() as stack:
      for scope in scopes:
        stack.enter_context(keras.name_scope(scope))
      layer.quantize("int8", config=_WEIGHTS_ALONE, type_check=False)
