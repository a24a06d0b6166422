"""The actor and the critic of PPO around graph Q-networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableDistribution
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from ppd_agents.dqn.policy import ObservationQNet
from ppd_agents.dqn.q_network import QNetworkConfig
from ppd_env.game.actions import NEGATIVE, POSITIVE

Observation = dict[str, Tensor]


class GraphActorCritic(MaskableActorCriticPolicy):
    """Per-candidate logits of one ``GraphQNetwork`` and, pooled over the candidates, the value of another.

    The network's value of a candidate is its logit, and STOP's is 0: only differences of logits count. So
    relabelling the nodes relabels the chances of the actions and leaves the value as it is.

    Args:
        observation_space: Of a ``GameVecEnv``.
        action_space: ``Discrete(2N + 1)``.
        lr_schedule: SB3's learning-rate schedule.
        network: Shape of both networks.
        scenes: (features (S, N, d), positions (N, 2)) of the bank.
        init_seed: Seed of the first weights.
        **kwargs: Passed on to sb3-contrib's policy.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        network: QNetworkConfig,
        scenes: tuple[Tensor, Tensor],
        init_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self._network, self._own_scenes, self._init_seed = network, scenes, init_seed
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        """Build both networks and their optimiser; SB3 calls this once."""
        self.actor, self.critic = (
            ObservationQNet(self._network, self._own_scenes, self._init_seed + offset) for offset in (0, 1)
        )
        self.pooled = nn.Linear(2, 1)
        nn.init.constant_(self.pooled.weight, 0.5)
        nn.init.zeros_(self.pooled.bias)
        arguments: dict[str, Any] = {"lr": lr_schedule(1.0), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **arguments)

    def forward(  # type: ignore[override]
        self, obs: Observation, deterministic: bool = False, action_masks: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (B,), values (B, 1) and log-probabilities (B,)."""
        distribution = self.get_distribution(obs, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(  # type: ignore[override]
        self, obs: Observation, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (B, 1), log-probabilities (B,) of ``actions`` (B,) and entropies (B,)."""
        distribution = self.get_distribution(obs, action_masks)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(  # type: ignore[override]
        self, obs: Observation, action_masks: np.ndarray | Tensor | None = None
    ) -> MaskableDistribution:
        """Return the chances of the actions, 0 where ``action_masks`` (B, 2N + 1) forbids them."""
        distribution = self.action_dist.proba_distribution(action_logits=self.actor(obs))
        if action_masks is not None:
            distribution.apply_masking(action_masks)
        return distribution

    def predict_values(self, obs: Observation) -> Tensor:  # type: ignore[override]
        """Return the values of states, (B, 1): the critic's mean and maximum over the active candidates."""
        each = self.critic(obs)[:, :-1]
        active = torch.cat([obs["status"] == sign for sign in (POSITIVE, NEGATIVE)], dim=1)
        mean = (each * active).sum(1) / active.sum(1).clamp_min(1)
        most = each.masked_fill(~active, -torch.inf).amax(1).nan_to_num(neginf=0.0)
        values: Tensor = self.pooled(torch.stack([mean, most], dim=1))
        return values
