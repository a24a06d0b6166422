"""Sizes of SAM's prompt encoder and mask decoder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a mask decoder; the defaults are those of every published SAM.

    Args:
        image_size: Side of the encoder's input square in pixels.
        cells: Side of the image embedding.
        dim: Channels of embedding and tokens.
        heads: Attention heads.
        layers: Two-way layers.
        mlp: Hidden width of the token MLP.
        mask_tokens: One single-mask token and the ambiguity tokens.
        mask_channels: Channels inside the encoder of mask prompts.
        iou_hidden: Hidden width of the IoU head.
        vit_dim: Channels of the image encoder's early layer that SAM-HQ also looks at; unused by others.
        stability: SAM 2's (delta, threshold): a single mask that changes by more when its threshold moves by
            delta gives way to the best ambiguity mask. None: never.
    """

    image_size: int = 1024
    cells: int = 64
    dim: int = 256
    heads: int = 8
    layers: int = 2
    mlp: int = 2048
    mask_tokens: int = 4
    mask_channels: int = 16
    iou_hidden: int = 256
    vit_dim: int = 768
    stability: tuple[float, float] | None = None

    @property
    def low_res(self) -> int:
        """Side of the low-resolution logits."""
        return 4 * self.cells
