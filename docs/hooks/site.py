"""What the documentation site does beside MkDocs: the navigation may hold patterns such as ``tables*.md``."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig


def named(entries: list[Any]) -> set[str]:
    """Return the pages that a navigation names outright."""
    found: set[str] = set()
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found |= named(value) if isinstance(value, list) else {value}
    return {page for page in found if "*" not in page}


def expand(entries: list[Any], pages: list[str], taken: set[str]) -> list[Any]:
    """Put pages in the place of patterns.

    Args:
        entries: A navigation, or a section of one.
        pages: All pages.
        taken: Those that have their place; what is placed here is added.

    Returns:
        The navigation without patterns, and without sections that would be empty.
    """
    out: list[Any] = []
    for entry in entries:
        if isinstance(entry, str) and "*" in entry:
            fitting = [page for page in pages if fnmatch(page, entry) and page not in taken]
            taken.update(fitting)
            out += fitting
        elif isinstance(entry, dict) and isinstance(next(iter(entry.values())), list):
            out += [{title: inside} for title, old in entry.items() if (inside := expand(old, pages, taken))]
        else:
            out.append(entry)
    return out


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the patterns of the navigation."""
    pages = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    navigation = config.nav or []
    config.nav = expand(navigation, pages, named(navigation))
    return config
