"""``sam:`` and ``checkpoint:`` give what the segment-anything package gives with the same weights."""

import importlib.util

import numpy as np
import pytest
import tiny_sam
import torch
from PIL import Image

from ppd_env.segmenters.contract import ABSENT, Embedding, native_logits
from ppd_env.segmenters.letterbox import upscale_logits
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.segmenters.sam import checkpoint

pytest.importorskip("transformers")
if importlib.util.find_spec("segment_anything") is None:
    pytest.skip("segment-anything is not installed", allow_module_level=True)

SHAPES = ((64, 64), (30, 100), (100, 31), (3, 5), (200, 333), (64, 20), (1, 7))
"""The tiny model has a square of 64 pixels: shapes that fit, are wide, tall, tiny, larger, or one line."""
CLOSE = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory):
    """The same weights behind both back ends."""
    folder = tmp_path_factory.mktemp("sam")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(checkpoint.ARCHITECTURES, "tiny", tiny_sam.TINY)
        file = tiny_sam.save_checkpoint(folder / "tiny.pth")
        yield {
            "checkpoint": load_segmenter(f"checkpoint:tiny:{file}"),
            "sam": load_segmenter(f"sam:{tiny_sam.save_sam(folder / 'sam')}"),
        }


@pytest.fixture(scope="module")
def model():
    return tiny_sam.official()


