"""The tables of a result file for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ppd_agents.report.summary import ROW_NAMES, interval, is_row, percent, ratio, ratio_interval

_CHANGES = {"clean_change": "change of clean prompts", "matching_change": "change of matching"}


def text_tables(result: Mapping[str, Any]) -> str:
    """Write every table of a result as lines of fixed width: its own, its averages', its sections'."""
    lines = list(_block(result))
    for name, section in result.get("sections", {}).items():
        lines += ["", f"== {name} ==", *_block(section)]
    return "\n".join(lines)


def _block(part: Mapping[str, Any]) -> Iterator[str]:
    for uri, budgets in part["results"].items():
        yield from _tables(uri, budgets)
    for name, budgets in part.get("averages", {}).items():
        yield from _tables(f"mean over {name}", budgets)


def _tables(title: str, budgets: Mapping[str, Any]) -> Iterator[str]:
    for budget, table in budgets.items():
        yield from ("", f"{title}, {budget} attack actions")
        yield f"{'':26}{'mDSC':>6}{'':18}{'mIoU':>6}{'':18}{'n':>5}"
        for name, row in table.items():
            if is_row(row):
                yield (
                    f"{_label(name):26}{percent(row['mdsc']):>6}{_in_brackets(row['mdsc_ci'])}"
                    f"{percent(row['miou']):>6}{_in_brackets(row['miou_ci'])}{row['n']:>5}"
                )
        for name in ("way", "recovery"):
            if name in table:
                yield from _ratios(name, table[name])
        for name, label in _CHANGES.items():
            if name in table:
                yield from _changes(label, table[name])


def _ratios(label: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Write a ratio and, indented, those of the controls."""
    ends = ratio_interval(entry) or "the attack did too little harm"
    yield f"{label:26}{ratio(entry['value']):>6} ({ends})"
    for name, control in entry.get("controls", {}).items():
        yield from _ratios(f"  {_label(name)}", control)


def _changes(label: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Write a difference and, indented, those of the controls."""
    yield f"{label:26}{percent(entry['value']):>6} ({interval(entry['ci'])})"
    for name, control in entry.get("controls", {}).items():
        yield from _changes(f"  {_label(name)}", control)


def _label(name: str) -> str:
    return ROW_NAMES.get(name, (name,))[0]


def _in_brackets(ends: list[float]) -> str:
    return f" ({interval(ends)})".ljust(18)
