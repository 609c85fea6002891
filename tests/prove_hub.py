"""Shows that an exported encoder trains in TensorFlow Hub as it does here.

  python tests/prove_hub.py

Exports a small pretrained encoder and fine-tunes it three times on the same
batches: by run_finetuning.py; by a plain loop over `tf.saved_model.load`; and
as a `hub.KerasLayer` in a tf_keras model. The last two run in an environment
of their own under --cache_dir, which has tensorflow_hub and tf_keras, and
without a line of bert_tf: AdamW, its schedule and clipping are written out
below.

Prints how far the weights are apart at the end, and how far they have moved.
Exits with 1 if that is more than BOUND. Takes 2 minutes.
"""

import argparse
import glob
import os
import pathlib
import random
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("tensorflow-hub==0.16.1", "tf-keras==2.21.0", "setuptools<81")
# Of a rate of 1e-3: one step moves a weight as far as that.
BOUND = 2e-5
RATE, STEPS, BATCH, LENGTH, SEED = 1e-3, 24, 8, 16, 7
WORDS = "the a cat dog mat sat ran on under big small red".split()
INPUTS = {"input_word_ids": "input_ids", "input_mask": "input_mask",
          "input_type_ids": "segment_ids"}


def install(cache_dir: str) -> str:
  """The Python of an environment that sees this one's packages too."""
  environment = os.path.join(cache_dir, "hub")
  python = os.path.join(environment, "bin", "python")
  done = os.path.join(environment, "installed")
  if not os.path.exists(done):
    print(f"Installing {', '.join(PACKAGES)} into {environment}.", flush=True)
    subprocess.run(
        [sys.executable, "-m", "venv", "--clear", environment], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps",
         "--disable-pip-version-check", *PACKAGES], check=True)
    [packages] = glob.glob(
        os.path.join(environment, "lib", "python*", "site-packages"))
    ours = pathlib.Path(tf.__file__).parent.parent
    pathlib.Path(packages, "ours.pth").write_text(f"{ours}\n")
    open(done, "w", encoding="utf-8").close()
  return python


# In the other environment.


def adamw_step(step: int, variables, gradients, slots) -> None:
  """Kingma and Ba 2015; Loshchilov and Hutter 2019; in float32."""
  gradients, _ = tf.clip_by_global_norm(
      [tf.convert_to_tensor(gradient) for gradient in gradients], 1.0)
  warmup = int(STEPS * 0.1)
  rate = RATE * (step / warmup if step < warmup else 1 - step / STEPS)
  for variable, gradient, (m, v) in zip(variables, gradients, slots):
    m.assign(0.9 * m + 0.1 * gradient)
    v.assign(0.999 * v + 0.001 * gradient ** 2)
    update = (m / (1 - 0.9 ** (step + 1))) / (
        tf.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-6)
    if not any(part in variable.name for part in ("LayerNorm", "bias")):
      update += 0.01 * variable
    variable.assign_sub(rate * update)


def make_model(way: str, export: str):
  """(inputs -> pooled output, variables of the encoder)."""
  if way == "loop":
    encoder = tf.saved_model.load(export)
    pooled = lambda inputs: encoder(inputs, training=True)["pooled_output"]
    return pooled, encoder.trainable_variables
  import tensorflow_hub as hub
  import tf_keras
  inputs = {
    name: tf_keras.Input([None], dtype=tf.int32, name=name) for name in INPUTS}
  layer = hub.KerasLayer(export, trainable=True)
  model = tf_keras.Model(inputs, layer(inputs)["pooled_output"])
  return lambda x: model(x, training=True), model.trainable_variables


def train_elsewhere(way: str, export: str, batches: str, output: str) -> None:
  assert not [name for name in sys.modules if name.startswith("bert_tf")]
  import tensorflow_text  # The tokenizer's operations, for loading.
  given = np.load(batches)
  weights = tf.Variable(given["output_weights"], name="output_weights")
  bias = tf.Variable(given["output_bias"], name="output_bias")
  pooled, variables = make_model(way, export)
  variables = [*variables, weights, bias]
  slots = [[tf.Variable(tf.zeros_like(x)) for _ in "mv"] for x in variables]
  for step in range(STEPS):
    inputs = {name: tf.constant(given[ours][step])
              for name, ours in INPUTS.items()}
    with tf.GradientTape() as tape:
      logits = tf.matmul(pooled(inputs), weights, transpose_b=True) + bias
      loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
          given["label"][step], logits))
    adamw_step(step, variables, tape.gradient(loss, variables), slots)
  np.savez(output, **{
    variable.name.removesuffix(":0"): variable.numpy()
    for variable in variables})


# In this one.


