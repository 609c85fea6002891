"""The resident predictor over real exports, one of each kind of task."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import bert_tf
from bert_tf.config import InputError
from bert_tf.row_batches import check_row
import tiny_exports


def plain(values):
  """As Python has them, of a signature's answer to one row alone."""
  if values.dtype == tf.string:
    return np.vectorize(bytes.decode, otypes=[object])(
        values.numpy()).tolist()[0]
  return values.numpy().tolist()[0]


@pytest.mark.parametrize("kind", tiny_exports.KINDS)
def test_rows_are_answered_as_each_alone(tiny_export, kind):
  columns = tiny_exports.COLUMNS[kind]
  predictor = bert_tf.Predictor(tiny_export(kind))
  signatures = tf.saved_model.load(predictor.path).signatures
  for name in predictor.signatures:
    if set(predictor.signatures[name].inputs) != set(columns):
      continue  # Ids or protos in the place of texts.
    answers = predictor(*columns.values(), signature=name, batch_size=3)
    assert len(answers) == len(columns["text" if "text" in columns else
                                       "question"])
    for i, answer in enumerate(answers):
      # One row has no padding.
      alone = signatures[name](**{
        key: tf.constant([column[i]]) for key, column in columns.items()})
      assert sorted(answer) == sorted(alone)
      for output, value in alone.items():
        expected = plain(value)
        if value.dtype == tf.string or value.dtype.is_integer:
          assert answer[output] == expected
        else:
          np.testing.assert_allclose(answer[output], expected, atol=1e-5)


def test_a_version_or_the_newest_is_loaded(tiny_export, tmp_path):
  for version in ("2", "10"):
    shutil.copytree(
        os.path.join(tiny_export("pair"), "1"), tmp_path / version)
  (tmp_path / "incomplete-1").mkdir()
  assert bert_tf.Predictor(tmp_path).path == str(tmp_path / "10")
  predictor = bert_tf.Predictor(str(tmp_path / "2"))
  assert predictor.path == str(tmp_path / "2")
  [answer] = predictor(["the cat"], ["a dog"])
  assert sorted(answer) == ["label", "logits", "probabilities"]
  assert answer["label"] in ("0", "1") and len(answer["logits"]) == 2


def test_what_is_no_export_is_refused(tiny_export, tmp_path):
  with pytest.raises(InputError, match="nowhere: no such folder"):
    bert_tf.Predictor(tmp_path / "nowhere")
  with pytest.raises(InputError, match="neither saved_model.pb nor versions"):
    bert_tf.Predictor(tmp_path)
  shutil.copytree(os.path.join(tiny_export("pair"), "1"), tmp_path / "1")
  (tmp_path / "1" / "saved_model.pb").write_bytes(b"not a proto")
  with pytest.raises(InputError, match="1: cannot be loaded: "):
    bert_tf.Predictor(tmp_path)


def test_bytes_that_are_not_utf8_are_answered(tiny_export):
  predictor = bert_tf.Predictor(tiny_export("pair"))
  one, two = predictor([b"the \xff cat", "the cat"], [b"dogs \xe4", "dogs"])
  # Such bytes hold nothing for the tokenizer.
  assert one["logits"] == pytest.approx(two["logits"], abs=1e-5)


class _Refusing(tf.Module):

  @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
  def check(self, text):
    tf.debugging.assert_none_equal(text, "bad", message="bad is bad")
    return {"size": tf.strings.length(text)}


def test_what_the_model_refuses_is_an_input_error(tmp_path):
  module = _Refusing()
  tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.check)
  predictor = bert_tf.Predictor(tmp_path)
  assert predictor(["good"]) == [{"size": 4}]
  row = check_row(
      predictor.signature("serving_default"), {"text": "bad"}, "row 0")
  with pytest.raises(InputError, match="serving_default refuses.*bad is bad"):
    predictor.answer([row])
