"""Controls for the defence that anyone can rerun: rules that clean prompts, without ground truth or learning.

Every cleaner takes away at most ``budget`` prompts, never the last positive one, never the last one of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ppd_agents.dqn.descriptors import ActiveSet, active_set
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE, legal_actions
from ppd_env.graph.distances import pairwise_distance
from ppd_env.prompting.ideal import STRIDES, usual_count
from ppd_env.simulator import Simulator

MOST_PER_SIGN = 20
"""Prompts of a sign that ``subsample`` leaves: the cap in the code released with PPD's predecessor, whose
policy at test time is still fully random and so amounts to a random subsample."""

OUTLIER_Z = 2.0
"""Standard deviations above the mean at which ``outlier`` takes a mean feature distance for an outlier's.

Of 1, 1.5, 2 and 2.5 the one that took back most after 6 attack actions on ``shapes://val``."""

NEIGHBOURS = 3
"""Nearest other prompts that vote in ``neighbours`` (Wilson, 1972: k = 3)."""

_DECODED_AT_ONCE = 1024
_STAYS = -torch.inf


class Cleaner(Protocol):
    """Takes prompts away from many scenes at once."""

    def __call__(
        self,
        simulator: Simulator,
        rows: Tensor,
        status: Tensor,
        budget: int,
        rngs: Sequence[np.random.Generator],
    ) -> Tensor:
        """Clean the prompts of B scenes.

        Args:
            simulator: The scenes and their segmenter; no cleaner looks at the ground truth in them.
            rows: (B,) int64, rows of the bank.
            status: (B, N) int8.
            budget: Prompts that may go, at most.
            rngs: B generators, the only source of randomness.

        Returns:
            (B, N) int8, ``status`` with some prompts inactive.
        """
        ...


Urge = Callable[[Tensor], Tensor]
"""alive (B, n) bool -> (B, n) float32: how much each prompt should go now; minus infinity where it stays."""


def subsample(
    simulator: Simulator, rows: Tensor, status: Tensor, budget: int, rngs: Sequence[np.random.Generator]
) -> Tensor:
    """Draw at most ``MOST_PER_SIGN`` prompts of each sign at random; see ``Cleaner``."""
    urge = torch.full(status.shape, _STAYS, device=status.device)
    for game, rng in enumerate(rngs):
        for sign in (POSITIVE, NEGATIVE):
            nodes = rng.permutation(np.flatnonzero(status[game].cpu().numpy() == sign))
            surplus = torch.from_numpy(nodes[MOST_PER_SIGN:]).to(status.device)
            urge[game, surplus] = torch.from_numpy(rng.random(len(surplus))).to(urge)
    return _drop_worst(status, urge, budget)


def outlier(
    simulator: Simulator, rows: Tensor, status: Tensor, budget: int, rngs: Sequence[np.random.Generator]
) -> Tensor:
    """Take away, one by one, the prompt that looks least like the others of its sign; see ``Cleaner``.

    It goes if its mean feature distance to them lies more than ``OUTLIER_Z`` standard deviations above the
    mean of all such distances of its sign; then everything is measured anew.
    """
    prompts = active_set(status)
    distance = _feature_distance(simulator, rows, prompts)
    same = prompts.positive[:, :, None] == prompts.positive[:, None, :]

    def urge(alive: Tensor) -> Tensor:
        own = _pairs(alive) & same
        far = _masked_mean(distance, own, dim=2)
        worst = torch.full_like(far, _STAYS)
        for sign in (prompts.positive, ~prompts.positive):
            of_sign = alive & sign
            mean = _masked_mean(far, of_sign, dim=1)[:, None]
            spread = _masked_mean((far - mean) ** 2, of_sign, dim=1).sqrt()[:, None]
            excess = (far - mean) / spread.clamp_min(1e-6)
            worst = torch.where(of_sign & (excess > OUTLIER_Z), excess, worst)
        return worst

    return _one_by_one(status, prompts, urge, budget)


