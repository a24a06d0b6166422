"""Proportional prioritised replay (Schaul et al., 2016): priorities, draws by them, their correction."""

from __future__ import annotations

import numpy as np

ALPHA = 0.6
"""How far priorities decide: 0 would draw evenly (Schaul et al., 2016, eq. 1)."""

FIRST_BETA = 0.4
"""How far importance weights correct for it at the start of the training; at its end they do so fully."""

_FLOOR = 1e-3
"""Added to every error, so that nothing is never drawn again."""


def priority_of(errors: np.ndarray) -> np.ndarray:
    """Return what errors (R,) >= 0 count in a draw, (error + a little) to the power of alpha, (R,)."""
    return np.asarray((errors + _FLOOR) ** ALPHA)


def beta_at(progress: float) -> float:
    """Return beta when the share ``progress`` of the training is behind us: linear from 0.4 to 1."""
    return FIRST_BETA + progress * (1 - FIRST_BETA)


def draw_proportionally(priorities: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw places with chances proportional to their priorities, one from each of ``count`` equal shares.

    Args:
        priorities: (G,) float32, positive.
        count: How many.
        rng: The generator to draw from.

    Returns:
        (count,) int64 in [0, G), with replacement.
    """
    bounds = priorities.cumsum(dtype=np.float64)
    points = (np.arange(count) + rng.random(count)) / count * bounds[-1]
    # Rounding may bring the last point to the very end.
    return np.minimum(bounds.searchsorted(points, side="right"), len(bounds) - 1)


def importance_weights(priorities: np.ndarray, chosen: np.ndarray, beta: float) -> np.ndarray:
    """Return what makes up for drawing ``chosen`` by priority, 1 for the rarest of all that are stored.

    Args:
        priorities: (G,) float32 of all that could be drawn.
        chosen: (R,) int64 places.
        beta: 0 corrects nothing, 1 fully.

    Returns:
        (R,) float32 in (0, 1]: (G P(i))^-beta over its maximum, which is (p_i / p_min)^-beta.
    """
    return np.asarray((priorities[chosen] / priorities.min()) ** -beta, dtype=np.float32)
