"""The SB3 policy around the graph Q-network: observations in, masked greedy actions out."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn

from ppd_agents.dqn.descriptors import ActiveSet
from ppd_agents.dqn.exploration import check_masks, masked_argmax
from ppd_agents.dqn.graph_state import GraphState
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_env.errors import ConfigError


class ObservationQNet(nn.Module):
    """A ``GraphQNetwork`` that reads observations of the environment.

    Args:
        config: Shape of the network.
        scenes: (features (S, N, d), positions (N, 2)) of the bank, for compact observations, which name their
            scene by its row; None where observations carry their features.
        seed: Seed of the first weights.
    """

    def __init__(self, config: QNetworkConfig, scenes: tuple[Tensor, Tensor] | None, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.network = GraphQNetwork(config, generator)
        self._scenes = scenes

    def set_training_mode(self, mode: bool) -> None:
        """SB3's name for ``train(mode)``."""
        self.train(mode)

    def state(self, observation: dict[str, Tensor]) -> GraphState:
        """Turn a batch of observations into the network's input.

        Raises:
            ConfigError: The observation is compact, but the policy was not given the bank's scenes.
        """
        status = observation["status"].to(torch.int8)
        count = len(status)
        feedback, iou = observation.get("feedback"), observation.get("predicted_iou")
        extras = (
            None if feedback is None else feedback.float(),
            None if iou is None else iou.reshape(count).float(),
            observation.get("initial_mask"),
            observation.get("seen"),
        )
        if "features" in observation:
            rows = torch.arange(count, device=status.device)
            positions = observation["positions"][0].float()
            return GraphState(observation["features"].float(), positions, rows, status, *extras)
        if self._scenes is None:
            raise ConfigError(
                "Compact observations name a scene only: "
                "pass scenes=(bank.features, bank.positions) to MaskedDQN."
            )
        rows = observation["scene"].reshape(count).long()
        return GraphState(*self._scenes, rows, status, *extras)

    def forward(self, observation: dict[str, Tensor], *, dice_only: bool = False) -> Tensor:
        """Return the Q-values of all actions, (B, 2N + 1)."""
        values: Tensor = self.network(self.state(observation), dice_only=dice_only)
        return values

    def q_of(
        self,
        observation: dict[str, Tensor],
        actions: Tensor,
        *,
        dice_only: bool = False,
        each: bool = False,
    ) -> Tensor:
        """Return the Q-values of chosen actions; see ``GraphQNetwork.q_of``."""
        return self.network.q_of(self.state(observation), actions, dice_only=dice_only, each=each)

    def suspicions(self, observation: dict[str, Tensor]) -> tuple[Tensor, ActiveSet]:
        """Judge every active prompt; see ``GraphQNetwork.suspicions``."""
        return self.network.suspicions(self.state(observation))


class GraphPolicy(DQNPolicy):
    """Online and target graph Q-network for SB3's DQN.

    Args:
        observation_space: Dict with at least ``status`` and ``action_mask``.
        action_space: ``Discrete(2N + 1)``.
        lr_schedule: SB3's learning-rate schedule.
        network: Shape of the Q-network.
        scenes: See ``ObservationQNet``.
        init_seed: Seed of the first weights.
        **kwargs: Passed on to SB3's ``DQNPolicy``.

    Raises:
        ConfigError: The observation lacks a key.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        network: QNetworkConfig | None = None,
        scenes: tuple[Tensor, Tensor] | None = None,
        init_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        known = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {}
        missing = [key for key in ("status", "action_mask") if key not in known]
        if missing:
            raise ConfigError(f"MaskedDQN needs a Dict observation with {' and '.join(missing)}.")
        self._network = network or QNetworkConfig()
        self._own_scenes = scenes
        self._init_seed = init_seed
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def make_q_net(self) -> ObservationQNet:  # type: ignore[override]
        """Build one network; SB3 calls this for the online and for the target network."""
        return ObservationQNet(self._network, self._own_scenes, self._init_seed).to(self.device).eval()

    def set_training_mode(self, mode: bool) -> None:
        """Leave the networks as they are: SB3 calls this while gradient steps may be under way.

        They are in evaluation mode but for the online one within a gradient step.
        """
        self.training = mode

    def forward(self, obs: PyTorchObs, deterministic: bool = True) -> Tensor:
        """Return the best legal action of each game, (B,) int64."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        assert isinstance(observation, dict)
        masks = observation["action_mask"].bool()
        check_masks(masks)
        return masked_argmax(self.q_net(observation), masks)
