"""How many floating-point operations a decode takes: what a measured time is held against."""

from __future__ import annotations

from ppd_env.segmenters.sam.decoder import MaskDecoder


def decode_flops(decoder: MaskDecoder, prompts: int, multimask: bool = False) -> int:
    """Count the operations of one prompt set's matrix products, a multiplication and an addition each.

    SAM-HQ's correction of the mask (its convolutions) comes on top; it does not depend on the prompts.

    Args:
        decoder: Of any published SAM.
        prompts: n, points of the set.
        multimask: Whether the ambiguity masks are asked for.

    Returns:
        Operations of a decode whose scene's constants are there.
    """
    config = decoder.config
    dim, cells, heads, inner = config.dim, config.cells**2, config.heads, config.dim // 2
    tokens = len(decoder.output_tokens) + prompts + 1
    drawn = len(range(config.mask_tokens)[decoder.drawn(multimask)])
    wanted = len(range(len(decoder.output_tokens))[decoder.wanted(multimask)])
    among_tokens = 4 * tokens * dim**2 + 2 * tokens**2 * dim
    to_image = 2 * tokens * dim * inner + 2 * tokens * cells * inner
    mlp = 2 * tokens * dim * config.mlp
    to_tokens = 2 * tokens * dim * inner + 2 * tokens * cells * inner + cells * inner * dim
    layers = config.layers * (among_tokens + to_image + mlp + to_tokens)
    onward = 3 * cells * inner**2 if config.layers > 1 else 0
    later = max(0, config.layers - 2) * 3 * cells * dim * inner
    # Queries, keys and values in the image's space, places, both products with the image, the way out.
    last = wanted * (4 * dim * inner + inner * cells + 2 * heads * cells * dim)
    upscaled = cells * dim**2 + cells * dim**2 // 2 + 2 * cells * dim * drawn
    hyper = drawn * (2 * dim**2 + dim * dim // 8)
    rating = config.iou_hidden * (dim + config.iou_hidden + config.mask_tokens)
    places = prompts * dim
    return 2 * (layers + onward + later + last + upscaled + hyper + rating + places)


def scene_flops(decoder: MaskDecoder) -> int:
    """Count the operations that make a scene's constants (``MaskDecoder.constants``)."""
    config = decoder.config
    return config.cells**2 * config.dim**2 * (6 if config.layers > 1 else 3)


def scene_bytes(decoder: MaskDecoder) -> int:
    """Return the bytes of a scene's constants, without the fine features of SAM 2 and SAM-HQ."""
    config = decoder.config
    channels = config.dim + (6 if config.layers > 1 else 3) * config.dim // 2
    return config.cells**2 * channels * decoder.dtype.itemsize
