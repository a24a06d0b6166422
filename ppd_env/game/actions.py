"""Action codes and legal-action masks.

With N nodes there are A = 2N + 1 actions: ``a < N`` is the candidate (positive, node a), ``N <= a < 2N`` the
candidate (negative, node a - N) and ``a = 2N`` STOP.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

INACTIVE, POSITIVE, NEGATIVE = 0, 1, 2
"""The values of a node's status (int8): one sign at a time per node."""

Role = Literal["attacker", "defender"]


def action_count(nodes: int) -> int:
    """Return A = 2N + 1."""
    return 2 * nodes + 1


def stop_action(nodes: int) -> int:
    """Return the code of STOP, 2N."""
    return 2 * nodes


def encode(sign: Tensor | int, node: Tensor | int, nodes: int) -> Tensor:
    """Return the action that names a candidate.

    Args:
        sign: ``POSITIVE`` or ``NEGATIVE``, any shape.
        node: Node index in [0, N), same shape.
        nodes: N.

    Returns:
        int64 actions of that shape.
    """
    return torch.as_tensor(node, dtype=torch.int64) + nodes * (torch.as_tensor(sign) == NEGATIVE)


def node_of(actions: Tensor, nodes: int) -> Tensor:
    """Return the node each action names, int64; STOP gives 0 (ask ``sign_of`` first)."""
    return actions.remainder(nodes)


def sign_of(actions: Tensor, nodes: int) -> Tensor:
    """Return the sign each action names as int8: ``POSITIVE``, ``NEGATIVE``, or ``INACTIVE`` for STOP."""
    sign = torch.full_like(actions, POSITIVE, dtype=torch.int8)
    sign[actions >= nodes] = NEGATIVE
    sign[actions == stop_action(nodes)] = INACTIVE
    return sign


def _attacks(status: Tensor, truth: Tensor | None) -> Tensor:
    """Mark what an attacker may activate, (B, 2, N) bool: inactive nodes, of the true sign if asked."""
    inactive = status == INACTIVE
    if truth is None:
        return inactive[:, None].expand(-1, 2, -1)
    return torch.stack([inactive & truth, inactive & ~truth], dim=1)


def _defences(status: Tensor) -> Tensor:
    """Mark what a defender may deactivate, (B, 2, N) bool: not the last positive, nor the last prompt."""
    positive, negative = status == POSITIVE, status == NEGATIVE
    positives = positive.sum(dim=1, keepdim=True)
    negatives = negative.sum(dim=1, keepdim=True)
    return torch.stack([positive & (positives > 1), negative & (positives + negatives > 1)], dim=1)


def legal_actions(
    status: Tensor, attacking: Tensor, *, truth: Tensor | None = None, allow_stop: bool = True
) -> Tensor:
    """Mark the legal actions of B games.

    An attacker may activate a candidate whose node is inactive; a defender may deactivate an active prompt,
    but never the last positive one (from a start without positives: anything but the last prompt).

    Args:
        status: (B, N) int8.
        attacking: (B,) bool, whose move it is: True the attacker's.
        truth: (B, N) bool, patch centre inside the mask, to allow only attacks whose sign agrees with it
            (``label_mode="truth"``); None allows both signs (``"free"``).
        allow_stop: STOP is always legal; otherwise only where nothing else is.

    Returns:
        (B, A) bool; no row is all False.
    """
    candidates = torch.where(attacking[:, None, None], _attacks(status, truth), _defences(status)).flatten(1)
    stop = ~candidates.any(dim=1, keepdim=True)
    if allow_stop:
        stop = torch.ones_like(stop)
    return torch.cat([candidates, stop], dim=1)


def only_stop(legal: Tensor) -> Tensor:
    """Tell which rows of a legal-action mask (..., A) leave nothing but STOP, (...) bool."""
    return ~legal[..., :-1].any(dim=-1)
