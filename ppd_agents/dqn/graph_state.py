"""States of the game as the Q-network takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppd_env.game.actions import INACTIVE


@dataclass(frozen=True)
class GraphState:
    """B states of the game as the Q-network takes them.

    Args:
        features: (S, N, d) float32 patch features of S scenes.
        positions: (N, 2) float32 in [0, 1].
        rows: (B,) int64, the scene of each state.
        status: (B, N) int8.
        feedback: (B, N) float32 share of predicted foreground per node, or None.
        predicted_iou: (B,) float32, taken as it is within [0, 1], or None.
        initial_mask: (B, N) bool, nodes the mask covered when the game began, or None.
        seen: (B, N) int8, the last sign of every node that was a prompt since the game began, or None where
            nothing is known but the present ones.
    """

    features: Tensor
    positions: Tensor
    rows: Tensor
    status: Tensor
    feedback: Tensor | None = None
    predicted_iou: Tensor | None = None
    initial_mask: Tensor | None = None
    seen: Tensor | None = None

    @property
    def evidence(self) -> GraphState:
        """The same states with all prompts that were seen, those that were removed included."""
        if self.seen is None:
            return self
        return replace(self, status=torch.where(self.status != INACTIVE, self.status, self.seen))

    def at(self, chosen: slice | Tensor) -> GraphState:
        """Return some of the states."""
        return GraphState(
            self.features,
            self.positions,
            self.rows[chosen],
            self.status[chosen],
            None if self.feedback is None else self.feedback[chosen],
            None if self.predicted_iou is None else self.predicted_iou[chosen],
            None if self.initial_mask is None else self.initial_mask[chosen],
            None if self.seen is None else self.seen[chosen],
        )


def share_states(state: GraphState, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find runs of the same state, whose surroundings are then looked at once.

    Args:
        state: B states.
        actions: (B, K) int64.

    Returns:
        first: (G,) int64, the first row of each run.
        slot: (B, K) int64, the place of each action in the flattened ``grouped``.
        grouped: (G, L) int64, the actions of each run, padded with 0.
    """
    new = torch.ones(len(actions), dtype=torch.bool, device=actions.device)
    if len(actions) > 1:
        same = (state.status[1:] == state.status[:-1]).all(1) & (state.rows[1:] == state.rows[:-1])
        if state.feedback is not None and state.predicted_iou is not None:
            same &= (state.feedback[1:] == state.feedback[:-1]).all(1)
            same &= state.predicted_iou[1:] == state.predicted_iou[:-1]
        if state.initial_mask is not None:
            same &= (state.initial_mask[1:] == state.initial_mask[:-1]).all(1)
        if state.seen is not None:
            same &= (state.seen[1:] == state.seen[:-1]).all(1)
        new[1:] = ~same
    group = new.cumsum(0) - 1
    first = new.nonzero()[:, 0]
    width, each = actions.shape[1], torch.arange(actions.shape[1], device=actions.device)
    place = (torch.arange(len(actions), device=actions.device) - first[group])[:, None] * width + each
    length = int(place.max()) + 1
    slot = group[:, None] * length + place
    grouped = actions.new_zeros(len(first) * length)
    grouped[slot] = actions
    return first, slot, grouped.view(len(first), length)
