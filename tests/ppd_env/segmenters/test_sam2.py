"""``sam2:`` and ``edgetam:`` give the masks of transformers' models, in the contract's letterboxed square."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_sam
import torch
from torch.nn import functional as F

from ppd_env.errors import ConfigError
from ppd_env.segmenters.contract import ABSENT, Embedding
from ppd_env.segmenters.letterbox import scaled_size, valid_area
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.segmenters.sam.frames import PADDING_LOGIT, Stretch
from ppd_env.segmenters.sam.second import stability

transformers = pytest.importorskip("transformers")

SHAPES = ((50, 50), (30, 100), (200, 50))
VIDEO = {
    "image_size": tiny_sam.SIDE,
    "memory_attention_hidden_size": tiny_sam.DIM,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": 16,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": tiny_sam.DIM,
    "memory_encoder_output_channels": 8,
    "mask_downsampler_embed_dim": tiny_sam.DIM,
    "memory_fuser_num_layers": 1,
    "memory_fuser_embed_dim": tiny_sam.DIM,
    "memory_fuser_intermediate_dim": 16,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_sam.save_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def segmenter(folder):
    return load_segmenter(f"sam2:{folder}")


@pytest.fixture(scope="module")
def model(folder):
    return transformers.Sam2Model.from_pretrained(folder).eval()


def random_prompts(shape, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(1, count, 2, generator=generator) * torch.tensor([shape[1], shape[0]])
    return points, torch.randint(0, 2, (1, count), generator=generator)


def random_image(shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@torch.no_grad()
def directly(model, segmenter, image, points, labels, mask=None, multimask=False):
    """What transformers gives in the stretched square."""
    height, width = image.shape[:2]
    found = model(
        pixel_values=segmenter.frame.pixels(image),
        input_points=(points / torch.tensor([width, height]) * tiny_sam.SIDE)[:, None],
        input_labels=labels[:, None],
        input_masks=mask,
        multimask_output=multimask,
    )
    return found.pred_masks[:, 0], found.iou_scores[:, 0]


def letterboxed(logits, shape):
    """Stretched logits in the upper left corner of the contract's square."""
    side = logits.shape[-1]
    out = torch.full_like(logits, PADDING_LOGIT)
    height, width = scaled_size(*shape, side)
    size = (height, width)
    out[..., :height, :width] = F.interpolate(logits, size=size, mode="bilinear", antialias=True)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("multimask", [False, True])
