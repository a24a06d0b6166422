"""Sparse edges of the dual-space graph: each node's nearest nodes in either space."""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 8
"""Nearest nodes per node and space; with both spaces E = 16 N."""


def _nearest(distance: Tensor, count: int) -> Tensor:
    """Return each node's ``count`` nearest other nodes, (..., N, count) int64; ties go to the lower index."""
    diagonal = torch.eye(distance.shape[-1], dtype=torch.bool, device=distance.device)
    return distance.masked_fill(diagonal, torch.inf).argsort(dim=-1, stable=True)[..., :count]


def knn_edges(feature: Tensor, physical: Tensor, neighbours: int = NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """Join each node to its nearest nodes, first in feature space, then in physical space.

    A pair near in both spaces appears twice; every edge carries both distances.

    Args:
        feature: (..., N, N) float32, M_f.
        physical: (..., N, N) float32, M_p.
        neighbours: Nearest nodes per space, less than N.

    Returns:
        edge_index: (..., 2, E) int64, E = 2 * neighbours * N; row 0 the neighbour, row 1 the node.
        edge_attr: (..., E, 2) float32, (M_f, M_p).
    """
    nodes = feature.shape[-1]
    if neighbours >= nodes:
        raise ValueError(f"{neighbours} neighbours need more than {nodes} nodes; use a larger grid.")
    source = torch.cat([_nearest(feature, neighbours), _nearest(physical, neighbours)], dim=-1)
    attr = torch.stack([feature.gather(-1, source), physical.gather(-1, source)], dim=-1)
    target = torch.arange(nodes, device=feature.device)[:, None].expand_as(source)
    return torch.stack([source.flatten(-2), target.flatten(-2)], dim=-2), attr.flatten(-3, -2)
