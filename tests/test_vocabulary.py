"""Learning a vocabulary: by hand, by properties, and the program."""

import collections
import doctest
import gzip
import io
import json
import pathlib
import random
import subprocess
import sys

import pytest

from bert_tf import progress
from bert_tf import vocabulary
from bert_tf.arguments import VocabularyConfig
from bert_tf.config import InputError
from bert_tf.data import corpus
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS

ROOT = pathlib.Path(vocabulary.__file__).parent.parent


def test_words_are_counted_as_the_tokenizer_sees_them():
  texts = ["The thé's 中中.", "", "the\u200d " + "x" * 201]
  counts = vocabulary.count_words(texts, do_lower_case=True)
  assert counts == {"the": 3, "'": 1, "s": 1, "中": 2, ".": 1}
  counts = vocabulary.count_words(texts, do_lower_case=False)
  assert counts == {
    "The": 1, "thé": 1, "the": 1, "'": 1, "s": 1, "中": 2, ".": 1}


def test_merges_are_those_worked_out_by_hand():
  # Pairs at first: h##u 15, ##u##g 20, p##u 17, ##u##n 16, b##u 4, ##g##s 5.
  # ##ug (20) leaves h##ug 15, p##ug 5, ##ug##s 5, p##u 12, ##u##n 16, b##u 4:
  # ##un (16) -> hug (15) -> pun (12).
  counts = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
  # Seven letters, each inside longer words, take two entries each.
  letters = [form for c in "bghnpsu" for form in (c, "##" + c)]
  found = vocabulary.learn_vocabulary(
      counts, vocab_size=5 + 14 + 4, do_lower_case=True)
  assert found[:5] == list(SPECIAL_TOKENS)
  assert found[5:19] == sorted(letters)
  assert found[19:] == ["##ug", "##un", "hug", "pun"]


def test_a_character_that_only_stands_alone_has_one_form():
  found = vocabulary.learn_vocabulary(
      {"ab": 3, ",": 2}, vocab_size=5 + 4 + 1, do_lower_case=True)
  assert found[5:] == ["##a", "##b", ",", "a", "b"]


def test_a_rare_character_gives_way_to_merges_ten_times_as_frequent():
  # "ab" merges with worth 100; z has the worth 10 * 9 < 100 < 10 * 11.
  for count, expected in ((9, ["ab"]), (11, ["z"])):
    found = vocabulary.learn_vocabulary(
        {"ab": 100, "z": count}, vocab_size=5 + 4 + 1, do_lower_case=True)
    assert set(found[5:]) - {"a", "b", "##a", "##b"} == set(expected)


def test_repeated_letters_are_merged_from_the_left():
  found = vocabulary.learn_vocabulary(
      {"aaaaa": 4}, vocab_size=5 + 2 + 3, do_lower_case=True)
  # ##a##a stands three times in it: ##aa. Then a ##aa ##aa, each pair once:
  # the pair that was learnt first wins.
  assert found[:8] == [*SPECIAL_TOKENS, "##a", "a", "##aa"]
  assert found[8:] == ["aaa", "aaaaa"]


def test_each_pair_merged_is_the_most_frequent_by_a_plain_recount(monkeypatch):
  rng = random.Random(3)
  words = collections.Counter(
      "".join(rng.choice("abcd") for _ in range(rng.randrange(1, 9)))
      for _ in range(4000))
  learner = vocabulary._Learner(words)
  merges = []
  merge = learner._merge
  monkeypatch.setattr(
      learner, "_merge", lambda pair: (merges.append(pair), merge(pair)))
  for _ in range(4):
    assert learner.step(room=1000)
  assert sorted(learner.entries) == sorted(
      form for c in "abcd" for form in (c, "##" + c))
  split = {w: [w[0], *("##" + c for c in w[1:])] for w in words}
  for number in range(150):
    counts = collections.Counter()
    for word, pieces in split.items():
      for pair in zip(pieces, pieces[1:]):
        counts[pair] += words[word]
    assert learner.step(room=1000)
    first, second = (learner._pieces[piece] for piece in merges[number])
    assert counts[first, second] == max(counts.values())
    for pieces in split.values():
      place = 0
      while place < len(pieces) - 1:
        if pieces[place] == first and pieces[place + 1] == second:
          pieces[place:place + 2] = [first + second[2:]]
        place += 1


