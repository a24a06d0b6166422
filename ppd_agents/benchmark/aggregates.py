"""Scores of few runs put together as Agarwal et al. propose (NeurIPS 2021): IQM, profiles, improvement.

The intervals are stratified bootstraps: within each task, runs are drawn with replacement. ``rliable``
computes the same; the functions of SciPy used here are its own, and need none of its other packages.
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


def iqm(scores: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of all scores (..., runs, tasks), (...,)."""
    return np.asarray(stats.trim_mean(_flat(scores), 0.25, axis=-1))


def mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean of all scores (..., runs, tasks), (...,)."""
    return np.asarray(_flat(scores).mean(axis=-1))


def optimality_gap(scores: np.ndarray) -> np.ndarray:
    """Return by how much scores (..., runs, tasks) fall short of 1 on average, (...,); more counts as 1."""
    return np.asarray(1 - np.minimum(_flat(scores), 1.0).mean(axis=-1))


def task_median(scores: np.ndarray) -> np.ndarray:
    """Return the median over tasks of the mean over runs, of scores (..., runs, tasks), (...,)."""
    return np.asarray(np.median(scores.mean(axis=-2), axis=-1))


def _flat(scores: np.ndarray) -> np.ndarray:
    return scores.reshape(*scores.shape[:-2], -1)


AGGREGATES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "iqm": iqm,
    "mean": mean,
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
            key: {"value": float(function(values)), "ci": interval(function(drawn))}
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
            "ci": interval(above(drawn, taus)),
        }
    return {"thresholds": taus.tolist(), "algorithms": found}


def above(scores: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Return the share of ``scores`` (..., runs, tasks) above each threshold, (..., T)."""
    flat = _flat(scores)
    return np.stack([(flat > tau).mean(axis=-1) for tau in taus], axis=-1)


def improvement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the probability that a run of the first beats one of the second on the same task.

    Args:
        first: (..., runs, tasks).
        second: (..., other runs, tasks).

    Returns:
        (...,), the mean over tasks of the Mann-Whitney statistic; ties count half.
    """
    left, right = first[..., :, None, :], second[..., None, :, :]
    return np.asarray(((left > right) + (left == right) / 2).mean(axis=(-3, -2, -1)))


def improvements(scores: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return ``{"A > B": {"value", "ci"}}`` for every two algorithms, in the order they are given."""
    found: dict[str, Any] = {}
    names = list(scores)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            rng = np.random.default_rng(seed)
            drawn = [resampled(scores[one], rng, resamples) for one in (name, other)]
            found[f"{name} > {other}"] = {
                "value": float(improvement(scores[name], scores[other])),
                "ci": interval(improvement(*drawn)),
            }
    return found
