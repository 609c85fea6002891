"""What the training programs read and write, where only a URL reaches.

`ram://` is TensorFlow's own file system in memory: no function of the
standard library finds a file there.
"""

import gzip
import json

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf import export
from bert_tf import finetuning
from bert_tf import pretraining
from bert_tf.arguments import ExportConfig
from bert_tf.arguments import PretrainingConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import write_json
from bert_tf.config import write_text
from bert_tf.data import input_pipeline
from bert_tf.data import records
from bert_tf.data import text_files
from bert_tf.data.tables import read_columns
from bert_tf.finetuning_arguments import FinetuningConfig
from bert_tf.heads import BertForPreTraining
from bert_tf.tasks import TASKS
from bert_tf.tokenization import BertTokenizer
from bert_tf.vocabulary_files import read_vocabulary

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "##se"]
CONFIG = BertConfig(
    vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=12)
LAYOUT = records.Layout(max_seq_length=4, next_sentence=False)


@pytest.fixture
def ram(tmp_path, monkeypatch):
  """A folder of its own; and nothing appears in the current one."""
  monkeypatch.chdir(tmp_path)
  yield f"ram:/{tmp_path}"
  assert not (tmp_path / "ram:").exists()


def write_bytes(path, content):
  with tf.io.gfile.GFile(path, "wb") as file:
    file.write(content)
  return path


def copy_folder(source, target):
  """Copies what lies in a local folder into one that need not be local."""
  for folder, _, names in tf.io.gfile.walk(str(source)):
    place = f"{target}{folder.removeprefix(str(source))}"
    tf.io.gfile.makedirs(place)
    for name in names:
      tf.io.gfile.copy(f"{folder}/{name}", f"{place}/{name}")


def assert_equal_weights(one, two):
  for a, b in zip(one.weights, two.weights, strict=True):
    np.testing.assert_array_equal(a, b)


def save(directory, model=None, **options):
  model = model or BertForPreTraining(CONFIG)
  # Cased, which the vocabulary alone does not tell.
  tokenizer = BertTokenizer(ENTRIES, do_lower_case=False)
  checkpoints.save_model(directory, model, tokenizer, **options)
  return model


def test_json_is_written_and_replaced(ram):
  path = f"{ram}/bert_config.json"
  write_json(path, {"vocab_size": 3})
  write_json(path, CONFIG.to_dict())
  assert tf.io.gfile.listdir(ram) == ["bert_config.json"]
  assert BertConfig.from_json_file(path) == CONFIG


def test_a_model_directory_comes_back_equal(ram):
  task = {"task_name": "classification", "max_seq_length": 9}
  model = save(f"{ram}/model", task=task)
  assert sorted(tf.io.gfile.listdir(f"{ram}/model")) == [
    "bert_config.json", "bert_model.ckpt.data-00000-of-00001",
    "bert_model.ckpt.index", "task.json", "tokenizer_config.json",
    "vocab.txt"]
  for path in ("model", "model/", "model/bert_model.ckpt"):
    again = checkpoints.load_pretraining_model(f"{ram}/{path}")
    assert again.config == CONFIG
    assert_equal_weights(model, again)
    tokenizer = checkpoints.load_tokenizer(f"{ram}/{path}")
    assert tokenizer.vocabulary == tuple(ENTRIES)
    assert tokenizer.do_lower_case is False
  encoder = checkpoints.load_encoder(f"{ram}/model")
  assert_equal_weights(model.encoder, encoder)
  source = checkpoints.open_source(f"{ram}/model")
  assert checkpoints.read_task(source) == task
  # Written over, the new one is there.
  other = save(f"{ram}/model")
  assert_equal_weights(
      other, checkpoints.load_pretraining_model(f"{ram}/model"))


def test_a_directory_left_half_written_has_no_config(ram, monkeypatch):
  save(ram)
  monkeypatch.setattr(checkpoints, "write_tokenizer", None)
  with pytest.raises(TypeError):
    save(ram)
  assert "bert_config.json" not in tf.io.gfile.listdir(ram)


