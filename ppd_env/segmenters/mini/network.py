"""The network behind ``mini``: encoder and decoder together, as it is trained and saved."""

from __future__ import annotations

from torch import Tensor, nn

from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.decoder import MaskDecoder
from ppd_env.segmenters.mini.encoder import ImageEncoder


class MiniNetwork(nn.Module):
    """Image encoder and mask decoder.

    Args:
        config: Sizes.
    """

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config)
        self.decoder = MaskDecoder(config)

    def embed(self, pixels: Tensor) -> dict[str, Tensor]:
        """Encode (B, 3, side, side) float32 letterboxed RGB, 0 to 255, and prepare it for decoding."""
        return self.decoder.prepare(*self.encoder(pixels))

    def decode(
        self,
        prepared: dict[str, Tensor],
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        tokens: slice = slice(0, 1),
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets; see ``MaskDecoder.forward``."""
        return self.decoder(prepared, points, labels, mask, tokens)
