"""What the Q-network sees of a node: how the active prompts of each sign lie around it in both spaces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE

_FAR = 2.0
"""Stands for the distance to a sign that has no active prompt; usual distances are below it."""

_PAIRS_IN_CACHE = 400_000
"""Pairs of nodes that a CPU compares at once."""

_PAIRS_IN_MEMORY = 2**23
"""The same elsewhere: a GPU needs many for its calls to be worth it, and about a hundred bytes for each."""


@dataclass(frozen=True)
class Bins:
    """Centres of the joint soft histogram of (feature distance, physical distance).

    Centre k lies at ``scale * (ratio**k - 1)``: near nodes are told apart more finely than far ones, and no
    extractor's usual distances fall outside. Each distance is shared between its two nearest centres. Few
    bins do better than many: with four times as many, a network knew its training scenes by heart and no
    others.

    Args:
        feature: Number of feature bins; the last one holds everything farther away.
        feature_scale: Their scale; with the default the centres are 0, 0.18, 0.47, 0.93 and 1.67.
        feature_ratio: Their ratio.
        physical: Number of physical bins; the last one holds everything farther away.
        physical_scale: Their scale, in sides of the image.
        physical_ratio: Their ratio.
    """

    feature: int = 5
    feature_scale: float = 0.3
    feature_ratio: float = 1.6
    physical: int = 3
    physical_scale: float = 0.15
    physical_ratio: float = 2.0

    @property
    def size(self) -> int:
        """Cells of one histogram."""
        return self.feature * self.physical


def descriptor_size(bins: Bins) -> int:
    """Return D, the length of a node's descriptor."""
    return 4 * bins.size + 8 + 3 + 3


@dataclass(frozen=True)
class ActiveSet:
    """The active nodes of B states, padded to the largest set.

    Args:
        nodes: (B, n) int64, ascending; 0 where padded.
        present: (B, n) bool, False where padded.
        positive: (B, n) bool, the sign of each present node.
    """

    nodes: Tensor
    present: Tensor
    positive: Tensor

    def at(self, chosen: slice | Tensor) -> ActiveSet:
        """Return those of some of the states, padded as before."""
        return ActiveSet(self.nodes[chosen], self.present[chosen], self.positive[chosen])


def active_set(status: Tensor) -> ActiveSet:
    """Gather the active nodes of each state.

    Args:
        status: (B, N) int8.

    Returns:
        The active nodes; n is at least 1 even if nothing is active.
    """
    active = status != INACTIVE
    slots = active.cumsum(1) - 1
    width = max(1, int(slots[:, -1].max()) + 1) if len(status) else 1
    batch, node = active.nonzero(as_tuple=True)
    slot = slots[batch, node]
    nodes = torch.zeros((len(status), width), dtype=torch.int64, device=status.device)
    present = torch.zeros((len(status), width), dtype=torch.bool, device=status.device)
    nodes[batch, slot] = node
    present[batch, slot] = True
    return ActiveSet(nodes, present, present & (status.gather(1, nodes) == POSITIVE))


