"""Prompts for a target from references."""

import numpy as np
import pytest
import torch

from ppd_env.errors import ConfigError
from ppd_env.game.actions import NEGATIVE, POSITIVE
from ppd_env.prompting import (
    PROMPTERS,
    Reference,
    Target,
    as_points,
    bidirectional_prompts,
    feature_matching,
    gbmseg_prompts,
    load_prompter,
    matching_prompts,
    patch_coverage,
    persam_prompts,
)
from ppd_env.prompting.bidirectional import ALL_KEPT_UP_TO
from ppd_env.prompting.gbmseg import EXCLUSIVE_RADIUS, SPARSE_RADIUS


def mask_of(grid, nodes, cell=4):
    """A mask that covers the patches ``nodes`` of a grid wholly, and nothing else."""
    patches = np.zeros(grid * grid, bool)
    patches[list(nodes)] = True
    return np.kron(patches.reshape(grid, grid), np.ones((cell, cell))).astype(bool)


def angles(*degrees):
    """Unit vectors: cosine similarity falls as the angles part."""
    turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([turn.cos(), turn.sin()], dim=1)


def random_pair(grid=12, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, grid * grid, dim, generator=generator)
    mask = np.zeros((60, 90), bool)
    mask[11:38, 20:61] = True
    return Reference(features[0], mask), Target(features[1], mask)


@pytest.mark.parametrize("name", sorted(PROMPTERS))
def test_every_prompter_gives_statuses_and_changes_nothing(name):
    reference, target = random_pair()
    before = reference.features.clone(), target.features.clone()
    status = load_prompter(name)(reference, target, np.random.default_rng(1))
    assert status.dtype == np.int8
    assert status.shape == (144,)
    assert set(np.unique(status)) <= {0, 1, 2}
    assert (status == POSITIVE).any()
    assert torch.equal(reference.features, before[0])
    assert torch.equal(target.features, before[1])
    assert np.array_equal(status, load_prompter(name)(reference, target, np.random.default_rng(1)))


@pytest.mark.parametrize("name", ["bidirectional", "gbmseg", "matching", "persam"])
def test_several_references_speak_together(name):
    reference, target = random_pair()
    status = load_prompter(name)([reference], target)
    assert np.array_equal(status, load_prompter(name)(reference, target))
    other, _ = random_pair(seed=1)
    assert not np.array_equal(status, load_prompter(name)([reference, other], target))


def test_unknown_prompters_and_references_that_show_nothing_are_errors():
    with pytest.raises(ConfigError, match=r"'best'.*bidirectional, gbmseg, ideal"):
        load_prompter("best")
    features = torch.zeros(4, 2)
    with pytest.raises(ConfigError, match="empty"):
        Reference(features, np.zeros((4, 4), bool))
    with pytest.raises(ConfigError, match="uint8"):
        Reference(features, np.ones((4, 4), np.uint8))
    with pytest.raises(ConfigError, match="g x g patches, got 5"):
        Reference(torch.zeros(5, 2), np.ones((4, 4), bool))
    with pytest.raises(ConfigError, match="at least one reference"):
        feature_matching([], Target(features))


def test_what_draws_needs_a_generator_and_ideal_prompts_a_mask():
    reference, target = random_pair()
    for name in ("ideal", "random"):
        with pytest.raises(ConfigError, match="default_rng"):
            load_prompter(name)(reference, target)
    with pytest.raises(ConfigError, match="ground truth"):
        load_prompter("ideal")(reference, Target(target.features), np.random.default_rng(0))


def test_ideal_prompts_are_true():
    reference, target = random_pair()
    points, labels = as_points(load_prompter("ideal")(reference, target, np.random.default_rng(3)), (60, 90))
    column, row = points.astype(int).T
    assert np.array_equal(target.mask[row, column], labels == 1)
    assert set(labels) == {0, 1}


def test_points_are_patch_centres_in_pixels():
    status = np.int8([0, 1, 2, 0])
    points, labels = as_points(status, (20, 60))
    assert points.tolist() == [[45, 5], [15, 15]]
    assert labels.tolist() == [1, 0]
    assert points.dtype == np.float32
    assert as_points(np.zeros(4, np.int8), (20, 60))[0].shape == (0, 2)


def test_feature_matching_is_matching_by_whole_patches():
    reference, target = random_pair()
    expected = matching_prompts(reference.features, patch_coverage(reference.mask, 12), target.features)
    assert np.array_equal(feature_matching(reference, target), expected)


def test_each_reference_votes_though_its_object_is_smaller_than_a_patch():
    small = np.zeros((8, 8), bool)
    small[0, 0] = True
    first = Reference(torch.tensor([[0.0], [2.0], [2.0], [3.0]]), mask_of(2, [0]))
    second = Reference(torch.tensor([[9.0], [2.0], [2.0], [3.0]]), small)
    target = Target(torch.tensor([[0.1], [9.1], [2.1], [3.1]]))
    assert feature_matching([first, second], target).tolist() == [1, 1, 2, 2]


def test_bidirectional_matches_are_one_to_one():
    # Both object patches are most like target 0; the second has to take the next best, target 1.
    reference = Reference(angles(0, 2, 90, 180), mask_of(2, [0, 1]))
    status = bidirectional_prompts(reference, Target(angles(1, 10, 90, 180)))
    assert status.tolist() == [1, 1, 0, 0]


