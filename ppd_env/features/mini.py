"""``mini``: patch features from the embedded segmenter's image encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_env.segmenters.letterbox import scaled_size
from ppd_env.segmenters.mini.segmenter import MiniSegmenter
from ppd_env.segmenters.registry import load_segmenter

SHARES = (0.5, 1.0, 1.0)
"""Of the embedding and of the side outputs at strides 8 and 4. The finer ones tell better than the embedding
whether two patches belong together; all three do so best."""


class MiniFeatures:
    """What the encoder of ``mini`` sees at the patch centres; the usual distance between two patches is 1.

    An image that ``mini`` embeds as well is encoded once for both.

    Args:
        device: Where it computes.
    """

    def __init__(self, device: torch.device) -> None:
        segmenter = load_segmenter("mini", device)
        assert isinstance(segmenter, MiniSegmenter)
        self._segmenter = segmenter
        self.uri = "mini"
        self.signature = f"mini-features-2-{segmenter.signature}"
        config = segmenter.network.config
        self.dim = config.dim + config.dim // 4 + config.dim // 8
        self.device = device

    @torch.no_grad()
    def extract(self, image: np.ndarray, grid: int) -> Tensor:
        """Describe the patches of an (H, W, 3) uint8 image: (grid * grid, dim) float32."""
        side = self._segmenter.network.config.image_size
        height, width = scaled_size(image.shape[0], image.shape[1], side)
        seen = planes(self._segmenter.encode(image))
        parts = [sample(plane, (height / side, width / side), grid) for plane in seen]
        weighted = [
            part * (weight / scale)
            for part, weight, scale in zip(parts, SHARES, self._segmenter.feature_scales, strict=True)
        ]
        return torch.cat(weighted, dim=1) / math.hypot(*SHARES)


def planes(encoded: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the encoder's embedding and side outputs as planes, (1, c, side, side) float32 each."""
    tokens, side8, side4 = encoded[:3]
    cells = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (cells, cells)), side8, side4


def sample(plane: Tensor, extent: tuple[float, float], grid: int) -> Tensor:
    """Read a plane of the letterboxed square at the patch centres of the image inside it.

    Args:
        plane: (1, c, side, side) float32.
        extent: (height, width) of the image as shares of the square.
        grid: Patches per side.

    Returns:
        (grid * grid, c) float32; where cells are finer than patches, means over about a patch.
    """
    axis = (torch.arange(grid, device=plane.device) + 0.5) / grid
    y, x = torch.meshgrid(axis * extent[0], axis * extent[1], indexing="ij")
    where = torch.stack([x, y], dim=-1)[None] * 2 - 1
    plane = F.avg_pool2d(plane, max(1, plane.shape[-1] // grid))
    sampled = F.grid_sample(plane, where, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[0].flatten(1).T.contiguous()
