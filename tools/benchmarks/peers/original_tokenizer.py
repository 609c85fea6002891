"""The original tokenizer in Python, in its own environment, by lines of JSON.

  {"do": "load", "vocab_file": ..., "do_lower_case": true, "texts": "file"}
  {"do": "encode"}   times one pass over the texts

Its module imports TensorFlow 1 to open the vocabulary, and for nothing else.
"""

import json
import sys
import time
import types

sys.modules["tensorflow"] = types.SimpleNamespace(
    gfile=types.SimpleNamespace(
        GFile=lambda path, mode: open(path, mode, encoding="utf-8")))

from bert import tokenization


def main():
  tokenizer = texts = None
  for line in sys.stdin:
    request = json.loads(line)
    answer = {}
    if request["do"] == "load":
      tokenizer = tokenization.FullTokenizer(
          vocab_file=request["vocab_file"],
          do_lower_case=request["do_lower_case"])
      with open(request["texts"], encoding="utf-8") as file:
        texts = json.load(file)
    else:
      start = time.perf_counter()
      ids = [
        tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
        for text in texts]
      answer = {"seconds": time.perf_counter() - start,
                "pieces": sum(map(len, ids))}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
  main()
