"""Dice and IoU of masks: both empty 1, one empty 0."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def dice(prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """Return 2 |P and T| / (|P| + |T|) of two bool arrays of one shape, in [0, 1].

    Args:
        prediction: P, (H, W) bool.
        truth: T, (H, W) bool.
        void: (H, W) bool, pixels that count neither way; None counts all.
    """
    prediction, truth = _checked(prediction, truth, void)
    total = int(prediction.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * int((prediction & truth).sum()) / total


def iou(prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """Return |P and T| / |P or T| of two bool arrays of one shape, in [0, 1]; arguments as for ``dice``."""
    prediction, truth = _checked(prediction, truth, void)
    union = int((prediction | truth).sum())
    return 1.0 if union == 0 else int((prediction & truth).sum()) / union


def _checked(
    prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Take void pixels out of both masks.

    Masks that are not bool or differ in shape are refused: both would give a number that means nothing.
    """
    masks = [np.asarray(mask) for mask in (prediction, truth, void) if mask is not None]
    if len({mask.shape for mask in masks}) > 1:
        raise ValueError(f"Masks differ in shape: {' and '.join(str(mask.shape) for mask in masks)}.")
    if any(mask.dtype != np.bool_ for mask in masks):
        kinds = ", ".join(str(mask.dtype) for mask in masks)
        raise ValueError(f"Masks must be bool, got {kinds}; threshold them.")
    if void is None:
        return masks[0], masks[1]
    return masks[0] & ~masks[2], masks[1] & ~masks[2]


def batch_dice(prediction: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the Dice of B pairs of masks.

    Args:
        prediction: (B, h, w) bool.
        truth: (B, h, w) bool.
        valid: (B, h, w) bool, the cells that count; None counts all.

    Returns:
        (B,) float32 in [0, 1].
    """
    both, left, right = _areas(prediction, truth, valid)
    return _ratio(2 * both, left + right)


def batch_iou(prediction: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the IoU of B pairs of masks; arguments and result as for ``batch_dice``."""
    both, left, right = _areas(prediction, truth, valid)
    return _ratio(both, left + right - both)


def _areas(prediction: Tensor, truth: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Count the cells of the intersection, the prediction and the truth, (B,) int64 each."""
    if valid is not None:
        prediction, truth = prediction & valid, truth & valid
    both, left, right = (m.flatten(1).sum(dim=1) for m in (prediction & truth, prediction, truth))
    return both, left, right


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide counts; 0 / 0 is 1."""
    ratio = part.to(torch.float32) / whole.clamp(min=1)
    return torch.where(whole == 0, torch.ones_like(ratio), ratio)
