"""The scale of a feature extractor: how far apart two patches of an everyday photograph usually lie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from skimage import data
from torch import Tensor

CALIBRATION_GRID = 16


def calibrate(extract: Callable[[np.ndarray, int], Tensor]) -> tuple[int, float]:
    """Measure features on the photograph ``astronaut`` that ships with scikit-image.

    The scale depends on the weights alone, so it is known for any weights without a table of constants;
    dividing all features by one number changes no nearest neighbour.

    Args:
        extract: Describes an (H, W, 3) uint8 image on a g x g grid as (g * g, d) float32, not yet scaled.

    Returns:
        d, and the mean distance between two patches (at least 1e-6), which extractors divide by.
    """
    features = extract(data.astronaut(), CALIBRATION_GRID)
    return features.shape[1], max(1e-6, float(torch.pdist(features).mean()))
