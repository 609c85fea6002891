"""The data tool as a user starts it: from the command line."""

import gzip
import json
import pathlib
import subprocess
import sys

import pytest

from bert_tf.data import records

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

TEXT = """This is a sentence about cats.
Here is another one about dogs.
And a third one, about birds.

The second document speaks of rivers.
Rivers flow into the sea.
"""


def _run(folder, *flags):
  return subprocess.run(
      [sys.executable, REPOSITORY / "tools/create_pretraining_data.py",
       *flags], cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder(shared, tmp_path):
  vocabulary = shared / "data/vocabularies/bert-base-uncased-vocab.txt"
  (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
  return tmp_path


def test_the_command_line_of_the_original_gives_its_records(folder):
  (folder / "sample_text.txt").write_text(TEXT)
  result = _run(
      folder, "--input_file=./sample_text.txt",
      "--output_file=tf_examples.tfrecord", "--vocab_file=vocab.txt",
      "--do_lower_case=True", "--max_seq_length=128",
      "--max_predictions_per_seq=20", "--masked_lm_prob=0.15",
      "--random_seed=12345", "--dupe_factor=5", "--short_seq_prob=0.1",
      "--do_whole_word_mask=False")
  assert result.returncode == 0, result.stderr
  path = str(folder / "tf_examples.tfrecord")
  records.check_records(
      path, records.Layout(128, 20), vocab_size=30522)
  stats = json.loads((folder / "stats.json").read_text())
  assert stats["documents"] == 2 and stats["sentences"] == 5
  # Both documents are shorter than the target: a pass gives one pair of
  # each, and one more for each time that a rest was put back.
  count = records.count_records(path)
  assert stats["instances"] == count and 10 <= count <= 25
  assert f"written:  {count} examples" in result.stderr
  assert sorted(p.name for p in folder.iterdir()) == [
    "sample_text.txt", "stats.json", "tf_examples.tfrecord", "vocab.txt"]


def test_globs_gzip_and_several_files(folder):
  (folder / "a.txt").write_text(TEXT)
  (folder / "b.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
  result = _run(
      folder, "--input_file=a.tx?,*.txt.gz", "--vocab_file=vocab.txt",
      "--output_file=made/1.tfrecord,made/2.tfrecord",
      "--sentence_splitter=rules", "--max_seq_length=32",
      "--max_predictions_per_seq=5")
  assert result.returncode == 0, result.stderr
  stats = json.loads((folder / "made/stats.json").read_text())
  assert stats["documents"] == 4
  counts = [
    records.count_records(str(folder / "made" / f"{n}.tfrecord"))
    for n in (1, 2)]
  assert 0 <= counts[0] - counts[1] <= 1
  assert sum(counts) == stats["instances"]


def test_an_error_is_one_line_and_leaves_nothing(folder):
  (folder / "in.txt").write_bytes(TEXT.encode() + b"\nA b\xe4d line.\n")
  result = _run(
      folder, "--input_file=in.txt", "--vocab_file=vocab.txt",
      "--output_file=out.tfrecord")
  assert result.returncode == 1
  assert "Traceback" not in result.stderr
  last = result.stderr.strip().split("\n")[-1]
  assert last == (
    "create_pretraining_data.py: error: in.txt:8: byte 4 of the line is not "
    "UTF-8; mend the file, or pass --on_bad_utf8=replace.")
  assert sorted(p.name for p in folder.iterdir()) == ["in.txt", "vocab.txt"]
