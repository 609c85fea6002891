"""The data tool as an Apache Beam pipeline: scatter by hash, make buckets.

For those who have Dataflow, Flink or Spark at work; on one machine, and in
array jobs, `example_files` does the same without it. Needs apache-beam.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import os
import tempfile
import uuid

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from bert_tf.arguments import PretrainingDataConfig
from bert_tf.config import require
from bert_tf.data import corpus
from bert_tf.data import document_store
from bert_tf.data import example_files
from bert_tf.data import pretraining_examples
from bert_tf.data import text_files
from bert_tf.tokenization import BertTokenizer
from bert_tf.vocabulary_files import find_casing
from bert_tf.vocabulary_files import read_vocabulary


def _match(patterns: Sequence[str]) -> list[str]:
  """The files that names and globs stand for, sorted, each once."""
  paths = set()
  for pattern, result in zip(patterns, FileSystems.match(list(patterns))):
    require(
        bool(result.metadata_list), f"{pattern}: no such file, and as a glob "
        "it matches none.")
    paths.update(found.path for found in result.metadata_list)
  return sorted(paths)


def _read(
    file: tuple[int, str], config: PretrainingDataConfig
) -> Iterator[corpus.Document]:
  """The documents of one file."""
  source, path = file
  counts = collections.Counter()
  with FileSystems.open(path) as opened:  # unpacks by the suffix
    lines = text_files.decode_lines(
        iter(opened.readline, b""), name=path,
        on_bad_utf8=config.on_bad_utf8, counts=counts)
    yield from corpus.parse_documents(
        lines, config, source=source, name=path, counts=counts)


def _home(
    document: corpus.Document, num_documents: int,
    config: PretrainingDataConfig, num_files: int
) -> tuple[tuple[int, int], corpus.Document]:
  """A document with its bucket, and how many buckets there are."""
  num_buckets = document_store.count_buckets(num_files, num_documents)
  hashes = document_store.document_hashes(
      [document.source], [document.number], seed=config.random_seed)
  [bucket] = document_store.buckets_of(hashes, num_buckets)
  return (int(bucket), num_buckets), document


class _MakeFiles(beam.DoFn):
  """Writes the files of a bucket; gives their names with what they hold."""

  def __init__(
      self, config: PretrainingDataConfig, entries: Sequence[str],
      names: Sequence[str]):
    self._config, self._entries, self._names = config, entries, names

  def setup(self):
    self._tokenizer = BertTokenizer(
        self._entries, do_lower_case=self._config.do_lower_case)

  def process(
      self, group: tuple[tuple[int, int], Iterable[corpus.Document]]
  ) -> Iterator[tuple[str, dict[str, int]]]:
    (bucket, num_buckets), documents = group
    documents = document_store.concatenate([
      pretraining_examples.tokenize_block(
          block, tokenizer=self._tokenizer,
          sentence_splitter=self._config.sentence_splitter,
          seed=self._config.random_seed).documents
      for block in document_store.blocks_of(sorted(documents))])
    num_parts = len(self._names) // num_buckets
    for part in range(num_parts):
      batches = pretraining_examples.make_batches(
          documents, config=self._config, tokenizer=self._tokenizer,
          seed=pretraining_examples.bucket_seed(self._config, bucket),
          part=part, num_parts=num_parts)
      name = self._names[bucket * num_parts + part]
      with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "records")
        counts = pretraining_examples.write_file(local, batches)
        _copy(local, name)
      yield name, counts


def _copy(local: str, path: str) -> None:
  """To a temporary name; Beam may do the same work twice at a time."""
  temporary = f"{path}.tmp-{uuid.uuid4().hex}"
  with open(local, "rb") as source, FileSystems.create(
      temporary, mime_type="application/octet-stream",
      compression_type=beam.io.filesystem.CompressionTypes.UNCOMPRESSED
  ) as target:
    while data := source.read(1 << 24):
      target.write(data)
  if FileSystems.exists(path):
    FileSystems.delete([path])
  FileSystems.rename([temporary], [path])


def run(config: PretrainingDataConfig, beam_options: Sequence[str]) -> None:
  """Builds the pipeline and runs it to its end.

  Raises:
    InputError: the input or the vocabulary cannot be used, or there is no
      number of files.
  """
  require(
      bool(config.input_file) and "-" not in config.input_file,
      "--input_file: Beam reads files; name some.")
  require(
      bool(config.num_files) or len(config.output_file) > 1,
      "--num_files: must be given, and be about the corpus in 25 MB of text.")
  entries = read_vocabulary(config.vocab_file)
  if config.do_lower_case is None:
    config = dataclasses.replace(
        config, do_lower_case=find_casing(config.vocab_file, entries))
  num_files = config.num_files or len(config.output_file)
  names = example_files.file_names(config.output_file, num_files)
  paths = _match(config.input_file)
  with beam.Pipeline(options=PipelineOptions(list(beam_options))) as pipeline:
    documents = (
      pipeline | beam.Create(list(enumerate(paths)), reshuffle=True)
      | "read" >> beam.FlatMap(_read, config))
    count = documents | beam.combiners.Count.Globally()
    _ = (
      documents
      | "scatter" >> beam.Map(
          _home, beam.pvalue.AsSingleton(count), config, num_files)
      | beam.GroupByKey()
      | "make buckets" >> beam.ParDo(_MakeFiles(config, entries, names)))
