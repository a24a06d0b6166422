"""SAM's prompt encoder and two-way mask decoder, batched exactly over prompt sets of different sizes.

The architecture is that of Segment Anything (Kirillov et al. 2023, appendix A) in small, with SAM 2's finer
side inputs to the upscaling. What a small network needs besides: point tokens see the features under them,
the dense prompt embedding is made from the points (``vote``, ``geodesic``), and both also go into the
upscaling. Two more things differ from the usual implementations. Absent points are masked in the two places
where tokens are attended to, so a set's mask does not depend on what it is batched with. What the first
layer computes from the image alone is computed once per image and kept in the embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.geodesic import GeodesicDistance
from ppd_env.segmenters.mini.vote import PointVote, add_unfolded, fold_cells
from ppd_env.segmenters.two_way import Attention, FourierPosition, TwoWayLayer, plus, project


class SpatialMixing(nn.Module):
    """A depthwise convolution and a channel MLP around a shortcut (ConvNeXt, Liu et al. 2022).

    The transformer's layers let cells speak to prompts, not to each other. Here what is known at one cell
    spreads to those around it, as far as the image allows.
    """

    def __init__(self, width: int, kernel: int = 7) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width)
        )
        for parameter in self.mlp[2].parameters():  # a block begins as the identity
            nn.init.zeros_(parameter)

    def forward(self, cells: Tensor) -> Tensor:
        """Map (B, h * h, width) to the same shape."""
        h = math.isqrt(cells.shape[1])
        # A permuted view is what convolutions call the channels-last format: nothing is copied.
        plane = self.spread(cells.unflatten(1, (h, h)).permute(0, 3, 1, 2))
        inner = self.mlp[:-1](self.norm(plane.permute(0, 2, 3, 1).flatten(1, 2)))
        outward = self.mlp[-1]
        assert isinstance(outward, nn.Linear)
        return plus(cells, inner, outward)


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
        self.layers = nn.ModuleList(
            TwoWayLayer(dim, config.heads, config.mlp, first=i == 0) for i in range(config.layers)
        )
        self.last = Attention(dim, config.heads, dim // 2)
        self.last_norm = nn.LayerNorm(dim)
        self.vote, self.vote_in16, self.vote_in = PointVote(dim), nn.Linear(5, dim), nn.Linear(1, dim // 4)
        self.geodesic = GeodesicDistance(dim)
        self.ways_in16 = nn.Linear(3, dim, bias=False)
        self.ways_in8 = nn.Linear(12, dim // 4, bias=False)
        self.ways_in4 = nn.Linear(12, dim // 2, bias=False)
        for layer in (self.vote_in16, self.ways_in16, self.ways_in8, self.ways_in4):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.mixing16, self.mixing8 = SpatialMixing(dim), SpatialMixing(dim // 4)
        self.up8, self.up8_norm = nn.Linear(dim, dim), nn.LayerNorm(dim // 4)
        self.up4 = nn.Linear(dim // 4, dim // 2)
        self.vote_out = nn.Parameter(torch.full((config.mask_tokens,), 0.5))
        self.ways_out = nn.Parameter(torch.full((config.mask_tokens,), 2.0))
        self.hyper = nn.ModuleList(_mlp(dim, dim // 8) for _ in range(config.mask_tokens))
        self.iou_head = _mlp(dim, config.mask_tokens)
        self.iou_expected = nn.Parameter(torch.zeros(()))

    def prepare(self, image: Tensor, side8: Tensor, side4: Tensor, edges: Tensor) -> dict[str, Tensor]:
        """Compute what depends on the image alone.

        Args:
            image: (B, h * h, dim) float32 from the encoder.
            side8: (B, dim / 4, 2h, 2h) float32.
            side4: (B, dim / 8, 4h, 4h) float32.
            edges: (B, 1, 4h, 4h) float32.

        Returns:
            ``image`` without a mask prompt, the first layer's ``keys``, ``values`` and ``queries``, the side
            inputs as ``side8`` (B, 4h * h, dim / 4) and ``side4`` (B, 4h * h, dim / 2), the ``codes`` for
            voting and the ``costs`` of ways across the image.
        """
        h = math.isqrt(image.shape[1])
        image = image + self.no_mask
        keys, values, queries = self._first().constants(image, self.position.grid(h))
        rows8 = _rows(side8).contiguous()
        return {
            "image": image,
            "keys": keys,
            "values": values,
            "queries": queries,
            "side8": rows8,
            "side4": fold_cells(_rows(side4)),
            "codes": self.vote.codes(image, rows8),
            "costs": self.geodesic.costs(edges, side8, side4),
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
            image = image - self.no_mask + _rows(self.mask_stem(mask))
            sides = self._first().constants(image, grid)
        under, finest = _cells_under(points, math.isqrt(grid.shape[0]))
        codes, bias = self._tokens(prepared, points, labels, under)
        vote, place = self.vote(prepared["codes"], points, under[1], labels)
        ways = self.geodesic(prepared["costs"], finest, labels)
        state = codes
        for layer in self.layers:
            assert isinstance(layer, TwoWayLayer)
            fixed = sides if layer.first else layer.constants(image, grid)
            state, image = layer(state, codes, image, fixed, bias)
            if layer.first:
                dense = (fold_cells(vote[..., None]), place[..., None], _rows(F.avg_pool2d(ways, 4)))
                image = self.mixing16(_accumulate(image, _with_ones(*dense), self.vote_in16, self.ways_in16))
        last = self.last
        keys, values = project(image, (last.k, grid), (last.v, None))
        state = self.last_norm(state + last.attend(last.q(state + codes), keys, values))
        logits = self._upscale(image, state[:, 1 : 1 + self.mask_tokens], prepared, vote, ways, tokens)
        iou = self.iou_head(state[:, 0])[:, tokens] + self.iou_expected * expected_iou(logits.detach())
        return logits, iou

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
        at16, at8, at4 = under
        side4 = prepared["side4"].unflatten(2, (4, -1)).flatten(1, 2)
        sources = ((prepared["image"], at16), (prepared["side8"], at8), (side4, at4))
        seen = [
            source.gather(1, cell[..., None].expand(-1, -1, source.shape[-1])) for source, cell in sources
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
        self,
        image: Tensor,
        state: Tensor,
        prepared: dict[str, Tensor],
        vote: Tensor,
        ways: Tensor,
        tokens: slice,
    ) -> Tensor:
        """Upscale by four and multiply with the chosen mask tokens.

        Transposed convolutions whose kernel equals their stride are plain matrix products on each cell; the
        last one's cells stay folded until only the logits are left to be put in rows.
        """
        batch, side = len(vote), math.isqrt(vote.shape[1])
        dense = _with_ones(vote[..., None], fold_cells(_rows(ways)))
        fine = add_unfolded(prepared["side8"], self.up8(image))
        fine = self.up8_norm(_accumulate(fine, dense, self.vote_in, self.ways_in8)).relu_()
        fine = plus(prepared["side4"], self.mixing8(fine), self.up4)
        fine = _accumulate(fine, dense[..., 1:-1], self.ways_in4).relu_()
        fine = fine.unflatten(2, (4, -1)).flatten(1, 2)
        chosen = range(self.mask_tokens)[tokens]
        weights = torch.stack([self.hyper[i](state[:, i]) for i in chosen], dim=1)
        logits = (weights @ fine.transpose(1, 2)).view(batch, len(chosen), side, side, 2, 2)
        logits = logits.transpose(3, 4).reshape(batch, len(chosen), 2 * side, 2 * side)
        smooth = F.interpolate(vote.view(batch, 1, side, side), scale_factor=2.0, mode="bilinear")
        votes = torch.cat([smooth, ways[:, :1]], dim=1).flatten(2)
        start = torch.stack([self.vote_out, self.ways_out], dim=1)[tokens] @ votes
        return logits + start.view(logits.shape)


def expected_iou(logits: Tensor) -> Tensor:
    """IoU of a mask with the truth, were every pixel right with the probability its logit says.

    Args:
        logits: (B, m, h, w) float32.

    Returns:
        (B, m) float32.
    """
    inside = logits.sigmoid()
    shown = logits > 0
    both, either = inside * shown, torch.where(shown, 1.0, inside)
    return both.sum(dim=(-2, -1)) / either.sum(dim=(-2, -1)).clamp(min=1)


def _accumulate(total: Tensor, inputs: Tensor, *layers: nn.Linear) -> Tensor:
    """Add to ``total`` (B, c, k), in one pass and in place, what layers make of inputs that lie side by side.

    Where the first layer has a bias, the last input is the constant 1 (``_with_ones``).
    """
    weights = [layer.weight for layer in layers]
    if layers[0].bias is not None:
        weights.append(layers[0].bias[:, None])
    total.view(-1, total.shape[-1]).addmm_(inputs.flatten(0, 1), torch.cat(weights, dim=1).T)
    return total


def _with_ones(*inputs: Tensor) -> Tensor:
    """Lay inputs (B, c, j) side by side, with a constant 1 behind them."""
    return torch.cat([*inputs, inputs[0].new_ones(1, 1, 1).expand(*inputs[0].shape[:2], 1)], dim=-1)


def _rows(plane: Tensor) -> Tensor:
    """Turn (B, c, h, w) into cells, row by row: (B, h * w, c)."""
    return plane.flatten(2).transpose(1, 2)


def _mlp(dim: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, outputs)
    )


def _cells_under(points: Tensor, h: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Return the cells under (B, n, 2) points, (B, n) int64 each.

    First at h and 2h cells a side, row by row, and at 4h, 2 x 2 folded; then at 4h row by row.
    """
    column, row = (points * (4 * h)).long().clamp(0, 4 * h - 1).unbind(-1)
    middle = row // 2 * 2 * h + column // 2
    folded = 4 * middle + 2 * (row % 2) + column % 2
    return (row // 4 * h + column // 4, middle, folded), row * 4 * h + column
