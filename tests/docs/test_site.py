"""The documentation site builds without a warning and fetches nothing from elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.demo_screenshot import find_chromium

ROOT = Path(__file__).parents[2]

needs_mkdocs = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings")),
    reason="the extra [docs] is not installed: make docs",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@needs_mkdocs
def test_every_page_is_in_the_navigation(site):
    start = (site / "index.html").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) >= 12
    for page in pages:
        if page.parts[0] != "examples":
            assert (site / page.with_suffix(".html")).exists(), page
            assert f'href="{page.with_suffix(".html")}"' in start, page


@needs_mkdocs
def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:link|script|img|iframe)[^>]+(?:href|src)="([^"]+)"', text)
        assert loaded
        assert [one for one in loaded if one.startswith(("http", "//"))] == [], path


@needs_mkdocs
@pytest.mark.parametrize("page", ["index", "reference/ppd_env"])
def test_pages_opened_from_a_folder_can_be_searched(site, page):
    api = pytest.importorskip("playwright.sync_api", reason="pip install '.[dev]'")
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium found: apt-get install chromium, or set CHROMIUM=PATH")
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page()
        shown.goto((site / f"{page}.html").as_uri())
        shown.locator(".md-search__input").click()
        shown.keyboard.type("jittered")
        found = shown.locator(".md-search-result__item a")
        found.first.wait_for(timeout=120_000)
        addresses = [one.get_attribute("href") for one in found.all()]
        browser.close()
    assert any(address.startswith((site / "game.html").as_uri()) for address in addresses)


@needs_mkdocs
def test_the_environment_page_is_the_docstring(site):
    text = (site / "environment.html").read_text(encoding="utf-8")
    assert "<code>edge_index</code>" in text
    assert "Version History" in text
    assert "edge_index" not in (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")


def test_snippets_of_the_pages_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    for page, count in (("quick_start.md", 2), ("methods.md", 1)):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert len(snippets) == count
        for number, snippet in enumerate(snippets):
            exec(compile(snippet, f"{page}, snippet {number}", "exec"), {"__name__": "snippet"})
            assert capsys.readouterr().out


def test_pages_name_every_back_end():
    from ppd_env.features import registry as features
    from ppd_env.segmenters import registry as segmenters

    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    for scheme in {*features.LOADERS, *segmenters.LOADERS}:
        assert re.search(rf"^\| `{scheme}[`:]", page, re.MULTILINE), scheme


def test_pages_name_every_method():
    from ppd_agents.evaluation.cleaners import cleaners
    from ppd_agents.methods.registry import METHODS

    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for name in {*cleaners("jittered"), "graph_statistics", "maskable_ppo", "random", "oracle"}:
        assert f"`defence.{name}`" in methods, name
    one_shot = (ROOT / "docs" / "one_shot.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in one_shot for name in METHODS)
