"""How an image comes into the encoder's input square, and masks between that square and the contract's.

SAM scales the longer side and pads (``Letterbox``), which is the contract's own geometry. SAM 2 stretches the
image over the whole square (``Stretch``), so its masks are resampled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ppd_env.segmenters.letterbox import scaled_size, upscale_logits

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""ImageNet's, per channel of RGB, for pixels from 0 to 255."""

PADDING_LOGIT = -10.0
"""Logit of the cells outside the image in a resampled mask."""


class Frame(Protocol):
    """The geometry of an encoder's input.

    Attributes:
        side: Of the encoder's input square in pixels.
    """

    side: int

    def pixels(self, image: np.ndarray) -> Tensor:
        """Turn (H, W, 3) uint8 RGB into the encoder's input, (1, 3, side, side) float32."""
        ...

    def scale(self, height: int, width: int) -> tuple[float, float]:
        """Return the pixels of the square per pixel of an image, in x and in y."""
        ...

    def to_square(self, mask: Tensor, sizes: Tensor) -> Tensor:
        """Bring (B, 1, h, h) logits of the contract's letterboxed square to the model's square."""
        ...

    def from_square(self, logits: Tensor, sizes: Tensor) -> Tensor:
        """Bring (B, m, h, h) logits of the model's square to the contract's letterboxed square."""
        ...

    def to_native(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring (..., h, h) logits of the contract's square to an image's (height, width)."""
        ...


class Letterbox:
    """SAM's geometry, pixel for pixel that of its ``ResizeLongestSide`` and ``SamPredictor``.

    There, torchvision resizes an uint8 PIL image, which is PIL's own antialiased bilinear filter with
    rounding to uint8; then the pixels are normalised and padded with zeros below and to the right.

    Args:
        side: Of the encoder's input square in pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def pixels(self, image: np.ndarray) -> Tensor:
        """Turn (H, W, 3) uint8 RGB into (1, 3, side, side) float32, normalised and padded."""
        height, width = scaled_size(image.shape[0], image.shape[1], self.side)
        resized = Image.fromarray(np.ascontiguousarray(image)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        plane = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None]
        normal = (plane - _channels(MEAN)) / _channels(STD)
        return F.pad(normal, (0, self.side - width, 0, self.side - height))

    def scale(self, height: int, width: int) -> tuple[float, float]:
        """Return the scaled size over the original one; rounding makes x and y differ a little."""
        new_height, new_width = scaled_size(height, width, self.side)
        return new_width / width, new_height / height

    def to_square(self, mask: Tensor, sizes: Tensor) -> Tensor:
        """Return the mask: the two squares are the same."""
        return mask

    def from_square(self, logits: Tensor, sizes: Tensor) -> Tensor:
        """Return the logits: the two squares are the same."""
        return logits

    def to_native(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge (..., h, h) logits as ``Sam.postprocess_masks``: to the encoder's square first."""
        return upscale_logits(logits, size, self.side)


class Stretch:
    """SAM 2's geometry: both sides become those of the square, whatever the image's shape.

    The image is resized as the official ``SAM2Transforms`` do, in floating point with antialiasing. Logits
    are resampled bilinearly, with antialiasing where they shrink, between the whole square and the part of
    the contract's square that shows the image (``letterbox.scaled_size``); the rest is ``PADDING_LOGIT``.

    Args:
        side: Of the encoder's input square in pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def pixels(self, image: np.ndarray) -> Tensor:
        """Turn (H, W, 3) uint8 RGB into (1, 3, side, side) float32, normalised."""
        plane = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
        square = _resize(plane, self.side, self.side)
        return (square - _channels(MEAN) / 255) / (_channels(STD) / 255)

    def scale(self, height: int, width: int) -> tuple[float, float]:
        """Return the side of the square over those of the image."""
        return self.side / width, self.side / height

    def to_square(self, mask: Tensor, sizes: Tensor) -> Tensor:
        """Stretch the part of (B, 1, h, h) that shows the image."""
        side = mask.shape[-1]
        return _per_size(mask, sizes, lambda part, h, w: _resize(part[..., :h, :w], side, side))

    def from_square(self, logits: Tensor, sizes: Tensor) -> Tensor:
        """Shrink (B, m, h, h) into the part that shows the image."""
        side = logits.shape[-1]

        def shrink(part: Tensor, height: int, width: int) -> Tensor:
            padding = (0, side - width, 0, side - height)
            return F.pad(_resize(part, height, width), padding, value=PADDING_LOGIT)

        return _per_size(logits, sizes, shrink)

    def to_native(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge the part of (..., h, h) logits that shows the image."""
        return upscale_logits(logits, size)


def _channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _resize(plane: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(plane, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def _per_size(logits: Tensor, sizes: Tensor, change: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    """Change logits (B, m, h, h) of one image size at a time; ``change`` also gets the part that shows it."""
    out = torch.empty_like(logits)
    for size in sizes.unique(dim=0):
        which = (sizes == size).all(dim=1)
        height, width = scaled_size(int(size[0]), int(size[1]), logits.shape[-1])
        out[which] = change(logits[which], height, width)
    return out
