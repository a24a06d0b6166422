"""SB3's VecEnv over a ``GameBatch``: B games in step, one decode batch per step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvStepReturn
from torch import Tensor

from ppd_agents.dqn.exploration import refuse_illegal
from ppd_agents.dqn.potentials import Potential
from ppd_agents.dqn.replay import Tried
from ppd_agents.dqn.transition_store import pack_shares, pack_status
from ppd_env.errors import PPDError
from ppd_env.game_batch import GameBatch


@dataclass(frozen=True)
class Starts:
    """Where k games begin.

    Args:
        rows: (k,) int64, rows of the bank.
        status: (k, N) int8.
        steps: (k,) int64, step budgets.
        attacking: (k,) bool.
        reference: (k, N) int8, the prompts before any attack.
    """

    rows: Tensor
    status: Tensor
    steps: Tensor
    attacking: Tensor
    reference: Tensor


class StartSource(Protocol):
    """Draws the beginnings of games, from a generator of its own."""

    def draw(self, count: int) -> Starts:
        """Return ``count`` beginnings."""
        ...


class GameVecEnv(VecEnv):
    """B single-role games for SB3, with compact observations.

    Observation (Dict): ``scene`` (1,) int64 row of the bank, ``status`` (N,) int8, ``steps_left`` (1,)
    float32 share of the step budget, ``action_mask`` (2N + 1,) int8; with ``feedback=True`` also ``feedback``
    (N,) and ``predicted_iou`` (1,) float32, with ``initial_mask=True`` ``initial_mask`` (N,) int8, with
    ``seen=True`` ``seen`` (N,) int8. ``info``:
    ``terminal_observation``, ``TimeLimit.truncated`` and ``episode`` (return ``r``, length ``l``) where a
    game ends; ``held`` where it waits.

    Args:
        games: The games; their size is the number of environments.
        starts: Draws the beginnings.
        hold: A finished game waits on its last state, with nothing but STOP legal, until ``reset()``, instead
            of starting anew at once. So rounds of one length stay together.
        feedback: Observations hold the segmenter's own answer.
        initial_mask: Observations hold which nodes the mask covered when the game began.
        seen: Observations hold the last sign of every node that was a prompt since the game began.
        on_device: Observations are tensors on the games' device instead of arrays. A learner there, such as
            ``MaskedDQN``, then brings to the host what its memory keeps, and nothing else.
        dice_weight: Weight of the change of Dice in the reward.
        potential: Its change is added to the reward.
    """

    def __init__(
        self,
        games: GameBatch,
        starts: StartSource,
        *,
        hold: bool = False,
        feedback: bool = False,
        initial_mask: bool = False,
        seen: bool = False,
        on_device: bool = False,
        dice_weight: float = 1.0,
        potential: Potential | None = None,
    ) -> None:
        self.games, self.starts = games, starts
        self.hold, self.feedback = hold, feedback
        self.dice_weight, self.potential = dice_weight, potential
        self.initial_mask, self.seen, self.on_device = initial_mask, seen, on_device
        self.reference = torch.zeros_like(games.status)
        nodes, scenes = games.nodes, len(games.simulator.bank)
        keys: dict[str, spaces.Space] = {
            "scene": spaces.Box(0, scenes - 1, (1,), np.int64),
            "status": spaces.Box(0, 2, (nodes,), np.int8),
            "steps_left": spaces.Box(0, 1, (1,), np.float32),
            "action_mask": spaces.Box(0, 1, (2 * nodes + 1,), np.int8),
        }
        if feedback:
            keys["feedback"] = spaces.Box(0, 1, (nodes,), np.float32)
            keys["predicted_iou"] = spaces.Box(0, 1, (1,), np.float32)
        if initial_mask:
            keys["initial_mask"] = spaces.Box(0, 1, (nodes,), np.int8)
        if seen:
            keys["seen"] = spaces.Box(0, 2, (nodes,), np.int8)
        self.render_mode = None
        super().__init__(games.size, spaces.Dict(keys), spaces.Discrete(2 * nodes + 1))
        self.held = np.zeros(games.size, bool)
        self._returns = np.zeros(games.size)
        self._lengths = np.zeros(games.size, np.int64)
        self._actions = torch.zeros(games.size, dtype=torch.int64)

    def action_masks(self) -> np.ndarray:
        """Return the legal actions of all games, (B, 2N + 1) bool; a waiting game may only STOP."""
        return self._legal().cpu().numpy()

    def _legal(self) -> Tensor:
        masks = self.games.legal()  # known since the last step
        held = torch.from_numpy(self.held.nonzero()[0]).to(masks.device)
        masks[held] = False
        masks[held, -1] = True
        return masks

    def reset(self) -> dict[str, Any]:
        """Begin all games anew and return their observations."""
        self.held[:] = False
        self._begin(np.arange(self.num_envs))
        return self._observe()

    def step_async(self, actions: np.ndarray) -> None:
        """Take the next actions, (B,) int64.

        Raises:
            PPDError: One of them is illegal.
        """
        masks = self._legal()
        self._actions = torch.as_tensor(np.asarray(actions), dtype=torch.int64).to(masks.device)
        refuse_illegal(self._actions, masks)

    def step_wait(self) -> VecEnvStepReturn:
        """Play them.

        Returns:
            Observations, (B,) float32 rewards, (B,) bool dones and B infos.
        """
        live = np.flatnonzero(~self.held)
        rewards, dones = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
        infos: list[dict[str, Any]] = [{"held": True} if held else {} for held in self.held]
        if len(live):
            device = self.games.status.device
            which = torch.from_numpy(live).to(device)
            before = self.games.status[which].clone()
            result = self.games.step(self._actions[which], which if self.held.any() else None)
            reward = self._reward(which, result.reward[:, None], before, self.games.status[which][:, None])
            rewards[live] = reward[:, 0].cpu().numpy()
            truncated = result.truncated.cpu().numpy()
            dones[live] = result.terminated.cpu().numpy() | truncated
            self._returns[live] += rewards[live]
            self._lengths[live] += 1
            for game, late in zip(live, truncated, strict=True):
                infos[game]["TimeLimit.truncated"] = bool(late)
        observation = self._finish(dones, infos)
        return observation, rewards, dones, infos

    def _finish(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> dict[str, Any]:
        """Fill in the infos of finished games and hold or restart them; return the next observations."""
        finished = np.flatnonzero(dones)
        if not len(finished):
            return self._observe()
        last = self._observe(finished)
        for place, game in enumerate(finished):
            infos[game]["terminal_observation"] = {name: values[place] for name, values in last.items()}
            infos[game]["episode"] = {
                "r": float(self._returns[game]),
                "l": int(self._lengths[game]),
                "t": 0.0,
            }
        if self.hold:
            self.held[finished] = True
        else:
            self._begin(finished)
        return self._observe()

    def _reward(self, which: Tensor, dice: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Return the rewards of K outcomes of the games ``which`` (k,).

        Args:
            which: (k,) int64.
            dice: (k, K) float32, the role's change of Dice.
            before: (k, N) int8.
            after: (k, K, N) int8.

        Returns:
            (k, K) float32.
        """
        reward = self.dice_weight * dice
        if self.potential is None:
            return reward
        where = (self.games.rows[which], self.reference[which])
        rated = [self.potential(where[0], status, where[1]) for status in (before[:, None], after)]
        return reward + rated[1] - rated[0]

    def branch(self, games: Tensor, actions: Tensor) -> Tried:
        """Tell what K further actions of k games would bring; nothing changes.

        Args:
            games: (k,) int64.
            actions: (k, K) int64.

        Returns:
            The outcomes.
        """
        device = self.games.status.device
        games, actions = games.to(device), actions.to(device)
        branches = self.games.branch(actions, games)
        shape, seen = actions.shape, None
        if self.feedback:
            parents = self.games.rows[games].repeat_interleave(shape[1])
            seen = self.games.simulator.feedback(parents, branches.segmentation.logits)
        reward = self._reward(games, branches.reward, self.games.status[games], branches.status)
        return Tried(
            reward.cpu().numpy(),
            pack_status(branches.status).cpu().numpy(),
            branches.terminated.cpu().numpy(),
            None if seen is None else pack_shares(seen).view(*shape, -1).cpu().numpy(),
            branches.segmentation.predicted_iou.view(shape).cpu().numpy(),
        )

    def _begin(self, which: np.ndarray) -> None:
        starts, device = self.starts.draw(len(which)), self.reference.device
        games = torch.from_numpy(which).to(device)
        self.reference[games] = starts.reference.to(device)
        self.games.begin(games, starts.rows, starts.status, starts.steps, starts.attacking)
        self._returns[which] = 0
        self._lengths[which] = 0

    def _observe(self, which: np.ndarray | None = None) -> dict[str, Any]:
        """Look at the games ``which`` (k,), or at all of them."""
        games = self.games
        chosen = games.everyone() if which is None else torch.from_numpy(which).to(games.rows.device)
        left = games.steps_left[chosen] / games.steps_total[chosen].clamp(min=1)
        observation = {
            "scene": games.rows[chosen][:, None],
            "status": games.status[chosen],
            "steps_left": left.clamp(0, 1)[:, None].float(),
            "action_mask": self._legal()[chosen].to(torch.int8),
        }
        if self.feedback:
            observation["feedback"] = games.feedback(chosen)
            observation["predicted_iou"] = games.predicted_iou[chosen].clamp(0, 1)[:, None]
        if self.initial_mask:
            observation["initial_mask"] = games.initial_mask[chosen].to(torch.int8)
        if self.seen:
            observation["seen"] = games.seen[chosen]
        if self.on_device:
            return observation
        return {name: values.cpu().numpy() for name, values in observation.items()}

    def close(self) -> None:
        """Nothing to release: the bank belongs to the process."""

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """Return an attribute of this object once per chosen game."""
        return [getattr(self, attr_name)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Refuse: the games share their settings."""
        raise PPDError(f"{attr_name!r} cannot be set for single games of a GameVecEnv: they share one batch.")

    def env_method(
        self, method_name: str, *args: Any, indices: int | Iterable[int] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Call ``action_masks`` for chosen games; other methods act on the whole batch and are refused."""
        if method_name != "action_masks":
            raise PPDError(f"{method_name!r} cannot be called for single games of a GameVecEnv.")
        masks = self.action_masks()
        return [masks[game] for game in self._chosen(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[Any], indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        """No game is wrapped."""
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: int | Iterable[int] | None) -> Sequence[int]:
        return list(self._get_indices(indices))
