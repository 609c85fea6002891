"""Shows that a pretraining of an hour learns, and that what it learnt helps.

  python tests/prove_pretraining.py --output_dir=proof

The project's own programs, one after the other: a vocabulary and records from
the books, four of which are held out; a BERT of 4 layers and 256 hidden units
pretrained for an hour on one core, its learning curve, and its model directory
fine-tuned on the first 8,000 rows of SST-2, beside a random start of the same
size. The random start gets the best of two learning rates, chosen on the rows
it is judged by, which is in its favour.

When it was stopped, the same command goes on where it was. Prints a table, and
the figures as one line of JSON. Exits with 1 unless the held-out loss is below
that of any model that ignores the context, and the pretrained start above the
random one. Takes two hours on one core and 1 GB of disk.
"""

import argparse
import csv
import dataclasses
import gzip
import json
import math
import os
import signal
import statistics
import subprocess
import sys

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(REPOSITORY, "tools"))
from benchmarks import harness
from demo.demo import NO_DROPOUT

from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.config import write_text

HELD_OUT = (
  "Black Beauty", "Up from Slavery", "Howards End", "The Time Machine")
# Initial weights in proportion to the width (0.02 is for 768), and no dropout
# in pretraining, since each text is seen few times only.
MODEL = BertConfig.from_size(
    "mini", vocab_size=8000, initializer_range=0.06)
