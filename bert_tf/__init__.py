"""BERT for TensorFlow and Keras 3.

Names are imported on first use, so that `import bert_tf.modeling` needs
Keras alone and the data tools do not load the model.
"""

import importlib

_HOMES = {
  "BertConfig": "config",
  "BertTokenizer": "tokenization",
  "BertEncoder": "modeling",
  "BertForPreTraining": "heads",
  "BertClassifier": "heads",
  "BertMultipleChoice": "heads",
  "BertSpanLabeler": "heads",
  "BertTokenClassifier": "heads",
  "Predictor": "predictor",
  "load_encoder": "checkpoints",
  "load_pretraining_model": "checkpoints",
  "load_tokenizer": "checkpoints",
  "pretraining_losses": "losses",
  "inputs_and_targets": "losses",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name):
  if name not in _HOMES:
    raise AttributeError(f"module 'bert_tf' has no attribute {name!r}")
  module = importlib.import_module(f"bert_tf.{_HOMES[name]}")
  return getattr(module, name)


def __dir__():
  return sorted(set(globals()) | set(_HOMES))
