"""How much of each patch a mask covers, and which patches may vote."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F


def patch_coverage(mask: np.ndarray, grid: int) -> np.ndarray:
    """Return the share of each patch that a mask (H, W) bool covers, (grid * grid,) float32 in [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
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
