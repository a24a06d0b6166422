"""What a node sees of the segmenter's masks."""

from __future__ import annotations

import torch
from torch import Tensor

from ppd_agents.dqn.descriptors import ActiveSet
from ppd_agents.dqn.graph_state import GraphState
from ppd_env.errors import ConfigError

FEEDBACK_SIZE = 5
"""Numbers of the segmenter's answer that a node sees."""

INITIAL_MASK_SIZE = 4
"""Numbers of the initial mask that a node sees."""


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Average (B, n, D) over the ``chosen`` (B, n) slots; zeros where there is none."""
    weight = chosen[..., None].to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1)


def see_share(share: Tensor, nodes: Tensor, active: ActiveSet) -> Tensor:
    """Return a share per node (B, N) at chosen nodes, its mean over the prompts of each sign and over all."""
    at_active = share.gather(1, active.nodes)[..., None]
    signs = (active.positive, active.present & ~active.positive)
    whole = torch.cat([*(mean_over(at_active, sign) for sign in signs), share.mean(1, keepdim=True)], dim=-1)
    return torch.cat([share.gather(1, nodes)[..., None], whole[:, None].expand(-1, nodes.shape[1], -1)], -1)


def see_feedback(state: GraphState, nodes: Tensor, active: ActiveSet) -> Tensor:
    """Return the segmenter's answer at chosen nodes, over the prompts and over the image, (B, M, 5)."""
    if state.feedback is None or state.predicted_iou is None:
        raise ConfigError("This Q-network was built with feedback: give it feedback and predicted_iou.")
    iou = state.predicted_iou.clamp(0, 1)  # an IoU head may overshoot
    return torch.cat(
        [see_share(state.feedback, nodes, active), iou[:, None, None].expand(-1, nodes.shape[1], 1)], dim=-1
    )
