"""The tokenizer against plain Python, over all of Unicode and real text."""

import unicodedata

import numpy as np
import pytest

from bert_tf import unicode_tables
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS
import difficult_text
import reference_tokenizer as reference

pytestmark = pytest.mark.skipif(
    unicodedata.unidata_version != unicode_tables.UNICODE_VERSION,
    reason="the reference needs Python 3.11, which has Unicode 14.0")

RELEASED = {
  True: ("bert-base-uncased", "bert-base-chinese"),
  False: ("bert-base-cased", "bert-base-multilingual-cased"),
}


def released(shared, name):
  return BertTokenizer.from_file(
      str(shared / "data" / "vocabularies" / f"{name}-vocab.txt"))


def of_single_characters(split, *, do_lower_case):
  """Every piece that can occur is an entry: nothing hides behind [UNK]."""
  entries = dict.fromkeys(SPECIAL_TOKENS)
  for row in split:
    for word in row:
      entries[word[0]] = None
      entries.update(dict.fromkeys(["##" + c for c in word[1:]]))
  return BertTokenizer(list(entries), do_lower_case=do_lower_case)


def single_characters_of_word(word, ids):
  if len(word) > 200:
    return [ids["[UNK]"]]
  return [
    ids["##" + char if place else char] for place, char in enumerate(word)]


def expect_ids_of_words(tokenizer, texts, split, *, pieces_of_word):
  """The ids of `texts` are those of their words, which are known."""
  ids = {entry: number for number, entry in enumerate(tokenizer.vocabulary)}
  known = {}  # words come again and again
  different = []
  for start in range(0, len(texts), 65536):
    rows = []
    for row in split[start:start + 65536]:
      for word in row:
        if word not in known:
          known[word] = pieces_of_word(word, ids)
      rows.append([piece for word in row for piece in known[word]])
    found = tokenizer.tokenize(texts[start:start + 65536])
    splits = np.cumsum([0, *map(len, rows)])
    flat = np.array([piece for row in rows for piece in row], np.int32)
    if not (np.array_equal(found.row_splits, splits) and
            np.array_equal(found.flat_values, flat)):
      different += [
        (texts[start + place], row)
        for place, row in enumerate(found.to_list()) if row != rows[place]]
    if len(known) > 500_000:
      known.clear()
  assert not different, (len(different), ascii(different[:5]))


def expect_reference_ids(tokenizers, texts, *, do_lower_case):
  """Under these tokenizers, and under a vocabulary of single characters."""
  split = [
    reference.split_words(text, do_lower_case=do_lower_case)
    for text in texts]
  expect_ids_of_words(
      of_single_characters(split, do_lower_case=do_lower_case), texts, split,
      pieces_of_word=single_characters_of_word)
  for tokenizer in tokenizers:
    assert tokenizer.do_lower_case == do_lower_case
    expect_ids_of_words(
        tokenizer, texts, split, pieces_of_word=reference.pieces_of_word)


@pytest.mark.slow
@pytest.mark.parametrize("do_lower_case", (True, False))
def test_every_code_point_between_letters_gives_the_ids_of_the_reference(
    do_lower_case):
  """Under a vocabulary of single characters."""
  expect_reference_ids(
      [], [f"a{chr(code)}b" for code in reference.CODE_POINTS],
      do_lower_case=do_lower_case)


@pytest.mark.slow
@pytest.mark.parametrize("do_lower_case", (True, False))
@pytest.mark.parametrize("form", ("a{}b", "{}", "aΣ{}b", "a{}Σ", "aΣ{}"))
def test_every_code_point_alone_and_beside_a_capital_sigma(
    shared, form, do_lower_case):
  """Under the released vocabularies, and one of single characters."""
  expect_reference_ids(
      [released(shared, name) for name in RELEASED[do_lower_case]],
      [form.format(chr(code)) for code in reference.CODE_POINTS],
      do_lower_case=do_lower_case)


@pytest.mark.parametrize("do_lower_case", (True, False))
def test_real_text_in_27_languages(shared, do_lower_case):
  texts = [
    line for path in sorted((shared / "data/corpora/udhr").glob("*.txt"))
    for line in path.read_text(encoding="utf-8").split("\n")]
  assert len(texts) > 27 * 30
  expect_reference_ids(
      [released(shared, name) for name in RELEASED[do_lower_case]], texts,
      do_lower_case=do_lower_case)


@pytest.mark.slow
@pytest.mark.parametrize("do_lower_case", (True, False))
def test_a_hundred_thousand_random_texts(shared, do_lower_case):
  """Scripts, marks, controls, emoji, jamo, 200 and 201 characters, mixed."""
  texts = [*difficult_text.texts(70_000, seed=1),
           *difficult_text.mixtures(30_000, seed=2)]
  sizes = {len(word) for text in texts[:10_000] for word in (
    reference.split_words(text, do_lower_case=do_lower_case))}
  assert {200, 201} <= sizes
  tokenizers = [released(shared, name) for name in RELEASED[do_lower_case]]
  expect_reference_ids(tokenizers, texts, do_lower_case=do_lower_case)
  # And their ranges, under one of them.
  tokenizer = tokenizers[0]
  ids = {entry: number for number, entry in enumerate(tokenizer.vocabulary)}
  found = [
    values.to_list() for values in tokenizer.tokenize_with_offsets(texts)]
  for text, *row in zip(texts, *found, strict=True):
    assert list(zip(*row, strict=True)) == reference.tokenize_with_ranges(
        text, ids, do_lower_case=do_lower_case), ascii(text)
