"""``mini``: patch features from the embedded segmenter's image encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_env.segmenters.letterbox import scaled_size
from ppd_env.segmenters.mini.config import STRIDE
from ppd_env.segmenters.mini.segmenter import MiniSegmenter
from ppd_env.segmenters.registry import load_segmenter


class MiniFeatures:
    """Embedding vectors at the patch centres, divided by the usual distance between two of them.

    An image that ``mini`` embeds as well is encoded once for both.

    Args:
        device: Where it computes.
    """

    def __init__(self, device: torch.device) -> None:
        segmenter = load_segmenter("mini", device)
        assert isinstance(segmenter, MiniSegmenter)
        self._segmenter = segmenter
        self.uri = "mini"
        self.signature = f"mini-features-1-{segmenter.signature}"
        self.dim = segmenter.network.config.dim
        self.device = device

    @torch.no_grad()
    def extract(self, image: np.ndarray, grid: int) -> Tensor:
        """Describe the patches of an (H, W, 3) uint8 image: (grid * grid, dim) float32."""
        cells = self._segmenter.network.config.cells
        tokens = self._segmenter.encode(image)[0].transpose(1, 2).unflatten(2, (cells, cells))
        height, width = scaled_size(image.shape[0], image.shape[1], cells * STRIDE)
        share = torch.tensor([width, height], device=self.device) / (cells * STRIDE)
        axis = (torch.arange(grid, device=self.device) + 0.5) / grid
        y, x = torch.meshgrid(axis * share[1], axis * share[0], indexing="ij")
        where = torch.stack([x, y], dim=-1)[None] * 2 - 1
        sampled = F.grid_sample(tokens, where, mode="bilinear", padding_mode="border", align_corners=False)
        return sampled[0].flatten(1).T.contiguous() / self._segmenter.feature_scale
