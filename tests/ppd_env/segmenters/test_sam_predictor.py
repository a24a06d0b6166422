"""``sam:`` and ``checkpoint:`` against the official ``SamPredictor`` itself, which imports torchvision."""

import numpy as np
import pytest
import tiny_sam
import torch

from ppd_env.segmenters.contract import native_logits
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.segmenters.sam import checkpoint

pytest.importorskip("transformers")
try:
    from segment_anything import SamPredictor, sam_model_registry
except (ImportError, RuntimeError):  # a torchvision of another torch raises RuntimeError
    pytest.skip(
        "segment-anything or torchvision is not installed, or for another torch", allow_module_level=True
    )

SHAPES = ((64, 64), (30, 100), (100, 31), (3, 5), (200, 333), (64, 20))


def check(segmenters, predictor, shape, counts, tolerance):
    """Compare embedding, low-resolution logits and predicted IoU on one image."""
    rng = np.random.default_rng(shape[0])
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    predictor.set_image(image)
    side = predictor.model.prompt_encoder.mask_input_size[0]
    embeddings = [segmenter.embed(image) for segmenter in segmenters]
    for count in counts:
        points = rng.random((count, 2), dtype=np.float32) * np.array(shape[::-1], np.float32)
        labels = rng.integers(0, 2, count)
        for mask in (None, rng.normal(0, 2, (1, side, side)).astype(np.float32)):
            for multimask in (False, True):
                _, iou, logits = predictor.predict(
                    point_coords=points, point_labels=labels, mask_input=mask, multimask_output=multimask
                )
                earlier = None if mask is None else torch.from_numpy(mask)[None]
                given = torch.from_numpy(points)[None], torch.from_numpy(labels)[None], earlier, multimask
                for segmenter, embedding in zip(segmenters, embeddings, strict=True):
                    found = segmenter.decode(embedding, *given)
                    assert np.abs(found[0][0].numpy() - logits).max() < tolerance
                    assert np.abs(found[1][0].numpy() - iou).max() < tolerance


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(checkpoint.ARCHITECTURES, "tiny", tiny_sam.TINY)
        file = tiny_sam.save_checkpoint(folder / "tiny.pth")
        uris = (f"checkpoint:tiny:{file}", f"sam:{tiny_sam.save_sam(folder / 'sam')}")
        yield [load_segmenter(uri) for uri in uris], SamPredictor(tiny_sam.official())


@pytest.mark.parametrize("shape", SHAPES)
def test_small_models_are_the_predictor(tiny, shape):
    segmenters, predictor = tiny
    check(segmenters, predictor, shape, (1, 2, 9, 200), 1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_at_native_size_are_the_predictors(tiny, shape):
    segmenters, predictor = tiny
    rng = np.random.default_rng(shape[1])
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    predictor.set_image(image)
    points = rng.random((3, 2), dtype=np.float32) * np.array(shape[::-1], np.float32)
    given = {"point_coords": points, "point_labels": np.array([1, 0, 1])}
    theirs, _, low_res = predictor.predict(**given, multimask_output=True, return_logits=True)
    mask, _, _ = predictor.predict(**given, multimask_output=True)
    for segmenter in segmenters:
        logits, _ = segmenter.decode(
            segmenter.embed(image), torch.from_numpy(points)[None], torch.tensor([[1, 0, 1]]), multimask=True
        )
        full = native_logits(segmenter, logits[0], shape)
        assert full.shape == theirs.shape
        assert np.abs(full.numpy() - theirs).max() < 1e-4
        same = native_logits(segmenter, torch.from_numpy(low_res), shape).numpy() > 0
        assert np.array_equal(same, mask)


@pytest.mark.slow
def test_a_model_of_published_size_is_the_predictor(tmp_path):
    """ViT-B with random weights, through the package's own builder and from both file formats."""
    import transformers

    model = tiny_sam.randomise(sam_model_registry["vit_b"](), seed=0)
    torch.save(model.state_dict(), tmp_path / "sam_vit_b.pth")
    theirs = transformers.SamModel(transformers.SamConfig())
    theirs.load_state_dict(tiny_sam.to_transformers(model.state_dict()))
    theirs.save_pretrained(tmp_path / "sam")
    del theirs
    with pytest.warns(UserWarning, match="is not the file Meta published"):
        segmenters = [load_segmenter(f"checkpoint:vit_b:{tmp_path / 'sam_vit_b.pth'}")]
    segmenters.append(load_segmenter(f"sam:{tmp_path / 'sam'}"))
    for shape, counts in (((600, 900), (1, 40, 200)), ((1500, 1100), (7,)), ((40, 30), (3,))):
        check(segmenters, SamPredictor(model), shape, counts, 1e-4)
