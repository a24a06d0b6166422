"""COCO's shapes, drawn: polygons, and run-length encodings (RLE), plain and compressed."""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.draw import polygon2mask

_OFFSET = 48
"""ASCII code of the digit 0 in a compressed RLE."""
_MORE, _NEGATIVE = 0x20, 0x10


def draw_shape(shape: Any, height: int, width: int) -> np.ndarray:
    """Draw the segmentation of one annotation.

    A pixel is inside a polygon if its centre is, where (0, 0) is the image's corner and (0.5, 0.5) the centre
    of its first pixel; several polygons are united.

    Args:
        shape: ``[[x, y, x, y, ...], ...]`` in pixels, or ``{"size": [height, width], "counts": ...}`` with
            counts as a list of runs or as COCO's compressed string; runs go down the columns and begin with
            background.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Returns:
        (height, width) bool; it may be empty.

    Raises:
        ValueError: The shape makes no sense; the message says why.
    """
    if isinstance(shape, dict):
        return _draw_runs(shape, height, width)
    if not isinstance(shape, list) or not shape:
        raise ValueError("its segmentation is neither a list of polygons nor an RLE")
    mask = np.zeros((height, width), bool)
    for polygon in shape:
        mask |= _draw_polygon(polygon, height, width)
    return mask


def _draw_polygon(polygon: Any, height: int, width: int) -> np.ndarray:
    """Draw one polygon, (height, width) bool."""
    try:
        flat = np.asarray(polygon, np.float64)
    except (TypeError, ValueError):
        raise ValueError("a polygon holds something else than numbers") from None
    if flat.ndim != 1 or len(flat) < 6 or len(flat) % 2 or not np.isfinite(flat).all():
        raise ValueError("a polygon needs at least three points, as x, y, x, y, ...")
    corners = flat.reshape(-1, 2)[:, ::-1] - 0.5
    mask: np.ndarray = polygon2mask((height, width), corners)
    return mask


def _draw_runs(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Draw an RLE, (height, width) bool."""
    if shape.get("size") != [height, width]:
        raise ValueError(f"its RLE is of size {shape.get('size')}, the image of [{height}, {width}]")
    counts = shape.get("counts")
    runs = decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or any(
        isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in runs
    ):
        raise ValueError("the counts of its RLE are neither a string nor a list of whole numbers from 0")
    if sum(runs) != height * width:
        raise ValueError(f"the runs of its RLE cover {sum(runs)} pixels, the image has {height * width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def decompress(text: str) -> list[int]:
    """Turn COCO's compressed counts into runs.

    Each character holds five bits, low ones first, and whether more follow; from the third run on, what is
    stored is the difference to the run two places before.

    Args:
        text: The compressed counts.

    Returns:
        The runs.

    Raises:
        ValueError: A character is none of the code, or the last run is cut short.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - _OFFSET
        if not 0 <= bits < 2 * _MORE:
            raise ValueError(f"the counts of its RLE hold the character {character!r}")
        value |= (bits & (_MORE - 1)) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _NEGATIVE:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("the counts of its RLE are cut short")
    return runs
