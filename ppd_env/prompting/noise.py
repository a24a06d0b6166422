"""Random prompts that look at neither the image nor the ground truth."""

from __future__ import annotations

import numpy as np

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE

FEWEST_SHARE, LARGEST_SHARE = 1 / 32, 1 / 8
"""Bounds of the share of nodes that are active."""


def noise_prompts(nodes: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a random share of the nodes, each with a random sign, at least one of them positive.

    Args:
        nodes: N.
        rng: Draws count, nodes and signs.

    Returns:
        (N,) int8 status.
    """
    fewest = max(1, round(FEWEST_SHARE * nodes))
    count = int(rng.integers(fewest, max(fewest, round(LARGEST_SHARE * nodes)), endpoint=True))
    chosen = rng.choice(nodes, count, replace=False)
    signs = rng.choice([POSITIVE, NEGATIVE], count)
    signs[0] = POSITIVE
    status = np.full(nodes, INACTIVE, np.int8)
    status[chosen] = signs
    return status