def test_a_checkpoint_that_is_not_whole_is_refused(ram):
  save(ram)
  tf.io.gfile.remove(f"{ram}/bert_model.ckpt.data-00000-of-00001")
  write_bytes(f"{ram}/bert_model.ckpt.data-00000-of-00001", b"short")
  with pytest.raises(InputError, match="bert_model.ckpt: .* Is the file whol"):
    checkpoints.load_pretraining_model(ram)


def test_the_vocabulary_beside_a_config_file_is_found(ram):
  save(f"{ram}/model")
  tokenizer = checkpoints.find_tokenizer(
      None, CONFIG, config_file=f"{ram}/model/bert_config.json")
  assert tokenizer.do_lower_case is False


@pytest.mark.parametrize(
    "form", ["tf_models_checkpoint", "huggingface_tf_checkpoint"])
def test_other_forms_are_read(shared, ram, form):
  directory = shared / "golden" / form
  copy_folder(directory, ram)
  assert_equal_weights(
      checkpoints.load_pretraining_model(str(directory)),
      checkpoints.load_pretraining_model(ram))


def test_a_hugging_face_directory_is_fetched(shared, ram):
  pytest.importorskip("safetensors")
  directory = shared / "golden" / "huggingface_checkpoint"
  copy_folder(directory, ram)
  assert_equal_weights(
      checkpoints.load_pretraining_model(str(directory)),
      checkpoints.load_pretraining_model(ram))
  write_bytes(f"{ram}/cut/config.json", b'{"vocab_size": 9}')
  write_bytes(f"{ram}/cut/model.safetensors", b"short")
  with pytest.raises(InputError, match="cut/model.safetensors: cannot be rea"):
    checkpoints.open_source(f"{ram}/cut")


def test_an_export_is_a_source(ram, tmp_path):
  model = save(str(tmp_path / "model"))
  export.run(ExportConfig(
      model_dir=str(tmp_path / "model"), export_dir=str(tmp_path / "export")),
      TASKS)
  copy_folder(tmp_path / "export", f"{ram}/export")
  for path in ("export", "export/1"):
    again = checkpoints.load_encoder(f"{ram}/{path}")
    assert_equal_weights(model.encoder, again)
    assert not checkpoints.load_tokenizer(f"{ram}/{path}").do_lower_case


def rows(first, count):
  ids = np.arange(first, first + count)[:, None] % 7 + np.zeros((1, 4), int)
  return {"input_ids": ids, "input_mask": ids * 0 + 1, "segment_ids": ids * 0}


def test_records_are_written_found_checked_counted_and_read(ram):
  for number, (first, count) in enumerate(((0, 3), (3, 2))):
    path = f"{ram}/{number}.tfrecord"
    assert records.write_records(path, [rows(first, count)]) == count
  write_json(f"{ram}/stats.json", {"files": {}})
  paths = text_files.expand_files([f"{ram}/*.tfrecord", f"{ram}/1.tfrecord"])
  assert paths == [f"{ram}/0.tfrecord", f"{ram}/1.tfrecord"]
  assert [records.count_records(path) for path in paths] == [3, 2]
  assert records.read_layout(paths[0]) == LAYOUT
  records.check_records(paths[1], LAYOUT, vocab_size=7)
  with pytest.raises(InputError, match="1.tfrecord: record 2 holds the id 4"):
    records.check_records(paths[1], LAYOUT, vocab_size=4)
  [batch] = input_pipeline.evaluation_batches(
      paths, layout=LAYOUT, batch_size=9)
  assert batch["input_ids"][:, 0].numpy().tolist() == [0, 1, 2, 3, 4]
  batches = input_pipeline.training_batches(
      paths, layout=LAYOUT, batch_size=5, seed=1, first_step=2)
  for batch in batches.take(2):
    assert sorted(batch["input_ids"][:, 0].numpy()) == [0, 1, 2, 3, 4]


