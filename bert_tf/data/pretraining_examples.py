"""Tokenized documents -> pretraining examples: one bucket, one file.

A bucket is a part of the corpus that fits in memory: its documents are cut
into examples in several passes, all of them are shuffled together, masked and
written. Documents are two or four bytes a piece and examples a few numbers
each; texts, rows and masks exist for one block at a time.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bert_tf.arguments import PretrainingDataConfig
from bert_tf.data import document_store
from bert_tf.data import full_sentences
from bert_tf.data import masking
from bert_tf.data import records
from bert_tf.data import row_packing
from bert_tf.data import sentence_pairs
from bert_tf.data.corpus import Document
from bert_tf.data.document_store import TokenizedBlock
from bert_tf.data.sentence_pairs import Documents
from bert_tf.data.sentences import to_sentences
from bert_tf.tokenization import BertTokenizer

# One call of the tokenizer, and of the masking: large enough for their fixed
# costs to vanish, small enough for the memory not to show.
_CHARACTERS_PER_CALL = 1 << 18
_PLACES_PER_CALL = 1 << 19
# How many rows' worth of examples are packed together.
_CALLS_PER_PACKING = 8


def tokenize_block(
    block: Sequence[Document],
    *,
    tokenizer: BertTokenizer,
    sentence_splitter: str,
    seed: int,
) -> TokenizedBlock:
  """Finds the sentences of documents, and their pieces.

  Sentences and documents of which the tokenizer leaves nothing are skipped
  and counted.
  """
  sentences = [to_sentences(document.lines, sentence_splitter)
               for document in block]
  counts_of_sentences = np.array([len(each) for each in sentences], np.int64)
  pieces, lengths = _tokenize(
      [sentence for each in sentences for sentence in each], tokenizer)
  home = np.repeat(np.arange(len(block)), counts_of_sentences)
  sizes = np.bincount(home[lengths > 0], minlength=len(block))
  kept = np.flatnonzero(sizes)
  hashes = document_store.document_hashes(
      [document.source for document in block],
      [document.number for document in block], seed=seed)
  return TokenizedBlock(
      hashes=hashes[kept],
      documents=Documents(
          pieces=pieces,
          sentence_starts=sentence_pairs.starts_of(lengths[lengths > 0]),
          document_starts=sentence_pairs.starts_of(sizes[kept])),
      counts={
        "documents": len(kept), "empty_documents": len(block) - len(kept),
        "sentences": int(sizes.sum()),
        "empty_sentences": int(np.sum(lengths == 0)), "pieces": len(pieces),
        "unknown_pieces": int(np.sum(pieces == tokenizer.unk_id))})


def _tokenize(
    sentences: list[str], tokenizer: BertTokenizer
) -> tuple[np.ndarray, np.ndarray]:
  """The pieces of all sentences, and how many there are in each."""
  id_type = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
  pieces, lengths = [np.empty(0, id_type)], [np.empty(0, np.int64)]
  characters = np.cumsum([0, *map(len, sentences)])
  first = 0
  while first < len(sentences):
    last = max(first + 1, int(np.searchsorted(
        characters, characters[first] + _CHARACTERS_PER_CALL)))
    ragged = tokenizer.tokenize(sentences[first:last])
    pieces.append(ragged.flat_values.numpy().astype(id_type))
    lengths.append(ragged.row_lengths().numpy())
    first = last
  return np.concatenate(pieces), np.concatenate(lengths)


class Examples:
  """All examples of a bucket, in random order."""

  def __init__(
      self, documents: Documents, *, config: PretrainingDataConfig,
      tokenizer: BertTokenizer, generator: np.random.Generator
  ):
    self._documents, self._config = documents, config
    self._ids = {"cls_id": tokenizer.cls_id, "sep_id": tokenizer.sep_id,
                 "pad_id": tokenizer.pad_id}
    if config.nsp:
      drawn = sentence_pairs.draw_pairs(
          documents, max_seq_length=config.max_seq_length,
          short_seq_prob=config.short_seq_prob, passes=config.dupe_factor,
          generator=generator)
    else:
      drawn = full_sentences.draw_rows(
          documents, max_seq_length=config.max_seq_length,
          passes=config.dupe_factor, sep_id=tokenizer.sep_id,
          generator=generator)
    # All examples of all passes together. This is the only shuffle that is
    # needed: the order of the documents leaves no trace in it.
    self._drawn = drawn.select(generator.permutation(drawn.size))

  def rows(
      self, index: slice, *, generator: np.random.Generator
  ) -> Iterator[tuple[dict[str, np.ndarray], float]]:
    """The rows of some of them, in blocks, with the share done so far.

    Yields:
      The columns of `records.features` but the masks; and 0 to 1.
    """
    drawn, config = self._drawn.select(index), self._config
    step = _PLACES_PER_CALL // config.max_seq_length
    if config.pack_sequences:
      step *= _CALLS_PER_PACKING
    for start in range(0, drawn.size, step):
      block = self._join(drawn.select(slice(start, start + step)))
      if config.pack_sequences:
        block = self._pack(block, generator)
      yield block, min(1.0, (start + step) / drawn.size)

  def _join(self, block) -> dict[str, np.ndarray]:
    options = {"max_seq_length": self._config.max_seq_length, **self._ids}
    if not self._config.nsp:
      return full_sentences.join_rows(block, **options)
    return {
      **sentence_pairs.join_pairs(self._documents, block, **options),
      "next_sentence_labels": block.is_random_next.astype(np.int32)}

  def _pack(
      self, block: dict[str, np.ndarray], generator: np.random.Generator
  ) -> dict[str, np.ndarray]:
    length = self._config.max_seq_length
    max_examples = row_packing.max_examples_per_row(length)
    row_of = row_packing.assign_rows(
        block["input_mask"].sum(axis=1), max_seq_length=length,
        max_examples=max_examples)
    # The first rows have the longest examples.
    row_of = generator.permutation(row_of.max() + 1)[row_of]
    return row_packing.pack_rows(
        block, row_of, max_examples=max_examples, pad_id=self._ids["pad_id"])


def bucket_seed(
    config: PretrainingDataConfig, bucket: int) -> np.random.SeedSequence:
  """Where a bucket's random numbers come from."""
  return np.random.SeedSequence(config.random_seed, spawn_key=(bucket,))


