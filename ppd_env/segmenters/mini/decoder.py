"""SAM's prompt encoder and two-way mask decoder, batched exactly over prompt sets of different sizes.

The architecture is that of Segment Anything (Kirillov et al. 2023, appendix A) in small, with SAM 2's finer
side inputs to the upscaling. Two things differ from the usual implementations. Absent points are masked in
the two places where tokens are attended to, so a set's mask does not depend on what it is batched with. What
the first layer computes from the image alone is computed once per image and kept in the embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppd_env.segmenters.mini.config import MiniConfig


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
        centres = (torch.arange(side, device=self.matrix.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self(torch.stack([x, y], dim=-1).reshape(-1, 2))


class Attention(nn.Module):
    """Multi-head attention with an inner width of its own."""

    def __init__(self, dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(dim, inner), nn.Linear(dim, inner), nn.Linear(dim, inner)
        self.out = nn.Linear(inner, dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend with projected inputs.

        Args:
            q: (B, n, inner) float32.
            k: (B, m, inner) float32.
            v: (B, m, inner) float32.
            mask: (B, 1, 1, m) float32 added to the scores, 0 or -inf, or None.

        Returns:
            (B, n, dim) float32.
        """
        heads_q, heads_k, heads_v = (
            t.view(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2) for t in (q, k, v)
        )
        mixed = F.scaled_dot_product_attention(heads_q, heads_k, heads_v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class TwoWayLayer(nn.Module):
    """Token self-attention, tokens to image, token MLP, image to tokens."""

    def __init__(self, config: MiniConfig, first: bool) -> None:
        super().__init__()
        dim = config.dim
        self.first = first
        self.self_attention = Attention(dim, config.heads, dim)
        self.to_image = Attention(dim, config.heads, dim // 2)
        self.to_tokens = Attention(dim, config.heads, dim // 2)
        self.mlp = nn.Sequential(nn.Linear(dim, config.mlp), nn.ReLU(), nn.Linear(config.mlp, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))

    def constants(self, image: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the image side: keys and values for the tokens, queries to them; (B, cells, inner) each."""
        placed = image + grid
        return self.to_image.k(placed), self.to_image.v(image), self.to_tokens.q(placed)

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
        placed = tokens if self.first else tokens + codes
        attention = self.self_attention
        mixed = attention.attend(attention.q(placed), attention.k(placed), attention.v(tokens), mask)
        tokens = self.norms[0](mixed if self.first else tokens + mixed)
        tokens = self.norms[1](tokens + self.to_image.attend(self.to_image.q(tokens + codes), keys, values))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        back = self.to_tokens
        mixed = back.attend(queries, back.k(tokens + codes), back.v(tokens), mask)
        return tokens, self.norms[3](image + mixed)


_NOWHERE = 1e5
"""Stands for the squared distance to an absent point; its density is exactly 0."""


class PointVote(nn.Module):
    """SAM's dense prompt embedding, made from points: which sign each cell resembles and lies near.

    Every cell at twice the embedding's resolution has a code made of its features and its position; each
    point has that of the cell under it. A cell's vote is the log-ratio of the kernel densities of the
    positive and the negative points' codes, a constant standing in for a sign without points. It gives the
    mask a start that depends on appearance and place, which two small layers would take long to learn.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.from_image, self.from_side = nn.Linear(dim, dim), nn.Linear(dim // 4, dim // 4)
        self.nearness = nn.Parameter(torch.tensor(7.0))
        self.absent = nn.Parameter(torch.tensor([-8.0, -5.0]))

    def codes(self, image: Tensor, side8: Tensor) -> Tensor:
        """Code cells: image (B, h * h, dim), side8 (B, h * h, 4, dim / 4) -> (B, 4 * h * h, dim / 4 + 2)."""
        batch, cells, _ = image.shape
        h = math.isqrt(cells)
        look = self.from_image(image).view(batch, cells, 4, -1) + self.from_side(side8)
        axis = (torch.arange(2 * h, device=image.device) + 0.5) / (2 * h)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        place = _nested(torch.stack([x, y])[None] * self.nearness, h, 1).expand(batch, -1, -1, -1)
        return torch.cat([look, place], dim=-1).flatten(1, 2)

    def forward(self, codes: Tensor, under: Tensor, labels: Tensor) -> Tensor:
        """Vote.

        Args:
            codes: (B, c, k) float32 from ``codes``.
            under: (B, n) int64, the cell under each point.
            labels: (B, n) integer, 1, 0 or -1 for absent.

        Returns:
            (B, c) float32, positive where a cell goes with the positive points.
        """
        points = codes.gather(1, under[..., None].expand(-1, -1, codes.shape[-1]))
        # A point's own square, and minus infinity where it is absent, enter the product as one more column.
        height = points.square().sum(-1, keepdim=True).masked_fill((labels < 0)[..., None], _NOWHERE)
        ones = codes.new_ones(1, 1, 1).expand(*codes.shape[:2], 1)
        likeness = torch.cat([2 * codes, ones], -1) @ torch.cat([points, -height], -1).transpose(1, 2)
        constants = self.absent + codes.square().sum(-1, keepdim=True)
        top = torch.maximum(likeness.amax(-1, keepdim=True), constants.amax(-1, keepdim=True))
        signs = torch.stack([labels == 1, labels == 0], dim=-1).to(codes.dtype)
        density = (likeness - top).exp() @ signs + (constants - top).exp()
        positive, negative = density.clamp(min=1e-30).log().unbind(-1)
        return positive - negative


class MaskDecoder(nn.Module):
    """Prompts and an embedded image to mask logits and predicted IoU."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        dim, self.mask_tokens = config.dim, config.mask_tokens
        self.position = FourierPosition(dim)
        self.label_codes = nn.Embedding(2, dim)
        self.output_tokens = nn.Parameter(torch.randn(1 + config.mask_tokens, dim) * 0.5)
        self.under_point = nn.Linear(dim + dim // 4 + dim // 8, dim)
        self.no_mask = nn.Parameter(torch.zeros(dim))
        self.mask_stem = nn.Sequential(
            nn.Conv2d(1, 8, 2, 2), nn.GELU(), nn.Conv2d(8, 32, 2, 2), nn.GELU(), nn.Conv2d(32, dim, 1)
        )
        self.layers = nn.ModuleList(TwoWayLayer(config, first=i == 0) for i in range(config.layers))
        self.last = Attention(dim, config.heads, dim // 2)
        self.last_norm = nn.LayerNorm(dim)
        self.up8, self.up8_norm = nn.Linear(dim, dim), nn.LayerNorm(dim // 4)
        self.up4 = nn.Linear(dim // 4, dim // 2)
        self.vote, self.vote_in = PointVote(dim), nn.Linear(1, dim // 4)
        self.vote_out = nn.Parameter(torch.full((config.mask_tokens,), 0.5))
        self.hyper = nn.ModuleList(_mlp(dim, dim // 8) for _ in range(config.mask_tokens))
        self.iou_head = _mlp(dim, config.mask_tokens)

    def prepare(self, image: Tensor, side8: Tensor, side4: Tensor) -> dict[str, Tensor]:
        """Compute what depends on the image alone.

        Args:
            image: (B, h * h, dim) float32 from the encoder.
            side8: (B, dim / 4, 2h, 2h) float32.
            side4: (B, dim / 8, 4h, 4h) float32.

        Returns:
            ``image`` without a mask prompt, the first layer's ``keys``, ``values`` and ``queries``, the side
            inputs in the order in which the upscaling produces its cells, and the ``codes`` for voting.
        """
        h = math.isqrt(image.shape[1])
        image = image + self.no_mask
        keys, values, queries = self._first().constants(image, self.position.grid(h))
        nested8 = _nested(side8, h, 1)
        return {
            "image": image,
            "keys": keys,
            "values": values,
            "queries": queries,
            "side8": nested8,
            "side4": _nested(side4, h, 2),
            "codes": self.vote.codes(image, nested8),
        }

    def forward(
        self, prepared: dict[str, Tensor], points: Tensor, labels: Tensor, mask: Tensor | None, tokens: slice
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets over B prepared images.

        Args:
            prepared: From ``prepare``, leading axis B.
            points: (B, n, 2) float32 in the unit square of the letterboxed image.
            labels: (B, n) integer, 1, 0 or -1 for absent.
            mask: (B, 1, 4h, 4h) float32 logits of an earlier mask, or None.
            tokens: Which mask tokens to upscale.

        Returns:
            logits: (B, m, 4h, 4h) float32.
            iou: (B, m) float32.
        """
        image, grid = prepared["image"], self.position.grid(math.isqrt(prepared["image"].shape[1]))
        sides = (prepared["keys"], prepared["values"], prepared["queries"])
        if mask is not None:
            image = image - self.no_mask + self.mask_stem(mask).flatten(2).transpose(1, 2)
            sides = self._first().constants(image, grid)
        under = _cells_under(points, math.isqrt(grid.shape[0]))
        codes, bias = self._tokens(prepared, points, labels, under)
        state = codes
        for layer in self.layers:
            assert isinstance(layer, TwoWayLayer)
            fixed = sides if layer.first else layer.constants(image, grid)
            state, image = layer(state, codes, image, fixed, bias)
        last = self.last
        mixed = last.attend(last.q(state + codes), last.k(image + grid), last.v(image))
        state = self.last_norm(state + mixed)
        vote = self.vote(prepared["codes"], under[1], labels)
        logits = self._upscale(image, state[:, 1 : 1 + self.mask_tokens], prepared, vote, tokens)
        return logits, self.iou_head(state[:, 0])[:, tokens]

    def _first(self) -> TwoWayLayer:
        layer = self.layers[0]
        assert isinstance(layer, TwoWayLayer)
        return layer

    def _tokens(
        self, prepared: dict[str, Tensor], points: Tensor, labels: Tensor, under: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """Output tokens followed by point codes, and the additive mask of absent points if there are any.

        A point's code holds its position, its sign and what the encoder saw under it.
        """
        batch = len(points)
        seen = [
            prepared[name].flatten(1, -2).gather(1, cell[..., None].expand(-1, -1, prepared[name].shape[-1]))
            for name, cell in zip(("image", "side8", "side4"), under, strict=True)
        ]
        codes = self.position(points) + self.label_codes(labels.clamp(min=0).long())
        codes = codes + self.under_point(torch.cat(seen, dim=-1))
        tokens = torch.cat([self.output_tokens.expand(batch, -1, -1), codes], dim=1)
        absent = labels < 0
        if not bool(absent.any()):
            return tokens, None
        bias = tokens.new_zeros(batch, 1, 1, tokens.shape[1])
        bias[:, 0, 0, len(self.output_tokens) :].masked_fill_(absent, float("-inf"))
        return tokens, bias

    def _upscale(
        self, image: Tensor, state: Tensor, prepared: dict[str, Tensor], vote: Tensor, tokens: slice
    ) -> Tensor:
        """Upscale by four and multiply with the chosen mask tokens.

        Transposed convolutions whose kernel equals their stride are plain matrix products on each cell; the
        cells stay in nested order (coarse, 2 x 2, 2 x 2) until only the logits are left to be put in rows.
        """
        batch, cells, _ = image.shape
        h = math.isqrt(cells)
        vote = vote.clamp(-12, 12).view(batch, cells, 4, 1)
        fine = self.up8(image).view(batch, cells, 4, -1) + prepared["side8"] + self.vote_in(vote)
        fine = F.gelu(self.up8_norm(fine))
        fine = self.up4(fine).view(batch, cells, 16, -1).add(prepared["side4"]).relu_().flatten(1, 2)
        chosen = range(self.mask_tokens)[tokens]
        weights = torch.stack([self.hyper[i](state[:, i]) for i in chosen], dim=1)
        start = vote.expand(-1, -1, -1, 4).reshape(batch, 1, -1) * self.vote_out[tokens, None]
        logits = torch.baddbmm(start, weights, fine.transpose(1, 2))
        nested = logits.view(batch, len(chosen), h, h, 2, 2, 2, 2)
        return nested.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(batch, len(chosen), 4 * h, 4 * h)


def _mlp(dim: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, outputs)
    )


def _cells_under(points: Tensor, h: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells under (B, n, 2) points at h, 2h and 4h cells a side, (B, n) int64 in nested order."""
    column, row = (points * (4 * h)).long().clamp(0, 4 * h - 1).unbind(-1)
    coarse = row // 4 * h + column // 4
    middle = 4 * coarse + 2 * (row // 2 % 2) + column // 2 % 2
    return coarse, middle, 4 * middle + 2 * (row % 2) + column % 2


def _nested(side: Tensor, h: int, levels: int) -> Tensor:
    """Reorder (B, c, h * 2^levels, ...) pixels to (B, h * h, 4^levels, c): cell by cell of the embedding."""
    batch, channels = side.shape[:2]
    if levels == 1:
        split = side.reshape(batch, channels, h, 2, h, 2).permute(0, 2, 4, 3, 5, 1)
    else:
        split = side.reshape(batch, channels, h, 2, 2, h, 2, 2).permute(0, 2, 5, 3, 6, 4, 7, 1)
    return split.reshape(batch, h * h, 4**levels, channels)
