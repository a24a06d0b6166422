"""``dinov2:`` and ``dinov3:``: patch tokens of self-supervised vision transformers, through transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ppd_env.errors import ConfigError
from ppd_env.features.scale import calibrate
from ppd_env.pretrained import load_pretrained, weights_digest
from ppd_env.uris import Uri

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CODE_VERSION = 1
"""Raised whenever the same weights give other features."""
PREPROCESSING = "preprocessor_config.json"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Family:
    """What the models of one URI scheme share.

    Args:
        classes: ``model_type`` -> class in transformers.
        resample: How images are resized, as the authors of the weights evaluate them.
        architecture: Settings that decide the features and do not show in the weights.
    """

    classes: Mapping[str, str]
    resample: Image.Resampling
    architecture: Sequence[str]


FAMILIES = {
    "dinov2": Family(
        {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"},
        Image.Resampling.BICUBIC,
        ("model_type", "patch_size", "num_attention_heads", "hidden_act", "layer_norm_eps", "use_swiglu_ffn"),
    ),
    "dinov3": Family(
        {"dinov3_vit": "DINOv3ViTModel"},
        Image.Resampling.BILINEAR,
        ("model_type", "patch_size", "num_attention_heads", "hidden_act", "layer_norm_eps", "rope_theta"),
    ),
}


class DinoFeatures:
    """The patch tokens behind the last layer norm, divided by their usual distance (``features.scale``).

    The image is stretched to grid * patch pixels per side, so that the model's own patches are the patches of
    the grid (at 14 pixels per patch and a 40 x 40 grid: 560 pixels); the model interpolates its positions.
    Class and register tokens are dropped. These are the tokens that PPD's authors compare by plain L2
    distance (``x_norm_patchtokens``); one divisor for all leaves their nearest neighbours as they are.

    Args:
        model: A model of transformers whose last hidden state is class token, registers, patches.
        family: What the models of its scheme share.
        uri: The URI it answers to.
        mean: Subtracted from the pixels in [0, 1], per channel.
        std: They are then divided by it.
        device: Where it computes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        family: Family,
        uri: str,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        config = model.config
        self.uri, self.device = uri, device
        self.signature = _signature(model, family, mean, std)
        self._patch = int(np.ravel(config.patch_size)[0])
        self._extra_tokens = 1 + int(getattr(config, "num_register_tokens", 0))
        self._resample = family.resample
        self._mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(std, device=device).view(3, 1, 1)
        self._model = nn.Module.to(model, device)  # the model's own wrapper around it has no usable types
        self.dim, self._scale = calibrate(self._tokens)

    def extract(self, image: np.ndarray, grid: int) -> Tensor:
        """Describe the patches of an (H, W, 3) uint8 image: (grid * grid, dim) float32."""
        return self._tokens(image, grid) / self._scale

    @torch.no_grad()
    def _tokens(self, image: np.ndarray, grid: int) -> Tensor:
        """Return the patch tokens, (grid * grid, dim) float32."""
        side = grid * self._patch
        stretched = Image.fromarray(np.ascontiguousarray(image)).resize((side, side), self._resample)
        pixels = torch.from_numpy(np.array(stretched)).to(self.device).permute(2, 0, 1).float() / 255
        tokens = self._model(pixel_values=((pixels - self._mean) / self._std)[None]).last_hidden_state
        return tokens[0, self._extra_tokens :].float()


def load_dino(uri: Uri, device: torch.device) -> DinoFeatures:
    """Load a model of the family that the URI's scheme names.

    Args:
        uri: ``dinov2:facebook/dinov2-base``, ``dinov3:facebook/dinov3-vitb16-pretrain-lvd1689m`` or either
            with a folder that holds ``config.json`` and ``model.safetensors``.
        device: Where it shall compute.

    Returns:
        The extractor.

    Raises:
        ConfigError: A package, the weights or the right to download them is missing.
    """
    family = FAMILIES[uri.scheme]
    model = load_pretrained(uri, family.classes, unused=("mask_token",))
    mean, std = _normalisation(uri, Path(str(model.config.name_or_path)))
    return DinoFeatures(model, family, uri.text, mean, std, device)


def _normalisation(uri: Uri, folder: Path) -> tuple[list[float], list[float]]:
    """Return means and deviations of the channels: those beside the weights, or else ImageNet's."""
    path = folder / PREPROCESSING
    if not path.is_file():
        return list(IMAGENET_MEAN), list(IMAGENET_STD)
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        mean = [float(value) for value in given.get("image_mean", IMAGENET_MEAN)]
        std = [float(value) for value in given.get("image_std", IMAGENET_STD)]
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("three means and three positive deviations are needed")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{uri.text!r}: {path} cannot be used ({error}); download the model again."
        ) from None
    return mean, std


def _signature(model: PreTrainedModel, family: Family, mean: Sequence[float], std: Sequence[float]) -> str:
    """Hash everything that decides the features."""
    facts = {name: getattr(model.config, name, None) for name in family.architecture}
    facts |= {"mean": list(mean), "std": list(std), "resample": family.resample.name, "code": CODE_VERSION}
    facts["weights"] = weights_digest(model.state_dict())
    text = json.dumps(facts, sort_keys=True)
    return f"{model.config.model_type}-{CODE_VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