def make_batches(
    documents: Documents,
    *,
    config: PretrainingDataConfig,
    tokenizer: BertTokenizer,
    seed: np.random.SeedSequence,
    part: int = 0,
    num_parts: int = 1,
) -> Iterator[tuple[dict[str, np.ndarray], float]]:
  """The rows of a bucket in random order, or every `num_parts`-th of them.

  Yields:
    The columns of `records.features`, some thousand rows at a time; and the
    share that is done, 0 to 1.
  """
  # A stream of random numbers for each purpose and part: what one of them
  # uses does not move the others.
  draw_seed, *part_seeds = seed.spawn(1 + num_parts)
  examples = Examples(
      documents, config=config, tokenizer=tokenizer,
      generator=np.random.default_rng(draw_seed))
  generator = np.random.default_rng(part_seeds[part])
  is_continuation = (
    masking.continuation_table(tokenizer.vocabulary)
    if config.do_whole_word_mask else None)
  for rows, share in examples.rows(
      slice(part, None, num_parts), generator=generator):
    if config.masking == "static":
      rows |= masking.mask_rows(
          rows["input_ids"], rows["input_mask"],
          special_ids=(tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id),
          mask_id=tokenizer.mask_id, vocab_size=tokenizer.vocab_size,
          masked_lm_prob=config.masked_lm_prob,
          max_predictions_per_seq=config.max_predictions_per_seq,
          mask_share=config.mask_share, same_share=config.same_share,
          is_continuation=is_continuation, generator=generator)
    yield rows, share


def write_file(
    path: str,
    batches: Iterator[tuple[dict[str, np.ndarray], float]],
    *,
    report: Callable[[int, float], None] = lambda count, share: None,
) -> dict[str, int]:
  """Writes the rows that `make_batches` gives to a TFRecord file.

  Args:
    path: the file; it gets this name when it is complete.
    batches: from `make_batches`.
    report: is told the examples and the share that each step has added.

  Returns:
    What was counted, under the names that `stats.json` is made from.
  """
  counts = {name: 0 for name in (
    "records", "instances", "places", "filled_places", "masked_pieces",
    "random_next")}
  done = 0.0

  def counted():
    nonlocal done
    for rows, share in batches:
      yield rows
      found = _count(rows)
      for name, value in found.items():
        counts[name] += value
      report(found["instances"], share - done)
      done = share

  records.write_records(path, counted())
  return counts


def _count(rows: dict[str, np.ndarray]) -> dict[str, int]:
  num_rows = len(rows["input_ids"])
  found = {
    "records": num_rows, "instances": num_rows,
    "places": rows["input_ids"].size,
    "filled_places": int(rows["input_mask"].sum())}
  if "example_ids" in rows:
    found["instances"] = int(rows["example_ids"].max(axis=1).sum())
  if "masked_lm_weights" in rows:
    found["masked_pieces"] = int(rows["masked_lm_weights"].sum())
  if "next_sentence_labels" in rows:  # 0 in the padding
    found["random_next"] = int(rows["next_sentence_labels"].sum())
  return found
