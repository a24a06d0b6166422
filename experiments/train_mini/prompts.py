"""Prompt sets a segmenter is trained on: dense jittered ideal prompts, a few random points, a first click."""

from __future__ import annotations

import cv2
import numpy as np

GRID = 16
MAX_POINTS = 40


def draw_prompts(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
    """Draw one prompt set for a mask.

    Args:
        mask: (side, side) uint8: 1 inside, 0 outside, 255 where the letterbox shows no image.
        rng: Decides everything.

    Returns:
        points: (MAX_POINTS, 2) float32 (x, y) in the unit square.
        labels: (MAX_POINTS,) int64, -1 for empty slots.
        clicks: Whether the set is a single first click, to be corrected by further ones.
    """
    inside, extent = (mask == 1).astype(np.uint8), _extent(mask)
    chance = rng.random()
    clicks = chance >= 0.7
    if chance < 0.55:
        points = _dense(extent, rng)
    elif chance < 0.7:
        points = _few(inside, extent, rng)
    else:
        points = first_click(inside, rng)[None]
    side = mask.shape[0]
    cells = np.clip((points * side).astype(int), 0, side - 1)
    signs = inside[cells[:, 1], cells[:, 0]].astype(np.int64)
    if not signs.any():
        points = np.concatenate([points[: MAX_POINTS - 1], first_click(inside, rng)[None]])
        signs = np.append(signs[: MAX_POINTS - 1], 1)
    out = np.zeros((MAX_POINTS, 2), np.float32)
    labels = np.full(MAX_POINTS, -1, np.int64)
    out[: len(points)], labels[: len(points)] = points, signs
    return out, labels, clicks


def first_click(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an (x, y) of the unit square inside an (side, side) uint8 mask: its centre, or anywhere."""
    depth = cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    if rng.random() < 0.5:
        at = int(depth.argmax())
    else:
        safe = np.flatnonzero(depth >= min(3.0, float(depth.max())))
        at = int(safe[rng.integers(len(safe))])
    y, x = divmod(at, inside.shape[1])
    return (np.array([x, y]) + 0.5) / inside.shape[0]


def _dense(extent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random patch centre in each stride x stride cell of the patch grid, some dropped, some nudged."""
    stride = int(rng.integers(3, 6))
    start = np.arange(0, GRID, stride)
    column, row = (a.ravel() for a in np.meshgrid(start, start))
    column = column + rng.integers(0, stride, len(column))
    row = row + rng.integers(0, stride, len(row))
    keep = (column < GRID) & (row < GRID) & (rng.random(len(row)) >= rng.uniform(0, 0.3))
    nodes = np.stack([column, row], axis=1)[keep][:MAX_POINTS]
    nudge = rng.uniform(-0.5, 0.5, nodes.shape) if rng.random() < 0.4 else 0.0
    return np.clip((nodes + 0.5 + nudge) / GRID, 0, 0.999) * extent


def _few(inside: np.ndarray, extent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    positives = [first_click(inside, rng) for _ in range(int(rng.integers(1, 4)))]
    negatives = rng.uniform(0, 1, (int(rng.integers(0, 8)), 2)) * extent
    return np.concatenate([np.array(positives), negatives])


def _extent(mask: np.ndarray) -> np.ndarray:
    """Share of the square that shows the image, (x, y); padding is marked by the value 255."""
    pad = mask == 255
    return np.array([1 - pad[0].mean(), 1 - pad[:, 0].mean()])
