"""The optimizer of the programs with Transformers: PyTorch's fused AdamW."""

import torch
import transformers


def make_optimizer(model, settings):
  no_decay = [p for p in model.parameters() if p.ndim < 2]  # norms, biases
  decay = [p for p in model.parameters() if p.ndim >= 2]
  schedule = settings["schedule"]
  optimizer = torch.optim.AdamW(
      [{"params": decay, "weight_decay": settings["weight_decay"]},
       {"params": no_decay, "weight_decay": 0.0}],
      lr=schedule["learning_rate"], eps=settings["epsilon"], fused=True)
  return optimizer, transformers.get_linear_schedule_with_warmup(
      optimizer, schedule["num_warmup_steps"], schedule["num_train_steps"])
