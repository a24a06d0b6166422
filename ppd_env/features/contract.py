"""What every patch-feature extractor offers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


@runtime_checkable
class FeatureExtractor(Protocol):
    """A frozen model that describes the g x g patches of an image.

    Attributes:
        uri: The URI it was loaded from.
        signature: Hash of architecture, weights and preprocessing; part of every cache key.
        dim: Length d of a feature.
        device: Where it computes.
    """

    uri: str
    signature: str
    dim: int
    device: torch.device

    def extract(self, image: np.ndarray, grid: int) -> Tensor:
        """Describe the patches of one image, the grid stretched over the whole of it.

        Args:
            image: (H, W, 3) uint8 RGB, any size.
            grid: g, patches per side; node i is row i // g, column i % g.

        Returns:
            (g * g, d) float32, divided by a scale fixed per extractor so that two random patches
            of an everyday image lie about 1 apart.
        """
        ...
