"""Shows that older TensorFlow gives the same ids and ranges as this one.

  python tests/prove_tokenizer_on_older_tensorflow.py --version=2.12.1

Saves a tokenizer of single characters as a SavedModel, runs it in the C++
libraries of this TensorFlow and of another, which pip installs into an
environment of its own under --cache_dir (0.9 GB, once), and compares the
answers for all of Unicode: between letters, alone, and beside a capital sigma.
TensorFlow 2.12 is what TensorFlow Serving 2.12 to 2.19 has of TensorFlow Text.
Lists the code points whose answers differ, and exits with 1 if there are any
beside the 66 noncharacters (U+FDD0, U+FFFE, U+1FFFE, ...): words that hold one
are [UNK] in TensorFlow 2.12 under any vocabulary.
"""

import argparse
from collections.abc import Callable, Iterator
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import difficult_text
import reference_tokenizer as reference
from saved_model_loader import Loader

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tools"))
from benchmarks import harness

FORMS = ("a{}b", "{}", "aΣ{}b", "a{}Σ", "aΣ{}")
BATCH = 65536


def save_tokenizer(path: str, *, do_lower_case: bool) -> None:
  """Every word that one of the texts holds is spelt in its pieces."""
  from bert_tf.tokenization import BertTokenizer
  from bert_tf.vocabulary_files import SPECIAL_TOKENS
  import tokenizer_servable

  characters = set()
  for code in reference.CODE_POINTS:
    for word in reference.split_words(
        chr(code), do_lower_case=do_lower_case):
      characters.update(word)
  characters.update("abσςΣ")
  tokenizer_servable.save(
      BertTokenizer(
          [*SPECIAL_TOKENS, *sorted(characters),
           *("##" + character for character in sorted(characters))],
          do_lower_case=do_lower_case), path)


def is_noncharacter(char: str) -> bool:
  return 0xFDD0 <= ord(char) <= 0xFDEF or ord(char) & 0xFFFE == 0xFFFE


def different_texts(
    texts: list[str], ask: Callable[[int, list[str]], dict[str, np.ndarray]]
) -> list[str]:
  """Those to which the two libraries give other answers, by halving."""
  if len(texts) > BATCH:
    half = BATCH
  else:
    one, other = ask(0, texts), ask(1, texts)
    if all(np.array_equal(one[name], other[name]) for name in one):
      return []
    if len(texts) == 1:
      return texts
    half = len(texts) // 2
  return (different_texts(texts[:half], ask) +
          different_texts(texts[half:], ask))


def compare(packages: str) -> int:
  """Prints a line for each group of texts; how many differ unexpectedly."""
  count = 0
  with tempfile.TemporaryDirectory() as folder, Loader() as ours, Loader(
      "--tensorflow_dir", os.path.join(packages, "tensorflow"),
      "--tensorflow_text_dir", os.path.join(packages, "tensorflow_text")
  ) as theirs:
    for do_lower_case in (True, False):
      path = os.path.join(folder, str(do_lower_case))
      save_tokenizer(path, do_lower_case=do_lower_case)
      for name, signature, texts in groups():
        found = different_texts(texts, lambda number, batch: (
          ours, theirs)[number].ask(
              saved_model=path, signature=signature, inputs={"text": batch}))
        unexpected = [
          text for text in found if not any(map(is_noncharacter, text))]
        casing = "lower-cased" if do_lower_case else "cased"
        print(f"{casing}, {name}, {signature}: {len(texts):,} texts, "
              f"{len(found)} differ, of which {len(unexpected)} hold no "
              f"noncharacter {ascii(unexpected[:20])}", flush=True)
        count += len(unexpected)
  return count


def groups() -> Iterator[tuple[str, str, list[str]]]:
  """What is compared: name, signature, texts."""
  for form in FORMS:
    yield form, "offsets", [
      form.format(chr(code)) for code in reference.CODE_POINTS]
  texts = difficult_text.texts(20_000, seed=3)
  for signature in ("tokenize", "offsets", "offsets_special", "text"):
    yield "random texts", signature, texts


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
      "--version", default="2.12.1", help="Of TensorFlow, and of its Text.")
  parser.add_argument(
      "--python", default="python3.11",
      help="A Python that this version was made for.")
  harness.add_cache_dir(parser)
  arguments = parser.parse_args()
  packages = harness.older_tensorflow(
      arguments.cache_dir, arguments.version, arguments.python)
  count = compare(packages)
  print(f"{count} texts differ.")
  sys.exit(1 if count else 0)


if __name__ == "__main__":
  main()
