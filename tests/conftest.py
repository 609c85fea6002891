"""What the tests share: where the real data lies, and how to do without."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import logging
import hypothesis
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
# Real data and golden results stand beside the project, outside of it.
SHARED = pathlib.Path(
    os.environ.get("BERT_TF_SHARED", REPOSITORY.parent / "shared"))

# No test is a matter of time: machines are busy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser):
  parser.addoption(
      "--requests", type=int, default=24,
      help="Random requests to each signature of each kind of export, in "
      "tests/test_serving.py.")


@pytest.fixture(scope="session")
def shared():
  """The folder of real data and golden results; skips where it is absent."""
  if not SHARED.is_dir():
    pytest.skip(f"needs the real data of {SHARED} (set BERT_TF_SHARED)")
  return SHARED


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory):
  """kind -> the folder of its export, made when it is first asked for."""
  import tiny_exports  # Here, since it imports TensorFlow.
  made = {}

  def export_of(kind):
    if kind not in made:
      made[kind] = tiny_exports.make_export(
          tmp_path_factory.mktemp(kind), kind)
    return made[kind]

  return export_of


@pytest.fixture(autouse=True)
def _messages_are_heard():
  """Parsed flags leave absl's level behind; a test's caplog needs INFO."""
  logging.set_verbosity(logging.INFO)
