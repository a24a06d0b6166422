"""Patch features of one's own: mean colour as the eye sees it, and how much it varies inside the patch."""

from __future__ import annotations

import numpy as np
import torch
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn import functional as F

from ppd_env.features.scale import calibrate
from ppd_env.uris import Uri


class ColourFeatures:
    """Mean and spread of CIELAB colour in every patch."""

    def __init__(self, uri: str, device: torch.device) -> None:
        self.uri, self.device = uri, device
        self.signature = "lab-1"  # changes whenever the numbers do: part of every cache key
        self.dim, self._scale = calibrate(self._describe)

    def extract(self, image: np.ndarray, grid: int) -> Tensor:
        """Describe the grid * grid patches of (H, W, 3) uint8 RGB: (N, 6) float32, row by row."""
        return self._describe(image, grid) / self._scale

    def _describe(self, image: np.ndarray, grid: int) -> Tensor:
        lab = torch.from_numpy(rgb2lab(image)).to(self.device, torch.float32).permute(2, 0, 1)
        mean = F.adaptive_avg_pool2d(lab, grid)
        spread = (F.adaptive_avg_pool2d(lab**2, grid) - mean**2).clamp(min=0).sqrt()
        return torch.cat([mean, spread]).flatten(1).T.contiguous()


def load(uri: Uri, device: torch.device) -> ColourFeatures:
    """Make the features that ``my_features:load`` names."""
    uri.require_keys([])
    return ColourFeatures(uri.text, device)
