"""What an agent sees of its games, as numpy arrays and Gymnasium spaces."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future

import numpy as np
from gymnasium import spaces
from torch import Tensor

from ppd_env.config import GameConfig
from ppd_env.cores import in_background
from ppd_env.game.actions import action_count
from ppd_env.game_batch import GameBatch
from ppd_env.graph import NEIGHBOURS, feature_distance, knn_edges, physical_distance
from ppd_env.scenes.bank import SceneBank

KEPT_SCENES = 512
"""Scenes whose edges are kept once computed, at most."""

KEPT_BYTES = 2**29
"""Memory that may go into keeping them; at least one scene is kept."""

Arrays = dict[str, np.ndarray]


class Observer:
    """Turns games into observations.

    Args:
        config: Says which parts an observation has.
        bank: The scenes.
    """

    def __init__(self, config: GameConfig, bank: SceneBank) -> None:
        self._config = config
        self._bank = bank
        self._static: OrderedDict[int, Arrays] = OrderedDict()
        self._coming: dict[tuple[int, int], Future[Arrays]] = {}
        self._shown = np.empty(0, np.int64)
        self._stacked: Arrays = {}

    def space(self, *, with_mask: bool = True) -> spaces.Dict:
        """Return the space of one game's observation; ``with_mask`` adds ``action_mask``."""
        nodes = self._bank.features.shape[1]
        parts: dict[str, spaces.Space] = {
            "status": _box(0, 2, (nodes,), np.int8),
            "steps_left": _box(0, 1, (1,)),
        }
        parts.update(self._static_spaces())
        if self._config.feedback:
            parts["feedback"] = _box(0, 1, (nodes,))
            parts["predicted_iou"] = _box(-np.inf, np.inf, (1,))
        if with_mask:
            parts["action_mask"] = _box(0, 1, (action_count(nodes),), np.int8)
        return spaces.Dict(parts)

    def _static_spaces(self) -> dict[str, spaces.Space]:
        """Return the spaces of what never changes in a scene."""
        if self._config.observation == "compact":
            return {"scene": _box(0, len(self._bank) - 1, (1,), np.int64)}
        nodes, dim = self._bank.features.shape[1:]
        parts: dict[str, spaces.Space] = {
            "features": _box(-np.inf, np.inf, (nodes, dim)),
            "positions": _box(0, 1, (nodes, 2)),
        }
        if self._config.edges == "knn":
            edges = 2 * NEIGHBOURS * nodes
            parts["edge_index"] = _box(0, nodes - 1, (2, edges), np.int32)
            parts["edge_attr"] = _box(0, np.inf, (edges, 2))
        elif self._config.edges == "dense":
            parts["feature_distance"] = _box(0, np.inf, (nodes, nodes))
            parts["physical_distance"] = _box(0, np.inf, (nodes, nodes))
        return parts

    def observe(self, games: GameBatch, which: Tensor, mask: np.ndarray | None) -> Arrays:
        """Look at the k games ``which``.

        Args:
            games: All games.
            which: (k,) int64.
            mask: (k, A) bool, their legal actions, or None to leave them out.

        Returns:
            One fresh array per key of ``space``, leading axis k.
        """
        left = games.steps_left[which].float() / games.steps_total[which].clamp(min=1)
        out = {"status": _numpy(games.status[which]), "steps_left": _numpy(left.clamp(0, 1)[:, None])}
        rows = _numpy(games.rows[which])
        if self._config.observation == "compact":
            out["scene"] = rows[:, None]
        else:
            out.update(self._scenes(_numpy(which), rows, games.size))
        if self._config.feedback:
            out["feedback"] = _numpy(games.feedback(which))
            out["predicted_iou"] = _numpy(games.predicted_iou[which][:, None])
        if mask is not None:
            out["action_mask"] = mask.astype(np.int8)
        return out

    def expect(self, rows: Iterable[int]) -> None:
        """Compute what never changes in the scenes ``rows`` in the background, where it is not known yet."""
        if self._config.observation == "compact" or self._config.edges == "none":
            return
        process = os.getpid()
        # A fork has no thread that would finish what its parent began.
        self._coming = {key: found for key, found in self._coming.items() if key[0] == process}
        wanted = [(process, row) for row in rows if row not in self._static]
        for key in wanted:
            if key not in self._coming:
                self._coming[key] = in_background(self._compute, key[1])
        # What was expected and never came, after a reset with a seed say, makes room: one scene per game.
        for key in list(self._coming)[: -max(1, len(wanted), len(self._shown))]:
            self._coming.pop(key).cancel()

    def _scenes(self, which: np.ndarray, rows: np.ndarray, size: int) -> Arrays:
        """Return fresh copies of what never changes in the scenes ``rows`` (k,) of the games ``which`` (k,).

        Only where a game is on another scene than when it was last looked at is that scene looked up.
        """
        if len(self._shown) != size:
            self._shown = np.full(size, -1, np.int64)
        for place in np.flatnonzero(self._shown[which] != rows):
            game, row = which[place], int(rows[place])
            for name, values in self._scene(row).items():
                if name not in self._stacked or len(self._stacked[name]) != size:
                    self._stacked[name] = np.empty((size, *values.shape), values.dtype)
                self._stacked[name][game] = values
            self._shown[game] = row
        return {name: values[which] for name, values in self._stacked.items()}

    def _scene(self, row: int) -> Arrays:
        """Return what never changes in a scene; kept while it is among the last ones seen."""
        if row in self._static:
            self._static.move_to_end(row)
            return self._static[row]
        coming = self._coming.pop((os.getpid(), row), None)
        parts = self._compute(row) if coming is None else coming.result()
        self._static[row] = parts
        kept = KEPT_BYTES // sum(values.nbytes for values in parts.values())
        while len(self._static) > max(1, min(KEPT_SCENES, kept)):
            self._static.popitem(last=False)
        return parts

    def _compute(self, row: int) -> Arrays:
        features, positions = self._bank.features[row], self._bank.positions
        parts = {"features": _numpy(features), "positions": _numpy(positions)}
        if self._config.edges != "none":
            near, close = feature_distance(features), physical_distance(positions)
            if self._config.edges == "dense":
                parts.update(feature_distance=_numpy(near), physical_distance=_numpy(close))
            else:
                index, attr = knn_edges(near, close)
                parts.update(edge_index=_numpy(index).astype(np.int32), edge_attr=_numpy(attr))
        return parts


def _box(low: float, high: float, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)  # type: ignore[arg-type]


def _numpy(tensor: Tensor) -> np.ndarray:
    """Copy a tensor into a numpy array."""
    array: np.ndarray = tensor.detach().cpu().numpy().copy()
    return array
