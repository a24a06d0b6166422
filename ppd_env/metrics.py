"""Dice and IoU of masks, of a whole set's pixels too, distances of outlines, and the area under a curve.

Both masks empty: Dice and IoU are 1 and the distance 0. One empty: Dice and IoU are 0, and the distance
is the image's diagonal, the largest there can be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
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
    return dice_of(*overlap(prediction, truth, void))


def iou(prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """Return |P and T| / |P or T| of two bool arrays of one shape, in [0, 1]; arguments as for ``dice``."""
    return iou_of(*overlap(prediction, truth, void))


def overlap(prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> tuple[int, int]:
    """Return |P and T| and |P| + |T| in pixels: all that Dice and IoU need, and what sums over a set.

    Arguments as for ``dice``.
    """
    prediction, truth = _checked(prediction, truth, void)
    return int((prediction & truth).sum()), int(prediction.sum()) + int(truth.sum())


def dice_of(both: float, areas: float) -> float:
    """Return Dice in [0, 1] from the two counts of ``overlap``, of one image or summed over several."""
    return 1.0 if areas == 0 else 2 * both / areas


def iou_of(both: float, areas: float) -> float:
    """Return IoU in [0, 1] from the two counts of ``overlap``, of one image or summed over several."""
    return 1.0 if areas == 0 else both / (areas - both)


def _checked(
    prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None
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


Voids = Iterable[np.ndarray | None]
"""For every pair of masks the pixels that count neither way, (H, W) bool, or None where all count."""


def pooled_dice(
    predictions: Iterable[np.ndarray], truths: Iterable[np.ndarray], voids: Voids | None = None
) -> float:
    """Return the Dice of all pixels of a set taken together, in [0, 1]: large objects count more.

    Args:
        predictions: Masks, bool, each of any shape.
        truths: As many, of the same shapes.
        voids: As many; None counts every pixel of every pair.
    """
    return dice_of(*_pooled(predictions, truths, voids))


def pooled_iou(
    predictions: Iterable[np.ndarray], truths: Iterable[np.ndarray], voids: Voids | None = None
) -> float:
    """Return the IoU of all pixels of a set taken together, in [0, 1]; arguments as for ``pooled_dice``."""
    return iou_of(*_pooled(predictions, truths, voids))


def _pooled(
    predictions: Iterable[np.ndarray], truths: Iterable[np.ndarray], voids: Voids | None
) -> tuple[int, int]:
    """Sum ``overlap`` over all pairs."""
    pairs = zip(predictions, truths, strict=True)
    if voids is None:
        counts = [overlap(*pair) for pair in pairs]
    else:
        counts = [overlap(*pair, void) for pair, void in zip(pairs, voids, strict=True)]
    return sum(both for both, _ in counts), sum(areas for _, areas in counts)


def hd95(
    prediction: np.ndarray, truth: np.ndarray, percentile: float = 95, void: np.ndarray | None = None
) -> float:
    """Return the 95th percentile of the distances between two masks' outlines, in pixels.

    The distances of every outline pixel of either mask to the nearest one of the other are taken together (as
    medpy does, which PPD's authors measure with; others take the larger of two percentiles). A mask's outline
    is those of its pixels that have one of four neighbours outside it. Outside the image is outside, and so
    is what does not count: where both masks reach a void area, both end at its border.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        percentile: 100 gives the Hausdorff distance.
        void: (H, W) bool, pixels that count neither way; None counts all.
    """
    prediction, truth = _checked(prediction, truth, void)
    if not prediction.any() or not truth.any():
        height, width = truth.shape
        return 0.0 if not (prediction.any() or truth.any()) else math.hypot(height - 1, width - 1)
    left, right = _outline(prediction), _outline(truth)
    return float(np.percentile(np.concatenate([_away(right)[left], _away(left)[right]]), percentile))


def _outline(mask: np.ndarray) -> np.ndarray:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outline: np.ndarray = mask & (inner == 0)
    return outline


def _away(outline: np.ndarray) -> np.ndarray:
    """Return every pixel's Euclidean distance to the nearest one of an outline, (H, W) float32."""
    return cv2.distanceTransform((~outline).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def area_under_curve(at: Sequence[float], scores: Sequence[float]) -> float:
    """Return the mean height of a curve between its first and last point, by the trapezoidal rule.

    Args:
        at: n >= 2 places, ascending, of any unit: shares of corrupted prompts, attack budgets.
        scores: The n heights; the result has their unit.

    Raises:
        ValueError: The places do not ascend, or are fewer than two, or not as many as the heights.
    """
    places, heights = np.asarray(at, np.float64), np.asarray(scores, np.float64)
    if len(places) < 2 or places.shape != heights.shape or (np.diff(places) <= 0).any():
        raise ValueError(f"A curve needs two or more ascending places with a score each, got {at}, {scores}.")
    area = ((heights[1:] + heights[:-1]) / 2 * np.diff(places)).sum()
    return float(area / (places[-1] - places[0]))


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
