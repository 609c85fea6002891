"""The demo's report: what was learnt, beside what costs nothing to know.

Reads the results that the programs left in --demo_dir, asks the SavedModels
a few questions, prints one screen and keeps it as report.txt and report.json.
"""

import os

from absl import flags
from naive_bayes import naive_bayes_predictions

from bert_tf import command_line
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.data.tables import read_columns
from bert_tf.metrics import balanced_accuracy
from bert_tf.reporting import format_duration

FILL_MASK = (
  "Returns the [MASK] of the array along the given axis.",
  "If [MASK] is true, the file is closed.",
  "A list of integers, the [MASK] of the output tensor.",
  "Raises a ValueError if the input [MASK] not valid.",
)
CLASSIFY = (
  "A layer that normalizes its inputs over the last axis during training.",
  "Return the sum of array elements over a given axis, ignoring NaNs.",
  "Open the file and return a corresponding file object.",
  "Computes the gradient of the op with respect to its input tensors.",
)


def _spread(values: list[float]) -> str:
  mean = sum(values) / len(values)
  return (f"{mean:6.1%}  ({min(values):.1%} to {max(values):.1%} over "
          f"{len(values)} seeds)")


def _naive_bayes(corpus_dir: str) -> float:
  train, dev = (
    read_columns(os.path.join(corpus_dir, f"{split}.tsv"), ["text", "label"])
    for split in ("train", "dev"))
  return balanced_accuracy(dev["label"], naive_bayes_predictions(
      train["text"], train["label"], dev["text"]))


def collect(demo_dir: str) -> dict:
  """All figures of the report, for machines."""
  def path(*parts):
    return os.path.join(demo_dir, *parts)

  finetuned = {}
  for name in sorted(os.listdir(path("finetuned"))):
    results = read_json(path("finetuned", name, "eval_results.json"))
    finetuned.setdefault(name.split("-")[0], []).append(
        results["balanced_accuracy"])
  return {
    "corpus": read_json(path("corpus", "corpus.json")),
    "pretraining": read_json(path("pretrained", "eval_results.json")),
    "balanced_accuracy": {
      **finetuned, "naive_bayes": _naive_bayes(path("corpus"))},
    "seconds": read_json(path("seconds.json")),
  }


def ask(demo_dir: str) -> dict:
  """The answers of both SavedModels, from strings to strings."""
  import tensorflow as tf
  import tensorflow_text  # noqa: F401 (the tokenizer's operations)

  def load(name):
    return tf.saved_model.load(os.path.join(demo_dir, "export", name, "1"))

  pretrained, classifier = load("pretrained"), load("classifier")
  filled = pretrained.signatures["fill_mask"](text=tf.constant(FILL_MASK))
  classified = classifier.signatures["serving_default"](
      text=tf.constant(CLASSIFY))
  return {
    "fill_mask": [
      {"text": text, "pieces": [piece.decode() for piece in pieces[0]],
       "probabilities": probabilities[0].tolist()}
      for text, pieces, probabilities in zip(
          FILL_MASK, filled["pieces"].numpy(),
          filled["probabilities"].numpy())],
    "classify": [
      {"text": text, "label": label.decode(),
       "probability": float(probabilities.max())}
      for text, label, probabilities in zip(
          CLASSIFY, classified["label"].numpy(),
          classified["probabilities"].numpy())],
  }


def _learnt(figures: dict) -> list[str]:
  """Accuracies, each beside what guessing or counting gets."""
  pretraining, balanced = (
    figures["pretraining"], figures["balanced_accuracy"])
  mlm, majority = (
    pretraining["mlm_accuracy"], pretraining["mlm_majority_accuracy"])
  next_sentence = []
  if "nsp_accuracy" in pretraining:
    next_sentence.append(
        f"  next sentence        {pretraining['nsp_accuracy']:6.1%}  "
        f"majority: {pretraining['nsp_majority_accuracy']:.1%}")
  return [
    f"Pretraining: {pretraining['global_step']:,} steps; on held-out modules",
    f"  masked-LM accuracy   {mlm:6.1%}  most frequent piece: {majority:.1%} "
    f"({mlm / majority:.1f} times that)",
    *next_sentence,
    "",
    "Fine-tuning: which package is this docstring from? Balanced accuracy",
    f"  pretrained start     {_spread(balanced['pretrained'])}",
    f"  random start         {_spread(balanced['random'])}",
    f"  naive Bayes          {balanced['naive_bayes']:6.1%}",
  ]


def format_report(figures: dict, answers: dict, demo_dir: str) -> str:
  """The report for people, one screen."""
  corpus, seconds = figures["corpus"], figures["seconds"]
  lines = [
    f"Corpus: {corpus['train']['megabytes']} MB of docstrings, "
    f"{corpus['train']['documents']:,} modules", "",
    *_learnt(figures), "", "The SavedModels answer",
  ]
  for answer in answers["fill_mask"]:
    best = ", ".join(
        f"{piece} {probability:.0%}" for piece, probability in
        list(zip(answer["pieces"], answer["probabilities"]))[:3])
    lines += [f"  {answer['text']}", f"    [MASK] = {best}"]
  for answer in answers["classify"]:
    lines += [f"  {answer['text']}",
              f"    {answer['label']} {answer['probability']:.0%}"]
  times = ", ".join(
      f"{step} {format_duration(value)}" for step, value in seconds.items())
  return "\n".join([
    *lines, "",
    f"SavedModels     {demo_dir}/export/pretrained, classifier",
    f"Learning curve  {demo_dir}/learning_curve.png",
    f"TensorBoard     tensorboard --logdir {demo_dir}/pretrained",
    f"Times           {times}", ""])


def main(argv: list[str]) -> None:
  require(len(argv) == 1, f"received {argv[1:]}, which are not flags.")
  demo_dir = flags.FLAGS.demo_dir
  figures, answers = collect(demo_dir), ask(demo_dir)
  report = format_report(figures, answers, demo_dir)
  write_json(os.path.join(demo_dir, "report.json"), {**figures, **answers})
  with open(os.path.join(demo_dir, "report.txt"), "w",
            encoding="utf-8") as file:
    file.write(report)
  print(f"\n{report}")


if __name__ == "__main__":
  flags.DEFINE_string("demo_dir", "demo", "Folder of the demo's run.")
  command_line.run_program(main)
