"""The arguments of the programs: frozen dataclasses that check themselves.

A field's default and its help text have their one home here, and
`bert_tf.command_line` makes the flags from them.

Standard library only.
"""

import dataclasses
import re
from typing import Any

from bert_tf.config import check_number
from bert_tf.config import require


def option(default: Any = dataclasses.MISSING, *, help: str, **metadata):
  """A dataclass field that becomes a flag; without a default, a required one.

  `choices=(...)` restricts the values; the flag and `check_options` obey it.
  `positional=True` takes all that stands beside the flags, without a name.
  """
  return dataclasses.field(
      default=default, metadata={"help": help, **metadata})


def check_options(config: Any) -> None:
  """Checks each field of an options dataclass against its metadata."""
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    choices = field.metadata.get("choices")
    if choices and value is not None:
      require(
          value in choices,
          f"--{field.name}: received {value!r}; must be one of "
          f"{', '.join(choices)}.")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is not None and value is not None:
      kind = int if isinstance(value, int) else float
      check_number(f"--{field.name}", value, kind, low, high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingConfig:
  """Which pieces the masked-LM objective hides, and behind what."""

  max_predictions_per_seq: int = option(
      20, low=1, help="Most masked pieces in a row.")
  masked_lm_prob: float = option(
      0.15, low=0.0, high=1.0, help="Share of pieces to mask.")
  do_whole_word_mask: bool = option(
      False, help="Mask all pieces of a word or none.")
  mask_share: float = option(
      0.8, low=0.0, high=1.0,
      help="Share of the chosen pieces that become [MASK].")
  same_share: float = option(
      0.1, low=0.0, high=1.0,
      help="Share of them that stay; the rest become random pieces.")

  def __post_init__(self):
    check_options(self)
    require(
        self.mask_share + self.same_share <= 1 + 1e-9,
        f"--mask_share and --same_share: received {self.mask_share} and "
        f"{self.same_share}; together they are at most 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig:
  """The arguments that say where text is read, see `data.corpus`."""

  input_file: tuple[str, ...] = option(
      (), help="Text files, plain or .gz, .bz2, .xz, .zst, as names or globs, "
               "with commas; - is standard input.")
  input_format: str = option(
      "auto", choices=("auto", "text", "jsonl", "wikiextractor"),
      help="text: a blank line ends a document. jsonl: an object a line. "
           "wikiextractor: documents in <doc ...> and </doc>. auto: jsonl if "
           "a file is named so, wikiextractor if it starts so, else text.")
  text_field: str = option(
      "text", help="The field of JSON Lines, or of the examples of "
                   "--tfds_name, that holds the text.")
  tfds_name: str | None = option(
      None, help="A TensorFlow Datasets dataset to read in the place of "
                 "--input_file, such as wikipedia/20230601.de; it is fetched "
                 "if it is not there yet.")
  tfds_split: str = option(
      "train", help="The split of --tfds_name, or a part, such as train[:1%].")
  tfds_data_dir: str | None = option(
      None, help="Where prepared datasets lie. Not given: "
                 "~/tensorflow_datasets.")
  on_bad_utf8: str = option(
      "error", choices=("error", "replace"),
      help="What to do with bytes that are not UTF-8.")

  def __post_init__(self):
    check_options(self)
    received = "both" if self.input_file else "neither"
    require(
        bool(self.input_file) != bool(self.tfds_name),
        f"--input_file and --tfds_name: received {received}; give one of "
        "them.")
    require(
        "-" not in self.input_file or len(self.input_file) == 1,
        f"--input_file: received {','.join(self.input_file)}; standard input "
        "(-) must stand alone.")
    require(
        self.input_format == "auto" or not self.tfds_name,
        f"--input_format: received {self.input_format!r} with --tfds_name; "
        "it is for --input_file only.")
    require(
        not self.tfds_data_dir or bool(self.tfds_name),
        "--tfds_data_dir: received without --tfds_name.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig(CorpusConfig):
  """Arguments of `tools/learn_vocabulary.py`."""

  output_file: str = option(help="The vocabulary to write, an entry a line.")
  vocab_size: int = option(
      30522, low=100, help="Number of entries, special ones included.")
  init_vocab_file: str | None = option(
      None, help="A vocabulary to extend: its entries keep their ids, new ones "
                 "fill its [unused] slots first and are appended then, up to "
                 "--vocab_size. Not given: a new one is learnt.")
  num_unused: int = option(
      0, low=0, help="Slots [unused0], [unused1], ... for later additions: so "
                     "many in a new vocabulary, left free in an extended one.")
  do_lower_case: bool = option(
      True, help="Lower-case the text and strip accents.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingDataConfig(CorpusConfig, MaskingConfig):
  """Arguments of `tools/create_pretraining_data.py`."""

  output_file: tuple[str, ...] = option(
      help="TFRecord files to write, with commas. One name may become several "
           "files, NAME-00000-of-00012, ...: as many as --num_files says or "
           "as a large corpus needs. stats.json is written beside the first.")
  num_files: int | None = option(
      None, low=1, help="How many files to write; with one --output_file.")
  bucket: str | None = option(
      None, help="i/n: makes file i (from 0) of n files and no other, for "
                 "array jobs on a cluster; with one --output_file.")
  num_workers: int = option(
      0, low=0, help="Processes to work with; 0: one for each core. The bytes "
                     "of the files do not depend on it.")
  vocab_file: str = option(help="The WordPiece vocabulary, an entry a line.")
  do_lower_case: bool | None = option(
      None, help="Lower-case the text and strip accents. Not given: as "
                 "tokenizer_config.json beside the vocabulary says, or as "
                 "the vocabulary itself shows.")
  nsp: bool = option(
      True, help="Pairs of segments with a next-sentence label. False: rows "
                 "of full sentences, without a label.")
  pack_sequences: bool = option(
      False, help="Put several short examples into a row, which attend to "
                  "themselves only.")
  masking: str = option(
      "static", choices=("static", "none"),
      help="static: the records hold masks. none: they do not, and "
           "run_pretraining.py draws them anew in each epoch.")
  max_seq_length: int = option(
      128, low=8, help="Length of a row, [CLS] and [SEP] included.")
  random_seed: int = option(
      12345, low=0, help="The same seed gives the same bytes.")
  dupe_factor: int = option(
      10, low=1, help="Passes over the corpus, each with its own masks.")
  short_seq_prob: float = option(
      0.1, low=0.0, high=1.0,
      help="Probability that a document gets, for one pass, a random, shorter "
           "target length.")
  sentence_splitter: str = option(
      "none", choices=("none", "rules"),
      help="none: a sentence a line, as in the original. rules: a line is "
           "running text, and sentences are found in it.")

  def __post_init__(self):
    CorpusConfig.__post_init__(self)
    MaskingConfig.__post_init__(self)
    require(
        self.max_predictions_per_seq <= self.max_seq_length - 3,
        f"--max_predictions_per_seq: received {self.max_predictions_per_seq}; "
        f"a sequence of {self.max_seq_length} holds at most "
        f"{self.max_seq_length - 3} pieces beside [CLS] and two [SEP].")
    require(
        len(self.output_file) == 1 or not (self.num_files or self.bucket),
        f"--output_file: received {len(self.output_file)} names; with "
        "--num_files or --bucket there must be one, which is numbered.")
    require(
        not (self.num_files and self.bucket),
        "--num_files and --bucket: give one of the two; --bucket=i/n says how "
        "many files there are.")
    _ = self.bucket_numbers

  @property
  def bucket_numbers(self) -> tuple[int, int] | None:
    """(i, n) of --bucket=i/n."""
    if self.bucket is None:
      return None
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", self.bucket)
    numbers = tuple(map(int, match.groups())) if match else (0, 0)
    require(
        numbers[0] < numbers[1], f"--bucket: received {self.bucket!r}; must "
        "be i/n with i from 0 to n - 1, such as 0/40.")
    return numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
  """What both programs that train take: the model, the engine, the watching."""

  output_dir: str = option(
      help="The model directory to write; the run's state and metrics too.")
  init_checkpoint: str | None = option(
      None, help="Where to start: a checkpoint's prefix, a model directory "
                 "(of Google's form or tf-models'), a Hugging Face "
                 "directory or an exported SavedModel. Not "
                 "given: random weights. Fine-tuning without --do_train: the "
                 "fine-tuned model, if it is not that of --output_dir.")
  bert_config_file: str | None = option(
      None, help="bert_config.json: the shape of the model. Not given: that "
                 "of --init_checkpoint.")
  vocab_file: str | None = option(
      None, help="The vocabulary. Not given: that of --init_checkpoint.")
  do_lower_case: bool | None = option(
      None, help="Casing of the vocabulary. Not given: as "
                 "tokenizer_config.json beside it says, or as it shows.")
  train_batch_size: int = option(
      32, low=1, help="Examples a step, over all replicas and micro-batches.")
  eval_batch_size: int = option(8, low=1, help="Examples an evaluation step.")
  learning_rate: float = option(
      5e-5, low=0.0, help="The highest learning rate, after the warm-up.")
  optimizer: str = option(
      "adamw", choices=("adamw", "lamb"),
      help="adamw: that of the original. lamb: for batches of thousands (You "
           "et al. 2020).")
  bias_correction: bool | None = option(
      None, help="Correct the bias of Adam's moments. Not given: in "
                 "fine-tuning and with lamb only; the original does not.")
  learning_rate_schedule: str = option(
      "linear", choices=("linear", "polynomial", "cosine", "constant"),
      help="How the learning rate falls after the warm-up.")
  polynomial_power: float = option(
      0.5, low=0.0, help="The power of the polynomial schedule: 1 is linear.")
  save_checkpoints_steps: int = option(
      1000, low=1, help="Steps between two saved states.")
  random_seed: int = option(
      12345, low=0, help="Fixes initial weights, order of data and dropout.")
  distribution_strategy: str = option(
      "one_device",
      choices=("one_device", "mirrored", "multi_worker_mirrored", "tpu"),
      help="one_device: the first GPU, or the CPU. mirrored: all GPUs of this "
           "machine. multi_worker_mirrored: those of all machines in the "
           "environment variable TF_CONFIG. tpu: see --tpu_name.")
  tpu_name: str | None = option(
      None, help="Name or address of the TPU; with "
                 "--distribution_strategy=tpu. Not given: that of this "
                 "machine.")
  worker_timeout: int = option(
      600, low=1, help="Seconds to wait for the other workers at the start.")
  gradient_accumulation_steps: int = option(
      1, low=1, help="Micro-batches a replica works through one after the "
                     "other in a step; the result is that of one large one.")
  iterations_per_loop: int = option(
      1, low=1, help="Steps in one call of the compiled loop; a TPU needs "
                     "many.")
  mixed_precision: str = option(
      "none", choices=("none", "bfloat16", "float16"),
      help="Type of the matrix products. Weights, norms, softmax and losses "
           "are float32 always; float16 has a dynamic loss scale.")
  jit_compile: bool = option(
      False, help="Compile forward and backward pass with XLA.")
  rematerialize: bool = option(
      False, help="Compute each block again in the backward pass: less "
                  "memory, a third more work.")
  deterministic: bool = option(
      False, help="The same bits in each run on the same kind of machine, "
                  "stopped and gone on with or not.")
  log_steps: int = option(
      100, low=1, help="Steps between two lines of metrics.")
  eval_steps: int | None = option(
      None, low=1, help="Steps between two evaluations. Not given: "
                        "--save_checkpoints_steps, and an epoch in "
                        "fine-tuning.")
  peak_flops: float | None = option(
      None, low=1.0, help="FLOP/s that all devices reach together at best, "
                          "such as 989e12 of one H100 in bfloat16; metrics "
                          "then tell the share that the model gets.")
  profile_steps: str | None = option(
      None, help="FIRST,LAST: steps to profile, into OUTPUT_DIR/profile.")

  def __post_init__(self):
    check_options(self)
    require(
        self.train_batch_size is None
        or self.train_batch_size % self.gradient_accumulation_steps == 0,
        f"--train_batch_size: received {self.train_batch_size}, which is not "
        f"a multiple of --gradient_accumulation_steps "
        f"({self.gradient_accumulation_steps}).")
    require(
        not self.tpu_name or self.distribution_strategy == "tpu",
        f"--tpu_name: received {self.tpu_name!r} with "
        f"--distribution_strategy={self.distribution_strategy}; it is for "
        "tpu.")
    _ = self.profile_range

  @property
  def profile_range(self) -> tuple[int, int] | None:
    """(FIRST, LAST) of --profile_steps."""
    if self.profile_steps is None:
      return None
    match = re.fullmatch(r"([0-9]+),([0-9]+)", self.profile_steps)
    first, last = map(int, match.groups()) if match else (0, 0)
    require(
        first < last,
        f"--profile_steps: received {self.profile_steps!r}; must be "
        "FIRST,LAST with FIRST below LAST, such as 10,20.")
    return first, last


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingConfig(TrainingConfig, MaskingConfig):
  """Arguments of `run_pretraining.py`.

  How to mask is for records that were made with --masking=none.
  """

  input_file: tuple[str, ...] = option(
      help="TFRecord files for training, as names or globs, with commas.")
  eval_input_file: tuple[str, ...] = option(
      (), help="Held-out TFRecord files. Not given: --input_file.")
  max_seq_length: int = option(
      128, low=8, help="Length of the records.")
  objective: str = option(
      "masked_lm", choices=("masked_lm", "left_to_right"),
      help="masked_lm: that of BERT. left_to_right: each piece predicts the "
           "next and sees those before it only, without next sentence; an "
           "ablation of the paper.")
  nsp: bool = option(
      True, help="False: leave out the next-sentence loss, where the records "
                 "have its labels.")
  do_train: bool = option(False, help="Train.")
  do_eval: bool = option(
      False, help="Evaluate, during training and at its end.")
  num_train_steps: int = option(100000, low=1, help="Steps in all.")
  num_warmup_steps: int = option(
      10000, low=0, help="Steps over which the learning rate rises.")
  max_eval_steps: int = option(
      100, low=1, help="Batches an evaluation takes at most.")

  def __post_init__(self):
    TrainingConfig.__post_init__(self)
    MaskingConfig.__post_init__(self)
    require(
        self.do_train or self.do_eval,
        "Received neither --do_train nor --do_eval; give at least one.")
    require(
        self.bert_config_file or self.init_checkpoint,
        "Received neither --bert_config_file nor --init_checkpoint; one of "
        "them must give the shape of the model.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ModelConfig:
  """The model that an export is made of."""

  model_dir: str = option(
      help="A model directory, pretrained or fine-tuned, or any other "
           "checkpoint that --init_checkpoint takes.")
  vocab_file: str | None = option(
      None, help="The vocabulary. Not given: that of --model_dir.")
  do_lower_case: bool | None = option(
      None, help="Casing of the vocabulary. Not given: as "
                 "tokenizer_config.json beside it says, or as it shows.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(_ModelConfig):
  """Arguments of `tools/export_saved_model.py`."""

  export_dir: str = option(
      help="Where the versions lie; the next one is written.")
  null_score_diff_threshold: float | None = option(
      None, help="Of a model of SQuAD 2.0: the answer is empty if no answer "
                 "scores by more than this above the best, such as "
                 "best_f1_thresh in eval_results.json. Not given: as it was "
                 "fine-tuned.")
  pooling: str | None = option(
      None, choices=("cls", "mean", "max"),
      help="What a pretrained model's signature embedding gives for a text: "
           "the vector of [CLS], or the mean or the greatest values over all "
           "pieces, [CLS] and [SEP] among them. Not given: mean.")
  l2_normalize: bool = option(
      False, help="Embeddings have the length 1.")
  precision: str = option(
      "float32", choices=("float32", "bfloat16", "int8"),
      help="bfloat16: weights and products in 16 bits; half the size. int8: "
           "the matrices of the encoder in 8 bits, computed with in float32; "
           "about a quarter. Norms, softmax and the logits of tasks are "
           "float32 always. A pretrained model that is not float32 is for "
           "serving alone.")
  freeze_graph: bool = option(
      False, help="The weights of the encoder, all but the word embeddings, and "
                  "those of a task's head become constants of the graph: short "
                  "texts are answered faster, above all in bfloat16. A server "
                  "needs more memory for it, and the export is for serving "
                  "alone.")
  eval_flags: str | None = option(
      None, help="With another --precision than float32, or --freeze_graph: "
                 "flags of run_finetuning.py that name the dev rows, such as "
                 "'--data_dir=glue/SST-2', to compare both on them. Not "
                 "given: size and time are compared alone.")

  def __post_init__(self):
    check_options(self)
    require(
        self.eval_flags is None or self.precision != "float32"
        or self.freeze_graph,
        f"--eval_flags: received {self.eval_flags!r} with "
        "--precision=float32, beside which another is compared; give one, or "
        "evaluate with run_finetuning.py --do_eval.")
    require(
        not (self.freeze_graph and self.precision == "int8"),
        "--freeze_graph: received with --precision=int8, whose matrices become "
        "floats in each request all the same; take float32 or bfloat16.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TFLiteConfig(_ModelConfig):
  """Arguments of `tools/export_tflite.py`."""

  output_file: str = option(
      help="The .tflite file to write. Vocabulary, casing and labels get its "
           "name with .vocab.txt, .tokenizer_config.json and .labels.txt.")
  max_seq_length: int = option(
      128, low=3, help="Pieces of each sequence, padding and special tokens "
                       "included: the file takes no other number.")
  batch_size: int = option(
      1, low=1, help="Sequences of a call, in the same way.")
  num_choices: int | None = option(
      None, low=2, help="Choices of an example, in the same way; of a model "
                        "of multiple choice, which needs it.")
  precision: str = option(
      "float32", choices=("float32", "int8"),
      help="int8: matrices in 8 bits; what they are multiplied with is rounded "
           "too, by what is seen in each call.")

  def __post_init__(self):
    check_options(self)
    require(
        self.output_file.endswith(".tflite"),
        f"--output_file: received {self.output_file!r}; must end with "
        ".tflite.")
