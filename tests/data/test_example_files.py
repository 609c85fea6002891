"""The data tool as a whole: the same bytes, restarts, clusters, bad input."""

import dataclasses
import fcntl
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.arguments import PretrainingDataConfig
from bert_tf.config import InputError
from bert_tf.data import document_store
from bert_tf.data import example_files
from bert_tf.data import records

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
S, P = 64, 10
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT = "ab cd.\nef gh ij.\nkl mn.\n\nop qr.\nst uv wx.\nyz ab.\n"


def write_vocabulary(folder):
  vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *LETTERS]
  vocabulary += [f"##{letter}" for letter in LETTERS]
  (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")


@pytest.fixture
def make_config(tmp_path):
  """A config for files in `tmp_path`: `make_config(text, **changes)`."""
  write_vocabulary(tmp_path)

  def make(text=TEXT, **changes):
    if text is not None:
      content = text if isinstance(text, bytes) else text.encode()
      (tmp_path / "in.txt").write_bytes(content)
    return PretrainingDataConfig(**{
      "input_file": (str(tmp_path / "in.txt"),),
      "output_file": (str(tmp_path / "out" / "a.tfrecord"),),
      "vocab_file": str(tmp_path / "vocab.txt"), "do_lower_case": True,
      "max_seq_length": S, "max_predictions_per_seq": P, "dupe_factor": 5,
      "num_workers": 1, **changes})

  return make


def outputs(config):
  """{name: bytes} of all record files beside the first."""
  folder = pathlib.Path(config.output_file[0]).parent
  return {path.name: path.read_bytes() for path in folder.iterdir()
          if path.is_file() and path.name != "stats.json"}


def made(config):
  example_files.run(config)
  return outputs(config)


def many_documents(count=2500, seed=1):
  """Short ones, of words that say where they are from."""
  rng = random.Random(seed)
  word = lambda: "".join(rng.choices(LETTERS, k=rng.randint(1, 3)))
  return "\n\n".join(
      "\n".join(" ".join(word() for _ in range(rng.randint(1, 9))) + "."
                for _ in range(rng.randint(1, 4))) for _ in range(count))


def read(path, layout):
  serialized = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
  return {name: tensor.numpy() for name, tensor in records.parse(
      tf.constant(serialized), layout).items()}


# What is in the files.


def test_the_settings_reach_the_recipe(make_config, tmp_path):
  text = "\n\n".join("ab cd.\n" * 300 for _ in range(2))
  numbers = iter(range(100))

  def stats(**changes):
    output = str(tmp_path / f"out{next(numbers)}" / "a.tfrecord")
    return example_files.run(
        make_config(text, output_file=(output,), **changes))

  # Sentences of five pieces fill rows of 64 but for the end of a document.
  plain = stats(short_seq_prob=0.0)
  assert plain["padding_share"] < 0.1
  assert stats(short_seq_prob=1.0)["padding_share"] > 0.3
  assert 0.135 < plain["masked_share"] < 0.165
  few = stats(short_seq_prob=0.0, masked_lm_prob=0.05)
  assert 0.04 < few["masked_share"] < 0.06
  twice = stats(short_seq_prob=0.0, dupe_factor=10)
  assert twice["instances"] == pytest.approx(2 * plain["instances"], rel=0.1)


def test_the_same_seed_gives_the_same_bytes(make_config, tmp_path):
  first = made(make_config())
  again, other = (
    made(make_config(output_file=(str(tmp_path / name / "a.tfrecord"),),
                     random_seed=seed))
    for name, seed in (("again", 12345), ("other", 1)))
  assert list(first) == ["a.tfrecord"]
  assert first == again != other


@pytest.mark.parametrize("changes", [
  {"num_files": 4}, {"output_file": ("a", "b", "c")},
  {"num_files": 2, "nsp": False, "pack_sequences": True}])
def test_neither_workers_nor_blocks_change_the_bytes(
    make_config, tmp_path, monkeypatch, changes):
  text = many_documents()
  found = []
  for number, (num_workers, characters) in enumerate(
      ((1, 1 << 23), (3, 1 << 23), (2, 4000))):
    monkeypatch.setattr(
        document_store, "CHARACTERS_PER_BLOCK", characters)
    folder = tmp_path / str(number)
    names = changes.get("output_file", ("a.tfrecord",))
    found.append(made(make_config(text, **{
      **changes, "num_workers": num_workers,
      "output_file": tuple(str(folder / name) for name in names)})))
    assert len(found[0]) == changes.get("num_files", 3)
  assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.parametrize("count, num_files, num_buckets", [
  (4200, 4, 4), (2500, 4, 2), (60, 3, 1)])
def test_one_file_of_many_is_the_one_that_all_together_give(
    make_config, tmp_path, count, num_files, num_buckets):
  assert document_store.count_buckets(num_files, count) == num_buckets
  text = many_documents(count)
  together = made(make_config(text, num_files=num_files))
  output = (str(tmp_path / "apart" / "a.tfrecord"),)
  stats = []
  for number in reversed(range(num_files)):
    config = make_config(
        None, output_file=output, bucket=f"{number}/{num_files}")
    stats.append(example_files.run(config))
    assert os.path.exists(
        f"{output[0]}-{number:05d}-of-{num_files:05d}")
  assert outputs(config) == together
  # The last one sees that all are there.
  assert stats[:-1] == [None] * (num_files - 1)
  whole = json.loads((tmp_path / "out" / "stats.json").read_text())
  apart = json.loads((tmp_path / "apart" / "stats.json").read_text())
  assert {**apart, "seconds": 0, "settings": 0} == {
    **whole, "seconds": 0, "settings": 0}
  assert whole["documents"] == count
  assert not (tmp_path / "apart" / "a.tfrecord.work").exists()


def test_a_bucket_has_documents_of_its_own(make_config, tmp_path):
  # Each document is of one letter pair: 26 x 26 x 4 of them, in two buckets.
  text = "\n\n".join(
      f"{a}{b} {a}{b}.\n{a}{b}." for a in LETTERS for b in LETTERS
      for _ in range(4))
  config = make_config(text, num_files=2, masking="none")
  stats = example_files.run(config)
  assert stats["documents"] == 2704
  homes = []
  for name in stats["files"]:
    rows = read(str(tmp_path / "out" / name), records.Layout(S))
    ids = rows["input_ids"]
    # The first segment's first word, and the second's.
    second = np.take_along_axis(
        ids, rows["segment_ids"].argmax(axis=1)[:, None], 1)[:, 0]
    homes.append(set(second.tolist()) | set(ids[:, 1].tolist()))
    # B comes from all letters alike, not from a few documents.
    counts = np.bincount(second, minlength=32)[6:32]
    assert counts.min() > 0.4 * counts.mean()
  assert all(len(letters) == 26 for letters in homes)


def test_a_large_corpus_becomes_several_files(make_config, monkeypatch):
  monkeypatch.setattr(example_files, "PIECES_PER_BUCKET", 20_000)
  config = make_config(many_documents(3100))
  stats = example_files.run(config)
  assert stats["pieces"] > 60_000
  # Not more than thousands of documents, however small a bucket may be.
  assert list(stats["files"]) == [
    f"a.tfrecord-{number:05d}-of-00003" for number in range(3)]
  counts = [entry["records"] for entry in stats["files"].values()]
  assert sum(counts) == stats["records"]
  assert max(counts) < 1.2 * min(counts)


def test_each_input_is_read(make_config, tmp_path):
  """Formats are tested with the reader; here, that they reach the files."""
  text = make_config()
  from_text = made(text)
  (tmp_path / "in.jsonl").write_text("".join(
      json.dumps({"body": document}) + "\n"
      for document in TEXT.split("\n\n")))
  config = make_config(
      output_file=(str(tmp_path / "jsonl" / "a.tfrecord"),),
      input_file=(str(tmp_path / "in.jsonl"),), text_field="body")
  assert made(config) == from_text


def test_standard_input_is_read(make_config, tmp_path):
  config = make_config()
  expected = made(config)
  folder = tmp_path / "stdin"
  result = subprocess.run(
      [sys.executable, REPOSITORY / "tools/create_pretraining_data.py",
       "--input_file=-", f"--output_file={folder}/a.tfrecord",
       f"--vocab_file={config.vocab_file}", "--do_lower_case",
       f"--max_seq_length={S}", f"--max_predictions_per_seq={P}",
       "--dupe_factor=5", "--num_workers=1"],
      input=TEXT, capture_output=True, text=True, timeout=300)
  assert result.returncode == 0, result.stderr
  assert (folder / "a.tfrecord").read_bytes() == expected["a.tfrecord"]


def test_what_is_empty_is_skipped_and_counted(make_config):
  text = "\n\nab.\n\u200b\ncd.\n \n\n\u200b\n\nef ?.\n\n\n"
  stats = example_files.run(make_config(text))
  # U+200B alone is a sentence of no piece: once in a document, once alone.
  got = {name: stats[name] for name in (
    "documents", "sentences", "pieces", "empty_sentences",
    "empty_documents", "unknown_share")}
  assert got == {
    "documents": 2, "sentences": 3, "pieces": 10, "empty_sentences": 2,
    "empty_documents": 1, "unknown_share": 0.1}


def test_the_stats_of_packed_rows(make_config, tmp_path):
  text = many_documents(300)
  stats = example_files.run(make_config(text, pack_sequences=True))
  layout = records.read_layout(str(tmp_path / "out" / "a.tfrecord"))
  assert layout == records.Layout(S, P, 8)
  rows = read(str(tmp_path / "out" / "a.tfrecord"), layout)
  assert stats["records"] == len(rows["input_ids"])
  assert stats["instances"] == rows["next_sentence_weights"].sum()
  assert stats["instances"] > 1.5 * stats["records"]
  assert stats["padding_share"] == pytest.approx(
      1 - rows["input_mask"].mean())
  assert stats["random_next_share"] == pytest.approx(
      rows["next_sentence_labels"].sum() / stats["instances"])


def test_the_main_process_does_not_import_tensorflow(make_config):
  # Its work done, too: the workers are processes of their own.
  code = (
    "import json, sys\n"
    "from bert_tf.arguments import PretrainingDataConfig\n"
    "from bert_tf.data import example_files\n"
    "stats = example_files.run(PretrainingDataConfig(**json.load(sys.stdin)))\n"
    "print(stats['documents'], *{'tensorflow', 'keras'} & sys.modules.keys())")
  found = subprocess.run(
      [sys.executable, "-c", code], cwd=REPOSITORY, check=True, text=True,
      input=json.dumps(dataclasses.asdict(make_config())),
      stdout=subprocess.PIPE)
  assert found.stdout.split() == ["2"]


# Going on, and refusing to.


def test_a_finished_set_is_left_alone_and_defended(make_config, tmp_path):
  config = make_config()
  stats = example_files.run(config)
  path = tmp_path / "out" / "a.tfrecord"
  before = path.stat().st_mtime_ns
  assert example_files.run(config) == json.loads(json.dumps(stats))
  assert path.stat().st_mtime_ns == before
  with pytest.raises(InputError, match=(
      "--dupe_factor was 5 and is 6; --masked_lm_prob was 0.15 and is 0.2")):
    example_files.run(make_config(dupe_factor=6, masked_lm_prob=0.2))
  (tmp_path / "out" / "stats.json").unlink()
  with pytest.raises(InputError, match="is there already"):
    example_files.run(config)
  assert path.stat().st_mtime_ns == before
  path.unlink()
  assert example_files.run(config)["instances"] == stats["instances"]


def test_two_sets_in_one_folder_keep_their_counts(make_config, tmp_path):
  first = example_files.run(make_config())
  second = example_files.run(make_config(
      output_file=(str(tmp_path / "out" / "b.tfrecord"),)))
  assert second["files"].keys() == {"a.tfrecord", "b.tfrecord"}
  assert second["files"]["a.tfrecord"] == first["files"]["a.tfrecord"]


class Stop(Exception):
  pass


def stopped_after(config, monkeypatch, method):
  """A run that ends, badly, right after something was done."""
  done = getattr(example_files.WorkFolder, method)

  def stop(self, *arguments):
    done(self, *arguments)
    raise Stop

  with monkeypatch.context() as patch:
    patch.setattr(example_files.WorkFolder, method, stop)
    with pytest.raises(Stop):
      example_files.run(config)


def test_a_stopped_run_goes_on_where_it_was(
    make_config, tmp_path, monkeypatch):
  text = many_documents(2100)
  expected = made(make_config(
      text, num_files=2, output_file=(str(tmp_path / "all" / "a.tfrecord"),)))
  config = make_config(text, num_files=2)
  work = tmp_path / "out" / "a.tfrecord.work"
  monkeypatch.setattr(document_store, "CHARACTERS_PER_BLOCK", 4000)
  stopped_after(config, monkeypatch, "save_read_counts")
  assert outputs(config) == {}
  blocks = {path.name: path.stat().st_mtime_ns
            for path in (work / "blocks").iterdir()}
  assert len(blocks) > 5
  # As if it had been killed while it read, with a block and a file begun.
  (work / "read.json").unlink()
  lost = min(blocks)
  for path in (work / "blocks" / lost).iterdir():
    path.unlink()
  (work / "blocks" / lost).rmdir()
  (work / "blocks" / f"{lost}.99.tmp").mkdir()
  (work / "settings.json.tmp-99").touch()
  (tmp_path / "out" / "a.tfrecord-00001-of-00002.tmp-99").touch()
  stopped_after(config, monkeypatch, "save_read_counts")
  now = {path.name: path.stat().st_mtime_ns
         for path in (work / "blocks").iterdir()}
  assert now.keys() == blocks.keys()
  assert [name for name in now if now[name] != blocks[name]] == [lost]
  # And now the files.
  assert made(config) == expected
  assert not work.exists()


def test_a_file_that_is_there_is_not_made_again(
    make_config, tmp_path, monkeypatch):
  config = make_config(many_documents(2100), num_files=2)
  monkeypatch.setattr(example_files.WorkFolder, "remove", lambda self: None)
  expected = made(config)
  first, second = (tmp_path / "out" / name for name in sorted(expected))
  (tmp_path / "out" / "stats.json").unlink()
  before = first.stat().st_mtime_ns
  second.write_bytes(b"other")  # of another size than was noted
  assert made(config) == expected
  assert first.stat().st_mtime_ns == before


def test_other_settings_are_refused_while_work_is_begun(
    make_config, tmp_path, monkeypatch):
  config = make_config()
  stopped_after(config, monkeypatch, "save_read_counts")
  for changes, words in (
      ({"max_seq_length": 32}, "--max_seq_length was 64 and is 32"),
      ({"nsp": False}, "--nsp was True and is False")):
    with pytest.raises(InputError, match=words):
      example_files.run(make_config(**changes))
  vocabulary = (tmp_path / "vocab.txt").read_text()
  (tmp_path / "vocab.txt").write_text(vocabulary + "more\n")
  with pytest.raises(InputError, match="the content of --vocab_file was"):
    example_files.run(config)
  (tmp_path / "vocab.txt").write_text(vocabulary)
  (tmp_path / "in.txt").write_text("Other text.\n\nAnd more.\n")
  with pytest.raises(InputError, match="input files have changed"):
    example_files.run(config)


def test_a_second_run_at_the_same_time_is_refused(
    make_config, tmp_path, monkeypatch):
  config = make_config()
  stopped_after(config, monkeypatch, "save_read_counts")
  with open(tmp_path / "out" / "a.tfrecord.work" / "lock", "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another run is at work"):
      example_files.run(config)
  assert made(config).keys() == {"a.tfrecord"}


def run_until_killed(command, seconds):
  """Whether it ended by itself before; all its processes are gone then."""
  process = subprocess.Popen(
      command, stderr=subprocess.PIPE, text=True, start_new_session=True)
  try:
    _, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return True
  except subprocess.TimeoutExpired:
    process.kill()
    process.communicate()
    return False


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(make_config, tmp_path):
  """SIGKILL for the main process alone: its workers end by themselves."""
  text = many_documents(30_000)
  config = make_config(text, num_files=3)
  command = lambda folder: [
    sys.executable, str(REPOSITORY / "tools/create_pretraining_data.py"),
    f"--input_file={config.input_file[0]}", f"--vocab_file={config.vocab_file}",
    f"--output_file={tmp_path / folder}/a.tfrecord", "--do_lower_case",
    "--num_files=3", f"--max_seq_length={S}", f"--max_predictions_per_seq={P}",
    "--dupe_factor=20", "--num_workers=2"]
  start = time.monotonic()
  assert run_until_killed(command("whole"), 600)
  seconds = time.monotonic() - start
  rng = random.Random(1)
  kills = 0
  while kills < 3:
    # Later and later, or a kill at the end would leave nothing to kill.
    share = (kills + rng.random()) / 3
    if run_until_killed(command("killed"), 1 + share * seconds * 0.9):
      break
    kills += 1
    for path in (tmp_path / "killed").glob("a.tfrecord*"):
      if ".tmp-" not in path.name and path.is_file():
        assert records.count_records(str(path)) > 0  # whole
  assert kills
  assert run_until_killed(command("killed"), 600)
  files = lambda folder: {
    path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()
    if path.name != "stats.json"}
  assert files("killed") == files("whole")


# Bad input.


@pytest.mark.parametrize("text, changes, words", [
  (TEXT, {"input_file": ("/gone/a.txt",)}, "/gone/a.txt: no such file"),
  (TEXT, {"input_file": ("/gone/*.txt",)}, "/gone/*.txt: no such file"),
  ("ab cd.\nef gh.\n", {}, "1 document"),
  ("\n\n", {}, "no text"),
  (b"ab.\n\ncd \xe4f.\n", {}, "in.txt:3: byte 4"),
  (TEXT, {"vocab_file": "/gone/vocab.txt"}, "/gone/vocab.txt"),
  (TEXT, {"output_file": ("",)}, "--output_file: received nothing"),
])
def test_bad_input_is_refused_and_nothing_is_written(
    make_config, tmp_path, text, changes, words):
  config = make_config(text, **changes)
  with pytest.raises(InputError) as error:
    example_files.run(config)
  assert words in str(error.value)
  written = [path for path in tmp_path.rglob("*") if path.is_file()]
  assert {path.name for path in written} == {"in.txt", "vocab.txt"}


def test_a_file_cut_short_loses_nothing_that_was_read(
    make_config, tmp_path, monkeypatch):
  monkeypatch.setattr(document_store, "CHARACTERS_PER_BLOCK", 4000)
  bad = many_documents(300).encode() + b"\n\nbad \xff.\n"
  config = make_config(bad)
  with pytest.raises(InputError, match="is not UTF-8"):
    example_files.run(config)
  blocks = tmp_path / "out" / "a.tfrecord.work" / "blocks"
  assert len(list(blocks.iterdir())) >= 2
  expected = made(make_config(
      bad.replace(b"\xff", b"z"),
      output_file=(str(tmp_path / "other" / "a.tfrecord"),)))
  assert made(config) == expected


def test_a_vocabulary_without_mask_is_refused(make_config, tmp_path):
  config = make_config()
  vocabulary = (tmp_path / "vocab.txt").read_text()
  (tmp_path / "vocab.txt").write_text(vocabulary.replace("[MASK]\n", ""))
  with pytest.raises(InputError, match=r"\[MASK\]"):
    example_files.run(config)


def test_bad_utf8_is_replaced_on_request(make_config):
  config = make_config(b"ab.\n\ncd \xe4f.\n", on_bad_utf8="replace")
  stats = example_files.run(config)
  assert stats["lines_with_bad_utf8"] == 1
  assert stats["pieces"] == 7  # U+FFFD is dropped: a ##b . c ##d f .


def test_outputs_that_cannot_be_are_refused_at_once(make_config, tmp_path):
  twice = str(tmp_path / "a"), str(tmp_path / "." / "a")
  for names, words in (
      (twice, "names a file twice"),
      ((str(tmp_path),), "is a folder"),
      ((str(tmp_path / "in.txt"),), "one of the input files"),
      ((str(tmp_path / "in.txt" / "a"),), "cannot make the folder"),
      (tuple(str(tmp_path / f"{n}") for n in range(99)), "name fewer files")):
    with pytest.raises(InputError, match=words):
      example_files.run(make_config(output_file=names))


@pytest.mark.parametrize("changes, words", [
  ({"bucket": "3"}, "--bucket: received '3'; must be i/n"),
  ({"bucket": "4/4"}, "with i from 0 to n - 1"),
  ({"bucket": "1/2", "num_files": 2}, "give one of the two"),
  ({"num_files": 2, "output_file": ("a", "b")}, "received 2 names"),
  ({"mask_share": 0.9, "same_share": 0.2}, "together they are at most 1"),
  ({"max_predictions_per_seq": 62}, "holds at most 61 pieces"),
])
def test_settings_that_do_not_fit_are_refused(make_config, changes, words):
  with pytest.raises(InputError, match=words):
    make_config(**changes)


def test_a_bucket_of_standard_input_is_refused(make_config, tmp_path):
  with pytest.raises(InputError, match="cannot be made from standard input"):
    example_files.run(make_config(input_file=("-",), bucket="0/2"))


def test_a_full_disk_is_said_and_the_rest_is_kept(make_config, tmp_path):
  small = tmp_path / "small"
  small.mkdir()
  mount = subprocess.run(
      ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)],
      capture_output=True, text=True)
  if mount.returncode:
    pytest.skip(f"needs the right to mount: {mount.stderr}")
  try:
    text = many_documents(2100)
    expected = made(make_config(text, num_files=2, dupe_factor=10))
    config = make_config(text, num_files=2, dupe_factor=10, output_file=(
      str(small / "out" / "a.tfrecord"),))
    with pytest.raises(InputError, match="room"):
      example_files.run(config)
    assert not [name for name in outputs(config) if ".tmp" in name]
    for name, content in outputs(config).items():
      assert content == expected[name]
    assert (small / "out" / "a.tfrecord.work" / "read.json").exists()
    subprocess.run(
        ["mount", "-o", "remount,size=100m", str(small)], check=True)
    assert made(config) == expected
  finally:
    subprocess.run(["umount", str(small)], check=True)
