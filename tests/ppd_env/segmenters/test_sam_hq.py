"""``samhq:`` gives the masks of SAM-HQ."""

import numpy as np
import pytest
import tiny_sam
import torch

from ppd_env.segmenters.contract import ABSENT, Embedding
from ppd_env.segmenters.registry import load_segmenter

transformers = pytest.importorskip("transformers")

SHAPES = ((64, 64), (30, 100), (200, 50))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_sam.save_sam_hq(tmp_path_factory.mktemp("hq"))


@pytest.fixture(scope="module")
def segmenter(folder):
    return load_segmenter(f"samhq:{folder}")


@pytest.fixture(scope="module")
def model(folder):
    """The model of transformers, its decoder mended.

    transformers 5.23 upscales the image as it was before the two-way transformer, rows and columns exchanged
    (``SamHQMaskDecoder.forward`` drops the transformer's second output); the authors' code upscales that
    output. Written into the tensor the decoder goes on with, it makes both the same.
    """
    model = transformers.SamHQModel.from_pretrained(folder).eval()
    forward = model.mask_decoder.transformer.forward

    def mended(image_embeddings, **kwargs):
        before = image_embeddings.clone()
        tokens, keys = forward(image_embeddings=before, **kwargs)
        plane = keys.transpose(2, 3).reshape(image_embeddings.shape)
        image_embeddings.copy_(plane.transpose(2, 3))
        return tokens, keys

    model.mask_decoder.transformer.forward = mended
    return model


def random_prompts(shape, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(1, count, 2, generator=generator) * torch.tensor([shape[1], shape[0]])
    return points, torch.randint(0, 2, (1, count), generator=generator)


def random_image(shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@torch.no_grad()
def directly(model, segmenter, image, points, labels, mask=None, multimask=False):
    scale = torch.tensor(segmenter.frame.scale(*image.shape[:2]))
    found = model(
        pixel_values=segmenter.frame.pixels(image),
        input_points=(points * scale)[:, None],
        input_labels=labels[:, None],
        input_masks=mask,
        multimask_output=multimask,
        hq_token_only=False,
    )
    return found.pred_masks[:, 0], found.iou_scores[:, 0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("multimask", [False, True])
def test_masks_are_those_of_the_library(segmenter, model, shape, multimask):
    image, side = random_image(shape), segmenter.low_res
    embedding = segmenter.embed(image)
    for count in (1, 30):
        points, labels = random_prompts(shape, count)
        for mask in (None, torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(2))):
            found = segmenter.decode(embedding, points, labels, mask, multimask)
            expected = directly(model, segmenter, image, points, labels, mask, multimask)
            assert expected[0].std() > 0.1
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_ragged_batches_are_their_sets_one_by_one(segmenter, model):
    images = [random_image(shape) for shape in SHAPES]
    embedding = Embedding.cat([segmenter.embed(image) for image in images])
    counts = (5, 1, 12)
    points, labels = torch.zeros(3, 12, 2), torch.full((3, 12), ABSENT)
    for row, count in enumerate(counts):
        some, signs = random_prompts(SHAPES[row], count, row)
        points[row, :count], labels[row, :count] = some[0], signs[0]
    logits, _ = segmenter.decode(embedding, points, labels)
    for row, count in enumerate(counts):
        alone = directly(model, segmenter, images[row], points[row, :count][None], labels[row, :count][None])
        torch.testing.assert_close(logits[row], alone[0][0], atol=2e-4, rtol=1e-4)


def test_masks_are_those_of_the_authors_package(segmenter):
    """With the package segment-anything-hq, which needs timm and torchvision."""
    try:
        from segment_anything_hq import modeling
    except (ImportError, RuntimeError):
        pytest.skip("segment-anything-hq, timm or torchvision is not installed, or for another torch")
    sizes = tiny_sam.SIZES
    decoder = modeling.MaskDecoderHQ(
        num_multimask_outputs=3,
        transformer=modeling.TwoWayTransformer(
            depth=2, embedding_dim=sizes.dim, mlp_dim=sizes.mlp, num_heads=sizes.heads
        ),
        transformer_dim=sizes.dim,
        iou_head_hidden_dim=sizes.iou_hidden,
        vit_dim=tiny_sam.WIDTH,
    ).eval()
    ours = dict(segmenter.decoder.state_dict())
    decoder.load_state_dict({name: ours_named(ours, name) for name in decoder.state_dict()})
    image = random_image((64, 64))
    encoded = segmenter.encoder(segmenter.frame.pixels(image))
    points, labels = random_prompts((64, 64), 7)
    prompts = segmenter.decoder.prompts
    codes, _ = prompts.points((points + 0.5) / sizes.image_size, labels)
    plane = (1, sizes.dim, sizes.cells, sizes.cells)
    grid = prompts.position.grid(sizes.cells).T.reshape(plane)
    with torch.no_grad():
        expected = decoder(
            image_embeddings=encoded["image"],
            image_pe=grid,
            sparse_prompt_embeddings=codes,
            dense_prompt_embeddings=prompts.no_mask.reshape(1, -1, 1, 1).expand(plane),
            multimask_output=False,
            hq_token_only=False,
            interm_embeddings=[encoded["early"].permute(0, 2, 3, 1)],
        )
    found = segmenter.decode(segmenter.embed(image), points, labels)
    assert expected[0].std() > 0.1
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


def ours_named(ours, name):
    """Our parameter that the authors call ``name``."""
    tokens = {
        "iou_token.weight": slice(0, 1),
        "mask_tokens.weight": slice(1, 5),
        "hf_token.weight": slice(5, 6),
    }
    if name in tokens:
        return ours["output_tokens"][tokens[name]]
    for theirs, new in (
        ("transformer.final_attn_token_to_image", "last"),
        ("transformer.norm_final_attn", "last_norm"),
        ("transformer.", ""),
        ("cross_attn_token_to_image", "to_image"),
        ("cross_attn_image_to_token", "to_tokens"),
        ("self_attn", "self_attention"),
        ("_proj", ""),
        ("mlp.lin1", "mlp.0"),
        ("mlp.lin2", "mlp.2"),
        ("norm1", "norms.0"),
        ("norm2", "norms.1"),
        ("norm3", "norms.2"),
        ("norm4", "norms.3"),
        ("output_upscaling.0", "up1"),
        ("output_upscaling.1", "up_norm"),
        ("output_upscaling.3", "up2"),
        ("output_hypernetworks_mlps", "hyper"),
        ("iou_prediction_head", "iou_head"),
        ("hf_mlp", "hq_head"),
        ("compress_vit_feat", "vit_up"),
        ("embedding_encoder", "image_up"),
        ("embedding_maskfeature", "refine"),
    ):
        name = name.replace(theirs, new)
    if name.startswith(("hyper", "iou_head", "hq_head")):
        name = name.replace("layers.2.", "4.").replace("layers.1.", "2.").replace("layers.0.", "0.")
    return ours[name]
