"""Asks a TensorFlow Serving that holds an export, over REST or gRPC.

  python tools/query_server.py --model_name=spam --input_file=messages.txt
  python tools/query_server.py --model_name=spam --protocol=grpc

Rows and answers are those of predict.py: a text a line, a table with columns
or JSON Lines in; JSON Lines out; without --input_file it asks at the terminal.
"""

from bert_tf import command_line
from bert_tf.serving_arguments import QueryConfig


def main(config: QueryConfig) -> None:
  from bert_tf import prediction
  from bert_tf import serving_client
  prediction.run(config, lambda: serving_client.connect(
      config.address, model_name=config.model_name, protocol=config.protocol))


if __name__ == "__main__":
  command_line.run(QueryConfig, main, __doc__)
