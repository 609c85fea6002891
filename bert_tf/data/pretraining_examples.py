"""Text files -> pretraining examples: the data tool, as one call.

A corpus is held in memory as ids, two or four bytes a piece, and a pair of
segments as four numbers; texts, rows and masks exist for one block at a time.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import logging
import os
import time
from typing import Any

import numpy as np

from bert_tf.config import InputError
from bert_tf.config import PretrainingDataConfig
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.data import corpus
from bert_tf.data import masking
from bert_tf.data import records
from bert_tf.data import sentence_pairs
from bert_tf.tokenization import BertTokenizer

_LOGGER = logging.getLogger(__name__)

# One call of the tokenizer, and one of the masking: large enough for their
# fixed costs to vanish, small enough for the memory not to show.
_CHARACTERS_PER_CALL = 1 << 20
_ROWS_PER_BLOCK = 4096
_SECONDS_BETWEEN_LINES = 10.0


class _Progress:
  """Logs now and then how far a phase is, and how long it will still take."""

  def __init__(self, phase: str, *, total: int):
    self._phase = phase
    self._total = max(1, total)
    self._start = self._last = time.monotonic()

  def update(self, done: int, *, count: int, unit: str) -> None:
    """`done` of the total; `count` is what the rate is made from."""
    now = time.monotonic()
    if now - self._last < _SECONDS_BETWEEN_LINES:
      return
    self._last = now
    seconds = now - self._start
    share = min(1.0, done / self._total)
    left = seconds / share - seconds if share else float("inf")
    _LOGGER.info(
        "%s: %.0f %%, %s %s, %s a second, %.0f s left", self._phase,
        100 * share, f"{count:,}", unit, f"{count / seconds:,.0f}", left)


def _batches(
    documents: Iterable[Sequence[str]]
) -> Iterator[tuple[list[str], list[int]]]:
  """Sentences for one call of the tokenizer, and their documents' numbers."""
  sentences, numbers, size = [], [], 0
  for number, document in enumerate(documents):
    for sentence in document:
      sentences.append(sentence)
      numbers.append(number)
      size += len(sentence)
      if size >= _CHARACTERS_PER_CALL:
        yield sentences, numbers
        sentences, numbers, size = [], [], 0
  if sentences:
    yield sentences, numbers


def tokenize_documents(
    paths: Sequence[str],
    *,
    tokenizer: BertTokenizer,
    sentence_splitter: str = "none",
    on_bad_utf8: str = "error",
    counts: collections.Counter | None = None,
) -> sentence_pairs.Documents:
  """Reads and tokenizes text files.

  Sentences and documents of which the tokenizer leaves nothing are skipped.

  Args:
    paths: text files, see `corpus.read_lines`.
    tokenizer: turns sentences into ids.
    sentence_splitter: see `corpus.read_documents`.
    on_bad_utf8: see `corpus.read_lines`.
    counts: is given what was read and skipped, under the names that
      `stats.json` has for it.

  Raises:
    InputError: a file cannot be read or is not UTF-8, or no text was found.
  """
  counts = collections.Counter() if counts is None else counts
  progress = _Progress(
      "Reading", total=sum(os.path.getsize(path) for path in paths))
  id_type = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
  pieces, lengths, numbers = [], [], []
  documents = corpus.read_documents(
      paths, sentence_splitter=sentence_splitter, on_bad_utf8=on_bad_utf8,
      counts=counts)
  for sentences, document_numbers in _batches(documents):
    ragged = tokenizer.tokenize(sentences)
    ids = ragged.flat_values.numpy()
    pieces.append(ids.astype(id_type))
    lengths.append(ragged.row_lengths().numpy())
    numbers.append(document_numbers)
    counts["sentences"] += len(sentences)
    counts["pieces"] += ids.size
    counts["unknown_pieces"] += int(np.sum(ids == tokenizer.unk_id))
    progress.update(
        counts["bytes_read"], count=counts["pieces"], unit="pieces")
  require(
      counts["pieces"] > 0, f"{', '.join(paths[:3])}: no text was found.")
  lengths = np.concatenate(lengths)
  sizes = np.bincount(np.concatenate(numbers), weights=lengths > 0)
  counts["empty_sentences"] = int(np.sum(lengths == 0))
  counts["empty_documents"] = int(np.sum(sizes == 0))
  counts["sentences"] -= counts["empty_sentences"]
  counts["documents"] = int(np.sum(sizes > 0))
  return sentence_pairs.Documents(
      pieces=np.concatenate(pieces),
      sentence_starts=sentence_pairs.starts_of(lengths[lengths > 0]),
      document_starts=sentence_pairs.starts_of(sizes[sizes > 0]))


