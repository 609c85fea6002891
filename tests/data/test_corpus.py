"""Documents from text, JSON Lines, WikiExtractor, standard input and TFDS."""

import collections
import gzip
import io
import os
import pickle
import sys

import pytest

from bert_tf.arguments import CorpusConfig
from bert_tf.config import InputError
from bert_tf.data import corpus


def _write(path, content):
  path.write_bytes(
      content if isinstance(content, bytes) else content.encode())
  return str(path)


def _open(*paths, **options):
  return corpus.open_corpus(
      CorpusConfig(input_file=tuple(map(str, paths)), **options))


def _documents(source, counts=None, **options):
  counts = collections.Counter() if counts is None else counts
  return [tuple(document) for document in source.documents(counts, **options)]


def _refused(source):
  with pytest.raises(InputError) as error:
    _documents(source)
  return str(error.value)


def test_blank_lines_and_file_ends_part_documents(tmp_path):
  _write(tmp_path / "a.txt", "\n\na b\n c \n \t\n\u3000\n\nd\u2028d\r\n")
  _write(tmp_path / "b.txt", "e")
  _write(tmp_path / "c.txt", " \n")
  counts = collections.Counter()
  source = _open(tmp_path / "*.txt")
  expected = [(0, 0, ["a b", "c"]), (0, 1, ["d\u2028d"]), (1, 0, ["e"])]
  assert _documents(source, counts) == expected
  assert counts == {"files_without_text": 1, "bytes_read": 28}
  assert source.names == [str(tmp_path / f"{name}.txt") for name in "abc"]
  assert (source.size, source.unit) == (28, "bytes")
  # Once more, and in another process.
  assert _documents(source) == expected
  assert _documents(pickle.loads(pickle.dumps(source))) == expected


def test_a_long_document_comes_in_parts_on_request(tmp_path):
  source = _open(_write(tmp_path / "a.txt", "1\n2\n3\n4\n\n5\n6\n7\n"))
  assert _documents(source, max_lines=2) == [
    (0, 0, ["1", "2"]), (0, 1, ["3", "4"]), (0, 2, ["5", "6"]), (0, 3, ["7"])]


def test_the_share_done_is_that_of_the_bytes_on_the_disk(tmp_path):
  # 4 lines a document, 500 documents: the counts are brought up to date
  # every 1,000 lines.
  content = "a\nb\nc\n\n" * 500
  source = _open(
      _write(tmp_path / "a.txt", content), _write(tmp_path / "b.txt", content))
  counts = collections.Counter()
  shares = [source.share_done(counts)]
  for document in source.documents(counts):
    if document.number == 499:
      shares.append(source.share_done(counts))
  shares.append(source.share_done(counts))
  assert shares == [0, 0.5, 1, 1]
  packed = _open(_write(tmp_path / "c.gz", gzip.compress(content.encode())))
  assert packed.size < 200
  counts.clear()
  assert len(_documents(packed, counts)) == 500
  assert packed.share_done(counts) == 1


def test_bad_utf8_is_refused_or_counted(tmp_path):
  path = _write(tmp_path / "a.txt", b"good\nb\xe4d\n\n\xffbad\n")
  assert f"{path}:2: byte 2" in _refused(_open(path))
  counts = collections.Counter()
  assert _documents(_open(path, on_bad_utf8="replace"), counts) == [
    (0, 0, ["good", "b\ufffdd"]), (0, 1, ["\ufffdbad"])]
  assert counts["lines_with_bad_utf8"] == 2


def test_what_cannot_be_read_is_said_at_once(tmp_path, monkeypatch):
  with pytest.raises(InputError, match="no.txt: no such file"):
    _open(tmp_path / "no.txt")
  monkeypatch.setitem(sys.modules, "zstandard", None)
  with pytest.raises(InputError, match="a.zst: .* pip install zstandard"):
    _open(_write(tmp_path / "a.zst", b""))


def test_a_file_that_vanishes_before_it_is_read_is_named(tmp_path):
  path = _write(tmp_path / "a.txt", "a\n")
  source = _open(path)
  os.remove(path)
  assert f"{path}: cannot be read: No such file" in _refused(source)


