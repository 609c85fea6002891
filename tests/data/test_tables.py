"""TSV files: columns by name and number, errors with file and row."""

import pytest

from bert_tf.config import InputError
from bert_tf.data.tables import read_columns


def write(tmp_path, content):
  path = tmp_path / "train.tsv"
  path.write_bytes(content)
  return str(path)


def test_columns_by_name(tmp_path):
  path = write(tmp_path, b'\xef\xbb\xbfid\ttext\tlabel\n1\tsays "a\t x\n\n'
                         b"2\tb\ty\r\n")
  columns = read_columns(path, ["label", "text"])
  assert columns == {
    "label": [" x", "y"], "text": ['says "a', "b"],
    "where": [f"{path}:2", f"{path}:4"]}


def test_columns_by_number_have_no_header(tmp_path):
  path = write(tmp_path, b"ham\thello\nspam\tbuy\n")
  columns = read_columns(path, ["1", "0"])
  assert columns["1"] == ["hello", "buy"] and columns["0"] == ["ham", "spam"]


@pytest.mark.parametrize("content, message", [
  (b"text\tlabel\na\tb\nc\n", "train.tsv:3: has 1 columns"),
  (b"text\tlabel\na\tb\tc\n", "train.tsv:2: has 3 columns"),
  (b"text\tclass\na\tb\n", "no column label; there are text, class"),
  (b"text\tlabel\n", "holds no rows"),
  (b"text\tlabel\na\xff\tb\n", r"train.tsv.*2.*UTF-8"),
])
def test_errors_name_file_and_row(tmp_path, content, message):
  with pytest.raises(InputError, match=message):
    read_columns(write(tmp_path, content), ["text", "label"])


def test_an_empty_line_is_a_row_of_a_file_with_one_column(tmp_path):
  path = write(tmp_path, b"text\na\n\nb\n")
  assert read_columns(path, ["text"])["text"] == ["a", "", "b"]


def test_bad_bytes_can_be_replaced(tmp_path):
  path = write(tmp_path, b"text\tlabel\na\xff\tb\n")
  columns = read_columns(path, ["text", "label"], on_bad_utf8="replace")
  assert columns["text"] == ["a\ufffd"]
