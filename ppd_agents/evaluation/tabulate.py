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

CHANGES = (("clean", "ideal"), ("matching", "matching"))
"""Kinds of rows in which nothing was attacked, and the row each starts from."""


class View:
    """One set of scenes under one budget, with the draws for all of its scenes and for the oracles'.

    Args:
        found: What was played.
        config: What was measured.
        budget: Number of attack actions.

    Attributes:
        first: Row -> Dice (seeds, F) in percent on the oracles' scenes.
        every: Row -> Dice (seeds, S) in percent, but for the oracles.
        part: The draws over the oracles' scenes.
        whole: The draws over all scenes.
    """

    def __init__(self, found: Measurements, config: EvaluationConfig, budget: int) -> None:
        self.found, self.budget = found, budget
        groups = found.bank.groups
        self.few = min(config.oracle_scenes, len(groups))
        self.whole, self.part = (
            _draw(groups[:count], found.seeds, config) for count in (len(groups), self.few)
        )
        self.first = {row: found.dice(row, budget, self.few) for row in found.rows}
        self.every = {row: found.dice(row, budget) for row in found.rows if not _few(row)}

    def sight(self, row: str) -> tuple[Mapping[str, np.ndarray], Bootstrap]:
        """Return Dice and draws on the scenes that ``row`` was played on."""
        return (self.first, self.part) if _few(row) else (self.every, self.whole)


def tabulate(found: Measurements, config: EvaluationConfig) -> dict[str, Table]:
    """Turn measurements into ``{BUDGET: {ROW: {...}}}`` with ``way``, ``recovery`` and ``clean_change``.

    Next to the rows stand ``way`` and ``recovery``: ``{"value", "ci", "n", "per_seed", "paired"}``, and
    ``clean_change``: ``{"value", "ci", "n"}``, what the defender does to clean prompts in points of Dice. The
    last two also give those of every other defence under ``"controls"``. Where one-shot prompts were
    measured, ``matching_change`` is what the defender does to them.
    """
    return {str(budget): _table(View(found, config, budget)) for budget in config.budgets}


def _table(view: View) -> Table:
    found, budget = view.found, view.budget
    table: Table = {
        row: summarise(found.dice(row, budget), found.iou(row, budget), view.sight(row)[1])
        for row in found.rows
    }
    table["way"] = way(view.first, view.part)
    table["recovery"] = recovery(*view.sight("defence.learned"))
    table["recovery"]["controls"] = {
        row: recovery(*view.sight(row), row) for row in controls(found, "defence")
    }
    for kind, start in CHANGES:
        if f"{kind}.learned" in found.rows:
            table[f"{kind}_change"] = change(view.every, (f"{kind}.learned", start), view.whole)
            table[f"{kind}_change"]["controls"] = {
                row: change(view.every, (row, start), view.whole) for row in controls(found, kind)
            }
    return table


def controls(found: Measurements, kind: str) -> list[str]:
    """Return the rows of a kind but the learned one."""
    return [row for row in found.rows if row.startswith(f"{kind}.") and row != f"{kind}.learned"]


def _few(row: str) -> bool:
    return row.endswith(".oracle")


def _draw(groups: Sequence[str], seeds: int, config: EvaluationConfig) -> Bootstrap:
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    return Bootstrap.draw(groups, seeds, rng, config.resamples, config.confidence)
