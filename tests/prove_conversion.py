"""Shows that Transformers computes from our models what we compute, and back.

  python tests/prove_conversion.py

For each kind of model (pretraining, encoder, classification, tokens, answer
spans, multiple choice): ours is converted to Hugging Face's form, the class
of Transformers reads it and gives the same outputs, and what that class saves
(in one file and in shards), loaded here, gives them again. Installs
Transformers and PyTorch into an environment of its own under --cache_dir (1
GB, once). Writes `transformers_outputs.npz`, which the tests hold against.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

BOUND = 1e-5
TOOLS = pathlib.Path(__file__).parents[1] / "tools"
# More than any variable but the tables of the models here.
SHARD = "20KB"


def ask_transformers(folder: pathlib.Path) -> None:
  """Run there: reads each model below the folder, computes and saves it."""
  import torch
  import transformers
  for directory in sorted(folder.iterdir()):
    request = json.loads((directory / "request.json").read_text())
    made = getattr(transformers, request["architecture"])
    model, loading = made.from_pretrained(
        directory / "huggingface", output_loading_info=True)
    model.eval()
    inputs = {
      name: torch.tensor(x).long()
      for name, x in np.load(directory / "inputs.npz").items()}
    with torch.no_grad():
      outputs = model(
          input_ids=inputs["input_ids"], attention_mask=inputs["input_mask"],
          token_type_ids=inputs["segment_ids"])
    np.savez(directory / "outputs.npz", **{
      ours: outputs[theirs].numpy()
      for ours, theirs in request["names"].items()})
    model.save_pretrained(directory / "saved")
    model.save_pretrained(directory / "sharded", max_shard_size=SHARD)
    (directory / "answer.json").write_text(json.dumps({
      "missing": sorted(loading["missing_keys"]),
      "unexpected": sorted(loading["unexpected_keys"]),
      "versions": {"transformers": transformers.__version__,
                   "torch": torch.__version__}}))


def largest_difference(ours: dict, theirs: dict) -> float:
  return max(float(np.abs(theirs[name] - ours[name]).max()) for name in theirs)


def compare(kind: str, directory: pathlib.Path, model, ours: dict) -> dict:
  """What was found of one kind of model; prints it.

  `kept` holds the outputs of Transformers and the digest of what it read.
  """
  from bert_tf import checkpoints
  import transformers_models as models
  theirs = dict(np.load(directory / "outputs.npz"))
  answer = json.loads((directory / "answer.json").read_text())
  differences = {"out": largest_difference(ours, theirs)}
  for form in ("saved", "sharded"):
    source = checkpoints.open_source(str(directory / form))
    for variable in model.weights:
      variable.assign(np.zeros(variable.shape))
    checkpoints.load_weights(model, source, new=("bert/pooler/",))
    differences[form] = largest_difference(
        models.outputs_of(model, kind), theirs)
    expected = checkpoints.read_task(
        checkpoints.open_source(str(directory / "google")))
    if checkpoints.read_task(source) != expected:
      raise SystemExit(f"{kind}: the task did not come back.")
  # Its classes for tokens and spans have no pooler.
  unexpected = [name for name in answer["unexpected"] if "pooler" not in name]
  print(f"{kind:16} there {differences['out']:.1e}, back "
        f"{differences['saved']:.1e}, in shards {differences['sharded']:.1e}, "
        f"missing {answer['missing']}, unexpected {unexpected}", flush=True)
  return {
    "passed": max(differences.values()) <= BOUND
              and not answer["missing"] and not unexpected,
    "versions": answer["versions"],
    "kept": {**{f"{kind}/{name}": x for name, x in theirs.items()},
             f"{kind}/digest": models.digest(directory / "huggingface")}}


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
      "--cache_dir", default=os.path.expanduser("~/.cache/bert_tf"),
      help="Where the environment is made, and found the next time.")
  parser.add_argument("--transformers", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.transformers:
    ask_transformers(pathlib.Path(arguments.transformers))
    return
  sys.path.append(str(TOOLS))
  from benchmarks import harness
  import transformers_models as models
  python = harness.peer_python(
      arguments.cache_dir, "benchmark-step-transformers",
      harness.read_packages(
          os.path.join(harness.PEERS, "step_transformers.txt")))
  with tempfile.TemporaryDirectory() as folder:
    made = {}
    for kind, (_, _, architecture) in models.KINDS.items():
      directory = pathlib.Path(folder, kind)
      directory.mkdir()
      model = models.write_model(kind, directory)
      made[kind] = model, models.outputs_of(model, kind)
      np.savez(directory / "inputs.npz", **models.make_inputs(kind))
      (directory / "request.json").write_text(json.dumps({
        "architecture": architecture,
        "names": {name: models.NAMES[name] for name in made[kind][1]}}))
    subprocess.run([python, __file__, "--transformers", folder], check=True)
    found = [compare(kind, pathlib.Path(folder, kind), *made[kind])
             for kind in models.KINDS]
  if not all(row["passed"] for row in found):
    sys.exit(f"Not all agree within {BOUND}.")
  np.savez_compressed(
      models.OUTPUTS, versions=json.dumps(found[0]["versions"]),
      **{name: x for row in found for name, x in row["kept"].items()})
  print(f"All agree within {BOUND}. Wrote {models.OUTPUTS.name}.")


if __name__ == "__main__":
  main()