def test_matches_that_lead_back_outside_the_object_are_dropped():
    # The second object patch finds target 1, which is even more like a background patch.
    reference = Reference(angles(0, 50, 60, 180), mask_of(2, [0, 1]))
    status = bidirectional_prompts(reference, Target(angles(0, 60, 200, 220)))
    assert status.tolist() == [1, 0, 0, 0]


def test_if_no_match_leads_back_all_stay():
    reference = Reference(angles(0, 60, 70, 180), mask_of(2, [0]))
    assert bidirectional_prompts(reference, Target(angles(60, 200, 220, 240))).tolist() == [1, 0, 0, 0]


def test_of_many_matches_the_less_similar_half_goes():
    grid, count = 8, ALL_KEPT_UP_TO + 2
    turns = torch.arange(64.0) * 5
    reference = Reference(angles(*turns), mask_of(grid, range(count)))
    off = torch.linspace(0, 2, 64)  # the later a patch, the less similar its match
    status = bidirectional_prompts(reference, Target(angles(*(turns + off))))
    assert np.flatnonzero(status).tolist() == list(range(count // 2))
    few = Reference(angles(*turns), mask_of(grid, range(ALL_KEPT_UP_TO)))
    assert (bidirectional_prompts(few, Target(angles(*(turns + off)))) == POSITIVE).sum() == ALL_KEPT_UP_TO


def test_persam_takes_the_most_and_the_least_alike():
    reference = Reference(angles(0, 20, 170, 90), mask_of(2, [0, 1]))
    assert persam_prompts(reference, Target(angles(80, 40, 9, 175))).tolist() == [0, 0, 1, 2]
    assert persam_prompts(reference, Target(angles(5, 5, 5, 5))).tolist() == [1, 0, 0, 0]


def test_persam_knows_objects_between_the_patch_centres():
    between = np.zeros((8, 8), bool)
    between[4:, 3] = True  # a sliver of patch 2
    reference = Reference(angles(0, 30, 90, 170), between)
    assert persam_prompts(reference, Target(angles(91, 40, 9, 270))).tolist() == [1, 0, 0, 2]


def far_apart(grid):
    """Features in which only a patch and its namesake are near: one axis each."""
    return torch.eye(grid * grid)


def test_gbmseg_keeps_matches_that_hold_both_ways():
    eye = far_apart(3)
    reference = Reference(eye, mask_of(3, [0, 1]))
    features = torch.zeros(9, 9)
    features[0] = eye[0]
    features[8] = eye[1] * 0.4 + eye[5] * 0.6  # nearest to patch 1 of all targets, but looks like background
    features[1:8] = 5 * eye[6]
    status = gbmseg_prompts(reference, Target(features))
    assert np.flatnonzero(status == POSITIVE).tolist() == [0]
    assert status[8] == NEGATIVE


def test_gbmseg_always_prompts_something_positive():
    eye = far_apart(3)
    features = torch.stack([eye[5] * (2 + i) for i in range(9)])
    status = gbmseg_prompts(Reference(eye, mask_of(3, [0])), Target(features))
    assert np.flatnonzero(status == POSITIVE).tolist() == [0]


def test_gbmseg_thins_and_keeps_apart():
    grid = 16
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(grid * grid, 12, generator=generator)
    inside = [row * grid + column for row in range(5, 11) for column in range(5, 11)]
    same = gbmseg_prompts(Reference(features, mask_of(grid, inside)), Target(features))
    points, labels = as_points(same, (1, 1))
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    positive = gaps[np.ix_(labels == 1, labels == 1)]
    assert set(np.flatnonzero(same == POSITIVE)) <= set(inside)
    assert (positive[~np.eye(len(positive), dtype=bool)] > SPARSE_RADIUS).sum() > 0
    assert 4 <= (labels == 1).sum() < len(inside) / 3
    matched = matching_prompts(features, patch_coverage(mask_of(grid, inside), grid), features)
    assert (labels == 0).sum() < (matched == NEGATIVE).sum() / 2


def test_negatives_near_the_object_go_unless_they_are_hard():
    grid = 16
    axis = torch.arange(grid * grid, dtype=torch.float32)[:, None]
    reference = Reference(axis, mask_of(grid, [0]))
    status = gbmseg_prompts(reference, Target(axis))
    points, labels = as_points(status, (1, 1))
    gaps = np.linalg.norm(points[labels == 0] - points[labels == 1], axis=1)
    assert status[0] == POSITIVE
    assert status[1] == 0
    assert gaps.min() >= EXCLUSIVE_RADIUS
    near = axis.clone()
    near[1] = 999.0  # farthest of all from the object, though beside it in the image
    hard = gbmseg_prompts(reference, Target(near))
    assert hard[1] == NEGATIVE


def test_a_lone_negative_beside_the_object_goes():
    reference = torch.tensor([[0.0, 0.0]] + [[1.0, 0.0]] * 255)
    features = torch.full((256, 2), 5.0)
    features[0], features[1], features[200] = torch.zeros(2), torch.tensor([1.0, 0.0]), torch.full((2,), 9.0)
    status = gbmseg_prompts(Reference(reference, mask_of(16, [0])), Target(features))
    assert np.flatnonzero(status).tolist() == [0, 200]
    assert status[200] == NEGATIVE