def neighbours(
    simulator: Simulator, rows: Tensor, status: Tensor, budget: int, rngs: Sequence[np.random.Generator]
) -> Tensor:
    """Take away, one by one, a prompt most of whose nearest others carry the other sign; see ``Cleaner``.

    Wilson's edited nearest neighbour (1972) in feature space with ``NEIGHBOURS`` votes. The first to go is
    the one with the most votes against it and, among those, the one nearest to the other sign.
    """
    prompts = active_set(status)
    distance = _feature_distance(simulator, rows, prompts)
    other = prompts.positive[:, :, None] != prompts.positive[:, None, :]
    votes = min(NEIGHBOURS, distance.shape[2])

    def urge(alive: Tensor) -> Tensor:
        seen = distance.masked_fill(~_pairs(alive), torch.inf)
        nearest = seen.topk(votes, dim=2, largest=False)
        voting = nearest.values.isfinite()
        against = (other.gather(2, nearest.indices) & voting).sum(2)
        foreign = seen.masked_fill(~other, torch.inf).amin(2)
        ranked = against + 1 / (1 + foreign)  # the fraction, in [0, 1], breaks ties
        return torch.where(alive & (2 * against > voting.sum(2)), ranked, _STAYS)

    return _one_by_one(status, prompts, urge, budget)


def leave_one_out(
    simulator: Simulator, rows: Tensor, status: Tensor, budget: int, rngs: Sequence[np.random.Generator]
) -> Tensor:
    """Take away the prompts without which the segmenter trusts its mask more, best first; see ``Cleaner``.

    One pass: the set is decoded once without each prompt that may go; the rise of the predicted IoU decides.
    """
    defending = torch.zeros(len(status), dtype=torch.bool, device=status.device)
    nodes = status.shape[1]
    legal = legal_actions(status, defending)[:, :-1]
    removable = legal[:, :nodes] | legal[:, nodes:]
    before = simulator.segment(rows, status).predicted_iou
    urge = torch.full(status.shape, _STAYS, device=status.device)
    for part in removable.nonzero().split(_DECODED_AT_ONCE):
        game, node = part.unbind(1)
        without = status[game]
        without[torch.arange(len(part), device=status.device), node] = INACTIVE
        rise = simulator.segment(rows[game], without).predicted_iou - before[game]
        urge[game, node] = torch.where(rise > 0, rise, _STAYS)
    return _drop_worst(status, urge, budget)


def lattice(
    simulator: Simulator, rows: Tensor, status: Tensor, budget: int, rngs: Sequence[np.random.Generator]
) -> Tensor:
    """Keep the most regular sub-grid, take away what lies off it, most crowded first; see ``Cleaner``.

    Of all strides and offsets, the sub-grid with the largest share of its nodes active; no look at the image.
    """
    grid = simulator.bank.grid
    grids = _sub_grids(grid).to(status.device)
    filled = (status != INACTIVE).float() @ grids.T.float() / grids.sum(1)
    regular = grids[filled.argmax(dim=1)]
    prompts = active_set(status)
    off = ~regular.gather(1, prompts.nodes)
    crowded = _crowding(simulator, prompts)
    return _one_by_one(status, prompts, lambda alive: crowded(alive).masked_fill(~off, _STAYS), budget)


def count(
    simulator: Simulator,
    rows: Tensor,
    status: Tensor,
    budget: int,
    rngs: Sequence[np.random.Generator],
    *,
    layout: str,
) -> Tensor:
    """Cut back to the usual number of ideal prompts, most crowded first; see ``Cleaner``.

    The number is the mean of the layout's documented distribution (``usual_count``); no look at the image.
    """
    usual = round(usual_count(simulator.bank.grid, layout))
    prompts = active_set(status)
    crowded = _crowding(simulator, prompts)

    def urge(alive: Tensor) -> Tensor:
        return crowded(alive).masked_fill(alive.sum(1, keepdim=True) <= usual, _STAYS)

    return _one_by_one(status, prompts, urge, budget)


