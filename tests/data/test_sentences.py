"""Where sentences of running text end."""

import time

import pytest

from bert_tf.data import sentences
from bert_tf.data import text_files

# A bar stands where a sentence ends. Each line was judged by hand.
SENTENCES = """
One sentence without an end
One sentence.
He came.|She left.
Is it so?|It is!|Good.
He came. . . . and went on.
Mr. Hume and Mrs. Hume met Dr. Watson.|They dined.
Messrs. Grant & Co. Limited paid.|Nobody else did.
He lives in St. Petersburg.|She does not.
Gen. Lee met Col. Ray, Lt. Po and Capt. Cook.
The Rev. Mr. Brown and Prof. Moriarty spoke.
J. R. R. Tolkien wrote it.|Nobody read it.
J.R.R. Tolkien and C. S. Lewis met.
The U.S. Army left.|It rained.
He arrived at 5 p.m. Nobody saw him.=He arrived at 5 p.m.|Nobody saw him.
He arrived at 5 p.m. and left.
Bring pens, paper, etc. for the class.
Bring pens, paper, etc.|The class begins.
Some birds, e.g. Ravens, talk, i.e. They imitate.
See Fig. 2 and No. 5 on p. 7 of vol. 3.|Then stop.
He said no.|Then he left.
It was on Jan. 5.|It snowed.
We met in Jan.|He was ill.
Smith et al. 2019 say so.|Others do not.
It cost 3.50 dollars.|He paid.
Version 2.0 is out.|Get it.
He paid.|$5 was too much.
It was in 1905.|Then came the war.
1. Introduction to the matter.|2. The matter itself.
IV. The fourth chapter.|It is short.
A. First point.|B. Second point.
"Come here."|He came.
"Come here!" he said.|She came.
"Is it you?" asked the man.|"Yes."
He said, "Come here.|Sit down."
“Farewell all!” sighed she.|“This is the end.”
'Well,' said he.|'I am off.'
He left (at last).|She stayed.
He left.|(She stayed.)|They met again.
It is over...|Nobody came.
It is over... or so they say.
Wait… what is that?
What?!|No!!|Really.
_Really?_|He thought so.
It ended.|— And then it began.
You and I.|We two.
He knows J. Edgar and I. He left.=He knows J. Edgar and I.|He left.
The end.   |Three spaces before.
Il est parti.|Était-ce bien lui?|Oui.
M. Dupont et Mme. Durand sont là.|Ils partent.
¿Qué es?|¡Nada!|Bueno.
Он ушёл.|Она осталась.
А. С. Пушкин родился.|Он писал.
他走了。|她留下了！|真的吗？|是。
他说：「走吧。」|她走了。
「走吧。」
他走了。。
他问：「走吗？」
यह है।|वह था।
.|A stop in front.|He spoke to Mr. A.	Smith.
Visit example.com today.|Bye.
"""


def _cases():
  for line in SENTENCES.strip().split("\n"):
    text, _, expected = line.partition("=")
    expected = (expected or text).split("|")
    text = text if "=" in line else " ".join(expected)
    yield pytest.param(text, [s.strip() for s in expected], id=line[:30])


@pytest.mark.parametrize("text, expected", _cases())
def test_sentences_end_where_a_reader_ends_them(text, expected):
  assert sentences.split_sentences(text) == expected


# Without white space between the sentences. Each was judged by hand.
@pytest.mark.parametrize("expected", (
  "他走了。|她留下了！|真的吗？|是。",
  "本当ですか！？|はい。。。|そうです｡|では",
  "他说：「走吧。」|她走了。",
  "「明日は晴れ。」|彼は笑った。|『白鯨。』|読んだ？」|うん",
  "（これは注。）|本文です。",
  "“走吧。”|她走了。",
  # A quotation in its sentence, and a title.
  "「行こう。」と彼は言った。|そして行った。",
  "「行くよ！」って言った。|『「本当。」』と。|うん",
  "「走吧。」，他说。|她走了。",
  "《谁？》是一本书。|好看。",
  # The full-width ．: not in numbers, of Latin initials, or before digits.
  "円周率は３．１４である．|次に進む．",
  "図．３に示す．|表．4も．|終わり",
  "Ｊ．スミスとA．Bの論文．|「引用．」|続き",
  "彼の「引用」．|次の（注）．|終わり",
))
def test_stops_of_chinese_and_japanese_need_no_white_space(expected):
  expected = expected.split("|")
  assert sentences.split_sentences("".join(expected)) == expected


def test_long_runs_of_anything_cost_no_more_than_their_length():
  for unit in (
      ".", "a. ", "A. ", "! ", "_", " ", ".'", "Mr. A ", "。", "。」", "。 "):
    text = unit * (200000 // len(unit))
    start = time.monotonic()
    sentences.split_sentences(text)
    assert time.monotonic() - start < 5


def test_no_sentence_in_white_space():
  assert sentences.split_sentences("  \t ") == []


def test_splitting_loses_no_text(shared):
  path = str(shared / "data/corpora/books_en.txt.gz")
  for number, line in enumerate(text_files.read_lines(path)):
    if number == 3000:
      break
    found = sentences.split_sentences(line)
    assert "".join("".join(found).split()) == "".join(line.split())


def test_lines_are_sentences_or_running_text():
  lines = ["One. Two.", "Three. Four", "他走了。她留下了。"]
  assert sentences.to_sentences(lines, "none") == lines
  assert sentences.to_sentences(lines, "rules") == [
    "One.", "Two.", "Three.", "Four", "他走了。", "她留下了。"]
  assert sentences.to_sentences([], "rules") == []
  with pytest.raises(ValueError, match="received 'rule'; .* none, rules"):
    sentences.to_sentences(lines, "rule")
