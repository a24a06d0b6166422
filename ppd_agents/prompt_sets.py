"""What users hand in to be cleaned: an image and its prompts, checked, and each prompt's candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ppd_env.errors import PPDError
from ppd_env.game.actions import NEGATIVE, POSITIVE, encode

Points = np.ndarray | Sequence[Sequence[float]]
"""(n, 2) pixels (x, y), as SAM's predictor takes them."""

Labels = np.ndarray | Sequence[int]
"""(n,) 1 positive, 0 negative."""


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Checked prompts of one image.

    Args:
        points: (n, 2) float64 pixels (x, y).
        labels: (n,) int64, 1 positive, 0 negative.
        candidates: (n,) int64, the action that removes each prompt: its sign and its patch. Prompts of one
            sign in one patch share it.
    """

    points: np.ndarray
    labels: np.ndarray
    candidates: np.ndarray


def check_image(image: np.ndarray) -> None:
    """Refuse what is not an image.

    Args:
        image: Should be (H, W, 3) uint8 RGB, of any size.

    Raises:
        PPDError: It is something else; the message says how to convert it.
    """
    if not isinstance(image, np.ndarray):
        raise PPDError(
            f"The image must be an (H, W, 3) uint8 RGB array, got {type(image).__name__}: convert it, from "
            'PIL by np.asarray(image.convert("RGB")), from torch by image.permute(1, 2, 0).cpu().numpy().'
        )
    wanted = f"The image must be (H, W, 3) uint8 RGB, got {image.dtype} of shape {image.shape}"
    if image.ndim == 2:
        raise PPDError(f"{wanted}: give the grey channel three times, np.stack([image] * 3, axis=-1).")
    if image.ndim == 3 and image.shape[2] == 1:
        raise PPDError(f"{wanted}: give the grey channel three times, image.repeat(3, axis=2).")
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        raise PPDError(f"{wanted}: put the channels last, image.transpose(1, 2, 0).")
    if image.ndim != 3 or image.shape[2] != 3:
        raise PPDError(f"{wanted}: keep red, green and blue, in the last axis.")
    if image.dtype != np.uint8:
        raise PPDError(f"{wanted}: scale it to 0..255 and convert it, image.astype(np.uint8).")
    if not image.size:
        raise PPDError(f"The image is empty: its shape is {image.shape}.")


def check_prompts(points: Points, labels: Labels, size: tuple[int, int], grid: int) -> PromptSet:
    """Check the prompts of one image and find their patches.

    Args:
        points: (n, 2) pixels (x, y), n at least 1.
        labels: (n,) 1 positive, 0 negative.
        size: (height, width) of the image in pixels.
        grid: Patches per side, stretched over the whole image.

    Returns:
        The prompts.

    Raises:
        PPDError: A prompt cannot be used; the message names it.
    """
    where, signs = _as_numbers("points", points), _as_numbers("labels", labels)
    if where.ndim == 3 and len(where) == 1:
        raise PPDError(
            f"points and labels are those of one image, got shape {where.shape}: take the first axis away, "
            "points[0] and labels[0]."
        )
    if where.ndim != 2 or where.shape[1] != 2 or not len(where):
        raise PPDError(f"points must be (n, 2) pixels (x, y) with n >= 1, got shape {where.shape}.")
    if signs.shape != (len(where),):
        raise PPDError(f"{len(where)} points need as many labels, got shape {signs.shape}.")
    known = np.isin(signs, (0, 1))
    if not known.all():
        raise PPDError(f"labels must be 1 (positive) or 0 (negative), got {signs[~known][0]:g}.")
    refuse_outside(where, size)
    _refuse_contradictions(where, signs)
    nodes = _patches(where, size, grid)
    sign = torch.from_numpy(np.where(signs == 1, POSITIVE, NEGATIVE))
    candidates = encode(sign, torch.from_numpy(nodes), grid * grid).numpy()
    return PromptSet(where, signs.astype(np.int64), candidates)


def _as_numbers(name: str, given: Points | Labels) -> np.ndarray:
    try:
        found = np.asarray(given)
        if found.dtype.kind not in "biuf" and found.size:
            raise TypeError(f"not of {found.dtype}")
        return found.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise PPDError(f"{name} must be an array of numbers ({error}).") from None


def refuse_outside(points: np.ndarray, size: tuple[int, int]) -> None:
    """Refuse points that are not finite or lie outside the image.

    Args:
        points: (n, 2) pixels (x, y).
        size: (height, width) of the image in pixels.

    Raises:
        PPDError: The message names the first such point.
    """
    height, width = size
    finite = np.isfinite(points).all(1)
    if not finite.all():
        x, y = points[~finite][0]
        raise PPDError(f"Point ({x:g}, {y:g}) is not finite: give (x, y) in pixels of the image.")
    inside = (points >= 0).all(1) & (points[:, 0] < width) & (points[:, 1] < height)
    if not inside.all():
        x, y = points[~inside][0]
        raise PPDError(
            f"Point ({x:g}, {y:g}) lies outside the image, which is {width} pixels wide and {height} high: "
            "give (x, y) in pixels of this image."
        )


def _refuse_contradictions(points: np.ndarray, labels: np.ndarray) -> None:
    seen: dict[tuple[float, float], float] = {}
    for (x, y), label in zip(points.tolist(), labels.tolist(), strict=True):
        if seen.setdefault((x, y), label) != label:
            raise PPDError(
                f"Point ({x:g}, {y:g}) is given as positive and as negative: remove one of the two."
            )


def _patches(points: np.ndarray, size: tuple[int, int], grid: int) -> np.ndarray:
    """Return the node (n,) int64 in whose patch each point lies."""
    height, width = size
    column, row = (points * grid / (width, height)).astype(np.int64).T
    return row * grid + column
