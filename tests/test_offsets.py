"""Where pieces come from: by hand, by laws, by plain Python; and back."""

import itertools
import unicodedata

import hypothesis
from hypothesis import strategies
import pytest
import tensorflow as tf

from bert_tf import unicode_tables
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS
import difficult_text
import reference_tokenizer as reference

needs_the_unicode_version = pytest.mark.skipif(
    unicodedata.unidata_version != unicode_tables.UNICODE_VERSION,
    reason="the reference needs Python 3.11, which has Unicode 14.0")

PAD, UNK, CLS, SEP, MASK = range(5)


def make_tokenizer(do_lower_case):
  """Single difficult characters, and a few pieces of more than one."""
  characters = {
    char for text in (*difficult_text.DIFFICULT, "abc[]MASK")
    for word in reference.split_words(text, do_lower_case=do_lower_case)
    for char in word}
  # Some are left out, so that there are unknown words.
  characters -= set("yｆ々🏽β")
  entries = [*SPECIAL_TOKENS, "ab", "##ab", "##xy", "的一", "\u1112\u1161",
             "##\u1161\u11ab", "a\u0301", "##a\u0301", "##a\u302e"]
  entries += [form for char in sorted(characters)
              for form in (char, "##" + char)]
  return BertTokenizer(entries, do_lower_case=do_lower_case)


@pytest.fixture(scope="module")
def tokenizers():
  return {casing: make_tokenizer(casing) for casing in (True, False)}


def ranges(tokenizer, texts, **options):
  """(id, start, end) of each piece of each text; checks ids and types."""
  ids, start, end = tokenizer.tokenize_with_offsets(texts, **options)
  assert {ids.dtype, start.dtype, end.dtype} == {tf.int32}
  assert ids.to_list() == tokenizer.tokenize(texts, **options).to_list()
  return [
    list(zip(*row, strict=True))
    for row in zip(ids.to_list(), start.to_list(), end.to_list())]


TOY = [*SPECIAL_TOKENS, "un", "##want", "##ed", "a", "##a", "中", "\u1112",
       "##\u1161\u11ab", "!", "e", "##e", "[", "mask", "]", "ς", "=", "##x"]
# Text; the pieces with their bytes of it, worked out by hand.
RANGES = (
  ("", []),
  (" UNwantéd ", [("un", "UN"), ("##want", "want"), ("##ed", "éd")]),
  # A mark of its own is in the range of its base, with what lies between.
  ("e\u0301e", [("e", "e\u0301"), ("##e", "e")]),
  ("e\u200d\u0301e", [("e", "e\u200d\u0301"), ("##e", "e")]),
  ("e\u200de", [("e", "e"), ("##e", "e")]),
  ("!\u0301 中\u0301", [("!", "!\u0301"), ("中", "中\u0301")]),
  # A mark without a base is in none.
  ("\u0301a \u0301a", [("a", "a"), ("a", "a")]),
  ("a\u0301\u200d\u0302\u200d ", [("a", "a\u0301\u200d\u0302")]),
  # A syllable that gives two pieces: they share it.
  ("한", [("\u1112", "한"), ("##\u1161\u11ab", "한")]),
  # U+2260 is "=" with a mark, Latin Extended: one character, one piece.
  ("a\u2260x", [("a", "a"), ("=", "\u2260"), ("[UNK]", "x")]),
  # Unknown: the whole word, but not the white space or what was dropped.
  ("a\u0007\u00e9zz\u0301\0 a", [("[UNK]", "a\u0007\u00e9zz\u0301"),
                                 ("a", "a")]),
  ("a" + "e\u0301" * 200 + " a",
   [("[UNK]", "a" + "e\u0301" * 200), ("a", "a")]),
  ("中中", [("中", "中"), ("中", "中")]),
  ("[MASK]", [("[", "["), ("mask", "MASK"), ("]", "]")]),
)


