"""The scores of a table, image by image, as arrays that can be kept and sent around."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ppd_env.metrics import dice_of, hd95, iou_of, overlap
from ppd_env.scenes.scene import RawScene

MEASURES = ("dice", "iou", "hd95", "both", "areas", "prompts")
"""Columns of the scores: Dice and IoU of the foreground in percent and the distance of outlines in pixels,
all at native size; for pooled scores the pixels that prediction and truth both hold, and the sum of their
areas; the number of prompts behind the mask."""


def score(mask: np.ndarray, scene: RawScene, prompts: int) -> tuple[float, ...]:
    """Score one mask.

    Args:
        mask: (H, W) bool at native size.
        scene: The target; its void pixels count in no score.
        prompts: Number of prompts behind the mask.

    Returns:
        One number for each of ``MEASURES``.
    """
    both, areas = overlap(mask, scene.mask, scene.void)
    distance = hd95(mask, scene.mask, void=scene.void)
    return 100 * dice_of(both, areas), 100 * iou_of(both, areas), distance, both, areas, prompts


def stacked(rows: Iterable[tuple[float, ...]]) -> np.ndarray:
    """Return the scores of several images, (S, len(MEASURES)) float64."""
    return np.array(list(rows), np.float64).reshape(-1, len(MEASURES))


def measure(scores: np.ndarray, name: str) -> np.ndarray:
    """Return one measure of scores (..., len(MEASURES))."""
    column: np.ndarray = scores[..., MEASURES.index(name)]
    return column
