"""The training of ``mini``: data that can be shared out, prompts that tell the truth, losses, and teams."""

import socket

import numpy as np
import pytest
import torch
from torch import multiprocessing

from experiments.train_mini.data import PADDING, TrainingScenes, relight
from experiments.train_mini.prompts import MAX_POINTS, draw_prompts
from experiments.train_mini.train import Team, corrective_clicks, grouping_loss, true_iou

SHAPES_ONLY = (1.0, 0.0, 0.0, 0.0)


def samples(count, **options):
    drawn = iter(TrainingScenes(None, 5, SHAPES_ONLY, **options))
    return [next(drawn)[0] for _ in range(count)]


def test_parts_share_out_the_same_samples():
    whole = samples(4)
    parts = [samples(2, part=(rank, 2)) for rank in range(2)]
    for index, image in enumerate(whole):
        assert torch.equal(parts[index % 2][index // 2], image)


def test_a_resumed_run_goes_on_where_it_was():
    assert torch.equal(samples(3)[2], samples(1, start=2)[0])


@pytest.mark.parametrize("seed", range(12))
def test_prompts_carry_the_sign_of_where_they_lie(seed):
    mask = np.zeros((256, 256), np.uint8)
    mask[60:150, 30:190] = 1
    mask[200:] = PADDING
    points, labels, clicks = draw_prompts(mask, np.random.default_rng(seed))
    assert points.shape == (MAX_POINTS, 2)
    real = labels >= 0
    assert 1 <= real.sum() <= MAX_POINTS
    assert (labels == 1).any()
    where = (points[real] * 256).astype(int)
    at = mask[where[:, 1], where[:, 0]]
    assert np.array_equal(at == 1, labels[real] == 1)
    assert (at != PADDING).all()
    assert not clicks or real.sum() == 1


def test_uneven_light_keeps_shape_and_range():
    image = np.full((40, 60, 3), 128, np.uint8)
    lit = relight(image, np.random.default_rng(0))
    assert lit.shape == image.shape
    assert lit.dtype == np.uint8
    assert lit.std() > 5


def test_corrections_lie_where_the_mask_is_wrong():
    target, logits = torch.zeros(2, 1, 32, 32), torch.full((2, 1, 32, 32), -5.0)
    target[:, :, 4:12, 4:12] = 1
    logits[0, :, 4:12, 4:12] = 5
    logits[1, :, 20:28, 4:12] = 5
    points, labels = corrective_clicks(logits, target, torch.ones_like(target) > 0, 4)
    assert (labels[0] == -1).all()
    for (x, y), label in zip((points[1] * 32).tolist(), labels[1].tolist(), strict=True):
        assert label == (4 <= y < 12)
        assert 4 <= x < 12
        assert label or 20 <= y < 28


def test_grouping_asks_that_objects_stand_apart():
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    masks[..., :16] = 1
    tokens = torch.randn(1, 4, 8).repeat(1, 4, 1) * 0.01
    left = tokens.view(1, 4, 4, 8).clone()
    left[:, :, :2] += 1
    left[:, :, 2:] -= 1
    assert grouping_loss(left.view(1, 16, 8), masks) < 0.5 * grouping_loss(tokens, masks)


def test_iou_of_logits():
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    logits = torch.where(target > 0, 3.0, -3.0)
    logits[..., 2] = 3.0
    assert true_iou(logits, target).item() == pytest.approx(2 / 3)


def _average(rank, port, results):
    import os

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    network = torch.nn.Linear(2, 1)
    network.weight.grad = torch.full((1, 2), float(rank + 1))
    if rank:  # the other process has not used its bias
        network.bias.grad = torch.ones(1)
    team = Team()
    team.average_gradients(network)
    results[rank] = [network.weight.grad.tolist(), network.bias.grad.tolist(), team.agree(rank + 0.25)]


def test_a_team_averages_gradients_and_agrees_on_the_first_ones_word():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_average, (port, results), nprocs=2)
        assert results[0] == results[1] == [[[1.5, 1.5]], [0.5], 0.25]
