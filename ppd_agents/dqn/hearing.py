"""What prompts and landmarks tell the nodes around them, and the judgement of those that hear it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppd_agents.dqn.descriptors import ActiveSet, Surroundings

_RARE = 3.0
"""Brings a message's share of all prompts, which is small in most cells, to the size of the other inputs."""

_ASIDE = (1e-3, 2e-3)
"""Where the middle of a cell lies between nodes, it is moved by so much (x, y): one of them is nearest then,
whatever their order."""


def landmark_set(positions: Tensor, side: int, batch: int) -> ActiveSet:
    """Return the nodes nearest to the middles of side x side cells of the image.

    Args:
        positions: (N, 2) float32 in [0, 1].
        side: Cells per side.
        batch: B states that share them.

    Returns:
        L = side * side landmarks for each state, all present; where nodes are few, one may serve twice.
    """
    middles = (torch.arange(side, device=positions.device, dtype=positions.dtype) + 0.5) / side
    x, y = (middles - aside for aside in _ASIDE)
    lattice = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
    nodes = torch.cdist(lattice, positions).argmin(dim=1).expand(batch, -1)
    everywhere = torch.ones_like(nodes, dtype=torch.bool)
    return ActiveSet(nodes, everywhere, everywhere)


class Tellers(NamedTuple):
    """Nodes that tell what they see.

    Attributes:
        around: How they lie around the nodes that hear them.
        told: (B, n, ...) float32, what they see.
        who: Which nodes they are.
    """

    around: Surroundings
    told: Tensor
    who: ActiveSet


class View(NamedTuple):
    """What is seen around M chosen nodes of B states.

    Attributes:
        active: The prompts.
        described: (B, M, D) float32, the signs around the nodes.
        rest: What the nodes know beside that, (B, M, ...) each.
        prompts: The prompts that tell; None where they tell nothing.
        landmarks: The landmarks that tell; None where there are none.
    """

    active: ActiveSet
    described: Tensor
    rest: list[Tensor]
    prompts: Tellers | None
    landmarks: Tellers | None


def judge(
    view: View, telling: nn.ModuleList, landmark_telling: nn.ModuleList, trunks: nn.ModuleList
) -> Tensor:
    """Let each of E members hear what prompts and landmarks tell and judge the nodes: (E, B, M, out)."""
    judged = []
    for member, trunk in enumerate(trunks):
        heard: list[Tensor] = []
        for tellers, tell in ((view.prompts, telling), (view.landmarks, landmark_telling)):
            if tellers is not None:
                heard += _hear(tellers.around, tell[member](tellers.told), tellers.who)
        judged.append(trunk(torch.cat([view.described, *heard, *view.rest], dim=-1)))
    return torch.stack(judged)


def _hear(around: Surroundings, told: Tensor, who: ActiveSet) -> list[Tensor]:
    """Return what nodes tell (B, n, r), by cell: its mean there and its share of all, (B, M, C r) each."""
    total = around.collect(told)
    present = around.cells.sum(-1, keepdim=True)
    everyone = who.present.sum(1)[:, None, None, None]
    return [(total / (1 + present)).flatten(2), (_RARE * total / (1 + everyone)).flatten(2)]