JSON_LINES = (
  '{"id": 1, "text": "One. \\n\\n Two\\u00e9\\ud83d\\ude00 "}\n'
  "\n"
  '{"text": "", "id": 2}\r\n'
  '{"text": " \\n"}\n'
  '{"text": "a\u2028b", "body": "other"}')


def test_an_object_a_line_is_a_document(tmp_path):
  expected = [(0, 0, ["One.", "Two\u00e9\U0001f600"]), (0, 1, []),
              (0, 2, []), (0, 3, ["a\u2028b"])]
  plain = _write(tmp_path / "a.jsonl", JSON_LINES)
  assert _documents(_open(plain)) == expected
  packed = _write(tmp_path / "A.JSONL.gz", gzip.compress(JSON_LINES.encode()))
  assert _documents(_open(packed)) == expected
  # In a file of another name it must be asked for.
  other = _write(tmp_path / "wiki_00", JSON_LINES)
  assert _documents(_open(other, input_format="jsonl")) == expected
  assert f"{other}: looks like JSON Lines; pass --input_format=jsonl" in (
      _refused(_open(other)))
  assert len(_documents(_open(other, input_format="text"))) == 2
  odd = _write(tmp_path / "odd.txt", '{"a brace and a quote\n')
  assert _documents(_open(odd)) == [(0, 0, ['{"a brace and a quote'])]


def test_another_field_holds_the_text(tmp_path):
  path = _write(tmp_path / "a.jsonl", '{"text": "no", "body": "yes\\nyes"}')
  assert _documents(_open(path, text_field="body")) == [
    (0, 0, ["yes", "yes"])]


def test_a_file_of_empty_objects_is_reported(tmp_path):
  counts = collections.Counter()
  source = _open(_write(tmp_path / "a.jsonl", '{"text": ""}\n'))
  assert _documents(source, counts) == [(0, 0, [])]
  assert counts["files_without_text"] == 1


@pytest.mark.parametrize("line, message", [
  ('{"text": "a"', "not JSON (Expecting ',' delimiter: line 1 column 13"),
  ("plain text", "not JSON (Expecting value"),
  ("[" * 100000, "not JSON (maximum recursion"),
  ('["text"]', "received [\"text\"]; each line must hold one JSON object"),
  ('{"id": 1, "title": ""}',
   "no field 'text' in the object, which has 'id', 'title'; give --text_f"),
  ("{}", "no field 'text' in the object, which has none"),
  ('{"text": ["a", 1]}', "the field 'text' holds [\"a\", 1]; it must hold a"),
  ('{"text": null}', "the field 'text' holds null"),
  ('{"text": "a\\nb\\ud800"}', "character 4 of the text is not UTF-8"),
])
def test_a_wrong_line_of_json_is_named(tmp_path, line, message):
  path = _write(tmp_path / "a.jsonl", '{"text": "good"}\n\n' + line)
  assert f"{path}:3: {message}" in _refused(_open(path))


def test_half_characters_of_json_are_replaced_on_request(tmp_path):
  path = _write(
      tmp_path / "a.jsonl", '{"text": "a\\ud800\\nb\\n\\udc00c\\udc00"}\n')
  counts = collections.Counter()
  assert _documents(_open(path, on_bad_utf8="replace"), counts) == [
    (0, 0, ["a\ufffd", "b", "\ufffdc\ufffd"])]
  assert counts["lines_with_bad_utf8"] == 2


# As WikiExtractor writes it: the title, an empty line, the text with &, <
# and > escaped.
WIKI = """\
<doc id="1" url="https://vi.wikipedia.org/wiki?curid=1" title="A &amp; B">
A & B

It is &lt;b&gt;, R&amp;D, &amp;lt; and &amp;amp;.
&quot;So&#x27;

Section.

</doc>
<doc id="2" url="https://vi.wikipedia.org/wiki?curid=2" title="Empty">
</doc>

<doc id="5" revid="7" url="https://vi.wikipedia.org/wiki?curid=5" title="C">
C

</doc>
"""
WIKI_DOCUMENTS = [
  (0, 0, ["A & B", "It is <b>, R&D, &lt; and &amp;.", "\"So'", "Section."]),
  (0, 1, []),
  (0, 2, ["C"])]


