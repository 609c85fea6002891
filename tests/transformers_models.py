"""Models that Transformers knows, with weights that anybody can make again.

What Transformers computed from our conversion of them is kept in
`transformers_outputs.npz`, which `prove_conversion.py` writes.
"""

import hashlib
import json
import pathlib
import zlib

import numpy as np

from bert_tf import checkpoints
from bert_tf import conversion
from bert_tf.checkpoint_arguments import ConversionConfig
from bert_tf.config import BertConfig
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.heads import BertMultipleChoice
from bert_tf.heads import BertSpanLabeler
from bert_tf.heads import BertTokenClassifier
from bert_tf.modeling import BertEncoder
from bert_tf.tokenization import BertTokenizer
from bert_tf.vocabulary_files import SPECIAL_TOKENS

OUTPUTS = pathlib.Path(__file__).with_name("transformers_outputs.npz")
LABELS = ["a", "b", "c"]
# Model, what its task.json says, class of Transformers.
KINDS = {
  "pretraining": (BertForPreTraining, None, "BertForPreTraining"),
  "encoder": (BertEncoder, None, "BertModel"),
  "classification": (
      lambda config: BertClassifier(config, num_classes=3),
      {"labels": LABELS}, "BertForSequenceClassification"),
  "tagging": (
      lambda config: BertTokenClassifier(config, num_classes=3),
      {"labels": LABELS}, "BertForTokenClassification"),
  "spans": (BertSpanLabeler, {}, "BertForQuestionAnswering"),
  "multiple_choice": (BertMultipleChoice, {}, "BertForMultipleChoice"),
}
# Our outputs beside those of Transformers.
NAMES = {
  "mlm_logits": "prediction_logits", "nsp_logits": "seq_relationship_logits",
  "sequence_output": "last_hidden_state", "pooled_output": "pooler_output",
  "logits": "logits", "start_logits": "start_logits",
  "end_logits": "end_logits",
}
CONFIG = BertConfig(
    vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=64, max_position_embeddings=24)
# Both forms of gelu, each in three of them.
EXACT_GELU = ("encoder", "tagging", "multiple_choice")


def make_inputs(kind: str) -> dict[str, np.ndarray]:
  """Four rows of 12 pieces, or two of two choices; the first has padding."""
  random = np.random.RandomState(3)
  ids = random.randint(5, CONFIG.vocab_size, (4, 12)).astype(np.int32)
  mask = np.ones_like(ids)
  mask[0, 9:] = 0
  inputs = {
    "input_ids": ids * mask, "input_mask": mask,
    "segment_ids": (np.arange(12) > 5).astype(np.int32) * mask}
  if kind == "multiple_choice":
    return {name: x.reshape(2, 2, 12) for name, x in inputs.items()}
  return inputs


def outputs_of(model, kind: str) -> dict[str, np.ndarray]:
  """What our model gives, the masked LM at every position."""
  inputs = make_inputs(kind)
  if kind == "pretraining":
    inputs["masked_lm_positions"] = np.tile(np.int32(range(12)), (4, 1))
  return {name: np.array(x) for name, x in model(inputs).items()}


def write_model(kind: str, directory: pathlib.Path):
  """Writes `google` and `huggingface` below the folder; the model."""
  make, task, _ = KINDS[kind]
  activation = "gelu_exact" if kind in EXACT_GELU else "gelu"
  config = BertConfig(**{**CONFIG.to_dict(), "hidden_act": activation})
  model = make(config)
  for name, variable in checkpoints.checkpoint_names(model).items():
    random = np.random.RandomState(zlib.crc32(name.encode()))
    variable.assign(0.2 * random.normal(size=variable.shape)
                    + name.endswith("gamma"))
  if task is not None:
    task = {"task_name": kind, "max_seq_length": 24, **task}
  entries = [f"word{i}" for i in range(CONFIG.vocab_size)]
  entries[:5] = SPECIAL_TOKENS
  checkpoints.save_model(
      str(directory / "google"), model,
      BertTokenizer(entries, do_lower_case=True), task=task)
  conversion.run(ConversionConfig(
      input_dir=str(directory / "google"),
      output_dir=str(directory / "huggingface"), to="huggingface"))
  return model


def digest(directory: pathlib.Path) -> str:
  """Of all that Transformers reads in a Hugging Face directory."""
  import safetensors.numpy
  found = hashlib.sha256()
  config = json.loads((directory / "config.json").read_text())
  found.update(json.dumps(config, sort_keys=True).encode())
  tensors = safetensors.numpy.load_file(directory / "model.safetensors")
  for name in sorted(tensors):
    found.update(f"{name} {tensors[name].shape} {tensors[name].dtype}".encode())
    found.update(tensors[name].tobytes())
  return found.hexdigest()
