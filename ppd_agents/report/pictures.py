"""Pictures of robustness: curves and matrices as PNG and SVG, drawn by matplotlib without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppd_env.whole_files import write_in_one_rename

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")

TITLES = {
    "wrong_sign": "Wrong signs",
    "jitter": "Moved prompts",
    "spurious": "Added random prompts",
    "dropped": "Dropped prompts",
    "random": "Random attack",
    "learned": "Learned attack",
}
"""Ways of going wrong, in words."""

_UNDEFENDED = ("#D55E00", "-", "o")
_LEARNED = ("#0072B2", "-", "s")
_RULES = (("#009E73", "--", "^"), ("#CC79A7", "-.", "v"), ("#7F7F7F", ":", "D"), ("#E69F00", "--", "P"))
"""Colours that stay apart for colour-blind eyes (Okabe and Ito, 2008), with dashes and marks for print."""


def curve_picture(curves: Mapping[str, Any], points: Mapping[str, Any], title: str) -> Figure:
    """Draw one panel for each way in which prompts went wrong.

    Args:
        curves: Of one set of scenes, as ``curves.tabulate_curves`` gives them.
        points: Likewise.
        title: What they were measured on.

    Returns:
        The figure; bands are bootstrap intervals.
    """
    from matplotlib.figure import Figure

    rows = -(-len(curves) // 2)
    figure = Figure(figsize=(9.0, 0.9 + 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, sharey=True, squeeze=False).ravel()
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        ideal = points["0"]["ideal"]["mdsc"]
        axis.axhline(ideal, color="#000000", linewidth=0.8, linestyle=(0, (1, 2)), label="ideal prompts")
        _line(axis, curve, curve, points, "not defended", _UNDEFENDED)
        rules = iter(_RULES * len(curve["lines"]))
        for who, line in curve["lines"].items():
            look = _LEARNED if who == "learned" else next(rules)
            _line(axis, curve, line, points, "learned defender" if who == "learned" else who, look)
        axis.set_title(TITLES[name], loc="left", fontsize=11)
        axis.set_xlabel(curve["unit"])
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[::2]:
        axis.set_ylabel("Dice (%)")
    figure.suptitle(title, fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
    return figure


def _line(
    axis: Axes,
    curve: Mapping[str, Any],
    line: Mapping[str, Any],
    points: Mapping[str, Any],
    label: str,
    look: tuple[str, str, str],
) -> None:
    """Draw one line, and the band of its intervals unless it is a rule's: many bands hide each other."""
    colour, dashes, mark = look
    cells = [points[str(at)][line["row"] if at else line["zero"]] for at in curve["at"]]
    heights = [cell["mdsc"] for cell in cells]
    axis.plot(curve["at"], heights, color=colour, linestyle=dashes, marker=mark, markersize=4, label=label)
    if look in (_UNDEFENDED, _LEARNED):
        low, high = zip(*(cell["mdsc_ci"] for cell in cells), strict=True)
        axis.fill_between(curve["at"], low, high, color=colour, alpha=0.12, linewidth=0)


def matrix_picture(matrices: Mapping[str, Any], title: str) -> Figure:
    """Draw the drops of Dice and the recoveries of every attack as matrices.

    Args:
        matrices: ``{ATTACK: {FROM: {TO: {...}}}}`` as ``transfer.tabulate_transfer`` gives them for a budget.
        title: What they were measured on.
    """
    from matplotlib.figure import Figure

    names = list(next(iter(matrices.values())))
    side = 1.3 + 0.9 * len(names)
    figure = Figure(figsize=(2 * side + 1.2, len(matrices) * side + 0.8), layout="constrained")
    axes = figure.subplots(len(matrices), 2, squeeze=False)
    for pair, (attack, matrix) in zip(axes, matrices.items(), strict=True):
        _matrix(pair[0], matrix, names, "drop", f"{attack} attack: points of Dice lost", ("Oranges", 0, 100))
        _matrix(pair[1], matrix, names, "recovery", "share of the loss taken back", ("Blues", 0, 1))
    figure.suptitle(title, fontsize=11)
    return figure


def _matrix(
    axis: Axes,
    matrix: Mapping[str, Any],
    names: Sequence[str],
    key: str,
    title: str,
    scale: tuple[str, float, float],
) -> None:
    """Draw one matrix; a cell without a meaning stays empty."""
    colours, low, high = scale
    cells = [[matrix[home][to][key] for to in names] for home in names]
    values = [[float("nan") if cell["value"] is None else cell["value"] for cell in row] for row in cells]
    axis.imshow(values, cmap=colours, vmin=low, vmax=high)
    digits = 1 if key == "drop" else 2
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            if cell["value"] is not None:
                ends = " to ".join(f"{end:.{digits}f}" for end in cell["ci"])
                dark = cell["value"] > low + 0.6 * (high - low)
                colour = "white" if dark else "black"
                text = f"{cell['value']:.{digits}f}\n({ends})"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    short = [_short(name) for name in names]
    axis.set_xticks(range(len(names)), short, rotation=30, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), short, fontsize=8)
    axis.set_xlabel("decoded by")
    axis.set_ylabel("attacked on")
    axis.set_title(title, fontsize=10)


def _short(models: str) -> str:
    """Name models by their scheme and the last part of a path."""
    scheme, colon, path = models.partition(":")
    return f"{scheme}{colon}{path.rsplit('/', 1)[-1]}"


def save_picture(figure: Figure, path: Path) -> list[Path]:
    """Write a figure in every one of ``FORMATS``, without dates, so that equal figures are equal files.

    Args:
        figure: The figure.
        path: Where to, without a suffix.

    Returns:
        The files.
    """
    from matplotlib import rc_context

    written = []
    for kind in FORMATS:
        content = BytesIO()
        with rc_context({"svg.hashsalt": "ppd"}):
            figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_in_one_rename(written[-1], content.getvalue())
    return written
