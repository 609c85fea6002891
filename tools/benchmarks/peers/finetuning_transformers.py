"""Steps of fine-tuning with Transformers on PyTorch; see step_timing.

Its fast tokenizer, `DataCollatorWithPadding`, `Trainer`'s sampler of lengths,
attention by PyTorch's own kernel (`sdpa`), fused AdamW, and bfloat16 as
autocast with float32 weights. The variant names what its manual offers:
`group_by_length`, `compile`, or both with a comma.
"""

import itertools
import json

import step_timing
from transformers_optimizer import make_optimizer

import numpy as np
import torch
import transformers
from transformers.trainer_pt_utils import LengthGroupedSampler


def make_tokenizer(request):
  return transformers.AutoTokenizer.from_pretrained(request["init_checkpoint"])


def make_model(request):
  transformers.set_seed(request["seed"])
  return transformers.AutoModelForSequenceClassification.from_pretrained(
      request["init_checkpoint"], num_labels=2).train()


def encode(tokenizer, rows, max_seq_length):
  """One dict an example, without padding."""
  texts = [rows[name].tolist() for name in ("text", "text_pair")
           if name in rows]
  encoded = tokenizer(*texts, truncation=True, max_length=max_seq_length)
  return [{**{name: encoded[name][i] for name in encoded}, "labels": label}
          for i, label in enumerate(rows["label"].tolist())]


def make_loader(request, rows):
  """Batches of one pass over the rows, in another order each time."""
  settings = request["settings"]
  tokenizer = make_tokenizer(request)
  examples = encode(tokenizer, rows, settings["max_seq_length"])
  size, order = settings["batch_size"], {"shuffle": True}
  if "group_by_length" in request["variant"]:
    order = {"sampler": LengthGroupedSampler(
        size, lengths=[len(example["input_ids"]) for example in examples])}
  return torch.utils.data.DataLoader(
      examples, batch_size=size, drop_last=True, **order,
      collate_fn=transformers.DataCollatorWithPadding(tokenizer))


def make_step(request, rows):
  model = make_model(request)
  return (make_step_of(model, request, rows),
          sum(p.numel() for p in model.parameters()))


def make_step_of(model, request, rows):
  """Draws the next batch and does one whole update of the model."""
  settings = request["settings"]
  optimizer, schedule = make_optimizer(model, settings)
  loader = make_loader(request, rows)
  batches = itertools.chain.from_iterable(
      loader for _ in itertools.count())
  forward = model
  if "compile" in request["variant"]:
    forward = torch.compile(model)

  def step():
    with torch.autocast(
        "cpu", torch.bfloat16, enabled=request["precision"] == "bfloat16"):
      loss = forward(**next(batches)).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(
        model.parameters(), settings["clip_norm"])
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return loss.detach()

  return step


def predictions_after_training(request, rows):
  """The classes that it gives the rows of the file `dev`, [E]."""
  model = make_model(request)
  step = make_step_of(model, request, rows)
  for _ in range(request["steps"]):
    step()
  with np.load(request["dev"]) as arrays:
    rows = {name: arrays[name] for name in arrays.files}
  tokenizer = make_tokenizer(request)
  loader = torch.utils.data.DataLoader(
      encode(tokenizer, rows, request["settings"]["max_seq_length"]),
      batch_size=request["settings"]["batch_size"],
      collate_fn=transformers.DataCollatorWithPadding(tokenizer))
  model.eval()
  with torch.no_grad():
    return [number for batch in loader
            for number in model(**batch).logits.argmax(-1).tolist()]


if __name__ == "__main__":
  request, rows = step_timing.read_request()
  if "dev" in request:
    print(json.dumps(
        {"predictions": predictions_after_training(request, rows)}))
  else:
    step_timing.main(
        make_step, version=f"Transformers {transformers.__version__}, "
                           f"PyTorch {torch.__version__}")
