"""How far each cell lies from the nearest prompt of either sign, along ways that avoid crossing edges.

Geodesic distances carry a click as far as its object's edges (Bai and Sapiro 2007; Criminisi et al. 2008).
Here they are one of the dense prompt embeddings of ``mini``: the cost of a cell comes from the image's
gradient, and is corrected by what the encoder has learned about edges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_UNREACHED = 50.0
"""Distance where there is no prompt of a sign. Longer ways, over many strong edges, count as this too."""
_ROUNDS = 2
"""Sweeps along rows, then columns. A way has at most three turns; one that needs more is not found, and the
distance there is too large. ``mini`` was trained with two rounds."""
_PARALLEL = 2**17
"""Elements from which doubling on all cores beats torch's running minimum, which uses one."""
_SMOOTH = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_SLOPE = (-1.0, -2.0, 0.0, 2.0, 1.0)


def edge_strength(pixels: Tensor) -> Tensor:
    """Squared colour gradient of the slightly blurred image.

    Args:
        pixels: (B, 3, side, side) float32, 0 to 255.

    Returns:
        (B, 1, side / 4, side / 4) float32, 0 to about 20.
    """
    half = F.avg_pool2d(pixels / 255, 2)
    smooth, slope = half.new_tensor(_SMOOTH), half.new_tensor(_SLOPE)
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    single = F.pad(half, (2, 2, 2, 2), mode="replicate").flatten(0, 1)[:, None]
    square = F.conv2d(single, kernels).square().sum(1).view(half.shape)
    return F.avg_pool2d(square.sum(1, keepdim=True), 2)


class GeodesicDistance(nn.Module):
    """Distances to the nearest positive and the nearest negative point.

    Args:
        dim: Channels of the embedding; the side inputs have a quarter and an eighth of them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.length, self.edges = nn.Parameter(torch.tensor(-3.9)), nn.Parameter(torch.tensor(1.4))
        self.from_side8, self.from_side4 = nn.Conv2d(dim // 4, 1, 1), nn.Conv2d(dim // 8, 1, 1)
        for layer in (self.from_side8, self.from_side4):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def costs(self, edges: Tensor, side8: Tensor, side4: Tensor) -> Tensor:
        """What it costs to cross each cell, summed up along rows and along columns.

        Args:
            edges: (B, 1, 4h, 4h) float32 from ``edge_strength``.
            side8: (B, dim / 4, 2h, 2h) float32.
            side4: (B, dim / 8, 4h, 4h) float32.

        Returns:
            (B, 2, 4h, 4h) float32.
        """
        learned = self.from_side4(side4) + F.interpolate(self.from_side8(side8), scale_factor=2.0)
        cost = (self.length.exp() + self.edges.exp() * edges) * learned.clamp(-4, 4).exp()
        return torch.cat([cost.cumsum(-1) - cost / 2, cost.cumsum(-2) - cost / 2], dim=1)

    def forward(self, costs: Tensor, cells: Tensor, labels: Tensor) -> Tensor:
        """Measure.

        Args:
            costs: (B, 2, 4h, 4h) float32 from ``costs``.
            cells: (B, n) int64, the cell under each point, row by row.
            labels: (B, n) integer, 1, 0 or -1 for absent.

        Returns:
            (B, 3, 4h, 4h) float32: which sign is nearer, from -1 (negative) to 1, and the logarithms of both
            distances.
        """
        batch, _, height, width = costs.shape
        start = costs.new_full((batch, 2, height * width + 1), _UNREACHED)
        for channel, sign in enumerate((1, 0)):
            # Whatever has another sign lands in the one cell too many.
            mine = torch.where(labels == sign, cells, height * width)
            start[:, channel].scatter_(1, mine, 0.0)
        distance = start[:, :, :-1].view(batch, 2, height, width)
        along_rows, along_columns = costs[:, :1], costs[:, 1:]
        for _ in range(_ROUNDS):
            distance = _sweep(_sweep(distance, along_rows, -1), along_columns, -2)
        positive, negative = distance[:, :1], distance[:, 1:]
        nearer = (negative - positive) / (negative + positive + 0.02)
        return torch.cat([nearer, (4 * distance).log1p()], dim=1)


def _sweep(distance: Tensor, summed: Tensor, axis: int) -> Tensor:
    """Let distances travel both ways along one axis, where ``summed`` grows by what each cell costs."""
    onward = summed + _running_minimum(distance - summed, axis, backward=False)
    return torch.minimum(onward, _running_minimum(distance + summed, axis, backward=True) - summed)


def _running_minimum(values: Tensor, axis: int, backward: bool) -> Tensor:
    """Minimum of all values up to each place of an axis, or, ``backward``, from each place on."""
    if values.requires_grad or values.numel() < _PARALLEL:
        if backward:
            return values.flip(axis).cummin(axis).values.flip(axis)
        return values.cummin(axis).values
    length, step = values.shape[axis], 1
    while step < length:
        count = length - step
        later, earlier = values.narrow(axis, step, count), values.narrow(axis, 0, count)
        kept, met = (count, 0) if backward else (0, step)
        doubled = torch.empty_like(values)
        doubled.narrow(axis, kept, step).copy_(values.narrow(axis, kept, step))
        torch.minimum(later, earlier, out=doubled.narrow(axis, met, count))
        values, step = doubled, 2 * step
    return values
