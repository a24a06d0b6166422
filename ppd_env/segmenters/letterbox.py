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
    height, width = scaled_size(mask.shape[0], mask.shape[1], low_res)
    tensor = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
    share = F.adaptive_avg_pool2d(tensor, (height, width))[0, 0].numpy()
    out = np.zeros((low_res, low_res), bool)
    out[:height, :width] = share >= min(0.5, float(share.max()))
    return out


def upscale_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring low-resolution logits to an image's native size.

    Args:
        logits: (..., h, h) float32, letterboxed.
        size: Native (height, width) in pixels.

    Returns:
        (..., height, width) float32.
    """
    height, width = scaled_size(*size, logits.shape[-1])
    valid = logits[..., :height, :width]
    flat = valid.reshape(-1, 1, height, width)
    full = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return full.reshape(*logits.shape[:-2], *size)
