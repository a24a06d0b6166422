"""One image with its ground truth, before any model has seen it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class RawScene:
    """An image and the mask of its target.

    Args:
        name: Unique within its source, for messages and results.
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, at least one pixel True.
        group: What the scene is not independent of (its photograph); intervals are clustered by it.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    group: str


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
