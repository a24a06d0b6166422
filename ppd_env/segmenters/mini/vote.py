"""The dense prompt embedding of ``mini``: what the points say about every cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ppd_env.segmenters.two_way import centres

_NOWHERE = 1e5
"""Stands for the squared distance to an absent point; its density is exactly 0."""
_FLOOR = -80.0
"""Logarithm of the smallest share of a density that is told from nothing."""
_LARGEST = 12.0
"""Votes are cut to plus and minus this; the sigmoid knows no difference beyond it."""


class PointVote(nn.Module):
    """SAM's dense prompt embedding, made from points: which sign each cell resembles and lies near.

    Every cell at twice the embedding's resolution has a code made of its features and its position; each
    point has that of the cell under it. A cell's vote is the log-ratio of the kernel densities of the
    positive and the negative points' codes, a constant standing in for a sign without points. It gives the
    mask a start that depends on appearance and place, which two small layers would take long to learn. A
    second, coarser vote looks at places only, for objects that look like what surrounds them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.from_image, self.from_side = nn.Linear(dim, dim), nn.Linear(dim // 4, dim // 4)
        self.nearness = nn.Parameter(torch.tensor(7.0))
        self.absent = nn.Parameter(torch.tensor([-8.0, -5.0]))
        self.place_nearness = nn.Parameter(torch.tensor(8.0))
        self.place_absent = nn.Parameter(torch.tensor([-6.0, -6.0]))

    def codes(self, image: Tensor, side8: Tensor) -> Tensor:
        """Code cells: image (B, h * h, dim), side8 (B, 4 * h * h, dim / 4) -> (B, 4 * h * h, dim / 4 + 2)."""
        h = math.isqrt(image.shape[1])
        look = add_unfolded(self.from_side(side8), self.from_image(image))
        place = centres(2 * h, image.device) * self.nearness
        return torch.cat([look, place.expand(len(image), -1, -1)], dim=-1)

    def forward(self, codes: Tensor, points: Tensor, under: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Vote.

        Args:
            codes: (B, c, k) float32 from ``codes``.
            points: (B, n, 2) float32 in the unit square.
            under: (B, n) int64, the cell under each point.
            labels: (B, n) integer, 1, 0 or -1 for absent.

        Returns:
            (B, c) and, by place only, (B, c / 4) float32; positive where a cell goes with the positive
            points.
        """
        there = codes.gather(1, under[..., None].expand(-1, -1, codes.shape[-1]))
        grid = centres(math.isqrt(codes.shape[1]) // 2, codes.device)[None] * self.place_nearness
        grid, places = grid.expand(len(points), -1, -1), points * self.place_nearness
        return (
            _log_ratio(codes, there, labels, self.absent),
            _log_ratio(grid, places, labels, self.place_absent),
        )


def _log_ratio(cells: Tensor, points: Tensor, labels: Tensor, absent: Tensor) -> Tensor:
    """Log-ratio of the Gaussian kernel densities of positive and negative points at each cell.

    Args:
        cells: (B, c, k) float32 codes.
        points: (B, n, k) float32 codes.
        labels: (B, n) integer, 1, 0 or -1 for absent.
        absent: (2,) float32, logarithms of the densities that both signs have everywhere.

    Returns:
        (B, c) float32.
    """
    # A point's own square, and minus infinity where it is absent, enter the product as one more column.
    height = points.square().sum(-1, keepdim=True).masked_fill((labels < 0)[..., None], _NOWHERE)
    ones = cells.new_ones(1, 1, 1).expand(*cells.shape[:2], 1)
    likeness = torch.cat([cells, ones], -1) @ torch.cat([2 * points, -height], -1).transpose(1, 2)
    constants = absent + cells.square().sum(-1, keepdim=True)
    top = torch.maximum(likeness.amax(-1, keepdim=True), constants.amax(-1, keepdim=True))
    signs = torch.stack([labels == 1, labels == 0], dim=-1).to(cells.dtype)
    # Below the floor everything is lost beside what is added; denormal numbers would take ten times as long.
    density = (likeness - top).clamp_(min=_FLOOR).exp() @ signs + (constants - top).exp()
    positive, negative = density.clamp(min=1e-30).log().unbind(-1)
    return (positive - negative).clamp(-_LARGEST, _LARGEST)


def add_unfolded(fine: Tensor, folded: Tensor) -> Tensor:
    """Add to fine cells (B, 4 * h * h, c), row by row, those that lie folded 2 x 2 in coarser ones.

    Args:
        fine: (B, 4 * h * h, c) float32.
        folded: (B, h * h, 4 * c) float32, see ``fold_cells``.

    Returns:
        (B, 4 * h * h, c) float32.
    """
    batch, count, channels = fine.shape
    h = math.isqrt(folded.shape[1])
    split = folded.view(batch, h, h, 2, 2, channels).transpose(2, 3)
    return (fine.view(batch, h, 2, h, 2, channels) + split).view(batch, count, channels)


def fold_cells(cells: Tensor) -> Tensor:
    """Lay 2 x 2 fine cells each into the channels of one: (B, 4 * h * h, c) -> (B, h * h, 4 * c)."""
    batch, count, channels = cells.shape
    h = math.isqrt(count) // 2
    split = cells.view(batch, h, 2, h, 2, channels).transpose(2, 3)
    return split.reshape(batch, count // 4, 4 * channels)
