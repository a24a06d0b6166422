"""What one-shot prompting works on: references with their masks, a target, and prompts as SAM takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ppd_env.errors import ConfigError
from ppd_env.game.actions import INACTIVE, POSITIVE
from ppd_env.prompting.coverage import patch_coverage, whole_patches
from ppd_env.scenes.patches import patch_centres


def grid_of(nodes: int) -> int:
    """Return g of N = g * g nodes.

    Raises:
        ConfigError: N is no square number.
    """
    grid = math.isqrt(nodes)
    if not nodes or grid * grid != nodes:
        raise ConfigError(f"Features must be those of g x g patches, got {nodes} of them.")
    return grid


@dataclass(frozen=True, eq=False)
class Reference:
    """An image whose object is known.

    Args:
        features: (N, d) float32, its patch features, as a ``FeatureExtractor`` gives them.
        mask: (H, W) bool at native size, not empty.
        void: (H, W) bool, pixels of which nobody knows what they are: patches that hold one do not vote. None
            without.

    Raises:
        ConfigError: The mask is not bool, or empty.
    """

    features: Tensor
    mask: np.ndarray
    void: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse masks that show nothing."""
        mask = np.asarray(self.mask)
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise ConfigError(
                f"A reference mask must be (H, W) bool, got {mask.dtype} of shape {mask.shape}; threshold it."
            )
        if not mask.any():
            raise ConfigError("A reference mask is empty: choose a reference that shows the object.")
        grid_of(len(self.features))

    @cached_property
    def coverage(self) -> np.ndarray:
        """Share of each patch that the mask covers, (N,) float32 in [0, 1]."""
        return patch_coverage(self.mask, grid_of(len(self.features)))

    @cached_property
    def votes(self) -> tuple[np.ndarray, np.ndarray]:
        """Which patches are foreground and which background, (N,) bool each; see ``whole_patches``."""
        return whole_patches(patch_coverage(self.mask, grid_of(len(self.features)), self.void))


@dataclass(frozen=True, eq=False)
class Target:
    """An image that shall be prompted.

    Args:
        features: (N, d) float32, its patch features, from the same extractor as the references'.
        mask: (H, W) bool, its ground truth; only ideal prompts look at it.
    """

    features: Tensor
    mask: np.ndarray | None = None

    @property
    def grid(self) -> int:
        """Patches per side, g."""
        return grid_of(len(self.features))


References = Reference | Sequence[Reference]
"""One reference, or several that speak together."""


class Prompter(Protocol):
    """Finds prompts for a target from references; ``PROMPTERS`` holds those that come with the package."""

    def __call__(
        self, reference: References, target: Target, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Prompt one target.

        Args:
            reference: One reference, or several.
            target: What shall be prompted.
            rng: Source of randomness, for those that draw.

        Returns:
            (N,) int8 status on the target's patch grid; see ``as_points`` for pixels.

        Raises:
            ConfigError: The prompter draws and got no generator, or lacks something else it needs.
        """
        ...


@dataclass(frozen=True, eq=False)
class Pool:
    """The patches of all references, one after another.

    Args:
        features: (M, d) float32.
        coverage: (M,) float32 in [0, 1].
        inside: (M,) bool, wholly foreground in their reference; see ``whole_patches``.
        outside: (M,) bool, wholly background.
    """

    features: Tensor
    coverage: np.ndarray
    inside: np.ndarray
    outside: np.ndarray


R = TypeVar("R", bound=Reference)


def each(reference: R | Sequence[R]) -> tuple[R, ...]:
    """Return the references one by one.

    Raises:
        ConfigError: There is none.
    """
    if isinstance(reference, Reference):
        return (reference,)
    if not reference:
        raise ConfigError("One-shot prompting needs at least one reference.")
    return tuple(reference)


def pooled(reference: References) -> Pool:
    """Put the patches of one or several references into one pool."""
    references = each(reference)
    votes = [one.votes for one in references]
    return Pool(
        torch.cat([one.features for one in references]),
        np.concatenate([one.coverage for one in references]),
        np.concatenate([inside for inside, _ in votes]),
        np.concatenate([outside for _, outside in votes]),
    )


def drawing(rng: np.random.Generator | None, who: str) -> np.random.Generator:
    """Return the generator, which ``who`` cannot do without.

    Raises:
        ConfigError: There is none.
    """
    if rng is None:
        raise ConfigError(f"{who!r} draws at random: pass rng=np.random.default_rng(SEED).")
    return rng


def as_points(status: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Turn prompts on the patch grid into prompts as SAM's predictor takes them.

    Args:
        status: (N,) int8.
        size: (height, width) of the image in pixels.

    Returns:
        points: (n, 2) float32 (x, y) in pixels, the patch centres, by node.
        labels: (n,) int64, 1 positive, 0 negative.
    """
    nodes = np.flatnonzero(status != INACTIVE)
    height, width = size
    extent = np.array([width, height], np.float32)
    points: np.ndarray = patch_centres(grid_of(len(status))).numpy()[nodes] * extent
    return points, (status[nodes] == POSITIVE).astype(np.int64)
