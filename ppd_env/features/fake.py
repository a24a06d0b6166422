"""``fake``: the mean colour of each patch, for tests of contracts only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SCALE = 0.3
"""About the distance between the mean colours of two random patches of an everyday image."""


class FakeFeatures:
    """Mean RGB per patch, divided by ``SCALE``.

    Args:
        device: Where it computes.
    """

    uri = "fake"
    signature = "fake-1"
    dim = 3

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def extract(self, image: np.ndarray, grid: int) -> Tensor:
        """Describe the patches of (H, W, 3) uint8: (grid * grid, 3) float32."""
        tensor = torch.from_numpy(np.ascontiguousarray(image)).to(self.device, torch.float32)
        colours = F.adaptive_avg_pool2d(tensor.permute(2, 0, 1)[None] / 255, grid)
        return colours[0].flatten(1).T.contiguous() / SCALE
