"""The record schema: written, read, counted and checked."""

import json

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config import InputError
from bert_tf.data import records

S, P = 8, 2
LAYOUT = records.Layout(max_seq_length=S, max_predictions_per_seq=P)


def _batch(num_rows=5, seed=0):
  generator = np.random.default_rng(seed)
  return {
    "input_ids": generator.integers(0, 200, (num_rows, S)),
    "input_mask": generator.integers(0, 2, (num_rows, S)),
    "segment_ids": generator.integers(0, 2, (num_rows, S)),
    "masked_lm_positions": generator.integers(0, S, (num_rows, P)),
    "masked_lm_ids": generator.integers(0, 200, (num_rows, P)),
    "masked_lm_weights": generator.integers(
        0, 2, (num_rows, P)).astype(np.float32),
    "next_sentence_labels": generator.integers(0, 2, num_rows),
  }


def _example(**changes):
  """A record as the original project writes it; None drops a feature."""
  values = {
    "input_ids": [101, 7, 103, 102, 9, 102, 0, 0],
    "input_mask": [1, 1, 1, 1, 1, 1, 0, 0],
    "segment_ids": [0, 0, 0, 0, 1, 1, 0, 0],
    "masked_lm_positions": [2, 0],
    "masked_lm_ids": [55, 0],
    "masked_lm_weights": [1.0, 0.0],
    "next_sentence_labels": [1], **changes}
  features = {}
  for name, items in values.items():
    if items is None:
      continue
    if isinstance(items[0], float):
      kind = {"float_list": tf.train.FloatList(value=items)}
    else:
      kind = {"int64_list": tf.train.Int64List(value=items)}
    features[name] = tf.train.Feature(**kind)
  return tf.train.Example(
      features=tf.train.Features(feature=features)).SerializeToString()


def _write(path, *serialized):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in serialized:
      writer.write(record)
  return str(path)


def test_what_is_written_is_read_again(tmp_path):
  path = str(tmp_path / "a.tfrecord")
  batches = [_batch(5), _batch(3, seed=1)]
  assert records.write_records(path, batches) == 8
  assert [f.name for f in tmp_path.iterdir()] == ["a.tfrecord"]
  dataset = tf.data.TFRecordDataset(path).batch(8).map(
      lambda serialized: records.parse(serialized, LAYOUT))
  assert dataset.element_spec.keys() == records.signature(LAYOUT).keys()
  (parsed,) = dataset
  for name, spec in records.signature(LAYOUT).items():
    expected = np.concatenate([batch[name] for batch in batches])
    assert parsed[name].dtype == spec.dtype
    assert spec.shape.is_compatible_with(parsed[name].shape)
    assert np.array_equal(parsed[name], expected)


def test_the_signature_says_the_whole_shape():
  got = {
    name: (spec.shape.as_list(), spec.dtype.name)
    for name, spec in records.signature(LAYOUT).items()}
  assert got == {
    "input_ids": ([None, S], "int32"),
    "input_mask": ([None, S], "int32"),
    "segment_ids": ([None, S], "int32"),
    "masked_lm_positions": ([None, P], "int32"),
    "masked_lm_ids": ([None, P], "int32"),
    "masked_lm_weights": ([None, P], "float32"),
    "next_sentence_labels": ([None], "int32"),
  }


def test_records_of_the_original_are_read(tmp_path):
  path = _write(tmp_path / "a.tfrecord", _example())
  records.check_records(path, LAYOUT, vocab_size=104)
  parsed = records.parse(tf.constant([_example()] * 2), LAYOUT)
  assert parsed["next_sentence_labels"].numpy().tolist() == [1, 1]
  assert parsed["input_ids"].shape == (2, S)
  assert parsed["masked_lm_weights"].numpy().tolist() == [[1, 0]] * 2


def test_the_layout_of_a_file_is_that_of_its_first_record(tmp_path):
  path = tmp_path / "a.tfrecord"
  assert records.read_layout(_write(path, _example())) == LAYOUT
  plain = {name: None for name in (
    "masked_lm_positions", "masked_lm_ids", "masked_lm_weights",
    "next_sentence_labels")}
  assert records.read_layout(_write(path, _example(**plain))) == (
    records.Layout(S, next_sentence=False))
  packed = records.Layout(S, P, 3)
  rows = {
    name: np.ones([2] + spec.shape[1:].as_list(), spec.dtype.as_numpy_dtype)
    for name, spec in records.signature(packed).items()}
  assert {name: rows[name].shape[1] for name in rows} == {
    "input_ids": 8, "input_mask": 8, "segment_ids": 8,
    "masked_lm_positions": 2, "masked_lm_ids": 2, "masked_lm_weights": 2,
    "example_ids": 8, "position_ids": 8, "cls_positions": 3,
    "next_sentence_labels": 3, "next_sentence_weights": 3}
  records.write_records(str(path), [rows])
  assert records.read_layout(str(path)) == packed
  records.check_records(str(path), packed)
  with pytest.raises(InputError, match="lacks example_ids, position_ids"):
    records.check_records(_write(path, _example()), packed)


