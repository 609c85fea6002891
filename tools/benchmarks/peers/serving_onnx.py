"""Answers of ONNX Runtime with Hugging Face's tokenizer; see serving_timing.

The model is what `serving_transformers` exported; in the variant `optimized`
ONNX Runtime's own tool for Transformers has fused its attention, layer norms
and gelu before.
"""

import os

import serving_timing

import numpy as np
import onnxruntime
import tokenizers


def load_tokenizer(request):
  tokenizer = tokenizers.BertWordPieceTokenizer(
      os.path.join(request["model"], "huggingface", "vocab.txt"))
  tokenizer.enable_padding()
  tokenizer.enable_truncation(request["max_seq_length"])
  return tokenizer


def load_session(request):
  return onnxruntime.InferenceSession(
      os.path.join(request["model"], f"{request['variant'] or 'plain'}.onnx"),
      providers=["CPUExecutionProvider"])


def make_answer(tokenizer, session):
  def answer(texts):
    encoded = tokenizer.encode_batch(texts)
    inputs = {
      name: np.array([getattr(each, attribute) for each in encoded], np.int64)
      for name, attribute in (
        ("input_ids", "ids"), ("attention_mask", "attention_mask"),
        ("token_type_ids", "type_ids"))}
    [logits] = session.run(["logits"], inputs)
    return serving_timing.softmax(logits)

  return answer


if __name__ == "__main__":
  request = serving_timing.read_request()
  serving_timing.run(
      request, make_answer(load_tokenizer(request), load_session(request)),
      version=f"ONNX Runtime {onnxruntime.__version__}")
