"""Ideal prompts: sampled from the ground truth, positive inside the mask and negative outside it."""

from __future__ import annotations

import numpy as np

from ppd_env.errors import ConfigError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE

LAYOUTS = ("jittered", "lattice")
STRIDES = (3, 4, 5)
LARGEST_DROP = 0.3
LATTICE_INTERVAL = 4


def ideal_prompts(
    truth: np.ndarray,
    peak: int,
    rng: np.random.Generator,
    layout: str = "jittered",
    void: np.ndarray | None = None,
) -> np.ndarray:
    """Draw ideal prompts for one scene; at least one of them is positive.

    ``lattice`` puts prompts at a fixed interval, as PPD (Section III) writes. On a lattice, keeping what lies
    on it defends well without a look at the image, so measurements use ``jittered``.

    Args:
        truth: (N,) bool, patch centre inside the mask, N a square number.
        peak: Node of the mask's distance-transform peak, used where no sampled node lies inside the mask.
        rng: Draws the layout; ``lattice`` draws nothing.
        layout: ``"jittered"``: one random node in each stride x stride cell, the stride drawn from 3, 4, 5,
            then 0 to 30 % of them dropped. ``"lattice"``: every fourth node of every fourth row.
        void: (N,) bool, patch centre where nobody knows what is there: no prompt is ideal, and none is put.
            None without.

    Returns:
        (N,) int8 status.
    """
    grid = round(len(truth) ** 0.5)
    _check_layout(layout)
    nodes = _jittered(grid, rng) if layout == "jittered" else _lattice(grid)
    status = np.full(len(truth), INACTIVE, np.int8)
    status[nodes] = np.where(truth[nodes], POSITIVE, NEGATIVE)
    if void is not None:
        status[void] = INACTIVE
    if not (status == POSITIVE).any():
        status[peak] = POSITIVE
    return status


def usual_count(grid: int, layout: str = "jittered") -> float:
    """Return the mean number of ideal prompts on a grid, from the distribution ``ideal_prompts`` documents.

    Args:
        grid: g, patches per side.
        layout: Layout of the prompts.

    Raises:
        ConfigError: The layout is unknown.
    """
    _check_layout(layout)
    if layout == "lattice":
        return float(len(_lattice(grid)))
    cells = [(-(-grid // stride)) ** 2 for stride in STRIDES]
    return float(np.mean(cells)) * (1 - LARGEST_DROP / 2)


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise ConfigError(f"Unknown layout {layout!r} of ideal prompts; known ones: {', '.join(LAYOUTS)}.")


def _lattice(grid: int) -> np.ndarray:
    """Return every fourth node of every fourth row."""
    axis = np.arange(min(LATTICE_INTERVAL // 2, grid - 1), grid, LATTICE_INTERVAL)
    nodes: np.ndarray = (axis[:, None] * grid + axis).ravel()
    return nodes


def _jittered(grid: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one node in each cell of a random stride and drop some; cells at the border may be smaller."""
    stride = int(rng.choice(STRIDES))
    low = np.arange(0, grid, stride)
    size = np.minimum(stride, grid - low)
    shape = (len(low), len(low))
    rows = low[:, None] + rng.integers(0, np.broadcast_to(size[:, None], shape))
    columns = low[None, :] + rng.integers(0, np.broadcast_to(size[None, :], shape))
    nodes = (rows * grid + columns).ravel()
    dropped = round(rng.uniform(0, LARGEST_DROP) * len(nodes))
    return rng.permutation(nodes)[dropped:]
