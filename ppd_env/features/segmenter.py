"""``segmenter``: the segmenter's own image embedding, pooled to the grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_env.errors import ConfigError
from ppd_env.segmenters.contract import Segmenter
from ppd_env.segmenters.letterbox import scaled_size

EMBEDDING_NAME = "image"
"""Name, by convention, of the (B, C, h, w) map among a segmenter's embedding tensors."""


class SegmenterFeatures:
    """Directions of the embedding vectors, averaged over each patch.

    Vectors are brought to length one: the scale of an embedding differs between segmenters, while two random
    unit vectors of one lie about 1 apart.

    Args:
        segmenter: Its embedding must hold a (B, C, h, w) tensor named ``image`` over the letterboxed square.

    Raises:
        ConfigError: It holds none.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.uri = f"segmenter:{segmenter.uri}"
        self.signature = f"segmenter-1:{segmenter.signature}"
        self.device = segmenter.device
        self.dim = self._map(np.zeros((8, 8, 3), np.uint8)).shape[1]

    def _map(self, image: np.ndarray) -> Tensor:
        tensors = self._segmenter.embed(image).tensors
        found = tensors.get(EMBEDDING_NAME)
        if found is None or found.ndim != 4:
            raise ConfigError(
                f"The segmenter {self._segmenter.uri!r} keeps no (B, C, h, w) map named 'image' in its "
                "embedding; choose other features than 'segmenter'."
            )
        return found

    @torch.no_grad()
    def extract(self, image: np.ndarray, grid: int) -> Tensor:
        """Describe the patches of (H, W, 3) uint8: (grid * grid, C) float32."""
        embedded = self._map(image)
        height, width = scaled_size(image.shape[0], image.shape[1], embedded.shape[-1])
        pooled = F.adaptive_avg_pool2d(embedded[..., :height, :width].float(), grid)
        return F.normalize(pooled[0].flatten(1).T, dim=1).contiguous()
