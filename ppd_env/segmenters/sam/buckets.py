"""A compiled decoder for a few shapes, into which batches are filled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_env.segmenters.contract import ABSENT
from ppd_env.segmenters.sam.decoder import MaskDecoder

_POINTS = 16
"""Numbers of points are filled up to a multiple of this, with absent ones."""

_SHAPES = 512
"""Shapes that may be compiled, such as batches to 1024 at 16 to 800 points; torch's own limit of 8 ends in an
error."""


class Buckets:
    """Decodes batches of any shape with few compiled ones; called as the decoder is.

    Batches are filled up to a power of two by repeating their first set, prompt sets by absent points, which
    change no mask. On a GPU each shape becomes a CUDA graph, replayed with one launch.

    Args:
        decoder: Frozen.
        backend: Of ``torch.compile``; None: inductor, with CUDA graphs on a GPU.
    """

    def __init__(self, decoder: MaskDecoder, backend: str | None = None) -> None:
        from torch._dynamo import config  # heavy, and needed where something is compiled only

        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
        self._many_shapes = partial(config.patch, {limit: _SHAPES})
        if backend is None:
            self._compiled = torch.compile(decoder, mode="reduce-overhead", dynamic=False, fullgraph=True)
        else:
            self._compiled = torch.compile(decoder, backend=backend, dynamic=False, fullgraph=True)

    def __call__(
        self, constants: Mapping[str, Tensor], points: Tensor, labels: Tensor, multimask: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets; see ``MaskDecoder.forward``."""
        batch, width = labels.shape
        # At least two sets: with one, the decoder would ask whether points are absent, and wait.
        more_sets = max(2, 1 << (batch - 1).bit_length()) - batch
        more_points = -width % _POINTS
        points = F.pad(points, (0, 0, 0, more_points))
        labels = F.pad(labels, (0, more_points), value=ABSENT)
        full = {name: _repeat_first(tensor, more_sets) for name, tensor in constants.items()}
        torch.compiler.cudagraph_mark_step_begin()
        with self._many_shapes():
            logits, iou = self._compiled(
                full, _repeat_first(points, more_sets), _repeat_first(labels, more_sets), multimask
            )
        # The next replay writes over what a graph returned.
        return logits[:batch].clone(), iou[:batch].clone()


def _repeat_first(tensor: Tensor, times: int) -> Tensor:
    return torch.cat([tensor, tensor[:1].expand(times, *tensor.shape[1:])]) if times else tensor
