"""What every promptable segmenter offers: embed an image once, decode prompts many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ppd_env.segmenters.letterbox import upscale_logits

ABSENT = -1
"""Label of an empty slot in a ragged batch of point sets: masked out exactly, it never changes a mask."""


@dataclass(frozen=True)
class Embedding:
    """The image side of a segmenter for B images.

    Args:
        tensors: Named tensors, each with leading axis B; their meaning is the segmenter's own.
        sizes: (B, 2) int64, original (height, width) of each image in pixels.
    """

    tensors: Mapping[str, Tensor]
    sizes: Tensor

    def __len__(self) -> int:
        """Return B."""
        return len(self.sizes)

    def __getitem__(self, rows: Tensor | slice) -> Embedding:
        """Return the embedding of the images ``rows`` (index tensor or slice)."""
        return Embedding({name: t[rows] for name, t in self.tensors.items()}, self.sizes[rows])

    def to(self, device: torch.device | str) -> Embedding:
        """Return the same embedding on ``device``."""
        return Embedding({name: t.to(device) for name, t in self.tensors.items()}, self.sizes.to(device))

    @staticmethod
    def cat(parts: Sequence[Embedding]) -> Embedding:
        """Stack embeddings of one segmenter along the image axis."""
        names = parts[0].tensors
        return Embedding(
            {name: torch.cat([p.tensors[name] for p in parts]) for name in names},
            torch.cat([p.sizes for p in parts]),
        )


@runtime_checkable
class Segmenter(Protocol):
    """A frozen promptable segmenter.

    It may set ``reentrant = True`` to say that ``decode`` can be called from several threads at once; on the
    CPU each core then decodes batches of its own. It may offer ``native_logits(logits, size)``, where the
    model's own code has a way of its own to bring masks to an image's size; see ``native_logits`` below.

    Attributes:
        uri: The URI it was loaded from.
        signature: Hash of architecture, weights and preprocessing; part of every cache key.
        low_res: Side h = w of the square low-resolution logits. The image, longer side scaled to h,
            lies in their upper left corner; the rest is padding (see ``segmenters.letterbox``).
        device: Where it computes.
    """

    uri: str
    signature: str
    low_res: int
    device: torch.device

    def embed(self, image: np.ndarray) -> Embedding:
        """Encode one image.

        Args:
            image: (H, W, 3) uint8 RGB, any size.

        Returns:
            Embedding of one image (B = 1).
        """
        ...

    def decode(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        multimask: bool = False,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets of different sizes, exactly as if one by one.

        Args:
            embedding: B images, or S images when ``rows`` is given.
            points: (B, n, 2) float32 (x, y) in pixels of the original images.
            labels: (B, n) integer, 1 positive, 0 negative, ``ABSENT`` for an empty slot.
                Every set has at least one present point.
            mask: (B, 1, h, w) float32 low-resolution logits of an earlier mask, or None.
            multimask: Return the three ambiguity masks instead of the single one.
            rows: (B,) int64, the image of each prompt set; saves gathering the embedding.

        Returns:
            logits: (B, m, h, w) float32, m = 3 if multimask else 1; threshold 0.
            iou: (B, m) float32, the segmenter's own estimate of each mask's IoU.
        """
        ...


def native_logits(segmenter: Segmenter, logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a segmenter's low-resolution logits to an image's native size, for masks and tables.

    Args:
        segmenter: Who decoded them; its own way is taken where it offers one, else
            ``letterbox.upscale_logits``.
        logits: (..., h, h) float32, as ``decode`` gives them.
        size: Native (height, width) in pixels.

    Returns:
        (..., height, width) float32, threshold 0.
    """
    own = getattr(segmenter, "native_logits", None)
    full: Tensor = upscale_logits(logits, size) if own is None else own(logits, size)
    return full
