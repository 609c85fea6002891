"""The data tool: a corpus -> TFRecord files, over processes and restarts.

Two passes. The first reads the corpus once, and worker processes tokenize it
block by block into a `DocumentStore`. In the second one each file is a piece
of work of its own: a worker loads a bucket of the documents, makes all
examples of it and writes them, or its part of them. Whatever is done has its
final name and is never done again: a command that was killed goes on where it
was when it is given again. What a file holds depends on the settings and the
corpus alone.

This process itself stays small: the workers import TensorFlow.
"""

import collections
from collections.abc import Sequence
import dataclasses
import hashlib
import json
import logging
import math
import os
import time
from typing import Any

from bert_tf.arguments import PretrainingDataConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.data import corpus
from bert_tf.data import document_store
from bert_tf.data import workers
from bert_tf.data.work_folder import STATS_FILE
from bert_tf.data.work_folder import WorkFolder
from bert_tf.progress import Progress
from bert_tf.vocabulary_files import find_casing
from bert_tf.vocabulary_files import read_vocabulary

_LOGGER = logging.getLogger(__name__)

# What fits in memory: about 25 MB of English, 100 MB for a worker.
PIECES_PER_BUCKET = 6_000_000
# Settings that change nothing in the files. (What is in the vocabulary does.)
_NOT_IN_FILES = ("num_workers", "bucket", "vocab_file", "tfds_data_dir")


def file_names(output_file: Sequence[str], num_files: int) -> list[str]:
  """The files to write.

  >>> file_names(["a.tfrecord"], 2)
  ['a.tfrecord-00000-of-00002', 'a.tfrecord-00001-of-00002']
  """
  if len(output_file) == num_files:
    return list(output_file)
  return [f"{output_file[0]}-{number:05d}-of-{num_files:05d}"
          for number in range(num_files)]


def _settings(
    config: PretrainingDataConfig, names: Sequence[str]) -> dict[str, Any]:
  """All that decides what the files hold, but for the texts themselves."""
  settings = dataclasses.asdict(config)
  numbers = config.bucket_numbers
  if numbers:
    settings["num_files"] = numbers[1]
  for name in _NOT_IN_FILES:
    del settings[name]
  with open(config.vocab_file, "rb") as file:
    settings["vocabulary"] = hashlib.blake2b(
        file.read(), digest_size=8).hexdigest()
  return json.loads(json.dumps({**settings, "input_file": list(names)}))


def _check_outputs(config: PretrainingDataConfig, inputs: Sequence[str]):
  """Refuses what cannot be written, before hours of work and not after."""
  outputs = config.output_file
  require(
      len(outputs) > 0 and all(outputs),
      "--output_file: received nothing; name the TFRecord file to write.")
  require(
      len(set(map(os.path.realpath, outputs))) == len(outputs),
      f"--output_file: names a file twice: {', '.join(outputs)}.")
  for path in outputs:
    require(
        not os.path.isdir(path),
        f"--output_file: {path} is a folder; name a file in it.")
    require(
        os.path.realpath(path) not in map(os.path.realpath, inputs),
        f"--output_file: {path} is one of the input files too; writing it "
        "would destroy the text.")
    folder = os.path.dirname(path) or "."
    try:
      os.makedirs(folder, exist_ok=True)
    except OSError as error:
      raise InputError(
          f"--output_file: cannot make the folder {folder}: "
          f"{error.strerror}.") from None
    require(
        os.access(folder, os.W_OK),
        f"--output_file: no right to write in the folder {folder}.")


