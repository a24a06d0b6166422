"""Means and ratios of means with percentile-bootstrap intervals over scenes x seeds.

Values are arrays (seeds, scenes). One resample draws seeds and clusters of scenes (the photograph a scene
comes from) with replacement, independently of each other; every row of a table is resampled with the same
draws, so that differences and ratios are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MINIMUM_HARM = 5.0
"""Points of Dice an attack must cost before its ratios mean anything; under it they are null."""

HARM = ("ideal", "attack.learned")
"""Rows whose difference is the harm."""

WAY = ("attack.random", "attack.learned", "attack.random", "attack.oracle")
"""Rows whose ratio is how far the learned attack goes from the random one to the oracle."""

Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Bootstrap:
    """The draws all rows of one table share.

    Args:
        seeds: (R, seeds) float64, how often each seed counts in each of R resamples.
        scenes: (R, scenes) float64, how often each scene does; a value counts as often as their product.
        confidence: Coverage of the intervals in (0, 1).
    """

    seeds: np.ndarray
    scenes: np.ndarray
    confidence: float = 0.95

    @staticmethod
    def draw(
        groups: Sequence[str],
        seeds: int,
        rng: np.random.Generator,
        resamples: int = 2000,
        confidence: float = 0.95,
    ) -> Bootstrap:
        """Draw ``resamples`` resamples of seeds and of clusters.

        The seeds come first: from equal generators, sets of different scenes get the same draws of seeds.

        Args:
            groups: The cluster of each scene.
            seeds: Number of seeds, at least 1.
            rng: Source of the draws.
            resamples: R.
            confidence: Coverage of the intervals in (0, 1).
        """
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
        clusters = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
        return Bootstrap(seed_counts.astype(np.float64), clusters[:, member].astype(np.float64), confidence)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of ``values`` (seeds, scenes) in each resample, (R,)."""
        totals = ((self.seeds @ values) * self.scenes).sum(axis=1)
        return np.asarray(totals / (self.seeds.sum(axis=1) * self.scenes.sum(axis=1)))

    def interval(self, samples: np.ndarray) -> list[float]:
        """Return [low, high], the central part of ``samples`` (R,); what is not finite is left out."""
        tail = (1 - self.confidence) / 2
        finite = samples[np.isfinite(samples)]
        low, high = np.quantile(finite, [tail, 1 - tail])
        return [float(low), float(high)]


def summarise(dice: np.ndarray, iou: np.ndarray, bootstrap: Bootstrap) -> dict[str, Any]:
    """Summarise one row of a table.

    Args:
        dice: (seeds, scenes) percent, Dice of each image's foreground.
        iou: (seeds, scenes) percent, IoU of each image's foreground.
        bootstrap: Draws over the same seeds and scenes.

    Returns:
        ``{"mdsc", "mdsc_ci", "miou", "miou_ci", "n", "per_seed"}``: means over images in percent, their
        intervals, the number of images, and for every seed its ``{"mdsc", "miou"}``.
    """
    return {
        "mdsc": float(dice.mean()),
        "mdsc_ci": bootstrap.interval(bootstrap.means(dice)),
        "miou": float(iou.mean()),
        "miou_ci": bootstrap.interval(bootstrap.means(iou)),
        "n": int(dice.shape[1]),
        "per_seed": [
            {"mdsc": float(d), "miou": float(i)} for d, i in zip(dice.mean(1), iou.mean(1), strict=True)
        ],
    }


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Divide, with NaN where ``bottom`` is not positive."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=np.asarray(bottom) > 0)


def ratio_estimate(
    dice: Rows,
    names: tuple[str, str, str, str],
    bootstrap: Bootstrap,
    harm: tuple[str, str] = HARM,
) -> tuple[float, np.ndarray] | None:
    """Estimate (a - b) / (c - d) of four rows measured on the same scenes and seeds.

    Args:
        dice: Rows of (seeds, scenes) percent.
        names: The rows a, b, c, d.
        bootstrap: Draws over the same seeds and scenes.
        harm: Rows whose difference of means must reach ``MINIMUM_HARM`` points.

    Returns:
        The ratio and its value in each resample (R,); None where the harm is too small or c - d is not
        positive.
    """
    mean = {name: float(dice[name].mean()) for name in (*harm, *names)}
    if mean[harm[0]] - mean[harm[1]] < MINIMUM_HARM or mean[names[2]] <= mean[names[3]]:
        return None
    a, b, c, d = (bootstrap.means(dice[name]) for name in names)
    value = (mean[names[0]] - mean[names[1]]) / (mean[names[2]] - mean[names[3]])
    return value, _ratio(a - b, c - d)


def paired_ratio(
    dice: Rows,
    names: tuple[str, str, str, str],
    bootstrap: Bootstrap,
    harm: tuple[str, str] = HARM,
) -> dict[str, Any]:
    """Describe the ratio that ``ratio_estimate`` estimates; arguments as there.

    Returns:
        ``{"value", "ci", "n", "per_seed", "paired"}``; value, ci and the entries of per_seed are null where
        the ratio means nothing; ``paired`` holds each row's mean on these scenes.
    """
    estimate = ratio_estimate(dice, names, bootstrap, harm)
    return {
        "value": None if estimate is None else estimate[0],
        "ci": None if estimate is None else bootstrap.interval(estimate[1]),
        "n": int(dice[names[0]].shape[1]),
        "paired": {name: float(dice[name].mean()) for name in dict.fromkeys((*harm, *names))},
        "per_seed": ratio_per_seed(dice, names, harm),
    }


def ratio_per_seed(
    dice: Rows, names: tuple[str, str, str, str], harm: tuple[str, str] = HARM
) -> list[float | None]:
    """Return the ratio of every seed alone, null where it means nothing; arguments as ``ratio_estimate``."""
    before, after, a, b, c, d = (dice[name].mean(axis=1) for name in (*harm, *names))
    ratios = _ratio(a - b, c - d)
    ratios[before - after < MINIMUM_HARM] = np.nan
    return [float(r) if np.isfinite(r) else None for r in ratios]


def change(dice: Rows, names: tuple[str, str], bootstrap: Bootstrap) -> dict[str, Any]:
    """Estimate the difference a - b of two rows measured on the same scenes and seeds, in points.

    Args:
        dice: Rows of (seeds, scenes) percent.
        names: The rows a and b.
        bootstrap: Draws over the same seeds and scenes.

    Returns:
        ``{"value", "ci", "n"}``.
    """
    differences = dice[names[0]] - dice[names[1]]
    return {
        "value": float(differences.mean()),
        "ci": bootstrap.interval(bootstrap.means(differences)),
        "n": int(differences.shape[1]),
    }


def recovery_of(defence: str) -> tuple[str, str, str, str]:
    """Return the rows whose ratio is the recovery of ``defence``."""
    return (defence, "attack.learned", "ideal", "attack.learned")


def way(dice: Rows, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return how far the learned attack goes from the random one to the oracle, as ``paired_ratio`` does."""
    return paired_ratio(dice, WAY, bootstrap)


def recovery(dice: Rows, bootstrap: Bootstrap, defence: str = "defence.learned") -> dict[str, Any]:
    """Return the share of the learned attack's harm that ``defence`` takes back, as ``paired_ratio`` does."""
    return paired_ratio(dice, recovery_of(defence), bootstrap)