def make_batches(
    documents: sentence_pairs.Documents,
    pairs: sentence_pairs.Pairs,
    *,
    config: PretrainingDataConfig,
    tokenizer: BertTokenizer,
    generator: np.random.Generator,
) -> Iterator[dict[str, np.ndarray]]:
  """The examples of these pairs in their order, block by block.

  Yields:
    The arrays of `records.FEATURES`, up to some thousand rows at a time.
  """
  special_ids = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id)
  is_continuation = (
    masking.continuation_table(tokenizer.vocabulary)
    if config.do_whole_word_mask else None)
  for start in range(0, len(pairs.a_start), _ROWS_PER_BLOCK):
    block = pairs[start:start + _ROWS_PER_BLOCK]
    rows = sentence_pairs.join_pairs(
        documents, block, max_seq_length=config.max_seq_length,
        cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id,
        pad_id=tokenizer.pad_id)
    masked = masking.mask_rows(
        rows["input_ids"], rows["input_mask"], special_ids=special_ids,
        mask_id=tokenizer.mask_id, vocab_size=tokenizer.vocab_size,
        masked_lm_prob=config.masked_lm_prob,
        max_predictions_per_seq=config.max_predictions_per_seq,
        is_continuation=is_continuation, generator=generator)
    labels = block.is_random_next.astype(np.int32)
    yield {**rows, **masked, "next_sentence_labels": labels}


def _check_outputs(outputs: Sequence[str], inputs: Sequence[str]) -> None:
  """Refuses what cannot be written, before hours of work and not after."""
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


def _counted(
    batches: Iterable[dict[str, np.ndarray]], counts: collections.Counter,
    progress: _Progress
) -> Iterator[dict[str, np.ndarray]]:
  """Passes the batches on and counts what the report tells of them."""
  for batch in batches:
    yield batch
    counts["instances"] += len(batch["input_ids"])
    counts["places"] += batch["input_ids"].size
    counts["filled_places"] += int(batch["input_mask"].sum())
    counts["masked_pieces"] += int(batch["masked_lm_weights"].sum())
    counts["random_next"] += int(batch["next_sentence_labels"].sum())
    progress.update(
        counts["instances"], count=counts["instances"], unit="examples")


def _write_files(
    documents: sentence_pairs.Documents, *, config: PretrainingDataConfig,
    tokenizer: BertTokenizer, counts: collections.Counter, start: float
) -> dict[str, Any]:
  """Draws the examples, writes the files and `stats.json`; the stats."""
  outputs = config.output_file
  # A stream of random numbers for each purpose and file: what one of them
  # uses does not move the others.
  pair_seed, order_seed, *mask_seeds = np.random.SeedSequence(
      config.random_seed).spawn(2 + len(outputs))
  pairs = sentence_pairs.draw_pairs(
      documents, max_seq_length=config.max_seq_length,
      short_seq_prob=config.short_seq_prob, passes=config.dupe_factor,
      generator=np.random.default_rng(pair_seed))
  num_pairs = len(pairs.a_start)
  require(
      num_pairs >= len(outputs),
      f"--output_file: received {len(outputs)} files for {num_pairs} "
      "examples; name fewer files.")
  # All instances of all passes together. This is the only shuffle that is
  # needed: the order of the documents leaves no trace in it.
  pairs = pairs[np.random.default_rng(order_seed).permutation(num_pairs)]
  progress = _Progress("Writing", total=num_pairs)
  folder = os.path.dirname(outputs[0])
  stats_path = os.path.join(folder, records.STATS_FILE)
  files = {}
  with records.replacing([*outputs, stats_path]) as temporary_paths:
    for index, path in enumerate(outputs):
      batches = make_batches(
          documents, pairs[index::len(outputs)], config=config,
          tokenizer=tokenizer,
          generator=np.random.default_rng(mask_seeds[index]))
      count = records.write_records(
          temporary_paths[index], _counted(batches, counts, progress))
      files[os.path.relpath(path, folder or ".")] = {
        "records": count, "bytes": os.path.getsize(temporary_paths[index])}
    stats = _stats(
        counts, files=files, config=config,
        seconds=time.monotonic() - start)
    write_json(temporary_paths[-1], stats)
  return stats


