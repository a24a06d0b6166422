"""``mini``: the embedded segmenter behind the common contract."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ppd_env.errors import ConfigError
from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.letterbox import letterbox, points_to_square
from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.network import MiniNetwork
from ppd_env.uris import Uri

WEIGHTS = Path(__file__).parent / "weights" / "mini.safetensors"
CODE_VERSION = 2
"""Raised whenever the same weights give other masks."""
_SCALES = 3
"""Outputs of the encoder that have a feature scale."""


class MiniSegmenter:
    """SAM's prompt encoder and mask decoder in small, with weights inside the package.

    Args:
        network: Trained network.
        uri: The URI it answers to.
        signature: Hash of weights and code version.
        feature_scales: Usual distances between two patches of an image in the encoder's outputs: embedding,
            side output at stride 8, side output at stride 4.
        device: Where it computes.
    """

    reentrant = True

    def __init__(
        self,
        network: MiniNetwork,
        uri: str,
        signature: str,
        feature_scales: Sequence[float],
        device: torch.device,
    ) -> None:
        self.network = network.eval().requires_grad_(False).to(device)
        self.network.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.uri, self.signature, self.device = uri, signature, device
        self.low_res = network.config.low_res
        self.feature_scales = tuple(feature_scales)
        self._last: tuple[np.ndarray, tuple[Tensor, ...]] | None = None

    @torch.no_grad()
    def encode(self, image: np.ndarray) -> tuple[Tensor, ...]:
        """Run the image encoder; the last image's result is kept, so that features cost no second pass.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            The encoder's outputs, see ``ImageEncoder.forward``; the first holds the features.
        """
        # Compared by content: video readers write every frame into the same array.
        square = letterbox(image, self.network.config.image_size)
        if self._last is None or not np.array_equal(self._last[0], square):
            pixels = torch.from_numpy(square).to(self.device).permute(2, 0, 1)[None].float()
            self._last = square, self.network.encoder(pixels)
        return self._last[1]

    @torch.no_grad()
    def embed(self, image: np.ndarray) -> Embedding:
        """Encode one (H, W, 3) uint8 RGB image."""
        prepared = self.network.decoder.prepare(*self.encode(image))
        cells = self.network.config.cells
        prepared["image"] = prepared["image"].transpose(1, 2).unflatten(2, (cells, cells)).contiguous()
        sizes = torch.tensor([image.shape[:2]], dtype=torch.int64, device=self.device)
        return Embedding(prepared, sizes)

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
        prepared = dict(embedding.tensors)
        prepared["image"] = prepared["image"].flatten(2).transpose(1, 2)
        square = points_to_square(points, embedding.sizes)
        tokens = slice(1, None) if multimask else slice(0, 1)
        return self.network.decode(prepared, square, labels, mask, tokens)


def load_mini(uri: Uri, device: torch.device) -> MiniSegmenter:
    """Load ``mini`` from the package, or from a file of the same format.

    Args:
        uri: ``mini``, or ``mini:PATH`` with PATH a safetensors file written by the training.
        device: Where it shall compute.

    Returns:
        The segmenter.

    Raises:
        ConfigError: The file is missing, truncated or of another architecture.
    """
    uri.require_keys(())
    path = Path(uri.path) if uri.path else WEIGHTS
    remedy = "name a file the training wrote" if uri.path else "reinstall the package"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        config = MiniConfig(**_as_config(json.loads(metadata["config"])))
        scales = [float(scale) for scale in json.loads(metadata["feature_scales"])]
        if len(scales) != _SCALES:
            raise ValueError(f"{len(scales)} feature scales instead of {_SCALES}")
        network = MiniNetwork(config)
        load_weights(network, state, path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: not a readable file of mini weights ({error}); {remedy}.") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return MiniSegmenter(network, uri.text, f"mini-{CODE_VERSION}-{digest}", scales, device)


def load_weights(network: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load stored weights, which leave out the counters of batch normalisation.

    Args:
        network: Takes them up.
        state: The weights by name.
        path: Where they come from.

    Raises:
        ConfigError: One is missing or too many.
    """
    missing, unexpected = network.load_state_dict(state, strict=False)
    lost = [name for name in missing if not name.endswith("num_batches_tracked")] + unexpected
    if lost:
        raise ConfigError(f"{path}: not weights of this architecture: {lost[0]!r} does not fit.")


def _as_config(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples: give each field its own type again."""
    known = {field.name for field in fields(MiniConfig)}
    if set(values) - known:
        raise KeyError(f"unknown settings {sorted(set(values) - known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
