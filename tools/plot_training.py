"""Draws the learning curves of one or more runs into one PNG.

  python tools/plot_training.py RUN [RUN...] --output_file=curve.png

A RUN is the --output_dir of a pretraining or a fine-tuning, with its
metrics.jsonl. Loss above, accuracy below; training thin, held-out data bold
with markers; dotted, where the run tells it, the accuracy of always giving
the most frequent answer. Nothing is smoothed: a point of a training curve is
the mean since the point before.
"""

import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from bert_tf import command_line
from bert_tf import files
from bert_tf.config import InputError
from bert_tf.config import require

METRICS_FILE = "metrics.jsonl"
# Distinct for colour-blind readers too, and in grey print.
_COLORS = (
  "#1f5fa8", "#e07b1a", "#2a9d6f", "#b0418b", "#7a6a00", "#6d6d6d", "#4bb3d6",
)
_DASHES = ("-", (0, (5, 2)))


class Curve(NamedTuple):
  """What a run may tell of one task, by the keys of metrics.jsonl."""
  name: str
  loss: str
  accuracy: str
  majority: str  # accuracy of always giving the most frequent answer


_PRETRAINING = (
  Curve("masked language model", "mlm_loss", "mlm_accuracy",
        "mlm_majority_accuracy"),
  Curve("next sentence", "nsp_loss", "nsp_accuracy", "nsp_majority_accuracy"),
  Curve("left to right", "lm_loss", "lm_accuracy", "lm_majority_accuracy"),
)
_FINETUNING = (Curve("task", "loss", "accuracy", "majority_accuracy"),)
_NUMBERS = frozenset(
    key for curve in _PRETRAINING + _FINETUNING for key in curve[1:])


def _parse_line(line: str, where: str) -> dict[str, Any]:
  try:
    entry = json.loads(line)
  except json.JSONDecodeError as error:
    raise InputError(
        f"{where}: not valid JSON: {error.msg}; remove the line if a stopped "
        "run left it unfinished.") from None
  require(
      isinstance(entry, dict) and entry.get("split") in ("train", "eval")
      and type(entry.get("step")) is int,
      f'{where}: must be an object with "split" ("train" or "eval") and '
      '"step" (a whole number).')
  for key in _NUMBERS & set(entry):
    require(
        type(entry[key]) in (int, float, type(None)),
        f"{where}: {key}: received {entry[key]!r}; must be a number, or null "
        "where it was none.")
  return entry


def read_metrics(run: str) -> list[dict[str, Any]]:
  """The lines of a run's metrics.jsonl.

  Raises:
    InputError: names the file, and the line that is not as it should be.
  """
  path = os.path.join(run, METRICS_FILE)
  try:
    with files.open_file(path) as file:
      lines = file.read().removesuffix("\n").split("\n")
  except OSError as error:
    raise InputError(
        f"{path}: {error.strerror}; give the --output_dir of a run.") from None
  except UnicodeDecodeError as error:
    raise InputError(f"{path}: not UTF-8: {error}.") from None
  require(lines != [""], f"{path}: is empty: the run has told nothing yet.")
  entries = [
    _parse_line(line, f"{path}:{number}") for number, line in
    enumerate(lines, start=1)
  ]
  require(
      any(_NUMBERS & set(entry) for entry in entries),
      f"{path}: holds no loss or accuracy to draw.")
  return entries


def points(
    entries: Sequence[dict[str, Any]], split: str, key: str
) -> tuple[list[int], list[float]]:
  """Steps and values of one curve; empty if the run does not tell it.

  What was no number (null in the file) is left out.

  >>> points([{"split": "eval", "step": 5, "loss": 2.0}], "eval", "loss")
  ([5], [2.0])
  """
  known = [
    e for e in entries if e["split"] == split and e.get(key) is not None]
  return [e["step"] for e in known], [e[key] for e in known]


def curves_of(entries: Sequence[dict[str, Any]]) -> tuple[Curve, ...]:
  """The curves to draw: a pretraining's "loss" is the sum of the two."""
  keys = {key for entry in entries for key in entry}
  is_pretraining = keys & {key for curve in _PRETRAINING for key in curve[1:]}
  return tuple(
      curve for curve in (_PRETRAINING if is_pretraining else _FINETUNING)
      if keys & set(curve[1:]))


def run_names(runs: Sequence[str]) -> list[str]:
  """The shortest ends of the paths that tell the runs apart.

  >>> run_names(["a/x/1", "a/y/1"]), run_names(["runs/base/"])
  (['x/1', 'y/1'], ['base'])
  """
  parts = [os.path.abspath(run).split(os.sep) for run in runs]
  for length in range(1, max(map(len, parts)) + 1):
    names = ["/".join(part[-length:]) for part in parts]
    if len(set(names)) == len(set(map(tuple, parts))):
      break
  return names


