"""The reusable encoder: as TensorFlow Hub's API has it, and as the model is."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import checkpoints
from bert_tf.heads import BertForPreTraining
from bert_tf.modeling import BertEncoder
from test_export import CONFIG
from test_export import encoded
from test_export import export_model
from test_export import TEXTS

INPUTS = {
  "input_word_ids": [[2, 5, 6, 7, 3, 0], [2, 14, 15, 17, 9, 3]],
  "input_mask": [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]],
  "input_type_ids": [[0, 0, 0, 1, 1, 0], [0, 0, 1, 1, 1, 1]],
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
  return export_model(
      tmp_path_factory.mktemp("pretrained"), BertForPreTraining(CONFIG))


@pytest.fixture(scope="module")
def loaded(pretrained):
  return tf.saved_model.load(pretrained.path)


def hub_outputs(encoder):
  """What the Keras encoder gives for INPUTS, in Hub's names."""
  outputs = encoder({
    "input_ids": tf.constant(INPUTS["input_word_ids"]),
    "input_mask": tf.constant(INPUTS["input_mask"]),
    "segment_ids": tf.constant(INPUTS["input_type_ids"])},
    output_hidden_states=True)
  return {
    "sequence_output": outputs["sequence_output"],
    "pooled_output": outputs["pooled_output"],
    "default": outputs["pooled_output"],
    "encoder_outputs": outputs["hidden_states"][1:]}


def hub_inputs():
  return {name: tf.constant(value) for name, value in INPUTS.items()}


def test_the_loaded_encoder_is_callable_and_equals_the_model(
    loaded, pretrained):
  expected = hub_outputs(pretrained.model.encoder)
  for outputs in (loaded(hub_inputs()), loaded(hub_inputs(), training=False)):
    assert sorted(outputs) == sorted(expected)
    assert len(outputs["encoder_outputs"]) == CONFIG.num_hidden_layers
    tf.nest.map_structure(
        lambda one, two: np.testing.assert_allclose(one, two, atol=1e-5),
        dict(outputs), expected)


def test_signatures_leave_the_padding_out_and_the_call_does_not(
    pretrained, loaded):
  expected = hub_outputs(pretrained.model.encoder)["sequence_output"].numpy()
  is_piece = np.array(INPUTS["input_mask"])[:, :, None] == 1
  assert np.abs(expected).min() > 0 and not is_piece.all()
  ids, mask, segments = hub_inputs().values()
  found = loaded.signatures["pre_tokenized"](
      input_ids=ids, input_mask=mask, segment_ids=segments)["sequence_output"]
  np.testing.assert_allclose(found, expected * is_piece, atol=1e-5)
  np.testing.assert_allclose(
      loaded(hub_inputs())["sequence_output"], expected, atol=1e-5)


def test_the_loaded_encoder_drops_out_in_training_only(loaded):
  one, two = (
    loaded(hub_inputs(), training=True)["sequence_output"].numpy()
    for _ in range(2))
  still = loaded(hub_inputs(), training=False)["sequence_output"].numpy()
  for first, second in ((one, two), (one, still), (two, still)):
    assert np.abs(first - second).max() > 0.1
  again = loaded(hub_inputs(), training=False)["sequence_output"]
  np.testing.assert_array_equal(again, still)


def test_the_loaded_encoder_has_the_checkpoints_variables(loaded, pretrained):
  reader = tf.train.load_checkpoint(
      os.path.join(pretrained.model_dir, "bert_model.ckpt"))
  names = set(reader.get_variable_to_shape_map())
  assert set(loaded.weights) == names
  of_encoder = {name for name in names if name.startswith("bert/")}
  for variables in (loaded.trainable_variables, loaded.variables):
    by_name = {v.name.removesuffix(":0"): v for v in variables}
    assert set(by_name) == of_encoder and len(variables) == len(of_encoder)
    for name, variable in by_name.items():
      np.testing.assert_array_equal(variable, reader.get_tensor(name))
      np.testing.assert_array_equal(variable, loaded.weights[name])
  assert all(v.trainable for v in loaded.trainable_variables)
  assert list(loaded.regularization_losses) == []


def gradients(call, variables):
  """Of a loss to which each number of both outputs counts differently."""
  generator = np.random.default_rng(2)
  with tf.GradientTape() as tape:
    outputs = call()
    loss = sum(
        tf.reduce_sum(
            outputs[name] * generator.normal(size=outputs[name].shape))
        for name in ("sequence_output", "pooled_output"))
  found = tape.gradient(loss, variables)
  assert all(gradient is not None for gradient in found)
  return [tf.convert_to_tensor(gradient).numpy() for gradient in found]


def test_the_loaded_encoder_refuses_what_does_not_fit(loaded):
  for training in (False, True):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="input_type_ids: must be from"):
      loaded(
          hub_inputs() | {"input_type_ids": tf.constant([[0] * 5 + [2]] * 2)},
          training=training)


