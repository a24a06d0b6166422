"""Published SAM models behind the segmenter contract: an image encoder, a frame and our mask decoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ppd_env.cores import on_all_cores
from ppd_env.segmenters.contract import ABSENT, Embedding
from ppd_env.segmenters.sam.buckets import Buckets
from ppd_env.segmenters.sam.decoder import MaskDecoder
from ppd_env.segmenters.sam.frames import Frame
from ppd_env.segmenters.sam.kept import KeptScenes, SceneTable
from ppd_env.segmenters.sam.options import DecoderOptions

CODE_VERSION = 2
"""Raised whenever the same weights give other masks."""

SCALE_NAME = "scale"
"""Embedded tensor (B, 2): pixels of the encoder's square per pixel of the image, in x and y."""


class SamSegmenter:
    """A published SAM behind the common contract.

    Decoding gives what the official ``SamPredictor.predict`` gives for each prompt set alone; with SAM's own
    frame masks at native size are the predictor's too. The embedding's tensors are float32; ``image``, where
    there is one, covers the letterboxed square.

    On a CPU each core decodes prompt sets one by one: nothing is padded, and what is under way stays in the
    cache. Elsewhere a batch is decoded at once, absent points masked. Either way what a scene's image alone
    decides is computed once per scene, as far as memory is given for it (``DecoderOptions.keep``).

    Args:
        encoder: Maps (1, 3, side, side) float32 to the named tensors that the decoder's ``prepare`` takes.
        decoder: Our decoder with the weights of the same model.
        frame: Geometry of the encoder's input.
        uri: The URI it answers to.
        signature: Hash of architecture, weights, preprocessing and code version. The options are no part of
            it: they change nothing about embeddings.
        device: Where it computes.
        options: How it computes.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: MaskDecoder,
        frame: Frame,
        uri: str,
        signature: str,
        device: torch.device,
        options: DecoderOptions | None = None,
    ) -> None:
        self.options = options or DecoderOptions()
        self.encoder = encoder.eval().requires_grad_(False).to(device)
        self.decoder = decoder.eval().requires_grad_(False).to(device)
        self.decoder.freeze(self.options.torch_dtype)
        self.frame = frame
        self.uri, self.signature, self.device = uri, signature, device
        self.low_res = decoder.config.low_res
        self._scenes = KeptScenes(self.options.keep * 2**20)
        self._table = SceneTable(self.options.keep * 2**20)
        self._batched = Buckets(decoder) if self.options.compile else decoder

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
        if rows is None:
            rows = torch.arange(len(points), device=self.device)
        sizes = embedding.sizes[rows]
        # SAM counts from the corner of a pixel and asks for its centre.
        square = (points * embedding.tensors[SCALE_NAME][rows][:, None] + 0.5) / self.frame.side
        earlier = None if mask is None else self.frame.to_square(mask, sizes)
        one_by_one = self.device.type == "cpu" and not self.options.compile
        decode = self._one_by_one if one_by_one else self._at_once
        logits, iou = decode(embedding, rows, square, labels, earlier, multimask)
        return self.frame.from_square(logits, sizes), iou

    def _at_once(
        self,
        embedding: Embedding,
        rows: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Decode a batch; scenes' constants come from a table, where that fits and no mask changes them."""
        constants = None
        if mask is None:
            image = embedding.tensors[self.decoder.image_name]
            constants = self._table.gather(
                image, rows, lambda part: self.decoder.constants(embedding[part].tensors)
            )
        if constants is None:
            constants = self.decoder.constants(embedding[rows].tensors, mask)
        return self._batched(constants, points, labels, multimask)

    def _one_by_one(
        self,
        embedding: Embedding,
        rows: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Decode set after set, one on each core; a scene's constants are kept for the next time."""
        side, count = self.low_res, 3 if multimask else 1
        logits, iou = points.new_empty(len(points), count, side, side), points.new_empty(len(points), count)
        scenes, present = rows.tolist(), labels != ABSENT
        scope = self._scenes.scope(embedding.tensors[self.decoder.image_name])

        @torch.no_grad()
        def decode(game: int) -> None:
            row, held = scenes[game], present[game]

            def compute() -> dict[str, Tensor]:
                own = {name: tensor[row : row + 1] for name, tensor in embedding.tensors.items()}
                made = self.decoder.constants(own, None if mask is None else mask[game : game + 1])
                return {name: tensor.contiguous() for name, tensor in made.items()}

            constants = compute() if mask is not None else scope.get(row, compute)
            mine = points[game, held][None], labels[game, held][None]
            logits[game], iou[game] = (part[0] for part in self.decoder(constants, *mine, multimask))

        on_all_cores(decode, range(len(points)))
        return logits, iou

    def native_logits(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring (..., h, h) logits to an image's size; see ``segmenters.contract.native_logits``."""
        return self.frame.to_native(logits, size)
