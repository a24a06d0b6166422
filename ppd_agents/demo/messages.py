"""What travels between page and server: JSON in, JSON and small pictures out."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ppd_agents.demo.pictures import Picture
from ppd_agents.demo.studio import LARGEST_BUDGET, View
from ppd_env.errors import PPDError

MOST_JSON = 200_000
"""Bytes of a request that is JSON, at most."""

_KEYS = {"points", "labels", "budget", "prompter", "reference", "matched"}


@dataclass(frozen=True)
class Request:
    """What a page asks for.

    Args:
        points: Pixels (x, y).
        labels: 1 positive, 0 negative.
        budget: Steps of an attack or a defence.
        prompter: Name of a prompter.
        reference: Id of a picture with its mask.
        matched: The points come from a one-shot prompter.
    """

    points: list[list[float]]
    labels: list[int]
    budget: int = 10
    prompter: str = "matching"
    reference: str | None = None
    matched: bool = False


def read_request(content: bytes) -> Request:
    """Read a request.

    Raises:
        PPDError: It is not what a page sends; the message says what is wrong.
    """
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        raise PPDError("The request is not JSON.") from None
    if not isinstance(found, dict) or set(found) - _KEYS:
        raise PPDError(f"A request is an object with the keys {', '.join(sorted(_KEYS))}.")
    points, labels = found.get("points", []), found.get("labels", [])
    pairs = isinstance(points, list) and all(_is_pair(point) for point in points)
    if not pairs or not isinstance(labels, list) or len(labels) != len(points):
        raise PPDError("points must be a list of [x, y] in pixels, and labels as many 1 or 0.")
    if not all(label in (0, 1) and _is_number(label) for label in labels):
        raise PPDError("labels must be 1 (positive) or 0 (negative).")
    budget = found.get("budget", Request.budget)
    if not isinstance(budget, int) or isinstance(budget, bool) or not 1 <= budget <= LARGEST_BUDGET:
        raise PPDError(f"budget must be a whole number from 1 to {LARGEST_BUDGET}.")
    prompter, reference = found.get("prompter", Request.prompter), found.get("reference")
    if not isinstance(prompter, str) or not isinstance(reference, str | None):
        raise PPDError("prompter and reference must be text.")
    if not isinstance(matched := found.get("matched", Request.matched), bool):
        raise PPDError("matched must be true or false.")
    return Request(points, labels, budget, prompter, reference, matched)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_pair(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(_is_number(value) for value in point)


def about_picture(number: str, picture: Picture) -> dict[str, Any]:
    """Describe a picture to its page."""
    height, width = picture.size
    return {
        "id": number,
        "name": picture.name,
        "width": width,
        "height": height,
        "truth": picture.mask is not None,
    }


def about_view(view: View) -> dict[str, Any]:
    """Describe a picture under some prompts to its page; the mask is a PNG that is opaque where it is set."""
    return {
        "points": view.points.tolist(),
        "labels": view.labels.tolist(),
        "mask": "data:image/png;base64," + base64.b64encode(stencil(view.mask)).decode("ascii"),
        "predicted_iou": round(min(1.0, max(0.0, view.predicted_iou)), 4),
        "dice": None if view.dice is None else round(view.dice, 4),
        "touched": view.touched.tolist(),
        "touched_labels": view.touched_labels.tolist(),
        "reason": view.reason,
    }


def stencil(mask: np.ndarray) -> bytes:
    """Return a mask (H, W) bool as a PNG of one bit per pixel, transparent where it is not set."""
    return _png(Image.fromarray(mask), transparency=0)


def grey(mask: np.ndarray) -> bytes:
    """Return a mask (H, W) bool as a PNG of 0 and 255, as ``ppd refine`` writes it."""
    return _png(Image.fromarray(mask.astype(np.uint8) * 255))


def png(picture: np.ndarray) -> bytes:
    """Return a picture (H, W, 3) uint8 as PNG."""
    return _png(Image.fromarray(picture))


def _png(picture: Image.Image, **options: Any) -> bytes:
    stored = io.BytesIO()
    picture.save(stored, "PNG", **options)
    return stored.getvalue()
