"""The vote of the points, and the order of cells."""

import torch

from ppd_env.segmenters.mini.decoder import SpatialMixing, expected_iou
from ppd_env.segmenters.mini.vote import PointVote, add_unfolded, fold_cells

DIM = 16


def vote(points, labels, image=None):
    torch.manual_seed(0)
    module = PointVote(DIM)
    image = torch.zeros(1, 16, DIM) if image is None else image
    codes = module.codes(image, torch.zeros(1, 64, DIM // 4))
    at = torch.tensor([points])
    under = (at[..., 1] * 8).long() * 8 + (at[..., 0] * 8).long()
    with torch.no_grad():
        look, place = module(codes, at, under, torch.tensor([labels]))
    return look.view(8, 8), place.view(4, 4)


def test_cells_go_with_the_sign_they_lie_near():
    for said in vote([[0.2, 0.2], [0.9, 0.9]], [1, 0]):
        assert said[0, 0] > 0 > said[-1, -1]


def test_cells_go_with_the_sign_they_look_like():
    image = torch.zeros(1, 16, DIM)
    image[0, [0, 1]] = 3.0  # the left half of the first row looks the same
    look, place = vote([[0.1, 0.1], [0.6, 0.1]], [1, 0], image)
    assert look[0, 2] > 1 > 0 > place[0, 2]
    plain, _ = vote([[0.1, 0.1], [0.6, 0.1]], [1, 0])
    assert plain[0, 2] < 0.5


def test_absent_points_say_nothing():
    alone, padded = vote([[0.3, 0.6]], [1]), vote([[0.3, 0.6], [0.1, 0.1], [0.9, 0.9]], [1, -1, -1])
    for first, second in zip(alone, padded, strict=True):
        torch.testing.assert_close(first, second)


def test_folding_undoes_unfolding_and_keeps_places():
    cells = torch.randn(2, 9, 20)
    fine = torch.randn(2, 36, 5)
    torch.testing.assert_close(fold_cells(add_unfolded(fine, cells)), fold_cells(fine) + cells)
    plane = torch.arange(16.0).view(1, 16, 1)  # 4 x 4 cells, row by row
    assert fold_cells(plane)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_mixing_begins_as_the_identity():
    cells = torch.randn(2, 16, 8)
    torch.testing.assert_close(SpatialMixing(8)(cells), cells)


def test_the_expected_iou_follows_certainty():
    sure = torch.full((1, 1, 8, 8), -20.0)
    sure[..., :4] = 20.0
    assert expected_iou(sure) > 0.999
    torch.testing.assert_close(expected_iou(0.001 * sure), torch.tensor([[1 / 3]]), atol=0.01, rtol=0)