def _stats(
    counts: collections.Counter, *, files: dict[str, dict[str, int]],
    config: PretrainingDataConfig, seconds: float
) -> dict[str, Any]:
  """What `stats.json` holds; all shares are between 0 and 1."""
  kept = ("documents", "sentences", "pieces", "empty_documents",
          "empty_sentences", "files_without_text", "lines_with_bad_utf8",
          "instances")
  return {
    **{name: counts[name] for name in kept},
    "unknown_share": counts["unknown_pieces"] / counts["pieces"],
    "random_next_share": counts["random_next"] / counts["instances"],
    # Of all pieces in the rows, [CLS] and [SEP] included.
    "masked_share": counts["masked_pieces"] / counts["filled_places"],
    "padding_share": 1 - counts["filled_places"] / counts["places"],
    "bytes": sum(entry["bytes"] for entry in files.values()),
    "seconds": round(seconds, 1),
    "files": files,
    "settings": dataclasses.asdict(config),
  }


def _log_report(stats: dict[str, Any]) -> None:
  skipped = {
    name.replace("_", " "): stats[name] for name in (
      "empty_documents", "empty_sentences", "files_without_text",
      "lines_with_bad_utf8") if stats[name]}
  lines = [
    "read:     {documents:,} documents, {sentences:,} sentences, {pieces:,} "
    "pieces, {unknown_share:.2%} of them [UNK]",
    "written:  {instances:,} examples, {bytes:,} bytes",
    "examples: random next {random_next_share:.1%}, masked "
    "{masked_share:.1%}, padding {padding_share:.1%}",
    "time:     {seconds:,.1f} s, {rate:,.0f} examples a second",
  ]
  rate = stats["instances"] / max(stats["seconds"], 0.1)
  for line in lines:
    _LOGGER.info("%s", line.format(rate=rate, **stats))
  for name, count in skipped.items():
    _LOGGER.warning("noticed:  %s: %s", name, f"{count:,}")
  for path, entry in stats["files"].items():
    _LOGGER.info("file:     %s: %s records", path, f"{entry['records']:,}")


def run(config: PretrainingDataConfig) -> dict[str, Any]:
  """Makes the pretraining examples of a corpus, see `PretrainingDataConfig`.

  The recipe is that of the original (Devlin et al. 2019, sections 3.1 and
  A.2): `sentence_pairs.draw_pairs`, then `masking.mask_rows`; all examples
  of all passes shuffled together and dealt to the files in turn. The same
  settings give the same bytes.

  Returns:
    What `stats.json` holds, which is written beside the first output file.

  Raises:
    InputError: the input, the vocabulary or the output cannot be used. No
      output file is touched then.
  """
  start = time.monotonic()
  paths = corpus.expand_files(config.input_file)
  tokenizer = BertTokenizer.from_file(
      config.vocab_file, do_lower_case=config.do_lower_case)
  _check_outputs(config.output_file, paths)
  counts = collections.Counter()
  _LOGGER.info("Reading %d files.", len(paths))
  documents = tokenize_documents(
      paths, tokenizer=tokenizer, sentence_splitter=config.sentence_splitter,
      on_bad_utf8=config.on_bad_utf8, counts=counts)
  stats = _write_files(
      documents, config=config, tokenizer=tokenizer, counts=counts,
      start=start)
  _log_report(stats)
  return stats
