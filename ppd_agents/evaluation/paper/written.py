"""A table's result as Markdown, LaTeX and CSV, and the four files that hold it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppd_agents.evaluation.paper.layout import Grid, grids, rows_of
from ppd_env.whole_files import write_in_one_rename, write_json

_COLUMNS = (
    "kind",
    "scenes",
    "budget",
    "row",
    "n",
    *(f"{name}{end}" for name in ("mdsc", "miou", "hd95") for end in ("", "_low", "_high")),
    *(f"pooled_{name}{end}" for name in ("dice", "iou") for end in ("", "_low", "_high")),
    *(f"reference_sd_{name}" for name in ("mdsc", "miou", "hd95")),
    "references",
    "prompts",
    "source",
)

_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def write_table(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a table's four files, ``table-1.json``, ``.csv``, ``.tex`` and ``.md``.

    Args:
        result: What ``measure_table`` returned.
        folder: Made where it does not exist.

    Returns:
        Their paths.
    """
    name = f"table-{result['table']}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json"]
    write_json(paths[0], result)
    for ending, text in (("csv", to_csv(result)), ("tex", to_latex(result)), ("md", to_markdown(result))):
        path = folder / f"{name}.{ending}"
        write_in_one_rename(path, text.encode())
        paths.append(path)
    return paths


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return a result as a Markdown page."""
    parts = [f"`{result['command']}`\n"] if result["command"] else []
    return "\n".join([*parts, *(markdown_grid(grid) for grid in grids(result))])


def markdown_grid(grid: Grid) -> str:
    """Return one grid as Markdown."""
    lines = [grid.header, ["---"] + ["---:"] * (len(grid.header) - 1), *grid.rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
    notes = "".join(f"\n{note}\n" for note in grid.notes)
    return f"### {grid.title}\n\n{table}\n{notes}"


def to_latex(result: Mapping[str, Any]) -> str:
    """Return a result as LaTeX floats, for documents that load ``booktabs``."""
    head = "% Needs \\usepackage{booktabs,graphicx}. " + f"Made by: {result['command']}\n"
    return head + "\n".join(_latex_grid(grid) for grid in grids(result))


def _latex_grid(grid: Grid) -> str:
    caption = " ".join([f"{_escaped(grid.title)}.", *(_escaped(note) for note in grid.notes)])
    body = "\n".join(" & ".join(_escaped(cell) for cell in row) + r" \\" for row in grid.rows)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
            r"\toprule",
            " & ".join(_escaped(head) for head in grid.header) + r" \\",
            r"\midrule",
            body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def to_csv(result: Mapping[str, Any]) -> str:
    """Return a result as CSV: a line for each row, difference and published cell, told apart by ``kind``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_lines(result))
    return text.getvalue()


def _lines(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for scenes, tables in result["results"].items():
        for budget, table in tables.items():
            where = {"scenes": scenes, "budget": budget}
            for row in rows_of(table):
                yield {"kind": "measured", **where, "row": row, **_cells(table[row])}
            for pair, measures in table["differences"].items():
                cells = {name: one["value"] for name, one in measures.items()}
                for name, one in measures.items():
                    cells |= _ends(name, one["ci"])
                yield {"kind": "difference", **where, "row": pair, "n": measures["mdsc"]["n"], **cells}
    for source in result["published"]:
        for row, places in source["rows"].items():
            for place, cell in places.items():
                yield {"kind": "published", "scenes": place, "row": row, **cell, "source": source["name"]}


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = {name: row[name] for name in ("n", "mdsc", "miou", "hd95", "prompts")}
    for name in ("mdsc", "miou", "hd95"):
        cells |= _ends(name, row[f"{name}_ci"])
        if row["reference_sd"] is not None:
            cells[f"reference_sd_{name}"] = row["reference_sd"][name]
    for name in ("dice", "iou"):
        cells[f"pooled_{name}"] = row["pooled"][name]
        cells |= _ends(f"pooled_{name}", row["pooled"][f"{name}_ci"])
    return {**cells, "references": len(row["per_seed"])}


def _ends(name: str, interval: list[float]) -> dict[str, float]:
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}
