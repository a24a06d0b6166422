"""Dice and IoU, distances of outlines, their empty cases, and what other libraries say."""

import numpy as np
import pytest
import torch

from ppd_env.metrics import (
    area_under_curve,
    batch_dice,
    batch_iou,
    dice,
    hd95,
    iou,
    overlap,
    pooled_dice,
    pooled_iou,
)

EMPTY, FULL = np.zeros((2, 3), bool), np.ones((2, 3), bool)
HALF = np.array([[True, True, True], [False, False, False]])


def blobs(seed, size=(41, 57)):
    """Two masks of one image, each made of a few rectangles."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, *size), bool)
    for mask in masks:
        for _ in range(3):
            top, left = rng.integers(0, size[0] - 5), rng.integers(0, size[1] - 5)
            mask[top : top + rng.integers(3, 20), left : left + rng.integers(3, 20)] = True
    return masks


@pytest.mark.parametrize(
    ("left", "right", "expected_dice", "expected_iou"),
    [
        (EMPTY, EMPTY, 1, 1),
        (EMPTY, HALF, 0, 0),
        (HALF, EMPTY, 0, 0),
        (HALF, FULL, 2 / 3, 1 / 2),
        (HALF, HALF, 1, 1),
    ],
)
def test_values(left, right, expected_dice, expected_iou):
    assert dice(left, right) == pytest.approx(expected_dice)
    assert iou(left, right) == pytest.approx(expected_iou)
    tensors = torch.from_numpy(left)[None], torch.from_numpy(right)[None]
    assert batch_dice(*tensors).item() == pytest.approx(expected_dice)
    assert batch_iou(*tensors).item() == pytest.approx(expected_iou)


def test_only_valid_cells_count():
    prediction, truth = torch.from_numpy(FULL)[None], torch.from_numpy(HALF)[None]
    assert batch_dice(prediction, truth, truth).item() == 1
    assert batch_iou(prediction, truth, ~truth).item() == 0


def test_masks_must_match():
    with pytest.raises(ValueError, match="shape"):
        dice(EMPTY, EMPTY.T)
    with pytest.raises(ValueError, match="bool"):
        iou(EMPTY.astype(np.uint8), EMPTY)
    with pytest.raises(ValueError, match="shape"):
        hd95(EMPTY, EMPTY.T)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        pooled_dice([HALF, HALF], [HALF])


def test_pooled_scores_count_pixels_and_not_images():
    large, small = np.ones((30, 30), bool), np.ones((1, 1), bool)
    assert pooled_dice([large, ~small], [large, small]) == pytest.approx(1800 / 1801)
    assert pooled_iou([large, ~small], [large, small]) == pytest.approx(900 / 901)
    assert pooled_dice([EMPTY, EMPTY], [EMPTY, EMPTY]) == pooled_iou([], []) == 1
    pairs = [blobs(seed) for seed in range(4)]
    predictions, truths = zip(*pairs, strict=True)
    stacked = np.concatenate(predictions), np.concatenate(truths)
    assert pooled_dice(predictions, truths) == pytest.approx(dice(*stacked))
    assert pooled_iou(iter(predictions), iter(truths)) == pytest.approx(iou(*stacked))


def outline_pixels(mask):
    """The pixels of a mask with one of four neighbours outside it, one by one."""
    padded = np.pad(mask, 1)
    return np.array(
        [
            (y, x)
            for y, x in np.argwhere(mask)
            if not (padded[y, x + 1] and padded[y + 2, x + 1] and padded[y + 1, x] and padded[y + 1, x + 2])
        ]
    )


@pytest.mark.parametrize("seed", range(4))
def test_hd95_is_the_percentile_of_all_distances_between_the_outlines(seed):
    left, right = blobs(seed)
    gaps = np.linalg.norm(outline_pixels(left)[:, None] - outline_pixels(right)[None], axis=2)
    expected = np.percentile(np.concatenate([gaps.min(axis=0), gaps.min(axis=1)]), 95)
    assert hd95(left, right) == pytest.approx(expected, abs=1e-4)
    assert hd95(right, left) == hd95(left, right)
    assert hd95(left, right, 100) == pytest.approx(max(gaps.min(0).max(), gaps.min(1).max()), abs=1e-4)


def test_hd95_of_shifted_equal_and_empty_masks():
    square = np.zeros((20, 30), bool)
    square[5:10, 5:10] = True
    assert hd95(square, square) == 0
    assert hd95(square, np.roll(square, 3, axis=1), 100) == 3
    empty = np.zeros_like(square)
    assert hd95(empty, empty) == 0
    assert hd95(empty, square) == hd95(square, empty) == pytest.approx(np.hypot(19, 29))
    assert hd95(np.ones_like(square), square) > 0


def test_area_under_a_curve_is_its_mean_height():
    assert area_under_curve([0, 0.5, 1], [80, 80, 80]) == 80
    assert area_under_curve([0, 1, 4], [90, 60, 0]) == pytest.approx((75 + 3 * 30) / 4)
    for places, scores in (([0], [1]), ([0, 0], [1, 1]), ([0, 1], [1]), ([1, 0], [1, 1])):
        with pytest.raises(ValueError, match="ascending"):
            area_under_curve(places, scores)


PAIRS = [blobs(seed) for seed in range(6)]


def test_torchmetrics_says_the_same():
    torchmetrics = pytest.importorskip("torchmetrics.segmentation")
    prediction, truth = (torch.from_numpy(np.stack(masks)) for masks in zip(*PAIRS, strict=True))
    classes = [torch.stack([~masks, masks], dim=1).long() for masks in (prediction, truth)]
    options = {"num_classes": 2, "include_background": False}
    per_image = torchmetrics.DiceScore(average="macro", aggregation_level="samplewise", **options)
    assert np.mean([dice(*pair) for pair in PAIRS]) == pytest.approx(float(per_image(*classes)), abs=1e-6)
    pooled = torchmetrics.DiceScore(average="macro", aggregation_level="global", **options)
    assert pooled_dice(*zip(*PAIRS, strict=True)) == pytest.approx(float(pooled(*classes)), abs=1e-6)
    mean_iou = torchmetrics.MeanIoU(**options)
    assert np.mean([iou(*pair) for pair in PAIRS]) == pytest.approx(float(mean_iou(*classes)), abs=1e-6)
    # Its Hausdorff distance is no help: in 1.9 its distance transform is off by many pixels on such masks.


def test_torchmetrics_pools_iou_the_same():
    classification = pytest.importorskip("torchmetrics.classification")
    prediction, truth = (torch.from_numpy(np.stack(masks)) for masks in zip(*PAIRS, strict=True))
    expected = classification.BinaryJaccardIndex()(prediction.int(), truth.int())
    assert pooled_iou(*zip(*PAIRS, strict=True)) == pytest.approx(float(expected), abs=1e-6)


def test_monai_says_the_same():
    metrics = pytest.importorskip("monai.metrics")
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    for left, right in PAIRS:
        pair = [torch.from_numpy(mask)[None, None].float() for mask in (left, right)]
        assert dice(left, right) == pytest.approx(float(metrics.compute_dice(*pair)), abs=1e-6)
        assert iou(left, right) == pytest.approx(float(metrics.compute_iou(*pair)), abs=1e-6)
        farthest = metrics.compute_hausdorff_distance(*pair, include_background=True)
        assert hd95(left, right, 100) == pytest.approx(float(farthest), abs=1e-4)
        outlines = get_mask_edges(left, right)
        both = [get_surface_distance(*outlines), get_surface_distance(*outlines[::-1])]
        expected = np.percentile(np.concatenate([np.asarray(one) for one in both]), 95)
        assert hd95(left, right) == pytest.approx(expected, abs=1e-4)
        directed = metrics.compute_hausdorff_distance(*pair, include_background=True, percentile=95)
        assert hd95(left, right) <= float(directed) + 1e-4


def voids(seed, size=(41, 57)):
    """Pixels that count neither way: a frame's corner, and specks anywhere."""
    rng = np.random.default_rng([7, seed])
    void = rng.random(size) < 0.05
    void[:9, :13] = True
    return void


