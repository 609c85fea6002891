"""Learning a WordPiece vocabulary from text.

Words are counted as the tokenizer will see them. Starting from characters,
the pair of neighbouring pieces that is most frequent in them becomes a piece,
again and again, until the vocabulary is full (Sennrich et al. 2016,
algorithm 1, with `##` before pieces inside a word).
"""

import collections
from collections.abc import Iterable, Iterator, Mapping
import heapq
import logging
import os
import time

import tensorflow as tf

from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.config import VocabularyConfig
from bert_tf.config import write_json
from bert_tf.data import corpus
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import MAX_WORD_LENGTH
from bert_tf.tokenization import SPECIAL_TOKENS
from bert_tf.tokenization import TOKENIZER_CONFIG
from bert_tf.words import WordSplitter

_LOGGER = logging.getLogger(__name__)

_CHARACTERS_PER_BATCH = 1_000_000
_SECONDS_BETWEEN_REPORTS = 5.0

# Without a character its words are lost, without a merge they are a piece
# longer: a character is worth so many times its count.
_WORTH_OF_A_CHARACTER = 10


class _Progress:
  """Logs rate, share done and time left every few seconds."""

  def __init__(self, what: str, unit: str, total: int):
    self._what, self._unit, self._total = what, unit, max(total, 1)
    self._start = self._last = time.monotonic()

  def report(self, done: int) -> None:
    now = time.monotonic()
    if now - self._last < _SECONDS_BETWEEN_REPORTS or not done:
      return
    self._last = now
    rate = done / (now - self._start)
    _LOGGER.info(
        "%s: %.0f %% (%s of %s %s), %s %s/s, %.0f s left", self._what,
        100 * done / self._total, f"{done:,}", f"{self._total:,}", self._unit,
        f"{rate:,.0f}", self._unit, (self._total - done) / rate)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
  batch, size = [], 0
  for text in texts:
    batch.append(text)
    size += len(text)
    if size >= _CHARACTERS_PER_BATCH:
      yield batch
      batch, size = [], 0
  if batch:
    yield batch