@pytest.mark.parametrize("text,expected", RANGES)
def test_ranges_are_those_worked_out_by_hand(text, expected):
  tokenizer = BertTokenizer(TOY, do_lower_case=True)
  # Between neighbours, which must change nothing.
  found = ranges(tokenizer, ["é\u0301", text, "\u0301a"])
  assert found[0] == [(TOY.index("e"), 0, 4)]
  assert found[2] == [(TOY.index("a"), 2, 3)]
  data = text.encode("utf-8")
  assert [(TOY[piece], data[start:end].decode("utf-8"))
          for piece, start, end in found[1]] == expected


def test_ranges_are_in_the_bytes_given_valid_or_not():
  tokenizer = BertTokenizer(TOY, do_lower_case=True)
  found = ranges(tokenizer, [b"\xffa\xc3e\xcc\x81\xe4\xb8", b"\xe4\xb8\xad\xad"])
  assert found == [
    [(TOY.index("a"), 1, 2), (TOY.index("##e"), 3, 6)],
    [(TOY.index("中"), 0, 3)]]


def test_special_tokens_that_are_kept_have_their_literals():
  tokenizer = BertTokenizer(TOY, do_lower_case=True)
  text = "a[MASK]a [SEP]\u0301[UNK]\u0300\u200d zz[CLS]"
  found = ranges(tokenizer, [text], allow_special_tokens=True)[0]
  data = text.encode("utf-8")
  assert [(piece, data[start:end].decode("utf-8"))
          for piece, start, end in found] == [
    (TOY.index("a"), "a"), (MASK, "[MASK]"), (TOY.index("a"), "a"),
    (SEP, "[SEP]\u0301"), (UNK, "[UNK]\u0300"), (UNK, "zz"), (CLS, "[CLS]")]


def test_a_long_word_among_others_moves_none_of_them():
  entries = [*SPECIAL_TOKENS, "a", "##a"]
  tokenizer = BertTokenizer(entries, do_lower_case=False)
  texts = ["aa " + "a" * 201 + " a", "b aa", "a" * 200]
  assert ranges(tokenizer, texts) == [
    [(5, 0, 1), (6, 1, 2), (UNK, 3, 204), (5, 205, 206)],
    [(UNK, 0, 1), (5, 2, 3), (6, 3, 4)],
    [(6 if k else 5, k, k + 1) for k in range(200)]]


def expect_laws(text, pieces, *, do_lower_case):
  """What must hold for the ranges of a text, whatever the ids."""
  text = reference.decoded(text)
  starts = reference.byte_starts(text)
  place_of = {start: place for place, start in enumerate(starts)}

  def is_left_over(char):
    return (reference.is_dropped(char) or
            do_lower_case and reference.is_stripped(char))

  covered = set()
  for _, start, end in pieces:
    assert start < end
    # At characters' ends, and these are no bytes that were dropped.
    first, behind = place_of[start], place_of[end]
    assert not is_left_over(text[first])
    assert not reference.is_dropped(text[behind - 1])
    covered.update(range(first, behind))
  for (_, start, end), (_, next_start, next_end) in itertools.pairwise(pieces):
    assert start <= next_start and end <= next_end
    if next_start < end:
      # One character, with its marks, that gave several.
      shared = text[place_of[next_start]:place_of[end]]
      assert all(map(is_left_over, shared[1:]))
      assert len(unicodedata.normalize("NFD", shared[0].lower())) > 1
  has_base = False
  for place, char in enumerate(text):
    if reference.is_white_space(char) or char in "\u2028\u2029":
      has_base = False
      assert place not in covered
    elif reference.is_dropped(char):
      continue
    elif do_lower_case and reference.is_stripped(char):
      assert (place in covered) == has_base
    else:
      has_base = True
      assert place in covered


ALPHABET = "".join(difficult_text.DIFFICULT)
TEXTS = strategies.lists(
    strategies.one_of(
        strategies.text(), strategies.text(alphabet=ALPHABET),
        strategies.lists(strategies.sampled_from(
            (*SPECIAL_TOKENS, "ab", "e\u0301", "한", " ", "\u0301", "中", "\0")
        )).map("".join)),
    max_size=4)


@needs_the_unicode_version
@hypothesis.settings(max_examples=200)
@hypothesis.given(
    TEXTS | strategies.lists(strategies.binary(), max_size=4),
    strategies.booleans(), strategies.booleans())
