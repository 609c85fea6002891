"""An exported SavedModel in this process, for those without a server."""

import os

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401: the operations of the tokenizer.

from bert_tf import files
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.errors import one_line
from bert_tf.model_source import newest_version
from bert_tf.row_batches import Answerer
from bert_tf.row_batches import make_signature
from bert_tf.row_batches import RefusedRows
from bert_tf.row_batches import Spec


def _find_version(export_dir: str) -> str:
  """The folder itself where it is a version, or else the newest in it.

  Raises:
    InputError: there is none.
  """
  require(
      files.is_directory(export_dir),
      f"{export_dir}: no such folder; give that of an export or of its "
      "versions.")
  path = export_dir
  if not files.exists(os.path.join(export_dir, "saved_model.pb")):
    path = newest_version(export_dir)
  require(
      path is not None,
      f"{export_dir}: holds neither saved_model.pb nor versions (1, 2, ...); "
      "make an export with tools/export_saved_model.py.")
  return path


def _specs(tensors: dict[str, tf.TensorSpec]) -> dict[str, Spec]:
  return {
    name: Spec(
        "string" if spec.dtype == tf.string else spec.dtype.name,
        tuple(spec.shape) if spec.shape.rank else (None,))
    for name, spec in tensors.items()}


class Predictor(Answerer):
  """Loads an export once and answers as often as it is asked.

  Any signature will do: columns in, a dict for each row out, in the order of
  the rows. Texts of about the same length are computed together. Of an
  export of the README's spam model, which learnt from 700 messages:

    predictor = bert_tf.Predictor("export/spam")
    predictor(["WINNER! You have won a £1000 prize. Call 09061701461 now to "
               "claim.", "See you at six."])
      [{'label': 'spam', 'logits': [-1.1677022, 1.119987],
        'probabilities': [0.09214768, 0.9078523]},
       {'label': 'ham', 'logits': [1.561057, -1.5218513],
        'probabilities': [0.9561821, 0.043817807]}]

  With several inputs, by order or by name, and with another signature:

    bert_tf.Predictor("export/mrpc")(["He was born in Rome."],
                                     ["Rome is where he was born."])
      [{'label': '1', 'logits': [-0.26145384, 0.25660545],
        'probabilities': [0.37330612, 0.62669384]}]
    bert_tf.Predictor("export/squad")(question=["Who?"], context=["He."])
    bert_tf.Predictor("export/bert")(["The [MASK] is open."],
                                     signature="fill_mask")

  Attributes:
    path: the folder of the version.
    signatures: {name: `Signature`}: what each takes and gives.
  """

  def __init__(self, export_dir: str):
    """Loads the newest version in a folder, or the version that it is.

    Raises:
      InputError: there is no export, or it cannot be read.
    """
    self.path = _find_version(os.fspath(export_dir))
    try:
      self._model = tf.saved_model.load(self.path)
    except (OSError, tf.errors.OpError, KeyError, ValueError) as error:
      raise InputError(
          f"{self.path}: cannot be loaded: {one_line(error)}.") from None
    super().__init__(self.path, {
      name: make_signature(
          _specs(function.structured_input_signature[1]),
          _specs(function.structured_outputs))
      for name, function in self._model.signatures.items()}, self._run)

  def _run(
      self, signature: str, columns: dict[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    inputs = self.signatures[signature].inputs
    try:
      outputs = self._model.signatures[signature](**{
        name: tf.constant(column, inputs[name].dtype)
        for name, column in columns.items()})
    except tf.errors.InvalidArgumentError as error:
      raise RefusedRows(
          f"{signature} refuses this: {one_line(error.message)}.") from None
    return {name: value.numpy() for name, value in outputs.items()}
