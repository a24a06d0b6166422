"""The PettingZoo parallel environment: both agents move at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.utils import seeding
from pettingzoo import ParallelEnv

from ppd_env.config import TwoAgentConfig
from ppd_env.envs.gymnasium_env import RENDER_FPS, RENDER_MODES
from ppd_env.envs.shell import TwoAgentShell
from ppd_env.envs.two_agents import AGENTS

ByAgent = dict[str, Any]


class PointPromptParallel(TwoAgentShell, ParallelEnv):
    """Attacker against defender, both in every round.

    With ``schedule="duel"`` (the default here) both moves take effect together; STOP retires an agent, which
    then only passes. With ``schedule="phased"`` the agent that waits can only pass. Both agents stay until
    the game ends. Rewards, observations and infos are those of ``PointPromptAEC``.

    Args:
        render_mode: None, ``"rgb_array"`` or ``"human"``.
        kwargs: See ``TwoAgentConfig``; ``schedule`` is ``"duel"`` unless given.
    """

    metadata = {  # noqa: RUF012 (PettingZoo's own form)
        "name": "ppd_v0",
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
    }

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        super().__init__(render_mode, TwoAgentConfig.from_kwargs(**{"schedule": "duel", **kwargs}))

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ByAgent, ByAgent]:
        """Begin a game.

        Args:
            seed: Seeds everything random; None goes on with the present generator.
            options: ``scene``, ``prompts``, ``start`` and ``steps``, see ``PointPromptEnv``; others warn.

        Returns:
            Observations and infos by agent.
        """
        if seed is not None or self._rng is None:
            self._rng = seeding.np_random(seed)[0]
        self.game.reset(self._rng, options)
        self.agents = list(AGENTS)
        self._show()
        return self._observations(), {agent: self.game.info(agent) for agent in AGENTS}

    def step(self, actions: dict[str, int]) -> tuple[ByAgent, ByAgent, ByAgent, ByAgent, ByAgent]:
        """Play one round; an agent without an action plays STOP.

        Returns:
            Observations, rewards, terminations, truncations and infos by agent.
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        played = self.game.play(actions)
        infos = {agent: self.game.info(agent, invalid=played.invalid[agent]) for agent in AGENTS}
        terminations = dict.fromkeys(AGENTS, played.terminated)
        truncations = dict.fromkeys(AGENTS, played.truncated)
        if played.terminated or played.truncated:
            self.agents = []
        self._show()
        return self._observations(), dict(played.rewards), terminations, truncations, infos

    def _observations(self) -> ByAgent:
        return {agent: self.game.observe(agent) for agent in AGENTS}

    def action_masks(self, agent: str) -> np.ndarray:
        """Return the legal actions of an agent, (2N + 1,) bool."""
        return self.game.mask(agent)
