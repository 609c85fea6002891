"""Questions about texts: SQuAD's own files and JSON Lines."""

import json

import pytest

from bert_tf.config import InputError
from bert_tf.data.squad_files import read_questions

CONTEXT = "Zo\u00eb  lives\nin Paris. Her cat does not."


def official(*questions, context=CONTEXT, **more):
  paragraph = {"context": context, "qas": list(questions), **more}
  return {"version": "1.1",
          "data": [{"title": "a", "paragraphs": [paragraph]}]}


def question(name="q1", answers=(("Paris", 14),), **more):
  return {"id": name, "question": "Where?", "answers": [
    {"text": text, "answer_start": start} for text, start in answers], **more}


def write(tmp_path, content, name="dev.json"):
  path = tmp_path / name
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return str(path)


def test_squads_own_form_becomes_rows(tmp_path):
  path = write(tmp_path, official(
      question(), question("q2", [], is_impossible=True),
      {"id": 3, "question": "Who?"}))
  assert read_questions(path) == {
    "id": ["q1", "q2", "3"],
    "question": ["Where?", "Where?", "Who?"],
    "context": [CONTEXT] * 3,
    "answers": [[{"text": "Paris", "answer_start": 14}], [], None],
    "is_impossible": [False, True, False],
    "where": [f"{path}: question {name!r}" for name in ("q1", "q2", "3")]}


def test_json_lines_become_the_same_rows(tmp_path):
  one = {**question(), "context": CONTEXT}
  two = {**question("q2", []), "context": "b"}
  path = write(
      tmp_path, f"{json.dumps(one)}\n\n{json.dumps(two)}\n", "dev.jsonl")
  rows = read_questions(path)
  assert rows["id"] == ["q1", "q2"] and rows["context"] == [CONTEXT, "b"]
  assert rows["answers"] == [[{"text": "Paris", "answer_start": 14}], []]
  assert rows["is_impossible"] == [False, True]
  assert rows["where"] == [f"{path}:1: question 'q1'",
                           f"{path}:3: question 'q2'"]


@pytest.mark.parametrize("text, start, found, place", [
  ("Paris", 14, "Paris", 14),
  # As it stands there, whatever white space the answer has.
  ("Zo\u00eb lives in", 0, "Zo\u00eb  lives\nin", 0),
  ("Zo\u00eb   lives", 0, "Zo\u00eb  lives", 0),
  (" lives in ", 4, "lives\nin", 5),
  ("in\tParis", 11, "in Paris", 11),
  (" lives", 4, " lives", 4),
])
def test_white_space_makes_no_difference(tmp_path, text, start, found, place):
  path = write(tmp_path, official(question(answers=[(text, start)])))
  (answer,), = read_questions(path)["answers"]
  assert answer == {"text": found, "answer_start": place}
  assert CONTEXT[place:place + len(found)] == found


@pytest.mark.parametrize("content, message", [
  ("{", "dev.json: not valid JSON"),
  ([], "dev.json: is not SQuAD's JSON.*jsonl"),
  ({"data": 1}, "dev.json: is not SQuAD's JSON"),
  ({"data": []}, "dev.json: holds no questions"),
  ({"data": ["x"]}, "dev.json: 'data' must hold objects; received 'x'"),
  ({"data": [{}]}, "article 1: 'paragraphs' must be a list; .*no such field"),
  (official(context=7), "paragraph 1: 'context' must be a text; received 7"),
  (official({"question": "Who?"}), "paragraph 1, question 1: 'id' must be"),
  (official(question(), question()),
   "question 'q1': there are two questions of this id"),
  (official({"id": "q1", "question": None}), "question 'q1': 'question' must"),
  (official(question(answers=[("Paris", 12)])),
   "dev.json: question 'q1': has the answer 'Paris' at character 12, where "
   "its context has 'n Par'"),
  (official(question(answers=[("not.", -4)])), "'not.' at character -4"),
  (official(question(answers=[("Paris", 99)])), "'Paris' at character 99"),
  (official(question(answers=[("Zo\u00eb in", 0)])),
   "has the answer 'Zo\u00eb in'"),
  (official(question(answers=[(" ", 4)])), "question 'q1': has the answer ' '"),
  (official(question(answers=[("Paris", "14")])), "'answer_start' must be a w"),
  (official(question(answers=[("Paris", True)])), "'answer_start' must be a w"),
  (official(question(is_impossible=True)), "is true, and there are answers"),
  (official(question(is_impossible=0)), "'is_impossible' must be true or fal"),
  (official(question(), context="\ud800 lives\nin     Paris"),
   "question 'q1': character 0 of 'context' is half of a surrogate pair"),
])
def test_bad_files_are_refused_by_name(tmp_path, content, message):
  with pytest.raises(InputError, match=message):
    read_questions(write(tmp_path, content))


@pytest.mark.parametrize("line, message", [
  ("{", "dev.jsonl:1: not valid JSON"),
  ("[]", "dev.jsonl:1: must hold a JSON object"),
  ('{"context": ""}', "dev.jsonl:1: 'id' must be"),
  ('{"id": "a"}', "dev.jsonl:1: question 'a': 'context' must be a text"),
  ('{"id": "a", "context": "b"}', "question 'a': 'question' must be a text"),
  ("", "dev.jsonl: holds no questions"),
])
def test_bad_lines_are_refused_by_number(tmp_path, line, message):
  with pytest.raises(InputError, match=message):
    read_questions(write(tmp_path, line + "\n", "dev.jsonl"))


def test_a_missing_file_is_refused(tmp_path):
  with pytest.raises(InputError, match="none.json: no such file"):
    read_questions(str(tmp_path / "none.json"))


@pytest.mark.parametrize("name, number, impossible", [
  ("train-v1.1-40articles.json", 9198, 0),
  ("dev-v1.1-8articles.json", 1372, 0),
  ("dev-v2.0-half.json", 6078, 3168),
])
def test_real_files_are_read_whole(shared, name, number, impossible):
  rows = read_questions(str(shared / "data" / "squad" / name))
  assert {len(column) for column in rows.values()} == {number}
  assert sum(rows["is_impossible"]) == impossible
  for context, answers in zip(rows["context"], rows["answers"]):
    for answer in answers:
      assert context.startswith(answer["text"], answer["answer_start"])
