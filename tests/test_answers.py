"""From scores to answers: cases by hand, and the original's loops."""

import json

import numpy as np
import pytest

from bert_tf import answers
from bert_tf.answers import Answer
from bert_tf.answers import Found
from bert_tf.answers import Windows


def windows_of(*questions, room, stride, position=3):
  """Windows over contexts of so many pieces, one byte each."""
  parts = []
  for row, size in enumerate(questions):
    first = 0
    while True:
      parts.append((row, first, min(size - first, room), position))
      if first + room >= size:
        break
      first += stride
  most = max(questions)
  return Windows(
      *np.array(parts).T, begin=np.zeros(len(questions), int),
      piece_start=np.arange(most), piece_end=np.arange(most) + 1)


def outputs_of(windows, length, start=(), end=()):
  """Logits of -9, but those of {(window, place): logit}."""
  logits = {}
  for name, given in (("start_logits", start), ("end_logits", end)):
    logits[name] = np.full((len(windows.row), length), -9, np.float32)
    for place, value in dict(given).items():
      logits[name][place] = value
  return logits


def find(windows, contexts, outputs, n_best_size=20, max_answer_length=30):
  return answers.find_answers(
      windows, contexts, outputs, n_best_size=n_best_size,
      max_answer_length=max_answer_length)


def test_a_piece_counts_where_it_has_most_context():
  # The original's example, its two windows: "the man went to the", "to the
  # store and bought", and those of "and bought a gallon of".
  windows = Windows(
      np.array([0, 0, 0]), np.array([0, 3, 6]), np.array([5, 5, 5]),
      np.array([2, 2, 2]), np.array([0]), None, None)
  assert answers.has_most_context(windows, 8).astype(int).tolist() == [
    # Piece 3 has one piece to its right here; there it is the first.
    [0, 0, 1, 1, 1, 1, 0, 0],
    # "the": 0 to the right in the first window, 1 to the left here.
    [0, 0, 0, 1, 1, 1, 0, 0],
    [0, 0, 0, 1, 1, 1, 1, 0]]


