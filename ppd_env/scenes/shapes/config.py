"""The frozen configuration of the procedural scenes and its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

GENERATOR_VERSION = 1
"""Raised whenever the generator draws different scenes from the same seed."""


@dataclass(frozen=True)
class ShapesConfig:
    """How a procedural scene is drawn. Lengths are shares of the image side.

    Args:
        side: Side of the square image in pixels.
        objects: Least and greatest number of objects.
        radius: Least and greatest radius of an object.
        twin: Probability that an object shares its texture with an earlier one.
        camouflage: Probability that an object is a tinted piece of the background's texture.
        parts: Probability that an object carries a second texture on a part of it.
        shadow: Probability that an object throws a soft shadow.
        hair: Probability that thin lines cross the image.
        highlights: Probability that small bright spots lie on the image.
        target_area: Least and greatest visible share of the image a target may have.
    """

    side: int = 256
    objects: tuple[int, int] = (2, 7)
    radius: tuple[float, float] = (0.14, 0.45)
    twin: float = 0.35
    camouflage: float = 0.2
    parts: float = 0.4
    shadow: float = 0.35
    hair: float = 0.12
    highlights: float = 0.15
    target_area: tuple[float, float] = (0.03, 0.6)

    def digest(self) -> str:
        """Return 16 hex digits that change with the generator's version or any of its settings."""
        text = json.dumps({"version": GENERATOR_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
