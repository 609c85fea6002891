"""A TensorFlow Datasets dataset: found, fetched once, read in its order.

Standard library and tensorflow-datasets, imported where it is used.
"""

from collections.abc import Iterator, Sequence
import logging
from typing import Any

from bert_tf.config import InputError
from bert_tf.errors import one_line

_LOGGER = logging.getLogger(__name__)


def find(name: str, *, data_dir: str | None = None) -> Any:
  """The `tfds.core.DatasetBuilder` of a name; nothing is fetched yet.

  So its features can be checked before.

  Args:
    name: such as glue/mrpc or wikipedia/20230601.de.
    data_dir: where prepared datasets lie. None: ~/tensorflow_datasets.

  Raises:
    InputError: there is no such dataset, version or configuration.
  """
  import tensorflow_datasets as tfds
  try:
    return tfds.builder(name, data_dir=data_dir)
  except Exception as error:  # Of many kinds: names, networks, disks.
    first_line = one_line(str(error).strip().split("\n")[0])
    raise InputError(
        f"--tfds_name: received {name!r}, with --tfds_data_dir="
        f"{data_dir or '~/tensorflow_datasets'}: {first_line}.") from None


def prepare(builder: Any) -> None:
  """Fetches the dataset, if it is not there yet, and says so before.

  Raises:
    InputError: it cannot be fetched or written.
  """
  if builder.is_prepared():
    return
  _LOGGER.info(
      "%s is not in %s yet: it is fetched and prepared now, once.",
      builder.info.full_name, builder.data_dir)
  try:
    builder.download_and_prepare()
  except Exception as error:  # Each dataset fails in its own way.
    raise InputError(
        f"--tfds_name: {builder.info.full_name} cannot be prepared in "
        f"{builder.data_dir}: {type(error).__name__}: {one_line(error)}."
    ) from error


def read(
    builder: Any, split: str, features: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """The examples of a split as numpy, in the order of the files.

  Args:
    builder: of a dataset that is prepared.
    split: its name, or a part, such as train[:1%].
    features: those to decode; the others are left out.
  """
  import tensorflow_datasets as tfds
  dataset = builder.as_dataset(
      split=split, shuffle_files=False,
      decoders=tfds.decode.PartialDecoding(dict.fromkeys(features, True)),
      read_config=tfds.ReadConfig(
          interleave_cycle_length=1, try_autocache=False))
  return iter(tfds.as_numpy(dataset))
