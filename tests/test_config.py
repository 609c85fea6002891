"""BertConfig: strict, checked, and the released sizes."""

import json
import re

from conftest import REPOSITORY
import pytest

from bert_tf.arguments import CorpusConfig
from bert_tf.arguments import PretrainingConfig
from bert_tf.arguments import PretrainingDataConfig
from bert_tf.arguments import TrainingConfig
from bert_tf.arguments import VocabularyConfig
from bert_tf.config import BertConfig
from bert_tf.config import InputError
from bert_tf.config import SIZES

RELEASED_VOCABULARIES = {
  "uncased": 30522, "cased": 28996, "multi_cased": 119547, "chinese": 21128,
}


@pytest.mark.parametrize("changes, key", [
  ({"hidden_size": 30}, "hidden_size"),
  ({"hidden_size": "32"}, "hidden_size"),
  ({"num_hidden_layers": 0}, "num_hidden_layers"),
  ({"num_attention_heads": True}, "num_attention_heads"),
  ({"vocab_size": -1}, "vocab_size"),
  ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
  ({"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob"),
  ({"initializer_range": float("inf")}, "initializer_range"),
  ({"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob"),
  ({"initializer_range": None}, "initializer_range"),
  ({"hidden_act": "swish"}, "hidden_act"),
  ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon"),
])
def test_an_error_names_the_wrong_key(changes, key):
  values = {
    "vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, **changes}
  with pytest.raises(InputError, match=key):
    BertConfig.from_dict(values)


def test_the_config_file_is_named_in_the_error(tmp_path):
  path = tmp_path / "bert_config.json"
  path.write_text('{"vocab_size": 99, "hiden_size": 32}')
  with pytest.raises(InputError, match="bert_config.json.*hiden_size"):
    BertConfig.from_json_file(str(path))
  path.write_text('{"vocab_size": 99,}')
  with pytest.raises(InputError, match="not valid JSON.*line 1"):
    BertConfig.from_json_file(str(path))
  with pytest.raises(InputError, match="no such file"):
    BertConfig.from_json_file(str(tmp_path / "missing.json"))
  with pytest.raises(InputError, match="vocab_size: missing"):
    BertConfig.from_dict({})


def test_keys_of_the_originals_files_are_ignored_by_name():
  config = BertConfig.from_dict({
    "vocab_size": 99, "directionality": "bidi", "pooler_fc_size": 768,
    "pooler_type": "first_token_transform"})
  assert config == BertConfig(vocab_size=99)


def test_released_configs_are_read(shared):
  folder = shared / "data" / "checkpoint_indexes"
  shapes = {
    path.parent.name: BertConfig.from_json_file(str(path))
    for path in folder.glob("*/bert_config.json")
  }
  assert {name: (c.num_hidden_layers, c.hidden_size, c.vocab_size)
          for name, c in shapes.items()} == {
    "L-12_vocab-5981": (12, 768, 5981),
    "chinese_wwm_L-12_H-768": (12, 768, 21128),
    "uncased_L-8_H-512": (8, 512, 30522),
  }


def test_there_are_26_sizes_and_24_of_them_are_miniatures():
  miniatures = [name for name in SIZES if re.fullmatch(r"L-\d+_H-\d+", name)]
  assert len(miniatures) == 24
  large = BertConfig.from_size("large", vocab_size=30522)
  assert (large.num_hidden_layers, large.hidden_size,
          large.num_attention_heads, large.intermediate_size) == (
              24, 1024, 16, 4096)
  with pytest.raises(InputError, match="huge"):
    BertConfig.from_size("huge", vocab_size=30522)


def test_each_config_file_is_what_its_name_says():
  paths = sorted((REPOSITORY / "configs" / "models").glob("*.json"))
  assert len(paths) == 29
  for path in paths:
    name, layers, hidden, heads = re.fullmatch(
        r"(.+)_L-(\d+)_H-(\d+)_A-(\d+)", path.stem).groups()
    expected = BertConfig(
        vocab_size=RELEASED_VOCABULARIES[name],
        num_hidden_layers=int(layers), hidden_size=int(hidden),
        num_attention_heads=int(heads), intermediate_size=4 * int(hidden))
    assert BertConfig.from_json_file(str(path)) == expected, path.name


def test_a_config_survives_json():
  config = BertConfig.from_size("mini", vocab_size=7)
  assert BertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == (
      config)


DATA = {"input_file": ("a",), "output_file": ("b",), "vocab_file": "c"}


@pytest.mark.parametrize("changes, message", [
  ({"masked_lm_prob": 1.5}, "--masked_lm_prob: received 1.5"),
  ({"dupe_factor": 0}, "--dupe_factor: received 0"),
  ({"sentence_splitter": "magic"}, "must be one of none, rules"),
  ({"max_predictions_per_seq": 126}, "at most 125"),
])
def test_wrong_data_arguments_are_refused(changes, message):
  with pytest.raises(InputError, match=message):
    PretrainingDataConfig(**DATA, **changes)


TEXT = "--input_file and --tfds_name: received "


@pytest.mark.parametrize("config_class, required", [
  (CorpusConfig, {}),
  (VocabularyConfig, {"output_file": "b"}),
  (PretrainingDataConfig, {"output_file": ("b",), "vocab_file": "c"}),
])
@pytest.mark.parametrize("values, message", [
  ({}, TEXT + "neither; give one of them"),
  ({"input_file": ("a",), "tfds_name": "wikipedia"}, TEXT + "both; give one"),
  ({"input_file": ("a", "-")}, "received a,-; standard input .-. must stand"),
  ({"input_file": ("a",), "input_format": "xml"},
   "received 'xml'; must be one of auto, text, jsonl, wikiextractor"),
  ({"input_file": ("a",), "on_bad_utf8": "drop"}, "must be one of error, rep"),
  ({"tfds_name": "wikipedia", "input_format": "text"},
   "--input_format: received 'text' with --tfds_name"),
  ({"input_file": ("a",), "tfds_data_dir": "b"},
   "--tfds_data_dir: received without --tfds_name"),
])
def test_text_comes_from_one_place(config_class, required, values, message):
  with pytest.raises(InputError, match=message):
    config_class(**required, **values)
  for right in ({"input_file": ("-",)}, {"input_file": ("a", "b")},
                {"tfds_name": "wikipedia", "tfds_data_dir": "b"}):
    assert config_class(**required, **right).text_field == "text"


@pytest.mark.parametrize("changes, message", [
  ({}, "neither --do_train nor --do_eval"),
  ({"do_train": True}, "neither --bert_config_file nor --init_checkpoint"),
  ({"do_train": True, "bert_config_file": "c", "train_batch_size": 0},
   "--train_batch_size: received 0"),
])
def test_wrong_training_arguments_are_refused(changes, message):
  with pytest.raises(InputError, match=message):
    PretrainingConfig(input_file=("a",), output_dir="b", **changes)


@pytest.mark.parametrize("text", [
  "", "10", "10,", "20,10", "10,10", "-1,5", "1.5,3", "10,20,30", "a,b",
])
def test_profile_steps_that_are_none_are_refused(text):
  with pytest.raises(InputError, match=f"--profile_steps: received {text!r}"):
    TrainingConfig(output_dir="run", profile_steps=text)


def test_profile_steps_are_read():
  config = TrainingConfig(output_dir="run", profile_steps="10,20")
  assert config.profile_range == (10, 20)
  assert TrainingConfig(output_dir="run").profile_range is None
