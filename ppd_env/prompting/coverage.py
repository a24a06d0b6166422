"""How much of each patch a mask covers, and which patches may vote."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

_VOID_WEIGHT = 1e-3
"""So little that void never makes a patch the most covered one, yet it keeps it from being background."""


def patch_coverage(mask: np.ndarray, grid: int, void: np.ndarray | None = None) -> np.ndarray:
    """Return the share of each patch that a mask covers.

    Args:
        mask: (H, W) bool.
        grid: g, patches per side.
        void: (H, W) bool, pixels of which nobody knows what they are, none of them in the mask: a patch that
            holds one is wholly inside as little as wholly outside. None without.

    Returns:
        (g * g,) float32 in [0, 1]; a void pixel counts a thousandth.
    """
    weights = mask.astype(np.float32)
    if void is not None:
        weights[void] = _VOID_WEIGHT
    tensor = torch.from_numpy(np.ascontiguousarray(weights))[None, None]
    share: np.ndarray = F.adaptive_avg_pool2d(tensor, grid).flatten().numpy()
    return share


def whole_patches(coverage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell which patches are foreground and which background; straddling ones are neither.

    Args:
        coverage: (N,) float32 in [0, 1], share of each patch that a mask covers.

    Returns:
        inside: (N,) bool, wholly inside; where none is, the most covered ones stand in.
        outside: (N,) bool, wholly outside.
    """
    inside = coverage >= min(1.0, float(coverage.max()))
    return inside, (coverage == 0) & ~inside
