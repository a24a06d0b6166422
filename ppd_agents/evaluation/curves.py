"""Robustness curves: Dice against the share of corrupted prompts, and against the budget of an attack.

A curve begins at 0 with the ideal prompts. Its areas are mean heights (``metrics.area_under_curve``), so that
they are Dice in percent too; areas, differences and ratios are paired as in the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from ppd_agents.evaluation.cleaners import cleaners
from ppd_agents.evaluation.rollouts import Policy
from ppd_agents.evaluation.rows import Row, Turn, control_rows, corruption_rows
from ppd_agents.evaluation.scoring import Measurements
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.evaluation.statistics import Bootstrap, paired_ratio, summarise
from ppd_agents.evaluation.tabulate import View
from ppd_env.errors import ConfigError
from ppd_env.metrics import area_under_curve
from ppd_env.prompting.corruption import CORRUPTIONS

Kind = Literal["corruption", "attack"]

UNITS = {"corruption": "corrupted prompts (%)", "attack": "attack actions"}
"""What the points of a kind of curve count."""

LEARNED = "learned"
"""Who defends besides the rules without learning."""

IDEAL = "ideal"


class Line(NamedTuple):
    """One defended curve.

    Attributes:
        row: The row it is read from.
        zero: The row its first point, at 0, is read from.
    """

    row: str
    zero: str


@dataclass(frozen=True)
class Harm:
    """One way in which prompts go wrong more and more, and who mends them.

    Args:
        name: ``wrong_sign``, ``jitter``, ``spurious``, ``dropped``, ``random`` or ``learned``.
        row: The row of the prompts that went wrong.
        lines: Who mends -> the curve afterwards.
    """

    name: str
    row: str
    lines: Mapping[str, Line] = field(default_factory=dict)


@dataclass(frozen=True)
class CurvePlan:
    """What is played for one kind of curves.

    Args:
        kind: Which.
        rules: Rules without learning that defend as well (``cleaners.cleaners``).
        free: Every defence takes away as many prompts as it likes, as where nobody knows what went wrong;
            otherwise as many as there were attack actions, as in the tables. Corruption is always free.
    """

    kind: Kind
    rules: tuple[str, ...] = ("subsample", "outlier", "neighbours")
    free: bool = False

    def __post_init__(self) -> None:
        """Refuse rules nobody knows.

        Raises:
            ConfigError: There is no such rule.
        """
        known = cleaners("jittered")
        for rule in self.rules:
            if rule not in known:
                raise ConfigError(f"Unknown rule {rule!r}; known ones: {', '.join(known)}.")

    @property
    def endless(self) -> bool:
        """Whether defences are free to take away what they like."""
        return self.free or self.kind == "corruption"

    def harms(self) -> tuple[Harm, ...]:
        """Return every way of going wrong of this kind, with its rows."""
        if self.kind == "corruption":
            rows = {name: (f"corrupted.{name}", name) for name in CORRUPTIONS}
        else:
            rows = {"random": ("attack.random", "random"), LEARNED: ("attack.learned", "defence")}
        return tuple(
            Harm(name, row, {who: Line(f"{prefix}.{who}", self._zero(who)) for who in self._defenders()})
            for name, (row, prefix) in rows.items()
        )

    def rows(self, attacker: Policy, defender: Policy, config: EvaluationConfig) -> dict[str, Row]:
        """Declare the rows, each after the one it starts from.

        Args:
            attacker: Learned attacker; it must ignore the horizon, since its longest attack serves all
                budgets.
            defender: Learned defender.
            config: What is measured; its budgets are the points of the curves but 0.
        """
        known = control_rows(attacker, defender, {}, config)
        rows = {IDEAL: known[IDEAL]}
        if self.endless:
            rows |= {self._zero(who): self._defence(known, IDEAL, who) for who in self._defenders()}
        harmful = corruption_rows() if self.kind == "corruption" else known
        for harm in self.harms():
            rows[harm.row] = harmful[harm.row]
            rows |= {line.row: self._defence(known, harm.row, who) for who, line in harm.lines.items()}
        return rows

    def _defenders(self) -> tuple[str, ...]:
        return (LEARNED, *self.rules)

    def _zero(self, who: str) -> str:
        return f"clean.{who}" if self.endless else IDEAL

    def _defence(self, known: Mapping[str, Row], start: str, who: str) -> Row:
        row = known[f"defence.{who}"]
        assert isinstance(row, Turn)
        return replace(row, start=start, endless=self.endless)


def tabulate_curves(
    found: Measurements, plan: CurvePlan, config: EvaluationConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Turn measurements on one set of scenes into points and curves.

    Args:
        found: What ``plan.rows`` brought.
        plan: The plan.
        config: What was measured.

    Returns:
        The points, ``{POINT: {ROW: {...}}}`` as in every result file, where the rows of defences also hold
        their ``"recovery"``; and the curves, ``{HARM: {"at", "unit", "row", "zero", "area", "area_ci",
        "lines": {WHO: {"row", "zero", "area", "area_ci", "recovery"}}}}``, where ``recovery`` is that of the
        area.
    """
    draws = View(found, config, config.budgets[0]).sight(IDEAL)[1]
    points: dict[str, Any] = {"0": {}} | {str(point): {} for point in config.budgets}
    curves = {}
    for harm in plan.harms():
        curve = _Curve(found, config, draws, Line(harm.row, IDEAL))
        curves[harm.name] = {"at": curve.at, "unit": UNITS[plan.kind], **curve.area(), "lines": {}}
        curve.enter(points)
        for who, line in harm.lines.items():
            mended = _Curve(found, config, draws, line)
            mended.enter(points, curve)
            curves[harm.name]["lines"][who] = mended.area(curve)
    return points, curves


