"""Matcher: subsets of cluster centres, the rating of masks, and the earth mover's distance."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from ppd_agents.methods.contract import see_reference, see_target
from ppd_agents.methods.matcher import Matcher, Proposals, cluster, propose, score, subsets
from ppd_agents.methods.transport import earth_movers_distance
from ppd_env.features.registry import load_features
from ppd_env.prompting import as_points, bidirectional_prompts
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.registry import load_segmenter


def exact_distance(cost):
    """The linear programme of transport from even masses to even masses."""
    sources, targets = cost.shape
    rows = np.kron(np.eye(sources), np.ones(targets))
    columns = np.kron(np.ones(sources), np.eye(targets))
    masses = np.concatenate([np.full(sources, 1 / sources), np.full(targets, 1 / targets)])
    return linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=masses).fun


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_is_that_of_the_cheapest_transport(seed):
    rng = np.random.default_rng(seed)
    cost = torch.from_numpy(rng.random((7, 30))).float()
    targets = torch.from_numpy(rng.random((5, 30)) < 0.4)
    found = earth_movers_distance(cost, targets)
    expected = [exact_distance(cost[:, chosen].numpy()) for chosen in targets]
    assert found.tolist() == pytest.approx(expected, abs=0.004)


def test_equal_sets_are_no_distance_apart():
    points = torch.rand(9, 3, generator=torch.Generator().manual_seed(0))
    cost = torch.cdist(points, points) / 2
    assert earth_movers_distance(cost, torch.ones(1, 9, dtype=torch.bool)).item() < 0.01


def test_subsets_have_four_to_six_of_the_centres():
    points = np.arange(16, dtype=np.float32).reshape(8, 2)
    sets = subsets(points)
    assert len(sets) == 70 + 56 + 28
    assert {len(one) for one in sets} == {4, 5, 6}
    assert len({tuple(one[:, 0]) for one in sets}) == len(sets)
    assert [len(one) for one in subsets(points[:5])] == [4] * 5 + [5]
    assert [one.tolist() for one in subsets(points[:2])] == [points[:2].tolist()]


def test_clusters_are_found_and_few_points_are_their_own():
    rng = np.random.default_rng(0)
    truth = np.array([[10, 10], [90, 10], [10, 90], [90, 90], [50, 50]], np.float32)
    points = np.concatenate([c + rng.normal(0, 0.5, (20, 2)) for c in truth]).astype(np.float32)
    for seed in range(5):
        centres = cluster(points, 5, np.random.default_rng(seed))
        assert centres.dtype == np.float32
        gaps = np.linalg.norm(centres[:, None] - points[None], axis=2)
        assert np.array_equal(cluster(points, 5, np.random.default_rng(seed)), centres)
        own = gaps.argmin(axis=0)
        means = np.stack([points[own == k].mean(axis=0) for k in range(5)])
        assert np.allclose(means, centres, atol=1e-3)
    assert np.array_equal(cluster(truth, 8, np.random.default_rng(0)), truth)


def test_proposals_tell_patches_and_points_of_masks_and_leave_out_empty_ones():
    size = torch.tensor([[40, 80]])  # fills the upper half of the low-resolution square
    logits = torch.full((3, 16, 16), -1.0)
    logits[0, :4, :4] = 1  # upper left quarter of the left half
    logits[2, 7, 15] = 1  # the last cell of the image
    logits[1, 12, 3] = 1  # padding only
    points = np.float32([[5, 5], [30, 30], [79, 39]])
    found = propose(logits, Embedding({}, size), 4, points)
    assert len(found.logits) == 2
    assert found.patches[0].nonzero()[:, 0].tolist() == [0, 4]
    assert found.patches[1].nonzero()[:, 0].tolist() == [15]
    assert found.hits.tolist() == [1, 1]


@pytest.fixture(scope="module")
def setting():
    segmenter, features = load_segmenter("fake"), load_features("fake")
    source = open_source("shapes://train?count=2&seed=3")
    first, second = source[0], source[1]
    reference = see_reference(first.image, first.mask, segmenter, features, 16)
    target, itself = (see_target(one.image, segmenter, features, 16) for one in (second, first))
    return segmenter, reference, target, itself


def test_masks_like_the_object_and_full_of_matched_points_score_higher(setting):
    _, reference, _, itself = setting
    own = torch.from_numpy(reference.coverage > 0)
    patches = torch.stack([own, ~own, torch.ones_like(own), own, own])
    count = int(own.sum())
    hits = torch.tensor([count, 0, count, count // 2, 0])
    scores = score(reference, itself, Proposals(torch.zeros(5, 1, 1), patches, hits), count)
    assert scores[0].item() == pytest.approx(1, abs=0.01)
    assert scores[0] > scores[2] > scores[1]
    assert [b - a > 0 for a, b in pairwise(scores[[4, 3, 0]].tolist())] == [True, True]
    half = (count // 2) / count
    assert (scores[3] - scores[4]).item() == pytest.approx(0.2 * half**2, abs=1e-5)


def test_the_best_masks_are_merged(setting, monkeypatch):
    from ppd_agents.methods import matcher

    segmenter, reference, _, target = setting
    asked = []

    def rate(reference, target, proposals, matched):
        asked.append(proposals)
        scores = torch.full((len(proposals.logits),), 0.2)
        scores[[3, 5]] = torch.tensor([0.9, 0.7])
        return scores

    monkeypatch.setattr(matcher, "score", rate)
    found = Matcher(segmenter).segment(reference, target, np.random.default_rng(0))
    assert len(asked[0].logits) > 10
    masks = matcher.at_native_size(segmenter, asked[0].logits[[3, 5]], target.size)
    assert np.array_equal(found.mask, masks[0] | masks[1])
    assert (found.labels == 1).all()
    points, _ = as_points(bidirectional_prompts(reference, target), target.size)
    assert len(found.points) == min(8, len(points))


def test_where_every_mask_is_empty_so_is_the_result(setting, monkeypatch):
    segmenter, reference, target, _ = setting

    def nothing(embedding, points, labels, mask=None, multimask=False, rows=None):
        return torch.full((len(points), 1, 32, 32), -1.0), torch.zeros(len(points), 1)

    monkeypatch.setattr(segmenter, "decode", nothing)
    found = Matcher(segmenter).segment(reference, target, np.random.default_rng(0))
    assert found.mask.shape == target.size
    assert not found.mask.any()
