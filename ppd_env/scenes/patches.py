"""Where the patches of a g x g grid lie, and what of a mask lies in them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def patch_centres(grid: int) -> Tensor:
    """Return the (x, y) patch centres of the unit square, (grid * grid, 2) float32; node i is row i // g."""
    axis = (torch.arange(grid, dtype=torch.float32) + 0.5) / grid
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def nodes_inside(mask: np.ndarray, grid: int) -> np.ndarray:
    """Return which patch centres lie inside a mask.

    Args:
        mask: (H, W) bool.
        grid: g.

    Returns:
        (g * g,) bool.
    """
    return _at_centres(mask, grid)


def peak_node(mask: np.ndarray, grid: int) -> int:
    """Return the node deepest inside a mask, by distance transform; the image's edge counts as outside.

    Args:
        mask: (H, W) bool, not empty.
        grid: g.

    Returns:
        The node whose patch centre lies deepest; where no centre lies inside, the one whose patch holds the
        deepest pixel.
    """
    bordered = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(bordered, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    at_centres = _at_centres(depth, grid)
    if at_centres.max() > 0:
        return int(at_centres.argmax())
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    height, width = mask.shape
    return int((row + 0.5) * grid / height) * grid + int((column + 0.5) * grid / width)


def _at_centres(values: np.ndarray, grid: int) -> np.ndarray:
    """Return the (H, W) values at the patch centres, (g * g,)."""
    height, width = values.shape
    rows = ((np.arange(grid) + 0.5) * height / grid).astype(int)
    columns = ((np.arange(grid) + 0.5) * width / grid).astype(int)
    return values[np.ix_(rows, columns)].reshape(-1)
