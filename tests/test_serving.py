"""Signatures of every kind of export: their answers, and bad requests.

What is asked in C++ is asked in a process of its own, which a crash would end.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import serving
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.heads import BertMultipleChoice
from bert_tf.heads import BertSpanLabeler
from bert_tf.heads import BertTokenClassifier
from bert_tf.modeling import BertEncoder
import difficult_text
from saved_model_loader import Loader
from saved_model_loader import LoaderError
from test_export import CONFIG
from test_export import ENTRIES
from test_export import Exported
from test_export import LABELS
from test_export import POSITIONS
from test_export import encoded
from test_export import export_model
from test_export import nodes_of

THREADS = 8
IOB = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def description(name, **more):
  return {"task_name": name, "max_seq_length": 16, **more}


# {name: (model, description, flags)}
EXPORTS = {
  "pretrained": (lambda: BertForPreTraining(CONFIG), None, {}),
  "encoder": (
    lambda: BertEncoder(CONFIG), None,
    {"pooling": "cls", "l2_normalize": True}),
  "left_to_right": (
    lambda: BertForPreTraining(
        dataclasses.replace(CONFIG, attention="left_to_right")), None,
    {"pooling": "max"}),
  "classification": (
    lambda: BertClassifier(CONFIG, num_classes=3),
    description("classification", labels=LABELS), {}),
  "windows": (
    lambda: BertClassifier(CONFIG, num_classes=3),
    description("classification", labels=LABELS, doc_stride=6), {}),
  "pairs": (
    lambda: BertClassifier(CONFIG, num_classes=3),
    description("mnli", kind="classification", labels=LABELS, is_pair=True),
    {}),
  "bilstm": (
    lambda: BertClassifier(CONFIG, num_classes=3, head="bilstm"),
    description("classification", labels=LABELS, head="bilstm"), {}),
  "multilabel": (
    lambda: BertClassifier(CONFIG, num_classes=3),
    description("multilabel", labels=LABELS), {}),
  "regression": (
    lambda: BertClassifier(CONFIG, num_classes=1),
    description("sts-b", kind="regression", is_pair=True), {}),
  "tagging": (
    lambda: BertTokenClassifier(CONFIG, num_classes=len(IOB)),
    description("tagging", labels=IOB), {}),
  "parts_of_speech": (
    lambda: BertTokenClassifier(CONFIG, num_classes=2),
    description("tagging", labels=["NOUN", "VERB"]), {}),
  "spans": (
    lambda: BertSpanLabeler(CONFIG),
    description(
        "squad", kind="spans", max_query_length=6, doc_stride=4,
        max_answer_length=4, version_2_with_negative=True), {}),
  "multiple_choice": (
    lambda: BertMultipleChoice(CONFIG), description("multiple_choice"), {}),
}


@pytest.fixture(scope="module", params=list(EXPORTS))
def exported(request, tmp_path_factory) -> Exported:
  make_model, task, flags = EXPORTS[request.param]
  return export_model(
      tmp_path_factory.mktemp(request.param), make_model(), task, **flags)


@pytest.fixture(scope="module")
def loader():
  with Loader() as process:
    yield process


def as_text(content: bytes) -> str:
  return content.decode("utf-8", "surrogateescape")


def serialized(**features) -> str:
  """A `tf.Example` with lists of texts or of numbers."""
  example = tf.train.Example()
  for name, values in features.items():
    feature = example.features.feature[name]
    if isinstance(values[0], str):
      feature.bytes_list.value.extend(encoded(values))
    else:
      feature.int64_list.value.extend(values)
  return as_text(example.SerializeToString())


# Requests.


@dataclasses.dataclass(frozen=True)
class Subject:
  """A signature of an export, and requests for it.

  A row of a request is a text for each of the `names`; of signatures over
  pieces, [S, 3]: a value for each of `serving.INPUTS`. A second choice, where
  there are choices, begins with "dog", or has the other segments.
  """

  loader: Loader
  path: str
  signature: str
  form: str  # "texts", "examples" or "pieces"
  names: list[str]
  rank: int  # of pieces

  def request(self, rows) -> dict:
    if self.form == "pieces":
      rows = np.asarray(rows, np.int64) if len(rows) else np.zeros([0, 4, 3])
      inputs = {name: self.array(rows[..., i])
                for i, name in enumerate(serving.INPUTS)}
      if self.rank == 3:
        inputs["segment_ids"] = self.array(
            np.stack([rows[..., 2], 1 - rows[..., 2]], axis=1))
      return inputs
    if self.form == "examples":
      return {"inputs": [
        serialized(**{name: [text] for name, text in zip(self.names, row)})
        for row in rows]}
    inputs = {name: [row[i] for row in rows]
              for i, name in enumerate(self.names)}
    if "choices" in inputs:
      inputs["choices"] = self.array(np.array(
          [[text, f"dog {text}"] for text in inputs["choices"]],
          object).reshape(len(rows), 2))
    return inputs

  def array(self, values: np.ndarray) -> dict:
    """Of any shape; pieces [B, S] are those of both choices, if there are any.
    """
    if self.form == "pieces" and self.rank == 3 and values.ndim == 2:
      values = np.repeat(values[:, None], 2, axis=1)
    return {"shape": values.shape, "values": values.ravel().tolist()}

  def ask(self, request: dict) -> dict[str, np.ndarray]:
    return self.loader.ask(
        saved_model=self.path, signature=self.signature, inputs=request)


def subjects_of(loader: Loader, path: str) -> list[Subject]:
  """All signatures of an export."""
  signatures = loader.ask(saved_model=path)
  names = list(signatures["serving_default"]["inputs"])
  found = []
  for signature, tensors in sorted(signatures.items()):
    form = {"input_ids": "pieces", "inputs": "examples"}.get(
        sorted(tensors["inputs"])[0], "texts")
    found.append(Subject(
        loader, path, signature, form, sorted(names),
        3 if "choices" in names else 2))
  return found


@pytest.fixture(scope="module")
def subjects(loader, exported) -> list[Subject]:
  return subjects_of(loader, exported.path)


PLAIN = "the cat sat on a mat."
ODD = [
  "", " \n\t\r\u2028\u3000", "\0", "\udcff", "\udce4\udcb8", "[MASK]",
  "a\udcff[MASK]\udcfe cat \udcc3", "\udced\udca0\udc80", "[MASK]" * 40,
  "\u0301\u0301", "\u202e\u200d\ufeff", "a\u0301" * 300,
]
MEGABYTE = [
  "cat " * 250_000, "c" * 1_000_000, "\udcff" * 1_000_000,
  "[MASK] " * 150_000, "," * 1_000_000, "\u4e2d" * 333_333, " " * 1_000_000,
  "a" + "\u0301" * 500_000,
]


def plain_row(subject):
  if subject.form == "pieces":
    return [[2, 1, 0], [5, 1, 0], [6, 1, 1], [3, 1, 1]]
  return [PLAIN] * len(subject.names)


def assert_same_row(one: dict, two: dict, i: int = 0, j: int = 0):
  """Row i of one answer is row j of another, whatever the padding."""
  assert sorted(one) == sorted(two)
  for name in one:
    a, b = one[name][i:i + 1], two[name][j:j + 1]
    if a.shape != b.shape:
      both = tuple(slice(min(pair)) for pair in zip(a.shape, b.shape))
      for longer in (a, b):
        rest = longer.copy()
        rest[both] = np.zeros((), longer.dtype)
        assert set(rest.ravel().tolist()) <= {"", 0, -1}, name
      a, b = a[both], b[both]
    if a.dtype == object:
      np.testing.assert_array_equal(a, b, err_msg=name)
    else:
      np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4, err_msg=name)


def assert_sane(answer: dict, batch: int):
  """The batch is first in each output, and numbers are numbers."""
  assert answer
  for name, value in answer.items():
    assert value.shape[:1] == (batch,), name
    if value.dtype != object:
      assert np.isfinite(value).all(), name


def bad_pieces(subject):
  row = np.array(plain_row(subject))
  for i, value in (
      (0, -1), (0, len(ENTRIES)), (0, 2**31 - 1), (0, -2**31), (1, 2),
      (1, -1), (2, 2), (2, -1)):
    wrong = row.copy()
    wrong[1, i] = value
    yield f"{serving.INPUTS[i]} {value}", subject.request([row, wrong])
  yield "too long", subject.request([np.tile(row, (POSITIONS, 1))])
  for name in serving.INPUTS:
    for shape in ((1, 4), (3, 4), (2, 3), (2, 1), (2,), (), (2, 4, 1, 1)):
      request = subject.request([row, row])
      request[name] = subject.array(np.ones(shape, int))
      yield f"{name} {shape}", request
  if subject.signature == "pre_tokenized" and "embedding" in (
      subject.ask(subject.request([row]))):
    empty = row.copy()
    empty[:, 1] = 0
    yield "no piece", subject.request([row, empty])


def bad_texts(subject):
  for name in subject.names:
    good = subject.request([plain_row(subject)] * 2)
    shapes = ((), (2,), (2, 2, 1)) if name == "choices" else ((), (2, 1))
    for shape in shapes:
      yield f"{name} {shape}", {
        **good, name: subject.array(np.full(shape, PLAIN, object))}
    if len(subject.names) > 1:
      for number in (0, 1, 3):
        part = subject.request([plain_row(subject)] * number)
        yield f"{number} of {name}", {**good, name: part[name]}


def bad_examples(subject):
  good = {name: [PLAIN] for name in subject.names}
  wrong = {
    "nothing": serialized(), "no message": "\udcff\udcff",
    "cut": serialized(**good)[:-1]}
  for name in subject.names:
    wrong[f"{name} missing"] = serialized(
        **{key: value for key, value in good.items() if key != name})
    wrong[f"{name} a number"] = serialized(**{**good, name: [1]})
    wrong[f"{name} twice"] = serialized(**{**good, name: [PLAIN] * 2})
  for why, example in wrong.items():
    yield why, {"inputs": [serialized(**good), example]}
  for shape in ((), (2, 1)):
    yield f"inputs {shape}", {
      "inputs": subject.array(np.full(shape, serialized(**good), object))}


BAD = {"texts": bad_texts, "examples": bad_examples, "pieces": bad_pieces}


@pytest.mark.slow
def test_bad_requests_are_errors_and_the_next_is_answered(subjects):
  for subject in subjects:
    plain = subject.request([plain_row(subject)])
    before = subject.ask(plain)
    for why, request in BAD[subject.form](subject):
      try:
        answer = subject.ask(request)
      except LoaderError:
        continue
      pytest.fail(f"{subject.signature}, {why}: answered {answer}")
    assert_same_row(subject.ask(plain), before)


@pytest.mark.slow
def test_odd_requests_are_answered_and_the_row_beside_is_as_ever(subjects):
  for subject in subjects:
    plain = plain_row(subject)
    alone = subject.ask(subject.request([plain]))
    assert_sane(alone, 1)
    assert_sane(subject.ask(subject.request([])), 0)
    if subject.form == "pieces":
      continue
    for text in [*ODD, *MEGABYTE]:
      rows = [plain, [text] * len(plain)]
      if len(plain) > 1:
        rows.append([*plain[:-1], text])
      answer = subject.ask(subject.request(rows))
      assert_sane(answer, len(rows))
      assert_same_row(answer, alone)


def random_rows(subject, number: int, seed: int) -> list:
  """Words of the vocabulary and difficult texts; or pieces of one length."""
  generator = np.random.default_rng(seed)
  if subject.form == "pieces":
    length = generator.integers(1, POSITIONS + 1)
    sizes = generator.integers(1, length + 1, number)
    return np.stack([
      generator.integers(0, len(ENTRIES), (number, length)),
      np.arange(length) < sizes[:, None],
      generator.integers(0, 2, (number, length))], axis=-1)
  texts = difficult_text.texts(number * len(subject.names), seed=seed)
  texts = [
    " ".join([*generator.choice(ENTRIES[5:], generator.integers(0, 20)), text])
    for text in texts]
  return np.array(texts, object).reshape(number, -1).tolist()


@pytest.mark.slow
def test_eight_threads_get_the_answers_of_one_text_at_a_time(
    subjects, pytestconfig):
  number = pytestconfig.getoption("requests")
  for subject in subjects:
    batches = [
      random_rows(subject, 1 + seed % 4, seed) for seed in range(number)]
    together = subject.loader.ask_together(
        subject.path, [
          {"signature": subject.signature, "inputs": subject.request(rows)}
          for rows in batches], threads=THREADS)
    for rows, answer in zip(batches, together, strict=True):
      assert_sane(answer, len(rows))
      for i, row in enumerate(rows):
        assert_same_row(answer, subject.ask(subject.request([row])), i)


# What the signatures answer.

TEXTS = ["the cat sat on a mat.", "dogs", "un unable, dogging dogs!", ""]


def softmax(logits):
  exponents = np.exp(logits - logits.max(-1, keepdims=True))
  return exponents / exponents.sum(-1, keepdims=True)


def row_of_pieces(exported, subject, text: str) -> np.ndarray:
  """[S, 3]: what the tokenizer makes of a text, and of its pair."""
  texts = [[text]] * max(len(subject.names), 1)
  inputs = exported.tokenizer(*texts[:2], max_seq_length=16)
  return np.stack([inputs[name][0] for name in serving.INPUTS], axis=-1)


def model_outputs(exported, subject, row) -> dict[str, np.ndarray]:
  """The Keras model's own, of one row."""
  inputs = {
    name: np.asarray(row, np.int32)[None, :, i]
    for i, name in enumerate(serving.INPUTS)}
  if subject.rank == 3:
    inputs = {
      name: np.stack([x, 1 - x if name == "segment_ids" else x], axis=1)
      for name, x in inputs.items()}
  model = exported.model
  model = model.encoder if isinstance(model, BertForPreTraining) else model
  return {name: value.numpy() for name, value in model(inputs).items()}


