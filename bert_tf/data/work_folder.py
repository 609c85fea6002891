"""What a run of the data tool leaves for the next one, until all is done.

  OUTPUT.work/        beside the first output file
    settings.json     what the files are made with: other settings are refused
    blocks/           the tokenized corpus, see `document_store`
    read.json         what was counted in it; there when all blocks are
    files/00003.json  what was counted in a file; there when the file is
    lock              held while a run is at work

Standard library only, but for `document_store`.
"""

from collections.abc import Mapping, Sequence
import contextlib
import fcntl
import glob
import json
import os
import shutil
from typing import Any

from bert_tf.config import InputError
from bert_tf.config import read_json
from bert_tf.config import require
from bert_tf.config import write_json
from bert_tf.data.document_store import DocumentStore

STATS_FILE = "stats.json"


_SETTINGS_NO_FLAG_HAS = {"vocabulary": "the content of --vocab_file"}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
  """Which settings differ, in words."""
  return "; ".join(
      f"{_SETTINGS_NO_FLAG_HAS.get(name, '--' + name)} was {old.get(name)!r} and is {new.get(name)!r}"
      for name in sorted(old.keys() | new.keys())
      if old.get(name) != new.get(name))


def file_counts_path(work_path: str, number: int) -> str:
  """Where the counts of a file are, once it is there."""
  return os.path.join(work_path, "files", f"{number:05d}.json")


class WorkFolder:
  """The folder of one set of output files, locked while it is entered."""

  def __init__(
      self, output_file: Sequence[str], settings: Mapping[str, Any], *,
      bucket: int | None = None):
    """`bucket`: this run makes one file of the set, beside other runs."""
    self.path = f"{output_file[0]}.work"
    self.settings = dict(settings)
    self.store = DocumentStore(os.path.join(self.path, "blocks"))
    self._output_file = output_file
    self._bucket = bucket
    self._stats_path = os.path.join(
        os.path.dirname(output_file[0]), STATS_FILE)
    self._locks = contextlib.ExitStack()

  def __enter__(self) -> "WorkFolder":
    if self.finished_stats() is None:
      try:
        self._begin()
      except BaseException:
        self._locks.close()
        raise
    return self

  def __exit__(self, kind, error, trace) -> None:
    # Bad input may show before anything is done: then nothing is left.
    nothing_done = not self.store.blocks() and not os.path.exists(
        self._path("read.json"))
    if kind is not None and nothing_done and self._bucket is None:
      self.remove()
    self._locks.close()

  def _path(self, *parts: str) -> str:
    return os.path.join(self.path, *parts)

  def finished_stats(self) -> dict[str, Any] | None:
    """`stats.json`, if it is of these files and all of them are there.

    Raises:
      InputError: the files were made with other settings.
    """
    try:
      with open(self._stats_path, encoding="utf-8") as file:
        stats = json.load(file)
      old, entries = stats["settings"], stats["files"]
      folder = os.path.dirname(self._stats_path)
      sizes = {os.path.join(folder, name): entry["bytes"]
               for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
      return None
    if old.get("output_file") != self.settings["output_file"]:
      return None
    if not all(os.path.isfile(path) and os.path.getsize(path) == size
               for path, size in sizes.items()):
      return None
    require(
        old == self.settings,
        f"{self._output_file[0]}: is there already, made with other settings: "
        f"{_differences(old, self.settings)}. Name other files, or remove "
        f"these and {self._stats_path} to make them anew.")
    return stats

  def _begin(self) -> None:
    settings_path = self._path("settings.json")
    if os.path.exists(settings_path):
      old = read_json(settings_path)
      require(
          old == self.settings,
          f"{self.path}: was begun with other settings: "
          f"{_differences(old, self.settings)}. Give the same command to go "
          "on, or remove this folder to begin anew.")
    else:
      self._check_nothing_is_there()
      os.makedirs(self._path("files"), exist_ok=True)
      os.makedirs(self.store.folder, exist_ok=True)
      write_json(settings_path, self.settings)
    self._lock("lock", shared=self._bucket is not None)
    if self._bucket is None:
      self._remove_leftovers()
    else:
      self._lock(f"lock-{self._bucket:05d}")

  def _check_nothing_is_there(self) -> None:
    for path in self._output_file:
      found = [*filter(os.path.exists, [path]), *sorted(
          glob.glob(f"{glob.escape(path)}-?????-of-?????"))]
      require(
          not found, f"{', '.join(found[:3])}: is there already, and {STATS_FILE} beside "
          "it does not say that it was made with these settings: remove it, "
          "or give another --output_file.")

  def _lock(self, name: str, *, shared: bool = False) -> None:
    file = self._locks.enter_context(open(self._path(name), "w"))
    try:
      fcntl.flock(
          file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(
          f"{self._path(name)}: another run is at work on these files; wait "
          "for it, or stop it.") from None

  def _remove_leftovers(self) -> None:
    """Temporary files of runs that were killed."""
    for pattern in (self._path("*.tmp-*"), self._path("files", "*.tmp-*"),
                    *(f"{glob.escape(path)}*.tmp-*"
                      for path in self._output_file)):
      for path in glob.glob(pattern):
        os.remove(path)

  # The first pass.

  def read_counts(self) -> dict[str, int]:
    """What was counted in the corpus; nothing before all of it was read."""
    path = self._path("read.json")
    return read_json(path)["counts"] if os.path.exists(path) else {}

  def save_read_counts(
      self, counts: Mapping[str, int], fingerprint: Any) -> None:
    write_json(self._path("read.json"), {
      "counts": dict(counts), "fingerprint": fingerprint})

  def check_fingerprint(self, fingerprint: Any) -> None:
    """Refuses to go on if the input files have changed since."""
    require(
        read_json(self._path("read.json"))["fingerprint"] == fingerprint,
        f"The input files have changed since they were read into {self.path}: "
        "remove this folder to begin anew.")

  # The second pass.

  def is_done(self, outputs: Sequence[str], number: int) -> bool:
    """Whether a file is there, and what was counted in it."""
    try:
      size = os.path.getsize(outputs[number])
      return read_json(file_counts_path(self.path, number))["bytes"] == size
    except (OSError, InputError):
      return False

  def is_complete(self, outputs: Sequence[str]) -> bool:
    return all(
        self.is_done(outputs, number) for number in range(len(outputs)))

  def file_counts(self, number: int) -> dict[str, Any]:
    return read_json(file_counts_path(self.path, number))

  # The end.

  def finish(self, stats: dict[str, Any]) -> None:
    """Writes `stats.json` and removes the folder.

    The counts of other files in the same folder are kept in it.
    """
    folder = os.path.dirname(self._stats_path)
    with contextlib.suppress(InputError, KeyError, TypeError, AttributeError):
      others = {
        name: entry
        for name, entry in read_json(self._stats_path)["files"].items()
        if os.path.exists(os.path.join(folder, name))}
      stats["files"] = {**others, **stats["files"]}
    write_json(self._stats_path, stats)
    self.remove()

  def remove(self) -> None:
    shutil.rmtree(self.path, ignore_errors=True)