def random_image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def random_prompts(shape, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(1, count, 2, generator=generator) * torch.tensor([shape[1], shape[0]])
    return points, torch.randint(0, 2, (1, count), generator=generator)


def random_mask(batch=1, seed=0):
    side = tiny_sam.SIZES.low_res
    return torch.randn(batch, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 2


class Reference:
    """The package's model on one image, in the steps of its predictor, which needs torchvision."""

    @torch.no_grad()
    def __init__(self, model, image):
        self.model, side = model, tiny_sam.SIDE
        height, width = image.shape[:2]
        scale = side / max(height, width)
        self.size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        self.ratio = np.array([self.size[1] / width, self.size[0] / height])
        resized = np.array(Image.fromarray(image).resize(self.size[::-1], Image.BILINEAR))
        pixels = torch.as_tensor(resized).permute(2, 0, 1)[None]
        self.features = model.image_encoder(model.preprocess(pixels))

    @torch.no_grad()
    def predict(self, points, labels, mask=None, multimask=False):
        moved = torch.as_tensor(points.double().numpy() * self.ratio, dtype=torch.float)
        sparse, dense = self.model.prompt_encoder(points=(moved, labels.int()), boxes=None, masks=mask)
        return self.model.mask_decoder(
            image_embeddings=self.features,
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )


@pytest.mark.parametrize("name", ["checkpoint", "sam"])
@pytest.mark.parametrize("shape", SHAPES)
def test_masks_are_those_of_the_package(segmenters, model, name, shape):
    segmenter, image = segmenters[name], random_image(shape)
    reference, embedding = Reference(model, image), segmenter.embed(image)
    torch.testing.assert_close(embedding.tensors["image"], reference.features, **CLOSE)
    for count in (1, 2, 9, 200):
        points, labels = random_prompts(shape, count, seed=count)
        for mask in (None, random_mask()):
            for multimask in (False, True):
                found = segmenter.decode(embedding, points, labels, mask, multimask)
                expected = reference.predict(points, labels, mask, multimask)
                assert expected[0].std() > 0.1  # else nothing is compared
                for ours, theirs in zip(found, expected, strict=True):
                    torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("name", ["checkpoint", "sam"])
def test_ragged_batches_over_images_are_their_sets_one_by_one(segmenters, model, name):
    segmenter = segmenters[name]
    shapes = SHAPES[1:4]
    images = [random_image(shape, seed) for seed, shape in enumerate(shapes)]
    embedding = Embedding.cat([segmenter.embed(image) for image in images])
    rows, counts = torch.tensor([0, 2, 1, 1, 0]), (3, 40, 1, 17, 200)
    points, labels = torch.full((5, 200, 2), float("nan")), torch.full((5, 200), ABSENT)
    slots = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    sets = [random_prompts(shapes[row], count, row) for row, count in zip(rows.tolist(), counts, strict=True)]
    for game, (some, signs) in enumerate(sets):
        points[game, slots[: counts[game]]], labels[game, slots[: counts[game]]] = some[0], signs[0]
    masks = random_mask(batch=5)
    for mask in (None, masks):
        for multimask in (False, True):
            logits, iou = segmenter.decode(embedding, points, labels, mask, multimask, rows)
            for game, (some, signs) in enumerate(sets):
                reference = Reference(model, images[rows[game]])
                one = None if mask is None else mask[game : game + 1]
                expected = reference.predict(some, signs, one, multimask)
                torch.testing.assert_close(logits[game], expected[0][0], **CLOSE)
                torch.testing.assert_close(iou[game], expected[1][0], **CLOSE)


def test_both_back_ends_are_transformers_model_too(segmenters, tmp_path):
    import transformers

    model = transformers.SamModel.from_pretrained(tiny_sam.save_sam(tmp_path)).eval()
    image = random_image((40, 60))
    for segmenter in segmenters.values():
        points, labels = random_prompts((40, 60), 6)
        scale = torch.tensor(segmenter.frame.scale(40, 60))
        with torch.no_grad():
            expected = model(
                pixel_values=segmenter.frame.pixels(image),
                input_points=(points * scale)[:, None],
                input_labels=labels[:, None],
                multimask_output=False,
            )
        logits, iou = segmenter.decode(segmenter.embed(image), points, labels)
        torch.testing.assert_close(logits, expected.pred_masks[:, 0], atol=2e-4, rtol=0)
        torch.testing.assert_close(iou, expected.iou_scores[:, 0], atol=2e-4, rtol=0)


def test_the_padding_point_is_part_of_every_set(segmenters):
    """Leaving SAM's own padding point out, or adding a second one, gives other masks."""
    segmenter = segmenters["checkpoint"]
    decoder = segmenter.decoder
    embedding = segmenter.embed(random_image((64, 64)))
    points, labels = random_prompts((64, 64), 4)
    before = segmenter.decode(embedding, points, labels)[0]
    code = decoder.prompts.padding_code.clone()
    try:
        decoder.prompts.padding_code.zero_()
        assert not torch.allclose(segmenter.decode(embedding, points, labels)[0], before, atol=1e-3)
    finally:
        decoder.prompts.padding_code.copy_(code)


def test_what_gradients_would_change_is_frozen(segmenters):
    for segmenter in segmenters.values():
        points, labels = random_prompts((64, 64), 4)
        logits, _ = segmenter.decode(segmenter.embed(random_image((64, 64))), points, labels)
        assert not logits.requires_grad
        parameters = [*segmenter.encoder.parameters(), *segmenter.decoder.parameters()]
        assert not any(parameter.requires_grad for parameter in parameters)
        assert not any(module.training for module in segmenter.encoder.modules())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_the_same_masks(segmenters, tmp_path):
    on_cpu, on_gpu = segmenters["sam"], load_segmenter(f"sam:{tiny_sam.save_sam(tmp_path)}", "cuda")
    image = random_image((40, 60))
    points, labels = random_prompts((40, 60), 6)
    expected = on_cpu.decode(on_cpu.embed(image), points, labels)
    found = on_gpu.decode(on_gpu.embed(image), points.cuda(), labels.cuda())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_at_native_size_are_enlarged_as_by_the_package(segmenters, model, shape):
    logits = random_mask(batch=3)
    theirs = model.postprocess_masks(logits, Reference(model, random_image(shape)).size, shape)
    for segmenter in segmenters.values():
        assert torch.equal(native_logits(segmenter, logits, shape), theirs)
        assert torch.equal(native_logits(segmenter, logits[0, 0], shape), theirs[0, 0])


def test_the_padding_is_cut_off_at_the_resolution_of_the_encoder(segmenters):
    """The mask of an image that fills nine and a half of sixteen cells, cut off there and at ten."""
    logits, size = torch.linspace(-7.5, 7.5, 16)[:, None].expand(16, 16), (119, 200)
    official = native_logits(segmenters["sam"], logits, size) > 0
    at_once = upscale_logits(logits, size) > 0
    assert official[-1].all()
    assert abs(int(official[:, 0].sum()) - int(at_once[:, 0].sum())) > 3
