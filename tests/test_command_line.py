"""Flags from dataclasses: as a user meets them, in programs of their own."""

import subprocess
import sys

from conftest import REPOSITORY
import pytest

PROGRAM = '''
"""Makes records."""
from bert_tf import arguments, command_line
command_line.run(arguments.PretrainingDataConfig, print, __doc__)
'''
REQUIRED = ["--input_file=a.txt,b.txt", "--output_file=c", "--vocab_file=v"]


def run(tmp_path, *flags):
  script = tmp_path / "make_records.py"
  script.write_text(PROGRAM)
  return subprocess.run(
      [sys.executable, str(script), *flags], capture_output=True, text=True)


def test_flags_become_a_config(tmp_path):
  result = run(tmp_path, *REQUIRED, "--dupe_factor=3", "--nodo_lower_case",
               "--masked_lm_prob=0.2", "--do_whole_word_mask")
  assert result.returncode == 0, result.stderr
  for text in ("input_file=('a.txt', 'b.txt')", "dupe_factor=3",
               "do_lower_case=False", "masked_lm_prob=0.2",
               "do_whole_word_mask=True", "max_seq_length=128"):
    assert text in result.stdout


def test_what_is_not_given_has_its_default(tmp_path):
  assert "do_lower_case=None" in run(tmp_path, *REQUIRED).stdout


@pytest.mark.parametrize("flags, message", [
  (REQUIRED[:2], "--vocab_file"),
  ([*REQUIRED, "--max_seq_length=long"], "--max_seq_length"),
  ([*REQUIRED, "--max_seq_lenght=9"], "max_seq_lenght"),
  ([*REQUIRED, "--masked_lm_prob=2"], "--masked_lm_prob: received 2.0"),
  ([*REQUIRED, "--sentence_splitter=x"], "sentence_splitter"),
  ([*REQUIRED, "text.txt"], "received 'text.txt', which is not a flag"),
])
def test_wrong_flags_end_the_program(tmp_path, flags, message):
  result = run(tmp_path, *flags)
  assert result.returncode == 1
  assert message in result.stderr
  assert "Traceback" not in result.stderr


def test_our_errors_are_one_line(tmp_path):
  result = run(tmp_path, *REQUIRED, "--dupe_factor=0")
  assert result.stderr == (
      "make_records.py: error: --dupe_factor: received 0; must be a whole "
      "number at least 1.\n")


def test_obsolete_flags_parse_and_warn(tmp_path):
  result = run(tmp_path, *REQUIRED, "--use_tpu=True", "--master=grpc://x")
  assert result.returncode == 0
  assert "--use_tpu has no effect" in result.stderr
  assert "--master has no effect" in result.stderr


@pytest.mark.parametrize("script", [
  "run_pretraining.py", "run_finetuning.py", "tools/learn_vocabulary.py",
  "tools/create_pretraining_data.py", "tools/export_saved_model.py",
  "tools/inspect_checkpoint.py", "tools/convert_checkpoint.py",
  "tools/export_tflite.py",
  "tools/adapt_checkpoint.py", "tools/extract_features.py",
  "tools/predict.py", "tools/query_server.py"])
def test_help_says_what_a_program_does(script):
  result = subprocess.run(
      [sys.executable, str(REPOSITORY / script), "--help"],
      capture_output=True, text=True)
  assert "flags:" in result.stdout
  # Without the wait for TensorFlow.
  assert "tensorflow" not in result.stderr.lower()


@pytest.mark.parametrize("directories", [[], ["a", "b", "c"]])
def test_what_has_no_flag_is_counted(directories):
  result = subprocess.run(
      [sys.executable, str(REPOSITORY / "tools" / "inspect_checkpoint.py"),
       *directories], capture_output=True, text=True)
  assert result.returncode == 1
  assert result.stderr == (
      f"inspect_checkpoint.py: error: received {len(directories)} "
      "directories; give one, or two to compare.\n")


# The flags of the original's README: they must parse.
ORIGINAL_COMMANDS = {
  "run_pretraining.py": """
    --input_file=/tmp/nowhere.tfrecord --output_dir=/tmp/nowhere/out
    --do_train=True --do_eval=True --bert_config_file=/tmp/nowhere.json
    --init_checkpoint=/tmp/nowhere.ckpt --train_batch_size=32
    --max_seq_length=128 --max_predictions_per_seq=20 --num_train_steps=20
    --num_warmup_steps=10 --learning_rate=2e-5 --use_tpu=False
    --eval_batch_size=8 --save_checkpoints_steps=1000
    --iterations_per_loop=1000 --max_eval_steps=100 --num_tpu_cores=8""",
  "run_finetuning.py": """
    --task_name=MRPC --do_train=true --do_eval=true
    --data_dir=/tmp/nowhere --vocab_file=/tmp/nowhere/vocab.txt
    --bert_config_file=/tmp/nowhere/bert_config.json
    --init_checkpoint=/tmp/nowhere/bert_model.ckpt --max_seq_length=128
    --train_batch_size=32 --learning_rate=2e-5 --num_train_epochs=3.0
    --output_dir=/tmp/nowhere/out --do_lower_case=False
    --predict_batch_size=8 --warmup_proportion=0.1 --do_predict=true""",
  "tools/create_pretraining_data.py": """
    --input_file=/tmp/nowhere.txt --output_file=/tmp/nowhere.tfrecord
    --vocab_file=/tmp/nowhere/vocab.txt --do_lower_case=True
    --max_seq_length=128 --max_predictions_per_seq=20 --masked_lm_prob=0.15
    --random_seed=12345 --dupe_factor=5 --short_seq_prob=0.1
    --do_whole_word_mask=False""",
  "tools/extract_features.py": """
    --input_file=/tmp/nowhere.txt --output_file=/tmp/nowhere.jsonl
    --vocab_file=/tmp/nowhere/vocab.txt
    --bert_config_file=/tmp/nowhere/bert_config.json
    --init_checkpoint=/tmp/nowhere/bert_model.ckpt --layers=-1,-2,-3,-4
    --max_seq_length=128 --batch_size=8 --do_lower_case=True --use_tpu=False
    --master=grpc://x --num_tpu_cores=8 --use_one_hot_embeddings=False""",
}


@pytest.mark.parametrize("script", ORIGINAL_COMMANDS)
def test_the_originals_command_lines_parse(script):
  result = subprocess.run(
      [sys.executable, str(REPOSITORY / script),
       *ORIGINAL_COMMANDS[script].split()], capture_output=True, text=True)
  # It gets as far as the first file that is not there.
  assert "error: /tmp/nowhere" in result.stderr
  assert result.returncode == 1