class _Curve:
    """The heights of one line over all points, scene by scene."""

    def __init__(self, found: Measurements, config: EvaluationConfig, draws: Bootstrap, line: Line) -> None:
        self.line, self._draws = line, draws
        self.at = [0, *sorted(config.budgets)]
        rows = [line.zero] + [line.row] * len(config.budgets)
        self.dice = np.stack([found.dice(row, at) for row, at in zip(rows, self.at, strict=True)])
        self.iou = np.stack([found.iou(row, at) for row, at in zip(rows, self.at, strict=True)])

    def enter(self, points: dict[str, Any], harmed: _Curve | None = None) -> None:
        """Write every point into its table, with the recovery where ``harmed`` was mended."""
        for number, at in enumerate(self.at):
            name, table = self.line.row if at else self.line.zero, points[str(at)]
            if name not in table:  # several curves begin with one row
                table[name] = summarise(self.dice[number], self.iou[number], self._draws)
                if harmed is not None and at:
                    parts = (self.dice[number], harmed.dice[number], harmed.dice[0])
                    table[name]["recovery"] = self._recovery(harmed, *parts)

    def area(self, harmed: _Curve | None = None) -> dict[str, Any]:
        """Describe the area under the curve, and which share of the lost area it takes back."""
        heights = self.areas()
        entry = {
            **self.line._asdict(),
            "area": float(heights.mean()),
            "area_ci": self._draws.interval(self._draws.means(heights)),
        }
        if harmed is not None:
            entry["recovery"] = self._recovery(harmed, heights, harmed.areas(), harmed.dice[0])
        return entry

    def areas(self) -> np.ndarray:
        """Return the area of every scene, (seeds, scenes): an area is a weighted sum of the points."""
        weights = [area_under_curve(self.at, one) for one in np.eye(len(self.at)).tolist()]
        areas: np.ndarray = np.tensordot(weights, self.dice, axes=1)
        return areas

    def _recovery(
        self, harmed: _Curve, after: np.ndarray, before: np.ndarray, ideal: np.ndarray
    ) -> dict[str, Any]:
        """Return (after - before) / (ideal - before) of values (seeds, scenes), as ``paired_ratio`` does."""
        mine, theirs = self.line.row, harmed.line.row
        dice = {IDEAL: ideal, theirs: before, mine: after}
        return paired_ratio(dice, (mine, theirs, IDEAL, theirs), self._draws, harm=(IDEAL, theirs))
