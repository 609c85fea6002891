"""Learning curves: what is read, which lines are drawn, what is refused."""

import doctest
import json
import os
import pathlib
import subprocess
import sys

import pytest

from bert_tf.config import InputError

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
import plot_training
sys.path.remove(str(TOOLS))

PRETRAINING = [
  {"split": "train", "step": 10, "loss": 9.7, "mlm_loss": 9.0,
   "nsp_loss": 0.7, "mlm_accuracy": 0.01, "nsp_accuracy": 0.5,
   "learning_rate": 1e-4, "examples_per_second": 90.5},
  {"split": "train", "step": 20, "mlm_loss": 8.0, "nsp_loss": 0.6,
   "mlm_accuracy": 0.05, "nsp_accuracy": 0.6},
  {"split": "eval", "step": 20, "mlm_loss": 8.5, "mlm_accuracy": 0.04,
   "nsp_accuracy": 0.55, "mlm_perplexity": 4914.8,
   "mlm_majority_accuracy": 0.06},
]
FINETUNING = [
  {"split": "train", "step": 5, "loss": 1.4, "accuracy": 0.25},
  {"split": "eval", "step": 5, "loss": 1.3, "accuracy": 0.5},
]


@pytest.fixture
def make_run(tmp_path):
  def make(name, content):
    if not isinstance(content, str):
      content = "".join(json.dumps(entry) + "\n" for entry in content)
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "metrics.jsonl").write_text(content)
    return str(tmp_path / name)
  return make


@pytest.fixture
def drawn(monkeypatch):
  """The figure that `plot` made last, after it has been saved."""
  figure_module = pytest.importorskip("matplotlib.figure")
  figures = []

  class Figure(figure_module.Figure):
    def __init__(self, *args, **kwargs):
      super().__init__(*args, **kwargs)
      figures.append(self)

  monkeypatch.setattr(figure_module, "Figure", Figure)
  return lambda: figures[-1]


def lines_of(panel):
  """(line width, steps, values) of the lines with a step axis."""
  return [
    (line.get_linewidth(), list(line.get_xdata()),
     [round(value, 6) for value in line.get_ydata()])
    for line in panel.lines
  ]