@pytest.mark.slow
def test_pieces_get_what_the_model_gives(exported, subjects):
  [subject] = [x for x in subjects if x.form == "pieces"]
  for text in TEXTS:
    row = row_of_pieces(exported, subject, text)
    expected = model_outputs(exported, subject, row)
    answer = subject.ask(subject.request([row]))
    if "score" in answer:
      answer["logits"] = answer["score"][:, None]
    same = set(answer) & set(expected)
    assert same
    for name in same:
      np.testing.assert_allclose(answer[name], expected[name], atol=1e-5)
    if "embedding" in answer:
      vector = {
        "mean": lambda x: x.mean(0), "cls": lambda x: x[0],
        "max": lambda x: x.max(0)}[exported.flags.get("pooling", "mean")](
            expected["sequence_output"][0])
      if exported.flags.get("l2_normalize"):
        vector = vector / np.sqrt(np.sum(vector ** 2))
      np.testing.assert_allclose(answer["embedding"][0], vector, atol=1e-5)
      [raw] = [x for x in subjects if x.signature == "embedding"]
      np.testing.assert_allclose(
          raw.ask({"text": [text]})["embedding"][0], vector, atol=1e-5)


@pytest.mark.slow
def test_examples_get_what_tensorflow_serving_sends_on(exported, subjects):
  for subject in subjects:
    if subject.form != "examples":
      continue
    answer = subject.ask(subject.request(
        [[text] * len(subject.names) for text in TEXTS]))
    logits = np.concatenate([
      model_outputs(
          exported, subject, row_of_pieces(exported, subject, text))["logits"]
      for text in TEXTS])
    if subject.signature == "regress":
      assert list(answer) == ["outputs"]
      np.testing.assert_allclose(answer["outputs"], logits[:, 0], atol=1e-5)
      continue
    assert sorted(answer) == ["classes", "scores"]
    assert answer["classes"].tolist() == [LABELS] * len(TEXTS)
    is_one_of = exported.task["task_name"] != "multilabel"
    np.testing.assert_allclose(
        answer["scores"],
        softmax(logits) if is_one_of else 1 / (1 + np.exp(-logits)),
        atol=1e-5)


