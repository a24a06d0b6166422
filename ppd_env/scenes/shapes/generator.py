"""Composition of a procedural scene: background, layered objects, light and camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ppd_env.scenes.shapes.config import ShapesConfig
from ppd_env.scenes.shapes.outlines import draw_outline
from ppd_env.scenes.shapes.textures import Texture, draw_texture, paint, smooth_noise, tint

Painter = Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class LabelledImage:
    """A drawn scene.

    Args:
        image: (side, side, 3) uint8 RGB.
        masks: (objects, side, side) bool, the visible part of each object, back to front.
    """

    image: np.ndarray
    masks: np.ndarray


def draw_scene(config: ShapesConfig, rng: np.random.Generator) -> LabelledImage:
    """Draw one scene of several objects; fully decided by ``config`` and the state of ``rng``."""
    ground = draw_texture(rng)
    canvas = paint(ground, rng, config.side, config.side).astype(np.float32)
    masks: list[np.ndarray] = []
    textures: list[Texture] = []
    for _ in range(int(rng.integers(config.objects[0], config.objects[1] + 1))):
        texture = _object_texture(config, rng, ground, textures)
        textures.append(texture)
        mask = _place(config, rng)
        if not mask.any():
            continue
        lay(canvas, mask, _painter(config, texture), rng, shadow=rng.random() < config.shadow)
        masks = [old & (mask == 0) for old in masks]
        masks.append(mask > 0)
    image = photograph(config, canvas, rng)
    return LabelledImage(image, np.array(masks).reshape(-1, config.side, config.side))


def _object_texture(
    config: ShapesConfig, rng: np.random.Generator, ground: Texture, earlier: list[Texture]
) -> Texture:
    chance = rng.random()
    if chance < config.camouflage:
        return tint(ground, rng)
    if earlier and chance < config.camouflage + config.twin:
        return earlier[int(rng.integers(len(earlier)))]
    return draw_texture(rng)


def _place(config: ShapesConfig, rng: np.random.Generator) -> np.ndarray:
    low, high = np.log(config.radius[0]), np.log(config.radius[1])
    radius = float(np.exp(rng.uniform(low, high))) * config.side
    centre = rng.uniform(0.08, 0.92, 2) * config.side
    return draw_outline(rng, config.side, (float(centre[0]), float(centre[1])), radius)


def _painter(config: ShapesConfig, texture: Texture) -> Painter:
    """Return a function that paints an object's surface, sometimes with a part of another material."""

    def painted(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        surface = paint(texture, rng, height, width)
        if rng.random() >= config.parts:
            return surface
        other = tint(texture, rng) if rng.random() < 0.4 else draw_texture(rng)
        region = smooth_noise(rng, height, width, max(height, width) / rng.uniform(1.0, 3.0)) > rng.uniform(
            -0.2, 0.6
        )
        surface[region] = paint(other, rng, height, width)[region]
        return surface

    return painted


def lay(
    canvas: np.ndarray, mask: np.ndarray, painter: Painter, rng: np.random.Generator, *, shadow: bool = False
) -> None:
    """Lay an object on the canvas, in place.

    Args:
        canvas: (H, W, 3) float32, 0 to 255.
        mask: (H, W) uint8, non-zero where the object is; not empty.
        painter: Paints the object's surface over its bounding box.
        rng: Decides shading and the softness of the edge.
        shadow: Whether a soft shadow falls on what lies behind.
    """
    if shadow:
        _throw_shadow(canvas, mask, rng)
    x, y, w, h = cv2.boundingRect(mask)
    pad = 3
    top, left = max(0, y - pad), max(0, x - pad)
    bottom, right = min(mask.shape[0], y + h + pad), min(mask.shape[1], x + w + pad)
    piece = mask[top:bottom, left:right]
    surface = painter(rng, bottom - top, right - left).astype(np.float32)
    surface *= _shading(piece, rng)[..., None]
    alpha = cv2.GaussianBlur(piece, (0, 0), float(rng.uniform(0.4, 1.3))).astype(np.float32)[..., None] / 255
    region = canvas[top:bottom, left:right]
    region += alpha * (surface - region)


def _shading(piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light on a surface: a plane, a bulge that darkens towards the rim, or nothing."""
    height, width = piece.shape
    chance = rng.random()
    if chance < 0.3:
        return np.ones((height, width), np.float32)
    if chance < 0.65:
        turn = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        return 1 + float(rng.uniform(0.05, 0.35)) * (x * np.cos(turn) + y * np.sin(turn)).astype(np.float32)
    depth = cv2.distanceTransform(piece, cv2.DIST_L2, 3)
    bulge = np.sqrt(depth / max(float(depth.max()), 1.0))
    strength = float(rng.uniform(0.1, 0.45))
    return (1 - strength + 1.4 * strength * bulge).astype(np.float32)


def _throw_shadow(canvas: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    dx, dy = rng.uniform(-9, 9, 2)
    small = cv2.resize(mask, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    move = np.array([[1, 0, dx / 4], [0, 1, dy / 4]], np.float32)
    soft = cv2.GaussianBlur(
        cv2.warpAffine(small, move, small.shape[::-1]), (0, 0), float(rng.uniform(0.7, 2.5))
    )
    soft = cv2.resize(soft, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    canvas *= 1 - float(rng.uniform(0.15, 0.5)) * soft[..., None].astype(np.float32) / 255


def photograph(config: ShapesConfig, canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what a camera adds: uneven light, hairs, highlights, blur and noise.

    Args:
        config: Probabilities of hairs and highlights.
        canvas: (H, W, 3) float32, 0 to 255; changed in place.
        rng: Decides everything.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = canvas.shape[:2]
    if rng.random() < 0.5:
        light = smooth_noise(rng, height, width, max(height, width) / 1.5)
        canvas *= (1 + float(rng.uniform(0.03, 0.18)) * light)[..., None]
    if rng.random() < config.hair:
        _draw_hairs(canvas, rng)
    if rng.random() < config.highlights:
        _draw_highlights(canvas, rng)
    if rng.random() < 0.4:
        canvas = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.4, 1.5)))
    if rng.random() < 0.6:
        canvas += float(rng.uniform(1, 10)) * rng.standard_normal((height, width, 1), dtype=np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _draw_hairs(canvas: np.ndarray, rng: np.random.Generator) -> None:
    side = canvas.shape[0]
    colour = rng.uniform(0, 90, 3).tolist()
    for _ in range(int(rng.integers(2, 14))):
        start, end = rng.uniform(0, side, 2), rng.uniform(0, side, 2)
        middle = (start + end) / 2 + rng.normal(0, side / 8, 2)
        t = np.linspace(0, 1, 16)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        cv2.polylines(canvas, [np.round(curve).astype(np.int32)], False, colour, 1, cv2.LINE_AA)


def _draw_highlights(canvas: np.ndarray, rng: np.random.Generator) -> None:
    side = canvas.shape[0]
    for _ in range(int(rng.integers(1, 8))):
        centre = np.round(rng.uniform(0, side, 2)).astype(int).tolist()
        axes = np.round(rng.uniform(1, 7, 2)).astype(int).tolist()
        cv2.ellipse(
            canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, (245, 245, 240), -1, cv2.LINE_AA
        )
