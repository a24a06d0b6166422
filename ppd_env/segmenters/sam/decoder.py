"""SAM's mask decoder, batched exactly over prompt sets of different sizes.

Segment Anything (Kirillov et al. 2023, appendix A), with the parameters of published weights. Sets of
different sizes cannot be filled up with the padding point SAM knows: it is a token that is attended to, so a
set's mask would depend on what it is batched with. Absent points are masked instead, in the two places where
tokens are attended to: among themselves, and from the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppd_env.segmenters.sam.config import DecoderConfig
from ppd_env.segmenters.sam.prompts import PlaneNorm, PromptEncoder
from ppd_env.segmenters.two_way import Attention, TwoWayLayer


class MaskDecoder(nn.Module):
    """Prompts and an embedded image to mask logits and predicted IoU.

    Output tokens stand in front of the point tokens: ``before`` ones of a variant's own, the IoU token, the
    mask tokens, and ``behind`` further ones.

    Args:
        config: Sizes.
    """

    before = 0
    behind = 0
    image_name = "image"
    """Which embedded tensor holds the (B, dim, h, w) image embedding."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.prompts = PromptEncoder(config)
        tokens = self.before + 1 + config.mask_tokens + self.behind
        self.output_tokens = nn.Parameter(torch.zeros(tokens, dim))
        self.layers = nn.ModuleList(
            TwoWayLayer(dim, config.heads, config.mlp, first=i == 0) for i in range(config.layers)
        )
        self.last, self.last_norm = Attention(dim, config.heads, dim // 2), nn.LayerNorm(dim)
        self.up1, self.up_norm = nn.ConvTranspose2d(dim, dim // 4, 2, 2), PlaneNorm(dim // 4)
        self.up2 = nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2)
        self.hyper = nn.ModuleList(head(dim, dim, dim // 8) for _ in range(config.mask_tokens))
        self.iou_head = head(dim, config.iou_hidden, config.mask_tokens)

    def prepare(self, encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn the image encoder's outputs, leading axis B, into what ``forward`` takes; once per image."""
        return dict(encoded)

    def forward(
        self,
        embedded: Mapping[str, Tensor],
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets over B embedded images.

        Args:
            embedded: From ``prepare``, leading axis B.
            points: (B, n, 2) float32 in the unit square of the encoder's input.
            labels: (B, n) integer, 1, 0 or ``ABSENT``.
            mask: (B, 1, 4h, 4h) float32 logits of an earlier mask, or None.
            multimask: Whether the ambiguity masks are asked for, or the single one.

        Returns:
            logits: (B, m, 4h, 4h) float32, m = 3 if multimask else 1.
            iou: (B, m) float32.
        """
        image = embedded[self.image_name].flatten(2).transpose(1, 2) + self.prompts.mask(mask)
        codes, bias = self.tokens(points, labels)
        state, image = self.attend(codes, image, bias)
        return self.read(state, self.upscale(image, embedded), embedded, multimask)

    def tokens(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return output and point tokens (B, t, dim), and the mask (B, 1, 1, t) of absent ones if any are."""
        codes, absent = self.prompts.points(points, labels)
        fixed = self.output_tokens.expand(len(codes), -1, -1)
        tokens = torch.cat([fixed, codes], dim=1)
        if not bool(absent.any()):
            return tokens, None
        absent = F.pad(absent, (fixed.shape[1], 0))
        bias = tokens.new_zeros(absent.shape).masked_fill(absent, float("-inf"))
        return tokens, bias[:, None, None]

    def attend(self, codes: Tensor, image: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer.

        Args:
            codes: (B, t, dim) float32 tokens as they begin, also their position codes throughout.
            image: (B, h * h, dim) float32.
            bias: (B, 1, 1, t) float32 added where tokens are attended to, or None.

        Returns:
            The tokens and the image at its end, in the same shapes.
        """
        grid, state = self.prompts.position.grid(self.config.cells), codes
        for layer in self.layers:
            assert isinstance(layer, TwoWayLayer)
            state, image = layer(state, codes, image, layer.constants(image, grid), bias)
        last = self.last
        mixed = last.attend(last.q(state + codes), last.k(image + grid), last.v(image))
        return self.last_norm(state + mixed), image

    def upscale(self, image: Tensor, embedded: Mapping[str, Tensor]) -> Tensor:
        """Bring the image (B, h * h, dim) to four times its side: (B, dim / 8, 4h, 4h)."""
        return F.gelu(self.up2(F.gelu(self.up_norm(self.up1(as_plane(image))))))

    def read(
        self, state: Tensor, fine: Tensor, embedded: Mapping[str, Tensor], multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Draw the asked masks, and no others, from the final tokens and the upscaled image."""
        tokens = self.asked(multimask)
        return self.draw(state, fine, tokens), self.rate(state)[:, tokens]

    @staticmethod
    def asked(multimask: bool) -> slice:
        """Return which mask tokens are asked for: the first one is trained for a single answer."""
        return slice(1, None) if multimask else slice(0, 1)

    def draw(self, state: Tensor, fine: Tensor, tokens: slice) -> Tensor:
        """Return the logits (B, m, 4h, 4h) of some mask tokens."""
        chosen, first = range(self.config.mask_tokens)[tokens], self.before + 1
        weights = torch.stack([self.hyper[i](state[:, first + i]) for i in chosen], dim=1)
        return (weights @ fine.flatten(2)).unflatten(2, fine.shape[-2:])

    def rate(self, state: Tensor) -> Tensor:
        """Return the predicted IoU (B, mask_tokens) of every mask token."""
        return self.iou_head(state[:, self.before])


def head(dim: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a three-layer perceptron."""
    return nn.Sequential(
        nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def as_plane(cells: Tensor) -> Tensor:
    """Turn (B, h * h, c) cells, row by row, into a plane (B, c, h, h)."""
    side = math.isqrt(cells.shape[1])
    return cells.transpose(1, 2).unflatten(2, (side, side))
