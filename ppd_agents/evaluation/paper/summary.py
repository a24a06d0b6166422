"""Turns the scores of a table into its result: means, intervals, differences, and what others published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppd_agents.evaluation.paper.config import TableConfig
from ppd_agents.evaluation.paper.playing import Played
from ppd_agents.evaluation.paper.scores import measure
from ppd_agents.evaluation.statistics import Bootstrap, change, recovery, summarise
from ppd_env.metrics import dice_of, iou_of

NO_BUDGET = "0"
"""Key of Table 2, in which nothing is attacked."""

DIFFERENCES = (
    ("attack.learned", "ideal"),
    ("defence.learned", "attack.learned"),
    ("matching.learned", "matching"),
)
"""Table 1: pairs of rows of which the second is taken from the first."""

_BOOTSTRAP_SEED = 0
_MEASURES = {"mdsc": "dice", "miou": "iou", "hd95": "hd95"}


def tabulate_set(played: Played, config: TableConfig) -> dict[str, Any]:
    """Return ``{BUDGET: {ROW: {...}, "differences": {...}}}`` of one set.

    A row holds ``mdsc``, ``miou`` (percent, means over images) and ``hd95`` (pixels, mean over images), each
    with its interval ``..._ci``; ``pooled`` with ``dice`` and ``iou`` (percent, over all pixels of the set)
    and their intervals; ``prompts``, their mean number; ``n`` images; ``per_seed``, the means under each
    reference; ``reference_sd``, their standard deviation, null where there is one. A difference ``"a - b"``
    holds ``{"value", "ci", "n"}`` of the paired difference for each measure. Table 1 also has ``recovery``.
    """
    budgets = [str(budget) for budget in config.budgets] if config.table == 1 else [NO_BUDGET]
    return {budget: _table(_rows(played, budget, config), played.groups, config) for budget in budgets}


def _rows(played: Played, budget: str, config: TableConfig) -> dict[str, np.ndarray]:
    """Return the rows of a budget by their plain names; those of Table 2 are URIs, and have no budget."""
    if config.table == 2:
        return dict(played.scores)
    found = {}
    for name, scores in played.scores.items():
        row, _, of = name.rpartition("@")
        if not row:
            found[name] = scores
        elif of == budget:
            found[row] = scores
    return found


def _table(rows: Mapping[str, np.ndarray], groups: Sequence[str], config: TableConfig) -> dict[str, Any]:
    draws = {
        count: Bootstrap.draw(
            groups,
            count,
            np.random.default_rng(_BOOTSTRAP_SEED),
            config.resamples,
            config.confidence,
        )
        for count in {len(scores) for scores in rows.values()}
    }
    ordered = {name: rows[name] for name in _order(config) if name in rows}
    table: dict[str, Any] = {
        name: summarise_row(scores, draws[len(scores)]) for name, scores in ordered.items()
    }
    pairs = DIFFERENCES if config.table == 1 else [("ours", row) for row in rows if row != "ours"]
    table["differences"] = {
        f"{a} - {b}": {
            name: change({row: measure(rows[row], column) for row in (a, b)}, (a, b), draws[len(rows[a])])
            for name, column in _MEASURES.items()
        }
        for a, b in pairs
        if a in rows and b in rows
    }
    if config.table == 1:
        single = {row: measure(rows[row], "dice") for row in ("ideal", "attack.learned", "defence.learned")}
        table["recovery"] = recovery(single, draws[len(rows["ideal"])])
    return table


def _order(config: TableConfig) -> Sequence[str]:
    known = ("ideal", "attack.learned", "defence.learned", "matching", "matching.learned")
    return known if config.table == 1 else config.methods


def summarise_row(scores: np.ndarray, draws: Bootstrap) -> dict[str, Any]:
    """Summarise one row of one set; see ``tabulate_set``.

    Args:
        scores: (repetitions, S, measures).
        draws: Over the same repetitions and targets.
    """
    distance = measure(scores, "hd95")
    row = summarise(measure(scores, "dice"), measure(scores, "iou"), draws)
    row["hd95"], row["hd95_ci"] = float(distance.mean()), draws.interval(draws.means(distance))
    for entry, one in zip(row["per_seed"], distance.mean(axis=1), strict=True):
        entry["hd95"] = float(one)
    row["reference_sd"] = None
    if len(scores) > 1:
        row["reference_sd"] = {
            name: float(np.std([entry[name] for entry in row["per_seed"]], ddof=1)) for name in _MEASURES
        }
    both, areas = measure(scores, "both"), measure(scores, "areas")
    resampled = list(zip(draws.means(both), draws.means(areas), strict=True))
    row["pooled"] = {}
    for name, ratio in (("dice", dice_of), ("iou", iou_of)):
        row["pooled"][name] = 100 * ratio(float(both.sum()), float(areas.sum()))
        row["pooled"][f"{name}_ci"] = draws.interval(np.array([100 * ratio(*pair) for pair in resampled]))
    row["prompts"] = float(measure(scores, "prompts").mean())
    return row
