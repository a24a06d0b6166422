"""SAM's geometry: the longer side scaled to that of a square, padding below and to the right."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def scaled_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the (height, width) of an image whose longer side becomes ``side`` pixels, each at least 1."""
    scale = side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def letterbox(image: np.ndarray, side: int) -> np.ndarray:
    """Scale an image's longer side to ``side`` and pad it with zeros to a square.

    Args:
        image: (H, W, 3) uint8.
        side: Side of the square in pixels.

    Returns:
        (side, side, 3) uint8.
    """
    height, width = scaled_size(image.shape[0], image.shape[1], side)
    shrinking = side < max(image.shape[:2])
    out = np.zeros((side, side, 3), np.uint8)
    out[:height, :width] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    )
    return out


def points_to_square(points: Tensor, sizes: Tensor) -> Tensor:
    """Map pixels of the original images into the unit square of the letterboxed ones.

    Args:
        points: (B, n, 2) float32 (x, y) pixels.
        sizes: (B, 2) int64 (height, width).

    Returns:
        (B, n, 2) float32 in [0, 1]; 1 is the longer side.
    """
    return points / sizes.amax(dim=1).to(points.dtype)[:, None, None]


def valid_area(sizes: Tensor, low_res: int) -> Tensor:
    """Mark the cells of the low-resolution square that show the image.

    Args:
        sizes: (B, 2) int64 (height, width).
        low_res: Side of the square.

    Returns:
        (B, low_res, low_res) bool.
    """
    steps = torch.arange(low_res, device=sizes.device)
    extent = torch.tensor(
        [scaled_size(int(h), int(w), low_res) for h, w in sizes.tolist()], device=sizes.device
    )
    return (steps[None, :, None] < extent[:, :1, None]) & (steps[None, None, :] < extent[:, 1:, None])


def low_res_mask(mask: np.ndarray, low_res: int) -> np.ndarray:
    """Average a mask over the cells of the low-resolution square and threshold it at one half.

    Args:
        mask: (H, W) bool, not empty.
        low_res: Side of the square.

    Returns:
        (low_res, low_res) bool; never empty: where no cell reaches one half, the fullest cells count.
    """
    share = _shares(mask, low_res)
    return _in_square(share >= min(0.5, float(share.max())), low_res)


def low_res_truth(mask: np.ndarray, void: np.ndarray | None, low_res: int) -> tuple[np.ndarray, np.ndarray]:
    """Average a mask with void pixels over the cells of the low-resolution square.

    A cell counts unless more than half of it is void, and is foreground where the mask holds at least half of
    its other pixels.

    Args:
        mask: (H, W) bool, not empty.
        void: (H, W) bool, pixels that count neither way; None without.
        low_res: Side of the square.

    Returns:
        The target (low_res, low_res) bool, as ``low_res_mask`` gives it where nothing is void, and the cells
        that do not count (low_res, low_res) bool, none of them in the target. The target is never empty:
        where it would be, the fullest cells count.
    """
    if void is None:
        return low_res_mask(mask, low_res), np.zeros((low_res, low_res), bool)
    share, unknown = _shares(mask, low_res), _shares(void, low_res)
    target = (unknown <= 0.5) & (share > 0) & (share >= 0.5 * (1 - unknown))
    if not target.any():
        target = share >= share.max()
    return _in_square(target, low_res), _in_square((unknown > 0.5) & ~target, low_res)


def _shares(mask: np.ndarray, low_res: int) -> np.ndarray:
    """Return how much of each cell that shows the image a mask covers, float32 in [0, 1]."""
    size = scaled_size(mask.shape[0], mask.shape[1], low_res)
    tensor = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
    share: np.ndarray = F.adaptive_avg_pool2d(tensor, size)[0, 0].numpy()
    return share


def _in_square(cells: np.ndarray, low_res: int) -> np.ndarray:
    """Put the cells that show the image into the upper left of a square of False."""
    out = np.zeros((low_res, low_res), bool)
    out[: cells.shape[0], : cells.shape[1]] = cells
    return out


def upscale_logits(logits: Tensor, size: tuple[int, int], side: int | None = None) -> Tensor:
    """Bring low-resolution logits to an image's native size.

    Args:
        logits: (..., h, h) float32, letterboxed.
        size: Native (height, width) in pixels.
        side: Bring the whole square to this side first, and cut off the padding there, where its edge lies
            between fewer pixels; None cuts it off at once.

    Returns:
        (..., height, width) float32.
    """
    flat = logits.reshape(-1, 1, *logits.shape[-2:])
    if side is not None:
        flat = F.interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)
    height, width = scaled_size(*size, flat.shape[-1])
    full = F.interpolate(flat[..., :height, :width], size=size, mode="bilinear", align_corners=False)
    return full.reshape(*logits.shape[:-2], *size)
