"""What tests of fine-tuning start from: a vocabulary, a model, a config."""

from collections.abc import Sequence
import pathlib

from bert_tf.config import BertConfig
from bert_tf.config import write_json
from bert_tf.finetuning_arguments import FinetuningConfig


def small_config(entries: Sequence[str], **changes) -> BertConfig:
  """Of a model that learns a rule of a few words in seconds."""
  return BertConfig(**{
    "vocab_size": len(entries), "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 16, "initializer_range": 0.1, **changes})


def write_start(
    folder: pathlib.Path, entries: Sequence[str], config: BertConfig
) -> pathlib.Path:
  """The vocabulary and the shape, where `config_for` looks for them."""
  (folder / "vocab.txt").write_text("\n".join(entries) + "\n")
  write_json(str(folder / "bert_config.json"), config.to_dict())
  return folder


def config_for(
    folder: pathlib.Path, task_name: str, **options) -> FinetuningConfig:
  """Trains, evaluates and predicts; `folder` holds all, the results in run/."""
  return FinetuningConfig(**{
    "task_name": task_name, "data_dir": str(folder),
    "output_dir": str(folder / "run"), "do_train": True, "do_eval": True,
    "do_predict": True, "bert_config_file": str(folder / "bert_config.json"),
    "vocab_file": str(folder / "vocab.txt"), "max_seq_length": 8,
    "train_batch_size": 8, "num_train_epochs": 8.0, "learning_rate": 5e-3,
    "log_steps": 1000, "eval_steps": 1000, **options})
