"""Learns a WordPiece vocabulary from text.

  python tools/learn_vocabulary.py --input_file='corpus/*.txt.gz' \
      --output_file=vocab.txt --vocab_size=30522 --do_lower_case

  python tools/learn_vocabulary.py --input_file=medicine.txt.gz \
      --init_vocab_file=uncased/vocab.txt --output_file=medical/vocab.txt

The second extends a vocabulary with the words of a domain: its [unused] slots
are filled first, so that the model's embedding table keeps its size.

Text comes from files (plain or compressed; also JSON Lines and WikiExtractor's
files), from standard input (--input_file=-) or from a TensorFlow Datasets
dataset (--tfds_name). It is normalised and split into words as the tokenizer
does it. `tokenizer_config.json`, which says whether to lower-case, is written
beside the vocabulary.
"""

from bert_tf import command_line
from bert_tf import vocabulary
from bert_tf.arguments import VocabularyConfig

if __name__ == "__main__":
  command_line.run(VocabularyConfig, vocabulary.run, __doc__)
