"""BERT's variables: the original's names and shapes, and those of others.

Each form has a function from its name to the original's, and one that turns
an array (anything with `T` and `reshape`) as the original has it:

  Hugging Face           matrices of dense layers are [out, in]
  Hugging Face's, in h5  as the original's, but for those of the heads
  tf-models              those of attention are split by heads

Standard library only.
"""

from collections.abc import Iterable
import re
from typing import Any

from bert_tf.config import BertConfig

# The next-sentence head of tf-models has a pooler of its own.
POOLER = "bert/pooler/dense/"
NEXT_SENTENCE_POOLER = "cls/seq_relationship/pooler/dense/"

# In each table: theirs, ours. A row is applied to what the rows before it
# left.
_HUGGINGFACE_NAMES = (
  ("cls.predictions.bias", "cls.predictions.output_bias"),
  ("cls.seq_relationship.weight", "cls.seq_relationship.output_weights"),
  ("cls.seq_relationship.bias", "cls.seq_relationship.output_bias"),
  ("qa_outputs.weight", "cls.squad.output_weights"),
  ("qa_outputs.bias", "cls.squad.output_bias"),
  ("classifier.weight", "output_weights"),
  ("classifier.bias", "output_bias"),
  ("LayerNorm.weight", "LayerNorm.gamma"),
  ("LayerNorm.bias", "LayerNorm.beta"),
  ("_embeddings.weight", "_embeddings"),
  ("encoder.layer.", "encoder.layer_"),
)
_HUGGINGFACE_H5_NAMES = (
  ("mlm___cls/", "cls/"),
  ("nsp___cls/", "cls/"),
  ("cls/predictions/bias", "cls/predictions/output_bias"),
  ("cls/seq_relationship/kernel", "cls/seq_relationship/output_weights"),
  ("cls/seq_relationship/bias", "cls/seq_relationship/output_bias"),
  ("qa_outputs/kernel", "cls/squad/output_weights"),
  ("qa_outputs/bias", "cls/squad/output_bias"),
  ("classifier/kernel", "output_weights"),
  ("classifier/bias", "output_bias"),
  ("embeddings/weight", "embeddings"),
  ("embeddings/embeddings", "embeddings"),
  ("layer_._", "layer_"),
)
# Until 2021 tf-models' encoder was a functional Keras model, whose layers are
# counted: these four, the blocks, the pooler. So released keras_bert files
# and bert/v3 have them; converters of Transformers and KerasHub say the same.
_TF_MODELS_COUNTED = re.compile(
    r"(?:model/|encoder/)?layer_with_weights-(\d+)/(?!layer_with_weights-)(.*)")
_TF_MODELS_FIRST = (
  "_embedding_layer", "_position_embedding_layer", "_type_embedding_layer",
  "_embedding_norm_layer",
)
_TF_MODELS_NAMES = (
  ("masked_lm/embedding_table", "bert/embeddings/word_embeddings"),
  ("encoder/_embedding_layer/embeddings", "bert/embeddings/word_embeddings"),
  ("encoder/_position_embedding_layer/embeddings",
   "bert/embeddings/position_embeddings"),
  ("encoder/_type_embedding_layer/embeddings",
   "bert/embeddings/token_type_embeddings"),
  ("encoder/_embedding_norm_layer/", "bert/embeddings/LayerNorm/"),
  ("encoder/_pooler_layer/", POOLER),
  ("encoder/_transformer_layers/", "bert/encoder/layer_"),
  ("/_attention_layer/_query_dense/", "/attention/self/query/"),
  ("/_attention_layer/_key_dense/", "/attention/self/key/"),
  ("/_attention_layer/_value_dense/", "/attention/self/value/"),
  ("/_attention_layer/_output_dense/", "/attention/output/dense/"),
  ("/_attention_output_dense/", "/attention/output/dense/"),
  ("/_attention_layer_norm/", "/attention/output/LayerNorm/"),
  ("/_intermediate_dense/", "/intermediate/dense/"),
  ("/_output_dense/", "/output/dense/"),
  ("/_output_layer_norm/", "/output/LayerNorm/"),
  ("masked_lm/dense/", "cls/predictions/transform/dense/"),
  ("masked_lm/layer_norm/", "cls/predictions/transform/LayerNorm/"),
  ("masked_lm/output_bias/bias", "cls/predictions/output_bias"),
  ("next_sentence.pooler_dense/", NEXT_SENTENCE_POOLER),
  ("model/classification_heads/0/out_proj/kernel",
   "cls/seq_relationship/output_weights"),
  ("model/classification_heads/0/out_proj/bias",
   "cls/seq_relationship/output_bias"),
)


def _dense(path: str, width: int, outputs: int) -> dict[str, tuple[int, ...]]:
  return {f"{path}/kernel": (width, outputs), f"{path}/bias": (outputs,)}


def _norm(path: str, width: int) -> dict[str, tuple[int, ...]]:
  return {f"{path}/LayerNorm/{name}": (width,) for name in ("gamma", "beta")}


