"""Segmenter and features of an image: computed once, then read from the image cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ppd_env.errors import ConfigError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.features.registry import load_features
from ppd_env.features.segmenter import SegmenterFeatures
from ppd_env.scenes.image_cache import ImageCache
from ppd_env.segmenters.contract import Embedding, Segmenter
from ppd_env.segmenters.registry import load_segmenter

Part = Literal["segmenter", "features"]
Parts = dict[Part, dict[str, Tensor]]
"""The tensors of one image by model, each with leading axis 1, on the CPU."""

_SIZES = "sizes"
_FEATURES = "features"


@dataclass(frozen=True)
class EncoderFacts:
    """What decides an encoder's results, apart from the image.

    Args:
        signatures: Of the models whose results are kept, by part.
        grid: g, patches per side.
    """

    signatures: Mapping[Part, str]
    grid: int


class Encoder:
    """Runs both models on images.

    Features that are the segmenter's own embedding are pooled from it, and neither computed nor kept twice.

    Args:
        segmenter: Embeds the images.
        features: Describes their patches.
        grid: g, patches per side.

    Raises:
        ConfigError: The grid makes no sense.
    """

    def __init__(self, segmenter: Segmenter, features: FeatureExtractor, grid: int) -> None:
        if grid < 1:
            raise ConfigError(f"grid must be at least 1, got {grid}.")
        self.segmenter, self.features, self.grid = segmenter, features, grid
        self._pooled = (
            features
            if isinstance(features, SegmenterFeatures) and features.segmenter.signature == segmenter.signature
            else None
        )
        signatures: dict[Part, str] = {"segmenter": segmenter.signature}
        if self._pooled is None:
            signatures["features"] = features.signature
        self.facts = EncoderFacts(signatures, grid)

    @torch.no_grad()  # not inference_mode: learners differentiate through what they read from a bank
    def compute(self, image: np.ndarray, wanted: Iterable[Part]) -> Parts:
        """Run models on one image.

        Args:
            image: (H, W, 3) uint8 RGB, any size.
            wanted: Which of them.

        Returns:
            Their tensors.
        """
        parts: Parts = {}
        for part in wanted:
            if part == "segmenter":
                embedding = self.segmenter.embed(image)
                tensors = {**embedding.tensors, _SIZES: embedding.sizes}
            else:
                tensors = {_FEATURES: self.features.extract(image, self.grid).float()[None]}
            parts[part] = {name: tensor.cpu() for name, tensor in tensors.items()}
        return parts

    def assemble(self, parts: Parts) -> tuple[Embedding, Tensor]:
        """Return one image's embedding and its features, (1, N, d) float32, on the CPU."""
        tensors = dict(parts["segmenter"])
        sizes = tensors.pop(_SIZES)
        embedding = Embedding(tensors, sizes)
        if self._pooled is not None:
            return embedding, self._pooled.pool(embedding, self.grid)[None]
        return embedding, parts["features"][_FEATURES]


class EncodingCache:
    """The image caches behind an encoder; a disk that refuses is reported once, and the work goes on.

    Args:
        facts: Those of the encoder.
    """

    def __init__(self, facts: EncoderFacts) -> None:
        self._caches: dict[Part, ImageCache] = {
            part: ImageCache(part, signature, facts.grid if part == "features" else None)
            for part, signature in facts.signatures.items()
        }
        self.refusals = 0
        """Parts that could not be stored so far."""
        self.written = 0
        """Bytes stored so far."""

    def missing(self, image: str) -> tuple[Part, ...]:
        """Return the parts of an image that have to be computed.

        Args:
            image: Its digest.
        """
        return tuple(part for part, cache in self._caches.items() if not cache.holds(image))

    def read(self, image: str) -> Parts:
        """Return the parts of an image that are there.

        Args:
            image: Its digest.
        """
        found = {part: cache.read(image) for part, cache in self._caches.items()}
        return {part: tensors for part, tensors in found.items() if tensors is not None}

    def write(self, image: str, parts: Parts) -> bool:
        """Store parts of an image.

        Args:
            image: Its digest.
            parts: What was computed.

        Returns:
            Whether all of them are stored now.
        """
        refused = self.refusals
        for part, tensors in parts.items():
            try:
                self.written += self._caches[part].write(image, tensors)
            except OSError as error:
                self._report(self._caches[part], error)
        return self.refusals == refused

    def _report(self, cache: ImageCache, error: OSError) -> None:
        """Count a refusal, and warn at the first."""
        self.refusals += 1
        if self.refusals == 1:
            warnings.warn(
                f"Embeddings could not be kept in {cache.folder} ({error}); the run goes on without. Free "
                "some space, or point PPD_CACHE to another folder.",
                stacklevel=4,
            )


class CachedEncoder:
    """An encoder that looks into the image cache first.

    Args:
        encoder: Computes what is missing.
        cache: Keeps it; None for no cache.
    """

    def __init__(self, encoder: Encoder, cache: EncodingCache | None) -> None:
        self._encoder, self._cache = encoder, cache

    def encode(self, digest: str, image: Callable[[], np.ndarray]) -> tuple[Embedding, Tensor]:
        """Return what both models say about one image.

        Args:
            digest: The image's (``image_digest``).
            image: Returns the image; called only where something has to be computed.

        Returns:
            Its embedding (B = 1) and its features, (1, N, d) float32, on the CPU.
        """
        parts = {} if self._cache is None else self._cache.read(digest)
        missing = [part for part in self._encoder.facts.signatures if part not in parts]
        if missing:
            computed = self._encoder.compute(image(), missing)
            if self._cache is not None:
                self._cache.write(digest, computed)
            parts |= computed
        return self._encoder.assemble(parts)


def load_encoder(segmenter: str, features: str, grid: int, device: str) -> Encoder:
    """Return the encoder of two models by URI.

    Args:
        segmenter: URI of the segmenter.
        features: URI of the features; plain ``"segmenter"`` means those of ``segmenter``.
        grid: g, patches per side.
        device: A torch device.

    Raises:
        ConfigError: A URI makes no sense, or a model cannot be loaded.
    """
    if features == "segmenter":
        features = f"segmenter:{segmenter}"
    return Encoder(load_segmenter(segmenter, device), load_features(features, device), grid)