def test_files_of_wikiextractor_are_known_by_their_first_line(tmp_path):
  # The program's files have no suffix.
  source = _open(_write(tmp_path / "wiki_00", WIKI))
  assert _documents(source) == WIKI_DOCUMENTS
  packed = _write(tmp_path / "wiki_00.gz", gzip.compress(WIKI.encode()))
  assert _documents(_open(packed)) == WIKI_DOCUMENTS
  # Blank lines in front: then it must be asked for.
  late = _write(tmp_path / "late", "\n" + WIKI)
  assert _documents(
      _open(late, input_format="wikiextractor")) == WIKI_DOCUMENTS
  assert _documents(_open(late))[0][2][0].startswith("<doc ")
  # Each file for itself.
  both = _open(tmp_path / "wiki_00", _write(tmp_path / "x.txt", "text"))
  assert _documents(both) == [*WIKI_DOCUMENTS, (1, 0, ["text"])]


@pytest.mark.parametrize("content, message", [
  ('<doc id="1">\na\n</doc>\nb\n', ":4: text outside of <doc ...>"),
  ('<doc id="1">\na\n</doc>\n</doc>\n', ":4: </doc> without a line <doc"),
  ('<doc id="1">\na\n\n<doc id="2">\n', ":4: a <doc> in that of line 1"),
  ('<doc id="1">\n</doc>\n<doc id="2">\na\n',
   ": cut short: the <doc> of line 3 has no </doc>"),
])
def test_wrong_files_of_wikiextractor_are_refused(tmp_path, content, message):
  path = _write(tmp_path / "wiki_00", content)
  assert path + message in _refused(_open(path))


@pytest.fixture
def standard_input(monkeypatch):
  def give(content):
    raw = io.BytesIO(content.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
  return give


@pytest.mark.parametrize("content, options, expected", [
  ("a\nb\n\nc", {}, [(0, 0, ["a", "b"]), (0, 1, ["c"])]),
  (WIKI, {}, WIKI_DOCUMENTS),
  ('{"text": "ä"}', {"input_format": "jsonl"}, [(0, 0, ["ä"])]),
])
def test_standard_input_is_read_once(
    standard_input, content, options, expected):
  standard_input(content)
  source = _open("-", **options)
  assert source.names == ["<standard input>"]
  counts = collections.Counter()
  assert _documents(source, counts) == expected
  assert counts["bytes_read"] == len(content.encode())
  assert source.size is None and source.share_done(counts) is None
  assert not sys.stdin.buffer.closed
  with pytest.raises(ValueError, match="only once"):
    source.documents(counts)


def test_errors_name_standard_input_and_the_line(standard_input):
  standard_input('{"text": "a"}\n{}\n')
  assert "<standard input>:2: no field" in (
      _refused(_open("-", input_format="jsonl")))


EXAMPLES = [
  {"text": b"One.\n\n Two ", "title": b"t0", "label": 0},
  {"text": b"", "title": b"t1", "label": 1},
  {"text": "他走了。".encode(), "title": b"t2", "label": 0},
  {"text": b"b\xffd\ngood\n\xe4", "title": b"t3", "label": 1},
]


@pytest.fixture(scope="module")
def tfds_name(tmp_path_factory):
  """A dataset of our own, known to TFDS by its name, not prepared yet."""
  import tensorflow_datasets as tfds

  class TinyTexts(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self, disable_shuffling=True,
          features=tfds.features.FeaturesDict({
            "text": tfds.features.Text(), "title": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=2)}))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples(EXAMPLES),
              "test": self._generate_examples(EXAMPLES[:1])}

    def _generate_examples(self, examples):
      yield from enumerate(examples)

  return TinyTexts.name


def _open_tfds(name, folder, **options):
  return corpus.open_corpus(CorpusConfig(
      tfds_name=name, tfds_data_dir=str(folder),
      **{"on_bad_utf8": "replace", **options}))


def _cannot_prepare(self):
  raise ConnectionError("no network")


