"""Published SAM architectures with random weights, and the loop a user writes around the official package."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppd_env.metrics import dice
from ppd_env.segmenters.sam.checkpoint import ARCHITECTURES, official_modeling
from ppd_env.uris import parse_uri

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def official_sam(name: str, seed: int = 0) -> nn.Module:
    """Build a model of the segment-anything package with random weights; time does not depend on weights.

    Args:
        name: ``"vit_b"``, ``"vit_l"`` or ``"vit_h"``.
        seed: Of the weights; the global generator is left as it was.

    Returns:
        The package's ``Sam``.

    Raises:
        ConfigError: The package is not installed.
    """
    modeling = official_modeling(parse_uri(f"checkpoint:{name}:random"))
    made = ARCHITECTURES[name]
    sizes = made.decoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = modeling.Sam(
            modeling.ImageEncoderViT(
                img_size=sizes.image_size,
                patch_size=sizes.image_size // sizes.cells,
                embed_dim=made.width,
                depth=made.depth,
                num_heads=made.heads,
                out_chans=sizes.dim,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=made.window,
                global_attn_indexes=made.global_layers,
            ),
            modeling.PromptEncoder(
                embed_dim=sizes.dim,
                image_embedding_size=(sizes.cells, sizes.cells),
                input_image_size=(sizes.image_size, sizes.image_size),
                mask_in_chans=sizes.mask_channels,
            ),
            modeling.MaskDecoder(
                num_multimask_outputs=sizes.mask_tokens - 1,
                transformer=modeling.TwoWayTransformer(
                    depth=sizes.layers, embedding_dim=sizes.dim, mlp_dim=sizes.mlp, num_heads=sizes.heads
                ),
                transformer_dim=sizes.dim,
                iou_head_hidden_dim=sizes.iou_hidden,
            ),
            PIXEL_MEAN,
            PIXEL_STD,
        )
    return model.eval().requires_grad_(False)


def save_official(model: nn.Module, path: Path) -> None:
    """Write the weights as Meta's files have them, for ``checkpoint:NAME:PATH``."""
    torch.save(model.state_dict(), path)


@dataclass(frozen=True)
class UsersLoop:
    """What a user runs for every prompt set: ``predict``, then Dice in numpy at native size.

    Args:
        predict: Maps points (n, 2) and labels (n,) to a (H, W) bool mask.
        measured: What was called, in words, for the result file.
        truth: (H, W) bool.
    """

    predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
    measured: str
    truth: np.ndarray

    def score(self, points: np.ndarray, labels: np.ndarray) -> float:
        """Return the Dice of one prompt set."""
        return dice(self.predict(points, labels), self.truth)


@torch.no_grad()
def users_loop(
    model: nn.Module, image: np.ndarray, truth: np.ndarray, predictor: Callable[..., Any] | None
) -> UsersLoop:
    """Set an image, once, and return the loop's body.

    Args:
        model: The package's ``Sam``, on its device.
        image: (H, W, 3) uint8.
        truth: (H, W) bool.
        predictor: ``SamPredictor``, or None where it cannot be imported: then the same modules are called as
            its ``predict`` calls them.

    Returns:
        The loop's body.
    """
    if predictor is not None:
        set_up = predictor(model)
        set_up.set_image(image)

        def predict(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
            mask: np.ndarray = set_up.predict(points, labels, multimask_output=False)[0][0]
            return mask

        return UsersLoop(predict, "segment_anything.SamPredictor.predict", truth)
    said = (
        "the official prompt_encoder, mask_decoder and postprocess_masks, called as SamPredictor.predict "
        "does (itself it needs torchvision: pip install torchvision)"
    )
    return UsersLoop(_modules(model, image), said, truth)


def sam_predictor() -> Callable[..., Any] | None:
    """Return ``SamPredictor``, or None where the package's top level, which wants torchvision, fails."""
    try:
        from segment_anything import SamPredictor
    except (ImportError, RuntimeError):
        return None
    found: Callable[..., Any] = SamPredictor
    return found


def _modules(model: Any, image: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Do what ``set_image`` does, and return what ``predict`` does."""
    original, device = image.shape[:2], model.device
    scale = model.image_encoder.img_size / max(original)
    size = tuple(math.floor(side * scale + 0.5) for side in original)
    pixels = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    features = model.image_encoder(model.preprocess(resized))
    ratio = np.array([size[1] / original[1], size[0] / original[0]])

    @torch.no_grad()
    def predict(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
        given = torch.as_tensor(points * ratio, dtype=torch.float, device=device)[None]
        signs = torch.as_tensor(labels, dtype=torch.int, device=device)[None]
        low, _ = decode_officially(model, features, given, signs)
        mask = model.postprocess_masks(low, size, original) > model.mask_threshold
        found: np.ndarray = mask[0, 0].cpu().numpy()
        return found

    return predict


def decode_officially(model: Any, features: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Run the package's prompt encoder and mask decoder.

    Args:
        model: The package's ``Sam``.
        features: (1, 256, 64, 64) float32.
        points: (1, n, 2) float32 in the encoder's input square.
        labels: (1, n) int32.

    Returns:
        Low-resolution logits (1, 1, 256, 256) and predicted IoU (1, 1).
    """
    sparse, dense = model.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    logits, iou = model.mask_decoder(
        image_embeddings=features,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return logits, iou
