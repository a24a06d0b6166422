import json
import re
import shlex
import tomllib
from pathlib import Path

import cv2
import pytest
from skimage import data

from ppd_agents import cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
PAGES = [README, *(ROOT / "docs" / f"{name}.md" for name in ("quick_start", "methods", "backends"))]
PAGES += [ROOT / "docs" / f"{name}.md" for name in ("datasets", "reproduction")]
LINES = [
    (page.name, line)
    for page in PAGES
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
ORDER = [
    "before_after.webp",
    "## Two commands",
    "## For RL researchers",
    "## For people who segment",
    "## Performance",
    "## Results",
    "## Real SAM, DINOv2, several machines",
    "## What the machine needs",
    "## Citing",
]


def commands(program):
    """The command lines of all pages that start a program, each with its page, as lists of words."""
    split = [(page, shlex.split(line, comments=True)) for page, line in LINES]
    return [(page, words[1:]) for page, words in split if words[:1] == [program]]


def test_the_order_is_from_what_to_how():
    places = [TEXT.index(part) for part in ORDER]
    assert places == sorted(places)


def test_there_are_snippets():
    assert len(SNIPPETS) == 3


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    exec(compile(SNIPPETS[number], f"README.md, snippet {number}", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out


def test_the_defender_finds_the_wrong_points_of_the_example(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    names = {}
    exec(compile(SNIPPETS[2], "README.md", "exec"), names)
    gone = {verdict.point for verdict in names["cleaned"].removed}
    assert gone == {(280, 160), (240, 180), (520, 330)}


def test_commands_exist():
    import subprocess
    import sys

    found = subprocess.run(
        [sys.executable, "-m", "ppd_agents", "--help"], capture_output=True, text=True, check=True
    )
    shown = set(re.findall(r"\bppd (\w+)", TEXT))
    assert shown >= {"run", "refine", "evaluate", "data", "doctor", "encode", "train"}
    assert all(name in found.stdout for name in shown)


@pytest.mark.parametrize("words", [words for _, words in commands("ppd")], ids=" ".join)
def test_the_command_line_takes_every_command(words, monkeypatch):
    taken = []

    class Handlers:
        def __getitem__(self, kind):
            return lambda options: taken.append(options) or 0

    monkeypatch.setattr(cli, "_HANDLERS", Handlers())
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 0
    assert len(taken) == 1


def test_make_and_pip_know_what_they_are_asked_for():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {words[0] for _, words in commands("make")}
    assert made >= {"run", "test"}
    assert made <= targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {extra for _, words in commands("pip") for extra in re.findall(r"\[(.*?)\]", " ".join(words))}
    assert {name for extra in extras for name in extra.split(",")} <= set(project["optional-dependencies"])
    assert extras


def test_the_commands_for_people_who_segment_do_what_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    names = {}
    exec(compile(SNIPPETS[2].partition("defender =")[0], "README.md", "exec"), names)
    cv2.imwrite("photo.jpg", data.coffee()[..., ::-1])
    prompts = {"points": names["points"].tolist(), "labels": names["labels"].tolist()}
    Path("points.json").write_text(json.dumps(prompts))
    for folder, name in (("images", "cup.jpg"), ("masks", "cup.png")):
        Path("mine", folder).mkdir(parents=True)
        picture = data.coffee() if folder == "images" else (data.coffee()[..., 0] > 128) * 255
        cv2.imwrite(f"mine/{folder}/{name}", picture)
    wanted = [
        words for page, words in commands("ppd") if page == "README.md" and words[0] in ("refine", "data")
    ]
    assert [words[0] for words in wanted] == ["refine", "data"]
    for words in wanted:
        with pytest.raises(SystemExit) as left:
            cli.main([word.replace("/data/mine", str(tmp_path / "mine")) for word in words])
        assert left.value.code == 0
    assert {path.name for path in Path("cleaned").iterdir()} == {"mask.png", "overlay.png", "points.json"}
    assert "1 usable scenes" in capsys.readouterr().out


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (README.parent / target).exists(), target


def test_what_is_cited_is_cited_alike():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (title,) = re.findall(r"title   = \{(.*)\}", TEXT)
    (number,) = re.findall(r"arXiv:([\d.]+)\}", TEXT)
    assert f'title: "{title}"' in citation
    assert f"https://arxiv.org/abs/{number}" in citation
    for name in re.findall(r"([A-Z]\w+), ([A-Z]\w+)", re.findall(r"author  = \{(.*)\}", TEXT)[0]):
        assert "{{family-names: {}, given-names: {}}}".format(*name) in citation


def test_the_tables_are_those_of_the_recorded_results():
    from experiments import results_table

    def found(name):
        return json.loads((results_table.RESULTS / name).read_text(encoding="utf-8"))

    suite, bench = found("controls.json"), found("bench.json")
    assert results_table.run_table(found("run.json")) in TEXT
    assert results_table.summary_table(suite) in TEXT
    assert results_table.mini_table(found("mini.json")) in TEXT
    assert results_table.performance_table(bench, results_table.README_SEGMENTERS) in TEXT
    gpu = found("bench-gpu.json")
    assert results_table.performance_table(gpu, results_table.README_GPU_SEGMENTERS) in TEXT
    assert all(results_table.paper_table(number) in TEXT for number in (1, 2))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for table in (results_table.controls_table, results_table.folders_table, results_table.sections_table):
        assert table(suite) in page
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for name in ("performance_table", "limits_table", "learner_table", "growth_table"):
        assert getattr(results_table, name)(bench) in page
    assert results_table.performance_table(gpu) in page
    for name in ("decoder_account.json", "decoder_account_bfloat16.json"):
        assert results_table.account_table(found(name)["results"]) in page
    page = (ROOT / "docs" / "decoder.md").read_text(encoding="utf-8")
    assert results_table.resolution_table(found("dice_resolution.json")) in page
