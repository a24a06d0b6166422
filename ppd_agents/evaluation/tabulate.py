"""Turns measurements into the tables of a result file, for one set of scenes or averaged over several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppd_agents.evaluation.scoring import Measurements
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.evaluation.statistics import Bootstrap, change, recovery, summarise, way

_BOOTSTRAP_SEED = 0

Table = dict[str, Any]

ORACLE = "attack.oracle"
"""The row that ``way`` is measured by."""

CHANGES = (("clean", "ideal"), ("matching", "matching"))
"""Kinds of rows in which nothing was attacked, and the row each starts from."""


class View:
    """One set of scenes under one budget: Dice of all rows, and draws, on what a chosen row was played on.

    Args:
        found: What was played.
        config: What was measured.
        budget: Number of attack actions.
    """

    def __init__(self, found: Measurements, config: EvaluationConfig, budget: int) -> None:
        self.found, self.config, self.budget = found, config, budget
        self._sights: dict[tuple[int, int], tuple[dict[str, np.ndarray], Bootstrap]] = {}

    def sight(self, row: str) -> tuple[Mapping[str, np.ndarray], Bootstrap]:
        """Return the Dice of all rows, (seeds, scenes) in percent, and the draws, where ``row`` was played.

        Rows that were played on fewer scenes or under fewer seeds are left out.
        """
        rows, groups = self.found.rows, self.found.bank.groups
        seeds, scenes = self._extent(row)
        if (seeds, scenes) not in self._sights:
            dice = {
                other: self.found.dice(other, self.budget, scenes)[:seeds]
                for other in rows
                if all(np.greater_equal(self._extent(other), (seeds, scenes)))
            }
            self._sights[seeds, scenes] = dice, _draw(groups[:scenes], seeds, self.config)
        return self._sights[seeds, scenes]

    def _extent(self, row: str) -> tuple[int, int]:
        """Return under how many seeds and on how many scenes a row was played."""
        scenes = len(self.found.bank.groups)
        return len(self.found.rows[row]), min(self.config.oracle_scenes, scenes) if _few(row) else scenes


def tabulate(found: Measurements, config: EvaluationConfig) -> dict[str, Table]:
    """Turn measurements into ``{BUDGET: {ROW: {...}}}`` with ``way``, ``recovery`` and ``clean_change``.

    Next to the rows stand ``recovery`` and, where the oracle attacked, ``way``: ``{"value", "ci", "n",
    "per_seed", "paired"}``, and ``clean_change``: ``{"value", "ci", "n"}``, what the defender does to clean
    prompts in points of Dice. Recovery and change also give those of every other defence under
    ``"controls"``. Where one-shot prompts were measured, ``matching_change`` is what the defender does to
    them.
    """
    return {str(budget): _table(View(found, config, budget)) for budget in config.budgets}


def _table(view: View) -> Table:
    found, budget = view.found, view.budget
    table: Table = {
        row: summarise(found.dice(row, budget), found.iou(row, budget), view.sight(row)[1])
        for row in found.rows
    }
    if ORACLE in found.rows:
        table["way"] = way(*view.sight(ORACLE))
    table["recovery"] = recovery(*view.sight("defence.learned"))
    table["recovery"]["controls"] = {
        row: recovery(*view.sight(row), row) for row in controls(found, "defence")
    }
    for kind, start in CHANGES:
        if f"{kind}.learned" in found.rows:
            table[f"{kind}_change"] = _change(view, f"{kind}.learned", start)
            table[f"{kind}_change"]["controls"] = {
                row: _change(view, row, start) for row in controls(found, kind)
            }
    return table


def _change(view: View, row: str, start: str) -> dict[str, Any]:
    dice, draws = view.sight(row)
    return change(dice, (row, start), draws)


def controls(found: Measurements, kind: str) -> list[str]:
    """Return the rows of a kind but the learned one."""
    return [row for row in found.rows if row.startswith(f"{kind}.") and row != f"{kind}.learned"]


def _few(row: str) -> bool:
    return row.endswith(".oracle")


def _draw(groups: Sequence[str], seeds: int, config: EvaluationConfig) -> Bootstrap:
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    return Bootstrap.draw(groups, seeds, rng, config.resamples, config.confidence)
