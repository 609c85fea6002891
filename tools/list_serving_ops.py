"""Writes bert_tf/serving_ops.txt: what TensorFlow Serving can run on a CPU.

  python tools/list_serving_ops.py > bert_tf/serving_ops.txt

TensorFlow Serving 2.12 is the oldest that an export is for, and 2.12 to 2.19
all link TensorFlow Text 2.12.1. So the list holds the ops of TensorFlow and of
its Text 2.12.1 that have a kernel for CPUs in their C++ libraries, a line
each with the names of their attributes. pip installs the two into an
environment of its own under --cache_dir (0.9 GB, once).
"""

import argparse
from collections.abc import Iterable, Iterator
import ctypes
import glob
import os
import subprocess
import sys

from benchmarks import harness

VERSION = "2.12.1"
HEADER = f"""\
# The ops of tensorflow-cpu {VERSION} and tensorflow-text {VERSION} that have a
# kernel for CPUs, and their attributes. Written by tools/list_serving_ops.py.
"""
# Runs this program once more: two TensorFlows do not fit into one process.
_CHILD = "--of_packages"


class _Buffer(ctypes.Structure):
  """The beginning of a TF_Buffer."""

  _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def write_lists(packages: str) -> None:
  """Writes an OpList and a KernelList to stdout, each after its size."""
  library = ctypes.CDLL(
      os.path.join(packages, "tensorflow", "libtensorflow_cc.so.2"))
  functions = [getattr(library, f"TF_{name}") for name in (
    "NewStatus", "LoadLibrary", "GetAllOpList", "GetAllRegisteredKernels")]
  for function in functions:
    function.restype = ctypes.c_void_p
  new_status, load, ops, kernels = functions
  status = ctypes.c_void_p(new_status())
  for path in sorted(glob.glob(os.path.join(
      packages, "tensorflow_text", "python", "ops", "*.so"))):
    load(path.encode(), status)
    if library.TF_GetCode(status) != 0:
      sys.exit(f"{path}: cannot be loaded.")
  for made in (ops(), kernels(status)):
    buffer = _Buffer.from_address(made)
    sys.stdout.buffer.write(buffer.length.to_bytes(8, "little"))
    sys.stdout.buffer.write(ctypes.string_at(buffer.data, buffer.length))


def lines(packages: str) -> Iterator[str]:
  """Of what lies there, sorted: such as "MatMul T transpose_a transpose_b"."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  from tensorflow.core.framework import kernel_def_pb2
  from tensorflow.core.framework import op_def_pb2
  written = subprocess.run(
      [sys.executable, __file__, _CHILD, packages], check=True,
      stdout=subprocess.PIPE).stdout
  end = 8 + int.from_bytes(written[:8], "little")
  ops = op_def_pb2.OpList.FromString(written[8:end]).op
  kernels = kernel_def_pb2.KernelList.FromString(written[end + 8:]).kernel
  on_cpu = {
    kernel.op for kernel in kernels if kernel.device_type in ("CPU", "DEFAULT")}
  for op in sorted(ops, key=lambda op: op.name):
    # Those with an underscore are the runtime's own: no graph may hold them.
    if op.name in on_cpu and not op.name.startswith("_"):
      yield " ".join([op.name, *sorted(attr.name for attr in op.attr)])


def text(lines: Iterable[str]) -> str:
  """The content of the file."""
  return HEADER + "".join(f"{line}\n" for line in lines)


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
      "--python", default="python3.11", help=f"A Python that {VERSION} is for.")
  parser.add_argument(_CHILD, help=argparse.SUPPRESS)
  harness.add_cache_dir(parser)
  arguments = parser.parse_args()
  if arguments.of_packages:
    write_lists(arguments.of_packages)
    return
  print(text(lines(harness.older_tensorflow(
      arguments.cache_dir, VERSION, arguments.python))), end="")


if __name__ == "__main__":
  main()