def count_words(
    texts: Iterable[str], *, do_lower_case: bool
) -> collections.Counter[str]:
  """How often each word occurs, normalised and split by the tokenizer.

  Words of more than 200 characters, which are always [UNK], are left out.

  >>> sorted(count_words(["It's it."], do_lower_case=True).items())
  [("'", 1), ('.', 1), ('it', 2), ('s', 1)]
  """
  splitter = WordSplitter(do_lower_case=do_lower_case)

  @tf.function(
      input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
  def count(batch):
    words = splitter.split(batch)
    strings = tf.boolean_mask(
        words.to_strings(), words.lengths() <= MAX_WORD_LENGTH)
    unique, _, counts = tf.unique_with_counts(strings, out_idx=tf.int64)
    return unique, counts

  total = collections.Counter()
  with tf.device("CPU:0"):
    for batch in _batches(texts):
      words, counts = count(tf.constant(batch))
      total.update(dict(zip(words.numpy().tolist(), counts.numpy().tolist())))
  return collections.Counter(
      {word.decode("utf-8"): number for word, number in total.items()})


def learn_vocabulary(
    texts_or_word_counts: Iterable[str] | Mapping[str, int],
    *,
    vocab_size: int,
    do_lower_case: bool,
) -> list[str]:
  """A vocabulary of exactly `vocab_size` entries.

  First [PAD], [UNK], [CLS], [SEP] and [MASK], then characters, then merged
  pieces from the most frequent on. A character is taken as long as ten times
  its count exceeds the count of the merges still to come; rarer ones will be
  [UNK]. A pair that occurs once is not merged. The same counts give the same
  entries in the same order.

  Args:
    texts_or_word_counts: texts, or the result of `count_words`.
    vocab_size: the number of entries, special tokens included.
    do_lower_case: how `texts` are to be normalised.

  Raises:
    InputError: the texts are too few for so many entries.
  """
  word_counts = texts_or_word_counts
  if not isinstance(word_counts, Mapping):
    word_counts = count_words(word_counts, do_lower_case=do_lower_case)
  require(len(word_counts) > 0, "No word was found in the texts.")
  require(vocab_size > len(SPECIAL_TOKENS), f"vocab_size: received "
          f"{vocab_size}; the special tokens alone are {len(SPECIAL_TOKENS)}.")
  room = vocab_size - len(SPECIAL_TOKENS)
  learner = _Learner(word_counts)
  progress = _Progress("learning", "entries", room)
  while len(learner.entries) < room:
    if not learner.step(room - len(learner.entries)):
      size = len(learner.entries) + len(SPECIAL_TOKENS)
      raise InputError(
          f"vocab_size: received {vocab_size}; these texts, of "
          f"{len(word_counts):,} different words, give {size}: ask for no "
          "more, or add texts.")
    progress.report(len(learner.entries))
  characters = sorted(
      entry for entry in learner.entries if len(_body(entry)) == 1)
  merged = [entry for entry in learner.entries if len(_body(entry)) > 1]
  return [*SPECIAL_TOKENS, *characters, *merged]


def _body(piece: str) -> str:
  return piece[2:] if piece.startswith("##") and len(piece) > 2 else piece


class _Learner:
  """Words as lists of piece numbers, and the pairs in them by count."""

  def __init__(self, word_counts: Mapping[str, int]):
    self.entries = []  # in the order in which they were learnt
    characters = collections.Counter()
    joined = set()  # characters that are part of longer words
    for word, count in word_counts.items():
      joined.update(word if len(word) > 1 else ())
      for character in word:
        characters[character] += count
    self._forms = {
      character: [character, *["##" + character] * (character in joined)]
      for character in sorted(characters)}
    self._pieces = [
      form for forms in self._forms.values() for form in forms]
    self._number_of = {
      piece: number for number, piece in enumerate(self._pieces)}

    self._words, self._counts = [], []
    for word, count in word_counts.items():
      if len(word) > 1:
        self._counts.append(count)
        self._words.append([
          self._number_of["##" * (place > 0) + character]
          for place, character in enumerate(word)])
    self._pair_counts = collections.Counter()
    self._words_with = collections.defaultdict(set)
    for index, word in enumerate(self._words):
      self._add_pairs(index, word)
    # (-worth, 0, character) or (-worth, 1, pair), as it was when last seen
    # to grow; what has shrunk since is put back when it comes up.
    self._heap = [
      (-count * _WORTH_OF_A_CHARACTER, 0, character)
      for character, count in characters.items()]
    self._heap += [
      (-count, 1, pair) for pair, count in self._pair_counts.items()
      if count > 1]
    heapq.heapify(self._heap)

  def step(self, room: int) -> bool:
    """Learns the best character or pair; False if there is none left.

    A character may take two of the `room` entries, a pair that spells a
    known piece takes none.
    """
    while self._heap:
      worth, is_pair, candidate = heapq.heappop(self._heap)
      if not is_pair:
        if len(self._forms[candidate]) <= room:
          self.entries += self._forms[candidate]
          return True
        continue
      count = self._pair_counts.get(candidate, 0)
      if count == -worth:
        self._merge(candidate)
        return True
      if count > 1:  # a single occurrence is not worth an entry
        heapq.heappush(self._heap, (-count, 1, candidate))
    return False

  def _merge(self, pair: tuple[int, int]) -> None:
    first, second = pair
    piece = self._pieces[first] + self._pieces[second][2:]
    merged = self._number_of.get(piece)
    if merged is None:
      merged = self._number_of[piece] = len(self._pieces)
      self._pieces.append(piece)
      self.entries.append(piece)
    grown = set()
    for index in self._words_with.pop(pair):
      word = self._words[index]
      self._remove_pairs(index, word)
      place = 0
      while place < len(word) - 1:
        if word[place] == first and word[place + 1] == second:
          word[place:place + 2] = [merged]
        place += 1
      self._add_pairs(index, word)
      grown.update(p for p in zip(word, word[1:]) if merged in p)
    for grown_pair in grown:
      count = self._pair_counts[grown_pair]
      if count > 1:
        heapq.heappush(self._heap, (-count, 1, grown_pair))

  def _add_pairs(self, index: int, word: list[int]) -> None:
    for pair in zip(word, word[1:]):
      self._pair_counts[pair] += self._counts[index]
      self._words_with[pair].add(index)

  def _remove_pairs(self, index: int, word: list[int]) -> None:
    for pair in zip(word, word[1:]):
      self._pair_counts[pair] -= self._counts[index]
      # The pair being merged has left the table already.
      if pair in self._words_with:
        self._words_with[pair].discard(index)


def coverage(
    vocabulary: list[str],
    word_counts: Mapping[str, int],
    *,
    do_lower_case: bool,
) -> dict[str, float]:
  """How well a vocabulary fits counted words.

  Returns:
    `unknown_rate`: the share of words that are [UNK], 0 to 1.
    `pieces_per_word`: the mean over all words, [UNK] counted as one.
  """
  tokenizer = BertTokenizer(vocabulary, do_lower_case=do_lower_case)
  words = list(word_counts)
  counts = tf.constant([word_counts[word] for word in words], tf.int64)
  ids = tokenizer.tokenize(words)  # [W, (pieces)]
  is_unknown = tf.reduce_any(ids == tokenizer.unk_id, axis=1)
  total = max(int(tf.reduce_sum(counts)), 1)
  return {
    "unknown_rate": int(tf.reduce_sum(counts[is_unknown])) / total,
    "pieces_per_word": int(tf.reduce_sum(counts * ids.row_lengths())) / total,
  }


def save_vocabulary(
    path: str, vocabulary: list[str], *, do_lower_case: bool
) -> None:
  """Writes the file, and `tokenizer_config.json` beside it."""
  temporary = f"{path}.tmp-{os.getpid()}"
  os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
  with open(temporary, "w", encoding="utf-8", newline="\n") as file:
    file.writelines(entry + "\n" for entry in vocabulary)
  write_json(
      os.path.join(os.path.dirname(path), TOKENIZER_CONFIG),
      {"do_lower_case": do_lower_case})
  os.replace(temporary, path)


def _read_files(paths: list[str], *, on_bad_utf8: str) -> Iterator[str]:
  counts = collections.Counter()
  progress = _Progress(
      "counting words", "bytes", sum(map(os.path.getsize, paths)))
  for path in paths:
    for line in corpus.read_lines(
        path, on_bad_utf8=on_bad_utf8, counts=counts):
      yield line
      progress.report(counts["bytes_read"])


def run(config: VocabularyConfig) -> None:
  """Learns a vocabulary from files and writes it: one program's work."""
  paths = corpus.expand_files(config.input_file)
  word_counts = count_words(
      _read_files(paths, on_bad_utf8=config.on_bad_utf8),
      do_lower_case=config.do_lower_case)
  _LOGGER.info(
      "%s words, %s different, in %d files", f"{word_counts.total():,}",
      f"{len(word_counts):,}", len(paths))
  vocabulary = learn_vocabulary(
      word_counts, vocab_size=config.vocab_size,
      do_lower_case=config.do_lower_case)
  save_vocabulary(
      config.output_file, vocabulary, do_lower_case=config.do_lower_case)
  fit = coverage(
      vocabulary, word_counts, do_lower_case=config.do_lower_case)
  _LOGGER.info(
      "%s: %s entries; on these texts %.3f pieces a word, %.4f %% of the words "
      "[UNK]", config.output_file, f"{len(vocabulary):,}",
      fit["pieces_per_word"], 100 * fit["unknown_rate"])