LENGTHS = {"max_seq_length": 64, "max_predictions_per_seq": 10}
SEEDS = (1, 2, 3)
SST2_ROWS = 8000
# Pretrained and random start: the learning rates tried.
RATES = {"pretrained": (5e-4,), "random": (3e-4, 1e-3)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What changes the results; a folder is for one of them."""

  num_train_steps: int
  num_warmup_steps: int
  train_batch_size: int
  learning_rate: float
  dupe_factor: int
  max_eval_steps: int
  num_train_epochs: float
  corpus: str
  glue_dir: str


class Proof:
  """Stages in a folder, each one program of the project."""

  def __init__(self, output_dir: str):
    self.output_dir = output_dir

  def path(self, *parts: str) -> str:
    return os.path.join(self.output_dir, *parts)

  def stage(
      self, output: str, title: str, script: str, *words: str, **options
  ) -> None:
    """Runs a program and prints its command, unless its output is there.

    Stopped by SIGINT or SIGTERM, it stops the program too, and waits for it
    to save its state.
    """
    arguments = [*words, *(
      f"--{name}" if value is True else f"--{name}={value}"
      for name, value in options.items())]
    print(f"\n=== {title}\n$ python {' '.join([script, *arguments])}",
          flush=True)
    if os.path.exists(self.path(output)):
      print(f"{self.path(output)} is there.", flush=True)
      return
    process = subprocess.Popen(
        [sys.executable, os.path.join(REPOSITORY, script), *arguments])
    try:
      status = process.wait()
    except BaseException:
      process.terminate()
      process.wait()
      raise
    require(status == 0, f"{script} ended with status {status}.")


def index_of(corpus: str) -> str:
  """The file beside the corpus that says which books it holds."""
  return corpus.removesuffix(".txt.gz") + ".index.tsv"


def read_books(corpus: str) -> dict[str, list[str]]:
  """{title: its documents}, by the index that lies beside the corpus."""
  with gzip.open(corpus, "rt", encoding="utf-8", newline="\n") as file:
    documents = file.read().strip().split("\n\n")
  index = index_of(corpus)
  books, first = {}, 0
  with open(index, encoding="utf-8", newline="") as file:
    # Its other books are not in the corpus.
    for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
      if row["split"] == "train":
        last = first + int(row["chapters(docs)"])
        books[row["title"]] = documents[first:last]
        first = last
        found = sum(len(text.split("\n")) for text in books[row["title"]])
        require(
            found == int(row["paragraphs"]),
            f"{index}: {row['title']} has {row['paragraphs']} paragraphs "
            f"there and {found} in {corpus}; they do not belong together.")
  require(first == len(documents), f"{index}: {first} documents, not "
          f"{len(documents)} as in {corpus}.")
  return books


def write_corpus(proof: Proof, corpus: str) -> None:
  """Whole books are held out, not chapters, which share names and style."""
  books = read_books(corpus)
  require(
      set(HELD_OUT) <= set(books), f"{corpus}: lacks one of the books "
      f"{', '.join(HELD_OUT)}.")
  for split in ("train", "heldout"):
    documents = [
      document for title, documents in books.items()
      if (title in HELD_OUT) == (split == "heldout") for document in documents]
    write_text(proof.path("corpus", f"{split}.txt"), "\n\n".join(documents))
    print(f"{split}: {len(documents):,} documents, "
          f"{sum(map(len, documents)) / 1e6:.1f} M characters", flush=True)


def prepare(proof: Proof, settings: Settings) -> None:
  """Corpus, vocabulary and records."""
  os.makedirs(proof.path("corpus"), exist_ok=True)
  write_corpus(proof, settings.corpus)
  proof.stage(
      "vocabulary/vocab.txt", "Vocabulary",
      "tools/learn_vocabulary.py",
      input_file=proof.path("corpus", "train.txt"),
      output_file=proof.path("vocabulary", "vocab.txt"),
      vocab_size=MODEL.vocab_size)
  for split, passes in (("train", settings.dupe_factor), ("heldout", 1)):
    proof.stage(
        f"records/{split}/stats.json", f"Records: {split}",
        "tools/create_pretraining_data.py",
        input_file=proof.path("corpus", f"{split}.txt"),
        output_file=proof.path("records", split, f"{split}.tfrecord"),
        vocab_file=proof.path("vocabulary", "vocab.txt"),
        sentence_splitter="rules", dupe_factor=passes, **LENGTHS)


def pretrain(proof: Proof, settings: Settings) -> None:
  write_json(proof.path("bert_config.json"), MODEL.to_dict())
  write_json(proof.path("pretraining_config.json"),
             {**MODEL.to_dict(), **NO_DROPOUT})
  tenth = max(settings.num_train_steps // 10, 1)
  proof.stage(
      "pretrained/eval_results.json", "Pretraining", "run_pretraining.py",
      input_file=proof.path("records", "train", "train.tfrecord*"),
      eval_input_file=proof.path("records", "heldout", "heldout.tfrecord*"),
      do_train=True, do_eval=True,
      bert_config_file=proof.path("pretraining_config.json"),
      vocab_file=proof.path("vocabulary", "vocab.txt"),
      output_dir=proof.path("pretrained"),
      train_batch_size=settings.train_batch_size, eval_batch_size=64,
      max_eval_steps=settings.max_eval_steps,
      learning_rate=settings.learning_rate,
      num_train_steps=settings.num_train_steps,
      num_warmup_steps=settings.num_warmup_steps,
      eval_steps=tenth, save_checkpoints_steps=tenth, **LENGTHS)
  proof.stage(
      "learning_curve.png", "Learning curve", "tools/plot_training.py",
      proof.path("pretrained"),
      output_file=proof.path("learning_curve.png"))


def finetune(proof: Proof, settings: Settings) -> None:
  """Both starts on the same rows, for the same number of steps."""
  starts = {
    "pretrained": {"init_checkpoint": proof.path("pretrained")},
    "random": {"vocab_file": proof.path("vocabulary", "vocab.txt")}}
  for start, options in starts.items():
    for rate in RATES[start]:
      for seed in SEEDS:
        output = f"finetuned/{start}-{rate:g}-{seed}"
        proof.stage(
            f"{output}/eval_results.json",
            f"Fine-tuning: {start} start, rate {rate:g}, seed {seed}",
            "run_finetuning.py", task_name="sst-2",
            data_dir=os.path.join(settings.glue_dir, "SST-2"),
            max_train_examples=SST2_ROWS, do_train=True, do_eval=True,
            output_dir=proof.path(output), max_seq_length=64,
            num_train_epochs=settings.num_train_epochs, learning_rate=rate,
            train_batch_size=32, eval_batch_size=64, random_seed=seed,
            bert_config_file=proof.path("bert_config.json"), **options)


def context_free_loss(proof: Proof) -> float:
  """The least loss of a model that does not look at the context: the entropy
  of the held-out pieces, nats a piece (by their own frequencies, so it knows
  more than such a model could)."""
  import tensorflow as tf
  from bert_tf.data import records
  from bert_tf.data.text_files import expand_files

  layout = records.Layout(**LENGTHS)
  counts = np.zeros(MODEL.vocab_size)
  for row in tf.data.TFRecordDataset(expand_files(
      (proof.path("records", "heldout", "heldout.tfrecord*"),))).batch(1024):
    parsed = records.parse(row, layout)
    pieces = parsed["masked_lm_ids"].numpy()
    counts += np.bincount(
        pieces[parsed["masked_lm_weights"].numpy() > 0],
        minlength=MODEL.vocab_size)
  shares = counts[counts > 0] / counts.sum()
  return float(-(shares * np.log(shares)).sum())


def accuracies(proof: Proof, start: str) -> tuple[float, list[float]]:
  """The best rate of a start, and the accuracies of its seeds."""
  of_rate = {
    rate: [harness.read_json(proof.path(
        "finetuned", f"{start}-{rate:g}-{seed}", "eval_results.json"))[
            "accuracy"] for seed in SEEDS]
    for rate in RATES[start]}
  return max(of_rate.items(), key=lambda item: statistics.mean(item[1]))


def training_hours(proof: Proof, batch_size: int) -> float:
  """Of the steps alone, whatever stops there were."""
  seconds, before = 0.0, 0
  with open(proof.path("pretrained", "metrics.jsonl"),
            encoding="utf-8") as file:
    for entry in map(json.loads, file):
      if entry["split"] == "train":
        examples = (entry["step"] - before) * batch_size
        seconds += examples / entry["examples_per_second"]
        before = entry["step"]
  return seconds / 3600


def report(proof: Proof, settings: Settings) -> bool:
  """Prints what was found: whether it is as it should be."""
  results = harness.read_json(proof.path("pretrained", "eval_results.json"))
  stats = harness.read_json(proof.path("records", "train", "stats.json"))
  hours = training_hours(proof, settings.train_batch_size)
  entropy = context_free_loss(proof)
  rows = [("", "seen", "for comparison"),
          ("masked-LM loss, held-out books", f"{results['mlm_loss']:.3f}",
           f"{entropy:.3f} without the context, {math.log(8000):.3f} = ln V"),
          ("perplexity", f"{results['mlm_perplexity']:.1f}",
           f"{math.exp(entropy):.1f}"),
          ("masked-LM accuracy", f"{results['mlm_accuracy']:.1%}",
           f"{results['mlm_majority_accuracy']:.1%}, the most frequent piece"),
          ("next-sentence accuracy", f"{results['nsp_accuracy']:.1%}",
           f"{results['nsp_majority_accuracy']:.1%}, the majority")]
  tuned = {start: accuracies(proof, start) for start in RATES}
  for start, (rate, values) in tuned.items():
    rows.append((
      f"SST-2 accuracy, {start} start", f"{statistics.mean(values):.1%}",
      f"{min(values):.1%} to {max(values):.1%} over {len(values)} seeds, "
      f"rate {rate:g}"))
  figures = {
    **dataclasses.asdict(settings), "hours": hours,
    "instances": stats["instances"], "context_free_loss": entropy,
    **{name: results[name] for name in (
      "mlm_loss", "mlm_accuracy", "nsp_accuracy", "global_step")},
    **{f"sst2_{start}": values for start, (_, values) in tuned.items()},
    **{f"sst2_{start}_rate": rate for start, (rate, _) in tuned.items()}}
  write_json(proof.path("figures.json"), figures)
  steps = settings.num_train_steps
  print("\n" + harness.table(harness.Report(
      title=f"{steps:,} steps of {settings.train_batch_size} in {hours:.2f} "
            "hours", rows=rows, figures=figures, notes=[
                f"{stats['instances']:,} examples of {settings.dupe_factor} "
                f"passes, {steps * settings.train_batch_size:,} taken."]),
      harness.machine()))
  print(json.dumps(figures), flush=True)
  means = {start: statistics.mean(found[1]) for start, found in tuned.items()}
  return (results["mlm_loss"] < entropy
          and means["pretrained"] > means["random"])


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  data = os.path.join(harness.SHARED, "data")
  parser.add_argument("--output_dir", default="proof")
  parser.add_argument(
      "--corpus", default=os.path.join(data, "corpora", "books_en.txt.gz"),
      help="The books, with their index beside them.")
  parser.add_argument(
      "--glue_dir", default=os.path.join(data, "glue"),
      help="The folder that holds SST-2.")
  parser.add_argument("--num_train_steps", type=int, default=6000)
  parser.add_argument("--num_warmup_steps", type=int, default=600)
  parser.add_argument("--train_batch_size", type=int, default=32)
  parser.add_argument("--learning_rate", type=float, default=6e-4)
  parser.add_argument("--dupe_factor", type=int, default=2)
  parser.add_argument(
      "--max_eval_steps", type=int, default=60,
      help="Batches of 64 of an evaluation.")
  parser.add_argument("--num_train_epochs", type=float, default=2.0)
  return parser.parse_args()


def main() -> None:
  signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
  arguments = vars(parse_arguments())
  proof = Proof(arguments.pop("output_dir"))
  settings = Settings(**arguments)
  for option, path in (
      ("corpus", settings.corpus), ("corpus", index_of(settings.corpus)),
      ("glue_dir", os.path.join(settings.glue_dir, "SST-2", "train.tsv")),
      ("glue_dir", os.path.join(settings.glue_dir, "SST-2", "dev.tsv"))):
    require(os.path.isfile(path), f"{path}: missing; see --{option}.")
  os.makedirs(proof.output_dir, exist_ok=True)
  of_folder = proof.path("settings.json")
  if os.path.exists(of_folder):
    require(
        harness.read_json(of_folder) == dataclasses.asdict(settings),
        f"{of_folder}: says other settings than these; give them again, or "
        "another --output_dir.")
  write_json(of_folder, dataclasses.asdict(settings))
  for stage in (prepare, pretrain, finetune):
    stage(proof, settings)
  sys.exit(0 if report(proof, settings) else 1)


if __name__ == "__main__":
  try:
    main()
  except InputError as error:
    sys.exit(f"prove_pretraining.py: error: {error}")
