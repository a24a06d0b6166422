"""SAM-HQ's mask decoder: a further token and finer features correct SAM's mask (Ke et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ppd_env.segmenters.sam.config import DecoderConfig
from ppd_env.segmenters.sam.decoder import MaskDecoder, as_plane, head
from ppd_env.segmenters.sam.prompts import PlaneNorm


class HighQualityDecoder(MaskDecoder):
    """SAM's decoder whose logits are the sum of SAM's and those of the high-quality token.

    As the authors' code does by default, the sum is returned, not the correction alone. Of several ambiguity
    masks that code returns only the best; here they all come, the highest predicted IoU first, as in
    transformers. (The decoder of transformers 5.23 itself upscales the image as it was before the two-way
    transformer, and its masks are not those of the authors' code, which this one follows.)

    Args:
        config: Sizes; ``vit_dim`` are the channels of the encoder's first layer with global attention.
    """

    behind = 1

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.hq_head = head(dim, dim, dim // 8)
        self.vit_up = _enlarge(config.vit_dim, dim, dim // 8)
        self.image_up = _enlarge(dim, dim // 4, dim // 8)
        self.refine = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, 3, padding=1),
            PlaneNorm(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, 3, padding=1),
        )

    def prepare(self, encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the fine features, which depend on the image alone.

        Args:
            encoded: ``image`` (B, dim, h, h) and ``early`` (B, vit_dim, h, h) from the image encoder.

        Returns:
            ``image`` and ``fine`` (B, dim / 8, 4h, 4h).
        """
        image = encoded["image"]
        return {"image": image, "fine": self.image_up(image) + self.vit_up(encoded["early"])}

    def constants(self, embedded: Mapping[str, Tensor], mask: Tensor | None = None) -> dict[str, Tensor]:
        """Add ``fine`` (B, dim / 8, 4h, 4h) float32 to what SAM's own decoder needs."""
        return {**super().constants(embedded, mask), "fine": embedded["fine"]}

    def wanted(self, multimask: bool) -> slice:
        """Return which tokens are read: all output tokens, of which the high-quality one is the last."""
        return slice(0, len(self.output_tokens))

    def read(
        self, state: Tensor, fine: Tensor, constants: Mapping[str, Tensor], multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Draw SAM's masks and add the correction to each."""
        logits, iou = super().read(state, fine, constants, multimask)
        if multimask:
            iou, order = iou.sort(dim=1, descending=True)
            logits = torch.take_along_dim(logits, order[..., None, None], dim=1)
        token = state[:, 1 + self.config.mask_tokens]
        finer = self.refine(as_plane(fine).float()) + constants["fine"]
        correction = self.hq_head(token)[:, None] @ finer.flatten(2)
        return logits + correction.unflatten(2, finer.shape[-2:]), iou


def _enlarge(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return what brings a plane to four times its side."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, hidden, 2, 2),
        PlaneNorm(hidden),
        nn.GELU(),
        nn.ConvTranspose2d(hidden, outputs, 2, 2),
    )
