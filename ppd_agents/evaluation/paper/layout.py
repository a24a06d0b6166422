"""A table's result as grids of text: the same content for Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LABELS = {
    "ideal": "Ideal prompts",
    "attack.learned": "Attack on ideal prompts",
    "defence.learned": "Defence against the attack",
    "matching": "Feature matching",
    "matching.learned": "Feature matching + PPD",
    "persam": "PerSAM",
    "persam_f": "PerSAM-F",
    "matcher": "Matcher",
    "vrp_sam": "VRP-SAM",
    "gbmseg": "GBMSeg",
    "ppo": "FM-PPO (predecessor)",
    "ours": "FM-PPD (ours)",
}
"""Row -> what it is called in print; other rows keep their names."""

NOTHING = "-"
"""Stands where nothing was measured, or nothing published."""

NOT_ROWS = ("differences", "recovery")
"""Entries beside the rows of a table."""


@dataclass(frozen=True)
class Grid:
    """One table of text.

    Args:
        title: What it shows.
        header: Heads of its columns; the first stands over the names of rows.
        rows: As many cells each.
        notes: Sentences below it.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def rows_of(table: Mapping[str, Any]) -> list[str]:
    """Return the rows of one set under one budget."""
    return [name for name in table if name not in NOT_ROWS]


def label(row: str) -> str:
    """Return what a row is called in print."""
    return LABELS.get(row, row)


def grids(result: Mapping[str, Any]) -> Iterator[Grid]:
    """Lay a result out: for each budget the paper's own table, then every set in detail.

    Args:
        result: What ``measure_table`` returned.

    Yields:
        The grids from the top of the page to its end.
    """
    budgets = list(next(iter(result["results"].values())))
    for budget in budgets:
        yield overview(result, budget)
        for name in result["results"]:
            yield details(result, name, budget)
            yield differences(result, name, budget)


def overview(result: Mapping[str, Any], budget: str) -> Grid:
    """Lay out the paper's own table: Dice and IoU on every set, and beside them what was published."""
    results, sources = result["results"], result["published"]
    columns = [(source, place) for source in sources for place in _places(source)]
    header = ["Methods", *results, *(f"published: {place} [{_mark(sources, s)}]" for s, place in columns)]
    rows = []
    for row in _all_rows(result, budget):
        measured = [_pair(tables[budget].get(row)) for tables in results.values()]
        quoted = [_pair(source["rows"].get(row, {}).get(place)) for source, place in columns]
        rows.append([label(row), *measured, *quoted])
    notes = [
        f"Measured here: mDSC / mIoU in percent, means over images of the foreground at native size, with "
        f"{_models(result)}.",
        *(
            f"[{_mark(sources, source)}] Published, not measured here: {source['paper']}, {source['where']}. "
            f"Models: {source['models']}. Protocol: {source['protocol']}."
            for source in sources
        ),
        *result["config"]["notes"],
    ]
    if result["table"] == 2:
        notes.append("VRP-SAM is quoted only: its weights were not released.")
    return Grid(_title(result, budget), header, rows, notes)


def details(result: Mapping[str, Any], name: str, budget: str) -> Grid:
    """Lay out everything measured on one set."""
    table, confidence = result["results"][name][budget], result["config"]["confidence"]
    header = [
        "Methods",
        "mDSC %",
        "mIoU %",
        "HD95 px",
        "pooled Dice %",
        "pooled IoU %",
        "SD over references",
        "prompts",
    ]
    rows = []
    for row in rows_of(table):
        one, pooled = table[row], table[row]["pooled"]
        rows.append(
            [
                label(row),
                *(_number(one[key], one[f"{key}_ci"]) for key in ("mdsc", "miou", "hd95")),
                *(_number(pooled[key], pooled[f"{key}_ci"]) for key in ("dice", "iou")),
                NOTHING if one["reference_sd"] is None else f"{one['reference_sd']['mdsc']:.1f}",
                f"{one['prompts']:.1f}",
            ]
        )
    place = result["config"]["scene_sets"][name]
    repeated = max(len(table[row]["per_seed"]) for row in rows_of(table))
    classes = len(place["references"])
    many = f"{repeated} reference{'s' if repeated > 1 else ''}"
    note = (
        f"{place['n']} targets, {many}{f' for each of {classes} classes' if classes > 1 else ''}; intervals: "
        f"{100 * confidence:g} %, bootstrap over images (by photograph) and references."
    )
    return Grid(f"{name}{_attacked(result, budget)}", header, rows, [note])


def differences(result: Mapping[str, Any], name: str, budget: str) -> Grid:
    """Lay out the paired differences on one set."""
    found = result["results"][name][budget]["differences"]
    rows = []
    for pair, measures in found.items():
        after, _, before = pair.partition(" - ")
        cells = [
            _number(measures[key]["value"], measures[key]["ci"], "+") for key in ("mdsc", "miou", "hd95")
        ]
        rows.append([f"{label(after)} minus {label(before)}", *cells])
    header = ["Paired difference", "mDSC points", "mIoU points", "HD95 px"]
    return Grid(f"{name}{_attacked(result, budget)}: differences", header, rows, [])


def _all_rows(result: Mapping[str, Any], budget: str) -> list[str]:
    """Return the published rows in their order, then those that only we measured."""
    published = [row for source in result["published"] for row in source["rows"]]
    measured = [row for tables in result["results"].values() for row in rows_of(tables[budget])]
    return list(dict.fromkeys([*published, *measured]))


def _places(source: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(place for cells in source["rows"].values() for place in cells))


def _mark(sources: list[Any], source: Mapping[str, Any]) -> str:
    return str(sources.index(source) + 1)


def _title(result: Mapping[str, Any], budget: str) -> str:
    names = {1: "Table 1: attack, defence and feature matching", 2: "Table 2: one-shot methods"}
    return names[result["table"]] + _attacked(result, budget)


def _attacked(result: Mapping[str, Any], budget: str) -> str:
    return f", {budget} actions each" if result["table"] == 1 else ""


def _models(result: Mapping[str, Any]) -> str:
    config = result["config"]
    return f"segmenter {config['segmenter']}, features {config['features']}, grid {config['grid']}"


def _pair(cell: Mapping[str, float] | None) -> str:
    return NOTHING if cell is None else f"{cell['mdsc']:.1f} / {cell['miou']:.1f}"


def _number(value: float, interval: list[float], sign: str = "") -> str:
    low, high = (f"{end:{sign}.1f}" for end in interval)
    return f"{value:{sign}.1f} [{low}, {high}]"
