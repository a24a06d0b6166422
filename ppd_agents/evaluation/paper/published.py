"""What papers report in these tables: data with its source, printed beside what is measured."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

_FILE = "published.json"


def published(table: int) -> list[dict[str, Any]]:
    """Return the published versions of a table.

    Args:
        table: 1 or 2.

    Returns:
        One entry per source: ``{"name", "table", "paper", "where", "models", "protocol", "rows": {ROW: {SET:
        {"mdsc", "miou"}}}}``, percent as printed there. The names of sets are the paper's own.
    """
    text = (files("ppd_agents.evaluation.paper") / _FILE).read_text(encoding="utf-8")
    return [_named(entry) for entry in json.loads(text) if entry["table"] == table]


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    """Name the numbers of every cell."""
    names = entry["percent"]
    rows = {
        row: {place: dict(zip(names, numbers, strict=True)) for place, numbers in cells.items()}
        for row, cells in entry["rows"].items()
    }
    return {**{key: value for key, value in entry.items() if key != "percent"}, "rows": rows}
