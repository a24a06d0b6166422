"""The parameters of published weights under the names of our decoder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from ppd_env.errors import ConfigError
from ppd_env.segmenters.sam.decoder import MaskDecoder

_PREFIXES = ("prompt_encoder.", "mask_decoder.")

_UNUSED = re.compile(r"mask_decoder\.(pred_obj_score_head|conv_s[01])\.")
"""SAM 2's score of whether there is an object at all, and what its image encoder applies already."""

_RENAMES = [
    (re.compile(pattern), name)
    for pattern, name in (
        # Prompt encoder: the official package, then transformers.
        (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "prompts.position.matrix"),
        (r"prompt_encoder\.shared_embedding\.positional_embedding", "prompts.position.matrix"),
        (r"prompt_encoder\.point_embed(?:dings)?\.(\d)\.weight", r"prompts.label_codes.weight#\1"),
        (r"prompt_encoder\.point_embed\.weight", "prompts.label_codes.weight"),
        (r"prompt_encoder\.not_a_point_embed\.weight", "prompts.padding_code"),
        (r"prompt_encoder\.no_mask_embed\.weight", "prompts.no_mask"),
        (r"prompt_encoder\.mask_downscaling\.", "prompts.mask_stem."),
        (r"prompt_encoder\.mask_embed\.conv1\.", "prompts.mask_stem.0."),
        (r"prompt_encoder\.mask_embed\.layer_norm1\.", "prompts.mask_stem.1."),
        (r"prompt_encoder\.mask_embed\.conv2\.", "prompts.mask_stem.3."),
        (r"prompt_encoder\.mask_embed\.layer_norm2\.", "prompts.mask_stem.4."),
        (r"prompt_encoder\.mask_embed\.conv3\.", "prompts.mask_stem.6."),
        # Output tokens, in the order of the token sequence.
        (r"mask_decoder\.obj_score_token\.weight", "output_tokens#0"),
        (r"mask_decoder\.iou_token\.weight", "output_tokens#1"),
        (r"mask_decoder\.mask_tokens\.weight", "output_tokens#2"),
        (r"mask_decoder\.hq_token\.weight", "output_tokens#3"),
        # Two-way transformer.
        (r"mask_decoder\.transformer\.layers\.", "layers."),
        (r"mask_decoder\.transformer\.final_attn_token_to_image\.", "last."),
        (r"mask_decoder\.transformer\.(?:layer_)?norm_final_attn\.", "last_norm."),
        (r"\.self_attn\.", ".self_attention."),
        (r"\.cross_attn_token_to_image\.", ".to_image."),
        (r"\.cross_attn_image_to_token\.", ".to_tokens."),
        (r"\.([qkv])_proj\.", r".\1."),
        (r"\.(?:out|o)_proj\.", ".out."),
        (r"^(layers\.\d+)\.(?:layer_)?norm1\.", r"\1.norms.0."),
        (r"^(layers\.\d+)\.(?:layer_)?norm2\.", r"\1.norms.1."),
        (r"^(layers\.\d+)\.(?:layer_)?norm3\.", r"\1.norms.2."),
        (r"^(layers\.\d+)\.(?:layer_)?norm4\.", r"\1.norms.3."),
        (r"^(layers\.\d+\.mlp)\.(?:lin1|proj_in)\.", r"\1.0."),
        (r"^(layers\.\d+\.mlp)\.(?:lin2|proj_out)\.", r"\1.2."),
        # Upscaling and heads.
        (r"mask_decoder\.(?:output_upscaling\.0|upscale_conv1)\.", "up1."),
        (r"mask_decoder\.(?:output_upscaling\.1|upscale_layer_norm)\.", "up_norm."),
        (r"mask_decoder\.(?:output_upscaling\.3|upscale_conv2)\.", "up2."),
        (r"mask_decoder\.output_hypernetworks_mlps\.", "hyper."),
        (r"mask_decoder\.iou_prediction_head\.", "iou_head."),
        # SAM-HQ.
        (r"mask_decoder\.hq_mask_mlp\.", "hq_head."),
        (r"mask_decoder\.compress_vit_conv1\.", "vit_up.0."),
        (r"mask_decoder\.compress_vit_norm\.", "vit_up.1."),
        (r"mask_decoder\.compress_vit_conv2\.", "vit_up.3."),
        (r"mask_decoder\.encoder_conv1\.", "image_up.0."),
        (r"mask_decoder\.encoder_norm\.", "image_up.1."),
        (r"mask_decoder\.encoder_conv2\.", "image_up.3."),
        (r"mask_decoder\.mask_conv1\.", "refine.0."),
        (r"mask_decoder\.mask_norm\.", "refine.1."),
        (r"mask_decoder\.mask_conv2\.", "refine.3."),
    )
]
"""Applied one after the other; parts of one parameter, numbered behind ``#``, are stacked in that order."""

_OFFICIAL_HEADS = ((r"\.layers\.0\.", ".0."), (r"\.layers\.1\.", ".2."), (r"\.layers\.2\.", ".4."))
_TRANSFORMERS_HEADS = ((r"\.proj_in\.", ".0."), (r"\.layers\.0\.", ".2."), (r"\.proj_out\.", ".4."))
_HEADS = re.compile(r"(hyper|iou_head|hq_head)\.")


def decoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the parameters of a prompt encoder and a mask decoder our decoder's names.

    Args:
        state: A whole model's state dict, in the naming of segment-anything or of transformers.

    Returns:
        Tensors in float32 by the names of ``MaskDecoder``; a parameter unknown here keeps its own name.
    """
    used = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(_PREFIXES) and not _UNUSED.match(name)
    }
    heads = _TRANSFORMERS_HEADS if any(".proj_in." in name for name in used) else _OFFICIAL_HEADS
    parts: defaultdict[str, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, tensor in used.items():
        ours, _, part = _rename(name, heads).partition("#")
        parts[ours].append((part, tensor.float()))
    return {name: _stack(found) for name, found in parts.items()}


def _rename(name: str, heads: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in _RENAMES:
        name = pattern.sub(ours, name)
    if _HEADS.match(name):
        for layer, ours in heads:
            name, found = re.subn(layer, ours, name)
            if found:
                break
    return name


def _stack(parts: list[tuple[str, Tensor]]) -> Tensor:
    return torch.cat([tensor for _, tensor in sorted(parts, key=lambda part: part[0])])


def fill(decoder: MaskDecoder, state: Mapping[str, Tensor], where: str) -> None:
    """Load a model's parameters into our decoder.

    Args:
        decoder: Takes them up.
        state: The whole model's state dict.
        where: The file or folder they come from, for errors.

    Raises:
        ConfigError: A parameter is missing, unknown or of another shape.
    """
    found, wanted = decoder_state(state), decoder.state_dict()
    strange = sorted(found.keys() ^ wanted.keys())
    if strange:
        what = "is missing" if strange[0] in wanted else "is unknown"
        raise ConfigError(f"{where}: not the weights of such a mask decoder: {strange[0]!r} {what}.")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise ConfigError(
                f"{where}: not the weights of such a mask decoder: {name!r} has the shape "
                f"{tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}."
            )
    decoder.load_state_dict(found)
