"""The PettingZoo AEC environment: one agent moves at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from pettingzoo import AECEnv

from ppd_env.config import TwoAgentConfig
from ppd_env.envs.gymnasium_env import RENDER_FPS, RENDER_MODES, check_render_mode
from ppd_env.envs.two_agents import AGENTS, ATTACKER, DEFENDER, Round, TwoAgentGame
from ppd_env.errors import PPDError
from ppd_env.game.actions import action_count
from ppd_env.rendering import Renderer


class PointPromptAEC(AECEnv):
    """Attacker against defender, move by move.

    With ``schedule="phased"`` (the default) the attacker moves until its phase ends, then the defender. With
    ``schedule="duel"`` they alternate: the attacker's move stays hidden until the defender has answered,
    then both take effect together. Rewards are Dice changes, zero-sum at every step unless
    ``reward_scope="own_phase"``.

    Observations nest: ``{"observation": {...}, "action_mask": (2N + 1,) int8}``; their keys, the actions and
    the other arguments are those of ``PointPromptEnv``. Infos add ``moving`` (bool): the agent may do more
    than pass.

    Args:
        render_mode: None, ``"rgb_array"`` or ``"human"``.
        kwargs: See ``TwoAgentConfig``.
    """

    metadata = {  # noqa: RUF012 (PettingZoo's own form)
        "name": "ppd_v0",
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
        "is_parallelizable": False,
    }

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        super().__init__()
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.config = TwoAgentConfig.from_kwargs(**kwargs)
        self.game = TwoAgentGame(self.config)
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        self.observation_spaces = {agent: self.game.space() for agent in AGENTS}
        actions = action_count(self.game.games.nodes)
        self.action_spaces = {agent: spaces.Discrete(actions) for agent in AGENTS}
        self._renderer = Renderer(self.render_mode, RENDER_FPS)
        self._rng: np.random.Generator | None = None
        self._pending: int | None = None

    def observation_space(self, agent: str) -> spaces.Space:
        """Return an agent's observation space, always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """Return an agent's action space, always the same object."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin a game.

        Args:
            seed: Seeds everything random; None goes on with the present generator.
            options: ``scene``, ``prompts``, ``start`` and ``steps``, see ``PointPromptEnv``; others warn.
        """
        if seed is not None or self._rng is None:
            self._rng = seeding.np_random(seed)[0]
        self.game.reset(self._rng, options)
        self.agents = list(AGENTS)
        self._pending = None
        self.rewards = dict.fromkeys(AGENTS, 0.0)
        self._cumulative_rewards = dict.fromkeys(AGENTS, 0.0)
        self.terminations = dict.fromkeys(AGENTS, False)
        self.truncations = dict.fromkeys(AGENTS, False)
        self.infos = {agent: self.game.info(agent) for agent in AGENTS}
        self.agent_selection = self.game.moving[0]
        self._show()

    def observe(self, agent: str) -> dict[str, Any]:
        """Return what an agent sees now; in a duel, not the move the other has pending."""
        return self.game.observe(agent)

    def action_masks(self, agent: str | None = None) -> np.ndarray:
        """Return the legal actions of an agent, (2N + 1,) bool; of the one to move by default."""
        return self.game.mask(agent or self.agent_selection)

    def step(self, action: int | None) -> None:
        """Play one action of the agent to move; None for an agent whose game is over."""
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        if action is None:
            raise ValueError(f"{agent} is still playing: give it an action.")
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        if self.config.schedule == "duel" and agent == ATTACKER:
            self._pending = int(action)
            self.agent_selection = DEFENDER
            return
        actions = {agent: int(action)}
        if self._pending is not None:
            actions[ATTACKER] = self._pending
            self._pending = None
        try:
            played = self.game.play(actions)
        except PPDError:
            self.agent_selection = self.game.moving[0]  # a refused duel round is asked for anew, both moves
            raise
        self._settle(played)

    def _settle(self, played: Round) -> None:
        """Publish a round."""
        self.rewards = dict(played.rewards)
        self.terminations = dict.fromkeys(AGENTS, played.terminated)
        self.truncations = dict.fromkeys(AGENTS, played.truncated)
        self.infos = {agent: self.game.info(agent, invalid=played.invalid[agent]) for agent in AGENTS}
        self.agent_selection = self.game.moving[0]
        self._accumulate_rewards()
        self._show()

    def render(self) -> np.ndarray | None:
        """Return the picture (height, width, 3) uint8 in mode ``rgb_array``; None otherwise."""
        return self._renderer.render(self.game.games, 0, self.game.turn())

    def _show(self) -> None:
        if self.render_mode == "human":
            self.render()

    def close(self) -> None:
        """Close the window, if one is open."""
        self._renderer.close()
