"""Wrappers for the Gymnasium environment."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ppd_env.envs.gymnasium_env import PointPromptEnv
from ppd_env.errors import ConfigError
from ppd_env.recording import Episode, begun
from ppd_env.whole_files import write_json

STATUSES = 3


class GraphObservation(gymnasium.ObservationWrapper):
    """Observations as ``spaces.Graph``: the dual-space graph with both distances on its edges.

    ``nodes`` (N, d + 5) float32 holds features, position (x, y) and the status as one of three;
    ``edges`` (E, 2) float32 feature and physical distance; ``edge_links`` (E, 2) int32 (neighbour, node).
    Legal actions stay in ``info["action_mask"]`` and ``action_masks()``.

    Args:
        env: A ``PPD-v0`` environment made with ``edges="knn"`` and ``observation="full"``.

    Raises:
        ConfigError: The environment's observations hold no edges.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Dict) or "edge_index" not in space.spaces:
            raise ConfigError(
                "GraphObservation needs an environment with edges='knn' and observation='full'."
            )
        features = space.spaces["features"]
        assert features.shape is not None
        width = features.shape[1] + 2 + STATUSES
        self.observation_space = spaces.Graph(
            node_space=spaces.Box(-np.inf, np.inf, (width,), np.float32),
            edge_space=spaces.Box(0, np.inf, (2,), np.float32),
        )

    def observation(self, observation: dict[str, Any]) -> spaces.GraphInstance:
        """Turn a Dict observation into a graph."""
        status = np.eye(STATUSES, dtype=np.float32)[observation["status"]]
        return spaces.GraphInstance(
            nodes=np.concatenate([observation["features"], observation["positions"], status], axis=1),
            edges=observation["edge_attr"],
            edge_links=observation["edge_index"].T.copy(),
        )


class RecordEpisode(gymnasium.Wrapper):
    """Writes every episode that is played to its end as a file that ``ppd validate`` can check.

    Each file is written aside and renamed. An episode that is reset or closed before its end leaves none. An
    illegal action is recorded as it was; a file that holds one does not pass the check.

    Args:
        env: A ``PPD-v0`` environment, wrapped or not; wrappers that change actions belong outside this one.
        folder: Takes the files; files of the same name are replaced.
        file: Their names, in which ``{number}`` counts the episodes; ``{number:06d}`` with six digits.

    Raises:
        ConfigError: Something else than ``PPD-v0`` lies under the wrappers.
    """

    def __init__(
        self, env: gymnasium.Env, folder: str | Path, file: str = "episode-{number:06d}.json"
    ) -> None:
        super().__init__(env)
        if not isinstance(env.unwrapped, PointPromptEnv):
            raise ConfigError(f"RecordEpisode records PPD-v0, not {type(env.unwrapped).__name__}.")
        self._bare = env.unwrapped
        self._folder, self._file = Path(folder), file
        self._count = 0
        self._episode: Episode | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and its record."""
        generator = None if seed is not None else copy.deepcopy(self._bare.np_random.bit_generator.state)
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode = begun(self._bare, info, seed, generator, copy.deepcopy(options))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one action; where it ends the episode, write the file, whose path is ``info["recording"]``."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        episode = self._episode
        if episode is not None:
            episode.actions.append(int(action))
            episode.rewards.append(float(reward))
            episode.dice.append(float(info["dice"]))
        if episode is not None and (terminated or truncated):
            path = self._folder / self._file.format(number=self._count)
            write_json(
                path, dataclasses.replace(episode, terminated=terminated, truncated=truncated).to_json()
            )
            self._count, self._episode = self._count + 1, None
            info = {**info, "recording": str(path)}
        return observation, reward, terminated, truncated, info
