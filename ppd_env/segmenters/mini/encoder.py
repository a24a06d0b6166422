"""The image encoder: residual convolutions down to stride 16, global attention, two finer side outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.geodesic import edge_strength

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution without bias followed by batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class AttentionBlock(nn.Module):
    """A pre-norm transformer block over all cells of the embedding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, cells, width) to the same shape."""
        batch, cells, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, cells, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, cells, width))
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    """Encode letterboxed images.

    Side outputs at strides 4 and 8 feed the mask decoder's upscaling, as in SAM 2 (Ravi et al. 2024).
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.widths
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.Sequential(conv(3, 24, stride=2), nn.ReLU(), conv(24, fine, stride=2), nn.ReLU())
        self.stage4 = nn.Sequential(*(ResidualBlock(fine) for _ in range(config.blocks[0])))
        self.down8 = nn.Sequential(conv(fine, middle, stride=2), nn.ReLU())
        self.stage8 = nn.Sequential(*(ResidualBlock(middle) for _ in range(config.blocks[1])))
        self.down16 = nn.Sequential(conv(middle, coarse, stride=2), nn.ReLU())
        self.stage16 = nn.Sequential(*(ResidualBlock(coarse) for _ in range(config.blocks[2])))
        self.attention = nn.ModuleList(
            AttentionBlock(coarse, config.encoder_heads) for _ in range(config.attention_blocks)
        )
        self.neck = nn.Sequential(
            nn.LayerNorm(coarse), nn.Linear(coarse, config.dim), nn.LayerNorm(config.dim)
        )
        self.side8 = nn.Conv2d(middle, config.dim // 4, 1)
        self.side4 = nn.Conv2d(fine, config.dim // 8, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode a batch.

        Args:
            pixels: (B, 3, side, side) float32, 0 to 255 RGB, letterboxed; side a multiple of 16.

        Returns:
            image: (B, cells, dim) float32, row-major cells of the embedding.
            side8: (B, dim / 4, 2h, 2w) float32 for an embedding of h x w cells.
            side4: (B, dim / 8, 4h, 4w) float32.
            edges: (B, 1, 4h, 4w) float32, not learned.
        """
        x = (pixels - self.pixel_mean) / self.pixel_std
        x = x.contiguous(memory_format=torch.channels_last)
        at4 = self.stage4(self.stem(x))
        at8 = self.stage8(self.down8(at4))
        at16 = self.stage16(self.down16(at8)).flatten(2).transpose(1, 2)
        for block in self.attention:
            at16 = block(at16)
        return self.neck(at16), self.side8(at8), self.side4(at4), edge_strength(pixels)
