"""``sam:``, ``samhq:``, ``sam2:`` and ``edgetam:``: image encoders of transformers, from the hub or a folder.

Nothing of theirs needs torchvision but EdgeTAM's encoder, which comes from timm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ppd_env.errors import ConfigError
from ppd_env.pretrained import CONFIG, load_pretrained, weights_digest
from ppd_env.segmenters.sam.config import DecoderConfig
from ppd_env.segmenters.sam.decoder import MaskDecoder
from ppd_env.segmenters.sam.frames import Frame, Letterbox, Stretch
from ppd_env.segmenters.sam.high_quality import HighQualityDecoder
from ppd_env.segmenters.sam.options import split_options
from ppd_env.segmenters.sam.second import Sam2Decoder
from ppd_env.segmenters.sam.segmenter import CODE_VERSION, SamSegmenter
from ppd_env.segmenters.sam.weights import fill
from ppd_env.uris import Uri

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GRID_CODES = "shared_image_embedding.positional_embedding"
_POINT_CODES = "prompt_encoder.shared_embedding.positional_embedding"


class _SamEncoder(nn.Module):
    """SAM's image encoder: pixels to ``image`` (B, dim, h, h)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision = model.vision_encoder

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"image": self.vision(pixels).last_hidden_state}


class _HighQualityEncoder(_SamEncoder):
    """SAM-HQ's: also ``early`` (B, vit_dim, h, h), behind the first layer with global attention."""

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        found = self.vision(pixels)
        early = found.intermediate_embeddings[0].permute(0, 3, 1, 2)
        return {"image": found.last_hidden_state, "early": early}


class _Sam2Encoder(nn.Module):
    """SAM 2's: pixels to ``stretched`` (B, dim, h, h) and the finer ``side8`` and ``side4``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        side4, side8, stretched = self.model.get_image_embeddings(pixels)
        return {"stretched": stretched, "side8": side8, "side4": side4}


@dataclass(frozen=True)
class Family:
    """What the models of one URI scheme share.

    Args:
        classes: ``model_type`` of ``config.json`` -> class in transformers.
        encoder: Makes the image encoder of a model.
        decoder: Class of our decoder.
        frame: Geometry of the encoder's input, by its side.
    """

    classes: Mapping[str, str]
    encoder: Callable[[Any], nn.Module]
    decoder: type[MaskDecoder]
    frame: Callable[[int], Frame]


FAMILIES = {
    "sam": Family({"sam": "SamModel"}, _SamEncoder, MaskDecoder, Letterbox),
    "samhq": Family({"sam_hq": "SamHQModel"}, _HighQualityEncoder, HighQualityDecoder, Letterbox),
    # The published weights of SAM 2 and EdgeTAM are those of the video model, which holds the image model.
    "sam2": Family({"sam2": "Sam2Model", "sam2_video": "Sam2Model"}, _Sam2Encoder, Sam2Decoder, Stretch),
    "edgetam": Family(
        {"edgetam": "EdgeTamModel", "edgetam_video": "EdgeTamModel"}, _Sam2Encoder, Sam2Decoder, Stretch
    ),
}


def load_transformers(uri: Uri, device: torch.device) -> SamSegmenter:
    """Load a model of the family that the URI's scheme names.

    Args:
        uri: For example ``sam:facebook/sam-vit-huge``, ``samhq:syscv-community/sam-hq-vit-base``,
            ``sam2:facebook/sam2.1-hiera-large``, or either with a folder that holds ``config.json`` and
            ``model.safetensors``; behind a ``?`` the keys of ``DecoderOptions``.
        device: Where it shall compute.

    Returns:
        The segmenter.

    Raises:
        ConfigError: A package, the weights or the right to download them is missing, or they are of another
            architecture; the message says what to do.
    """
    uri, options = split_options(uri, device)
    family = FAMILIES[uri.scheme]
    if uri.scheme == "edgetam":
        _require_timm(uri)
    model = load_pretrained(uri, family.classes, unused=(_POINT_CODES,))
    state, folder = model.state_dict(), Path(str(model.config.name_or_path))
    if not torch.equal(state[_GRID_CODES], state[_POINT_CODES]):
        raise ConfigError(
            f"{folder}: {_GRID_CODES!r} and {_POINT_CODES!r} differ, but SAM encodes image and points alike; "
            "download the model again."
        )
    config = decoder_config(model.config)
    decoder = family.decoder(config)
    fill(decoder, state, str(folder))
    signature = _signature(uri.scheme, folder, config, model)
    frame = family.frame(config.image_size)
    return SamSegmenter(family.encoder(model), decoder, frame, uri.text, signature, device, options)


def decoder_config(config: Any) -> DecoderConfig:
    """Read the sizes of our decoder off a model's configuration in transformers."""
    prompts, masks = config.prompt_encoder_config, config.mask_decoder_config
    stable = getattr(masks, "dynamic_multimask_via_stability", False)
    return DecoderConfig(
        image_size=prompts.image_size,
        cells=prompts.image_size // prompts.patch_size,
        dim=prompts.hidden_size,
        heads=masks.num_attention_heads,
        layers=masks.num_hidden_layers,
        mlp=masks.mlp_dim,
        mask_tokens=masks.num_multimask_outputs + 1,
        mask_channels=prompts.mask_input_channels,
        iou_hidden=masks.iou_head_hidden_dim,
        vit_dim=getattr(masks, "vit_dim", 0),
        stability=(masks.dynamic_multimask_stability_delta, masks.dynamic_multimask_stability_thresh)
        if stable
        else None,
    )


def _signature(scheme: str, folder: Path, config: DecoderConfig, model: PreTrainedModel) -> str:
    """Hash everything that decides the masks."""
    facts = {
        "config": (folder / CONFIG).read_text(encoding="utf-8"),
        "decoder": asdict(config),
        "weights": weights_digest(model.state_dict()),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{scheme}-{CODE_VERSION}-{digest[:16]}"


def _require_timm(uri: Uri) -> None:
    """Say how to install timm where transformers would fail to find it."""
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises RuntimeError
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"{uri.text!r} needs the packages timm and torchvision ({reason}): pip install timm torchvision, "
            "the latter made for the installed torch."
        ) from None
