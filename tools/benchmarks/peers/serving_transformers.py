"""Answers of Transformers on PyTorch; see serving_timing.

Its fast tokenizer, each batch padded to its longest, attention by PyTorch's
own kernel (`sdpa`). The variant `compile` is torch.compile for shapes that
change. With `export` it answers nothing and writes the models of ONNX Runtime,
which needs PyTorch.
"""

import os

import serving_timing

import torch
import transformers


def load(request):
  path = os.path.join(request["model"], "huggingface")
  model = transformers.AutoModelForSequenceClassification.from_pretrained(path)
  return transformers.AutoTokenizer.from_pretrained(path), model.eval()


def export(model, folder):
  """`plain.onnx`, and `optimized.onnx` by ONNX Runtime's tool."""
  from onnxruntime.transformers import optimizer
  ids = torch.ones([2, 8], dtype=torch.long)
  names = ["input_ids", "attention_mask", "token_type_ids"]
  axes = {0: "batch", 1: "length"}
  plain = os.path.join(folder, "plain.onnx")
  torch.onnx.export(
      model, (ids, ids, ids - 1), plain, input_names=names,
      output_names=["logits"], dynamic_axes=dict.fromkeys(names, axes),
      dynamo=False)
  # Its numbers of heads and units are read from the graph.
  optimizer.optimize_model(
      plain, model_type="bert", num_heads=0, hidden_size=0,
  ).save_model_to_file(os.path.join(folder, "optimized.onnx"))


def make_answer(request, tokenizer, model):
  if request["variant"] == "compile":
    model = torch.compile(model, dynamic=True)

  def answer(texts):
    inputs = tokenizer(
        texts, padding=True, truncation=True, return_tensors="pt",
        max_length=request["max_seq_length"])
    with torch.inference_mode():
      return model(**inputs).logits.softmax(-1).numpy()

  return answer


if __name__ == "__main__":
  request = serving_timing.read_request()
  tokenizer, model = load(request)
  if request["variant"] == "export":
    export(model, request["model"])
    print("{}")
  else:
    serving_timing.run(
        request, make_answer(request, tokenizer, model),
        version=f"Transformers {transformers.__version__}, "
                f"PyTorch {torch.__version__}")