def make_words(size):
  rng = random.Random(5)
  stems = ["".join(rng.choice("abcdefgh") for _ in range(4))
           for _ in range(60)]
  endings = ["", "s", "ed", "ing", "ment"]
  return collections.Counter(
      rng.choice(stems) + rng.choice(endings) for _ in range(size))


@pytest.mark.parametrize("vocab_size", (40, 41, 100, 257))
def test_the_size_is_the_one_asked_for(vocab_size):
  counts = make_words(3000)
  found = vocabulary.learn_vocabulary(
      counts, vocab_size=vocab_size, do_lower_case=True)
  assert len(found) == len(set(found)) == vocab_size
  assert found[:5] == list(SPECIAL_TOKENS)


def test_a_character_that_needs_two_entries_leaves_the_last_one_alone():
  found = vocabulary.learn_vocabulary(
      {"ab": 4}, vocab_size=5 + 3, do_lower_case=True)
  assert found[5:] == ["##a", "a", "ab"]


def test_the_order_of_the_counts_changes_nothing():
  counts = make_words(3000)
  shuffled = list(counts.items())
  random.Random(1).shuffle(shuffled)
  learn = lambda words: vocabulary.learn_vocabulary(
      words, vocab_size=150, do_lower_case=True)
  assert learn(counts) == learn(dict(shuffled))


def test_texts_too_few_for_the_size_are_an_error_that_names_the_size():
  # Six letters in two forms and "ab". "zb", "abc" stand there once, and so
  # does ##b##c once "ab" is a piece.
  texts = ["abc abd", "abe zbc"]
  with pytest.raises(InputError, match="received 100; .* give 18: ask for"):
    vocabulary.learn_vocabulary(texts, vocab_size=100, do_lower_case=True)
  found = vocabulary.learn_vocabulary(texts, vocab_size=18, do_lower_case=True)
  assert len(found) == 18 and found[-1] == "ab"
  with pytest.raises(InputError, match="No word"):
    vocabulary.learn_vocabulary([" "], vocab_size=100, do_lower_case=True)
  with pytest.raises(InputError, match="special tokens alone are 5"):
    vocabulary.learn_vocabulary(["a"], vocab_size=5, do_lower_case=True)


def test_slots_stand_behind_the_special_tokens():
  counts = make_words(3000)
  plain = vocabulary.learn_vocabulary(
      counts, vocab_size=97, do_lower_case=True)
  found = vocabulary.learn_vocabulary(
      counts, vocab_size=100, do_lower_case=True, num_unused=3)
  assert found == [
    *SPECIAL_TOKENS, "[unused0]", "[unused1]", "[unused2]", *plain[5:]]
  with pytest.raises(InputError, match="num_unused is 95"):
    vocabulary.learn_vocabulary(
        counts, vocab_size=100, do_lower_case=True, num_unused=95)


# A vocabulary to extend, with two slots apart from each other.
INITIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a",
           "##b", "[unused1]", "##c", "ab"]


def test_a_vocabulary_is_extended_as_worked_out_by_hand():
  # Pieces at first: ab ##c, a ##c, ab ##c ##b; z has none. Worth: z 10 * 7,
  # ab+##c 24, a+##c 5, ##c+##b 4; "abc" leaves abc+##b 4, a+##c 5.
  counts = {"abc": 20, "ac": 5, "abcb": 4, "z": 7, "ab": 90}
  extend = lambda size, **options: vocabulary.extend_vocabulary(
      INITIAL, counts, vocab_size=size, do_lower_case=True, **options)
  assert extend(11) == [
    "[PAD]", "z", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "abc",
    "##c", "ab"]
  assert extend(13) == [*extend(11), "ac", "abcb"]
  assert extend(12, num_unused=1) == [
    "[PAD]", "z", *INITIAL[2:8], "[unused1]", "##c", "ab", "abc"]


def test_pairs_that_spell_a_known_piece_take_no_entry():
  # "abq" is unknown, so that it starts as a ##b ##q. The form "q" does not
  # occur. All pairs stand five times; a+##b is first, and known.
  found = vocabulary.extend_vocabulary(
      INITIAL, {"abq": 5, "ab": 50}, vocab_size=11, do_lower_case=True)
  assert found == ["[PAD]", "##q", *INITIAL[2:8], "abq", "##c", "ab"]