@pytest.mark.parametrize("changes, layout, vocab_size, words", [
  ({"segment_ids": None}, {}, None, ["lacks segment_ids", "input_ids"]),
  ({}, {"max_seq_length": 16}, None,
   ["has 8 input_ids", "--max_seq_length is 16", "--max_seq_length=8"]),
  ({}, {"max_predictions_per_seq": 5}, None,
   ["has 2 masked_lm_positions", "--max_predictions_per_seq is 5"]),
  ({"input_mask": [1] * 7}, {}, None, ["has 7 input_mask"]),
  ({"next_sentence_labels": [0, 1]}, {}, None, ["has 2 next_sentence_labels"]),
  ({}, {}, 103, ["the id 103 in input_ids", "103 entries"]),
  ({"masked_lm_ids": [500, 0]}, {}, 200,
   ["the id 500 in masked_lm_ids", "200 entries"]),
])
def test_records_that_do_not_fit_are_refused(
    tmp_path, changes, layout, vocab_size, words):
  path = _write(tmp_path / "a.tfrecord", _example(**changes))
  with pytest.raises(InputError) as error:
    records.check_records(
        path, LAYOUT._replace(**layout), vocab_size=vocab_size)
  for word in [f"{path}: record 1", *words]:
    assert word in str(error.value)


def test_a_foreign_vocabulary_shows_in_a_later_record_too(tmp_path):
  path = _write(
      tmp_path / "a.tfrecord", _example(), _example(masked_lm_ids=[900, 0]))
  with pytest.raises(InputError, match="record 2 holds the id 900"):
    records.check_records(path, LAYOUT, vocab_size=500)


def test_what_is_no_record_file_is_refused(tmp_path):
  text = tmp_path / "text.tfrecord"
  text.write_text("This is plain text, and no TFRecord file at all.\n")
  empty = tmp_path / "empty.tfrecord"
  empty.touch()
  foreign = _write(tmp_path / "foreign.tfrecord", b"no proto")
  for path, words in (
      (str(text), "cannot be read as TFRecords after 0 records"),
      (str(empty), "holds no record"),
      (foreign, "record 1 is not a tf.train.Example"),
      (str(tmp_path / "gone"), "no such file")):
    with pytest.raises(InputError) as error:
      records.check_records(path, LAYOUT)
    assert path in str(error.value) and words in str(error.value)


def test_records_are_counted_by_their_framing(tmp_path):
  path = _write(tmp_path / "a.tfrecord", *[b"x" * size for size in range(50)])
  assert records.count_records(path) == 50
  (tmp_path / "empty").touch()
  assert records.count_records(str(tmp_path / "empty")) == 0
  with pytest.raises(InputError, match="no such file"):
    records.count_records(str(tmp_path / "gone"))


def test_a_file_cut_short_is_not_counted(tmp_path):
  path = _write(tmp_path / "a.tfrecord", _example(), _example())
  content = (tmp_path / "a.tfrecord").read_bytes()
  for size in (len(content) - 1, len(content) // 2 + 5):
    (tmp_path / "a.tfrecord").write_bytes(content[:size])
    with pytest.raises(InputError, match="cut short after 1 records"):
      records.count_records(path)


def test_the_count_of_stats_json_is_used_while_it_is_of_this_file(tmp_path):
  path = _write(tmp_path / "a.tfrecord", b"abc", b"def")
  size = (tmp_path / "a.tfrecord").stat().st_size
  stats = tmp_path / "stats.json"
  # A wrong count on purpose, to see where the answer comes from.
  stats.write_text(json.dumps(
      {"files": {"a.tfrecord": {"records": 77, "bytes": size}}}))
  assert records.count_records(path) == 77
  _write(tmp_path / "a.tfrecord", b"abc", b"def", b"ghi")
  assert records.count_records(path) == 3
  stats.write_text("{}")
  assert records.count_records(path) == 3


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(
    tmp_path):
  path = tmp_path / "a.tfrecord"
  path.write_text("old")

  def batches():
    yield _batch()
    raise InputError("stop")

  with pytest.raises(InputError, match="stop"):
    records.write_records(str(path), batches())
  assert [f.name for f in tmp_path.iterdir()] == ["a.tfrecord"]
  assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path):
  path = str(tmp_path / "gone" / "a.tfrecord")
  with pytest.raises(InputError, match="cannot be written"):
    records.write_records(path, [_batch()])
