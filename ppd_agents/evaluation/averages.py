"""Tables averaged over several sets of scenes, each of which weighs the same however many scenes it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppd_agents.evaluation.scoring import Measurements
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.evaluation.statistics import WAY, Bootstrap, ratio_estimate, ratio_per_seed, recovery_of
from ppd_agents.evaluation.tabulate import CHANGES, ORACLE, Table, View, controls


def average(sets: Mapping[str, Measurements], config: EvaluationConfig) -> dict[str, Table]:
    """Average the tables of several sets of scenes.

    In each bootstrap resample the sets share the draw of seeds and draw their scenes independently.

    Args:
        sets: Name -> measurements with equal rows and as many seeds.
        config: What was measured.

    Returns:
        ``{BUDGET: {ROW: {...}}}`` as ``tabulate`` gives it for one set; every number is the mean of the sets'
        and ``n`` the scenes of all. Ratios are means over the sets where they mean something, named under
        ``"sets"``.
    """
    answer = {}
    for budget in config.budgets:
        views = {name: View(found, config, budget) for name, found in sets.items()}
        answer[str(budget)] = _table(views)
    return answer


def _table(views: Mapping[str, View]) -> Table:
    some = next(iter(views.values())).found
    table: Table = {row: _row(list(views.values()), row) for row in some.rows}
    if ORACLE in some.rows:
        table["way"] = _ratio(views, WAY, ORACLE)
    table["recovery"] = _recovery(views, "defence.learned")
    table["recovery"]["controls"] = {row: _recovery(views, row) for row in controls(some, "defence")}
    for kind, start in CHANGES:
        if f"{kind}.learned" in some.rows:
            entry = _change(list(views.values()), f"{kind}.learned", start)
            entry["controls"] = {
                row: _change(list(views.values()), row, start) for row in controls(some, kind)
            }
            table[f"{kind}_change"] = entry
    return table


def _row(views: Sequence[View], row: str) -> dict[str, Any]:
    """Average one row: ``summarise`` for several sets."""
    draws = [view.sight(row)[1] for view in views]
    dice = [view.found.dice(row, view.budget) for view in views]
    iou = [view.found.iou(row, view.budget) for view in views]
    per_seed = [np.mean([values.mean(axis=1) for values in score], axis=0) for score in (dice, iou)]
    return {
        "mdsc": _mean(dice),
        "mdsc_ci": _interval(dice, draws),
        "miou": _mean(iou),
        "miou_ci": _interval(iou, draws),
        "n": sum(values.shape[1] for values in dice),
        "per_seed": [{"mdsc": float(d), "miou": float(i)} for d, i in zip(*per_seed, strict=True)],
    }


def _recovery(views: Mapping[str, View], defence: str) -> dict[str, Any]:
    return _ratio(views, recovery_of(defence), defence)


def _ratio(views: Mapping[str, View], names: tuple[str, str, str, str], row: str) -> dict[str, Any]:
    """Average a ratio over the sets where it is not null, on the scenes that ``row`` was played on."""
    sights = {name: view.sight(row) for name, view in views.items()}
    found = {name: ratio_estimate(dice, names, draws) for name, (dice, draws) in sights.items()}
    kept = {name: estimate for name, estimate in found.items() if estimate is not None}
    answer: dict[str, Any] = {
        "value": None,
        "ci": None,
        "n": sum(sights[name][0][row].shape[1] for name in kept),
        "per_seed": [],
        "sets": list(kept),
    }
    if kept:
        draws = next(iter(sights.values()))[1]
        by_set = np.array([ratio_per_seed(sights[name][0], names) for name in kept], dtype=float)
        answer["value"] = float(np.mean([value for value, _ in kept.values()]))
        answer["ci"] = draws.interval(np.mean([samples for _, samples in kept.values()], axis=0))
        answer["per_seed"] = [float(x) if np.isfinite(x) else None for x in by_set.mean(axis=0)]
    return answer


def _change(views: Sequence[View], row: str, start: str) -> dict[str, Any]:
    """Average a difference of two rows: ``change`` for several sets."""
    sights = [view.sight(row) for view in views]
    differences = [dice[row] - dice[start] for dice, _ in sights]
    return {
        "value": _mean(differences),
        "ci": _interval(differences, [draws for _, draws in sights]),
        "n": sum(values.shape[1] for values in differences),
    }


def _mean(sets: Sequence[np.ndarray]) -> float:
    return float(np.mean([values.mean() for values in sets]))


def _interval(sets: Sequence[np.ndarray], draws: Sequence[Bootstrap]) -> list[float]:
    means = [one.means(values) for one, values in zip(draws, sets, strict=True)]
    return draws[0].interval(np.mean(means, axis=0))
