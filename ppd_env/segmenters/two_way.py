"""What SAM's mask decoder is built of: Fourier codes of positions, attention and two-way layers.

Segment Anything (Kirillov et al. 2023, appendix A). Shared by ``mini`` and by the decoder of published SAM
weights. A layer takes an additive mask of tokens, so that a batch of token sets of different sizes gives what
each set gives alone; and what it computes from the image alone is a function of its own, so that it can be
computed once per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def centres(side: int, device: torch.device) -> Tensor:
    """Return (side * side, 2) float32, the (x, y) of cell centres in the unit square, row by row."""
    axis = (torch.arange(side, device=device) + 0.5) / side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1).view(-1, 2)


class FourierPosition(nn.Module):
    """Random Fourier features of positions in the unit square.

    The matrix is drawn with scale 1. Much higher frequencies, as transformers draws them, keep a network from
    learning from scratch.
    """

    matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(2, dim // 2))

    def forward(self, points: Tensor) -> Tensor:
        """Map (..., 2) positions in [0, 1] to (..., dim)."""
        angle = 2 * math.pi * (2 * points - 1) @ self.matrix
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def grid(self, side: int) -> Tensor:
        """Return (side * side, dim), the codes of the cell centres, row by row."""
        return self(centres(side, self.matrix.device))


class Attention(nn.Module):
    """Multi-head attention with an inner width of its own."""

    def __init__(self, dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(dim, inner), nn.Linear(dim, inner), nn.Linear(dim, inner)
        self.out = nn.Linear(inner, dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend with projected inputs, see ``mix``, and bring the result to the outer width: (B, n, dim)."""
        return self.out(self.mix(q, k, v, mask))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend with projected inputs.

        Args:
            q: (B, n, inner) float32 or bfloat16.
            k: (B, m, inner) of the same type, as the others.
            v: (B, m, inner).
            mask: (B, 1, 1, m) added to the scores, 0 or -inf, or None.

        Returns:
            (B, n, inner), for ``out`` to bring to the outer width.
        """
        heads_q, heads_k, heads_v = (
            t.view(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2) for t in (q, k, v)
        )
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":
            # Torch's fused attention takes longer there than its three steps.
            scores = heads_q * heads_q.shape[-1] ** -0.5 @ heads_k.transpose(2, 3)
            mixed = (scores if mask is None else scores.add_(mask)).softmax(dim=-1) @ heads_v
        else:
            mixed = F.scaled_dot_product_attention(heads_q, heads_k, heads_v, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2)


Mix = Callable[[Attention, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Does what ``Attention.mix`` does."""


class TwoWayLayer(nn.Module):
    """Token self-attention, tokens to image, token MLP, image to tokens.

    Args:
        dim: Channels of tokens and image.
        heads: Attention heads.
        mlp: Hidden width of the token MLP.
        first: Whether it is the first layer, whose self-attention has neither codes nor a shortcut.
    """

    def __init__(self, dim: int, heads: int, mlp: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attention = Attention(dim, heads, dim)
        self.to_image = Attention(dim, heads, dim // 2)
        self.to_tokens = Attention(dim, heads, dim // 2)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp), nn.ReLU(), nn.Linear(mlp, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))

    @property
    def last_norm(self) -> nn.LayerNorm:
        """The norm of the image side, behind the attention to the tokens."""
        norm = self.norms[3]
        assert isinstance(norm, nn.LayerNorm)
        return norm

    def constants(self, image: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the image side: keys and values for the tokens, queries to them; (B, cells, inner) each."""
        keys, values, queries = self.to_image.k, self.to_image.v, self.to_tokens.q
        k, v, q = project(image, (keys, grid), (values, None), (queries, grid))
        return k, v, q

    def forward(
        self,
        tokens: Tensor,
        codes: Tensor,
        image: Tensor,
        sides: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (B, t, dim) and image (B, cells, dim); ``sides`` come from ``constants``."""
        keys, values, queries = sides
        tokens = self.update(tokens, codes, keys, values, mask)
        mixed = self.answer(tokens, codes, queries, mask)
        return tokens, self.last_norm(plus(image, mixed, self.to_tokens.out))

    def update(
        self, tokens: Tensor, codes: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Let tokens (B, t, dim) look at each other and at the image's keys and values (B, cells, inner)."""
        placed = tokens if self.first else tokens + codes
        attention = self.self_attention
        mixed = attention.attend(attention.q(placed), attention.k(placed), attention.v(tokens), mask)
        tokens = self.norms[0](mixed if self.first else tokens + mixed)
        tokens = self.norms[1](tokens + self.to_image.attend(self.to_image.q(tokens + codes), keys, values))
        return self.norms[2](tokens + self.mlp(tokens))

    def answer(
        self, tokens: Tensor, codes: Tensor, queries: Tensor, mask: Tensor | None, mix: Mix = Attention.mix
    ) -> Tensor:
        """Return what the image's queries (B, cells, inner) find in the tokens, for ``to_tokens.out``.

        Args:
            tokens: (B, t, dim).
            codes: (B, t, dim), added to the tokens' keys.
            queries: (B, cells, inner).
            mask: (B, 1, 1, t), see ``Attention.mix``.
            mix: How attention is computed.
        """
        back = self.to_tokens
        return mix(back, queries, back.k(tokens + codes), back.v(tokens), mask)


def plus(total: Tensor, inputs: Tensor, layer: nn.Linear) -> Tensor:
    """Return ``total + layer(inputs)`` in two passes over memory, which bounds decoding, not arithmetic.

    Args:
        total: (B, c, k) float32.
        inputs: (B, c, j) float32.
        layer: With a bias.

    Returns:
        (B, c, k) float32, in rows.
    """
    start = (total + layer.bias).contiguous()
    start.view(-1, start.shape[-1]).addmm_(inputs.flatten(0, 1), layer.weight.T)
    return start


def project(image: Tensor, *layers: tuple[nn.Linear, Tensor | None]) -> tuple[Tensor, ...]:
    """Project an image by several layers at once.

    Args:
        image: (B, c, dim) float32.
        *layers: Each with the codes (c, dim) float32 of the cells' places, which it sees added to the image,
            or None. What a layer makes of the places is the same for every image.

    Returns:
        (B, c, inner) float32 for each layer.
    """
    fixed = [
        layer.bias.expand(image.shape[1], -1) if places is None else layer(places) for layer, places in layers
    ]
    total = torch.cat(fixed, dim=1).expand(len(image), -1, -1).contiguous()
    weight = torch.cat([layer.weight for layer, _ in layers])
    total.view(-1, total.shape[-1]).addmm_(image.flatten(0, 1), weight.T)
    return total.split([layer.out_features for layer, _ in layers], dim=-1)
