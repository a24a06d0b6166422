"""Prompts gone wrong by a known share, for curves of Dice against that share.

Each way is pure: the prompts given are left alone, and all draws come from the generator. With equal
generators a larger share goes on from where a smaller one ended, so the points of a curve differ by their
share alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppd_env.errors import ConfigError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.prompting.pair import grid_of

JITTER_REACH = 2
"""Patches, at most, by which a jittered prompt moves in either direction."""


def wrong_sign(status: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Turn the sign of a share of the prompts.

    Args:
        status: (N,) int8.
        share: In [0, 1], rounded to whole prompts.
        rng: Draws which.

    Returns:
        (N,) int8.
    """
    wrong = status.copy()
    nodes = _chosen(status, share, rng)
    wrong[nodes] = np.where(status[nodes] == POSITIVE, NEGATIVE, POSITIVE)
    return wrong


def jittered(status: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Move a share of the prompts, with their signs, to free patches at most ``JITTER_REACH`` away.

    Free is what no prompt lies on, before or after. A prompt with no free patch in reach stays.

    Args:
        status: (N,) int8.
        share: In [0, 1], rounded to whole prompts.
        rng: Draws which, and where to.

    Returns:
        (N,) int8, with as many prompts of each sign.
    """
    moved, grid = status.copy(), grid_of(len(status))
    rows, columns = np.divmod(np.arange(len(status)), grid)
    for node in _chosen(status, share, rng):
        row, column = divmod(int(node), grid)
        near = np.maximum(abs(rows - row), abs(columns - column)) <= JITTER_REACH
        free = np.flatnonzero(near & (status == INACTIVE) & (moved == INACTIVE))
        if len(free):
            moved[rng.choice(free)] = moved[node]
            moved[node] = INACTIVE
    return moved


def spurious(status: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Add prompts on random free patches with random signs, as many as a share of those that are there.

    Args:
        status: (N,) int8.
        share: In [0, 1], rounded to whole prompts; no more than there are free patches.
        rng: Draws patches and signs.

    Returns:
        (N,) int8.
    """
    added = status.copy()
    free = rng.permutation(np.flatnonzero(status == INACTIVE))
    signs = rng.choice(np.array([POSITIVE, NEGATIVE], np.int8), len(free))
    count = min(_count(status, share), len(free))
    added[free[:count]] = signs[:count]
    return added


def dropped(status: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Take a share of the prompts away; with a share of 1 none is left.

    Args:
        status: (N,) int8.
        share: In [0, 1], rounded to whole prompts.
        rng: Draws which.

    Returns:
        (N,) int8.
    """
    left = status.copy()
    left[_chosen(status, share, rng)] = INACTIVE
    return left


Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
"""(status (N,) int8, share in [0, 1], generator) -> (N,) int8."""

CORRUPTIONS: dict[str, Corruption] = {
    "dropped": dropped,
    "jitter": jittered,
    "spurious": spurious,
    "wrong_sign": wrong_sign,
}
"""Name -> way of going wrong."""


def corrupt(kind: str, status: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Corrupt prompts in one of the ways in ``CORRUPTIONS``.

    Args:
        kind: ``"wrong_sign"``, ``"jitter"``, ``"spurious"`` or ``"dropped"``.
        status: (N,) int8.
        share: In [0, 1], relative to the prompts that are there.
        rng: The only source of randomness.

    Returns:
        (N,) int8.

    Raises:
        ConfigError: There is no such kind, or the share lies outside [0, 1].
    """
    if kind not in CORRUPTIONS:
        raise ConfigError(f"Unknown corruption {kind!r}; known ones: {', '.join(sorted(CORRUPTIONS))}.")
    return CORRUPTIONS[kind](status, share, rng)


def _count(status: np.ndarray, share: float) -> int:
    if not 0 <= share <= 1:
        raise ConfigError(f"The share of corrupted prompts must lie in [0, 1], got {share:g}.")
    return round(share * int((status != INACTIVE).sum()))


def _chosen(status: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw which prompts go wrong: the first of one random order."""
    count = _count(status, share)
    nodes: np.ndarray = rng.permutation(np.flatnonzero(status != INACTIVE))[:count]
    return nodes
