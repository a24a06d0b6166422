"""What every segmenter promises; each one that ships with the package is held to it."""

import importlib.util

import numpy as np
import pytest
import tiny_sam
import torch

from ppd_env.segmenters.contract import ABSENT, Embedding, Segmenter
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.segmenters.sam import checkpoint

SIZES = ((48, 64), (40, 40), (70, 20))
SAVED = {
    "checkpoint": (
        "segment_anything",
        lambda folder: f"tiny:{tiny_sam.save_checkpoint(folder / 'tiny.pth')}",
    ),
    "sam": ("transformers", tiny_sam.save_sam),
    "samhq": ("transformers", tiny_sam.save_sam_hq),
    "sam2": ("transformers", tiny_sam.save_sam2),
}
"""Back ends whose weights are not in the package: what they need, and what writes small random ones."""


@pytest.fixture(scope="module", params=["fake", "mini", *SAVED])
def segmenter(request, tmp_path_factory):
    if request.param not in SAVED:
        return load_segmenter(request.param)
    package, save = SAVED[request.param]
    # The weights of ``sam`` are made with segment-anything too.
    if not all(importlib.util.find_spec(name) for name in (package, "segment_anything")):
        pytest.skip(f"{package} or segment-anything is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(checkpoint.ARCHITECTURES, "tiny", tiny_sam.TINY)
        return load_segmenter(f"{request.param}:{save(tmp_path_factory.mktemp(request.param))}")


@pytest.fixture(scope="module")
def embedding(segmenter):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in SIZES]
    return Embedding.cat([segmenter.embed(image) for image in images])


def prompt_sets(seed=0):
    """Ragged sets for the images 0, 2, 1, 2: points (4, 5, 2) and labels (4, 5)."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor([0, 2, 1, 2])
    scale = torch.tensor([SIZES[row][::-1] for row in rows.tolist()], dtype=torch.float32)
    points = torch.rand(4, 5, 2, generator=generator) * scale[:, None]
    labels = torch.randint(0, 2, (4, 5), generator=generator)
    labels[:, 0] = 1
    for game, count in enumerate((5, 2, 3, 1)):
        labels[game, count:] = ABSENT
    return rows, points, labels


def test_it_is_a_segmenter(segmenter):
    assert isinstance(segmenter, Segmenter)
    assert segmenter.signature
    assert segmenter.device == torch.device("cpu")


def test_embeddings_keep_sizes(segmenter, embedding):
    assert len(embedding) == 3
    assert embedding.sizes.tolist() == [list(size) for size in SIZES]
    assert all(len(tensor) == 3 for tensor in embedding.tensors.values())


@pytest.mark.parametrize("multimask", [False, True])
def test_shapes(segmenter, embedding, multimask):
    rows, points, labels = prompt_sets()
    logits, iou = segmenter.decode(embedding, points, labels, multimask=multimask, rows=rows)
    side, masks = segmenter.low_res, 3 if multimask else 1
    assert logits.shape == (4, masks, side, side)
    assert iou.shape == (4, masks)
    assert logits.dtype == iou.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("with_mask", [False, True])
def test_ragged_batches_are_what_their_sets_are_alone(segmenter, embedding, with_mask):
    rows, points, labels = prompt_sets()
    side = segmenter.low_res
    mask = torch.randn(4, 1, side, side, generator=torch.Generator().manual_seed(1)) if with_mask else None
    together = segmenter.decode(embedding, points, labels, mask, rows=rows)
    for game in range(4):
        present = labels[game] != ABSENT
        alone = segmenter.decode(
            embedding[rows[game : game + 1]],
            points[game, present][None],
            labels[game, present][None],
            None if mask is None else mask[game : game + 1],
        )
        for left, right in zip(together, alone, strict=True):
            torch.testing.assert_close(left[game], right[0], atol=2e-4, rtol=1e-4)


def test_absent_slots_may_stand_anywhere_and_hold_anything(segmenter, embedding):
    rows, points, labels = prompt_sets()
    order = torch.tensor([4, 1, 0, 3, 2])
    moved = points.clone()
    moved[labels == ABSENT] = 1e4
    first = segmenter.decode(embedding, points, labels, rows=rows)
    second = segmenter.decode(embedding, moved[:, order], labels[:, order], rows=rows)
    for left, right in zip(first, second, strict=True):
        torch.testing.assert_close(left, right, atol=2e-4, rtol=1e-4)


def test_rows_only_save_the_gathering(segmenter, embedding):
    rows, points, labels = prompt_sets()
    first = segmenter.decode(embedding, points, labels, rows=rows)
    second = segmenter.decode(embedding[rows], points, labels)
    for left, right in zip(first, second, strict=True):
        torch.testing.assert_close(left, right, atol=2e-4, rtol=1e-4)


def test_prompts_signs_and_masks_matter(segmenter, embedding):
    rows, points, labels = prompt_sets()
    base = segmenter.decode(embedding, points, labels, rows=rows)[0]
    flipped = torch.where(labels == 0, 1, torch.where(labels == 1, 0, labels))
    assert not torch.allclose(base, segmenter.decode(embedding, points, flipped, rows=rows)[0])
    assert not torch.allclose(base, segmenter.decode(embedding, points * 0.5, labels, rows=rows)[0])
    side = segmenter.low_res
    mask = torch.full((4, 1, side, side), 5.0)
    assert not torch.allclose(base, segmenter.decode(embedding, points, labels, mask, rows=rows)[0])
