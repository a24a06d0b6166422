"""The vector environment: many games of one role, decoded together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ppd_env.config import EnvConfig
from ppd_env.envs.gymnasium_env import RENDER_FPS, RENDER_MODES, check_render_mode
from ppd_env.envs.single_role import SingleRoleGames
from ppd_env.errors import ConfigError
from ppd_env.game.actions import action_count
from ppd_env.rendering import Renderer

Arrays = dict[str, np.ndarray]


class PointPromptVectorEnv(VectorEnv[Arrays, np.ndarray, np.ndarray]):
    """``num_envs`` games in one decode batch per step.

    It plays what as many ``PointPromptEnv`` under ``SyncVectorEnv`` would: seeded with one number, game i
    gets that number plus i, and a game that ends starts again in the same step, its last observation and
    info in ``info["final_obs"]`` and ``info["final_info"]``.

    Args:
        num_envs: Games.
        render_mode: None, ``"rgb_array"`` or ``"human"`` (the first game is shown).
        kwargs: The arguments of ``PointPromptEnv``.
    """

    metadata = {  # noqa: RUF012 (Gymnasium's own form)
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **kwargs: Any) -> None:
        check_render_mode(render_mode)
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1; got {num_envs}.")
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.config = EnvConfig.from_kwargs(**kwargs)
        self._rngs: list[np.random.Generator] = []
        self.play = SingleRoleGames(self.config, self.num_envs)
        self.single_observation_space = self.play.observer.space()
        self.single_action_space = spaces.Discrete(action_count(self.play.games.nodes))
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._renderer = Renderer(self.render_mode, RENDER_FPS)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Arrays, dict[str, Any]]:
        """Begin an episode in every game, or in those ``options["reset_mask"]`` (num_envs,) marks.

        Args:
            seed: One seed (game i gets ``seed + i``), one per game, or None to go on with the present ones.
            options: As for ``PointPromptEnv``, the same for every game.

        Returns:
            Observations and infos.
        """
        options = dict(options or {})
        chosen = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, bool)))
        if chosen.shape != (self.num_envs,) or chosen.dtype != np.bool_ or not chosen.any():
            raise ConfigError(f"reset_mask must hold {self.num_envs} bools, at least one of them True.")
        self._seed(seed, chosen)
        games = chosen.nonzero()[0]
        self.play.reset(torch.from_numpy(games), [self._rngs[i] for i in games], options)
        observation, infos = self._look(np.zeros(self.num_envs, bool), chosen)
        self._show()
        return observation, infos

    def _seed(self, seed: int | Sequence[int | None] | None, chosen: np.ndarray) -> None:
        """Give the chosen games the generators their seeds ask for."""
        seeds: list[int | None]
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ConfigError(f"reset needs one seed or {self.num_envs} of them; got {len(seeds)}.")
        if not self._rngs:
            self._rngs = [seeding.np_random(None)[0] for _ in range(self.num_envs)]
        for game, one in enumerate(seeds):
            if chosen[game] and one is not None:
                self._rngs[game] = seeding.np_random(one)[0]

    def step(self, actions: np.ndarray) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Play one action in every game.

        Args:
            actions: (num_envs,) integers.

        Returns:
            Observations, rewards float64, terminations and truncations bool, infos.
        """
        if not self._rngs:
            raise ConfigError("Call reset() before step().")
        played = self.play.step(actions, self._rngs)
        over = played.terminated | played.truncated
        infos: dict[str, Any] = {}
        invalid = played.invalid.copy()
        if over.any():
            infos = self._final(over, invalid)
            games = over.nonzero()[0]
            self.play.restart(torch.from_numpy(games), [self._rngs[i] for i in games])
            invalid[over] = False
        observation, present = self._look(invalid, np.ones(self.num_envs, bool))
        self._show()
        return observation, played.reward, played.terminated, played.truncated, {**infos, **present}

    def _look(self, invalid: np.ndarray, chosen: np.ndarray) -> tuple[Arrays, dict[str, Any]]:
        observation, infos = self.play.look(self.play.games.everyone(), invalid)
        return observation, _with_presence(infos, chosen)

    def _final(self, over: np.ndarray, invalid: np.ndarray) -> dict[str, Any]:
        """Return the last observations and infos of the games that ended."""
        games = over.nonzero()[0]
        observation, infos = self.play.look(torch.from_numpy(games), invalid[games])
        last = np.full(self.num_envs, None, dtype=object)
        for position, game in enumerate(games):
            last[game] = {name: value[position] for name, value in observation.items()}
        spread: dict[str, np.ndarray] = {}
        for name, values in infos.items():
            filler = None if values.dtype == object else 0
            spread[name] = np.full((self.num_envs, *values.shape[1:]), filler, values.dtype)
            spread[name][games] = values
        final_info = _with_presence(spread, over)
        return {
            "final_obs": last,
            "_final_obs": over.copy(),
            "final_info": final_info,
            "_final_info": over.copy(),
        }

    def action_masks(self) -> np.ndarray:
        """Return the legal actions now, (num_envs, 2N + 1) bool."""
        return self.play.masks(self.play.games.everyone())

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a picture (height, width, 3) uint8 of each game in mode ``rgb_array``; None otherwise."""
        if self.render_mode != "rgb_array":
            self._show()
            return None
        frames = (self._renderer.render(self.play.games, game) for game in range(self.num_envs))
        return tuple(frame for frame in frames if frame is not None)

    def _show(self) -> None:
        if self.render_mode == "human":
            self._renderer.render(self.play.games, 0)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window, if one is open."""
        self._renderer.close()


def _with_presence(infos: dict[str, np.ndarray], present: np.ndarray) -> dict[str, Any]:
    """Pair each info with the mask ``_key`` of the games it speaks of, as Gymnasium's vector infos do."""
    out: dict[str, Any] = {}
    for name, values in infos.items():
        out[name], out[f"_{name}"] = values, present.copy()
    return out