def run(config: PretrainingDataConfig) -> dict[str, Any] | None:
  """Makes the pretraining examples of a corpus, see `PretrainingDataConfig`.

  The recipe is that of the original (Devlin et al. 2019, sections 3.1 and
  A.2): `sentence_pairs.draw_pairs`, then `masking.mask_rows`. The same
  settings give the same bytes.

  Returns:
    What `stats.json` holds, which is written beside the first output file;
    None if `config.bucket` was made and other files are still to come.

  Raises:
    InputError: the input, the vocabulary or the output cannot be used, or the
      files that are there were made with other settings.
  """
  texts = corpus.open_corpus(config)
  entries = read_vocabulary(config.vocab_file)
  if config.do_lower_case is None:
    config = dataclasses.replace(
        config, do_lower_case=find_casing(config.vocab_file, entries))
  _check_outputs(config, texts.names)
  settings = _settings(config, texts.names)
  try:
    numbers = config.bucket_numbers
    with WorkFolder(
        config.output_file, settings,
        bucket=numbers and numbers[0]) as work:
      stats = work.finished_stats()
      if stats is not None:
        _LOGGER.info("All files are there already.")
        return stats
      job = _Job(config, texts, work)
      job.make_files()
      if not work.is_complete(job.outputs):
        return None
      stats = job.stats()
      work.finish(stats)
  except OSError as error:
    raise InputError(
        f"{error.filename or config.output_file[0]}: {error.strerror}. Check "
        "the rights and the room on the disk, and give the same command "
        "again: it goes on where it was.") from error
  _log_report(stats)
  return stats


