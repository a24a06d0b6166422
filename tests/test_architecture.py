"""The architecture page names every file, and imports follow its arrows."""

import ast
import re
from pathlib import Path

import pytest

from experiments.architecture_drawing import PACKAGES, drawing

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
DRAWING = (ROOT / "docs" / "pictures" / "architecture.svg").read_text(encoding="utf-8")
MODULES = [path for name in ("ppd_env", "ppd_agents") for path in sorted((ROOT / name).rglob("*.py"))]
NAMED_AS_A_WHOLE = ("ppd_env/segmenters/mini/", "ppd_env/scenes/shapes/")
"""Folders of which the page names no files."""

FORBIDDEN = [
    ("ppd_env/", r"ppd_agents|stable_baselines3|wandb|experiments"),
    ("ppd_agents/", r"experiments"),
    ("ppd_env/game/", r"gymnasium|pettingzoo|ppd_env\.(?!game\b)"),
    ("ppd_env/graph/", r"gymnasium|pettingzoo|ppd_env\.(?!graph\b)"),
    ("ppd_env/scenes/", r"ppd_env\.(envs|simulator|game_batch|opponents|episodes|prompting)"),
    ("ppd_env/simulator.py", r"gymnasium|ppd_env\.(envs|game_batch|opponents|episodes)"),
    ("ppd_env/game_batch.py", r"gymnasium|ppd_env\.(envs|opponents|episodes|prompting)"),
]


def imported(path):
    """Every module a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_the_page_names_every_file_and_no_other():
    named = set(re.findall(r"[\w]+\.py\b", PAGE))
    there = {path.name for path in MODULES}
    assert named - there == set()
    listed = [
        path
        for path in MODULES
        if path.name != "__init__.py" and not str(path.relative_to(ROOT)).startswith(NAMED_AS_A_WHOLE)
    ]
    assert {path.name for path in listed} - named == set()


@pytest.mark.parametrize(("where", "pattern"), FORBIDDEN)
def test_imports_follow_the_arrows(where, pattern):
    inside = [path for path in MODULES if str(path.relative_to(ROOT)).startswith(where)]
    assert inside
    wrong = [(path.name, name) for path in inside for name in imported(path) if re.match(pattern, name)]
    assert wrong == []


def folders(package):
    """The folders right below a package that hold modules."""
    return {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


def test_the_drawing_names_the_packages_folders_and_no_others():
    drawn = set(re.findall(r'class="folder"[^>]*>([^<]+)/</text>', DRAWING))
    assert drawn == {f"{package}/{name}" for package in PACKAGES for name in folders(package)}
    assert drawing() == DRAWING, "run python -m experiments.architecture_drawing"


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_follow_the_drawing_downwards(package):
    row_of = {name: row for row, names in enumerate(PACKAGES[package]) for name in names}
    for path in (ROOT / package).rglob("*/*.py"):
        own = path.relative_to(ROOT / package).parts[0]
        for name in imported(path):
            _, _, rest = name.partition(f"{package}.")
            other = rest.partition(".")[0]
            if name.startswith(f"{package}.") and other in row_of and other != own:
                assert row_of[other] > row_of[own], f"{path} imports {name}"