def labels_of(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


def test_pretraining_shows_both_tasks_and_not_the_sum_of_losses(
    make_run, drawn, tmp_path):
  output_file = tmp_path / "new" / "curve.png"
  plot_training.plot([make_run("run", PRETRAINING)],
                     output_file=str(output_file))
  assert output_file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
  assert os.listdir(tmp_path / "new") == ["curve.png"]
  loss, accuracy = drawn().axes
  assert lines_of(loss) == [
    (0.9, [10, 20], [9.0, 8.0]), (2.4, [20], [8.5]), (0.9, [10, 20], [0.7, 0.6])
  ]
  assert lines_of(accuracy) == [
    (0.9, [10, 20], [1.0, 5.0]), (2.4, [20], [4.0]), (1.4, [0, 1], [6.0, 6.0]),
    (0.9, [10, 20], [50.0, 60.0]), (2.4, [20], [55.0]),
  ]
  assert labels_of(drawn()) == [
    "masked language model", "next sentence", "training", "held-out",
    "most frequent answer"]
  assert [text.get_text() for text in loss.texts] == ["8.50"]
  assert [text.get_text() for text in accuracy.texts] == ["4.0 %", "55.0 %"]
  assert (loss.get_ylabel(), accuracy.get_ylabel(), accuracy.get_xlabel()) == (
      "loss (nats)", "accuracy (%)", "training step")


def test_legend_lies_within_the_picture(make_run, drawn, tmp_path):
  runs = [make_run(f"a_run_with_quite_a_long_name/{i}/of_a_study", PRETRAINING)
          for i in range(5)]
  for chosen in (runs[:1], runs):
    plot_training.plot(chosen, output_file=str(tmp_path / "curve.png"))
    box = drawn().legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= drawn().bbox.x1


def test_several_runs_have_a_colour_each(make_run, drawn, tmp_path):
  runs = [make_run(name, FINETUNING) for name in ("pretrained", "random")]
  plot_training.plot(runs, output_file=str(tmp_path / "curve.png"))
  loss, accuracy = drawn().axes
  expected = [(0.9, [5], [1.4]), (2.4, [5], [1.3])]
  assert lines_of(loss) == expected * 2
  colors = [line.get_color() for line in accuracy.lines]
  assert colors[0] == colors[1] != colors[2] == colors[3]
  assert labels_of(drawn()) == ["pretrained", "random", "training", "held-out"]


def test_tasks_of_several_pretraining_runs_differ_by_their_dashes(
    make_run, drawn, tmp_path):
  runs = [make_run(name, PRETRAINING) for name in ("small", "large")]
  plot_training.plot(runs, output_file=str(tmp_path / "curve.png"))
  assert [line.get_linestyle() for line in drawn().axes[0].lines] == [
    "-", "-", "--"] * 2
  assert labels_of(drawn())[:4] == [
    "small", "large", "masked language model", "next sentence"]


def test_runs_of_several_kinds_share_a_picture(make_run, drawn, tmp_path):
  left_to_right = [
    {"split": "train", "step": 10, "loss": 9.0, "lm_loss": 9.0,
     "lm_accuracy": 0.1, "gradient_norm": 1.5, "input_wait_share": 0.1},
    {"split": "eval", "step": 20, "loss": 8.0, "lm_loss": 8.0,
     "lm_accuracy": 0.2},
  ]
  one = make_run("left_to_right", left_to_right)
  plot_training.plot([one], output_file=str(tmp_path / "curve.png"))
  loss, accuracy = drawn().axes
  assert lines_of(loss) == [(0.9, [10], [9.0]), (2.4, [20], [8.0])]
  assert lines_of(accuracy) == [(0.9, [10], [10.0]), (2.4, [20], [20.0])]
  assert labels_of(drawn()) == ["left to right", "training", "held-out"]

  runs = [make_run("bert", PRETRAINING), one, make_run("tuned", FINETUNING)]
  plot_training.plot(runs, output_file=str(tmp_path / "curve.png"))
  assert len(drawn().axes[0].lines) == 7
  assert labels_of(drawn()) == [
    "bert", "left_to_right", "tuned",
    "masked language model / left to right / task", "next sentence",
    "training", "held-out", "most frequent answer"]


def test_what_was_no_number_is_a_gap(make_run, drawn, tmp_path):
  run = make_run("run", [
    {"split": "train", "step": 5, "loss": None, "accuracy": 0.25},
    {"split": "train", "step": 10, "loss": 1.5, "accuracy": 0.5}])
  plot_training.plot([run], output_file=str(tmp_path / "curve.png"))
  assert lines_of(drawn().axes[0]) == [(0.9, [10], [1.5])]


@pytest.mark.parametrize("content, message", [
  ("", r"metrics.jsonl: is empty"),
  ("\n", r"metrics.jsonl: is empty"),
  ('{"split": "eval", "step": 1, "loss": 2}\n{"split": "ev',
   r"metrics.jsonl:2: not valid JSON: .*; remove the line"),
  ('{"split": "eval", "step": 1, "loss": 2}\n\n{}',
   r"metrics.jsonl:2: not valid JSON"),
  ("[1]", r"metrics.jsonl:1: must be an object"),
  ('{"split": "test", "step": 1}', r'metrics.jsonl:1: must .*"split"'),
  ('{"split": "eval", "step": "1"}', r'metrics.jsonl:1: must .*"step"'),
  ('{"split": "eval", "step": 1, "loss": "low"}',
   r"metrics.jsonl:1: loss: received 'low'"),
  ('{"split": "eval", "step": 1, "perplexity": 4}', r"no loss or accuracy"),
])
def test_bad_files_are_refused_with_their_line(make_run, content, message):
  with pytest.raises(InputError, match=message) as error:
    plot_training.read_metrics(make_run("run", content))
  assert "\n" not in str(error.value)


def test_a_missing_run_and_bad_bytes_are_refused(tmp_path):
  with pytest.raises(InputError, match="No such file.*--output_dir of a run"):
    plot_training.read_metrics(str(tmp_path))
  (tmp_path / "metrics.jsonl").write_bytes(b"\xff")
  with pytest.raises(InputError, match="not UTF-8"):
    plot_training.read_metrics(str(tmp_path))


def test_without_matplotlib_the_error_says_what_to_install(
    make_run, monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  with pytest.raises(InputError, match=r"pip install 'bert-tf\[demo\]'"):
    plot_training.plot([make_run("run", FINETUNING)],
                       output_file=str(tmp_path / "curve.png"))


def test_the_program_prints_an_error_as_one_line(tmp_path):
  program = [sys.executable, str(TOOLS / "plot_training.py")]
  output = f"--output_file={tmp_path / 'curve.png'}"
  for arguments in ([output], [str(tmp_path / "nothing"), output]):
    done = subprocess.run(program + arguments, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("plot_training.py: error: ")
    assert done.stderr.count("\n") == 1
  assert not (tmp_path / "curve.png").exists()


def test_examples_of_the_docstrings():
  assert doctest.testmod(plot_training).failed == 0