class _Job:
  """One run of the tool in a work folder."""

  def __init__(
      self, config: PretrainingDataConfig, texts: corpus.Corpus,
      work: WorkFolder):
    self._start = time.monotonic()
    self._config, self._texts, self._work = config, texts, work
    self.outputs: list[str] = []

  def make_files(self) -> None:
    """Makes the files that are not there yet."""
    num_workers = self._config.num_workers or os.cpu_count()
    if self._config.bucket:
      with workers.Workers(self._config, 1) as pool:
        self._make_bucket(pool)
      return
    with workers.Workers(self._config, num_workers) as pool:
      if not self._work.read_counts():
        self._read(pool, most_waiting=2 * num_workers)
      self._write(pool)

  def _read(self, pool: workers.Workers, *, most_waiting: int) -> None:
    """The first pass: all blocks of the corpus into the store."""
    _LOGGER.info("Reading %s.", _summary(self._texts.names))
    fingerprint = _fingerprint(self._texts.names)
    counts = collections.Counter()
    progress = Progress("Reading", unit="documents")
    names, store = [], self._work.store
    try:
      for number, block in enumerate(document_store.blocks_of(
          self._texts.documents(counts))):
        name = store.name(number, document_store.digest_of(block))
        names.append(name)
        counts["read"] += len(block)
        if not store.has(name):
          pool.submit(workers.make_block, store.folder, name, block)
          pool.wait(most=most_waiting)
        progress.update(
            counts["read"], share=self._texts.share_done(counts))
    finally:
      pool.wait()
    store.keep_only(names)
    for of_block in store.counts():
      counts.update(of_block)
    self._check_read(counts)
    self._work.save_read_counts(counts, fingerprint)

  def _check_read(self, counts: collections.Counter) -> None:
    """Refuses a corpus that examples cannot be made of."""
    least = 2 if self._config.nsp else 1
    names = _summary(self._texts.names)
    problem = None
    if not counts["pieces"]:
      problem = f"{names}: no text was found."
    elif counts["documents"] < least:
      problem = (
        f"{names}: holds 1 document, and a random next sentence comes from "
        "another one: part the documents by blank lines, or give more files.")
    elif (self._config.num_files or len(self._config.output_file)) > (
        counts["documents"] * self._config.dupe_factor):
      problem = (
        f"--output_file, --num_files: there are more files than documents "
        f"({counts['documents']}) times --dupe_factor; name fewer files.")
    if problem:
      self._work.remove()
      raise InputError(problem)

  def _write(self, pool: workers.Workers) -> None:
    """The second pass: the files, each from its bucket."""
    counts = self._work.read_counts()
    self._work.check_fingerprint(_fingerprint(self._texts.names))
    num_files = self._config.num_files or len(self._config.output_file)
    num_documents = counts["documents"] + counts["empty_documents"]
    if num_files == 1 and not self._config.num_files:
      needed = math.ceil(counts["pieces"] / PIECES_PER_BUCKET)
      num_files = max(
          1, min(needed, num_documents // document_store.DOCUMENTS_PER_BUCKET))
    num_buckets = document_store.count_buckets(num_files, num_documents)
    if counts["pieces"] > 4 * PIECES_PER_BUCKET * num_buckets:
      _LOGGER.warning(
          "%s pieces are made into examples at a time, which takes about %.1f "
          "GB in each worker; with more files it is less.",
          f"{counts['pieces'] // num_buckets:,}",
          counts["pieces"] / num_buckets * 12e-9)
    self.outputs = file_names(self._config.output_file, num_files)
    missing = [number for number in range(num_files)
               if not self._work.is_done(self.outputs, number)]
    _LOGGER.info("Writing %d of %d files.", len(missing), num_files)
    for number in missing:
      pool.submit(
          workers.make_file, self._work.path, self.outputs[number], number,
          num_files, num_buckets)
    progress = Progress("Writing", unit="examples")
    pool.wait(report=lambda count, files: progress.update(
        count, share=files / len(missing)))

  def _make_bucket(self, pool: workers.Workers) -> None:
    """One file of many, straight from the texts."""
    number, num_files = self._config.bucket_numbers
    require(
        self._texts.is_repeatable, "--bucket: cannot be made from standard "
        "input, which each of the jobs would have to read; give files.")
    self.outputs = file_names(self._config.output_file, num_files)
    if self._work.is_done(self.outputs, number):
      return
    _LOGGER.info("Making %s.", self.outputs[number])
    pool.submit(
        workers.make_file_from_texts, self._work.path, self.outputs[number],
        number, num_files, self._texts)
    pool.wait()

  def stats(self) -> dict[str, Any]:
    """What `stats.json` holds; all shares are between 0 and 1."""
    counts, read_counts = collections.Counter(), self._work.read_counts()
    files = {}
    folder = os.path.dirname(self.outputs[0]) or "."
    for number, path in enumerate(self.outputs):
      of_file = self._work.file_counts(number)
      # A file that was made straight from the texts has counted its own.
      read_of_file = of_file.pop("read", {})
      if not read_counts:
        counts.update(read_of_file)
      files[os.path.relpath(path, folder)] = {
        "records": of_file["records"], "bytes": os.path.getsize(path)}
      counts.update(of_file)
    counts.update(read_counts)
    share = lambda part, whole: counts[part] / max(counts[whole], 1)
    kept = ("documents", "sentences", "pieces", "empty_documents",
            "empty_sentences", "files_without_text", "lines_with_bad_utf8",
            "instances", "records")
    return {
      **{name: counts[name] for name in kept},
      "unknown_share": share("unknown_pieces", "pieces"),
      "random_next_share": share("random_next", "instances"),
      # Of all pieces in the rows, [CLS] and [SEP] included.
      "masked_share": share("masked_pieces", "filled_places"),
      "padding_share": 1 - share("filled_places", "places"),
      "bytes": sum(entry["bytes"] for entry in files.values()),
      "seconds": round(time.monotonic() - self._start, 1),
      "files": files,
      "settings": self._work.settings,
    }


def _fingerprint(names: Sequence[str]) -> list[list[int]]:
  """Tells whether the input files are still those that were read."""
  found = [os.stat(name) for name in names if os.path.isfile(name)]
  return [[status.st_size, status.st_mtime_ns] for status in found]


def _summary(names: Sequence[str]) -> str:
  """The first names, and how many there are."""
  more = f" and {len(names) - 3:,} others" if len(names) > 3 else ""
  return ", ".join(names[:3]) + more


def _log_report(stats: dict[str, Any]) -> None:
  skipped = {
    name.replace("_", " "): stats[name] for name in (
      "empty_documents", "empty_sentences", "files_without_text",
      "lines_with_bad_utf8") if stats[name]}
  lines = [
    "read:     {documents:,} documents, {sentences:,} sentences, {pieces:,} "
    "pieces, {unknown_share:.2%} of them [UNK]",
    "written:  {instances:,} examples in {records:,} rows, {bytes:,} bytes in "
    "{num_files} files",
    "examples: random next {random_next_share:.1%}, masked "
    "{masked_share:.1%}, padding {padding_share:.1%}",
    "time:     {seconds:,.1f} s, {rate:,.0f} examples a second",
  ]
  rate = stats["instances"] / max(stats["seconds"], 0.1)
  for line in lines:
    _LOGGER.info(
        "%s", line.format(rate=rate, num_files=len(stats["files"]), **stats))
  for name, count in skipped.items():
    _LOGGER.warning("noticed:  %s: %s", name, f"{count:,}")
