"""Scenes with ground truth that the page offers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from ppd_agents.demo.pictures import Picture
from ppd_env.errors import PPDError, SceneError
from ppd_env.scenes.scene import RawScene, SceneSource
from ppd_env.scenes.sources import open_source

PER_SET = 24
"""The first so many scenes of each set are offered."""

THUMBNAIL = (160, 120)
"""Width and height that thumbnails fit into, in pixels."""


@dataclass(frozen=True, eq=False)
class Example:
    """One scene of a source, read when somebody asks for it.

    Args:
        source: Where it comes from.
        index: Its place there.
    """

    source: SceneSource
    index: int

    @cached_property
    def name(self) -> str:
        """What the scene is called."""
        return self.scene().name

    @cached_property
    def thumbnail(self) -> bytes:
        """A small JPEG in which the object stands out."""
        scene = self.scene()
        dimmed = scene.image // 2
        dimmed[scene.mask] = scene.image[scene.mask]
        return jpeg(dimmed, THUMBNAIL)

    def scene(self) -> RawScene:
        """Read the scene.

        Raises:
            PPDError: It cannot be used; the message names no file.
        """
        try:
            return self.source[self.index]
        except SceneError as error:
            raise PPDError(f"This example cannot be used: {error.reason}") from None

    def picture(self) -> Picture:
        """Return a picture of its own for whoever wants to work on it."""
        scene = self.scene()
        return Picture(scene.name, scene.image, mask=scene.mask, void=scene.void)


def open_examples(uris: tuple[str, ...]) -> list[Example]:
    """Return the first scenes of each URI; those that cannot be read are left out.

    Raises:
        PPDError: A URI is wrong.
    """
    found = []
    for uri in uris:
        source = open_source(uri)
        for index in range(min(PER_SET, len(source))):
            example = Example(source, index)
            try:
                _ = example.name
            except PPDError:
                continue
            found.append(example)
    return found


def jpeg(image: np.ndarray, box: tuple[int, int]) -> bytes:
    """Return an image (H, W, 3) uint8, scaled down to fit into ``box`` (width, height), as a JPEG file."""
    picture, stored = Image.fromarray(image), io.BytesIO()
    picture.thumbnail(box, Image.Resampling.LANCZOS)
    picture.save(stored, "JPEG", quality=88)
    return stored.getvalue()
