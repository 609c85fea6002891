"""A pretraining step of Transformers on PyTorch; see step_timing.

`BertForPreTraining`, whose own forward scores all positions: here its head
gets the gathered masked positions alone, which its users would have to write.
AdamW is fused; attention is PyTorch's own
(`sdpa`). bfloat16 is autocast, with float32 weights, as PyTorch's manual of
mixed precision says. The variant `compile` runs forward and loss through
`torch.compile`, and with them the backward pass.
"""

import step_timing
from transformers_optimizer import make_optimizer

import torch
import transformers


def make_model(sizes):
  dropout = sizes["dropout"]
  config = transformers.BertConfig(
      vocab_size=sizes["vocab_size"], hidden_size=sizes["hidden_size"],
      num_hidden_layers=sizes["num_hidden_layers"],
      num_attention_heads=sizes["num_attention_heads"],
      intermediate_size=sizes["intermediate_size"],
      max_position_embeddings=sizes["max_position_embeddings"],
      hidden_act="gelu_new", hidden_dropout_prob=dropout,
      attention_probs_dropout_prob=dropout)
  return transformers.BertForPreTraining(config).train()


def make_step(request, batch):
  model = make_model(request["model"])
  optimizer, schedule = make_optimizer(model, request["optimizer"])
  batch = {name: torch.from_numpy(array) for name, array in batch.items()}
  long = {name: batch[name].long() for name in (
    "input_ids", "segment_ids", "masked_lm_positions", "masked_lm_ids",
    "next_sentence_labels")}
  rows = torch.arange(len(batch["input_ids"]))[:, None]
  cross_entropy = torch.nn.functional.cross_entropy

  def loss_of():
    outputs = model.bert(
        input_ids=long["input_ids"], attention_mask=batch["input_mask"],
        token_type_ids=long["segment_ids"])
    masked = outputs.last_hidden_state[rows, long["masked_lm_positions"]]
    mlm, nsp = model.cls(masked, outputs.pooler_output)
    nll = cross_entropy(
        mlm.flatten(0, 1).float(), long["masked_lm_ids"].flatten(),
        reduction="none")
    weights = batch["masked_lm_weights"].flatten()
    return (weights * nll).sum() / (weights.sum() + 1e-5) + cross_entropy(
        nsp.float(), long["next_sentence_labels"])

  if request["variant"] == "compile":
    loss_of = torch.compile(loss_of)

  def step():
    with torch.autocast(
        "cpu", torch.bfloat16, enabled=request["precision"] == "bfloat16"):
      loss = loss_of()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(
        model.parameters(), request["optimizer"]["clip_norm"])
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return loss.detach()

  return step, sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
  step_timing.main(
      make_step, version=f"Transformers {transformers.__version__}, "
                         f"PyTorch {torch.__version__}")
