"""The whole job on a real corpus: from raw text to a SavedModel's answers.

Runs the project's own programs one after the other, as one would by hand,
and prints a report at the end. The corpus is the docstrings of the Python
packages installed here (collect_docstrings.py): no download is needed.

  python tools/demo/demo.py --output_dir=demo
"""

import os
import subprocess
import sys
import time

from absl import flags

from bert_tf import command_line
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.config import write_json

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
VOCAB_SIZE = 8000
SEEDS = (1, 2, 3)
# A small model for a short run. Against the released "tiny": twice the heads
# and initial weights in proportion to its width (0.02 is for 768). Pretraining
# goes without dropout, since it sees each text once or twice only.
MODEL = BertConfig.from_size(
    "tiny", vocab_size=VOCAB_SIZE, num_attention_heads=4,
    initializer_range=0.1)
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LENGTHS = {"max_seq_length": 64, "max_predictions_per_seq": 10}

# TensorFlow says these at every import, before its log level is known.
_NOISE = ("WARNING: All log messages before", "I0000 ", "W0000 ")


class Demo:
  """Runs the steps in a folder and remembers how long each took."""

  def __init__(self, output_dir: str):
    self.output_dir = output_dir
    self.seconds: dict[str, float] = {}

  def path(self, *parts: str) -> str:
    return os.path.join(self.output_dir, *parts)

  def run(self, title: str, script: str, *words: str, **options) -> None:
    """Runs one program of the project; prints its command and output."""
    arguments = [*words, *(
      f"--{name}" if value is True else f"--{name}={value}"
      for name, value in options.items())]
    print(f"\n=== {title}\n$ python {' '.join([script, *arguments])}",
          flush=True)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, os.path.join(REPOSITORY, script), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    for line in process.stdout:
      if not line.startswith(_NOISE):
        print(line, end="", flush=True)
    if process.wait():
      raise InputError(f"{script} ended with status {process.returncode}.")
    step = title.split(":")[0]
    self.seconds[step] = (
        self.seconds.get(step, 0) + time.monotonic() - start)


def prepare(demo: Demo) -> None:
  """Corpus, vocabulary and pretraining records."""
  demo.run("Corpus", "tools/demo/collect_docstrings.py",
           output_dir=demo.path("corpus"))
  demo.run("Vocabulary", "tools/learn_vocabulary.py",
           input_file=demo.path("corpus", "train.txt"),
           output_file=demo.path("vocab.txt"), vocab_size=VOCAB_SIZE)
  for split, passes in (("train", 2), ("heldout", 1)):
    demo.run(f"Pretraining data: {split}", "tools/create_pretraining_data.py",
             input_file=demo.path("corpus", f"{split}.txt"),
             output_file=demo.path("records", split, f"{split}.tfrecord"),
             vocab_file=demo.path("vocab.txt"), sentence_splitter="rules",
             dupe_factor=passes, **LENGTHS)


def pretrain(demo: Demo) -> None:
  """The encoder, its learning curve and its SavedModel."""
  write_json(demo.path("bert_config.json"), MODEL.to_dict())
  write_json(
      demo.path("pretraining_config.json"),
      {**MODEL.to_dict(), **NO_DROPOUT})
  demo.run("Pretraining", "run_pretraining.py",
           input_file=demo.path("records", "train", "train.tfrecord*"),
           eval_input_file=demo.path(
               "records", "heldout", "heldout.tfrecord*"),
           do_train=True, do_eval=True,
           bert_config_file=demo.path("pretraining_config.json"),
           vocab_file=demo.path("vocab.txt"),
           output_dir=demo.path("pretrained"),
           train_batch_size=32, eval_batch_size=64, max_eval_steps=100,
           learning_rate=1.5e-3, num_train_steps=7000, num_warmup_steps=400,
           eval_steps=500, **LENGTHS)
  demo.run("Learning curve", "tools/plot_training.py",
           demo.path("pretrained"),
           output_file=demo.path("learning_curve.png"))
  demo.run("Export: pretrained", "tools/export_saved_model.py",
           model_dir=demo.path("pretrained"),
           export_dir=demo.path("export", "pretrained"))


def finetune(demo: Demo) -> None:
  """Which package is this docstring from? Both starts, the same budget."""
  starts = {
    "pretrained": {"init_checkpoint": demo.path("export", "pretrained", "1")},
    "random": {"vocab_file": demo.path("vocab.txt")},
  }
  for start, options in starts.items():
    for seed in SEEDS:
      demo.run(f"Fine-tuning: {start} start, seed {seed}",
               "run_finetuning.py", task_name="classification",
               data_dir=demo.path("corpus"), do_train=True, do_eval=True,
               output_dir=demo.path("finetuned", f"{start}-{seed}"),
               max_seq_length=LENGTHS["max_seq_length"],
               num_train_epochs=6, learning_rate=4e-4, train_batch_size=32,
               bert_config_file=demo.path("bert_config.json"),
               random_seed=seed, **options)
  demo.run("Export: classifier", "tools/export_saved_model.py",
           model_dir=demo.path("finetuned", f"pretrained-{SEEDS[0]}"),
           export_dir=demo.path("export", "classifier"))


def main(argv: list[str]) -> None:
  require(len(argv) == 1, f"received {argv[1:]}, which are not flags.")
  demo = Demo(flags.FLAGS.output_dir)
  require(
      not os.path.exists(demo.output_dir),
      f"{demo.output_dir}: exists already; remove it (or give another "
      "--output_dir) to run the demo anew.")
  start = time.monotonic()
  prepare(demo)
  pretrain(demo)
  finetune(demo)
  demo.seconds["in all"] = time.monotonic() - start
  write_json(demo.path("seconds.json"), demo.seconds)
  demo.run("Report", "tools/demo/report.py", demo_dir=demo.output_dir)


if __name__ == "__main__":
  flags.DEFINE_string("output_dir", "demo", "Folder for all that is made.")
  command_line.run_program(main)
