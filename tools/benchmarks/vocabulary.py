"""Learning a vocabulary: its fit on held-out text, seconds and memory.

Compared with the WordPiece trainer of Hugging Face's `tokenizers` on the same
first nine tenths of the corpus. Both vocabularies split the last tenth, other
books, with the same tokenizer.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

from benchmarks import harness

BAR = 1.02  # pieces a word, against theirs
PACKAGES = [["tokenizers"]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  harness.add_cache_dir(parser)
  harness.add_corpus(parser)
  parser.add_argument("--vocab_size", type=int, default=30000)


def _learn(corpus: str, output: str, vocab_size: int) -> dict[str, float]:
  """Seconds and peak memory of the program, from start to end."""
  start = time.perf_counter()
  subprocess.run(
      [sys.executable,
       os.path.join(harness.REPOSITORY, "tools", "learn_vocabulary.py"),
       f"--input_file={corpus}", f"--output_file={output}",
       f"--vocab_size={vocab_size}"], check=True, stderr=subprocess.DEVNULL)
  seconds = time.perf_counter() - start
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
  return {"seconds": seconds, "peak_mib": peak}


def _coverage(path: str, word_counts: dict[str, int]) -> dict[str, float]:
  from bert_tf import vocabulary
  from bert_tf.vocabulary_files import read_vocabulary
  return vocabulary.coverage(
      read_vocabulary(path), word_counts, do_lower_case=True)


def run(arguments: argparse.Namespace) -> harness.Report:
  paragraphs = harness.read_paragraphs(arguments.corpus)
  size = len(paragraphs) * 9 // 10
  train, held_out = paragraphs[:size], paragraphs[size:]
  python = harness.peer_python(
      arguments.cache_dir, "benchmark-vocabulary", PACKAGES)
  with tempfile.TemporaryDirectory() as folder:
    corpus = os.path.join(folder, "train.txt")
    with open(corpus, "w", encoding="utf-8") as file:
      file.writelines(paragraph + "\n" for paragraph in train)
    paths = {name: os.path.join(folder, f"{name}.txt")
             for name in ("bert_tf", "tokenizers")}
    found = {
      "bert_tf": _learn(corpus, paths["bert_tf"], arguments.vocab_size)}
    peer = harness.Peer(python, "huggingface_tokenizers.py")
    found["tokenizers"] = peer.ask(
        do="train", corpus=corpus, vocab_size=arguments.vocab_size,
        output=paths["tokenizers"])
    peer.close()
    # After the program has run, so that its peak is its own.
    from bert_tf import vocabulary
    word_counts = vocabulary.count_words(held_out, do_lower_case=True)
    for name, path in paths.items():
      found[name] |= _coverage(path, word_counts)
  ratio = (found["bert_tf"]["pieces_per_word"] /
           found["tokenizers"]["pieces_per_word"])
  rows = [("", "pieces a word", "[UNK] words", "seconds", "peak MiB")] + [
    (name, f"{values['pieces_per_word']:.4f}",
     f"{100 * values['unknown_rate']:.4f} %", f"{values['seconds']:.1f}",
     f"{values['peak_mib']:.0f}") for name, values in found.items()]
  notes = [
    f"{arguments.vocab_size:,} entries learnt from {len(train):,} paragraphs; "
    f"pieces a word on {len(held_out):,} others ("
    f"{sum(word_counts.values()):,} words)",
    f"{ratio:.4f} times their pieces (at most {BAR})",
    "bert_tf: the whole program; tokenizers: the training call alone, "
    f"version {found['tokenizers']['version']}",
  ]
  return harness.Report(
      title="Learning a vocabulary", rows=rows, notes=notes,
      figures={"found": found, "ratio": ratio, "bar": BAR})
