"""``fake``: a deterministic segmenter without weights, for tests of contracts only.

Each cell of the low-resolution square takes the sign of the prompt it resembles most, in colour and position.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.letterbox import letterbox, points_to_square

LOW_RES = 32
COLOUR_WEIGHT = 4.0
REACH = 1.0
"""Distance at which a lone positive prompt stops claiming cells."""

MULTIMASK_OFFSETS = (-0.3, 0.0, 0.3)


class FakeSegmenter:
    """A nearest-prompt vote that keeps the ``Segmenter`` contract exactly.

    Args:
        device: Where it computes.
    """

    uri = "fake"
    signature = "fake-1"
    low_res = LOW_RES

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def embed(self, image: np.ndarray) -> Embedding:
        """Shrink an image (H, W, 3) uint8 to (1, 3, 32, 32) float32 in [0, 1], named ``image``."""
        square = torch.from_numpy(letterbox(image, LOW_RES)).permute(2, 0, 1)[None] / 255
        sizes = torch.tensor([image.shape[:2]], dtype=torch.int64)
        return Embedding({"image": square}, sizes).to(self.device)

    def decode(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        multimask: bool = False,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets; see ``Segmenter.decode``."""
        images = embedding.tensors["image"] if rows is None else embedding.tensors["image"][rows]
        sizes = embedding.sizes if rows is None else embedding.sizes[rows]
        distance = _distance(images, points_to_square(points, sizes))
        positive = distance.masked_fill((labels != 1)[..., None], torch.inf).amin(dim=1).clamp(max=REACH)
        negative = distance.masked_fill((labels != 0)[..., None], torch.inf).amin(dim=1).clamp(max=REACH)
        # The small bias lets a cell out of everyone's reach be background.
        logits = (negative - positive - 0.02).view(-1, 1, LOW_RES, LOW_RES)
        if mask is not None:
            logits = logits + 0.1 * torch.tanh(mask)
        if multimask:
            logits = logits + logits.new_tensor(MULTIMASK_OFFSETS)[None, :, None, None]
        return logits, torch.tanh(5 * logits.abs().mean(dim=(2, 3)))


def _distance(images: Tensor, points: Tensor) -> Tensor:
    """Return how little each cell resembles each prompt.

    Args:
        images: (B, 3, h, w) float32.
        points: (B, n, 2) float32 in [0, 1] of the square.

    Returns:
        (B, n, h * w) float32.
    """
    cell = (points * LOW_RES).long().clamp(0, LOW_RES - 1)
    colours = images.flatten(2).transpose(1, 2)
    at = (cell[..., 1] * LOW_RES + cell[..., 0])[..., None].expand(-1, -1, 3)
    axis = (torch.arange(LOW_RES, device=images.device) + 0.5) / LOW_RES
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack([x.flatten(), y.flatten()], dim=-1).expand(len(images), -1, -1)
    mode = "donot_use_mm_for_euclid_dist"
    return COLOUR_WEIGHT * torch.cdist(colours.gather(1, at), colours, compute_mode=mode) + torch.cdist(
        points, places, compute_mode=mode
    )
