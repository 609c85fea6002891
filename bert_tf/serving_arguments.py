"""The arguments of the programs that ask an export, as those of `arguments`.

Standard library only.
"""

import dataclasses

from bert_tf.arguments import check_options
from bert_tf.arguments import option
from bert_tf.config import require

# Where tensorflow_model_server listens if nothing else is said.
_PORTS = {"rest": 8501, "grpc": 8500}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowsConfig:
  """What is asked, and where the answers go."""

  input_file: str | None = option(
      None, help="The rows: a text a line, .tsv or .csv with columns, or "
                 ".jsonl; - is standard input. Plain or .gz, .bz2, .xz, .zst. "
                 "Not given: asks at the terminal, or reads what is piped in.")
  output_file: str | None = option(
      None, help="JSON Lines, an answer for each row; a file that is there is "
                 "replaced at the end. Not given: standard output.")
  input_format: str = option(
      "auto", choices=("auto", "text", "tsv", "csv", "jsonl"),
      help="text: a text a line. tsv, csv: columns. jsonl: an object a line. "
           "auto: by the ending of --input_file, else text.")
  columns: tuple[str, ...] = option(
      (), help="The columns (or fields) for the inputs of the signature, in "
               "their order; numbers from 0 for a table without a header. Not "
               "given: the names of the inputs.")
  signature: str = option(
      "serving_default", help="The signature to ask.")
  batch_size: int = option(
      32, low=1, help="Rows to compute together; they are of about the same "
                      "length.")
  on_bad_utf8: str = option(
      "error", choices=("error", "replace"),
      help="What to do with bytes that are not UTF-8.")

  def __post_init__(self):
    check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig(RowsConfig):
  """Arguments of `tools/predict.py`."""

  export_dir: str = option(
      help="The export: the folder of its versions, of which the newest is "
           "taken, or that of one version.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryConfig(RowsConfig):
  """Arguments of `tools/query_server.py`."""

  server: str = option(
      "localhost", help="HOST or HOST:PORT of the server. Without a port: 8501 "
                        "for rest, 8500 for grpc.")
  model_name: str = option(
      "model", help="The server's --model_name, or MODEL_NAME of its "
                    "container.")
  protocol: str = option(
      "rest", choices=("rest", "grpc"),
      help="rest needs nothing installed; grpc sends less and needs "
           "requirements-serving.txt.")

  def __post_init__(self):
    RowsConfig.__post_init__(self)
    require(
        "/" not in self.server,
        f"--server: received {self.server!r}; must be HOST or HOST:PORT, such "
        "as localhost:8501.")

  @property
  def address(self) -> str:
    """--server with a port.

    >>> QueryConfig(server="models.lan", protocol="grpc").address
    'models.lan:8500'
    """
    if ":" in self.server:
      return self.server
    return f"{self.server}:{_PORTS[self.protocol]}"
