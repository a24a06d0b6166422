"""Sizes of the embedded segmenter."""

from __future__ import annotations

from dataclasses import dataclass

STRIDE = 16
"""Pixels per cell of the embedding."""


@dataclass(frozen=True)
class MiniConfig:
    """Architecture of ``mini``: SAM's prompt encoder and two-way decoder behind a small image encoder.

    Args:
        image_size: Side of the letterboxed input in pixels.
        widths: Channels of the encoder at strides 4, 8 and 16.
        blocks: Residual blocks at strides 4, 8 and 16.
        attention_blocks: Transformer blocks on the embedding.
        encoder_heads: Attention heads of those blocks.
        dim: Channels of embedding and tokens.
        heads: Attention heads of the decoder.
        layers: Two-way layers of the decoder.
        mlp: Hidden width of the decoder's token MLP.
        mask_tokens: One single-mask token and the ambiguity tokens.
    """

    image_size: int = 256
    widths: tuple[int, int, int] = (32, 64, 160)
    blocks: tuple[int, int, int] = (1, 2, 2)
    attention_blocks: int = 2
    encoder_heads: int = 4
    dim: int = 96
    heads: int = 2
    layers: int = 2
    mlp: int = 192
    mask_tokens: int = 4

    @property
    def cells(self) -> int:
        """Side of the embedding."""
        return self.image_size // STRIDE

    @property
    def low_res(self) -> int:
        """Side of the low-resolution logits: four times the embedding's, as in SAM."""
        return 4 * self.cells