VOIDS = [voids(seed) for seed in range(len(PAIRS))]


def test_pooled_scores_leave_void_pixels_out():
    predictions, truths = zip(*PAIRS, strict=True)
    counted = [
        np.concatenate([m[~v] for m, v in zip(masks, VOIDS, strict=True)])
        for masks in zip(*PAIRS, strict=True)
    ]
    assert pooled_dice(predictions, truths, VOIDS) == pytest.approx(dice(*counted))
    assert pooled_iou(predictions, truths, VOIDS) == pytest.approx(iou(*counted))
    assert pooled_dice(predictions, truths, VOIDS) != pooled_dice(predictions, truths)
    some = [VOIDS[0], *[None] * (len(PAIRS) - 1)]
    assert pooled_dice(predictions, truths, some) != pooled_dice(predictions, truths)
    assert pooled_iou(predictions, truths, [None] * len(PAIRS)) == pooled_iou(predictions, truths)
    with pytest.raises(ValueError, match="shorter"):
        pooled_dice(predictions, truths, VOIDS[1:])
    with pytest.raises(ValueError, match="shape"):
        pooled_dice([HALF], [HALF], [HALF.T])


def test_what_lies_in_void_pixels_changes_no_score():
    prediction, truth = PAIRS[0]
    void = VOIDS[0]
    other = prediction ^ (void & (np.random.default_rng(0).random(void.shape) < 0.5))
    assert hd95(other, truth, void=void) == hd95(prediction, truth, void=void)
    assert hd95(other, truth) != hd95(prediction, truth)
    assert pooled_dice([other], [truth], [void]) == dice(prediction, truth, void)
    assert overlap(other, truth, void) == overlap(prediction, truth, void)


