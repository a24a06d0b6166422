"""``segmenter``: the segmenter's own image embedding, pooled to the grid."""

from __future__ import annotations

import numpy as np
import torch
from skimage import data
from torch import Tensor
from torch.nn import functional as F

from ppd_env.errors import ConfigError
from ppd_env.segmenters.contract import Segmenter
from ppd_env.segmenters.letterbox import scaled_size

EMBEDDING_NAME = "image"
"""Name, by convention, of the (B, C, h, w) map among a segmenter's embedding tensors."""


CALIBRATION_GRID = 16


class SegmenterFeatures:
    """Embedding vectors averaged over each patch, divided by a scale fixed per segmenter.

    The scale is the mean distance between two patches of the photograph ``astronaut`` that ships with
    scikit-image: embeddings of different segmenters differ in size by orders of magnitude.

    Args:
        segmenter: Its embedding must hold a (B, C, h, w) tensor named ``image`` over the letterboxed square.

    Raises:
        ConfigError: It holds none.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.uri = f"segmenter:{segmenter.uri}"
        self.signature = f"segmenter-2:{segmenter.signature}"
        self.device = segmenter.device
        self._scale = 1.0
        sample = self.extract(data.astronaut(), CALIBRATION_GRID)
        self.dim = sample.shape[1]
        self._scale = max(1e-6, float(torch.pdist(sample).mean()))

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
        return pooled[0].flatten(1).T.contiguous() / self._scale
