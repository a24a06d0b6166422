"""Procedural textures: a scalar field in [0, 1] coloured through a palette."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Field = Callable[["Texture", np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class Texture:
    """A family of look-alike patches; two objects that share a ``Texture`` look made of one material.

    Args:
        kind: Name of the scalar field.
        scale: Period or grain of the field in pixels.
        angle: Direction of the field in radians.
        warp: Strength of the distortion, in periods.
        palette: (256, 3) uint8 colours the field is mapped through.
    """

    kind: str
    scale: float
    angle: float
    warp: float
    palette: np.ndarray


def draw_texture(rng: np.random.Generator) -> Texture:
    """Draw a random texture."""
    return Texture(
        kind=str(rng.choice(KINDS, p=WEIGHTS)),
        scale=float(np.exp(rng.uniform(np.log(5.0), np.log(70.0)))),
        angle=float(rng.uniform(0, np.pi)),
        warp=float(rng.uniform(0, 0.6)),
        palette=draw_palette(rng),
    )


def draw_palette(rng: np.random.Generator) -> np.ndarray:
    """Draw a (256, 3) uint8 palette of two to four colours around one base colour."""
    stops = int(rng.integers(2, 5))
    base = rng.uniform(15, 240, 3)
    if rng.random() < 0.35:
        base = np.full(3, base.mean()) + rng.normal(0, 12, 3)
    spread = np.exp(rng.uniform(np.log(5.0), np.log(80.0)))
    shared = rng.normal(0, 1, (stops, 1))
    colours = base + spread * (0.7 * shared + 0.5 * rng.normal(0, 1, (stops, 3)))
    at = np.linspace(0, 255, stops)
    steps = np.arange(256)
    channels = [np.interp(steps, at, colours[:, c]) for c in range(3)]
    return np.clip(np.stack(channels, axis=1), 0, 255).astype(np.uint8)


def tint(texture: Texture, rng: np.random.Generator) -> Texture:
    """Return the same field in slightly other colours: an object that hides in its background."""
    shift = rng.normal(0, 1, 3) * 8 + rng.choice((-1, 1)) * rng.uniform(12, 45)
    palette = np.clip(texture.palette.astype(np.float32) + shift, 0, 255).astype(np.uint8)
    return Texture(texture.kind, texture.scale, texture.angle, texture.warp, palette)


def paint(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Paint a patch of a texture.

    Args:
        texture: What to paint.
        rng: Decides which piece of the endless texture is shown.
        height: Rows of the patch.
        width: Columns of the patch.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    field = FIELDS[texture.kind](texture, rng, height, width)
    return texture.palette[np.clip(field * 255, 0, 255).astype(np.uint8)]


def smooth_noise(rng: np.random.Generator, height: int, width: int, grain: float) -> np.ndarray:
    """Return (height, width) float32 noise of about unit variance that varies over ``grain`` pixels."""
    grain = max(grain, 1.0)
    rows, columns = int(height / grain) + 3, int(width / grain) + 3
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    fine = cv2.resize(
        coarse, (int(columns * grain) + 1, int(rows * grain) + 1), interpolation=cv2.INTER_CUBIC
    )
    top, left = int(rng.integers(0, int(grain) + 1)), int(rng.integers(0, int(grain) + 1))
    return fine[top : top + height, left : left + width]


def _coordinates(
    texture: Texture, rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rotated, warped, randomly shifted coordinates in periods of the texture."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cos, sin = np.cos(texture.angle), np.sin(texture.angle)
    u = (x * cos + y * sin) / texture.scale + rng.uniform(0, 100)
    v = (y * cos - x * sin) / texture.scale + rng.uniform(0, 100)
    if texture.warp > 0.1:
        u = u + texture.warp * 0.5 * smooth_noise(rng, height, width, 1.5 * texture.scale)
    return u.astype(np.float32), v.astype(np.float32)


def _plain(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return 0.5 + 0.03 * smooth_noise(rng, height, width, texture.scale)


def _clouds(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    field = np.full((height, width), 0.5, np.float32)
    for octave in range(3):
        field += 0.25 * 0.55**octave * smooth_noise(rng, height, width, texture.scale / 2**octave)
    return field


def _grain(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    fine = smooth_noise(rng, height, width, 1.0 + texture.scale / 40)
    return 0.5 + 0.2 * fine + 0.1 * smooth_noise(rng, height, width, texture.scale)


def _stripes(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    u, _ = _coordinates(texture, rng, height, width)
    return 0.5 + (0.5 if texture.warp > 0.3 else 0.9) * np.sin(2 * np.pi * u)


def _checks(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    u, v = _coordinates(texture, rng, height, width)
    return 0.5 + 1.5 * np.sin(np.pi * u) * np.sin(np.pi * v)


def _dots(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    u, v = _coordinates(texture, rng, height, width)
    du, dv = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    return np.clip((0.36 - np.sqrt(du * du + dv * dv)) * 8 + 0.5, 0, 1)


def _bricks(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    u, v = _coordinates(texture, rng, height, width)
    u = u / 2 + 0.5 * (np.floor(v) % 2)
    edge = np.minimum(np.minimum(u % 1, 1 - u % 1) * 2, np.minimum(v % 1, 1 - v % 1))
    return np.clip(edge * 7, 0, 1) * 0.8 + 0.1 * smooth_noise(rng, height, width, 3)


def _spots(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.clip(0.5 + 3.0 * (smooth_noise(rng, height, width, texture.scale / 1.5) - 0.3), 0, 1)


def _gradient(texture: Texture, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = x * np.cos(texture.angle) + y * np.sin(texture.angle)
    along = (along - along.min()) / max(float(np.ptp(along)), 1.0)
    return 0.1 + 0.8 * along + 0.04 * smooth_noise(rng, height, width, 4)


FIELDS: dict[str, Field] = {
    "plain": _plain,
    "clouds": _clouds,
    "grain": _grain,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "bricks": _bricks,
    "spots": _spots,
    "gradient": _gradient,
}
KINDS = tuple(FIELDS)
WEIGHTS = (0.15, 0.2, 0.15, 0.11, 0.06, 0.06, 0.05, 0.1, 0.12)