def test_an_extended_vocabulary_splits_its_texts_less(shared):
  path = shared / "data/vocabularies/bert-base-uncased-vocab.txt"
  entries = path.read_text(encoding="utf-8").split("\n")[:-1]
  counts = {"ketoacidosis": 40, "the": 900, "hyperkalemia": 30,
            "ketogenesis": 8, "insulin": 60}
  counts |= {word + "x": 3 for word in ("aldosterone", "bradykinin")}
  extended = vocabulary.extend_vocabulary(
      entries, counts, vocab_size=len(entries), num_unused=980,
      do_lower_case=True)
  assert len(extended) == len(set(extended)) == 30522
  changed = [i for i, entry in enumerate(entries) if entry != extended[i]]
  # 994 slots: those with the lowest numbers are filled.
  assert 9 <= len(changed) < 14  # no more to learn: the others stay free
  assert [entries[i] for i in changed] == [
    f"[unused{number}]" for number in range(len(changed))]
  fits = [
    vocabulary.coverage(v, counts, do_lower_case=True)["pieces_per_word"]
    for v in (entries, extended)]
  assert fits[1] < fits[0]
  assert "hyperkalemia" in extended and "ketoacidosis" in extended


@pytest.mark.parametrize("size,options,message", (
  (10, {}, "received 10; the vocabulary to extend has 11 entries"),
  (11, {"num_unused": 2}, "has 11 entries, 0 of them slots to fill"),
  (11, {"num_unused": 3}, "num_unused: received 3; .* has 2 .unused. slots"),
  (20, {}, "received 20; .* give 14"),
))
def test_extensions_that_cannot_be_are_refused(size, options, message):
  with pytest.raises(InputError, match=message):
    vocabulary.extend_vocabulary(
        INITIAL, {"abc": 4, "ac": 3, "z": 2, "cz": 1}, vocab_size=size,
        do_lower_case=True, **options)


def test_no_piece_is_too_long_for_the_tokenizer():
  found = vocabulary.learn_vocabulary(
      {"é" * 200: 500, "ab": 2}, vocab_size=5 + 6 + 8, do_lower_case=False)
  assert max(len(entry.removeprefix("##")) for entry in found) == 128
  assert BertTokenizer(found, do_lower_case=False).vocab_size == 19


def test_coverage_is_that_worked_out_by_hand():
  entries = [*SPECIAL_TOKENS, "a", "b", "##b", "ab"]
  counts = {"ab": 6, "abb": 2, "c": 1, "a": 1}
  # Pieces: 6 * 1 + 2 * 2 + 1 * 1 (unknown) + 1 * 1 of 10 words.
  assert vocabulary.coverage(entries, counts, do_lower_case=True) == {
    "unknown_rate": 0.1, "pieces_per_word": 1.2}


def run_program(*flags):
  return subprocess.run(
      [sys.executable, str(ROOT / "tools" / "learn_vocabulary.py"), *flags],
      capture_output=True, text=True, cwd=ROOT)


def test_the_program_writes_a_vocabulary_that_the_tokenizer_reads(tmp_path):
  text = "Das Haus, die Häuser: Haus um Haus.\n\nNeue Häuser, neues Haus.\n"
  (tmp_path / "a.txt").write_text(text, encoding="utf-8")
  with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
    file.write(text * 20)
  output = tmp_path / "model" / "vocab.txt"
  done = run_program(
      f"--input_file={tmp_path}/*.txt,{tmp_path}/*.txt.gz",
      f"--output_file={output}", "--vocab_size=100", "--nodo_lower_case")
  # Far too little text for a hundred entries: says so, and writes nothing.
  assert done.returncode == 1 and not output.parent.exists()
  assert "learn_vocabulary.py: error: vocab_size: received 100" in done.stderr

  (tmp_path / "c.txt").write_text(
      " ".join(make_words(2000).elements()), encoding="utf-8")
  done = run_program(
      f"--input_file={tmp_path}/*.txt,{tmp_path}/*.txt.gz",
      f"--output_file={output}", "--vocab_size=120", "--nodo_lower_case")
  assert done.returncode == 0, done.stderr
  assert "120 entries; on these texts" in done.stderr
  assert sorted(path.name for path in output.parent.iterdir()) == [
    "tokenizer_config.json", "vocab.txt"]
  config = json.loads((output.parent / "tokenizer_config.json").read_text())
  assert config == {"do_lower_case": False}
  tokenizer = BertTokenizer.from_file(str(output))
  assert not tokenizer.do_lower_case
  assert tokenizer.vocab_size == 120
  assert tokenizer.vocabulary[:5] == SPECIAL_TOKENS
  ids = tokenizer.tokenize(["Haus"]).to_list()[0]
  assert tokenizer.unk_id not in ids


