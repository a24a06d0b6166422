"""Attention of an image's many cells to a few tokens, laid out for a processor's caches."""

from __future__ import annotations

import torch
from torch import Tensor

from ppd_env.segmenters.two_way import Attention

_FEW = {torch.float32: 64, torch.bfloat16: 1024}
"""Tokens up to which this way is the faster one on a CPU, by type of number; elsewhere it never is."""

_SCORES = 2**17
"""Scores of a head that are worked on at once: more would not stay in a core's cache."""


def mix_cells(
    attention: Attention, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Tensor:
    """Do what ``Attention.mix`` does, with many queries and few keys.

    Torch's own attention goes along the keys, and a row of some forty of them leaves vector units idle. Here
    the cells lie along the rows: products are as large, and the softmax takes many cells at a time.

    Args:
        attention: Whose.
        queries: (B, c, inner), of the image's cells.
        keys: (B, t, inner), of the tokens.
        values: (B, t, inner).
        mask: (B, 1, 1, t) added to the scores, 0 or -inf, or None.

    Returns:
        (B, c, inner).
    """
    tokens = keys.shape[1]
    if queries.device.type != "cpu" or tokens > _FEW.get(queries.dtype, 0):
        return attention.mix(queries, keys, values, mask)
    cells, looked_at, found = (
        part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in (queries, keys, values)
    )
    looked_at = looked_at * looked_at.shape[-1] ** -0.5
    shift = None if mask is None else mask.transpose(2, 3)
    width = 1 << (max(1, _SCORES // tokens).bit_length() - 1)
    parts = []
    for some in cells.transpose(2, 3).split(width, dim=3):
        scores = looked_at @ some
        if shift is not None:
            scores += shift
        parts.append(found.transpose(2, 3) @ scores.softmax(dim=2))
    mixed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)
    return mixed.flatten(1, 2).transpose(1, 2)