def test_counts_come_from_stats_json_while_it_is_of_this_file(ram):
  path = f"{ram}/a.tfrecord"
  records.write_records(path, [rows(0, 3)])
  size = tf.io.gfile.stat(path).length
  # A wrong count on purpose, to see where the answer comes from.
  write_json(f"{ram}/stats.json", {
    "files": {"a.tfrecord": {"records": 77, "bytes": size}}})
  assert records.count_records(path) == 77
  records.write_records(path, [rows(0, 4)])
  assert records.count_records(path) == 4


def test_a_file_cut_short_is_not_counted(ram):
  records.write_records(f"{ram}/a", [rows(0, 2)])
  with tf.io.gfile.GFile(f"{ram}/a", "rb") as file:
    content = file.read()
  for size in (len(content) - 1, len(content) // 2 + 5):
    path = write_bytes(f"{ram}/cut-{size}", content[:size])
    with pytest.raises(InputError, match="cut short after 1 records"):
      records.count_records(path)
  assert records.count_records(write_bytes(f"{ram}/empty", b"")) == 0


def test_an_error_while_writing_records_leaves_nothing_else(ram):
  records.write_records(f"{ram}/a", [rows(0, 2)])

  def batches():
    yield rows(0, 3)
    raise InputError("stop")

  with pytest.raises(InputError, match="stop"):
    records.write_records(f"{ram}/a", batches())
  assert tf.io.gfile.listdir(ram) == ["a"]
  assert records.count_records(f"{ram}/a") == 2


def test_tables_are_read_packed_or_not(ram):
  text = "label\ttext\nx\ta b\r\ny\tc\x0bd\n"
  plain = write_bytes(f"{ram}/a.tsv", text.encode())
  packed = write_bytes(f"{ram}/a.tsv.gz", gzip.compress(text.encode()))
  for path in (plain, packed):
    assert read_columns(path, ["label", "text"], on_bad_utf8="error") == {
      "label": ["x", "y"], "text": ["a b", "c\x0bd"],
      "where": [f"{path}:2", f"{path}:3"]}
  assert text_files.size_on_disk([plain]) == len(text)


@pytest.mark.parametrize("ask, words", [
  (lambda root: read_json(f"{root}/no.json"), "no such file"),
  (lambda root: BertConfig.from_json_file(
      write_bytes(f"{root}/bad.json", b'{"a": 1,}')), "not valid JSON"),
  (lambda root: read_vocabulary(f"{root}/no.txt"),
   "cannot be read: No such file or directory"),
  (lambda root: read_vocabulary(
      write_bytes(f"{root}/v.txt", b"a\r\nb\n")), "v.txt:1: ends in CR LF"),
  (lambda root: text_files.expand_files([f"{root}/no.tfrecord"]),
   "as a glob it matches none"),
  (lambda root: text_files.expand_files([f"{root}/*.no"]),
   "as a glob it matches none"),
  (lambda root: text_files.expand_files([root]), "is a folder"),
  (lambda root: records.read_layout(f"{root}/no"), "no such file"),
  (lambda root: records.count_records(f"{root}/no"), "no such file"),
  (lambda root: records.read_layout(
      write_bytes(f"{root}/text", b"This is plain text, as anybody sees.\n")),
   "cannot be read as TFRecords after 0 records"),
  (lambda root: list(text_files.read_lines(f"{root}/no.tsv")),
   "cannot be read: No such file or directory"),
  (lambda root: list(text_files.read_lines(
      write_bytes(f"{root}/x.gz", b"plain"))), "not a whole .gz file"),
  (lambda root: checkpoints.open_source(f"{root}/no"), "neither a checkpoint"),
  (lambda root: checkpoints.open_source(root), "holds no model"),
])
def test_an_error_says_of_a_url_what_it_says_of_a_path(
    ram, tmp_path, ask, words):
  messages = []
  for root in (str(tmp_path), ram):
    write_text(f"{root}/something", "")
    with pytest.raises(InputError, match=words) as error:
      ask(root)
    messages.append(
        str(error.value).replace(root, "ROOT")
        .replace(f" (the current folder is {tmp_path})", "")
        .replace(" (the current folder is ROOT)", ""))
  assert messages[0] == messages[1]
  assert "ROOT" in messages[0]


def pretrain(root, **options):
  return pretraining.run(PretrainingConfig(**{
    "input_file": (f"{root}/in/*.tfrecord",), "output_dir": f"{root}/out",
    "bert_config_file": f"{root}/in/bert_config.json", "do_train": True,
    "do_eval": True, "max_seq_length": 8, "max_predictions_per_seq": 2,
    "train_batch_size": 4, "num_train_steps": 4, "num_warmup_steps": 1,
    "save_checkpoints_steps": 2, "log_steps": 1, **options}))


def write_pretraining_inputs(root):
  save(f"{root}/in")
  generator = np.random.default_rng(0)
  layout = records.Layout(max_seq_length=8, max_predictions_per_seq=2)
  for number in range(2):
    records.write_records(f"{root}/in/{number}.tfrecord", [{
      name: generator.integers(0, 2, [6, *spec.shape[1:]]).astype(
          spec.dtype.as_numpy_dtype)
      for name, spec in records.signature(layout).items()}])


@pytest.mark.slow
def test_a_whole_pretraining_needs_no_local_path(ram, tmp_path):
  """The same figures as with local paths, and it goes on where it was."""
  write_pretraining_inputs(str(tmp_path))
  copy_folder(tmp_path / "in", f"{ram}/in")
  there = pretrain(ram)
  assert there == pretrain(str(tmp_path))
  names = {"bert_config.json", "bert_model.ckpt.data-00000-of-00001",
           "bert_model.ckpt.index", "eval", "eval_results.json",
           "eval_results.txt", "metrics.jsonl", "tokenizer_config.json",
           "train", "training_state", "vocab.txt"}
  assert set(tf.io.gfile.listdir(f"{ram}/out")) == names
  assert {path.name for path in (tmp_path / "out").iterdir()} == names
  assert_equal_weights(
      checkpoints.load_pretraining_model(f"{ram}/out"),
      checkpoints.load_pretraining_model(str(tmp_path / "out")))
  assert read_json(f"{ram}/out/eval_results.json") == there
  # Two steps more, from the saved state; then an evaluation of it.
  assert pretrain(ram, num_train_steps=6)["global_step"] == 6
  assert pretrain(ram, do_train=False)["global_step"] == 6
  states = tf.io.gfile.glob(f"{ram}/out/training_state/ckpt-*.index")
  assert [path.rpartition("-")[2] for path in sorted(states)] == [
    "4.index", "6.index"]
  with tf.io.gfile.GFile(f"{ram}/out/metrics.jsonl") as file:
    steps = [line["step"] for line in map(json.loads, file)
             if line["split"] == "train"]
  assert steps == [1, 2, 3, 4, 5, 6]
  with pytest.raises(InputError, match="holds another run: hidden_size was"):
    write_json(f"{ram}/in/bert_config.json",
               {**CONFIG.to_dict(), "hidden_size": 16})
    pretrain(ram)


def test_a_whole_fine_tuning_needs_no_local_path(ram):
  save(f"{ram}/start")
  data = "label\ttext\n" + "x\tThe\ny\tThese\n" * 4
  for split in ("train", "dev", "test"):
    write_bytes(f"{ram}/{split}.tsv", data.encode())
  options = {
    "task_name": "classification", "data_dir": ram, "do_eval": True,
    "do_predict": True, "max_seq_length": 8, "train_batch_size": 4,
    "output_dir": f"{ram}/out", "init_checkpoint": f"{ram}/start"}
  results = finetuning.run(
      FinetuningConfig(do_train=True, **options), TASKS["classification"])
  assert checkpoints.read_task(
      checkpoints.open_source(f"{ram}/out"))["labels"] == ["x", "y"]
  with tf.io.gfile.GFile(f"{ram}/out/predictions.tsv") as file:
    assert len(file.read().splitlines()) == 9
  again = finetuning.run(
      FinetuningConfig(**options), TASKS["classification"])
  assert again["loss"] == pytest.approx(results["loss"])
  tf.io.gfile.remove(f"{ram}/dev.tsv")
  with pytest.raises(InputError, match=f"{ram}: no dev rows there"):
    finetuning.run(FinetuningConfig(**options), TASKS["classification"])