def _draw_curve(
    axes, entries, curve: Curve, *, color: str, dashes, is_single: bool
) -> set[str]:
  """One curve in both panels; returns the kinds of line that it drew."""
  kinds = set()
  for panel, key, scale, form in (
      (axes[0], curve.loss, 1, "{:.2f}"),
      (axes[1], curve.accuracy, 100, "{:.1f} %")):
    for split in ("train", "eval"):
      steps, values = points(entries, split, key)
      if not steps:
        continue
      kinds.add(split)
      values = [scale * value for value in values]
      if split == "train":
        panel.plot(steps, values, color=color, linestyle=dashes,
                   linewidth=0.9, alpha=0.55)
        continue
      panel.plot(steps, values, color=color, linestyle=dashes, linewidth=2.4,
                 marker="o", markersize=5, zorder=3)
      if is_single:
        panel.annotate(
            form.format(values[-1]), (steps[-1], values[-1]), color=color,
            xytext=(14, 0), textcoords="offset points", va="center",
            annotation_clip=False, weight="bold")
  steps, values = points(entries, "eval", curve.majority)
  if steps:
    kinds.add("majority")
    # The same for all runs on the same data, so of no run's colour.
    axes[1].axhline(
        100 * values[-1], color=color if is_single else "0.3", linestyle=":",
        linewidth=1.4)
  return kinds


def _legend_entries(colors: dict[str, str], dashes: dict[str, Any], kinds):
  """Lines and labels: colours first, then what the kinds of line mean."""
  from matplotlib.lines import Line2D

  entries = {name: Line2D([], [], color=color, linewidth=2.4)
             for name, color in colors.items()}
  entries |= {name: Line2D([], [], color="0.3", linewidth=2.4, linestyle=dash)
              for name, dash in dashes.items()}
  for kind, label, style in (
      ("train", "training", {"linewidth": 0.9, "alpha": 0.7}),
      ("eval", "held-out", {"linewidth": 2.4, "marker": "o", "markersize": 5}),
      ("majority", "most frequent answer",
       {"linestyle": ":", "linewidth": 1.4})):
    if kind in kinds:
      entries[label] = Line2D([], [], color="0.3", **style)
  return list(entries.values()), list(entries)


def _style(figure, axes, *, last_step: int) -> None:
  axes[0].set_xlim(0, 1.02 * max(last_step, 1))
  axes[0].set_ylabel("loss (nats)")
  axes[1].set_ylabel("accuracy (%)")
  axes[1].set_xlabel("training step")
  axes[1].xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
  for panel in axes:
    panel.set_ylim(bottom=0)
    panel.grid(color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("0.6")
    panel.tick_params(color="0.6")
  axes[1].set_ylim(top=min(100, axes[1].get_ylim()[1]))
  figure.align_ylabels(axes)


def plot(runs: Sequence[str], *, output_file: str) -> None:
  """Draws the curves of run folders into one PNG of 1,800 pixels' width.

  Raises:
    InputError: a run cannot be read, or matplotlib is missing.
  """
  read = [read_metrics(run) for run in runs]
  try:
    import matplotlib
    from matplotlib.figure import Figure
  except ImportError:
    raise InputError(
        "drawing needs matplotlib: pip install 'bert-tf[demo]'.") from None
  is_single = len(runs) == 1
  colors, dashes, kinds = {}, {}, set()
  with matplotlib.rc_context({"font.size": 11}):
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots(2, sharex=True)
    for i, (name, entries) in enumerate(zip(run_names(runs), read)):
      for j, curve in enumerate(curves_of(entries)):
        color = _COLORS[(j if is_single else i) % len(_COLORS)]
        colors[curve.name if is_single else name] = color
        # Runs of several kinds share the dashes, and are told by colour.
        dashes.setdefault(j, {})[curve.name] = None
        kinds |= _draw_curve(
            axes, entries, curve, color=color, is_single=is_single,
            dashes=_DASHES[0 if is_single else j])
    _style(figure, axes, last_step=max(
        entry["step"] for entries in read for entry in entries))
    needs_dashes = not is_single and len(dashes) > 1
    lines, labels = _legend_entries(
        colors, {" / ".join(names): _DASHES[j] for j, names in dashes.items()}
        if needs_dashes else {}, kinds)
    # About 110 characters fit beside each other, a line sample taking seven.
    rows = math.ceil(sum(len(label) + 7 for label in labels) / 110)
    figure.legend(lines, labels, loc="outside upper center", frameon=False,
                  ncols=math.ceil(len(labels) / rows), fontsize=10,
                  handlelength=1.8, columnspacing=1.6)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    os.makedirs(os.path.dirname(os.path.abspath(output_file)), exist_ok=True)
    figure.savefig(output_file + ".tmp", format="png", dpi=200)
  os.replace(output_file + ".tmp", output_file)


def main(argv: list[str]) -> None:
  require(
      len(argv) > 1,
      "received no run; give one or more folders with a metrics.jsonl.")
  plot(argv[1:], output_file=flags.FLAGS.output_file)
  print(f"Wrote {flags.FLAGS.output_file}.")


if __name__ == "__main__":
  flags.DEFINE_string("output_file", None, "PNG file to write.")
  flags.mark_flag_as_required("output_file")
  command_line.run_program(main)
