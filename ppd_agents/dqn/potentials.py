"""Potentials of a state, whose change may be added to a learner's reward or take its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ppd_agents.dqn.descriptors import active_set
from ppd_env.graph.distances import pairwise_distance

FEATURE_SCALE = 1.0
"""Usual feature distance of two random patches: every extractor divides by it."""

PHYSICAL_SCALE = 0.52
"""Mean distance of two random points of the unit square."""

FEATURE_WEIGHT = 5.0
"""Weight of the feature distances among the graph statistics; the physical ones have 1."""


class Potential(Protocol):
    """Rates prompts; a learner's reward is the change from one state to the next.

    Added to the reward, it leaves the best policy of the undiscounted game as it is (Ng et al., 1999).
    """

    def __call__(self, rows: Tensor, status: Tensor, reference: Tensor) -> Tensor:
        """Rate K statuses of each of k games.

        Args:
            rows: (k,) int64, scenes.
            status: (k, K, N) int8.
            reference: (k, N) int8, the prompts before any attack.

        Returns:
            (k, K) float32.
        """
        ...


@dataclass(frozen=True)
class AttackLeft:
    """Every prompt the attack added costs ``weight``, and so does every one of before that is gone.

    Args:
        weight: What removing one of the attack's adds to the reward, and removing another takes off.
    """

    weight: float

    def __call__(self, rows: Tensor, status: Tensor, reference: Tensor) -> Tensor:
        """Rate statuses; see ``Potential``."""
        wrong = status != reference[:, None]
        return -self.weight * wrong.sum(-1).to(torch.float32)


@dataclass(frozen=True, eq=False)
class GraphStatistics:
    """What the predecessor of PPD learns from: mean distances of the dual-space graph, no mask and no truth.

    Its reward is 5 x (drop of the mean feature distance between positives) + 5 x (rise of that between the
    signs) + rise of the mean physical distances among positives and among negatives + drop of that between
    the signs (Liu et al., CVPR 2025, by their released code). There every kind of distance is normalised from
    minimum to maximum per image, which divides by zero where all are equal; here by the usual distance of two
    random patches. A kind without a pair counts as usual, so that emptying a sign earns nothing by itself.

    Args:
        features: (S, N, d) float32 of the bank.
        positions: (N, 2) float32 in [0, 1].
    """

    features: Tensor
    positions: Tensor

    def __call__(self, rows: Tensor, status: Tensor, reference: Tensor) -> Tensor:
        """Rate statuses; see ``Potential``."""
        active = active_set(status.flatten(0, 1))
        scenes = rows.repeat_interleave(status.shape[1])
        described = self.features[scenes[:, None], active.nodes]
        where = self.positions[active.nodes]
        feature = pairwise_distance(described, described) / FEATURE_SCALE
        physical = pairwise_distance(where, where) / PHYSICAL_SCALE
        positive, negative = active.positive, active.present & ~active.positive
        among_positives, among_negatives = _pairs(positive, positive), _pairs(negative, negative)
        between = _pairs(positive, negative)
        rating = FEATURE_WEIGHT * (_mean(feature, between) - _mean(feature, among_positives))
        rating += _mean(physical, among_positives) + _mean(physical, among_negatives)
        return (rating - _mean(physical, between)).view(status.shape[:2])


def _pairs(left: Tensor, right: Tensor) -> Tensor:
    """Mark pairs of different prompts, one of each side, (B, n, n) bool."""
    same = torch.eye(left.shape[1], dtype=torch.bool, device=left.device)
    return left[:, :, None] & right[:, None, :] & ~same


def _mean(distance: Tensor, pairs: Tensor) -> Tensor:
    """Average the distances (B, n, n) of the ``pairs``; 1, the usual one, where there is none: (B,)."""
    count = pairs.sum((1, 2))
    mean = (distance * pairs).sum((1, 2)) / count.clamp_min(1)
    return torch.where(count > 0, mean, torch.ones_like(mean))
