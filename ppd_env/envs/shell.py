"""What the AEC and the parallel environment have in common beside the game: spaces and pictures."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from ppd_env.config import TwoAgentConfig
from ppd_env.envs.gymnasium_env import RENDER_FPS, check_render_mode
from ppd_env.envs.two_agents import AGENTS, TwoAgentGame
from ppd_env.game.actions import action_count
from ppd_env.rendering import Renderer


class TwoAgentShell:
    """Base of both PettingZoo environments; stands before PettingZoo's class.

    Args:
        render_mode: None, ``"rgb_array"`` or ``"human"``.
        config: The game.
    """

    def __init__(self, render_mode: str | None, config: TwoAgentConfig) -> None:
        super().__init__()
        check_render_mode(render_mode)
        self.render_mode, self.config = render_mode, config
        self.game = TwoAgentGame(config)
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        self.observation_spaces = {agent: self.game.space() for agent in AGENTS}
        actions = action_count(self.game.games.nodes)
        self.action_spaces = {agent: spaces.Discrete(actions) for agent in AGENTS}
        self._renderer = Renderer(render_mode, RENDER_FPS)
        self._rng: np.random.Generator | None = None

    def observation_space(self, agent: str) -> spaces.Space:
        """Return an agent's observation space, always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """Return an agent's action space, always the same object."""
        return self.action_spaces[agent]

    def render(self) -> np.ndarray | None:
        """Return the picture (height, width, 3) uint8 in mode ``rgb_array``; None otherwise."""
        return self._renderer.render(self.game.games, 0, self.game.turn())

    def close(self) -> None:
        """Close the window, if one is open."""
        self._renderer.close()

    def _show(self) -> None:
        if self.render_mode == "human":
            self.render()
