"""The tables of a result file for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppd_agents.report.summary import ROW_NAMES, interval, is_row, percent, ratio, ratio_interval


def text_tables(result: Mapping[str, Any]) -> str:
    """Write every table of a result as lines of fixed width."""
    lines: list[str] = []
    for uri, budgets in result["results"].items():
        for budget, table in budgets.items():
            lines += [
                "",
                f"{uri}, {budget} attack actions",
                f"{'':26}{'mDSC':>6}{'':18}{'mIoU':>6}{'':18}{'n':>5}",
            ]
            for name, row in table.items():
                if is_row(row):
                    label = ROW_NAMES.get(name, (name,))[0]
                    lines.append(
                        f"{label:26}{percent(row['mdsc']):>6}{_in_brackets(row['mdsc_ci'])}"
                        f"{percent(row['miou']):>6}{_in_brackets(row['miou_ci'])}{row['n']:>5}"
                    )
            for name in ("way", "recovery"):
                if name in table:
                    ends = ratio_interval(table[name]) or "the attack did too little harm"
                    lines.append(f"{name:26}{ratio(table[name]['value']):>6} ({ends})")
            if "clean_change" in table:
                clean = table["clean_change"]
                ends = interval(clean["ci"])
                lines.append(f"{'change of clean prompts':26}{percent(clean['value']):>6} ({ends})")
    return "\n".join(lines)


def _in_brackets(ends: list[float]) -> str:
    return f" ({interval(ends)})".ljust(18)