def test_the_program_extends_a_vocabulary(tmp_path):
  (tmp_path / "vocab.txt").write_text(
      "".join(entry + "\n" for entry in INITIAL), encoding="utf-8")
  (tmp_path / "a.txt").write_text(
      " ".join(make_words(2000).elements()), encoding="utf-8")
  options = {
    "input_file": (f"{tmp_path}/a.txt",), "vocab_size": 100, "num_unused": 1,
    "output_file": str(tmp_path / "new" / "vocab.txt"),
    "init_vocab_file": str(tmp_path / "vocab.txt")}
  vocabulary.run(VocabularyConfig(**options))
  tokenizer = BertTokenizer.from_file(options["output_file"])
  assert tokenizer.do_lower_case and tokenizer.vocab_size == 100
  assert [entry for entry in tokenizer.vocabulary if entry in INITIAL] == [
    entry for entry in INITIAL if entry != "[unused0]"]
  with pytest.raises(InputError, match="is lower-cased: give --do_lower_case"):
    vocabulary.run(VocabularyConfig(**options, do_lower_case=False))


def test_a_bad_line_of_the_texts_is_named_and_nothing_is_written(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\n")
  output = tmp_path / "model" / "vocab.txt"
  options = {
    "input_file": (f"{tmp_path}/a.txt",), "output_file": str(output),
    "vocab_size": 100}
  with pytest.raises(InputError, match="a.txt:2: .* not UTF-8"):
    vocabulary.run(VocabularyConfig(**options))
  with pytest.raises(InputError, match="b.txt: .* matches none|b.txt: no "):
    vocabulary.run(VocabularyConfig(
        **{**options, "input_file": (f"{tmp_path}/b.txt",)}))
  assert not output.parent.exists()


@pytest.mark.parametrize("name, form", [
  ("a.txt", "{0}\n"), ("a.jsonl", '{{"text": "{0}"}}\n'),
  ("wiki_00", '<doc id="1">\n{0}\n</doc>\n'), ("-", "{0}\n")])
def test_the_words_are_those_of_the_documents(
    tmp_path, monkeypatch, name, form):
  words = list(make_words(2000).elements())
  lines = [" ".join(words[i:i + 10]) for i in range(0, 2000, 10)]
  content = "".join(form.format(line) for line in lines).encode()
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
  (tmp_path / name).write_bytes(content)
  monkeypatch.setattr(vocabulary, "_LINES_AT_ONCE", 7)
  path = tmp_path / "new" / "vocab.txt"
  vocabulary.run(VocabularyConfig(
      input_file=("-" if name == "-" else str(tmp_path / name),),
      output_file=str(path), vocab_size=120))
  assert path.read_text(encoding="utf-8").split("\n")[:-1] == (
      vocabulary.learn_vocabulary(
          make_words(2000), vocab_size=120, do_lower_case=True))


def test_progress_is_reported_while_words_are_counted(
    tmp_path, monkeypatch, caplog):
  (tmp_path / "a.txt").write_text("the word\n" * 4000, encoding="utf-8")
  monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
  config = VocabularyConfig(
      input_file=(f"{tmp_path}/a.txt",), output_file="unused")
  with caplog.at_level("INFO"):
    lines = list(vocabulary._read_lines(corpus.open_corpus(config)))
  assert lines == ["the word"] * 4000
  # 9 bytes a line; a line of the log for every thousand of them.
  assert [message.split(",")[0] for message in caplog.messages] == [
    f"Counting words: {share}%" for share in (25, 50, 75, 100)]
  assert "18,000 bytes" in caplog.messages[1]


@pytest.mark.slow
def test_the_books_give_the_size_asked_for_without_unknown_words(
    shared, tmp_path):
  vocabulary.run(VocabularyConfig(
      input_file=(str(shared / "data/corpora/books_en.txt.gz"),),
      output_file=str(tmp_path / "vocab.txt"), vocab_size=30000))
  tokenizer = BertTokenizer.from_file(str(tmp_path / "vocab.txt"))
  assert tokenizer.vocab_size == 30000
  ids = tokenizer.tokenize(["A sentence that stands in none of the books."])
  assert tokenizer.unk_id not in ids.to_list()[0]


def test_the_examples_in_docstrings_hold():
  assert doctest.testmod(vocabulary).failed == 0
