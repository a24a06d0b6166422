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

from ppd_env.segmenters.sam.attention import mix_cells
from ppd_env.segmenters.sam.config import DecoderConfig
from ppd_env.segmenters.sam.folding import Folded, fold
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
    folded: Folded
    dtype = torch.float32
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
        """Turn the image encoder's outputs, leading axis B, into what is kept of an image."""
        return dict(encoded)

    @torch.no_grad()
    def freeze(self, dtype: torch.dtype = torch.float32) -> None:
        """Multiply out what does not depend on an image; call it when the weights are final and in place.

        Args:
            dtype: What the transformer and the upscaling compute in. Places, output heads and, inside their
                kernels, softmax and norms stay in float32.
        """
        layers = [layer for layer in self.layers if isinstance(layer, TwoWayLayer)]
        grid = self.prompts.position.grid(self.config.cells)
        self.folded = fold(layers, self.last, grid, self.up1, self.up2).to(dtype)
        for module in (self.layers, self.last, self.last_norm, self.up_norm):
            module.to(dtype)
        self.dtype = dtype

    def constants(self, embedded: Mapping[str, Tensor], mask: Tensor | None = None) -> dict[str, Tensor]:
        """Compute what the prompts do not change.

        Args:
            embedded: From ``prepare``, leading axis B.
            mask: (B, 1, 4h, 4h) float32 logits of an earlier mask, or None.

        Returns:
            Of the decoder's type, leading axis B and c = h * h cells: ``cells`` (B, c, dim), the image as the
            first layer adds to it, its ``keys``, ``values`` and ``queries`` (B, c, dim / 2), and ``ahead``
            (B, c, 3 * dim / 2), the scene's part in the second layer's. All but the first are views of one
            tensor.
        """
        image = embedded[self.image_name].flatten(2).transpose(1, 2) + self.prompts.mask(mask)
        folded, first = self.folded, self.layers[0]
        assert isinstance(first, TwoWayLayer)
        inner = first.to_image.k.out_features
        made = torch.baddbmm(
            folded.scene_fixed,
            image.to(self.dtype),
            folded.scene.expand(len(image), -1, -1),
        )
        keys, values, queries, ahead = made.split([inner, inner, inner, made.shape[-1] - 3 * inner], dim=-1)
        parts = {"keys": keys, "values": values, "queries": queries, "ahead": ahead}
        cells = image.to(self.dtype) + first.to_tokens.out.bias
        return {"cells": cells, **parts}

    def forward(
        self, constants: Mapping[str, Tensor], points: Tensor, labels: Tensor, multimask: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets.

        Args:
            constants: From ``constants``, leading axis B.
            points: (B, n, 2) float32 in the unit square of the encoder's input.
            labels: (B, n) integer, 1, 0 or ``ABSENT``.
            multimask: Whether the ambiguity masks are asked for, or the single one.

        Returns:
            logits: (B, m, 4h, 4h) float32, m = 3 if multimask else 1.
            iou: (B, m) float32.
        """
        codes, bias = self.tokens(points, labels)
        wanted = self.wanted(multimask)
        state, image = self.attend(codes, constants, bias, wanted)
        return self.read(state.float(), self.upscale(image, constants), constants, multimask)

    def tokens(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return output and point tokens (B, t, dim), and the mask (B, 1, 1, t) of absent ones if any are."""
        codes, absent = self.prompts.points(points, labels)
        fixed = self.output_tokens.expand(len(codes), -1, -1)
        tokens = torch.cat([fixed, codes], dim=1).to(self.dtype)
        # A single set is handed over without empty slots; asking would make a GPU wait.
        if len(labels) == 1 and not bool(absent.any()):
            return tokens, None
        absent = F.pad(absent, (fixed.shape[1], 0))
        bias = tokens.new_zeros(absent.shape).masked_fill(absent, float("-inf"))
        return tokens, bias[:, None, None]

    def attend(
        self, codes: Tensor, constants: Mapping[str, Tensor], bias: Tensor | None, wanted: slice
    ) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer.

        Args:
            codes: (B, t, dim) tokens as they begin, also their position codes throughout.
            constants: From ``constants``.
            bias: (B, 1, 1, t) added where tokens are attended to, or None.
            wanted: Which tokens are read.

        Returns:
            The wanted tokens (B, w, dim) and the image (B, c, dim) at its end.
        """
        state, image, folded = codes, constants["cells"], self.folded
        sides: tuple[Tensor, ...] = constants["keys"], constants["values"], constants["queries"]
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, TwoWayLayer)
            keys, values, queries = sides
            state = layer.update(state, codes, keys, values, bias)
            mixed, norm = layer.answer(state, codes, queries, bias, mix_cells), layer.last_norm
            image = _add_product(image, mixed, layer.to_tokens.out.weight.T, in_place=index > 0)
            image, _, scale = torch.native_layer_norm(
                image, list(norm.normalized_shape), norm.weight, folded.shifts[index], norm.eps
            )
            if index == 0 and len(self.layers) > 1:
                scale = scale.to(self.dtype)
                projected = torch.addcmul(folded.onward_fixed, constants["ahead"], scale)
                projected = _add_product(projected, mixed * scale, folded.onward, in_place=True)
                sides = projected.chunk(3, dim=-1)
            elif index + 1 < len(self.layers):
                weight, fixed = folded.later[index - 1]
                sides = _add_product(fixed.expand(len(image), -1, -1), image, weight).chunk(3, dim=-1)
        return self._last(state[:, wanted], codes[:, wanted], image), image

    def _last(self, state: Tensor, codes: Tensor, image: Tensor) -> Tensor:
        """Let a few tokens (B, w, dim) look at the image (B, c, dim) for the last time.

        Keys and values stay in the image's own space. The bias of the keys adds the same to all scores of a
        query, which changes nothing.
        """
        last, folded = self.last, self.folded
        queries = last.q(state + codes).unflatten(2, (last.heads, -1)).transpose(1, 2)
        queries = queries * queries.shape[-1] ** -0.5
        places = (queries @ folded.last_places).flatten(1, 2)
        scores = torch.baddbmm(places, (queries @ folded.last_keys).flatten(1, 2), image.transpose(1, 2))
        seen = (scores.softmax(dim=-1) @ image).unflatten(1, (last.heads, -1))
        mixed = (seen @ folded.last_values).transpose(1, 2).flatten(2) + last.v.bias
        return self.last_norm(state + last.out(mixed))

    def upscale(self, image: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
        """Bring the image (B, c, dim) to four times its side, folded (``as_plane``): (B, 16 * c, dim / 8)."""
        fine = self.soften(split(F.linear(image, *self.folded.up1)))
        return gelu_(split(F.linear(fine, *self.folded.up2)))

    def soften(self, cells: Tensor) -> Tensor:
        """Normalise cells (B, 4 * c, dim / 4) and apply the first GELU."""
        norm = self.up_norm
        return gelu_(F.layer_norm(cells, list(norm.normalized_shape), norm.weight, norm.bias, norm.eps))

    def read(
        self, state: Tensor, fine: Tensor, constants: Mapping[str, Tensor], multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Draw the asked masks, and no others, from the wanted tokens and the upscaled image."""
        tokens = self.asked(multimask)
        return self.draw(state, fine, tokens), self.rate(state)[:, tokens]

    @staticmethod
    def asked(multimask: bool) -> slice:
        """Return which mask tokens are asked for: the first one is trained for a single answer."""
        return slice(1, None) if multimask else slice(0, 1)

    def drawn(self, multimask: bool) -> slice:
        """Return which mask tokens are drawn to give what is asked for."""
        return self.asked(multimask)

    def wanted(self, multimask: bool) -> slice:
        """Return which tokens are read at the end: the IoU token and mask tokens, one after the other."""
        masks = range(self.config.mask_tokens)[self.drawn(multimask)]
        return slice(self.before, self.before + 2 + masks[-1])

    def draw(self, state: Tensor, fine: Tensor, tokens: slice) -> Tensor:
        """Return the logits (B, m, 4h, 4h) float32 of some mask tokens."""
        chosen = range(self.config.mask_tokens)[tokens]
        weights = torch.stack([self.hyper[i](state[:, 1 + i]) for i in chosen], dim=2)
        return as_plane(fine @ weights.to(fine.dtype)).float()

    def rate(self, state: Tensor) -> Tensor:
        """Return the predicted IoU (B, mask_tokens) of every mask token."""
        return self.iou_head(state[:, 0])


def _add_product(total: Tensor, inputs: Tensor, weight: Tensor, in_place: bool = False) -> Tensor:
    """Return ``total + inputs @ weight`` for (B, c, k), (B, c, j), (j, k), written into ``total`` or not."""
    start = total if in_place else total.contiguous()
    flat, inputs = start.view(-1, start.shape[-1]), inputs.flatten(0, 1)
    out = flat.addmm_(inputs, weight) if in_place else torch.addmm(flat, inputs, weight)
    return out.view(total.shape)


def gelu_(x: Tensor) -> Tensor:
    """Apply GELU in place, which spares fresh memory."""
    return torch.ops.aten.gelu_(x)


def split(cells: Tensor) -> Tensor:
    """Cut every cell into the four it was enlarged to: (B, c, 4 * k) -> (B, 4 * c, k)."""
    return cells.view(len(cells), 4 * cells.shape[1], -1)


def as_plane(cells: Tensor) -> Tensor:
    """Put cells cut twice in four (``split``), (B, 16 * h * h, k), into rows: (B, k, 4h, 4h)."""
    side = math.isqrt(cells.shape[1]) // 4
    nested = cells.view(len(cells), side, side, 2, 2, 2, 2, -1)
    return nested.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(len(cells), -1, 4 * side, 4 * side)


def as_cells(plane: Tensor, times: int) -> Tensor:
    """Undo ``as_plane`` for cells cut so many ``times``: (B, k, s, s) -> (B, s * s, k)."""
    batch, channels, side, _ = plane.shape
    halves = [side >> times] + [2] * times
    nested = plane.reshape(batch, channels, *halves, *halves)
    count = len(halves)
    order = [axis for level in range(count) for axis in (2 + level, 2 + count + level)]
    return nested.permute(0, *order, 1).reshape(batch, side * side, channels)


def head(dim: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a three-layer perceptron."""
    return nn.Sequential(
        nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
