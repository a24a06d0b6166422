"""Outlines of procedural objects: blobs, polygons, bands, rings and bodies of several parts."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

_SUBPIXEL_BITS = 4
Contours = list[np.ndarray]


def draw_outline(
    rng: np.random.Generator, side: int, centre: tuple[float, float], radius: float
) -> np.ndarray:
    """Draw a random shape.

    Args:
        rng: Decides kind, proportions and rotation.
        side: Side of the square canvas in pixels.
        centre: (x, y) in pixels.
        radius: Rough radius in pixels.

    Returns:
        (side, side) uint8, 255 inside and 0 outside; may have holes and several parts.
    """
    kind = rng.choice(KINDS, p=WEIGHTS)
    parts = OUTLINES[kind](rng)
    angle, stretch = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.35, 0.35))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([stretch, 1 / stretch])
    mask = np.zeros((side, side), np.uint8)
    for contours in parts:
        fill(mask, [contour @ turn.T * radius + centre for contour in contours])
    return mask


def fill(mask: np.ndarray, contours: Contours, value: int = 255) -> None:
    """Fill polygons in place by the even-odd rule: a contour inside another is a hole.

    Args:
        mask: (H, W) uint8.
        contours: Arrays (n, 2) of (x, y) pixels, sub-pixel.
        value: Written inside.
    """
    fixed = [np.round(contour * 2**_SUBPIXEL_BITS).astype(np.int32) for contour in contours]
    cv2.fillPoly(mask, fixed, value, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)


def _ring_of(radii: np.ndarray) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(turn), radii * np.sin(turn)], axis=1)


def _blob_contour(rng: np.random.Generator, roughness: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radii = np.ones(72)
    for wave in range(2, 9):
        radii += roughness / wave * rng.normal() * np.cos(wave * turn + rng.uniform(0, 2 * np.pi))
    return _ring_of(np.clip(radii, 0.25, 2.0))


def _blob(rng: np.random.Generator) -> list[Contours]:
    return [[_blob_contour(rng, rng.uniform(0.05, 0.6))]]


def _ellipse(rng: np.random.Generator) -> list[Contours]:
    return [[_ring_of(np.ones(64))]]


def _polygon(rng: np.random.Generator) -> list[Contours]:
    corners = int(rng.integers(3, 9))
    turn = np.sort(rng.uniform(0, 2 * np.pi, corners) * 0.3 + np.arange(corners) / corners * 2 * np.pi)
    radii = rng.uniform(0.6, 1.2, corners)
    return [[np.stack([radii * np.cos(turn), radii * np.sin(turn)], axis=1)]]


def _box(rng: np.random.Generator) -> list[Contours]:
    w, h = rng.uniform(0.5, 1.1), rng.uniform(0.4, 1.0)
    return [[np.array([[-w, -h], [w, -h], [w, h], [-w, h]])]]


def _star(rng: np.random.Generator) -> list[Contours]:
    spikes = int(rng.integers(4, 9))
    radii = np.where(np.arange(2 * spikes) % 2, rng.uniform(0.4, 0.75), 1.15)
    return [[_ring_of(radii)]]


def _ring(rng: np.random.Generator) -> list[Contours]:
    hole = _blob_contour(rng, 0.15) * rng.uniform(0.35, 0.65) + rng.uniform(-0.12, 0.12, 2)
    return [[_blob_contour(rng, 0.12), hole]]


def _holes(rng: np.random.Generator) -> list[Contours]:
    body = _blob_contour(rng, 0.2) * 1.1
    spots = [_ring_of(np.full(24, rng.uniform(0.14, 0.24))) + rng.uniform(-0.5, 0.5, 2) for _ in range(3)]
    return [[body, *spots[: int(rng.integers(1, 4))]]]


def _band(rng: np.random.Generator) -> list[Contours]:
    along = np.linspace(-1.5, 1.5, 40)
    bend = rng.normal(0, 0.4) * along**2 + rng.normal(0, 0.3) * np.sin(rng.uniform(1, 3) * along)
    spine = np.stack([along, bend - bend.mean()], axis=1)
    normal = np.gradient(spine, axis=0) @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    width = rng.uniform(0.14, 0.35) * (1 + rng.uniform(-0.4, 0.4) * along[:, None] / 1.5)
    return [[np.concatenate([spine + width * normal, (spine - width * normal)[::-1]])]]


def _body(rng: np.random.Generator) -> list[Contours]:
    """A trunk with limbs, like an animal, a tool or a vehicle."""
    parts = [[_blob_contour(rng, 0.2) * rng.uniform(0.55, 0.8)]]
    for _ in range(int(rng.integers(1, 6))):
        turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.0)
        at = reach * np.array([np.cos(turn), np.sin(turn)])
        if rng.random() < 0.5:
            parts.append([_blob_contour(rng, 0.2) * rng.uniform(0.2, 0.45) + at])
            continue
        across = rng.uniform(0.07, 0.2) * np.array([-at[1], at[0]]) / reach
        parts.append([np.array([across, at * 1.35 + across * 0.7, at * 1.35 - across * 0.7, -across])])
    return parts


def _apart(rng: np.random.Generator) -> list[Contours]:
    """Several separate pieces that belong together."""
    pieces = []
    for place in range(int(rng.integers(2, 4))):
        turn = 2 * np.pi * place / 3 + rng.uniform(-0.4, 0.4)
        at = rng.uniform(0.6, 0.9) * np.array([np.cos(turn), np.sin(turn)])
        pieces.append([_blob_contour(rng, 0.25) * rng.uniform(0.3, 0.5) + at])
    return pieces


OUTLINES: dict[str, Callable[[np.random.Generator], list[Contours]]] = {
    "blob": _blob,
    "ellipse": _ellipse,
    "polygon": _polygon,
    "box": _box,
    "star": _star,
    "ring": _ring,
    "holes": _holes,
    "band": _band,
    "body": _body,
    "apart": _apart,
}
KINDS = tuple(OUTLINES)
WEIGHTS = (0.24, 0.12, 0.1, 0.08, 0.04, 0.05, 0.05, 0.08, 0.2, 0.04)