def variable_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
  """The shapes of a model for pretraining, by the original's names.

  As the variables themselves would tell, which take gigabytes to make.

  >>> variable_shapes(BertConfig(vocab_size=9))["cls/predictions/output_bias"]
  (9,)
  """
  hidden, inner = config.hidden_size, config.intermediate_size
  shapes = {
    "bert/embeddings/word_embeddings": (config.vocab_size, hidden),
    "bert/embeddings/token_type_embeddings": (config.type_vocab_size, hidden),
    "bert/embeddings/position_embeddings":
        (config.max_position_embeddings, hidden),
    **_norm("bert/embeddings", hidden),
  }
  for i in range(config.num_hidden_layers):
    block = f"bert/encoder/layer_{i}"
    for part in ("self/query", "self/key", "self/value", "output/dense"):
      shapes.update(_dense(f"{block}/attention/{part}", hidden, hidden))
    shapes.update(_norm(f"{block}/attention/output", hidden))
    shapes.update(_dense(f"{block}/intermediate/dense", hidden, inner))
    shapes.update(_dense(f"{block}/output/dense", inner, hidden))
    shapes.update(_norm(f"{block}/output", hidden))
  return {
    **shapes,
    **_dense("bert/pooler/dense", hidden, hidden),
    **_dense("cls/predictions/transform/dense", hidden, hidden),
    **_norm("cls/predictions/transform", hidden),
    "cls/predictions/output_bias": (config.vocab_size,),
    "cls/seq_relationship/output_weights": (2, hidden),
    "cls/seq_relationship/output_bias": (2,),
  }


def _replaced(name: str, table: Iterable[tuple[str, str]]) -> str:
  for old, new in table:
    name = name.replace(old, new)
  return name


def huggingface_name(name: str) -> str:
  """The original's name of a Hugging Face variable.

  >>> huggingface_name("encoder.layer.0.attention.self.query.weight")
  'bert/encoder/layer_0/attention/self/query/kernel'
  """
  name = name.removeprefix("module.")  # Of PyTorch's DataParallel.
  if name.startswith(("embeddings.", "encoder.", "pooler.")):
    name = f"bert.{name}"
  name = _replaced(name, _HUGGINGFACE_NAMES)
  if name.endswith(".weight"):
    name = name.removesuffix("weight") + "kernel"
  return name.replace(".", "/")


def to_huggingface_name(name: str) -> str:
  """The other way.

  >>> to_huggingface_name("bert/encoder/layer_0/output/LayerNorm/gamma")
  'bert.encoder.layer.0.output.LayerNorm.weight'
  """
  name = name.replace("/", ".")
  if name.endswith(".kernel"):
    name = name.removesuffix("kernel") + "weight"
  return _replaced(
      name, ((ours, theirs) for theirs, ours in _HUGGINGFACE_NAMES))


def turn_huggingface(name: str, array: Any) -> Any:
  """Either way."""
  return array.T if name.endswith("/kernel") else array


def huggingface_h5_name(name: str) -> str:
  """The original's name of a variable in a `tf_model.h5`.

  There it stands below its layer and the class of the model.

  >>> huggingface_h5_name(
  ...     "bert/tf_bert_model/bert/encoder/layer_._0/output/dense/kernel:0")
  'bert/encoder/layer_0/output/dense/kernel'
  """
  name = name.split("/", 2)[-1].removesuffix(":0")
  return _replaced(name, _HUGGINGFACE_H5_NAMES)


def turn_huggingface_h5(name: str, array: Any) -> Any:
  """The heads' matrices stand the other way there."""
  return array.T if name.endswith("output_weights") else array


def _attribute_of_counted(name: str) -> str:
  """The name by attributes of a variable in a layer that is counted."""
  found = _TF_MODELS_COUNTED.fullmatch(name)
  if not found:
    return name
  number, rest = int(found[1]), found[2]
  if number < len(_TF_MODELS_FIRST):
    return f"encoder/{_TF_MODELS_FIRST[number]}/{rest}"
  if rest in ("kernel", "bias"):
    return f"encoder/_pooler_layer/{rest}"
  block = number - len(_TF_MODELS_FIRST)
  return f"encoder/_transformer_layers/{block}/{rest}"


def tf_models_name(name: str) -> str:
  """The original's name of a variable of tf-models' `BertPretrainerV2`.

  Or of its encoder alone, of which older ones count their layers.

  >>> tf_models_name(
  ...     "encoder/_transformer_layers/0/_attention_layer/_key_dense/bias")
  'bert/encoder/layer_0/attention/self/key/bias'
  >>> tf_models_name("model/layer_with_weights-4/_output_dense/bias")
  'bert/encoder/layer_0/output/dense/bias'
  """
  return _replaced(_attribute_of_counted(name), _TF_MODELS_NAMES)


def turn_tf_models(name: str, array: Any) -> Any:
  """Joins the N heads of D: [H, N, D] to [H, H], [N, D] to [H]."""
  if name.endswith("output_weights"):
    return array.T
  if name.endswith("attention/output/dense/kernel"):  # [N, D, H]
    return array.reshape(-1, array.shape[-1])
  if "/attention/self/" in name:
    kept = array.shape[:1] if name.endswith("kernel") else ()
    return array.reshape(*kept, -1)
  return array
