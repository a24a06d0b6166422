"""A segmenter of one's own: every cell goes to the prompt that the cheapest path leads to.

A path pays for the colours it crosses, so it prefers to stay on one surface (Bai and Sapiro, 2007).
"""

from __future__ import annotations

import numpy as np
import torch
from skimage.graph import MCP_Geometric
from torch import Tensor

from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.letterbox import letterbox, points_to_square, valid_area
from ppd_env.uris import Uri

SIDE = 48
REACH = 6.0
"""Cost at which a cell is out of reach of a prompt."""


class PathSegmenter:
    """Compares, for every cell, the way to the nearest positive and the nearest negative prompt."""

    low_res = SIDE

    def __init__(self, uri: str, device: torch.device, contrast: int) -> None:
        self.uri, self.device, self.contrast = uri, device, contrast
        self.signature = f"paths-1-{contrast}"  # all that decides its masks: part of every cache key

    def embed(self, image: np.ndarray) -> Embedding:
        """Return what crossing each cell costs, (1, SIDE, SIDE) float32, of (H, W, 3) uint8 RGB."""
        square = letterbox(image, SIDE).astype(np.float32) / 255
        steps = np.gradient(square, axis=(0, 1))
        cost = 0.05 + self.contrast * np.sqrt(sum((step**2).sum(axis=2) for step in steps))
        sizes = torch.tensor([image.shape[:2]], dtype=torch.int64)
        outside = ~valid_area(sizes, SIDE)
        costs = torch.from_numpy(cost.astype(np.float32))[None].masked_fill(outside, REACH)
        return Embedding({"cost": costs}, sizes).to(self.device)

    def decode(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        multimask: bool = False,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets; shapes as in ``Segmenter.decode``."""
        costs = embedding.tensors["cost"] if rows is None else embedding.tensors["cost"][rows]
        sizes = embedding.sizes if rows is None else embedding.sizes[rows]
        cells = (points_to_square(points, sizes) * SIDE).long().clamp(0, SIDE - 1)
        logits = torch.stack([self._one(*one) for one in zip(costs, cells, labels, strict=True)])[:, None]
        if mask is not None:
            logits = logits + torch.tanh(mask)
        if multimask:  # smaller, as asked, larger
            logits = torch.cat([logits - 0.5, logits, logits + 0.5], dim=1)
        return logits, torch.tanh(logits.abs().mean(dim=(2, 3)))

    def _one(self, cost: Tensor, cells: Tensor, labels: Tensor) -> Tensor:
        near = [_reach(cost, cells[labels == label]) for label in (0, 1)]
        return near[0] - near[1] - 0.01  # a tie is background


def _reach(cost: Tensor, cells: Tensor) -> Tensor:
    """Return the cost of the cheapest path from any of n (x, y) cells to every cell, at most ``REACH``."""
    if not len(cells):
        return torch.full_like(cost, REACH)
    paths = MCP_Geometric(cost.cpu().numpy().astype(np.float64))
    found, _ = paths.find_costs(cells.flip(1).tolist())
    return torch.from_numpy(np.minimum(found, REACH)).to(cost)


def load(uri: Uri, device: torch.device) -> PathSegmenter:
    """Make the segmenter that ``my_segmenter:load?contrast=4`` names."""
    uri.require_keys(["contrast"])
    return PathSegmenter(uri.text, device, uri.integer("contrast", 4))
