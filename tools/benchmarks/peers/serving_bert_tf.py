"""Answers of this library's SavedModel; see serving_timing.

In Python, or, with the variant `cpp`, by TensorFlow's C++ loader in a process
without the Python package, which is what TensorFlow Serving runs; `cpp frozen`:
the export in bfloat16 with its weights in the graph; `cpp frozen one_thread`:
with one thread within an operation.
"""

import os
import sys

import serving_timing

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))
sys.path[:0] = [REPOSITORY, os.path.join(REPOSITORY, "tests")]
import bert_tf
import saved_model_loader


def in_python(path):
  import tensorflow as tf
  import tensorflow_text  # its operations
  model = tf.saved_model.load(path)
  signature = model.signatures["serving_default"]

  def answer(texts):
    return signature(text=tf.constant(texts))["probabilities"].numpy()

  # The model must live as long as its signature.
  return model, answer


def in_cpp(path, *, threads=None):
  runtime = saved_model_loader.Runtime(*(
    saved_model_loader._folder_of(package)
    for package in ("tensorflow", "tensorflow_text")))
  model = saved_model_loader.SavedModel(runtime, path, threads=threads)

  def answer(texts):
    output = model.run("serving_default", {"text": texts})["probabilities"]
    size = len(texts)
    values = output["values"]
    width = len(values) // size
    return [values[i * width:(i + 1) * width] for i in range(size)]

  return model, answer


if __name__ == "__main__":
  request = serving_timing.read_request()
  words = request["variant"].split()
  path = os.path.join(
      request["model"], "frozen" if "frozen" in words else "export", "1")
  if "cpp" in words:
    keep, answer = in_cpp(path, threads=1 if "one_thread" in words else None)
  else:
    keep, answer = in_python(path)
  serving_timing.run(
      request, answer, version=f"bert_tf {bert_tf.__version__}")
