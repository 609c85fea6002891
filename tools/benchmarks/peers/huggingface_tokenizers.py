"""Hugging Face's `tokenizers`, in its own environment, by lines of JSON.

  {"do": "load", "vocab_file": ..., "do_lower_case": true, "texts": "file"}
  {"do": "encode"}   times one pass over the texts
  {"do": "train", "corpus": "file", "vocab_size": ..., "output": "file"}
"""

import json
import resource
import sys
import time

import tokenizers
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import trainers

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(vocabulary, do_lower_case):
  model = models.WordPiece(
      vocabulary, unk_token="[UNK]", max_input_chars_per_word=200)
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=do_lower_case)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return tokenizer


def load(vocab_file, do_lower_case, texts):
  with open(vocab_file, encoding="utf-8") as file:
    entries = file.read().split("\n")
  vocabulary = {entry: place for place, entry in enumerate(entries) if entry}
  with open(texts, encoding="utf-8") as file:
    return make_tokenizer(vocabulary, do_lower_case), json.load(file)


def encode(tokenizer, texts):
  start = time.perf_counter()
  encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
  seconds = time.perf_counter() - start
  # Making Python lists of the ids is not counted.
  return {"seconds": seconds, "pieces": sum(map(len, encodings))}


def train(corpus, vocab_size, output):
  tokenizer = make_tokenizer({"[UNK]": 0}, True)
  trainer = trainers.WordPieceTrainer(
      vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS,
      show_progress=False)
  start = time.perf_counter()
  tokenizer.train([corpus], trainer)
  seconds = time.perf_counter() - start
  by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
  with open(output, "w", encoding="utf-8", newline="\n") as file:
    file.writelines(entry + "\n" for entry, _ in by_id)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {"seconds": seconds, "peak_mib": peak}


def main():
  loaded = None
  for line in sys.stdin:
    request = json.loads(line)
    what = request.pop("do")
    answer = {"version": tokenizers.__version__}
    if what == "load":
      loaded = load(**request)
    elif what == "encode":
      answer |= encode(*loaded)
    elif what == "train":
      answer |= train(**request)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
  main()
