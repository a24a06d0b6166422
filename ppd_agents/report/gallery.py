"""Scenes as pictures: image, ground-truth outline, mask and prompts, before and after attack and defence."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

from ppd_env.errors import PPDError

SIDE = 360
"""Longer side of a picture in its own units and in stored pixels."""


@dataclass(frozen=True)
class Panel:
    """One state of a scene's prompts.

    Args:
        title: For example "Attacked".
        status: (N,) int8, 0 inactive, 1 positive, 2 negative.
        mask: (H, W) bool, what the segmenter makes of them.
        dice: Dice of the mask in percent.
    """

    title: str
    status: np.ndarray
    mask: np.ndarray
    dice: float


@dataclass(frozen=True)
class GalleryScene:
    """A scene with its panels in the order of play; each is compared with the one before it.

    Args:
        name: Name of the scene.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) bool.
        points: (N, 2) float, prompt points in pixels (x, y).
        panels: For example ideal, attacked, defended.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    points: np.ndarray
    panels: Sequence[Panel]


def data_uri(image: np.ndarray, quality: int = 86) -> str:
    """Encode an RGB image (H, W, 3) uint8 as a JPEG data URI."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise PPDError(f"An image of shape {image.shape} could not be encoded as JPEG.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """Trace a mask as the data of an SVG path, to be filled by the even-odd rule.

    Args:
        mask: (H, W) bool.
        size: (width, height) of the drawing.
    """
    scaled = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    contours, _ = cv2.findContours(scaled.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.7, closed=True)[:, 0]
        if len(points) >= 3:
            parts.append("M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in points) + "Z")
    return "".join(parts)


def _prompt(x: float, y: float, sign: int, css: str, what: str) -> str:
    """Draw one prompt: a disc with its sign."""
    kind = "positive" if sign == 1 else "negative"
    cross = "M-3.4 0H3.4" + ("M0-3.4V3.4" if sign == 1 else "")
    return (
        f'<g class="prompt {kind} {css}" transform="translate({x:.1f} {y:.1f})">'
        f'<title>{kind} prompt, {what}</title><circle r="6.4"/><path d="{cross}"/></g>'
    )


def _removed(x: float, y: float, sign: int) -> str:
    """Draw the place of a prompt that was just taken away: a cross."""
    kind = "positive" if sign == 1 else "negative"
    cross = "M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5"
    return (
        f'<g class="removed {kind}" transform="translate({x:.1f} {y:.1f})">'
        f'<title>removed {kind} prompt</title><path class="halo" d="{cross}"/><path d="{cross}"/></g>'
    )


def _prompts(panel: Panel, before: Panel | None, points: np.ndarray) -> str:
    """Draw the active prompts of a panel, new ones ringed, those just removed as faint crosses."""
    drawn = []
    for node, (x, y) in enumerate(points):
        now = int(panel.status[node])
        was = now if before is None else int(before.status[node])
        if now == 0 and was != 0:
            drawn.append(_removed(x, y, was))
        elif now != 0:
            added = was == 0
            drawn.append(_prompt(x, y, now, "added" if added else "", "added" if added else "kept"))
    return "".join(drawn)


def scene_figure(scene: GalleryScene, number: int) -> str:
    """Draw a scene as an HTML figure with one SVG per panel.

    Args:
        scene: What to draw.
        number: Unique on the page; the panels share one stored image through it.
    """
    height, width = scene.image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrinking = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    uri = data_uri(cv2.resize(scene.image, size, interpolation=shrinking))
    truth = outline(scene.truth, size)
    points = np.asarray(scene.points, float) * scale
    panels = []
    for index, panel in enumerate(scene.panels):
        image = f'<image id="image{number}" width="{size[0]}" height="{size[1]}" href="{uri}"/>'
        if index:
            image = f'<use href="#image{number}"/>'
        before = scene.panels[index - 1] if index else None
        panels.append(
            f'<div class="panel"><svg viewBox="0 0 {size[0]} {size[1]}" role="img" '
            f'aria-label="{escape(scene.name)}, {escape(panel.title)}">{image}'
            f'<path class="mask" d="{outline(panel.mask, size)}"/><path class="truth-back" d="{truth}"/>'
            f'<path class="truth" d="{truth}"/>{_prompts(panel, before, points)}</svg>'
            f"<p><span>{escape(panel.title)}</span><b>{panel.dice:.1f}</b></p></div>"
        )
    return (
        f'<figure class="scene"><div class="panels">{"".join(panels)}</div>'
        f"<figcaption>{escape(scene.name)}</figcaption></figure>"
    )