def test_gradients_flow_to_all_variables_of_the_loaded_encoder(
    loaded, pretrained):
  encoder = pretrained.model.encoder
  by_path = checkpoints.checkpoint_names(encoder)
  names = [v.name.removesuffix(":0") for v in loaded.trainable_variables]
  expected = gradients(
      lambda: hub_outputs(encoder), [by_path[name].value for name in names])
  found = gradients(
      lambda: loaded(hub_inputs(), training=False),
      loaded.trainable_variables)
  for name, one, two in zip(names, found, expected, strict=True):
    np.testing.assert_allclose(one, two, atol=1e-4, err_msg=name)
  in_training = gradients(
      lambda: loaded(hub_inputs(), training=True),
      loaded.trainable_variables)
  for name, gradient in zip(names, in_training, strict=True):
    # The softmax cancels what is added to all keys.
    vanishes = name.endswith("key/bias")
    assert (np.abs(gradient).max() < 1e-4) == vanishes, name


def test_the_loaded_encoder_tokenizes(loaded, pretrained):
  texts = encoded(TEXTS)
  assert loaded.tokenize(texts).to_list() == (
      pretrained.tokenizer.tokenize(texts).to_list())
  assert loaded.tokenize(["The cats [MASK]"]).to_list() == [
    [5, 6, 12, 20, 22, 21]]


def test_the_loaded_encoder_packs_as_the_tokenizer_does(loaded):
  one, two = (loaded.tokenize(texts) for texts in (["the cats", ""], ["a", ""]))
  packed = loaded.bert_pack_inputs([one, two], seq_length=8)
  assert {name: x.numpy().tolist() for name, x in packed.items()} == {
    "input_word_ids": [[2, 5, 6, 12, 3, 9, 3, 0], [2, 3, 3, 0, 0, 0, 0, 0]],
    "input_mask": [[1] * 7 + [0], [1] * 3 + [0] * 5],
    "input_type_ids": [[0] * 5 + [1] * 2 + [0], [0, 0, 1] + [0] * 5]}
  shapes = [
    loaded.bert_pack_inputs([one], **length)["input_mask"].shape.as_list()
    for length in ({}, {"seq_length": tf.constant(7)})]
  assert shapes == [[2, 128], [2, 7]]
  cut = loaded.bert_pack_inputs([one, two], seq_length=5)["input_word_ids"]
  assert cut.numpy()[0].tolist() == [2, 5, 3, 9, 3]
  with pytest.raises(
      tf.errors.InvalidArgumentError, match="3 special tokens and a piece"):
    loaded.bert_pack_inputs([one, two], seq_length=3)


def test_the_loaded_encoder_predicts_what_is_masked(loaded, pretrained):
  positions = tf.constant([[1, 4, 4], [5, 0, 2]])
  inputs = hub_inputs() | {"masked_lm_positions": positions}
  outputs = loaded.mlm(inputs)
  expected = pretrained.model({
    "input_ids": inputs["input_word_ids"], "input_mask": inputs["input_mask"],
    "segment_ids": inputs["input_type_ids"], "masked_lm_positions": positions})
  np.testing.assert_allclose(
      outputs["mlm_logits"], expected["mlm_logits"], atol=1e-4)
  np.testing.assert_allclose(
      outputs["pooled_output"], loaded(hub_inputs())["pooled_output"],
      atol=1e-6)
  one, two = (
    loaded.mlm(inputs, training=True)["mlm_logits"].numpy() for _ in range(2))
  assert np.abs(one - two).max() > 0.1
  for training, wrong in ((False, 6), (True, -1)):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="masked_lm_positions"):
      loaded.mlm(
          hub_inputs() | {"masked_lm_positions": [[1], [wrong]]},
          training=training)


def test_the_masked_lm_has_the_variables_that_it_uses(loaded):
  names = {v.name.removesuffix(":0") for v in loaded.mlm.trainable_variables}
  assert names == {
    name for name in loaded.weights
    if not name.startswith("cls/seq_relationship/")}
  inputs = hub_inputs() | {"masked_lm_positions": tf.constant([[1], [2]])}
  with tf.GradientTape() as tape:
    outputs = loaded.mlm(inputs)
    loss = tf.reduce_sum(outputs["mlm_logits"]) + tf.reduce_sum(
        outputs["pooled_output"])
  found = tape.gradient(loss, loaded.mlm.trainable_variables)
  assert all(gradient is not None for gradient in found)


@pytest.mark.parametrize("model", [
  BertEncoder(CONFIG),
  BertForPreTraining(dataclasses.replace(
      CONFIG, attention="left_to_right"))], ids=["encoder", "left to right"])
def test_without_a_masked_lm_there_is_no_mlm(model, tmp_path):
  path = export_model(tmp_path, model).path
  assert not hasattr(tf.saved_model.load(path), "mlm")
