"""One move on the statuses of B games, and what it earns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE, node_of, sign_of, stop_action


class Move(NamedTuple):
    """What a move did.

    Attributes:
        status: (B, N) int8 after it.
        stopped: (B,) bool, a legal STOP.
        invalid: (B,) bool, the action was illegal and changed nothing.
        changed: (B, N) bool, nodes whose status it changed.
    """

    status: Tensor
    stopped: Tensor
    invalid: Tensor
    changed: Tensor


def apply_actions(
    status: Tensor,
    actions: Tensor,
    attacking: Tensor,
    legal: Tensor,
    *,
    prompts_per_step: int = 1,
    feature_distance: Tensor | None = None,
) -> Move:
    """Play one action in each game; an illegal one changes nothing.

    Args:
        status: (B, N) int8.
        actions: (B,) int64 in [0, 2N].
        attacking: (B,) bool, True where the action activates, False where it deactivates.
        legal: (B, A) bool, from ``legal_actions``.
        prompts_per_step: k; the chosen candidate is joined by its k - 1 nearest legal candidates of the same
            sign in feature distance (ties: lower node first), cut before the last positive.
        feature_distance: (B, N) float32, from the chosen node to every node; needed when k > 1.

    Returns:
        The move.
    """
    nodes = status.shape[1]
    valid = legal.gather(1, actions[:, None]).squeeze(1)
    stopping = actions == stop_action(nodes)
    moving = valid & ~stopping
    node, sign = node_of(actions, nodes), sign_of(actions, nodes)
    changed = torch.zeros_like(status, dtype=torch.bool)
    changed[torch.arange(len(status), device=status.device), node] = True
    if prompts_per_step > 1:
        if feature_distance is None:
            raise ValueError("feature_distance is needed when prompts_per_step > 1.")
        changed = _with_neighbours(status, sign, node, attacking, legal, feature_distance, prompts_per_step)
    changed &= moving[:, None]
    value = torch.where(attacking, sign, torch.full_like(sign, INACTIVE))
    return Move(torch.where(changed, value[:, None], status), valid & stopping, ~valid, changed)


def _with_neighbours(
    status: Tensor,
    sign: Tensor,
    node: Tensor,
    attacking: Tensor,
    legal: Tensor,
    distance: Tensor,
    count: int,
) -> Tensor:
    """Mark each chosen node and its nearest legal candidates of the same sign, (B, N) bool."""
    nodes = status.shape[1]
    same_sign = torch.where((sign == NEGATIVE)[:, None], legal[:, nodes:-1], legal[:, :nodes])
    key = distance.masked_fill(~same_sign, torch.inf).scatter(1, node[:, None], -1.0)
    rank = key.argsort(dim=1, stable=True).argsort(dim=1)
    allowed = torch.where(attacking, nodes, _removable(status, sign)).clamp(max=count)
    return (rank < allowed[:, None]) & same_sign


def _removable(status: Tensor, sign: Tensor) -> Tensor:
    """Count how many prompts of ``sign`` may go before the last positive or the last prompt, (B,) int64."""
    positives = (status == POSITIVE).sum(dim=1)
    negatives = (status == NEGATIVE).sum(dim=1)
    return torch.where(sign == POSITIVE, positives - 1, negatives - (positives == 0).long())


def rewards(before: Tensor, after: Tensor, attacking: Tensor) -> Tensor:
    """Return the Dice change, its sign flipped for the attacker.

    The sum over an episode telescopes to the last Dice minus the first (PPD, Section III:
    r = Dice_t - Dice_{t-1}).

    Args:
        before: (...) float32 Dice.
        after: (...) float32 Dice.
        attacking: bool, broadcastable to (...).

    Returns:
        (...) float32.
    """
    change = after - before
    return torch.where(attacking, -change, change)
