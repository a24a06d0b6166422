"""Scores of few runs put together as Agarwal et al. propose (NeurIPS 2021): IQM, profiles, improvement.

The intervals are stratified bootstraps: within each task, runs are drawn with replacement. ``rliable`` computes
the same; the functions of SciPy used here are its own, and need none of its other packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95

Scores = Mapping[str, np.ndarray]
"""Algorithm -> (runs, tasks) float64; 0 does nothing, 1 undoes the attacks."""


def iqm(scores: np.ndarray) -> float:
    """Return the mean of the middle half of all scores (runs, tasks)."""
    return float(stats.trim_mean(scores, 0.25, axis=None))


def optimality_gap(scores: np.ndarray) -> float:
    """Return by how much scores (runs, tasks) fall short of 1 on average; what is above 1 counts as 1."""
    return float(1 - np.minimum(scores, 1.0).mean())


def task_median(scores: np.ndarray) -> float:
    """Return the median over tasks of the mean over runs, of scores (runs, tasks)."""
    return float(np.median(scores.mean(axis=0)))


AGGREGATES: Mapping[str, Callable[[np.ndarray], float]] = {
    "iqm": iqm,
    "mean": lambda scores: float(scores.mean()),
    "median": task_median,
    "optimality_gap": optimality_gap,
}


def resampled(scores: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Draw runs with replacement within every task.

    Args:
        scores: (runs, tasks).
        rng: Source of the draws.
        resamples: R.

    Returns:
        (R, runs, tasks).
    """
    runs, tasks = scores.shape
    drawn = rng.integers(runs, size=(resamples, runs, tasks))
    return scores[drawn, np.arange(tasks)]


def interval(samples: np.ndarray) -> list[float]:
    """Return the central part of ``samples`` (R, ...) as [low, high], along their first axis."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    return [low.tolist(), high.tolist()]


def aggregate(scores: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return ``{ALGORITHM: {AGGREGATE: {"value", "ci"}}}``."""
    found: dict[str, Any] = {}
    for name, values in scores.items():
        drawn = resampled(values, np.random.default_rng(seed), resamples)
        found[name] = {
            key: {"value": function(values), "ci": interval(np.array([function(one) for one in drawn]))}
            for key, function in AGGREGATES.items()
        }
    return found


def thresholds(scores: Scores, count: int = 81) -> np.ndarray:
    """Return ``count`` scores from below the worst or 0 to above the best or 1."""
    every = np.concatenate([values.ravel() for values in scores.values()])
    low, high = min(0.0, float(every.min())), max(1.0, float(every.max()))
    margin = 0.05 * (high - low)
    return np.linspace(low - margin, high + margin, count)


def profiles(scores: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return performance profiles: the share of runs and tasks whose score is above each threshold.

    Returns:
        ``{"thresholds": [...], "algorithms": {ALGORITHM: {"share": [...], "ci": [[...], [...]]}}}``.
    """
    taus = thresholds(scores)
    found: dict[str, Any] = {}
    for name, values in scores.items():
        drawn = resampled(values, np.random.default_rng(seed), resamples)
        found[name] = {
            "share": above(values, taus).tolist(),
            "ci": interval(np.stack([above(one, taus) for one in drawn])),
        }
    return {"thresholds": taus.tolist(), "algorithms": found}


def above(scores: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Return the share of ``scores`` (runs, tasks) above each threshold, (T,)."""
    ordered = np.sort(scores, axis=None)
    return 1 - np.searchsorted(ordered, taus, side="right") / ordered.size


def improvement(first: np.ndarray, second: np.ndarray) -> float:
    """Return the probability that a run of the first beats one of the second on the same task.

    Args:
        first: (runs, tasks).
        second: (other runs, tasks).

    Returns:
        The mean over tasks of the Mann-Whitney statistic; ties count half.
    """
    wins = (first[:, None] > second[None]).mean(axis=(0, 1))
    ties = (first[:, None] == second[None]).mean(axis=(0, 1))
    return float((wins + ties / 2).mean())


def improvements(scores: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return ``{"A > B": {"value", "ci"}}`` for every two algorithms, in the order they are given."""
    found: dict[str, Any] = {}
    names = list(scores)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            rng = np.random.default_rng(seed)
            pairs = zip(
                resampled(scores[name], rng, resamples), resampled(scores[other], rng, resamples), strict=True
            )
            found[f"{name} > {other}"] = {
                "value": improvement(scores[name], scores[other]),
                "ci": interval(np.array([improvement(a, b) for a, b in pairs])),
            }
    return found
