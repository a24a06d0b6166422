"""Dice and IoU, and their empty cases."""

import numpy as np
import pytest
import torch

from ppd_env.metrics import batch_dice, batch_iou, dice, iou

EMPTY, FULL = np.zeros((2, 3), bool), np.ones((2, 3), bool)
HALF = np.array([[True, True, True], [False, False, False]])


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
