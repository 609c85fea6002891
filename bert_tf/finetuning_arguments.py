"""The arguments of fine-tuning. As those of `arguments`; standard library only.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from bert_tf.arguments import TrainingConfig
from bert_tf.arguments import option
from bert_tf.config import FEATURES
from bert_tf.config import require

# What fine-tuning takes where neither a flag nor the task says it: Devlin et
# al. 2019, appendix A.3.
FINETUNING_DEFAULTS = {
  "learning_rate": 5e-5, "train_batch_size": 32, "num_train_epochs": 3.0,
  "max_seq_length": 128, "document_context": False,
}
# With --features, where all that is trained starts at random.
FEATURES_LEARNING_RATE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningConfig(TrainingConfig):
  """Arguments of `run_finetuning.py`."""

  task_name: str | None = option(
      None, help="The task; see the table in the README. Not given: squad, if "
                 "--train_file or --predict_file is .json or with "
                 "--version_2_with_negative.")
  data_dir: str | None = option(
      None, help="The folder of the task's files: train, dev and test in "
                 ".tsv, .csv or .jsonl, or as the task's authors give them.")
  train_file: str | None = option(
      None, help="SQuAD's questions to train on: its JSON, or JSON Lines.")
  predict_file: str | None = option(
      None, help="SQuAD's questions to answer; to evaluate on too.")
  tfds_name: str | None = option(
      None, help="A TensorFlow Datasets dataset in the place of --data_dir, "
                 "with its features as columns. GLUE's tasks, conll2003 and "
                 "squad know their own: glue/mrpc, conll2003, squad/v2.0. "
                 "Not for swag and codah, which TFDS does not have, "
                 "and xnli.")
  tfds_data_dir: str | None = option(
      None, help="Where prepared datasets lie. Not given: "
                 "~/tensorflow_datasets.")
  text_column: str = option(
      "text", help="Column of the text: a name in the header, or a number "
                   "from 0 in files that have none.")
  text_pair_column: str | None = option(
      None, help="Column of a second text, where each row has a pair.")
  label_column: str = option(
      "label", help="Column of the label, in the same way.")
  choice_columns: tuple[str, ...] = option(
      (), help="Columns of the choices, with commas, in the same way. One "
               "name: a list, as .jsonl files and TFDS can hold it. Not given: "
               "choices.")
  max_train_examples: int | None = option(
      None, low=1, help="Train on the first so many rows. Not given: on all.")
  language: str = option(
      "zh", help="XNLI's language: of the dev and test rows, and of the "
                 "training rows unless --train_language is given.")
  train_language: str | None = option(
      None, help="XNLI's language of the training rows, such as en to go from "
                 "English to --language. Not given: --language.")
  document_context: bool | None = option(
      None, help="In tagging, fill the sequence with the sentences before and "
                 "behind: those between two -DOCSTART- lines, or of the file. "
                 "Not given: as the task says, or False.")
  train_batch_size: int | None = option(
      None, low=1, help="Examples a step, over all replicas and "
                        "micro-batches. Not given: as the task says, or 32.")
  learning_rate: float | None = option(
      None, low=0.0, help="The highest learning rate, after the warm-up. Not "
                          "given: as the task says, or 5e-5.")
  max_seq_length: int | None = option(
      None, low=8, help="Longer texts are cut, or read in windows: see "
                        "--doc_stride. [CLS] and [SEP] count. Not given: as "
                        "the task says, or 128.")
  pad_to_max_length: bool = option(
      False, help="Pad all to --max_seq_length, as a TPU needs it. False: "
                  "each batch to its longest.")
  group_by_length: bool = option(
      False, help="Train on batches of about the same length: faster, with "
                  "less padding, but the figures of small sets can suffer.")
  head: str = option(
      "linear", choices=("linear", "bilstm"),
      help="linear: that of the paper. bilstm: a bidirectional LSTM below it, "
           "as in the paper's ablation.")
  features: str | None = option(
      None, choices=tuple(FEATURES),
      help="In tagging, train no encoder, but a BiLSTM of two layers over the "
           "states of these of its layers, and the classifier; "
           "--learning_rate is then 1e-3, if not given. Not given: fine-tune "
           "the encoder.")
  class_weights: str = option(
      "none", choices=("none", "balanced"),
      help="balanced: each class counts the same in the loss, however many "
           "rows it has.")
  freeze_layers: int = option(
      0, low=0, help="So many of the lowest blocks, and the embeddings, stay "
                     "as they are.")
  patience: int | None = option(
      None, low=1, help="Stop when so many evaluations in a row were no "
                        "better than the best. Not given: train to the end.")
  keep_best: bool = option(
      False, help="Keep the model that was best on the dev rows, not the "
                  "last one. With --patience always.")
  num_restarts: int = option(
      1, low=1, help="Train so often, with --random_seed and the seeds after "
                     "it, and keep the best on the dev rows.")
  grid: bool = option(
      False, help="Try the values of the paper: rates 5e-5, 4e-5, 3e-5, 2e-5, "
                  "batches 16 and 32, 2 to 4 epochs; those given stay. Keep "
                  "the best on the dev rows.")
  doc_stride: int | None = option(
      None, low=1, help="Pieces from the start of one window over a long text "
                        "to that of the next: in squad, and for single texts "
                        "in classification, multilabel and regression. Not "
                        "given: 128 in squad; the others cut long texts.")
  max_query_length: int | None = option(
      None, low=1, help="Pieces to which a question is cut. Not given: 64.")
  n_best_size: int | None = option(
      None, low=1, help="Answers to write for a question. Not given: 20.")
  max_answer_length: int | None = option(
      None, low=1, help="Pieces of an answer at most. Not given: 30.")
  version_2_with_negative: bool | None = option(
      None, help="Some questions have no answer, as in SQuAD 2.0.")
  null_score_diff_threshold: float | None = option(
      None, help="The answer is empty if no answer scores by more than this "
                 "above the best. Not given: 0.")
  do_train: bool = option(False, help="Train on the training rows.")
  do_eval: bool = option(
      False, help="Evaluate on the dev rows, during training and at its end.")
  do_predict: bool = option(
      False, help="Write predictions for the test rows, or for the dev rows "
                  "where there are no test rows.")
  predict_batch_size: int = option(
      8, low=1, help="Examples a prediction step.")
  num_train_epochs: float | None = option(
      None, low=0.0, help="Passes over the training examples. Not given: as "
                          "the task says, or 3.")
  warmup_proportion: float = option(
      0.1, low=0.0, high=1.0,
      help="Share of the steps over which the learning rate rises.")
  layer_decay: float = option(
      1.0, low=0.0, high=1.0,
      help="The learning rate of a block is this many times that of the block "
           "above it.")
  on_bad_utf8: str = option(
      "error", choices=("error", "replace"),
      help="What to do with bytes that are not UTF-8.")
  log_steps: int = option(
      50, low=1, help="Steps between two lines of metrics.")

  def __post_init__(self):
    super().__post_init__()
    files = self.data_dir or self.train_file or self.predict_file
    require(
        not (self.tfds_name and files),
        f"--tfds_name: received {self.tfds_name} and the files {files}; give "
        "one of the two.")
    require(
        self.do_train or self.do_eval or self.do_predict,
        "Received none of --do_train, --do_eval, --do_predict; give at "
        "least one.")
    require(
        not self.do_train or self.bert_config_file or self.init_checkpoint,
        "Received neither --bert_config_file nor --init_checkpoint; one of "
        "them must give the shape of the model.")

    require(
        not (self.features and self.grid) or self.learning_rate is not None,
        "--grid: its learning rates are for fine-tuning; with --features "
        "give a --learning_rate.")
    require(
        not self.features
        or (self.freeze_layers == 0 and self.layer_decay == 1.0),
        "--freeze_layers, --layer_decay: do not go with --features, which "
        "trains no layer of the encoder. Leave them out.")
    for name, needs_dev in (
        ("--patience", self.patience), ("--keep_best", self.keep_best),
        ("--num_restarts", self.num_restarts > 1), ("--grid", self.grid)):
      require(
          not needs_dev or self.do_train and self.do_eval,
          f"{name}: needs --do_train and --do_eval, since the dev rows "
          "decide.")
      require(
          not needs_dev
          or self.distribution_strategy != "multi_worker_mirrored",
          f"{name}: does not go with "
          "--distribution_strategy=multi_worker_mirrored, of which one worker "
          "alone evaluates.")

  @property
  def data_source(self) -> str:
    """Where the rows come from, for messages."""
    return self.tfds_name or self.data_dir or "--data_dir"

  @property
  def tfds_options(self) -> dict[str, Any]:
    """Those of `data.tfds_rows.read_tfds` that are flags."""
    return {"data_dir": self.tfds_data_dir, "on_bad_utf8": self.on_bad_utf8}

  def with_defaults(self, of_task: Mapping[str, Any]) -> "FinetuningConfig":
    """What was not given, as the task says, or else the paper."""
    defaults = {**FINETUNING_DEFAULTS, **of_task}
    if self.features:
      defaults["learning_rate"] = FEATURES_LEARNING_RATE
    return dataclasses.replace(self, **{
      name: value for name, value in defaults.items()
      if getattr(self, name) is None})
