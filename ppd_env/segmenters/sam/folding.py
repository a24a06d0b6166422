"""Weights of a frozen mask decoder, multiplied out ahead of time.

What the image's side of the two-way transformer computes is linear up to its layer norms, so much of it can
be done once per decoder or once per scene. All of it is exact algebra:

- Positional codes enter projections as a sum, so what a projection makes of them is a constant per cell.
- A layer norm is a centring, a scale per cell and an affine map. The first layer's centring and affine map go
  into the second layer's projection, which splits it into a part that depends on the scene alone and one of
  the attention's (narrower) result: half the work of projecting the normed image.
- Few tokens are read at the end. Their queries are brought into the image's space instead of bringing the
  image into that of keys and values: with t of them and h heads, h * t rows instead of one per cell.
- A transposed convolution whose kernel is its stride is a matrix product on each cell.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ppd_env.segmenters.two_way import Attention, TwoWayLayer


@dataclass(frozen=True)
class Folded:
    """Products of a decoder's weights; c cells, dim channels, inner channels inside attention.

    Args:
        scene: (dim, 6 * inner), what makes a scene's constants of its image.
        scene_fixed: (c, 6 * inner), its part that no scene changes.
        onward: (inner, 3 * inner), of the first layer's attention in the second layer's projections.
        onward_fixed: (c, 3 * inner), their part that no scene changes.
        later: For each further layer the weights (dim, 3 * inner) and the fixed part (c, 3 * inner).
        shifts: Biases (dim) of each layer's last norm, with that of what is added next.
        last_keys: (heads, inner / heads, dim), of the last attention.
        last_places: (heads, inner / heads, c), what its keys are made of beside the image.
        last_values: (heads, dim, inner / heads).
        up1: (4 * dim / 4, dim), first enlargement, and its bias.
        up2: (4 * dim / 8, dim / 4), second enlargement, and its bias.
    """

    scene: Tensor
    scene_fixed: Tensor
    onward: Tensor
    onward_fixed: Tensor
    later: tuple[tuple[Tensor, Tensor], ...]
    shifts: tuple[Tensor, ...]
    last_keys: Tensor
    last_places: Tensor
    last_values: Tensor
    up1: tuple[Tensor, Tensor]
    up2: tuple[Tensor, Tensor]

    def to(self, dtype: torch.dtype) -> Folded:
        """Return the same in another type."""
        products: dict[str, Any] = {f.name: _cast(getattr(self, f.name), dtype) for f in fields(self)}
        return replace(self, **products)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast a tensor, or all tensors of nested tuples."""
    if isinstance(value, tuple):
        return tuple(_cast(part, dtype) for part in value)
    return value.to(dtype).contiguous()


def fold(
    layers: list[TwoWayLayer],
    last: Attention,
    grid: Tensor,
    up1: nn.ConvTranspose2d,
    up2: nn.ConvTranspose2d,
) -> Folded:
    """Multiply weights out.

    Args:
        layers: Two-way layers, at least one.
        last: The attention from tokens to image behind them.
        grid: (c, dim) float32, codes of the cells' places.
        up1: First enlargement.
        up2: Second enlargement.

    Returns:
        The products, float32.
    """
    projections = [_projection(layer, grid) for layer in layers]
    weight, fixed = projections[0]
    inner = weight.shape[1] // 3
    onward, onward_fixed = weight.new_zeros(inner, 0), fixed.new_zeros(len(grid), 0)
    ahead, ahead_fixed = weight.new_zeros(len(weight), 0), onward_fixed
    if len(layers) > 1:
        norm, out = layers[0].last_norm, layers[0].to_tokens.out
        following, following_fixed = projections[1]
        scaled = norm.weight[:, None] * following
        ahead = scaled - scaled.mean(dim=0, keepdim=True)
        ahead_fixed = (out.bias @ ahead).expand(len(grid), -1)
        onward, onward_fixed = out.weight.T @ ahead, following_fixed + norm.bias @ following
    outs = [layer.to_tokens.out for layer in layers]
    norms = [layer.last_norm.bias for layer in layers]
    shifts = [norm + out.bias for norm, out in zip(norms, outs[1:], strict=False)] + norms[-1:]
    # The image that later layers project already holds the bias of what they will add to it.
    later = [
        (product, constant - out.bias @ product)
        for (product, constant), out in zip(projections[2:], outs[2:], strict=True)
    ]
    keys, values = (layer.weight.unflatten(0, (last.heads, -1)) for layer in (last.k, last.v))
    return Folded(
        scene=torch.cat([weight, ahead], dim=1),
        scene_fixed=torch.cat([fixed, ahead_fixed], dim=1),
        onward=onward,
        onward_fixed=onward_fixed,
        later=tuple(later),
        shifts=tuple(shifts),
        last_keys=keys,
        last_places=keys @ grid.T,
        last_values=values.transpose(1, 2),
        up1=_as_product(up1),
        up2=_as_product(up2),
    )


def _projection(layer: TwoWayLayer, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights (dim, 3 * inner) of keys, values and queries, and their fixed parts (c, 3 * inner)."""
    keys, values, queries = layer.to_image.k, layer.to_image.v, layer.to_tokens.q
    fixed = [keys(grid), values.bias.expand(len(grid), -1), queries(grid)]
    return torch.cat([keys.weight, values.weight, queries.weight]).T, torch.cat(fixed, dim=1)


def _as_product(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return a 2 x 2 enlargement as weights (4 * outputs, inputs) and bias (4 * outputs), row by row."""
    assert layer.bias is not None
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4)
