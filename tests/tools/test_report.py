"""The demo's report, from figures made by hand."""

import pathlib
import sys

sys.path.insert(
    0, str(pathlib.Path(__file__).resolve().parents[2] / "tools" / "demo"))

import report

FIGURES = {
  "corpus": {"train": {"megabytes": 12.5, "documents": 4321}},
  "pretraining": {
    "global_step": 7000, "mlm_accuracy": 0.3, "mlm_majority_accuracy": 0.06,
    "nsp_accuracy": 0.8, "nsp_majority_accuracy": 0.55},
  "balanced_accuracy": {
    "pretrained": [0.75, 0.77, 0.79], "random": [0.6, 0.7, 0.65],
    "naive_bayes": 0.78},
  "seconds": {"Pretraining": 400.4, "in all": 661},
}
ANSWERS = {
  "fill_mask": [{"text": "a [MASK].", "pieces": ["cat", "dog", "x", "y", "z"],
                 "probabilities": [0.5, 0.25, 0.1, 0.05, 0.02]}],
  "classify": [{"text": "A layer.", "label": "keras", "probability": 0.883}],
}


def test_each_figure_stands_beside_what_it_is_compared_to():
  text = report.format_report(FIGURES, ANSWERS, "demo")
  for line in (
      "Corpus: 12.5 MB of docstrings, 4,321 modules",
      "  masked-LM accuracy    30.0%  most frequent piece: 6.0% (5.0 times "
      "that)",
      "  next sentence         80.0%  majority: 55.0%",
      "  pretrained start      77.0%  (75.0% to 79.0% over 3 seeds)",
      "  random start          65.0%  (60.0% to 70.0% over 3 seeds)",
      "  naive Bayes           78.0%",
      "    [MASK] = cat 50%, dog 25%, x 10%",
      "    keras 88%",
      "Times           Pretraining 6m40s, in all 11m01s"):
    assert line in text.split("\n"), line
  # One screen.
  assert len(text.split("\n")) < 40
  assert max(map(len, text.split("\n"))) <= 80


def test_a_run_without_next_sentence_tells_nothing_of_it():
  known = {name: value for name, value in FIGURES["pretraining"].items()
           if not name.startswith("nsp")}
  text = report.format_report(
      {**FIGURES, "pretraining": known}, ANSWERS, "demo")
  assert "masked-LM accuracy" in text and "next sentence" not in text
