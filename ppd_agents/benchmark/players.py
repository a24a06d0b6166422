"""What every algorithm is compared with: chance, doing nothing, and the defender that ships."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from ppd_agents.dqn.agent import GreedyAgent
from ppd_agents.shipped import open_agent
from ppd_env.envs.gymnasium_env import PointPromptEnv


class Random:
    """Plays legal actions at random and never stops of its own accord."""

    def train(self, env_id: str, seed: int, budget: int) -> Random:
        """Learn nothing; the seed decides the moves."""
        self._rng = np.random.default_rng(seed)
        return self

    def act(self, observation: Any, action_mask: np.ndarray) -> int:
        """Draw a legal action; STOP where nothing else is legal."""
        legal = np.flatnonzero(action_mask)
        return int(self._rng.choice(legal[:-1] if len(legal) > 1 else legal))


class Idle:
    """Stops at once: the score that is 0 by definition."""

    def train(self, env_id: str, seed: int, budget: int) -> Idle:
        """Learn nothing."""
        return self

    def act(self, observation: Any, action_mask: np.ndarray) -> int:
        """Return STOP."""
        return len(action_mask) - 1


class Shipped:
    """The defender ``mini`` that ships, trained once by adversarial training, whatever seed and budget."""

    view: ClassVar[dict[str, Any]] = {"observation": "compact"}

    def train(self, env_id: str, seed: int, budget: int) -> Shipped:
        """Load it."""
        self._player = GreedyAgent(open_agent("mini", "defender"))
        return self

    def wrap(self, env: gymnasium.Env) -> gymnasium.Env:
        """Keep the games, from which it takes the scene's features; the environment stays as it is."""
        bare = env.unwrapped
        assert isinstance(bare, PointPromptEnv)
        self._games = bare.play.games
        return env

    def act(self, observation: Any, action_mask: np.ndarray) -> int:
        """Return the action of the largest value."""
        return int(self._player.act(self._games, self._games.everyone(), [])[0])
