"""One image with its ground truth, before any model has seen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class RawScene:
    """An image and the mask of its target.

    Args:
        name: Unique within its source, for messages and results; what stands before the last ``/`` is the
            scene's class.
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, at least one pixel True.
        group: What the scene is not independent of (its photograph); intervals are clustered by it.
        void: (H, W) bool, pixels of which nobody knows what they are: right or wrong there, they count
            neither way. None of them is in the mask. None where every pixel counts.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    group: str
    void: np.ndarray | None = None


@dataclass(frozen=True)
class Listed:
    """A scene that was listed, but not read.

    Args:
        index: Its place in the source.
        name: Its name.
        group: Its group.
        category: Its class; "" in a set without classes.
    """

    index: int
    name: str
    group: str
    category: str = ""


def scene_class(name: str) -> str:
    """Return the class folder in a scene's name, ``"cat"`` of ``"cat/03"``; empty where it has none."""
    return name.rpartition("/")[0]


@runtime_checkable
class SceneSource(Protocol):
    """A finite, ordered collection of scenes; scene ``index`` depends on (URI, index) only.

    Attributes:
        uri: The URI it was opened from.
        signature: Hash of everything that decides its scenes (generator, files); part of the cache key.
    """

    uri: str
    signature: str

    def __len__(self) -> int:
        """Return the number of scenes."""
        ...

    def __getitem__(self, index: int) -> RawScene:
        """Return scene ``index``.

        Raises:
            SceneError: This scene cannot be used; others still can.
        """
        ...


@dataclass(eq=False)
class HeldScenes:
    """Scenes in memory as a source, such as a part of another source that was read before.

    Args:
        uri: Where they come from.
        scenes: The scenes.
        signature: Hash of everything that decides them; empty where nothing is kept of them as a set.
    """

    uri: str
    scenes: Sequence[RawScene]
    signature: str = ""

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.scenes)

    def __getitem__(self, index: int) -> RawScene:
        """Return scene ``index``."""
        return self.scenes[index]
