"""Distances of the dual-space graph (PPD, Section III): M_f between features, M_p between patch centres."""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_distance(left: Tensor, right: Tensor) -> Tensor:
    """Return Euclidean distances, exactly zero between equal rows.

    Args:
        left: (..., P, d) float32.
        right: (..., Q, d) float32.

    Returns:
        (..., P, Q) float32.
    """
    # The matrix-product shortcut of cdist leaves about 1e-3 between equal rows.
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")


def feature_distance(features: Tensor) -> Tensor:
    """Return M_f(i, j) = ||f_i - f_j||: (..., N, d) float32 -> (..., N, N) float32."""
    return pairwise_distance(features, features)


def physical_distance(positions: Tensor) -> Tensor:
    """Return M_p(i, j) = ||x_i - x_j||: (..., N, 2) float32 in [0, 1] -> (..., N, N) float32."""
    return pairwise_distance(positions, positions)