def test_ranges_obey_the_laws_and_are_those_of_the_reference(
    tokenizers, texts, do_lower_case, allow_special_tokens):
  tokenizer = tokenizers[do_lower_case]
  ids = {entry: number for number, entry in enumerate(tokenizer.vocabulary)}
  found = ranges(
      tokenizer, texts, allow_special_tokens=allow_special_tokens)
  for text, pieces in zip(texts, found, strict=True):
    assert pieces == reference.tokenize_with_ranges(
        text, ids, do_lower_case=do_lower_case,
        special_tokens=SPECIAL_TOKENS if allow_special_tokens else ())
    expect_laws(text, pieces, do_lower_case=do_lower_case)


@needs_the_unicode_version
@pytest.mark.parametrize("do_lower_case", (True, False))
@pytest.mark.parametrize("special_tokens", ((), SPECIAL_TOKENS))
def test_ranges_of_random_texts_are_those_of_the_reference(
    tokenizers, do_lower_case, special_tokens):
  tokenizer = tokenizers[do_lower_case]
  ids = {entry: number for number, entry in enumerate(tokenizer.vocabulary)}
  texts = [*difficult_text.texts(2000, seed=11),
           *difficult_text.mixtures(2000, seed=12)]
  found = ranges(
      tokenizer, texts, allow_special_tokens=bool(special_tokens))
  for text, pieces in zip(texts, found, strict=True):
    assert pieces == reference.tokenize_with_ranges(
        text, ids, do_lower_case=do_lower_case,
        special_tokens=special_tokens), ascii(text)
    expect_laws(text, pieces, do_lower_case=do_lower_case)


# The way back.


def test_pieces_are_joined_as_worked_out_by_hand():
  tokenizer = BertTokenizer(
      [*SPECIAL_TOKENS, "un", "##want", "##ed", ",", "##", "a"],
      do_lower_case=True)
  ids = tf.ragged.constant(
      [[5, 6, 7, 8, 10], [], [6, 5], [CLS, 10, MASK, SEP, PAD], [9, 10]],
      dtype=tf.int32)
  expected = [
    b"unwanted , a", b"", b"want un", b"[CLS] a [MASK] [SEP] [PAD]", b"## a"]
  assert tokenizer.detokenize(ids).numpy().tolist() == expected
  assert tf.function(tokenizer.detokenize)(ids).numpy().tolist() == expected
  dense = tf.constant([[5, 6], [10, 0]], tf.int64)
  assert tokenizer.detokenize(dense).numpy().tolist() == [
    b"unwant", b"a [PAD]"]
  assert tokenizer.detokenize(tf.zeros([0, 3], tf.int32)).shape == [0]
  assert tokenizer.detokenize(tf.zeros([2, 0], tf.int32)).numpy().tolist() == [
    b"", b""]


def test_what_is_no_batch_of_ids_is_refused():
  tokenizer = BertTokenizer(TOY, do_lower_case=True)
  for ids in ([5, 6], tf.constant([5, 6]), tf.constant(5), None):
    with pytest.raises(ValueError, match=r"ids: must be integers \[B"):
      tokenizer.detokenize(ids)
  with pytest.raises(tf.errors.InvalidArgumentError, match="= 99 is not in"):
    tokenizer.detokenize(tf.constant([[99]]))


@pytest.mark.parametrize("do_lower_case", (True, False))
def test_the_text_of_pieces_gives_them_again(tokenizers, do_lower_case):
  tokenizer = tokenizers[do_lower_case]
  # Some marks are put in order, and those of class zero that are stripped
  # keep others apart only the first time.
  reordered = set(map(chr, dict(unicode_tables.COMBINING_CLASSES)))
  texts = [
    text for text in difficult_text.texts(4000, seed=13)
    if not reordered & set(unicodedata.normalize("NFD", text))]
  assert len(texts) > 3000
  ids = tokenizer.tokenize(texts)
  again = tokenizer.tokenize(
      tokenizer.detokenize(ids), allow_special_tokens=True)
  assert again.to_list() == ids.to_list()