def test_hd95_with_void_is_that_of_masks_without_it():
    square = np.zeros((20, 30), bool)
    square[5:10, 5:10] = True
    everywhere, far = np.ones_like(square), square.copy()
    far[18, 28] = True
    void = far & ~square
    assert hd95(far, square, 100) > 10
    assert hd95(far, square, 100, void) == 0
    assert hd95(square, square, void=everywhere) == 0
    beside = square & ~np.roll(square, 2, axis=1)
    assert hd95(square, np.zeros_like(square), void=beside) == pytest.approx(np.hypot(19, 29))
    with pytest.raises(ValueError, match="bool"):
        hd95(square, square, void=square.astype(int))


def test_torchmetrics_says_the_same_of_pixels_that_count():
    classification = pytest.importorskip("torchmetrics.classification")
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    predictions, truths = zip(*PAIRS, strict=True)
    kept = [
        np.concatenate([m[~v] for m, v in zip(masks, VOIDS, strict=True)])
        for masks in zip(*PAIRS, strict=True)
    ]
    ignored = [torch.from_numpy(np.where(v, 255, t)).int() for t, v in zip(truths, VOIDS, strict=True)]
    score = classification.BinaryJaccardIndex(ignore_index=255)
    theirs = score(torch.from_numpy(np.stack(predictions)).int(), torch.stack(ignored))
    assert pooled_iou(predictions, truths, VOIDS) == pytest.approx(float(theirs), abs=1e-6)
    classes = [torch.stack([~m, m])[None].long() for m in map(torch.from_numpy, kept)]
    dice_score = segmentation.DiceScore(num_classes=2, include_background=False, aggregation_level="global")
    expected = float(dice_score(*[c[..., None] for c in classes]))
    assert pooled_dice(predictions, truths, VOIDS) == pytest.approx(expected, abs=1e-6)


def test_monai_says_the_same_of_masks_without_void():
    metrics = pytest.importorskip("monai.metrics")
    for (left, right), void in zip(PAIRS, VOIDS, strict=True):
        pair = [torch.from_numpy(mask & ~void)[None, None].float() for mask in (left, right)]
        assert dice(left, right, void) == pytest.approx(float(metrics.compute_dice(*pair)), abs=1e-6)
        assert iou(left, right, void) == pytest.approx(float(metrics.compute_iou(*pair)), abs=1e-6)
        farthest = metrics.compute_hausdorff_distance(*pair, include_background=True)
        assert hd95(left, right, 100, void) == pytest.approx(float(farthest), abs=1e-4)
