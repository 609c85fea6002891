"""Learning a WordPiece vocabulary from text.

Words are counted as the tokenizer will see them. Starting from characters,
the pair of neighbouring pieces that is most frequent in them becomes a piece,
again and again, until the vocabulary is full (Sennrich et al. 2016,
algorithm 1, with `##` before pieces inside a word). A vocabulary that exists
is extended in the same way, from its own pieces.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import heapq
import logging
import os
import re

import tensorflow as tf

from bert_tf.arguments import VocabularyConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.data import corpus
from bert_tf.progress import Progress
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import MAX_WORD_LENGTH
from bert_tf.vocabulary_files import find_casing
from bert_tf.vocabulary_files import MAX_PIECE_BYTES
from bert_tf.vocabulary_files import read_vocabulary
from bert_tf.vocabulary_files import SPECIAL_TOKENS
from bert_tf.vocabulary_files import TOKENIZER_CONFIG
from bert_tf.words import WordSplitter

_LOGGER = logging.getLogger(__name__)

_CHARACTERS_PER_BATCH = 1_000_000
_LINES_AT_ONCE = 1000

# Without a character its words are lost, without a merge they are a piece
# longer: a character is worth so many times its count.
_WORTH_OF_A_CHARACTER = 10


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
    num_unused: int = 0,
) -> list[str]:
  """A vocabulary of exactly `vocab_size` entries.

  First [PAD], [UNK], [CLS], [SEP] and [MASK], then the slots [unused0],
  [unused1], ..., then characters, then merged pieces from the most frequent
  on. A character is taken as long as ten times its count exceeds the count of
  the merges still to come; rarer ones will be [UNK]. A pair that occurs once
  is not merged. The same counts give the same entries in the same order.

  Args:
    texts_or_word_counts: texts, or the result of `count_words`.
    vocab_size: the number of entries, special tokens and slots included.
    do_lower_case: how `texts` are to be normalised.
    num_unused: slots for entries that are added later.

  Raises:
    InputError: the texts are too few for so many entries.
  """
  reserved = [
    *SPECIAL_TOKENS, *(f"[unused{number}]" for number in range(num_unused))]
  require(vocab_size > len(reserved), f"vocab_size: received {vocab_size}; "
          f"the special tokens alone are {len(SPECIAL_TOKENS)}, and "
          f"num_unused is {num_unused}.")
  word_counts = _word_counts(texts_or_word_counts, do_lower_case)
  learnt = _learn(_Learner(word_counts), vocab_size - len(reserved))
  _check_size(len(reserved) + len(learnt), vocab_size, word_counts)
  return reserved + learnt


def extend_vocabulary(
    vocabulary: Sequence[str],
    texts_or_word_counts: Iterable[str] | Mapping[str, int],
    *,
    vocab_size: int,
    do_lower_case: bool,
    num_unused: int = 0,
) -> list[str]:
  """A vocabulary with pieces that these texts need, of `vocab_size` entries.

  Its own entries keep their ids, so that a model trained with it goes on. The
  new ones take the slots [unused0], [unused1], ... first, so that as many of
  them need no new row of the embedding table; the others are appended.
  Words start as the pieces that they have now, and the most frequent pairs
  are merged, as in `learn_vocabulary`; characters are new where they make
  words [UNK]. Slots for which nothing is left to learn stay free.

  Args:
    vocabulary: the entries to extend.
    texts_or_word_counts: texts, or the result of `count_words`.
    vocab_size: the number of entries of the result.
    do_lower_case: how `texts` are to be normalised.
    num_unused: so many of the last slots stay free.

  Raises:
    InputError: there is no room for a new entry, there are fewer slots than
      are to stay free, or the texts are too few for entries to append.
  """
  slots = [number for number, entry in enumerate(vocabulary)
           if re.fullmatch(r"\[unused[0-9]+\]", entry)]
  require(len(slots) >= num_unused, f"num_unused: received {num_unused}; the "
          f"vocabulary to extend has {len(slots)} [unused] slots.")
  slots = slots[:len(slots) - num_unused]
  room = vocab_size - len(vocabulary) + len(slots)
  require(vocab_size >= len(vocabulary) and room > 0, "vocab_size: received "
          f"{vocab_size}; the vocabulary to extend has {len(vocabulary)} "
          f"entries, {len(slots)} of them slots to fill.")
  word_counts = _word_counts(texts_or_word_counts, do_lower_case)
  learner = _Learner(
      word_counts, known=vocabulary,
      pieces_of=_split_words(
          vocabulary, list(word_counts), do_lower_case=do_lower_case))
  learnt = _learn(learner, room)
  _check_size(
      len(vocabulary) + max(len(learnt) - len(slots), 0), vocab_size,
      word_counts)
  extended = list(vocabulary)
  for slot, entry in zip(slots, learnt):
    extended[slot] = entry
  return extended + learnt[len(slots):]


def _word_counts(
    texts_or_word_counts: Iterable[str] | Mapping[str, int],
    do_lower_case: bool,
) -> Mapping[str, int]:
  counts = texts_or_word_counts
  if not isinstance(counts, Mapping):
    counts = count_words(counts, do_lower_case=do_lower_case)
  require(len(counts) > 0, "No word was found in the texts.")
  return counts


def _split_words(
    vocabulary: Sequence[str], words: list[str], *, do_lower_case: bool
) -> dict[str, list[str]]:
  """The pieces of each word that is not [UNK]."""
  tokenizer = BertTokenizer(vocabulary, do_lower_case=do_lower_case)
  ids = tokenizer.tokenize(words)
  return {
    word: [vocabulary[piece] for piece in row]
    for word, row in zip(words, ids.to_list())
    if tokenizer.unk_id not in row}


def _check_size(
    size: int, vocab_size: int, word_counts: Mapping[str, int]) -> None:
  require(size == vocab_size, f"vocab_size: received {vocab_size}; these "
          f"texts, of {len(word_counts):,} different words, give {size}: ask "
          "for no more, or add texts.")


def _learn(learner: "_Learner", room: int) -> list[str]:
  """Up to `room` new entries: characters in order, then merged pieces."""
  progress = Progress("Learning", unit="entries")
  while len(learner.entries) < room and learner.step(
      room - len(learner.entries)):
    progress.update(
        len(learner.entries), share=len(learner.entries) / room)
  characters = sorted(
      entry for entry in learner.entries if len(_body(entry)) == 1)
  merged = [entry for entry in learner.entries if len(_body(entry)) > 1]
  return [*characters, *merged]


def _body(piece: str) -> str:
  return piece[2:] if piece.startswith("##") and len(piece) > 2 else piece


class _Learner:
  """Words as lists of piece numbers, and the pairs in them by count.

  `known` are pieces that need not be learnt, and `pieces_of` those of the
  words that consist of them; other words start as characters, which are
  learnt in both forms, or in those that occur if there are known pieces.
  """

  def __init__(
      self,
      word_counts: Mapping[str, int],
      *,
      known: Iterable[str] = (),
      pieces_of: Mapping[str, list[str]] | None = None,
  ):
    self.entries = []  # in the order in which they were learnt
    pieces_of = dict(pieces_of or {})
    known = dict.fromkeys(known)
    characters = collections.Counter()
    seen = set()
    for word, count in word_counts.items():
      if word not in pieces_of:
        pieces = [word[0], *("##" + character for character in word[1:])]
        pieces_of[word] = pieces
        seen.update(pieces)
        if not known and len(word) > 1:
          seen.update(word)
          seen.add("##" + word[0])
        for character in word:
          characters[character] += count
    forms = {
      character: [
        form for form in (character, "##" + character) if form in seen]
      for character in sorted(characters)}
    self._pieces = list(dict.fromkeys(
        [*(form for both in forms.values() for form in both), *known]))
    self._number_of = {
      piece: number for number, piece in enumerate(self._pieces)}
    self._forms = {
      character: [form for form in both if form not in known]
      for character, both in forms.items()}

    self._words, self._counts = [], []
    for word, count in word_counts.items():
      if len(pieces_of[word]) > 1:
        self._counts.append(count)
        self._words.append([
          self._number_of[piece] for piece in pieces_of[word]])
    self._pair_counts = collections.Counter()
    self._words_with = collections.defaultdict(set)
    for index, word in enumerate(self._words):
      self._add_pairs(index, word)
    # (-worth, 0, character) or (-worth, 1, pair), as it was when last seen
    # to grow; what has shrunk since is put back when it comes up.
    self._heap = [
      (-count * _WORTH_OF_A_CHARACTER, 0, character)
      for character, count in characters.items() if self._forms[character]]
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
        merged = self._merged(candidate)
        if len(_body(merged).encode("utf-8")) <= MAX_PIECE_BYTES:
          self._merge(candidate)
          return True
        continue
      if count > 1:  # a single occurrence is not worth an entry
        heapq.heappush(self._heap, (-count, 1, candidate))
    return False

  def _merged(self, pair: tuple[int, int]) -> str:
    first, second = pair
    return self._pieces[first] + self._pieces[second][2:]

  def _merge(self, pair: tuple[int, int]) -> None:
    first, second = pair
    piece = self._merged(pair)
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


def _read_lines(source: corpus.Corpus) -> Iterator[str]:
  counts = collections.Counter()
  progress = Progress("Counting words", unit=source.unit)
  for document in source.documents(counts, max_lines=_LINES_AT_ONCE):
    yield from document.lines
    progress.update(
        counts[f"{source.unit}_read"], share=source.share_done(counts))


def _read_initial(config: VocabularyConfig) -> list[str]:
  """The vocabulary to extend; its casing must be the one asked for."""
  path = config.init_vocab_file
  entries = read_vocabulary(path)
  try:
    do_lower_case = find_casing(path, entries)
  except InputError:  # cannot be told: the flag says it
    do_lower_case = config.do_lower_case
  require(do_lower_case == config.do_lower_case, f"{path}: this vocabulary is "
          f"{'lower-cased' if do_lower_case else 'cased'}: give "
          f"--{'' if do_lower_case else 'no'}do_lower_case.")
  return entries


def run(config: VocabularyConfig) -> None:
  """Learns a vocabulary from text and writes it: one program's work."""
  source = corpus.open_corpus(config)
  initial = _read_initial(config) if config.init_vocab_file else None
  word_counts = count_words(
      _read_lines(source), do_lower_case=config.do_lower_case)
  _LOGGER.info(
      "%s words, %s different, in %s%s", f"{word_counts.total():,}",
      f"{len(word_counts):,}", ", ".join(source.names[:3]),
      ", ..." if len(source.names) > 3 else "")
  options = {
    "vocab_size": config.vocab_size, "do_lower_case": config.do_lower_case,
    "num_unused": config.num_unused}
  if initial is None:
    vocabulary = learn_vocabulary(word_counts, **options)
  else:
    _report(config.init_vocab_file, initial, word_counts, config)
    vocabulary = extend_vocabulary(initial, word_counts, **options)
  save_vocabulary(
      config.output_file, vocabulary, do_lower_case=config.do_lower_case)
  _report(config.output_file, vocabulary, word_counts, config)


def _report(
    path: str,
    vocabulary: list[str],
    word_counts: Mapping[str, int],
    config: VocabularyConfig,
) -> None:
  fit = coverage(vocabulary, word_counts, do_lower_case=config.do_lower_case)
  _LOGGER.info(
      "%s: %s entries; on these texts %.3f pieces a word, %.4f %% of the words "
      "[UNK]", path, f"{len(vocabulary):,}", fit["pieces_per_word"],
      100 * fit["unknown_rate"])
