"""The PettingZoo AEC environment: one agent moves at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.utils import seeding
from pettingzoo import AECEnv

from ppd_env.config import TwoAgentConfig
from ppd_env.envs.gymnasium_env import RENDER_FPS, RENDER_MODES
from ppd_env.envs.shell import TwoAgentShell
from ppd_env.envs.two_agents import AGENTS, ATTACKER, DEFENDER, Round
from ppd_env.errors import PPDError


class PointPromptAEC(TwoAgentShell, AECEnv):
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
        super().__init__(render_mode, TwoAgentConfig.from_kwargs(**kwargs))
        self._pending: int | None = None

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
