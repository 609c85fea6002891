"""The recipes of configs/pretraining: numbers of the papers, by hand."""

import json
import re
import subprocess
import sys

from conftest import REPOSITORY
import pytest

from bert_tf.config import BertConfig

FOLDER = REPOSITORY / "configs" / "pretraining"
# Parses as run_pretraining.py does, and prints the config.
PROGRAM = """
import dataclasses, json
from bert_tf import arguments, command_line
command_line.run(
    arguments.PretrainingConfig,
    lambda config: print(json.dumps(dataclasses.asdict(config))), "Parses.")
"""
PHASE_1 = ("--input_file=a", "--output_dir=b", "--vocab_file=v")
PHASE_2 = ("--input_file=a", "--output_dir=c", "--init_checkpoint=b")

BASE = "configs/models/uncased_L-12_H-768_A-12.json"
LARGE = "configs/models/uncased_L-24_H-1024_A-16.json"
NAMES = ("bert_config_file", "optimizer", "train_batch_size", "max_seq_length",
         "max_predictions_per_seq", "learning_rate", "num_warmup_steps",
         "num_train_steps", "learning_rate_schedule")
RECIPES = {
  "base_phase1": (
    BASE, "adamw", 256, 128, 20, 1e-4, 10000, 900000, "linear"),
  "base_phase2": (
    None, "adamw", 256, 512, 77, 1e-5, 1000, 100000, "linear"),
  "large_phase1": (
    LARGE, "adamw", 256, 128, 20, 1e-4, 10000, 900000, "linear"),
  "large_phase2": (
    None, "adamw", 256, 512, 77, 1e-5, 1000, 100000, "linear"),
  "large_lamb_phase1": (
    LARGE, "lamb", 65536, 128, 20, 6e-3, 2000, 7037, "polynomial"),
  "large_lamb_phase2": (
    None, "lamb", 32768, 512, 77, 4e-3, 200, 1562, "polynomial"),
}
# Of encoder and pooler, as Devlin et al. have them at 30,522 entries.
NUM_PARAMETERS = {BASE: 109_482_240, LARGE: 335_141_888}
PEAKS = {"A100": 312e12, "H100": 989e12}


