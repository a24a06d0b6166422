"""SAM 2's mask decoder on single images (Ravi et al. 2024), which EdgeTAM shares."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_env.segmenters.sam.decoder import MaskDecoder, as_cells, gelu_, split


class Sam2Decoder(MaskDecoder):
    """SAM's decoder with an object token in front, finer image features and a fallback for unstable masks.

    ``embedded`` holds ``stretched`` (B, dim, h, h), ``side8`` (B, dim / 4, 2h, 2h) and ``side4``
    (B, dim / 8, 4h, 4h).
    """

    before = 1
    image_name = "stretched"

    def constants(self, embedded: Mapping[str, Tensor], mask: Tensor | None = None) -> dict[str, Tensor]:
        """Add ``side8`` (B, 4 * c, dim / 4) and ``side4`` (B, 16 * c, dim / 8), cut as in ``upscale``."""
        sides = {"side8": as_cells(embedded["side8"], 1), "side4": as_cells(embedded["side4"], 2)}
        cast = {name: side.to(self.dtype) for name, side in sides.items()}
        return {**super().constants(embedded, mask), **cast}

    def upscale(self, image: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
        """Bring the image to four times its side, with the encoder's finer features; see ``MaskDecoder``."""
        middle = split(F.linear(image, *self.folded.up1)) + constants["side8"]
        fine = split(F.linear(self.soften(middle), *self.folded.up2))
        return gelu_(fine.add_(constants["side4"]))

    def drawn(self, multimask: bool) -> slice:
        """Return which mask tokens are drawn: all of them where one mask may give way to another."""
        falls_back = not multimask and self.config.stability is not None
        return slice(None) if falls_back else self.asked(multimask)

    def rate(self, state: Tensor) -> Tensor:
        """Return the predicted IoU (B, mask_tokens) of every mask token, in [0, 1]."""
        return super().rate(state).sigmoid()

    def read(
        self, state: Tensor, fine: Tensor, constants: Mapping[str, Tensor], multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Draw the asked masks; an unstable single mask gives way to the best ambiguity mask."""
        if multimask or self.config.stability is None:
            return super().read(state, fine, constants, multimask)
        logits, iou = self.draw(state, fine, self.drawn(multimask)), self.rate(state)
        best = 1 + iou[:, 1:].argmax(dim=1)
        chosen = torch.where(stability(logits[:, 0], *self.config.stability), 0, best)[:, None]
        return torch.take_along_dim(logits, chosen[..., None, None], dim=1), iou.gather(1, chosen)


def stability(logits: Tensor, delta: float, threshold: float) -> Tensor:
    """Tell whether masks hardly change when their threshold moves from ``-delta`` to ``delta``.

    Args:
        logits: (B, h, w) float32.
        delta: How far the threshold moves.
        threshold: Least share of the larger mask that must remain.

    Returns:
        (B,) bool; a mask that is empty throughout is stable.
    """
    inner = (logits > delta).sum(dim=(1, 2))
    outer = (logits > -delta).sum(dim=(1, 2))
    return torch.where(outer > 0, inner / outer, 1.0) >= threshold
