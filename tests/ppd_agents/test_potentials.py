import pytest
import torch

from ppd_agents.dqn.potentials import FEATURE_WEIGHT, PHYSICAL_SCALE, AttackLeft, GraphStatistics
from ppd_env.game.actions import NEGATIVE, POSITIVE

FEATURES = torch.tensor([[[0.0], [1.0], [3.0], [7.0], [8.0], [2.0]]])
POSITIONS = torch.tensor([[0.0, 0], [0.1, 0], [0.4, 0], [0.9, 0], [0.0, 1], [0.5, 0.5]])


def rate(positive, negative):
    status = torch.zeros((1, 1, 6), dtype=torch.int8)
    status[0, 0, positive], status[0, 0, negative] = POSITIVE, NEGATIVE
    potential = GraphStatistics(FEATURES, POSITIONS)
    return potential(torch.zeros(1, dtype=torch.int64), status, status[:, 0]).item()


def test_statistics_are_those_of_the_predecessor():
    positives, negatives = [0, 1, 2], [3, 4]
    between = sum(abs(FEATURES[0, p, 0] - FEATURES[0, n, 0]) for p in positives for n in negatives) / 6
    among = (1 + 3 + 2) / 3

    def far(pairs):
        return sum((POSITIONS[a] - POSITIONS[b]).norm() for a, b in pairs) / len(pairs) / PHYSICAL_SCALE

    expected = FEATURE_WEIGHT * (between - among)
    expected += far([(0, 1), (0, 2), (1, 2)]) + far([(3, 4)])
    expected -= far([(p, n) for p in positives for n in negatives])
    assert rate(positives, negatives) == pytest.approx(float(expected), rel=1e-5)


def test_kinds_without_a_pair_count_as_usual():
    assert rate([0], []) == pytest.approx(FEATURE_WEIGHT * (1 - 1) + 1 + 1 - 1)
    assert rate([], []) == rate([0], [])


def test_removing_a_stranger_among_the_positives_pays():
    assert rate([0, 1], [3, 4]) > rate([0, 1, 5], [3, 4]) > rate([0, 1, 3], [4])


def test_many_statuses_are_rated_as_each_alone():
    generator = torch.Generator().manual_seed(0)
    status = torch.randint(0, 3, (3, 4, 6), generator=generator).to(torch.int8)
    features = torch.rand(5, 6, 2, generator=generator)
    potential, rows = GraphStatistics(features, POSITIONS), torch.tensor([4, 0, 2])
    rated = potential(rows, status, status[:, 0])
    assert rated.shape == (3, 4)
    for game in range(3):
        for outcome in range(4):
            one = status[game : game + 1, outcome : outcome + 1]
            torch.testing.assert_close(
                potential(rows[game : game + 1], one, one[:, 0])[0, 0], rated[game, outcome]
            )


def test_prompts_of_the_attack_and_lost_ones_cost():
    reference = torch.tensor([[1, 2, 0, 0]], dtype=torch.int8)
    status = torch.tensor([[[1, 2, 0, 0], [1, 2, 1, 2], [0, 0, 0, 0], [2, 0, 0, 1]]], dtype=torch.int8)
    assert AttackLeft(0.5)(torch.zeros(1, dtype=torch.int64), status, reference).tolist() == [
        [0, -1, -1, -1.5]
    ]
