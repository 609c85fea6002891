"""The house: imports point down only. Read with `ast`; nothing is imported."""

import ast
import doctest
import importlib
import pathlib

from conftest import REPOSITORY
import pytest

PACKAGE = REPOSITORY / "bert_tf"

# Ground floor first. A module imports from lower floors, and on its own
# floor from modules that stand before it.
FLOORS = (
  ("errors", "files", "config", "arguments", "checkpoint_arguments",
   "finetuning_arguments", "feature_arguments", "serving_arguments",
   "progress", "row_batches", "unicode_tables", "vocabulary_files",
   "variable_names"),
  ("data.text_files", "data.tfds_datasets", "data.corpus", "data.sentences",
   "data.sentence_pairs", "data.full_sentences", "data.row_packing",
   "data.masking", "data.example_protos", "data.document_store",
   "data.work_folder", "data.tables", "data.tfds_rows", "data.squad_files",
   "metrics", "squad_metrics", "answers", "data.conll", "prediction",
   "serving_client"),
  ("words", "packing", "tokenization", "vocabulary", "data.records",
   "data.pretraining_examples", "data.workers", "data.example_files",
   "data.beam_pipeline", "data.dynamic_masking", "data.input_pipeline",
   "data.feature_files", "fused", "lookup", "layers", "padding", "modeling",
   "losses", "bilstm", "heads", "quantization", "freezing", "optimization",
   "examples", "serving", "distribution", "reporting", "monitoring"),
  ("model_source", "tensorflow_checkpoints", "task_descriptions",
   "huggingface", "checkpoints", "train_step", "training_state", "training"),
  ("inspection", "conversion", "adaptation", "features", "predictor",
   "pretraining", "finetuning", "serving_files", "saved_model_check",
   "servable", "export_comparison", "export", "tflite",
   "tasks.classification", "tasks.glue", "tasks.xnli",
   "tasks.multiple_choice",
   "tasks.tagging_signature", "tasks.tagging", "tasks.spans", "tasks",
   "search"),
  ("command_line",),
)
ORDER = [module for floor in FLOORS for module in floor]
MODEL = (
  "fused", "lookup", "layers", "padding", "modeling", "bilstm", "heads",
  "quantization")
NO_TENSORFLOW = (
  *FLOORS[0], *FLOORS[1], "data.workers", "data.example_files", *MODEL,
  "losses", "optimization")


def name_of(path: pathlib.Path) -> str:
  parts = path.relative_to(PACKAGE).with_suffix("").parts
  return ".".join(part for part in parts if part != "__init__")


MODULES = {
  name: path for path in sorted(PACKAGE.rglob("*.py"))
  if (name := name_of(path)) not in ("", "data")
}


def imports_of(path: pathlib.Path) -> list[str]:
  """All modules that a file imports, names of ours without `bert_tf.`."""
  found = []
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        inner = full.removeprefix("bert_tf.")
        found.append(full if inner in MODULES else node.module)
  return [name.removeprefix("bert_tf.") for name in found]


def module_imports(path: pathlib.Path) -> set[str]:
  return set(imports_of(path)) & set(MODULES)


def test_every_module_has_its_place():
  assert sorted(MODULES) == sorted(ORDER)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name):
  above = set(ORDER[ORDER.index(name) + 1:])
  assert not module_imports(MODULES[name]) & above


@pytest.mark.parametrize("name", sorted(MODULES))
def test_data_and_model_are_apart(name):
  imported = module_imports(MODULES[name])
  if name.startswith("data."):
    assert not imported & set(MODEL)
  if name in (*MODEL, "losses", "optimization"):
    assert not {other for other in imported if other.startswith("data.")}


@pytest.mark.parametrize("name", NO_TENSORFLOW)
def test_what_needs_no_tensorflow_does_not_import_it_at_the_top(name):
  tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
  top = [node for node in tree.body
         if isinstance(node, (ast.Import, ast.ImportFrom))]
  assert "tensorflow" not in " ".join(map(ast.unparse, top))


def test_flags_are_for_scripts_alone():
  readers = {
    name for name, path in MODULES.items()
    if "absl.flags" in imports_of(path) or any(
        isinstance(node, ast.ImportFrom) and node.module == "absl"
        and "flags" in [alias.name for alias in node.names]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))}
  assert readers == {"command_line"}


def test_finetuning_names_no_task():
  source = (PACKAGE / "finetuning.py").read_text(encoding="utf-8")
  tasks = [path.stem for path in (PACKAGE / "tasks").glob("[!_]*.py")]
  assert tasks
  assert not [task for task in tasks if task in source]


def test_scripts_are_short():
  scripts = [*REPOSITORY.glob("run_*.py"), *REPOSITORY.glob("tools/*.py")]
  programs = [
    path for path in scripts
    if "command_line.run(" in path.read_text(encoding="utf-8")]
  assert len(programs) >= 5
  for path in programs:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100, path


def test_files_have_a_readable_size():
  long = [name for name, path in MODULES.items()
          if len(path.read_text(encoding="utf-8").splitlines()) >= 500]
  assert not long


@pytest.mark.parametrize("name", [name for name in ORDER])
def test_examples_in_docstrings_hold(name):
  module = importlib.import_module(f"bert_tf.{name}")
  assert doctest.testmod(module).failed == 0


def test_the_package_itself_imports_nothing():
  assert imports_of(PACKAGE / "__init__.py") == ["importlib"]
