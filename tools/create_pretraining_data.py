"""Makes pretraining examples: text files -> TFRecords.

  python tools/create_pretraining_data.py \\
    --input_file='corpus/*.txt.gz' --output_file=data/train.tfrecord \\
    --vocab_file=vocab.txt --sentence_splitter=rules

The input is text with a sentence a line (or running text, with
--sentence_splitter=rules) and a blank line between documents.
"""

from bert_tf import command_line
from bert_tf.arguments import PretrainingDataConfig
from bert_tf.data import example_files

if __name__ == "__main__":
  command_line.run(PretrainingDataConfig, example_files.run, __doc__)
