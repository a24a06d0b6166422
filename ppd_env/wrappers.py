"""Wrappers for the Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ppd_env.errors import ConfigError

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
