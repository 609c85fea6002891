"""Tags of words: windows and labels, figures, files, exports."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import export
from bert_tf import finetuning
from bert_tf import metrics
from bert_tf.arguments import ExportConfig
from bert_tf.config import InputError
from bert_tf.data.conll import read_tagged
from bert_tf.heads import BertTokenClassifier
from bert_tf.modeling import BertEncoder
from bert_tf.reporting import MetricsWriter
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from bert_tf.tokenization import SPECIAL_TOKENS
from saved_model_loader import Loader
import small_models

ENTRIES = [*SPECIAL_TOKENS, *"abcdefgh", "##x", "##y", ".", "one", "two"]
TOKENIZER = BertTokenizer(ENTRIES, do_lower_case=True)
CONFIG = small_models.small_config(ENTRIES)
TASK = TASKS["tagging"]
A, B, C, D, E, F, G, H, X = range(5, 14)
LABELS = ["O", "B-X", "I-X", "B-Y", "I-Y"]


@pytest.fixture
def folder(tmp_path):
  return small_models.write_start(tmp_path, ENTRIES, CONFIG)


def config_for(folder, task_name="tagging", **options):
  return small_models.config_for(folder, task_name, **{
    "num_train_epochs": 40.0, "learning_rate": 1e-2, **options})


def sentences(*texts, documents=None):
  """Rows of texts such as "a/O b/B-X"."""
  pairs = [[word.rsplit("/", 1) for word in text.split(" ")]
           for text in texts]
  return {
    "words": [[word for word, _ in words] for words in pairs],
    "tags": [[tag for _, tag in words] for words in pairs],
    "document": documents or [0] * len(pairs),
    "where": [f"x:{i}" for i in range(len(pairs))]}


def encode(rows, length, **description):
  """(rows of ids without [CLS] and [SEP], their labels) of the examples."""
  encoded = TASK.encode(TOKENIZER, {
    "labels": LABELS, "max_seq_length": length, **description}, rows)
  ids = encoded.pieces["input_ids"].to_list()
  labels = encoded.pieces["labels"].to_list()
  assert all((row[0], row[-1]) == (2, 3) for row in ids)
  assert all((row[0], row[-1]) == (-1, -1) for row in labels)
  assert max(map(len, ids)) <= length
  assert not np.any(encoded.pieces["segment_ids"].flat_values)
  return encoded, [row[1:-1] for row in ids], [row[1:-1] for row in labels]


# Sequences.


def test_the_first_piece_of_a_word_has_its_label():
  encoded, ids, labels = encode(sentences(
      "axx/B-X b/I-X", "c/O", "\u200b/O dx/B-Y"), 8)
  assert ids == [[A, X, X, B], [C], [D, X]]
  assert labels == [[1, -1, -1, 2], [0], [3, -1]]
  # The one without pieces has no place.
  assert encoded.notes.word.tolist() == [0, 1, 2, 4]
  assert encoded.notes.example.tolist() == [0, 0, 1, 2]
  assert encoded.notes.position.tolist() == [1, 4, 1, 1]


THREE = sentences(
    "ax/B-X b/O", "c/B-Y", "d/O e/O", "f/O", documents=[0, 0, 0, 1])


@pytest.mark.parametrize("length, ids, labels", [
  # All of the first document fits.
  (8, [[A, X, B, C, D, E]] * 3 + [[F]],
   [[1, -1, 0, -1, -1, -1], [-1, -1, -1, 3, -1, -1],
    [-1, -1, -1, -1, 0, 0], [0]]),
  # Room for 4: one piece before c and two behind it.
  (6, [[A, X, B, C], [B, C, D, E], [B, C, D, E], [F]],
   [[1, -1, 0, -1], [-1, 3, -1, -1], [-1, -1, 0, 0], [0]]),
  # Room for 5: no window begins with the half of a word.
  (7, [[A, X, B, C, D], [B, C, D, E], [B, C, D, E], [F]],
   [[1, -1, 0, -1, -1], [-1, 3, -1, -1], [-1, -1, 0, 0], [0]]),
])
def test_a_document_fills_the_window(length, ids, labels):
  _, found_ids, found_labels = encode(THREE, length, document_context=True)
  assert found_ids == ids
  assert found_labels == labels


def test_without_context_a_sentence_is_alone():
  _, ids, labels = encode(THREE, 8)
  assert ids == [[A, X, B], [C], [D, E], [F]]
  assert labels == [[1, -1, 0], [3], [0, 0], [0]]


def test_a_long_sentence_is_split_and_each_word_scored_once():
  # Room for 4: parts of 2, and what is free around them is the sentence's.
  encoded, ids, labels = encode(sentences(
      "g/O", "a/O b/B-X c/I-X d/O e/B-Y", "h/O"), 6)
  assert ids == [[G], [A, B, C, D], [B, C, D, E], [B, C, D, E], [H]]
  assert labels == [
    [0], [0, 1, -1, -1], [-1, 2, 0, -1], [-1, -1, -1, 3], [0]]
  assert encoded.notes.word.tolist() == list(range(7))
  # With the document, the neighbours' words are there too.
  _, ids, _ = encode(sentences(
      "g/O", "a/O b/B-X c/I-X d/O e/B-Y", "h/O"), 6, document_context=True)
  assert ids[1:4] == [[G, A, B, C], [B, C, D, E], [C, D, E, H]]


def test_a_word_longer_than_the_window_is_cut(caplog):
  caplog.set_level("INFO")
  rows = sentences("a/O", "b/B-X c/O")
  rows["words"][1][0] = "b c d e f g"
  encoded, ids, labels = encode(rows, 6)
  # Its rest is gone, and is no context either.
  assert ids == [[A], [B, C, D, E], [C]]
  assert labels == [[0], [1, -1, -1, -1], [0]]
  assert encoded.notes.word.tolist() == [0, 1, 2]
  assert [record.message for record in caplog.records] == [
    "1 of 3 words are longer than 4 pieces and were cut.",
    "1 of 2 sentences are longer than 4 pieces and were split."]
  caplog.clear()
  encode(sentences("\u200b/O a/O", "\u200b/B-X"), 6)
  assert [record.message for record in caplog.records] == [
    "2 of 3 words have no pieces (control characters and the like) and get no "
    "tag."]


@pytest.mark.parametrize("is_document", [False, True])
@pytest.mark.parametrize("length", [3, 4, 7, 12])
def test_each_word_is_scored_once_at_its_first_piece(length, is_document):
  generator = np.random.default_rng(length)
  words = ["a", "bx", "cxyx", "\u200b", "d.e", "fxxxxxxxxxxx"]
  rows = {
    "words": [list(generator.choice(words, generator.integers(1, 12)))
              for _ in range(60)],
    "document": sorted(generator.integers(0, 9, 60).tolist()),
    "where": ["x"] * 60}
  rows["tags"] = [list(generator.choice(LABELS, len(x)))
                  for x in rows["words"]]
  encoded, ids, labels = encode(rows, length, document_context=is_document)
  flat = [word for words in rows["words"] for word in words]
  tags = [tag for tags in rows["tags"] for tag in tags]
  sentence_of = np.repeat(np.arange(60), [len(x) for x in rows["words"]])
  notes = encoded.notes
  assert notes.word.tolist() == [
    i for i, word in enumerate(flat) if word != "\u200b"]
  for word, example, position in zip(*notes[:3]):
    assert ENTRIES[ids[example][position - 1]] == flat[word][0]
    assert LABELS[labels[example][position - 1]] == tags[word]
  assert sum(label >= 0 for row in labels for label in row) == len(notes.word)
  # A window is a run of whole words of one document, or of one sentence.
  groups = {}
  for words, document, i in zip(rows["words"], rows["document"], range(60)):
    groups.setdefault(document if is_document else i, []).append(words)
  texts = {key: [
    piece for words in group for word in words
    for piece in TOKENIZER.tokenize([word]).to_list()[0][:length - 2]]
    for key, group in groups.items()}
  for example, row in enumerate(ids):
    sentence = sentence_of[notes.word[notes.example == example][0]]
    text = texts[rows["document"][sentence] if is_document else sentence]
    assert row[0] not in (X, X + 1)
    assert any(text[i:i + len(row)] == row for i in range(len(text)))


def test_conll_2003_fills_its_windows(shared):
  rows = read_tagged(str(shared / "data" / "conll2003" / "dev.txt"))
  tokenizer = BertTokenizer.from_file(str(
      shared / "data" / "vocabularies" / "bert-base-cased-vocab.txt"))
  labels = sorted({tag for tags in rows["tags"] for tag in tags})
  description = {"labels": labels, "max_seq_length": 128}
  alone = TASKS["conll2003"].encode(tokenizer, description, rows)
  filled = TASKS["conll2003"].encode(
      tokenizer, {**description, "document_context": True}, rows)
  for encoded in (alone, filled):
    assert len(encoded.notes.word) == 51362
    assert 3250 <= encoded.number < 3300
    assert encoded.lengths.max() == 128
  assert filled.lengths.mean() > 110 > 30 > alone.lengths.mean()


# Descriptions, figures, predictions.


def test_both_tags_of_a_type_are_known(folder):
  config = config_for(folder)
  assert TASK.describe(config, sentences("a/O b/B-Y", "c/B-X d/I-X")) == {
    "labels": ["O", "B-X", "I-X", "B-Y", "I-Y"]}
  assert TASK.describe(config, sentences("a/VERB b/NOUN")) == {
    "labels": ["NOUN", "VERB"]}
  config = config_for(folder, "conll2003").with_defaults(
      TASKS["conll2003"].defaults)
  assert TASKS["conll2003"].describe(config, sentences("a/B-X")) == {
    "labels": ["O", "B-X", "I-X"], "document_context": True}
  config = config_for(
      folder, "conll2003", document_context=False
  ).with_defaults(TASKS["conll2003"].defaults)
  assert "document_context" not in TASKS["conll2003"].describe(
      config, sentences("a/B-X"))
  assert config_for(folder).with_defaults({}).document_context is False


def outputs_that_say(encoded, tags, labels=LABELS):
  """Logits of log 3 for the tag of each scored word, and 0 for others."""
  logits = np.zeros((encoded.number, encoded.lengths.max(), len(labels)))
  for example, position, tag in zip(
      encoded.notes.example, encoded.notes.position, tags):
    logits[example, position, labels.index(tag)] = np.log(3)
  return {"logits": logits}


def test_figures_and_predictions_by_hand():
  rows = sentences("a/B-X bx/I-X \u200b/B-Y", "c/O d/B-Y")
  description = {"labels": LABELS, "max_seq_length": 8}
  encoded = TASK.encode(TOKENIZER, description, rows)
  outputs = outputs_that_say(encoded, ["B-X", "I-X", "O", "I-X"])
  # What has no pieces is O; of three entities one is found, of two said.
  assert TASK.predictions(description, rows, encoded, outputs) == {
    "predictions.txt": "a B-X B-X\nbx I-X I-X\n\u200b B-Y O\n\n"
                       "c O O\nd B-Y I-X\n"}
  assert TASK.metrics(description, rows, encoded, outputs) == {
    # 3 of 3 + 4, three times right, and once 1 of 7.
    "loss": pytest.approx((3 * np.log(7 / 3) + np.log(7)) / 4),
    "accuracy": pytest.approx(3 / 5), "precision": pytest.approx(1 / 2),
    "recall": pytest.approx(1 / 3), "f1": pytest.approx(2 / 5)}
  del rows["tags"]
  encoded = TASK.encode(TOKENIZER, description, rows)
  assert "labels" not in encoded.pieces
  written = TASK.predictions(description, rows, encoded, outputs)
  assert written["predictions.txt"].splitlines()[:3] == [
    "a B-X", "bx I-X", "\u200b O"]


def test_plain_tags_have_an_accuracy_alone():
  rows = sentences("a/NOUN b/VERB c/NOUN")
  description = {"labels": ["NOUN", "VERB"], "max_seq_length": 8}
  encoded = TASK.encode(TOKENIZER, description, rows)
  found = TASK.metrics(description, rows, encoded, outputs_that_say(
      encoded, ["NOUN", "NOUN", "NOUN"], description["labels"]))
  assert found == {
    "loss": pytest.approx((2 * np.log(4 / 3) + np.log(4)) / 3),
    "accuracy": pytest.approx(2 / 3)}


# Whole runs.


def write_columns(folder):
  """Train and dev: "one" begins an entity, and "two" behind it goes on."""
  pattern = {"one": "B-X", "two": "I-X"}
  blocks = []
  for first in "abcd":
    for words in ([first, "one", "two"], ["one", first], [first, "e"],
                  ["one", "two", "two", first]):
      blocks.append("".join(f"{w} x {pattern.get(w, 'O')}\n" for w in words))
  for split in ("train", "dev"):
    (folder / f"{split}.txt").write_text(
        "-DOCSTART- x O\n\n" + "\n".join(blocks))


def test_tags_are_learnt_from_conlls_columns(folder):
  write_columns(folder)
  results = finetuning.run(config_for(folder, document_context=True), TASK)
  assert results["f1"] == results["accuracy"] == 1.0
  assert json.loads((folder / "run" / "task.json").read_text()) == {
    "task_name": "tagging", "labels": ["O", "B-X", "I-X"],
    "document_context": True, "max_seq_length": 8}
  written = (folder / "run" / "predictions.txt").read_text()
  assert written.startswith(
      "a O O\none B-X B-X\ntwo I-X I-X\n\none B-X B-X\na O O\n\na O O\n")
  # Words without tags, in the other form.
  (folder / "test.jsonl").write_text('{"words": ["c", "one"]}\n')
  finetuning.run(config_for(
      folder, do_train=False, do_eval=False, bert_config_file=None), TASK)
  assert (folder / "run" / "predictions.txt").read_text() == (
    "c O\none B-X\n")


DEEP = dataclasses.replace(CONFIG, num_hidden_layers=4)


def variables_of(directory):
  source = checkpoints.open_source(str(directory))
  return {name: source.read(name) for name in source.shapes}


def start_of_features(folder):
  """Where a training of features begins: an encoder alone."""
  write_columns(folder)
  checkpoints.save_model(str(folder / "start"), BertEncoder(DEEP), TOKENIZER)
  return {"init_checkpoint": str(folder / "start"), "bert_config_file": None,
          "vocab_file": None, "features": "weighted_sum_last_four"}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["none", "bfloat16"])
def test_features_are_learnt_from_and_the_encoder_stays(folder, precision):
  options = start_of_features(folder)
  trained = finetuning.run(config_for(
      folder, **options, mixed_precision=precision), TASK)
  assert trained["f1"] == 1.0
  assert json.loads((folder / "run" / "task.json").read_text()) == {
    "task_name": "tagging", "labels": ["O", "B-X", "I-X"],
    "features": "weighted_sum_last_four", "max_seq_length": 8}
  start, found = variables_of(folder / "start"), variables_of(folder / "run")
  for name, value in start.items():
    assert found[name].tobytes() == value.tobytes(), name
  assert len(start) == 5 + 4 * 16 + 2
  assert found.keys() - start.keys() == {
    "features/layer_weights", "output_weights", "output_bias", *(
      f"features/bilstm_{i}/{way}_lstm/lstm_cell/{part}"
      for i in range(2) for way in ("forward", "backward")
      for part in ("kernel", "recurrent_kernel", "bias"))}
  assert np.ptp(found["features/layer_weights"]) > 1e-3
  # The directory alone is enough.
  again = finetuning.run(config_for(
      folder, do_train=False, bert_config_file=None, vocab_file=None,
      mixed_precision=precision), TASK)
  np.testing.assert_allclose(again["loss"], trained["loss"], rtol=1e-5)
  assert again["f1"] == 1.0


@pytest.mark.slow
def test_a_training_of_features_that_was_cut_goes_on(folder):
  options = {**start_of_features(folder), "num_train_epochs": 10.0,
             "log_steps": 5, "save_checkpoints_steps": 10}
  whole, parts = (
    config_for(folder, **{**options, "output_dir": str(folder / name)})
    for name in ("whole", "parts"))
  finetuning.run(whole, TASK)
  original = MetricsWriter.write

  def write(self, split, step, metrics):
    original(self, split, step, metrics)
    if step == 15:
      raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(MetricsWriter, "write", write)
    with pytest.raises(KeyboardInterrupt):
      finetuning.run(parts, TASK)
  finetuning.run(parts, TASK)
  one, two = (variables_of(folder / name) for name in ("whole", "parts"))
  for name, value in one.items():
    np.testing.assert_array_equal(two[name], value, err_msg=name)


def test_features_have_a_learning_rate_of_their_own(folder):
  rate = lambda **options: config_for(
      folder, **options).with_defaults(TASK.defaults).learning_rate
  assert rate(learning_rate=None) == 5e-5
  assert rate(learning_rate=None, features="last") == 1e-3
  assert rate(learning_rate=2e-4, features="last") == 2e-4
  with pytest.raises(InputError, match="--features give a --learning_rate"):
    config_for(folder, learning_rate=None, features="last", grid=True)
  for options in ({"freeze_layers": 1}, {"layer_decay": 0.9}):
    with pytest.raises(InputError, match="trains no layer of the encoder"):
      config_for(folder, features="last", **options)
  with pytest.raises(InputError, match="--features: received 'first'"):
    config_for(folder, features="first")


@pytest.mark.parametrize("train, dev, message", [
  ("a B-X\n", "b B-X\nc B-Z\n",
   "dev.txt:1: word 2 of the sentence, 'c', has the tag 'B-Z', which no tr"),
  ("a O\n", "a O\n", "all words of the training rows have the tag 'O'"),
  ("a\n", "a O\n", "train.txt: words have no tags; give each its tag"),
  ("\u200b B-X\n", "a O\n", "train.txt:1: neither this sentence nor any oth"),
])
def test_bad_rows_are_refused(folder, train, dev, message):
  (folder / "train.txt").write_text(train)
  (folder / "dev.txt").write_text(dev)
  with pytest.raises(InputError, match=message):
    finetuning.run(config_for(
        folder, do_predict=False, train_batch_size=1), TASK)
  assert TASK.read(config_for(folder), "test") is None


# Exports.

LENGTH = 8
TEXTS = [
  "One two a.", "", "axx Bxy one\u00a0two ONE.", " \n\t",
  "one \udcff two \udce4a", "a b c one two axy " * 9, "qqq one", "one two a",
]


def encoded_texts():
  return [text.encode("utf-8", "surrogateescape") for text in TEXTS]


CASES = (
  (tuple(LABELS), None), (("NOUN", "VERB", "X"), None),
  (tuple(LABELS), "weighted_sum_all"),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """{(labels, features): (path of an export, its model)}"""
  found = {}
  for labels, features in CASES:
    directory = tmp_path_factory.mktemp("tagging")
    model = BertTokenClassifier(
        dataclasses.replace(CONFIG, num_hidden_layers=2 if features else 1),
        num_classes=len(labels), features=features)
    # So that it says different tags.
    seed, in_blocks, elsewhere = (5, 0.2, 1.0) if features else (4, 0.4, 0.4)
    generator = np.random.default_rng(seed)
    for name, variable in checkpoints.checkpoint_names(model).items():
      variable.assign(generator.normal(
          1 if name.endswith("gamma") else 0,
          in_blocks if name.startswith("bert/encoder/") else elsewhere,
          variable.shape))
    checkpoints.save_model(
        str(directory / "model"), model, TOKENIZER,
        task={"task_name": "conll2003", "kind": "tagging",
              "labels": list(labels), "max_seq_length": LENGTH,
              **({"features": features} if features else {})})
    found[labels, features] = export.run(ExportConfig(
        model_dir=str(directory / "model"),
        export_dir=str(directory / "export")), TASKS), model
  return found


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


def scores_of(model, ids):
  """Probabilities [pieces, C] of one text, a window at a time."""
  room = LENGTH - 2
  stride, starts = room // 2, [0]
  while starts[-1] + room < len(ids):
    starts.append(starts[-1] + stride)
  scores = []
  for start in starts:
    logits = model({"input_ids": np.array(
        [[2, *ids[start:start + room], 3]])})["logits"]
    scores.append(tf.nn.softmax(logits)[0, 1:-1].numpy())
  found = []
  for k in range(len(ids)):
    inner = [i for i, start in enumerate(starts)
             if room // 4 <= k - start < room // 4 + stride]
    ends = 0 if k < room // 4 else len(starts) - 1
    window = inner[0] if inner else ends
    found.append(scores[window][k - starts[window]])
  return np.array(found)


def expected_answer(model, labels, text):
  """(starts, ends, tags, probabilities, entities) of one text."""
  ids, starts, ends = (
    x.to_list()[0] for x in TOKENIZER.tokenize_with_offsets([text]))
  scores = scores_of(model, ids)
  words = [i for i, piece in enumerate(ids)
           if not ENTRIES[piece].startswith("##")]
  head = [max(word for word in words if word <= i) for i in range(len(ids))]
  tags = [labels[scores[i].argmax()] for i in head]
  found = []
  if "O" in labels:
    behind = [*words[1:], len(ids)]
    for name, first, last in metrics.entities([tags[i] for i in words]):
      start, end = starts[words[first]], ends[behind[last] - 1]
      found.append((
        text[start:end].decode("utf-8", "surrogateescape"), name, start, end))
  return starts, ends, tags, [scores[i].max() for i in head], found


def assert_rows(array, rows, padding, check=np.testing.assert_array_equal):
  assert array.shape == (len(rows), max(map(len, rows)))
  for found, row in zip(array, rows):
    check(found[:len(row)], row)
    assert (found[len(row):] == padding).all()


@pytest.mark.parametrize("labels, features", CASES)
def test_cpp_tags_as_the_model_does(loader, exported, labels, features):
  path, model = exported[labels, features]
  answer = loader.ask(
      saved_model=path, signature="serving_default", inputs={"text": TEXTS})
  starts, ends, tags, probabilities, found = zip(*(
    expected_answer(model, labels, text) for text in encoded_texts()))
  assert_rows(answer["starts"], starts, -1)
  assert_rows(answer["ends"], ends, -1)
  assert_rows(answer["tags"], tags, "")
  assert_rows(
      answer["probabilities"], probabilities, 0,
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5))
  assert answer["starts"].dtype == answer["ends"].dtype == np.int32
  assert len({tag for row in tags for tag in row}) >= len(labels) - 1
  if "O" not in labels:
    assert sorted(answer) == ["ends", "probabilities", "starts", "tags"]
    return
  names = ("entities", "entity_types", "entity_starts", "entity_ends")
  for i, name in enumerate(names):
    assert_rows(answer[name], [[x[i] for x in row] for row in found],
                "" if i < 2 else -1)
  # There are entities of several words, and texts without any.
  assert any(" " in x[0] for row in found for x in row)
  assert sum(map(len, found)) > 10
  in_python = tf.saved_model.load(path).signatures["serving_default"](
      text=tf.constant(encoded_texts()))
  assert sorted(in_python) == sorted(answer)
  for name, value in in_python.items():
    assert tuple(value.shape) == answer[name].shape


@pytest.mark.parametrize("texts", [[], [""], ["", " "]])
@pytest.mark.parametrize("features", [None, "weighted_sum_all"])
def test_texts_without_pieces_have_empty_rows(
    loader, exported, texts, features):
  path, _ = exported[tuple(LABELS), features]
  answer = loader.ask(
      saved_model=path, signature="serving_default", inputs={"text": texts})
  assert {value.shape for value in answer.values()} == {(len(texts), 0)}
  assert len(answer) == 8
