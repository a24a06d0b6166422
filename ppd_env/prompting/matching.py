"""One-shot feature matching: prompts for a target image from one reference image with its mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.graph.distances import pairwise_distance

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


def matching_prompts(reference: Tensor, coverage: np.ndarray, target: Tensor) -> np.ndarray:
    """Give each reference patch's sign to the target patch nearest in feature space.

    Patches wholly inside the reference mask vote positive, wholly outside negative, the others not at all;
    target patches that receive both signs get none (the matching step of PPD's experiments, Section IV).
    Where no patch lies wholly inside the mask, the most covered one votes positive.

    Args:
        reference: (N, d) float32, features of the reference image.
        coverage: (N,) float32 in [0, 1], share of each reference patch that its mask covers.
        target: (N, d) float32, features of the target image.

    Returns:
        (N,) int8 status; it may hold no prompt at all where every match is contested.
    """
    inside = coverage >= min(1.0, float(coverage.max()))
    outside = (coverage == 0) & ~inside
    nearest = pairwise_distance(reference, target).argmin(dim=1).cpu().numpy()
    status = np.full(len(target), INACTIVE, np.int8)
    positive, negative = np.zeros(len(target), bool), np.zeros(len(target), bool)
    positive[nearest[inside]] = True
    negative[nearest[outside]] = True
    status[positive & ~negative] = POSITIVE
    status[negative & ~positive] = NEGATIVE
    return status
