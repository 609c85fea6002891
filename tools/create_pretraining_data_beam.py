"""Makes pretraining examples with Apache Beam: on Dataflow, Flink or Spark.

  pip install -r requirements-beam.txt
  python tools/create_pretraining_data_beam.py \\
    --input_file='gs://corpus/*.txt.gz' --output_file=gs://data/train.tfrecord \\
    --vocab_file=vocab.txt --sentence_splitter=rules --num_files=400 \\
    -- --runner=DataflowRunner --project=... --region=... --temp_location=...

Takes the flags of create_pretraining_data.py, and Beam's own behind `--`. The
input and output files are those of Beam's file systems. It gives the bytes
that create_pretraining_data.py gives with the same --num_files.
"""

from bert_tf import command_line
from bert_tf.arguments import PretrainingDataConfig
from bert_tf.data import beam_pipeline


def main(argv: list[str]) -> None:
  beam_pipeline.run(
      command_line.config_from_flags(PretrainingDataConfig), argv[1:])


if __name__ == "__main__":
  command_line.define_flags(PretrainingDataConfig)
  command_line.run_program(main)
