"""SAM's prompt encoder: points to tokens, an earlier mask to what is added to the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ppd_env.segmenters.contract import ABSENT
from ppd_env.segmenters.sam.config import DecoderConfig
from ppd_env.segmenters.two_way import FourierPosition

LABELS = 4
"""Codes of labels in published weights: negative, positive, and the two corners of a box, unused here."""


class PlaneNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, c, h, w), with the small epsilon SAM uses on planes."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, plane: Tensor) -> Tensor:
        """Map (B, c, h, w) to the same shape."""
        return super().forward(plane.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PromptEncoder(nn.Module):
    """Point sets and masks as the two-way decoder takes them (Segment Anything, appendix A).

    Args:
        config: Sizes.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim, wide = config.dim, config.mask_channels
        self.position = FourierPosition(dim)
        self.label_codes = nn.Embedding(LABELS, dim)
        self.padding_code = nn.Parameter(torch.zeros(1, dim))
        self.no_mask = nn.Parameter(torch.zeros(1, dim))
        self.mask_stem = nn.Sequential(
            nn.Conv2d(1, wide // 4, 2, 2),
            PlaneNorm(wide // 4),
            nn.GELU(),
            nn.Conv2d(wide // 4, wide, 2, 2),
            PlaneNorm(wide),
            nn.GELU(),
            nn.Conv2d(wide, dim, 1),
        )

    def points(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode point sets.

        SAM appends one padding point to the points of every set that comes without a box; so it belongs to
        each set here too, and is never absent.

        Args:
            points: (B, n, 2) float32 in the unit square of the encoder's input.
            labels: (B, n) integer, 1, 0 or ``ABSENT``.

        Returns:
            codes: (B, n + 1, dim) float32; those of absent points are finite and mean nothing.
            absent: (B, n + 1) bool.
        """
        absent = labels == ABSENT
        placed = self.position(points.masked_fill(absent[..., None], 0.0))
        codes = placed + self.label_codes(labels.masked_fill(absent, 0).long())
        padding = self.padding_code.expand(len(points), 1, -1)
        return torch.cat([codes, padding], dim=1), nn.functional.pad(absent, (0, 1))

    def mask(self, mask: Tensor | None) -> Tensor:
        """Encode an earlier mask.

        Args:
            mask: (B, 1, 4h, 4w) float32 low-resolution logits, or None.

        Returns:
            To be added to the image's cells: (B, h * w, dim) float32, or (1, dim) without a mask.
        """
        return self.no_mask if mask is None else self.mask_stem(mask).flatten(2).transpose(1, 2)
