"""FM-PPO: PPD's predecessor, which chooses among matched prompts by distances in the graph alone.

Published (Liu et al., CVPR 2025, "Plug-and-Play PPO"; details from the released code): feature matching;
then an agent that starts from no prompt at all restores and removes matched prompts, one at a time for
100 steps, 5 to 20 of each sign; its reward is made of mean distances in the dual-space graph
(``GraphStatistics``), without a look at any mask. A table of Q-values is trained for this.

The table is keyed by the identity of graph objects and so can never be hit at test time, and exploration
is never turned off there: what ships is a random walk. So there is no policy to reproduce, and three
stand in for it:

- ``ppo`` (``policy=greedy``): every move is the one that raises the predecessor's own reward most, until
  none does. Needs no training: the reward sees no ground truth, so it can be climbed at test time. Same:
  the reward, the start, the moves, the limits, the steps. Different: no learning, and it stops, as a rule
  at the fewest prompts allowed, which have the best mean distances.
- ``ppo?policy=random``: what the released code does, 5 to 20 random matched prompts of each sign.
- ``ppo?agent=FOLDER``: a defender trained by this package, on the same matched prompts: by a DQN from graph
  statistics (the control ``graph_statistics``) or by PPO from Dice (``maskable_ppo``).

The code's further move that adds random labels near the image's top is left out: it costs 10 in reward.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ppd_agents.dqn.potentials import GraphStatistics
from ppd_agents.methods.contract import (
    OneShotResult,
    SeenReferences,
    SeenTarget,
    at_native_size,
    decode,
)
from ppd_env.errors import ConfigError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.prompting.matching import feature_matching
from ppd_env.prompting.pair import as_points, drawing
from ppd_env.scenes.patches import patch_centres
from ppd_env.segmenters.contract import Segmenter

FEWEST, MOST = 5, 20
"""Prompts of each sign, where there are as many."""

MOVES = 100

Policy = Callable[[np.ndarray, Tensor, np.random.Generator | None], np.ndarray]
"""(matched (N,) int8, features (N, d), generator) -> (N,) int8, some of the matched prompts."""


class Predecessor:
    """Feature matching, then one of the two policies that need no training; see above.

    Args:
        segmenter: The segmenter.
        policy: ``"greedy"`` or ``"random"``.
        uri: What it was opened from.

    Raises:
        ConfigError: There is no such policy.
    """

    def __init__(self, segmenter: Segmenter, policy: str = "greedy", uri: str = "ppo") -> None:
        if policy not in POLICIES:
            known = ", ".join(sorted(POLICIES))
            raise ConfigError(f"{uri!r}: unknown policy {policy!r}; known ones: {known}.")
        self.uri = uri
        self._segmenter, self._policy = segmenter, POLICIES[policy]

    def segment(
        self, reference: SeenReferences, target: SeenTarget, rng: np.random.Generator | None = None
    ) -> OneShotResult:
        """Segment one target; see ``OneShotMethod``. Only ``policy=random`` draws."""
        status = self._policy(feature_matching(reference, target), target.features, rng)
        points, labels = as_points(status, target.size)
        logits, _ = decode(self._segmenter, target.embedding, points, labels)
        return OneShotResult(at_native_size(self._segmenter, logits[0], target.size), points, labels)


def climb(matched: np.ndarray, features: Tensor, rng: np.random.Generator | None = None) -> np.ndarray:
    """Restore and remove matched prompts, from none, as long as the predecessor's reward rises.

    Args:
        matched: (N,) int8, the prompts to choose from.
        features: (N, d) float32 of the target.
        rng: Not used.

    Returns:
        (N,) int8: ``FEWEST`` to ``MOST`` of the matched prompts of each sign, or all where there are fewer.
    """
    positions = patch_centres(round(len(matched) ** 0.5)).to(features.device)
    rate = GraphStatistics(features[None], positions)
    rows = torch.zeros(1, dtype=torch.int64, device=features.device)
    offered = torch.from_numpy(matched).to(features.device)
    status = torch.full_like(offered, INACTIVE)
    for _ in range(MOVES):
        nodes, must = _moves(status, offered)
        if not len(nodes):
            break
        reached = status.repeat(len(nodes), 1)
        at = torch.arange(len(nodes), device=nodes.device)
        reached[at, nodes] = offered[nodes] - status[nodes]  # restores what is away, removes what is there
        ratings = rate(rows, torch.cat([status[None], reached])[None], status[None])[0]
        best = int(ratings[1:].argmax())
        if not must and ratings[1 + best] <= ratings[0]:
            break
        status = reached[best]
    chosen: np.ndarray = status.cpu().numpy()
    return chosen


def _moves(status: Tensor, offered: Tensor) -> tuple[Tensor, bool]:
    """Return the nodes that may change (k,) int64, and whether one must: a sign has too few prompts yet."""
    free, wanted = torch.zeros_like(offered, dtype=torch.bool), torch.zeros_like(offered, dtype=torch.bool)
    for sign in (POSITIVE, NEGATIVE):
        active, away = status == sign, (offered == sign) & (status == INACTIVE)
        count = int(active.sum())
        if count < MOST:
            free |= away
        if count > FEWEST:
            free |= active
        if count < FEWEST:
            wanted |= away
    must = bool(wanted.any())
    return (wanted if must else free).nonzero()[:, 0], must


def walk(matched: np.ndarray, features: Tensor, rng: np.random.Generator | None = None) -> np.ndarray:
    """Draw ``FEWEST`` to ``MOST`` matched prompts of each sign, or all where there are fewer.

    Args:
        matched: (N,) int8.
        features: Not used.
        rng: Draws how many, and which.

    Returns:
        (N,) int8.
    """
    drawn = np.full_like(matched, INACTIVE)
    generator = drawing(rng, "ppo?policy=random")
    for sign in (POSITIVE, NEGATIVE):
        nodes = generator.permutation(np.flatnonzero(matched == sign))
        drawn[nodes[: generator.integers(FEWEST, MOST, endpoint=True)]] = sign
    return drawn


POLICIES: dict[str, Policy] = {"greedy": climb, "random": walk}
