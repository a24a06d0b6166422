"""Published SAM models behind the segmenter contract: an image encoder, a frame and our mask decoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.sam.decoder import MaskDecoder
from ppd_env.segmenters.sam.frames import Frame

CODE_VERSION = 2
"""Raised whenever the same weights give other masks."""

SCALE_NAME = "scale"
"""Embedded tensor (B, 2): pixels of the encoder's square per pixel of the image, in x and y."""


class SamSegmenter:
    """A published SAM behind the common contract.

    Decoding gives what the official ``SamPredictor.predict`` gives for each prompt set alone; with SAM's own
    frame masks at native size are the predictor's too. The embedding's tensors are float32; ``image``, where
    there is one, covers the letterboxed square.

    Args:
        encoder: Maps (1, 3, side, side) float32 to the named tensors that the decoder's ``prepare`` takes.
        decoder: Our decoder with the weights of the same model.
        frame: Geometry of the encoder's input.
        uri: The URI it answers to.
        signature: Hash of architecture, weights, preprocessing and code version.
        device: Where it computes.
    """

    reentrant = True

    def __init__(
        self,
        encoder: nn.Module,
        decoder: MaskDecoder,
        frame: Frame,
        uri: str,
        signature: str,
        device: torch.device,
    ) -> None:
        self.encoder = encoder.eval().requires_grad_(False).to(device)
        self.decoder = decoder.eval().requires_grad_(False).to(device)
        self.frame = frame
        self.uri, self.signature, self.device = uri, signature, device
        self.low_res = decoder.config.low_res

    @torch.no_grad()
    def embed(self, image: np.ndarray) -> Embedding:
        """Encode one (H, W, 3) uint8 RGB image."""
        prepared = self.decoder.prepare(self.encoder(self.frame.pixels(image).to(self.device)))
        height, width = image.shape[:2]
        prepared[SCALE_NAME] = torch.tensor([self.frame.scale(height, width)], device=self.device)
        return Embedding(prepared, torch.tensor([[height, width]], device=self.device))

    @torch.no_grad()
    def decode(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        multimask: bool = False,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets; see ``segmenters.contract.Segmenter.decode``."""
        if rows is not None:
            embedding = embedding[rows]
        tensors, sizes = embedding.tensors, embedding.sizes
        # SAM counts from the corner of a pixel and asks for its centre.
        square = (points * tensors[SCALE_NAME][:, None] + 0.5) / self.frame.side
        earlier = None if mask is None else self.frame.to_square(mask, sizes)
        logits, iou = self.decoder(tensors, square, labels, earlier, multimask)
        return self.frame.from_square(logits, sizes), iou

    def native_logits(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring (..., h, h) logits to an image's size; see ``segmenters.contract.native_logits``."""
        return self.frame.to_native(logits, size)