def write_export(folder: pathlib.Path) -> str:
  """A small encoder at random, without dropout."""
  from bert_tf import checkpoints, export
  from bert_tf.arguments import ExportConfig
  from bert_tf.config import BertConfig
  from bert_tf.heads import BertForPreTraining
  from bert_tf.tasks import TASKS
  from bert_tf.tokenization import BertTokenizer
  from bert_tf.tokenization import SPECIAL_TOKENS
  keras.utils.set_random_seed(SEED)
  entries = [*SPECIAL_TOKENS, *WORDS]
  model = BertForPreTraining(BertConfig(
      vocab_size=len(entries), hidden_size=32, num_hidden_layers=2,
      num_attention_heads=2, intermediate_size=64,
      max_position_embeddings=LENGTH, initializer_range=0.2,
      hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
  checkpoints.save_model(
      str(folder / "model"), model, BertTokenizer(entries, do_lower_case=True))
  return export.run(ExportConfig(
      model_dir=str(folder / "model"), export_dir=str(folder / "export")),
      TASKS)


def write_rows(folder: pathlib.Path) -> None:
  rng = random.Random(SEED)
  rows = [[rng.choice(WORDS) for _ in range(rng.randrange(3, 13))]
          for _ in range(STEPS * BATCH)]
  folder.mkdir()
  (folder / "train.tsv").write_text("label\ttext\n" + "".join(
      f"{'yes' if 'cat' in row else 'no'}\t{' '.join(row)}\n"
      for row in rows))


def finetune(folder: pathlib.Path, export: str, rate: float) -> dict:
  """{name: weight} that run_finetuning.py comes to."""
  from bert_tf import checkpoints
  output = folder / f"rate_{rate}"
  subprocess.run([
    sys.executable, str(REPOSITORY / "run_finetuning.py"),
    "--task_name=classification", f"--data_dir={folder / 'data'}",
    f"--init_checkpoint={export}", f"--output_dir={output}", "--do_train",
    f"--train_batch_size={BATCH}", f"--max_seq_length={LENGTH}",
    "--num_train_epochs=1", f"--learning_rate={rate}",
    f"--random_seed={SEED}"], check=True, stderr=subprocess.DEVNULL)
  source = checkpoints.open_source(str(output))
  return {name: source.read(name) for name in source.shapes}


def write_batches(folder: pathlib.Path, export: str, start: dict) -> None:
  """What run_finetuning.py takes in each step, and its new head."""
  from bert_tf import checkpoints, examples
  from bert_tf.data.tables import read_columns
  rows = read_columns(
      str(folder / "data" / "train.tsv"), ["text", "label"],
      on_bad_utf8="error")
  pieces = examples.tokenize(
      checkpoints.load_tokenizer(export), rows["text"], max_seq_length=LENGTH)
  labels = np.array([label == "yes" for label in rows["label"]], np.int32)
  encoded = examples.Examples(pieces, {"label": labels})
  order = examples.training_order(
      encoded.lengths, batch_size=BATCH, num_steps=STEPS, seed=SEED)
  batch_of = examples.make_batches_of(encoded, max_seq_length=LENGTH)
  batches = [batch_of(tf.constant(indices)) for indices in order]
  np.savez(
      folder / "batches.npz",
      output_weights=start["output_weights"], output_bias=start["output_bias"],
      **{name: np.stack([batch[name] for batch in batches])
         for name in batches[0]})


def distance(one: dict, two: dict) -> float:
  assert sorted(one) == sorted(two), set(one) ^ set(two)
  return max(float(np.abs(one[name] - two[name]).max()) for name in one)


def prove(folder: pathlib.Path, python: str) -> bool:
  sys.path.insert(0, str(REPOSITORY))
  export = write_export(folder)
  write_rows(folder / "data")
  # Without a rate: what training starts from, the new head too.
  start = finetune(folder, export, 0.0)
  here = finetune(folder, export, RATE)
  write_batches(folder, export, start)
  print(f"{STEPS} steps of rate {RATE}: run_finetuning.py moves a weight by up "
        f"to {distance(start, here):.2g}.")
  is_near = True
  for way in ("loop", "keras_layer"):
    output = folder / f"{way}.npz"
    subprocess.run([
      python, os.path.abspath(__file__), f"--way={way}", f"--export={export}",
      f"--batches={folder / 'batches.npz'}", f"--output={output}"],
      check=True, cwd=folder)
    apart = distance(here, dict(np.load(output)))
    print(f"{way}: {apart:.2g} from run_finetuning.py.", flush=True)
    is_near &= apart <= BOUND
  return is_near


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
      "--cache_dir", default=os.path.expanduser("~/.cache/bert_tf"),
      help="Where the environment is made, and found the next time.")
  for name in ("way", "export", "batches", "output"):
    parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.way:
    train_elsewhere(
        arguments.way, arguments.export, arguments.batches, arguments.output)
    return
  python = install(arguments.cache_dir)
  with tempfile.TemporaryDirectory() as folder:
    sys.exit(0 if prove(pathlib.Path(folder), python) else 1)


if __name__ == "__main__":
  main()