def test_masks_are_those_of_the_library(segmenter, model, shape, multimask):
    image, embedding = random_image(shape), segmenter.embed(random_image(shape))
    for count in (1, 30):
        points, labels = random_prompts(shape, count)
        logits, iou = segmenter.decode(embedding, points, labels, multimask=multimask)
        expected = directly(model, segmenter, image, points, labels, multimask=multimask)
        assert expected[0].std() > 0.1
        torch.testing.assert_close(logits, letterboxed(expected[0], shape), atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(iou, expected[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_mask_prompts_reach_the_model_stretched(segmenter, model, shape):
    side = segmenter.low_res
    mask = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0)) * 3
    height, width = scaled_size(*shape, side)
    stretched = F.interpolate(mask[..., :height, :width], size=(side, side), mode="bilinear", antialias=True)
    image = random_image(shape)
    points, labels = random_prompts(shape, 4)
    found = segmenter.decode(segmenter.embed(image), points, labels, mask)
    expected = directly(model, segmenter, image, points, labels, stretched)
    torch.testing.assert_close(found[0], letterboxed(expected[0], shape), atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=0)


def test_ragged_batches_of_different_shapes_are_their_sets_one_by_one(segmenter, model):
    images = [random_image(shape) for shape in SHAPES]
    embedding = Embedding.cat([segmenter.embed(image) for image in images])
    rows, counts = torch.tensor([2, 0, 1, 0]), (5, 1, 12, 3)
    points, labels = torch.zeros(4, 12, 2), torch.full((4, 12), ABSENT)
    for game, count in enumerate(counts):
        some, signs = random_prompts(SHAPES[rows[game]], count, game)
        points[game, :count], labels[game, :count] = some[0], signs[0]
    logits, iou = segmenter.decode(embedding, points, labels, rows=rows)
    for game, count in enumerate(counts):
        shape, image = SHAPES[rows[game]], images[rows[game]]
        alone = directly(model, segmenter, image, points[game, :count][None], labels[game, :count][None])
        torch.testing.assert_close(logits[game], letterboxed(alone[0], shape)[0], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(iou[game], alone[1][0], atol=1e-4, rtol=0)


def test_unstable_single_masks_give_way_and_stable_ones_do_not(tmp_path):
    """The setting of the checkpoint decides which may."""
    always = tiny_sam.save_sam2(tmp_path / "a", dynamic_multimask_stability_thresh=0.5)
    never = tiny_sam.save_sam2(tmp_path / "b", dynamic_multimask_via_stability=False)
    segmenter, plain = load_segmenter(f"sam2:{always}"), load_segmenter(f"sam2:{never}")
    embedding = segmenter.embed(random_image((50, 50)))
    points, labels = random_prompts((50, 50), 1)
    single, multi = (plain.decode(embedding, points, labels, multimask=m)[0] for m in (False, True))
    found = segmenter.decode(embedding, points, labels)[0]
    steady = bool(stability(single[:, 0], 0.05, 0.5))
    assert steady
    torch.testing.assert_close(found, single)
    delta = float(single.abs().max()) + 1
    segmenter.decoder.config = replace(segmenter.decoder.config, stability=(delta, 0.5))
    moved, iou = segmenter.decode(embedding, points, labels)
    scores = plain.decode(embedding, points, labels, multimask=True)[1]
    best = scores.argmax()
    torch.testing.assert_close(moved[0, 0], multi[0, best])
    torch.testing.assert_close(iou[0, 0], scores[0, best])
    assert not torch.allclose(moved, single, atol=0.1)


def test_stability_is_the_share_that_remains():
    logits = torch.full((3, 2, 2), -1.0)
    logits[0, 0] = torch.tensor([0.01, 5.0])
    logits[1, 0] = torch.tensor([4.0, 5.0])
    assert stability(logits, 0.05, 0.6).tolist() == [False, True, True]
    assert stability(logits, 0.05, 0.5).tolist() == [True, True, True]


def test_frame_keeps_constants_and_fills_the_rest():
    frame, sizes = Stretch(64), torch.tensor([[30, 100], [100, 30], [7, 7]])
    logits = torch.arange(1.0, 4.0).view(3, 1, 1, 1).expand(3, 2, 16, 16).contiguous()
    out = frame.from_square(logits, sizes)
    shown = valid_area(sizes, 16)[:, None].expand_as(out)
    torch.testing.assert_close(out[shown], logits[shown])
    assert (out[~shown] == PADDING_LOGIT).all()
    torch.testing.assert_close(frame.to_square(out[:, :1], sizes), logits[:, :1])


def test_published_video_checkpoints_load_as_image_models(tmp_path, segmenter, folder):
    """The hub's facebook/sam2.1-hiera-* are of type ``sam2_video``, memory and all."""
    config = transformers.Sam2VideoConfig(**tiny_sam.sam2_parts(), **VIDEO)
    video = tiny_sam.randomise(transformers.Sam2VideoModel(config), seed=1)
    image_model = transformers.Sam2Model.from_pretrained(folder)
    report = video.load_state_dict(image_model.state_dict(), strict=False)
    assert report.unexpected_keys == []
    assert any("memory" in name for name in report.missing_keys)
    video.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    other = load_segmenter(f"sam2:{tmp_path}")
    points, labels = random_prompts((50, 50), 6)
    image = random_image((50, 50))
    expected = segmenter.decode(segmenter.embed(image), points, labels)
    found = other.decode(other.embed(image), points, labels)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_pixels_are_those_of_torchvision():
    """The official SAM2Transforms resize a tensor in [0, 1] with antialiasing, then normalise."""
    try:
        from torchvision.transforms import v2
    except (ImportError, RuntimeError):
        pytest.skip("torchvision is not installed, or for another torch")
    steps = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((64, 64)),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    for shape in ((64, 64), (30, 100), (200, 333)):
        image = random_image(shape)
        torch.testing.assert_close(Stretch(64).pixels(image)[0], steps(image), atol=1e-5, rtol=0)


def test_edgetam_is_its_library_model(tmp_path):
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError):
        with pytest.raises(ConfigError, match="pip install timm torchvision"):
            load_segmenter(f"edgetam:{tmp_path}")
        pytest.skip("timm or torchvision is not installed, or for another torch")
    parts = tiny_sam.sam2_parts()
    parts["vision_config"] = {
        "backbone_config": {
            "model_type": "timm_wrapper",
            "architecture": "repvit_m0_9",
            "num_classes": 2,
            "label_names": ["a", "b"],
            "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        },
        "backbone_channel_list": [384, 192, 96, 48],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": tiny_sam.DIM,
    }
    torch.manual_seed(0)
    model = transformers.EdgeTamModel(transformers.EdgeTamConfig(**parts)).eval()
    tiny_sam.share_codes(model).save_pretrained(tmp_path)
    segmenter, image = load_segmenter(f"edgetam:{tmp_path}"), random_image((50, 50))
    points, labels = random_prompts((50, 50), 6)
    for multimask in (False, True):
        found = segmenter.decode(segmenter.embed(image), points, labels, multimask=multimask)
        expected = directly(model, segmenter, image, points, labels, multimask=multimask)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
