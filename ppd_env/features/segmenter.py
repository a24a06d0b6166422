"""``segmenter``: the segmenter's own image embedding, pooled to the grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_env.errors import ConfigError
from ppd_env.features.scale import calibrate
from ppd_env.segmenters.contract import Embedding, Segmenter
from ppd_env.segmenters.letterbox import scaled_size

EMBEDDING_NAME = "image"
"""Name, by convention, of the (B, C, h, w) map among a segmenter's embedding tensors."""


class SegmenterFeatures:
    """Embedding vectors averaged over each patch, divided by their usual distance (``features.scale``).

    Args:
        segmenter: Its embedding must hold a (B, C, h, w) tensor named ``image`` over the letterboxed square.

    Raises:
        ConfigError: It holds none.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.uri = f"segmenter:{segmenter.uri}"
        self.signature = f"segmenter-2:{segmenter.signature}"
        self.device = segmenter.device
        self._scale = 1.0
        self.dim, self._scale = calibrate(self.extract)

    def extract(self, image: np.ndarray, grid: int) -> Tensor:
        """Describe the patches of (H, W, 3) uint8: (grid * grid, C) float32."""
        return self.pool(self.segmenter.embed(image), grid)

    @torch.no_grad()
    def pool(self, embedding: Embedding, grid: int) -> Tensor:
        """Describe the patches of an image that the segmenter has embedded already.

        Args:
            embedding: Of one image.
            grid: g, patches per side.

        Returns:
            (g * g, C) float32, what ``extract`` gives.
        """
        found = embedding.tensors.get(EMBEDDING_NAME)
        if found is None or found.ndim != 4:
            raise ConfigError(
                f"The segmenter {self.segmenter.uri!r} keeps no (B, C, h, w) map named 'image' in its "
                "embedding; choose other features than 'segmenter'."
            )
        height, width = embedding.sizes[0].tolist()
        height, width = scaled_size(height, width, found.shape[-1])
        pooled = F.adaptive_avg_pool2d(found[..., :height, :width].float(), grid)
        return pooled[0].flatten(1).T.contiguous() / self._scale
