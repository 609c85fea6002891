"""The Beam pipeline on the DirectRunner: the bytes of the other program."""

import gzip

import pytest

pytest.importorskip("apache_beam", reason="pip install -r requirements-beam.txt")

from bert_tf.arguments import PretrainingDataConfig
from bert_tf.config import InputError
from bert_tf.data import beam_pipeline
from bert_tf.data import example_files
from test_example_files import many_documents
from test_example_files import write_vocabulary

pytestmark = pytest.mark.slow


@pytest.fixture
def make_config(tmp_path):
  write_vocabulary(tmp_path)
  documents = many_documents(4500).split("\n\n")
  (tmp_path / "in").mkdir()
  (tmp_path / "in" / "1.txt").write_text("\n\n".join(documents[:2000]))
  (tmp_path / "in" / "2.txt.gz").write_bytes(
      gzip.compress("\n\n".join(documents[2000:]).encode()))

  def make(folder, **changes):
    return PretrainingDataConfig(**{
      "input_file": (str(tmp_path / "in" / "*.txt*"),),
      "output_file": (str(tmp_path / folder / "a.tfrecord"),),
      "vocab_file": str(tmp_path / "vocab.txt"), "do_lower_case": True,
      "max_seq_length": 64, "max_predictions_per_seq": 10, "dupe_factor": 3,
      "num_workers": 1, **changes})

  return make


def files_of(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()
          if path.name != "stats.json"}


# Buckets: 4 of 1,125 documents; and 4 in 8 files.
@pytest.mark.parametrize("num_files", (4, 8))
def test_the_bytes_are_those_of_the_other_program(
    make_config, tmp_path, num_files):
  example_files.run(make_config("own", num_files=num_files))
  (tmp_path / "beam").mkdir()
  beam_pipeline.run(
      make_config("beam", num_files=num_files), ["--runner=DirectRunner"])
  expected = files_of(tmp_path / "own")
  assert len(expected) == num_files
  assert files_of(tmp_path / "beam") == expected


def test_what_beam_cannot_do_is_refused(make_config):
  for changes, words in (
      ({}, "--num_files: must be given"),
      ({"num_files": 2, "input_file": ("-",)}, "Beam reads files"),
      ({"num_files": 2, "input_file": ("/gone/*.txt",)}, "no such file")):
    with pytest.raises(InputError, match=words):
      beam_pipeline.run(make_config("beam", **changes), [])