def chunks(batch: int, pairs_per_state: int, device: torch.device) -> Iterator[slice]:
    """Cut a batch so that no part compares more pairs of nodes than suits a device (one state at least).

    An empty batch is one part, so that its parts can always be put together.
    """
    limit = _PAIRS_IN_CACHE if device.type == "cpu" else _PAIRS_IN_MEMORY
    size = max(1, limit // max(1, pairs_per_state))
    for start in range(0, max(1, batch), size):
        yield slice(start, start + size)


class Surroundings(NamedTuple):
    """How the n active prompts of B states lie around M chosen nodes; a node is not around itself.

    Attributes:
        feature: (B, M, n) float32, distances in feature space.
        physical: (B, M, n) float32, distances in the image.
        other: (B, M, n) bool, False for padding and for the node itself.
        cells: (B, M, C, n) float32, each prompt's shares in the C cells of the node's histogram.
    """

    feature: Tensor
    physical: Tensor
    other: Tensor
    cells: Tensor

    def collect(self, values: Tensor) -> Tensor:
        """Sum what the prompts carry over each cell: (B, n, r) -> (B, M, C, r)."""
        batch, chosen, size, count = self.cells.shape
        total = torch.bmm(self.cells.reshape(batch, chosen * size, count), values)
        return total.view(batch, chosen, size, values.shape[-1])


@torch.no_grad()
def survey(
    features: Tensor, positions: Tensor, rows: Tensor, nodes: Tensor, active: ActiveSet, bins: Bins
) -> Surroundings:
    """Look around chosen nodes of B states.

    Cost is O(M n d) per state for M chosen nodes and n active ones; nothing of size N x N is formed.

    Args:
        features: (S, N, d) float32, scaled so that everyday distances are about 1.
        positions: (N, 2) float32 in [0, 1].
        rows: (B,) int64, the scene of each state.
        nodes: (B, M) int64, the nodes to look around.
        active: The active nodes of the states.
        bins: Centres of the histogram.

    Returns:
        The surroundings.
    """
    feature, physical = _distances(features, positions, rows, nodes, active)
    other = active.present[:, None] & (active.nodes[:, None] != nodes[:, :, None])
    near = _hat(feature, bins.feature, bins.feature_scale, bins.feature_ratio) * other[:, :, None]
    beside = _hat(physical, bins.physical, bins.physical_scale, bins.physical_ratio)
    return Surroundings(feature, physical, other, (near[:, :, :, None] * beside[:, :, None]).flatten(2, 3))


@torch.no_grad()
def describe(around: Surroundings, status: Tensor, nodes: Tensor, active: ActiveSet) -> Tensor:
    """Describe chosen nodes by joint soft histograms of their distances to the active prompts.

    Args:
        around: The surroundings of ``nodes``.
        status: (B, N) int8.
        nodes: (B, M) int64.
        active: The active nodes of ``status``.

    Returns:
        (B, M, D) float32: log-counts and shares of each histogram cell for both signs, smallest and mean
        distance in both spaces for both signs, own status, log-counts of both signs and their share.
    """
    signs = (active.positive, active.present & ~active.positive)
    counts = around.collect(torch.stack(signs, dim=-1).to(around.feature.dtype))
    parts: list[Tensor] = []
    totals: list[Tensor] = []
    for index, sign in enumerate(signs):
        mine = around.other & sign[:, None]
        total = mine.sum(-1, keepdim=True).to(around.feature.dtype)
        count = counts[..., index]
        parts += [count.log1p(), count / total.clamp_min(1)]
        parts += [_summary(distance, mine, total) for distance in (around.feature, around.physical)]
        totals.append(total)
    own = status.gather(1, nodes)
    kinds = torch.stack([own == kind for kind in (INACTIVE, POSITIVE, NEGATIVE)], dim=-1).to(counts.dtype)
    share = totals[0] / (totals[0] + totals[1]).clamp_min(1)
    return torch.cat([*parts, kinds, *(t.log1p() for t in totals), share], dim=-1)


def _summary(distance: Tensor, mine: Tensor, total: Tensor) -> Tensor:
    """Return the smallest and the mean of the distances (B, M, n) that are ``mine``, (B, M, 2)."""
    smallest = distance.masked_fill(~mine, _FAR).amin(-1, keepdim=True)
    mean = (distance * mine).sum(-1, keepdim=True) / total.clamp_min(1)
    return torch.cat([smallest, torch.where(total > 0, mean, _FAR)], dim=-1)


def _distances(
    features: Tensor, positions: Tensor, rows: Tensor, nodes: Tensor, active: ActiveSet
) -> tuple[Tensor, Tensor]:
    """Return the feature and the physical distance of each chosen node to each active one, (B, M, n) each."""
    count = features.shape[1]
    flat = features.reshape(-1, features.shape[-1])
    start = rows[:, None] * count
    ours = flat[start + nodes]
    theirs = flat[start + active.nodes]
    square = torch.baddbmm(
        theirs.square().sum(-1)[:, None] + ours.square().sum(-1)[:, :, None],
        ours,
        theirs.transpose(1, 2),
        alpha=-2.0,
    )
    offset = positions[nodes][:, :, None] - positions[active.nodes][:, None]
    return square.clamp_min(0).sqrt(), offset.square().sum(-1).sqrt()


def _hat(distances: Tensor, count: int, scale: float, ratio: float) -> Tensor:
    """Share each distance between its two nearest centres: (B, M, n) -> (B, M, count, n)."""
    place = torch.log1p(distances / scale) / math.log(ratio)
    centres = torch.arange(count, dtype=place.dtype, device=place.device)[:, None]
    distance = place.clamp(max=count - 1)[:, :, None] - centres
    return distance.abs_().neg_().add_(1).relu_()
