"""Says what a checkpoint is, what it holds and whether it loads.

  python tools/inspect_checkpoint.py uncased_L-12_H-768_A-12
  python tools/inspect_checkpoint.py runs/pretrained runs/spam

The second compares two: the largest difference in each layer. Takes what
--init_checkpoint takes; with --json the answer is for machines.
"""

from bert_tf import command_line
from bert_tf.checkpoint_arguments import InspectionConfig


def main(config: InspectionConfig) -> None:
  # Here, so that --help and wrong flags do not wait for TensorFlow.
  from bert_tf import inspection
  inspection.run(config)


if __name__ == "__main__":
  command_line.run(InspectionConfig, main, __doc__)