def parse(tmp_path, *flags):
  script = tmp_path / "parse.py"
  script.write_text(PROGRAM)
  result = subprocess.run(
      [sys.executable, str(script), *flags], cwd=REPOSITORY,
      capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


def recipe(tmp_path, name, *flags):
  needed = PHASE_1 if name.endswith("1") else PHASE_2
  return parse(tmp_path, f"--flagfile={FOLDER / name}.flags", *needed, *flags)


def test_every_recipe_is_tested():
  assert {path.stem for path in FOLDER.glob("*.flags")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_numbers_of_its_paper(tmp_path, name):
  config = recipe(tmp_path, name)
  assert tuple(config[key] for key in NAMES) == RECIPES[name]
  assert config["do_train"]
  assert config["masked_lm_prob"] == 0.15
  assert config["mixed_precision"] == "bfloat16"


@pytest.mark.parametrize("name", RECIPES)
def test_the_batch_divides_over_eight_cards(tmp_path, name):
  config = recipe(tmp_path, name)
  parts = 8 * config["gradient_accumulation_steps"]
  assert config["train_batch_size"] % parts == 0
  # Rows in a micro-batch of a card: some filling, and within 80 GB.
  rows = {128: (32, 128), 512: (16, 32)}[config["max_seq_length"]]
  assert rows[0] <= config["train_batch_size"] // parts <= rows[1]


def test_a_later_flag_wins(tmp_path):
  assert recipe(
      tmp_path, "large_phase2", "--gradient_accumulation_steps=4",
      "--nojit_compile")["gradient_accumulation_steps"] == 4


@pytest.mark.parametrize("size", ["base", "large"])
def test_phase_2_is_the_last_tenth_of_one_linear_decay(tmp_path, size):
  first = recipe(tmp_path, f"{size}_phase1")
  second = recipe(tmp_path, f"{size}_phase2")
  steps = first["num_train_steps"] + second["num_train_steps"]
  assert steps == 1_000_000
  assert first["num_train_steps"] / steps == 0.9
  left = 1 - first["num_train_steps"] / steps
  assert second["learning_rate"] == pytest.approx(
      first["learning_rate"] * left)
  assert first["train_batch_size"] == second["train_batch_size"]


def test_lamb_takes_the_steps_of_its_paper():
  # RECIPES is held to the files above.
  assert (RECIPES["large_lamb_phase1"][7]
          + RECIPES["large_lamb_phase2"][7]) == 8599


def num_parameters(config):
  """Tables and their norm, blocks, pooler: weights and biases."""
  hidden, inner = config.hidden_size, config.intermediate_size
  rows = (config.vocab_size + config.max_position_embeddings
          + config.type_vocab_size)
  attention = 4 * (hidden * hidden + hidden)
  feed_forward = hidden * inner + inner + inner * hidden + hidden
  norms = 2 * 2 * hidden
  block = attention + feed_forward + norms
  pooler = hidden * hidden + hidden
  return (rows * hidden + 2 * hidden + config.num_hidden_layers * block
          + pooler)


@pytest.mark.parametrize("path", NUM_PARAMETERS)
def test_the_models_are_those_of_the_paper(path):
  config = BertConfig.from_json_file(str(REPOSITORY / path))
  assert num_parameters(config) == NUM_PARAMETERS[path]
  assert config.hidden_dropout_prob == 0.1
  assert config.attention_probs_dropout_prob == 0.1


def step_flop(model, *, rows, length, predictions):
  """Three times the forward pass, product by product (2 m k n each)."""
  hidden, inner = model.hidden_size, model.intermediate_size

  def product(m, k, n):
    return 2 * m * k * n

  block = (4 * product(length, hidden, hidden)  # query, key, value, output
           + 2 * product(length, length, hidden)  # scores, weighted sum
           + 2 * product(length, hidden, inner))
  heads = (product(predictions, hidden, hidden)
           + product(predictions, hidden, model.vocab_size)
           + product(1, hidden, hidden) + product(1, hidden, 2))
  return 3 * rows * (model.num_hidden_layers * block + heads)


@pytest.mark.parametrize("name", RECIPES)
def test_the_costs_in_the_comments_are_those_of_the_formula(tmp_path, name):
  path = LARGE if name.startswith("large") else BASE
  config = recipe(tmp_path, name)
  flop = config["num_train_steps"] * step_flop(
      BertConfig.from_json_file(str(REPOSITORY / path)),
      rows=config["train_batch_size"], length=config["max_seq_length"],
      predictions=config["max_predictions_per_seq"])
  hours = {card: f"{flop / (8 * peak * 0.4) / 3600:.1f}"
           for card, peak in PEAKS.items()}
  comments = " ".join((FOLDER / f"{name}.flags").read_text().replace(
      "\n#", " ").split())
  said = re.search(
      r"Costs ([0-9.e]+) FLOP.*?: ([0-9.]+) hours on 8 A100, ([0-9.]+) on 8 "
      r"H100 at 40 % of", comments)
  assert said.groups() == (
    f"{flop:.2e}".replace("e+", "e"), hours["A100"], hours["H100"])
  row = f"{said[1]} | {said[2]} h | {said[3]} h |"
  assert row in (FOLDER / "README.md").read_text()


def test_the_flags_of_spam_parse(tmp_path):
  program = PROGRAM.replace(
      "import arguments,", "import finetuning_arguments as arguments,").replace(
          "PretrainingConfig", "FinetuningConfig")
  done = subprocess.run(
      [sys.executable, "-c", program,
       f"--flagfile={REPOSITORY}/configs/finetuning/spam.flags",
       "--data_dir=a", "--output_dir=b", "--init_checkpoint=c"],
      capture_output=True, text=True, cwd=REPOSITORY)
  config = json.loads(done.stdout)
  assert (config["task_name"], config["text_column"], config["label_column"],
          config["num_train_epochs"], config["keep_best"]) == (
      "classification", "1", "0", 2.0, True)
