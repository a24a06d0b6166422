"""Charts as inline SVG without scripts; colours are CSS variables, so they follow light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

WIDTH, HEIGHT = 560, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40
SMOOTH_FROM = 40
"""A series with at least this many points is drawn faintly, with its running mean on top."""


@dataclass(frozen=True)
class Curve:
    """A line chart.

    Args:
        title: What is shown, as a short heading.
        x_label: Meaning and unit of the horizontal axis.
        y_label: Meaning and unit of the vertical axis.
        series: Name -> (x values, y values) of equal length; values that are not finite are left out.
        note: One sentence on how to read it.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    note: str = ""


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart.

    Args:
        label: Name of the row.
        value: Estimate, in the unit of the axis.
        low: Lower end of its interval.
        high: Upper end of its interval.
        kind: CSS class that colours it.
        note: Text shown when the pointer rests on it.
    """

    label: str
    value: float
    low: float
    high: float
    kind: str = "plain"
    note: str = field(default="")


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round values that cover [low, high]."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def tick_text(value: float) -> str:
    """Write an axis value shortly: 1500 -> 1.5k."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean over the last ``window`` values at each point, (n,)."""
    totals = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((totals[ends] - totals[starts]) / (ends - starts))


@dataclass(frozen=True)
class _Axes:
    """Linear axes of a line chart in SVG units."""

    x_ticks: list[float]
    y_ticks: list[float]

    def x(self, value: np.ndarray | float) -> np.ndarray:
        share = (np.asarray(value, float) - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: np.ndarray | float) -> np.ndarray:
        share = (np.asarray(value, float) - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def draw(self, x_label: str, y_label: str) -> list[str]:
        parts = []
        for tick in self.y_ticks:
            y = float(self.y(tick))
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{tick_text(tick)}</text>"
            )
        for tick in self.x_ticks:
            parts.append(
                f'<text class="tick" x="{float(self.x(tick)):.1f}" y="{HEIGHT - BOTTOM + 18}" '
                f'text-anchor="middle">{tick_text(tick)}</text>'
            )
        middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text class="axis" x="{middle_x}" y="{HEIGHT - 4}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
        )
        parts.append(
            f'<text class="axis" transform="translate(12 {middle_y}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )
        return parts


def _path(axes: _Axes, x: np.ndarray, y: np.ndarray, css: str, width: float) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(axes.x(x), axes.y(y), strict=True))
    return f'<polyline class="{css}" points="{points}" style="stroke-width:{width}"/>'


def line_chart(curve: Curve) -> str:
    """Draw ``curve`` as an SVG element; its legend is ``legend(curve)``."""
    cleaned = {}
    for name, (xs, ys) in curve.series.items():
        x, y = np.asarray(xs, float), np.asarray(ys, float)
        keep = np.isfinite(x) & np.isfinite(y)
        if keep.any():
            cleaned[name] = (x[keep], y[keep])
    if not cleaned:
        return '<p class="muted">Nothing was recorded.</p>'
    every_x, every_y = (np.concatenate([pair[axis] for pair in cleaned.values()]) for axis in (0, 1))
    axes = _Axes(
        nice_ticks(float(every_x.min()), float(every_x.max()), 6),
        nice_ticks(float(every_y.min()), float(every_y.max()), 5),
    )
    parts = axes.draw(curve.x_label, curve.y_label)
    for number, name in enumerate(curve.series):
        if name not in cleaned:
            continue
        x, y = cleaned[name]
        if len(x) >= SMOOTH_FROM:
            parts.append(_path(axes, x, y, f"line s{number} faint", 1))
            y = running_mean(y, max(3, len(y) // 20))
        parts.append(_path(axes, x, y, f"line s{number}", 2.2))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(curve.title)}">'
        + "".join(parts)
        + "</svg>"
    )


def legend(curve: Curve) -> str:
    """Return the legend of ``curve`` as HTML; empty for a single series."""
    if len(curve.series) < 2:
        return ""
    entries = (f'<span><i class="s{k}"></i>{escape(name)}</span>' for k, name in enumerate(curve.series))
    return f'<div class="legend">{"".join(entries)}</div>'


def interval_chart(rows: Sequence[Interval], label: str, low: float = 0.0, high: float = 100.0) -> str:
    """Draw estimates with their intervals, one row each, on a common axis.

    Args:
        rows: Top to bottom.
        label: Meaning and unit of the axis.
        low: Left end of the axis.
        high: Right end of the axis.
    """
    left, right, step, top = 200, 52, 40, 8
    bottom = top + step * len(rows)

    def place(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return left + share * (WIDTH - left - right)

    parts = []
    for tick in nice_ticks(low, high, 5):
        x = place(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick_text(tick)}</text>'
        )
    for number, row in enumerate(rows):
        y = top + step * (number + 0.5)
        parts.append(
            f'<g class="{row.kind}"><title>{escape(row.note)}</title>'
            f'<text class="name" x="{left - 14}" y="{y + 4.5:.1f}" text-anchor="end">'
            f"{escape(row.label)}</text>"
            f'<line class="stem" x1="{place(low):.1f}" x2="{place(row.value):.1f}" y1="{y}" y2="{y}"/>'
            f'<line class="whisker" x1="{place(row.low):.1f}" x2="{place(row.high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{place(row.value):.1f}" cy="{y}" r="6"/>'
            f'<text class="value" x="{WIDTH - 4}" y="{y + 5:.1f}" text-anchor="end">'
            f"{row.value:.1f}</text></g>"
        )
    axis = f'<text class="axis" x="{(left + WIDTH - right) / 2}" y="{bottom + 36}" text-anchor="middle">'
    parts.append(axis + f"{escape(label)}</text>")
    return (
        f'<svg class="chart intervals" viewBox="0 0 {WIDTH} {bottom + 44}" role="img" '
        f'aria-label="{escape(label)}">' + "".join(parts) + "</svg>"
    )
