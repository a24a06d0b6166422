"""Dice and IoU of masks: both empty 1, one empty 0."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Return 2 |P and T| / (|P| + |T|) of two bool arrays of one shape, in [0, 1]."""
    prediction, truth = _checked(prediction, truth)
    total = int(prediction.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * int((prediction & truth).sum()) / total


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Return |P and T| / |P or T| of two bool arrays of one shape, in [0, 1]."""
    prediction, truth = _checked(prediction, truth)
    union = int((prediction | truth).sum())
    return 1.0 if union == 0 else int((prediction & truth).sum()) / union


def _checked(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Refuse masks that are not bool or differ in shape: both would give a number that means nothing."""
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape:
        raise ValueError(f"Masks differ in shape: {prediction.shape} and {truth.shape}.")
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise ValueError(f"Masks must be bool, got {prediction.dtype}, {truth.dtype}; threshold them.")
    return prediction, truth


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
