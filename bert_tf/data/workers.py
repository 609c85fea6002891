"""Processes that tokenize blocks and make files, for `example_files`.

Each is forked from one process that has imported TensorFlow and has not yet
used it, so that they start at once and share its memory.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
import multiprocessing
import os
import signal
import threading
from typing import Any

from bert_tf.arguments import PretrainingDataConfig
from bert_tf.config import InputError
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.data import document_store
from bert_tf.data.corpus import Corpus
from bert_tf.data.corpus import Document
from bert_tf.data.document_store import DocumentStore
from bert_tf.data.sentence_pairs import Documents
from bert_tf.data.work_folder import file_counts_path

_SECONDS_BETWEEN_REPORTS = 1.0
# The share of a file is counted in these, since counters are whole numbers.
_PARTS = 1_000_000


class Workers:
  """Runs functions of this module in other processes.

  A context: what is not begun when it ends is not done any more.
  """

  def __init__(self, config: PretrainingDataConfig, number: int):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bert_tf.data.pretraining_examples"])
    self._counters = context.Value("q", 0), context.Value("q", 0)
    self._executor = futures.ProcessPoolExecutor(
        number, mp_context=context, initializer=_start,
        initargs=(config, self._counters))
    self._pending: set[futures.Future] = set()

  def __enter__(self) -> "Workers":
    return self

  def __exit__(self, *exception: Any) -> None:
    self._executor.shutdown(wait=True, cancel_futures=True)

  def submit(self, function: Callable[..., None], *arguments: Any) -> None:
    """Has a function called; `wait` tells what became of it."""
    self._pending.add(self._executor.submit(function, *arguments))

  def wait(
      self, *, most: int = 0,
      report: Callable[[int, float], None] = lambda count, files: None
  ) -> None:
    """Until all is done.

    Args:
      most: until no more than this are waiting or being done.
      report: is called about each second with the examples that were written
        and the files, parts of them included.

    Raises:
      InputError: from one of the functions, or a process was killed.
    """
    while len(self._pending) > most:
      done, self._pending = futures.wait(
          self._pending, _SECONDS_BETWEEN_REPORTS,
          return_when=futures.FIRST_COMPLETED)
      for future in done:
        _raise_error(future)
      examples, parts = (counter.value for counter in self._counters)
      report(examples, parts / _PARTS)


def _raise_error(future: futures.Future) -> None:
  try:
    future.result()
  except BrokenProcessPool:
    raise InputError(
        "A worker process was killed, perhaps since the memory was full: give "
        "fewer --num_workers. The same command goes on where this one was."
    ) from None


# What a process works with.
_config: PretrainingDataConfig = None
_counters = None
_tokenizer = None


def _start(config: PretrainingDataConfig, counters) -> None:
  """Prepares a new process."""
  global _config, _counters, _tokenizer
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()
  os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # leave the memory to training
  import tensorflow as tf
  from bert_tf.tokenization import BertTokenizer
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)
  _config, _counters = config, counters
  _tokenizer = BertTokenizer.from_file(
      config.vocab_file, do_lower_case=config.do_lower_case)


def _end_with_parent() -> None:
  """No process goes on when the one that wanted its work was killed."""
  multiprocessing.parent_process().join()
  os._exit(1)


def make_block(folder: str, name: str, block: Sequence[Document]) -> None:
  """Tokenizes documents and puts them into the store."""
  from bert_tf.data import pretraining_examples
  DocumentStore(folder).add(name, pretraining_examples.tokenize_block(
      block, tokenizer=_tokenizer,
      sentence_splitter=_config.sentence_splitter, seed=_config.random_seed))


def make_file(
    work_path: str, output: str, number: int, num_files: int,
    num_buckets: int
) -> None:
  """Writes one file: its bucket's examples, or its part of them."""
  store = DocumentStore(os.path.join(work_path, "blocks"))
  num_parts = num_files // num_buckets
  bucket, part = divmod(number, num_parts)
  _write(
      work_path, output, number, store.load_bucket(bucket, num_buckets),
      bucket=bucket, part=part, num_parts=num_parts)


def make_file_from_texts(
    work_path: str, output: str, number: int, num_files: int, texts: Corpus
) -> None:
  """Writes one file as `make_file` does, without a store.

  The corpus is read, and the documents of the bucket tokenized. If it turns
  out to hold so few documents that several files share a bucket, it is read
  again for the larger one.
  """
  from bert_tf.data import pretraining_examples
  num_buckets = num_files
  while True:
    num_parts = num_files // num_buckets
    bucket, part = divmod(number, num_parts)
    counts = collections.Counter()
    documents = _own_documents(texts, bucket, num_buckets, counts)
    blocks = [
      pretraining_examples.tokenize_block(
          block, tokenizer=_tokenizer,
          sentence_splitter=_config.sentence_splitter,
          seed=_config.random_seed)
      for block in document_store.blocks_of(documents)]
    fitting = document_store.count_buckets(num_files, counts["read"])
    if fitting == num_buckets:
      break
    num_buckets = fitting
  # All files count the whole corpus, and all parts of a bucket the same
  # documents: one of them each says so.
  read = collections.Counter(counts if number == 0 else {})
  for block in blocks if part == 0 else ():
    read.update(block.counts)
  _write(
      work_path, output, number,
      document_store.concatenate([block.documents for block in blocks]),
      bucket=bucket, part=part, num_parts=num_parts, read=dict(read))


def _own_documents(
    texts: Corpus, bucket: int, num_buckets: int, counts: collections.Counter
) -> Iterator[Document]:
  """The documents of a bucket; `counts["read"]` are all there are."""
  for block in document_store.blocks_of(texts.documents(counts)):
    counts["read"] += len(block)
    hashes = document_store.document_hashes(
        [document.source for document in block],
        [document.number for document in block], seed=_config.random_seed)
    buckets = document_store.buckets_of(hashes, num_buckets)
    for document, home in zip(block, buckets):
      if home == bucket:
        yield document


def _write(
    work_path: str, output: str, number: int, documents: Documents, *,
    bucket: int, part: int, num_parts: int, read: dict[str, int] | None = None
) -> None:
  """A file of examples, then what was counted in it."""
  from bert_tf.data import pretraining_examples
  require(documents.num_documents > (1 if _config.nsp else 0), (
    f"{output}: its bucket holds {documents.num_documents} documents, too few "
    "to make examples of; make fewer files."))
  batches = pretraining_examples.make_batches(
      documents, config=_config, tokenizer=_tokenizer, part=part,
      num_parts=num_parts,
      seed=pretraining_examples.bucket_seed(_config, bucket))
  counts = pretraining_examples.write_file(output, batches, report=_report)
  counts["bytes"] = os.path.getsize(output)
  if read is not None:
    counts["read"] = read
  write_json(file_counts_path(work_path, number), counts)


def _report(examples: int, share: float) -> None:
  for counter, more in zip(_counters, (examples, round(share * _PARTS))):
    with counter.get_lock():
      counter.value += more