def test_on_a_tie_a_piece_counts_in_the_longer_then_in_the_first_window():
  windows = Windows(
      np.array([0, 0, 1, 1]), np.array([0, 2, 0, 2]), np.array([3, 4, 3, 3]),
      np.array([1, 1, 1, 1]), np.array([0, 0]), None, None)
  assert answers.has_most_context(windows, 6).astype(int).tolist() == [
    # Piece 2: none to the right here, none to the left there.
    [0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0],
    [0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]


def test_the_best_valid_pair_is_the_answer():
  windows = windows_of(6, room=9, stride=3)
  outputs = outputs_of(
      windows, 10,
      # Place 1 is in the question, 9 is [SEP].
      start={(0, 1): 9, (0, 6): 5, (0, 4): 3, (0, 9): 9},
      end={(0, 5): 6, (0, 7): 2, (0, 9): 8, (0, 0): 7})
  (found,) = find(windows, ["abcdef"], outputs)
  # 4 to 5: 3 + 6. 6 to 7: 5 + 2. 6 to 5 is no pair.
  assert found.best[:2] == [Answer("bc", 3, 6), Answer("de", 5, 2)]
  assert found.text == "bc"
  assert found.null == Answer("", -9, 7)
  assert found.null_odds == (-9 + 7) - (3 + 6)
  (found,) = find(windows, ["abcdef"], outputs, max_answer_length=1)
  # Now one piece each: 5 - 9 at d, -9 + 6 at c.
  assert found.best[:2] == [Answer("c", -9, 6), Answer("d", 5, -9)]


def test_only_the_n_best_starts_and_ends_are_looked_at():
  windows = windows_of(6, room=9, stride=3)
  outputs = outputs_of(
      windows, 10, start={(0, 0): 9, (0, 4): 3, (0, 5): 4, (0, 3): 2},
      end={(0, 0): 9, (0, 4): 5, (0, 7): 4})
  (found,) = find(windows, ["abcdef"], outputs, n_best_size=2)
  # [CLS] is one of the two starts and ends each: c is left, and b, before it.
  assert found == Found([], Answer("", 9, 9))
  assert found.text == "" and found.null_odds == 10000
  (found,) = find(windows, ["abcdef"], outputs, n_best_size=3)
  assert [(one.text, one.score) for one in found.best] == [
    ("cde", 8), ("b", 8), ("bcde", 7)]


def test_texts_come_once_and_best_first_over_all_windows():
  # Windows abcd and cdab; "ab" stands twice.
  windows = windows_of(6, room=4, stride=2)
  outputs = outputs_of(
      windows, 8, start={(0, 3): 2, (1, 5): 4, (1, 6): 1, (0, 6): 50},
      end={(0, 4): 2, (1, 6): 4, (0, 6): 1, (0, 0): -7, (1, 0): -8})
  (found,) = find(windows, ["abcdab"], outputs)
  texts = [one.text for one in found.best]
  assert texts[0] == "ab" and len(set(texts)) == len(texts)
  # d at 0.6 has less context there than in the second window.
  assert found.best[0] == Answer("ab", 4, 4)
  assert found.best[1] == Answer("b", 1, 4)
  assert found.null == Answer("", -9, -8)


def test_equal_scores_keep_the_order_of_the_places():
  windows = windows_of(4, room=9, stride=3)
  outputs = outputs_of(windows, 8)
  (found,) = find(windows, ["abcd"], outputs)
  # Among equals the first places of the window are the n best ones.
  assert [one.text for one in found.best] == [
    "a", "ab", "abc", "abcd", "b", "bc", "bcd", "c", "cd", "d"]


def test_answers_are_cut_from_bytes():
  context = "\u00e9 \u4e2d\u6587."
  windows = Windows(
      np.array([0]), np.array([0]), np.array([4]), np.array([3]),
      np.array([1]), np.array([99, 0, 3, 6, 9]), np.array([99, 2, 6, 9, 10]))
  outputs = outputs_of(windows, 9, start={(0, 3): 5}, end={(0, 4): 5})
  assert find(windows, [context], outputs)[0].text == "\u00e9 \u4e2d"


def test_a_context_without_pieces_has_no_answer():
  windows = windows_of(0, 2, room=4, stride=2)
  found = find(windows, [" ", "ab"], outputs_of(windows, 8))
  assert found[0].best == [] and found[0].text == ""
  assert found[0].null_odds == 10000
  assert found[1].text == "a"


def test_no_answer_is_among_the_n_best_or_behind_them():
  found = Found([Answer("a", 3.0, 1.0), Answer("b", 2.0, 1.0)],
                Answer("", 2.5, 1.0))

  def of(found, n_best_size, with_null=True):
    return [one["text"] for one in answers.n_best(
        found, n_best_size=n_best_size, with_null=with_null)]

  assert of(found, 20) == ["a", "", "b"] and of(found, 2) == ["a", ""]
  # As many as there may be, and no answer beside them.
  assert of(found, 1) == ["a", ""]
  assert of(found, 20, with_null=False) == ["a", "b"]
  # An answer as good as none goes before it.
  assert of(Found(found.best, Answer("", 3.0, 0.0)), 20) == ["a", "b", ""]
  assert of(Found([], Answer("", 3.0, 0.0)), 20, with_null=False) == [""]


def test_files_are_those_of_the_original():
  found = {
    "z": Found([Answer("a", 2.0, 1.0), Answer("b", 1.0, 0.0)],
               Answer("", 1.0, 1.0)),
    "c": Found([Answer("d", 0.0, 0.0)], Answer("", 1.0, 0.5))}
  files = answers.prediction_files(found, n_best_size=20)
  assert sorted(files) == ["nbest_predictions.json", "predictions.json"]
  assert files["predictions.json"] == '{\n    "z": "a",\n    "c": "d"\n}\n'
  nbest = json.loads(files["nbest_predictions.json"])
  assert list(nbest) == ["z", "c"]
  # Scores 3 and 1.
  assert nbest["z"] == [
    {"text": "a", "probability": pytest.approx(1 / (1 + np.exp(-2))),
     "start_logit": 2.0, "end_logit": 1.0},
    {"text": "b", "probability": pytest.approx(1 / (1 + np.exp(2))),
     "start_logit": 1.0, "end_logit": 0.0}]

  def of(threshold):
    files = answers.prediction_files(
        found, n_best_size=20, threshold=threshold)
    assert json.loads(files["null_odds.json"]) == {"z": -1.0, "c": 1.5}
    return json.loads(files["predictions.json"])

  assert of(0.0) == {"z": "a", "c": ""}
  # No answer only above the threshold.
  assert of(1.5) == {"z": "a", "c": "d"}
  assert of(-2.0) == {"z": "", "c": ""}


# What run_squad.py's write_predictions does, as loops over one question.


def by_loops(windows, row, context, outputs, n, longest):
  def best(logits):
    return sorted(range(len(logits)), key=lambda i: -logits[i])[:n]

  def counts(w, place):
    scores = {}
    for other in np.nonzero(windows.row == row)[0]:
      piece = windows.first[w] + place - windows.position[w]
      left = piece - windows.first[other]
      right = windows.first[other] + windows.size[other] - 1 - piece
      if left >= 0 and right >= 0:
        scores[other] = 100 * min(left, right) + windows.size[other]
    return scores and max(scores, key=scores.get) == w

  pairs, null = [], np.inf
  for w in np.nonzero(windows.row == row)[0]:
    behind = windows.position[w] + windows.size[w]
    start = outputs["start_logits"][w, :behind + 1].astype(float)
    end = outputs["end_logits"][w, :behind + 1].astype(float)
    null = min(null, start[0] + end[0])
    for s in best(start):
      for e in best(end):
        if windows.position[w] <= s <= e < behind and (
            e - s + 1 <= longest and counts(w, s)):
          shift = windows.first[w] - windows.position[w]
          pairs.append((context[s + shift:e + shift + 1], start[s], end[e]))
  pairs.sort(key=lambda pair: -(pair[1] + pair[2]))
  seen = {}
  for text, one, other in pairs:
    if len(seen) < n:
      seen.setdefault(text, (one, other))
  return [(text, *logits) for text, logits in seen.items()], null


@pytest.mark.parametrize("n, longest", [(20, 30), (5, 4), (1, 1)])
def test_the_answers_are_those_of_the_originals_loops(
    monkeypatch, n, longest):
  monkeypatch.setattr(answers, "_QUESTIONS", 3)  # Several parts.
  generator = np.random.default_rng(5)
  sizes = [0, 1, 5, 12, 13, 14, 30, 41]
  contexts = ["".join(generator.choice(list("abc"), size)) for size in sizes]
  for stride in (2, 3, 7, 12):
    windows = windows_of(*sizes, room=12, stride=stride)
    # Halves: there are ties.
    outputs = {
      name: (generator.integers(-8, 8, (len(windows.row), 20)) / 2).astype(
          np.float32) for name in ("start_logits", "end_logits")}
    found = find(windows, contexts, outputs, n, longest)
    assert len(found) == len(sizes)
    for row, context in enumerate(contexts):
      expected, null = by_loops(windows, row, context, outputs, n, longest)
      assert [tuple(one) for one in found[row].best] == expected
      assert found[row].null.score == null
