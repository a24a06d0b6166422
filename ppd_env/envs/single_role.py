"""Episodes of one role, B at a time: what the Gymnasium environment and its vector twin share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppd_env.config import EnvConfig, GameConfig
from ppd_env.envs.observations import Arrays, Observer
from ppd_env.episodes import Beginning, EpisodeStarter
from ppd_env.game.actions import INACTIVE
from ppd_env.game_batch import GameBatch
from ppd_env.opponents import load_opponent
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Segmentation, Simulator


class Played(NamedTuple):
    """A step of B games in numpy: reward float64, the others bool, all (B,)."""

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    invalid: np.ndarray


def open_games(config: GameConfig, size: int) -> GameBatch:
    """Return ``size`` games, not yet begun, on the scene bank and segmenter a configuration names."""
    bank = open_bank(config.scenes, config.segmenter, config.features_uri, config.grid, config.device)
    simulator = Simulator(bank, load_segmenter(config.segmenter, config.device), config.max_batch)
    return GameBatch(
        simulator,
        size,
        label_mode=config.label_mode,
        allow_stop=config.allow_stop,
        prompts_per_step=config.prompts_per_step,
        invalid_action=config.invalid_action,
    )


class SingleRoleGames:
    """B episodes of one role.

    Args:
        config: The arguments of the environment.
        size: B.

    Attributes:
        games: The games.
        observer: Turns them into observations.
    """

    def __init__(self, config: EnvConfig, size: int) -> None:
        self.config = config
        self.games = open_games(config, size)
        self.observer = Observer(config, self.games.simulator.bank)
        self._starter = EpisodeStarter(
            config,
            self.games,
            attacking=config.role == "attacker",
            opponent=load_opponent(config.opponent),
        )
        self._foreseen: tuple[Beginning, Segmentation] | None = None
        self._names = np.array(self.games.simulator.bank.names, dtype=object)

    def reset(
        self,
        which: Tensor,
        rngs: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin the games ``which`` (k,) anew, each with its own generator."""
        self._starter.start(which, rngs, options)
        self._expect(rngs)

    def restart(self, which: Tensor, rngs: Sequence[np.random.Generator]) -> None:
        """Begin games that ended in the last ``step`` anew; what it has decoded is not decoded again."""
        if self._foreseen is None:
            self._starter.start(which, rngs)
        else:
            self._starter.begin(*self._foreseen)
        self._foreseen = None
        self._expect(rngs)

    def _expect(self, rngs: Sequence[np.random.Generator]) -> None:
        """Let the scenes of the episodes after the present ones be made ready meanwhile."""
        self.observer.expect(self._starter.coming_row(rng) for rng in rngs)

    def step(self, actions: np.ndarray, rngs: Sequence[np.random.Generator] | None = None) -> Played:
        """Play one action in every game.

        Args:
            actions: (B,) integers.
            rngs: B generators; with them the next episodes of games that end are decoded in the same batch,
                for ``restart``.

        Returns:
            What came of it.
        """
        beginning: Beginning | None = None

        def follow(ending: Tensor) -> tuple[Tensor, Tensor] | None:
            nonlocal beginning
            which = ending.nonzero().squeeze(1)
            if rngs is not None and len(which):
                beginning = self._starter.foresee(which, [rngs[game] for game in which.tolist()])
            return None if beginning is None else beginning.to_decode()

        moves = torch.as_tensor(np.asarray(actions, np.int64))
        result, decoded = self.games.step_beside(moves, follow)
        if beginning is not None and decoded is not None:
            self._foreseen = beginning, decoded
        reward, terminated, truncated, invalid = (t.cpu().numpy() for t in result)
        return Played(reward.astype(np.float64), terminated, truncated, invalid)

    def masks(self, which: Tensor) -> np.ndarray:
        """Return the legal actions of the games ``which``, (k, A) bool."""
        mask: np.ndarray = self.games.legal(which).cpu().numpy()
        return mask

    def look(self, which: Tensor, invalid: np.ndarray) -> tuple[Arrays, dict[str, np.ndarray]]:
        """Return observations and infos of the games ``which`` (k,); ``invalid`` is (k,) bool."""
        mask = self.masks(which)
        return self.observer.observe(self.games, which, mask), self._infos(which, mask, invalid)

    def _infos(self, which: Tensor, mask: np.ndarray, invalid: np.ndarray) -> dict[str, np.ndarray]:
        games = self.games
        rows = games.rows[which].cpu().numpy()
        infos = {
            "action_mask": mask.astype(np.int8),
            "invalid_action": invalid.copy(),
            "dice": _doubles(games.dice[which]),
            "initial_dice": _doubles(games.initial_dice[which]),
            "predicted_iou": _doubles(games.predicted_iou[which]),
            "active_prompts": (games.status[which] != INACTIVE).sum(dim=1).cpu().numpy(),
            "steps": games.steps_total[which].cpu().numpy(),
            "scene": rows,
            "scene_name": self._names[rows],
        }
        ideal = _doubles(self._starter.ideal_dice[which])
        if not np.isnan(ideal).any():
            infos["ideal_dice"] = ideal
        return infos

    def __getstate__(self) -> dict[str, Any]:
        """Return the configuration and what changes in play; shared scenes and models are left out."""
        state = {name: value.cpu().clone() for name, value in self.games.state_dict().items()}
        ideal = self._starter.ideal_dice.cpu().clone()
        return {"config": self.config, "size": self.games.size, "games": state, "ideal_dice": ideal}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the shared parts again and go on with the games."""
        self.__init__(state["config"], state["size"])  # type: ignore[misc]
        self.games.load_state_dict(state["games"])
        self._starter.ideal_dice.copy_(state["ideal_dice"])


def _doubles(tensor: Tensor) -> np.ndarray:
    values: np.ndarray = tensor.cpu().numpy().astype(np.float64)
    return values