def cleaners(layout: str) -> Mapping[str, Cleaner]:
    """Return every cleaner by name.

    Args:
        layout: Layout of the ideal prompts, whose usual number ``count`` cuts back to.
    """
    return {
        "subsample": subsample,
        "outlier": outlier,
        "neighbours": neighbours,
        "leave_one_out": leave_one_out,
        "lattice": lattice,
        "count": partial(count, layout=layout),
    }


def cleaner_settings() -> dict[str, Any]:
    """Return the constants the cleaners' answers depend on, plain JSON."""
    return {
        "subsample": {"most_per_sign": MOST_PER_SIGN},
        "outlier": {"z": OUTLIER_Z},
        "neighbours": {"k": NEIGHBOURS},
        "lattice": {"strides": list(STRIDES)},
    }


def _feature_distance(simulator: Simulator, rows: Tensor, prompts: ActiveSet) -> Tensor:
    """Return M_f between the prompts of each scene, (B, n, n) float32."""
    features = simulator.bank.features[rows[:, None], prompts.nodes]
    return pairwise_distance(features, features)


def _crowding(simulator: Simulator, prompts: ActiveSet) -> Urge:
    """Return an urge that is larger the nearer other prompts lie in the image.

    The sum of inverse fourth powers of the distances, in patches: the nearest one or two decide, without ties
    between the two of a pair.
    """
    where = simulator.bank.positions[prompts.nodes] * simulator.bank.grid
    push = pairwise_distance(where, where).clamp_min(0.5) ** -4
    return lambda alive: (push * _pairs(alive)).sum(2).masked_fill(~alive, _STAYS)


def _pairs(alive: Tensor) -> Tensor:
    """Mark pairs of different prompts that are both alive, (B, n, n) bool."""
    same = torch.eye(alive.shape[1], dtype=torch.bool, device=alive.device)
    return alive[:, :, None] & alive[:, None, :] & ~same


def _masked_mean(values: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """Average the ``chosen`` values over ``dim``; 0 where there are none."""
    return (values * chosen).sum(dim) / chosen.sum(dim).clamp_min(1)


def _sub_grids(grid: int) -> Tensor:
    """Return every sub-grid of one of ``STRIDES`` at every offset, (L, N) bool."""
    axis = torch.arange(grid)
    found = [
        (((axis - top) % stride == 0)[:, None] & ((axis - left) % stride == 0)[None]).flatten()
        for stride in STRIDES
        for top in range(stride)
        for left in range(stride)
    ]
    return torch.stack([one for one in found if bool(one.any())])


def _one_by_one(status: Tensor, prompts: ActiveSet, urge: Urge, budget: int) -> Tensor:
    """Take the prompt with the strongest urge away, ask again, and so on up to ``budget`` times."""
    alive = prompts.present.clone()
    for _ in range(min(budget, alive.shape[1])):
        strongest, slot = urge(alive).masked_fill(~_removable(alive, prompts), _STAYS).max(dim=1)
        going = strongest > _STAYS
        if not bool(going.any()):
            break
        alive[going, slot[going]] = False
    gone, slot = (prompts.present & ~alive).nonzero(as_tuple=True)
    cleaned = status.clone()
    cleaned[gone, prompts.nodes[gone, slot]] = INACTIVE
    return cleaned


def _removable(alive: Tensor, prompts: ActiveSet) -> Tensor:
    """Mark the prompts that a defender may deactivate (``legal_actions``), (B, n) bool."""
    signs = torch.where(prompts.positive, POSITIVE, NEGATIVE).to(torch.int8).masked_fill(~alive, INACTIVE)
    defending = torch.zeros(len(signs), dtype=torch.bool, device=signs.device)
    legal = legal_actions(signs, defending)[:, :-1]
    return legal[:, : signs.shape[1]] | legal[:, signs.shape[1] :]


def _drop_worst(status: Tensor, urge: Tensor, budget: int) -> Tensor:
    """Take away the ``budget`` prompts with the strongest urge (B, N), as long as the rules allow it."""
    prompts = active_set(status)
    fixed = urge.gather(1, prompts.nodes)
    return _one_by_one(status, prompts, lambda alive: fixed.masked_fill(~alive, _STAYS), budget)
