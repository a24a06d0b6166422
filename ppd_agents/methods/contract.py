"""What one-shot segmentation methods are given, and what they return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ppd_env.errors import ConfigError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.prompting.pair import Reference, Target
from ppd_env.scenes.bank import SceneBank
from ppd_env.scenes.encoding import Encoder
from ppd_env.segmenters.contract import Embedding, Segmenter, native_logits
from ppd_env.simulator import EMPTY_LOGIT


@dataclass(frozen=True, eq=False)
class SeenReference(Reference):
    """A reference that the segmenter has seen as well.

    Args:
        features: (N, d) float32, its patch features.
        mask: (H, W) bool at native size, not empty.
        void: (H, W) bool, pixels of which nobody knows what they are, or None.
        embedding: The segmenter's, of this one image.

    Raises:
        ConfigError: The mask is not bool, empty, or of another size than the image.
    """

    embedding: Embedding = field(kw_only=True)

    def __post_init__(self) -> None:
        """Refuse masks of other images."""
        super().__post_init__()
        size = native_size(self.embedding)
        if self.mask.shape != size:
            raise ConfigError(
                f"A reference mask of {self.mask.shape} does not fit its image of {size} (height, width)."
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class SeenTarget(Target):
    """A target that the segmenter has seen as well.

    Args:
        features: (N, d) float32, its patch features.
        mask: (H, W) bool, its ground truth, for ideal prompts only; methods never look at it.
        embedding: The segmenter's, of this one image.
    """

    embedding: Embedding

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return native_size(self.embedding)


SeenReferences = SeenReference | Sequence[SeenReference]
"""One reference, or several that speak together."""


@dataclass(frozen=True, eq=False)
class OneShotResult:
    """What a method makes of a target.

    Args:
        mask: (H, W) bool at native size.
        points: (n, 2) float32 (x, y) in pixels, the point prompts behind the mask.
        labels: (n,) int64, 1 positive, 0 negative.
    """

    mask: np.ndarray
    points: np.ndarray
    labels: np.ndarray


@runtime_checkable
class OneShotMethod(Protocol):
    """Segments in a target what references show; ``open_method`` finds one by name.

    Attributes:
        uri: The URI it was opened from.
    """

    uri: str

    def segment(
        self, reference: SeenReferences, target: SeenTarget, rng: np.random.Generator | None = None
    ) -> OneShotResult:
        """Segment one target.

        Args:
            reference: One reference, or several.
            target: What shall be segmented.
            rng: The only source of randomness, for methods that draw.

        Returns:
            The mask, and the prompts behind it.

        Raises:
            ConfigError: The method draws and got no generator.
        """
        ...


def see_reference(
    image: np.ndarray, mask: np.ndarray, segmenter: Segmenter, features: FeatureExtractor, grid: int
) -> SeenReference:
    """Encode a reference.

    Args:
        image: (H, W, 3) uint8 RGB, of any size.
        mask: (H, W) bool, not empty.
        segmenter: The segmenter.
        features: The feature extractor.
        grid: Patches per side.
    """
    embedding, described = seen(image, Encoder(segmenter, features, grid))
    return SeenReference(described, mask, embedding=embedding)


def see_target(image: np.ndarray, segmenter: Segmenter, features: FeatureExtractor, grid: int) -> SeenTarget:
    """Encode a target; arguments as for ``see_reference``."""
    embedding, described = seen(image, Encoder(segmenter, features, grid))
    return SeenTarget(described, embedding=embedding)


def seen(image: np.ndarray, encoder: Encoder) -> tuple[Embedding, Tensor]:
    """Run both models on an image, the segmenter once even where the features are its own.

    Args:
        image: (H, W, 3) uint8 RGB, of any size.
        encoder: Both models.

    Returns:
        The embedding of the one image, and its features (N, d) float32, each on its model's device.
    """
    embedding, described = encoder.assemble(encoder.compute(image, encoder.facts.signatures))
    return embedding.to(encoder.segmenter.device), described[0].to(encoder.features.device)


def bank_reference(bank: SceneBank, row: int) -> SeenReference:
    """Take a reference out of a bank; its native mask is read from the source."""
    scene, embedding = bank.raw(row), bank.embedding[slice(row, row + 1)]
    return SeenReference(bank.features[row], scene.mask, scene.void, embedding=embedding)


def bank_target(bank: SceneBank, row: int) -> SeenTarget:
    """Take a target out of a bank, without its ground truth."""
    return SeenTarget(bank.features[row], embedding=bank.embedding[slice(row, row + 1)])


def native_size(embedding: Embedding) -> tuple[int, int]:
    """Return the (height, width) in pixels of the one image that was embedded."""
    height, width = embedding.sizes[0].tolist()
    return int(height), int(width)


@torch.no_grad()
def decode(
    segmenter: Segmenter,
    embedding: Embedding,
    points: np.ndarray,
    labels: np.ndarray,
    *,
    mask: Tensor | None = None,
    multimask: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decode one prompt set.

    Args:
        segmenter: The segmenter.
        embedding: Of one image.
        points: (n, 2) float32 pixels (x, y); without any the mask is empty and nothing is decoded.
        labels: (n,) int64, 1 positive, 0 negative.
        mask: (h, w) float32 low-resolution logits of an earlier mask.
        multimask: Return the three ambiguity masks.

    Returns:
        logits: (m, h, w) float32, low-resolution.
        iou: (m,) float32, predicted.
    """
    if not len(points):
        empty = torch.full((1, segmenter.low_res, segmenter.low_res), EMPTY_LOGIT, device=segmenter.device)
        return empty, torch.zeros(1, device=segmenter.device)
    where = torch.as_tensor(points, dtype=torch.float32, device=segmenter.device)[None]
    signs = torch.as_tensor(labels, dtype=torch.int64, device=segmenter.device)[None]
    earlier = None if mask is None else mask[None, None]
    logits, iou = segmenter.decode(embedding, where, signs, mask=earlier, multimask=multimask)
    return logits[0], iou[0]


def at_native_size(segmenter: Segmenter, logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Bring low-resolution logits (..., h, w) to (height, width) and threshold them, (..., H, W) bool."""
    mask: np.ndarray = (native_logits(segmenter, logits, size) > 0).cpu().numpy()
    return mask