def test_a_tfds_dataset_is_prepared_once_and_read_in_order(
    tfds_name, tmp_path, monkeypatch):
  import tensorflow_datasets as tfds

  source = _open_tfds(tfds_name, tmp_path)
  assert source.names == ["tfds:tiny_texts/1.2.0:train"]
  assert (source.size, source.unit) == (4, "examples")
  counts = collections.Counter()
  assert source.share_done(counts) == 0
  expected = [(0, 0, ["One.", "Two"]), (0, 1, []), (0, 2, ["他走了。"]),
              (0, 3, ["b\ufffdd", "good", "\ufffd"])]
  assert _documents(source, counts) == expected
  assert counts == {"examples_read": 4, "lines_with_bad_utf8": 2}
  assert source.share_done(counts) == 1
  assert _documents(source) == expected
  monkeypatch.setattr(
      tfds.core.DatasetBuilder, "download_and_prepare", _cannot_prepare)
  assert _documents(_open_tfds(tfds_name, tmp_path)) == expected
  # In another process.
  assert _documents(pickle.loads(pickle.dumps(source))) == expected


def test_splits_versions_and_fields_of_tfds_are_chosen(tfds_name, tmp_path):
  texts = lambda name, **options: [
    lines for _, _, lines in _documents(_open_tfds(name, tmp_path, **options))]
  assert texts(tfds_name, text_field="title", tfds_split="train[1:3]") == [
    ["t1"], ["t2"]]
  assert texts(f"{tfds_name}:1.2.0", tfds_split="test") == [["One.", "Two"]]


def test_bad_utf8_in_a_tfds_dataset_is_refused(tfds_name, tmp_path):
  source = _open_tfds(tfds_name, tmp_path, on_bad_utf8="error")
  assert _refused(source) == (
      "tfds:tiny_texts/1.2.0:train: example 3 (from 0): character 2 of the "
      "text is not UTF-8; mend it, or pass --on_bad_utf8=replace.")


@pytest.mark.parametrize("name, options, message", [
  ("no_such_texts", {}, "--tfds_name: received 'no_such_texts', .*not found"),
  ("tiny_texts:9.0.0", {}, "received 'tiny_texts:9.0.0', .*only: 1.2.0"),
  ("a name!", {}, "--tfds_name: received 'a name!', .*failed"),
  ("tiny_texts", {"text_field": "body"},
   "--text_field: received 'body'; the dataset tiny_texts has the fields "
   "text, title, label, of them text: text, title"),
  ("tiny_texts", {"text_field": "label"}, "--text_field: received 'label'"),
  ("tiny_texts", {"tfds_split": "dev"},
   "--tfds_split: received 'dev'; the dataset tiny_texts has (test, train|"
   "train, test)"),
  ("tiny_texts", {"tfds_split": "train[:x]"},
   r"--tfds_split: received 'train\[:x\]'"),
])
def test_wrong_names_of_tfds_are_refused_at_once(
    tfds_name, tmp_path, name, options, message):
  with pytest.raises(InputError, match=message):
    _open_tfds(name, tmp_path, **options)


def test_a_dataset_that_cannot_be_prepared_is_named(
    tfds_name, tmp_path, monkeypatch):
  import tensorflow_datasets as tfds

  monkeypatch.setattr(
      tfds.core.DatasetBuilder, "download_and_prepare", _cannot_prepare)
  with pytest.raises(
      InputError,
      match="tiny_texts/1.2.0 cannot be prepared in .*: ConnectionError: no n"):
    _open_tfds(tfds_name, tmp_path)


def test_a_dataset_in_several_files_keeps_their_order(tmp_path):
  """Written by TFDS, read without the code that made it."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  # More in a file than TFDS reads from one in a row if it is not told.
  texts = [f"text {number}" for number in range(240)]
  with tfds.core.registered.skip_registration():

    class ManyFiles(tfds.core.GeneratorBasedBuilder):
      VERSION = tfds.core.Version("1.0.0")

      def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text()}))

      def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

      def _generate_examples(self):
        for number, text in enumerate(texts):
          yield number, {"text": text}

    builder = ManyFiles(data_dir=str(tmp_path))
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=6))
  assert builder.info.splits["train"].num_shards == 6
  source = _open_tfds("many_files", tmp_path)
  # TFDS has shuffled them: what counts is how they stand in the files.
  in_files = []
  for path in sorted((tmp_path / "many_files" / "1.0.0").glob("*tfrecord*")):
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      (text,) = tf.train.Example.FromString(
          record).features.feature["text"].bytes_list.value
      in_files.append([text.decode()])
  assert sorted(in_files) == sorted([text] for text in texts)
  assert [lines for _, _, lines in _documents(source)] == in_files
