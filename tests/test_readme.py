import json
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_snippets():
    assert len(SNIPPETS) == 3


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    exec(compile(SNIPPETS[number], f"README.md, snippet {number}", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out


def test_the_defender_finds_the_wrong_point_of_the_example(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    names = {}
    exec(compile(SNIPPETS[2], "README.md", "exec"), names)
    assert [verdict.point for verdict in names["cleaned"].removed] == [(280, 160)]


def test_commands_exist():
    import subprocess
    import sys

    found = subprocess.run(
        [sys.executable, "-m", "ppd_agents", "--help"], capture_output=True, text=True, check=True
    )
    shown = set(re.findall(r"\bppd (\w+)", README.read_text(encoding="utf-8")))
    assert shown >= {"run", "refine", "evaluate", "data", "doctor"}
    assert all(name in found.stdout for name in shown)


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


def test_the_tables_are_those_of_the_recorded_results():
    from experiments.results_table import RESULTS, controls_table, mini_table, run_table

    text = README.read_text(encoding="utf-8")
    assert run_table(json.loads((RESULTS / "run.json").read_text())) in text
    assert controls_table(json.loads((RESULTS / "controls.json").read_text())) in text
    assert mini_table(json.loads((RESULTS / "mini.json").read_text())) in text