# Without an export.


@pytest.mark.parametrize("change, error", [
  ({"input_ids": [[2, len(ENTRIES), 3]]},
   f"input_ids: must be from 0 to {len(ENTRIES) - 1}"),
  ({"input_ids": [[2, -1, 3]]}, "input_ids: must be from 0"),
  ({"input_mask": [[1, 2, 1]]}, "input_mask: must be from 0 to 1"),
  ({"segment_ids": [[0, 0, 2]]}, "segment_ids: must be from 0 to 1"),
  ({"input_mask": [[1]]}, "input_mask: must have the shape of input_ids"),
  ({"segment_ids": [[0, 0, 0]] * 2}, "segment_ids: must have the shape"),
  ({name: [[1] * (POSITIONS + 1)] for name in serving.INPUTS},
   f"input_ids: the model has {POSITIONS} positions"),
])
def test_what_does_not_fit_is_named(change, error):
  good = {
    "input_ids": [[2, 5, 3]], "input_mask": [[1, 1, 0]],
    "segment_ids": [[0, 1, 1]]}
  signature = serving.of_pieces(CONFIG, lambda inputs: inputs)
  tensors = {name: tf.constant(value) for name, value in good.items()}
  for name, value in signature(*tensors.values()).items():
    assert value.numpy().tolist() == good[name]
  tensors |= {name: tf.constant(value) for name, value in change.items()}
  with pytest.raises(tf.errors.InvalidArgumentError, match=error):
    signature(*tensors.values())


@pytest.mark.slow
def test_no_array_grows(exported):
  # TensorFlow Serving 2.12 passes over the attribute, and fails at a write.
  nodes = nodes_of(exported)
  assert not [
    node for node in nodes if node.op == "TensorListSetItem"
    and node.attr["resize_if_index_out_of_bounds"].b]


@pytest.mark.parametrize("number", [0, 1, 64, 65, 130])
def test_blocks_of_windows_give_what_one_block_gives(number):
  infer = serving.inference(BertTokenClassifier(CONFIG, num_classes=3))
  generator = np.random.default_rng(number)
  inputs = {
    "input_ids": tf.constant(
        generator.integers(0, len(ENTRIES), (number, 5)), tf.int32),
    "input_mask": tf.ones([number, 5], tf.int32),
    "segment_ids": tf.zeros([number, 5], tf.int32)}
  found = serving.in_blocks(infer, inputs)
  assert list(found) == ["logits"] and found["logits"].shape == (number, 5, 3)
  if number:
    np.testing.assert_allclose(
        found["logits"], infer(inputs)["logits"], atol=1e-5)
