"""Small SAM models with seeded random weights, saved in the formats of the published ones."""

import math

import torch

from ppd_env.segmenters.sam import checkpoint
from ppd_env.segmenters.sam.config import DecoderConfig
from ppd_env.uris import parse_uri

SIDE, PATCH, DIM, WIDTH = 64, 16, 32, 24
SIZES = DecoderConfig(
    image_size=SIDE, cells=SIDE // PATCH, dim=DIM, heads=2, mlp=48, mask_channels=8, iou_hidden=20
)
TINY = checkpoint.Architecture(WIDTH, 2, 2, (1,), window=3, decoder=SIZES)
VISION = {
    "hidden_size": WIDTH,
    "output_channels": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
    "window_size": 3,
    "global_attn_indexes": [1],
    "num_pos_feats": DIM // 2,
}
PROMPTS = {"hidden_size": DIM, "image_size": SIDE, "patch_size": PATCH, "mask_input_channels": 8}
MASKS = {"hidden_size": DIM, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 20}

TO_TRANSFORMERS = (
    (".pe_layer.positional_encoding_gaussian_matrix", ".shared_embedding.positional_embedding"),
    ("point_embeddings", "point_embed"),
    ("mask_downscaling.0", "mask_embed.conv1"),
    ("mask_downscaling.1", "mask_embed.layer_norm1"),
    ("mask_downscaling.3", "mask_embed.conv2"),
    ("mask_downscaling.4", "mask_embed.layer_norm2"),
    ("mask_downscaling.6", "mask_embed.conv3"),
    ("output_upscaling.0", "upscale_conv1"),
    ("output_upscaling.1", "upscale_layer_norm"),
    ("output_upscaling.3", "upscale_conv2"),
    ("image_encoder", "vision_encoder"),
    ("patch_embed.proj.", "patch_embed.projection."),
    ("blocks.", "layers."),
    ("neck.0", "neck.conv1"),
    ("neck.1", "neck.layer_norm1"),
    ("neck.2", "neck.conv2"),
    ("neck.3", "neck.layer_norm2"),
    (".norm", ".layer_norm"),
)
"""What the official names become in transformers, apart from the heads."""


CODES = ("position", "point_emb", "no_mask", "not_a_point", "_token.weight", "mask_tokens", "no_memory")
"""Parts of the names of position codes and embeddings, which are no maps."""


def randomise(model, seed, gain=2.0):
    """Give every parameter and position code a seeded random value at which signals keep their size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            drawn = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim == 1:
                drawn = drawn * 0.2 + float("norm" in name and name.endswith("weight"))
            elif "pos_" in name or name.endswith("pos_embed"):
                drawn *= 0.3
            elif not any(word in name for word in CODES):
                drawn *= gain / math.sqrt(math.prod(tensor.shape[1:]))
            tensor.copy_(drawn)
    return model.eval()


def official(architecture=TINY, seed=0):
    """A model of the segment-anything package with random weights."""
    modeling = checkpoint.official_modeling(parse_uri("checkpoint:vit_b:none"))
    sizes = architecture.decoder
    model = modeling.Sam(
        checkpoint._encoder(modeling, architecture).to_empty(device="cpu"),
        modeling.PromptEncoder(
            embed_dim=sizes.dim,
            image_embedding_size=(sizes.cells, sizes.cells),
            input_image_size=(sizes.image_size, sizes.image_size),
            mask_in_chans=sizes.mask_channels,
        ),
        modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=sizes.layers, embedding_dim=sizes.dim, mlp_dim=sizes.mlp, num_heads=sizes.heads
            ),
            transformer_dim=sizes.dim,
            iou_head_depth=3,
            iou_head_hidden_dim=sizes.iou_hidden,
        ),
    )
    return randomise(model, seed)


def to_transformers(state):
    """The same weights under the names of transformers."""
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in TO_TRANSFORMERS:
            name = name.replace(ours, theirs)
        if "hypernetworks" in name or "iou_prediction_head" in name:
            name = name.replace("layers.0.", "proj_in.").replace("layers.2.", "proj_out.")
            name = name.replace("layers.1.", "layers.0.")
        renamed[name] = tensor
    codes = renamed["prompt_encoder.shared_embedding.positional_embedding"]
    return {**renamed, "shared_image_embedding.positional_embedding": codes}


def save_checkpoint(path, seed=0):
    """Write a file as Meta publishes them; its name in URIs is ``tiny``."""
    torch.save(official(seed=seed).state_dict(), path)
    return path


def save_sam(folder, seed=0, **kwargs):
    """Write the weights of ``official`` as a folder of transformers."""
    import transformers

    config = transformers.SamConfig(
        vision_config=VISION, prompt_encoder_config=PROMPTS, mask_decoder_config=MASKS
    )
    model = transformers.SamModel(config)
    model.load_state_dict(to_transformers(official(seed=seed).state_dict()))
    model.save_pretrained(folder, **kwargs)
    return folder


def save_sam_hq(folder, seed=0):
    """Write a small SAM-HQ."""
    import transformers

    config = transformers.SamHQConfig(
        vision_config=VISION,
        prompt_encoder_config=PROMPTS,
        mask_decoder_config={**MASKS, "vit_dim": WIDTH},
    )
    model = randomise(transformers.SamHQModel(config), seed, gain=1.5)
    share_codes(model).save_pretrained(folder)
    return folder


def sam2_parts(**masks):
    """The parts of a small SAM 2's configuration."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "window_positional_embedding_background_size": [3, 3],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": DIM,
    }
    return {
        "vision_config": vision,
        "prompt_encoder_config": PROMPTS,
        "mask_decoder_config": {**MASKS, **masks},
    }


def save_sam2(folder, seed=0, **masks):
    """Write a small SAM 2."""
    import transformers

    model = randomise(transformers.Sam2Model(transformers.Sam2Config(**sam2_parts(**masks))), seed, gain=1.0)
    share_codes(model).save_pretrained(folder)
    return folder


def share_codes(model):
    """Encode image and points alike, as every published model does."""
    codes = model.prompt_encoder.shared_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.data.copy_(codes.data)
    return model
