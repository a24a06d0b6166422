"""Replay memory of the prompt game behind SB3's hook: compact transitions in, tensors on the device out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from ppd_agents.dqn.transition_store import (
    Drawn,
    Transitions,
    TransitionStore,
    pack_bits,
    pack_shares,
    pack_status,
    unpack_bits,
    unpack_shares,
    unpack_status,
)
from ppd_env.errors import ConfigError
from ppd_env.game.actions import legal_actions


class SceneSamples(NamedTuple):
    """B transitions for a gradient step: SB3's ``DictReplayBufferSamples`` and how they were drawn.

    Attributes:
        observations: ``scene`` (B,), ``status`` (B, N), and feedback where stored.
        actions: (B, 1) int64.
        next_observations: The same afterwards, and ``action_mask`` (B, 2N + 1) bool.
        dones: (B, 1) float32.
        rewards: (B, 1) float32, n-step returns where asked for.
        discounts: (B, 1) float32, what the value of the next state counts.
        weights: (B, 1) float32 importance weights, or None where every state is equally likely.
        drawn: The same on the host, for ``SceneReplayBuffer.reweigh``.
    """

    observations: dict[str, Tensor]
    actions: Tensor
    next_observations: dict[str, Tensor]
    dones: Tensor
    rewards: Tensor
    discounts: Tensor
    weights: Tensor | None
    drawn: Drawn


class Tried(NamedTuple):
    """What K actions of k states would bring, as arrays; see ``GameBatch.branch``.

    Attributes:
        reward: (k, K) float32.
        status: (k, K, 2, ceil(N / 8)) uint8, packed by ``pack_status``.
        terminated: (k, K) bool.
        feedback: (k, K, N) uint8 from ``pack_shares``, or None.
        predicted_iou: (k, K) float32.
    """

    reward: np.ndarray
    status: np.ndarray
    terminated: np.ndarray
    feedback: np.ndarray | None
    predicted_iou: np.ndarray


class Batch(NamedTuple):
    """What a gradient step learns from: transitions and, for suspicion, states under attack."""

    data: SceneSamples | DictReplayBufferSamples
    attacked: tuple[Tensor, Tensor, Tensor] | None


def stored(
    values: np.ndarray | Tensor, games: np.ndarray, pack: Callable[[Tensor], Tensor] = lambda given: given
) -> np.ndarray:
    """Bring what some games show to the host in the form it is stored in.

    Args:
        values: (B, ...) for all games, an array or a tensor on any device.
        games: (k,) int64, which games.
        pack: Makes the stored form; on the device of ``values``, so that nothing else has to travel.

    Returns:
        (k, ...) as ``pack`` makes it.
    """
    tensor = torch.as_tensor(values)
    packed: np.ndarray = pack(tensor[torch.from_numpy(games).to(tensor.device)]).cpu().numpy()
    return packed


def _side_by_side(
    ours: np.ndarray, played: Transitions, theirs: np.ndarray, tried: Transitions
) -> tuple[Transitions, np.ndarray]:
    """Merge the transitions of games ``ours`` (B,) and ``theirs`` (T,) game by game, the played one first.

    Returns:
        The transitions, and (B,) how many each game has; ``theirs`` must be among ``ours``, both ascending.
    """
    games = np.concatenate([ours, theirs])
    order = np.argsort(games, kind="stable")
    merged = (
        None if a is None or b is None else np.concatenate([a, b])[order]
        for a, b in zip(played, tried, strict=True)
    )
    return Transitions(*merged), np.unique(games, return_counts=True)[1]  # type: ignore[arg-type]


class SceneReplayBuffer(ReplayBuffer):
    """``TransitionStore`` behind SB3's ``replay_buffer_class`` hook, for compact observations.

    Args:
        buffer_size: Transitions kept.
        observation_space: Dict with ``scene``, ``status`` (N,), and with ``feedback`` (N,) and
            ``predicted_iou`` or ``initial_mask`` (N,) where the agent sees them.
        action_space: ``Discrete(2N + 1)``.
        device: Where samples go.
        n_envs: Games per step.
        optimize_memory_usage: Must be False; there is nothing to gain.
        attacking: Whose moves are stored; decides which actions are legal afterwards.
        rng: Draws the samples.
        truth: (S, N) bool where the attacker may only give a node its true sign, else None.
        tried: K, further actions of each state that are handed to ``hold`` before the one that is played; a
            batch is then drawn in runs of K + 1, fewer where a state had fewer.
        n_step: Steps a return of a played action looks ahead; tried ones always look one step ahead.
        gamma: Discount.
        prioritised: Draw states by the size of their TD errors instead of evenly.
    """

    handle_timeout_termination = True  # what is cut off at a time limit is stored as going on; SB3 asks

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        *,
        attacking: bool,
        rng: np.random.Generator,
        truth: Tensor | None = None,
        tried: int = 0,
        n_step: int = 1,
        gamma: float = 1.0,
        prioritised: bool = False,
    ) -> None:
        if optimize_memory_usage or not isinstance(observation_space, spaces.Dict):
            raise ConfigError("SceneReplayBuffer needs a Dict observation and optimize_memory_usage=False.")
        missing = {"scene", "status"} - set(observation_space.spaces)
        if missing:
            raise ConfigError(
                f"SceneReplayBuffer needs the compact observation; missing: {', '.join(sorted(missing))}."
            )
        # ReplayBuffer.__init__ would allocate whole observations.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        status_shape = observation_space["status"].shape
        assert status_shape is not None
        self.feedback = "feedback" in observation_space.spaces
        self.initial_mask = "initial_mask" in observation_space.spaces
        if n_step < 1:
            raise ConfigError(f"n_step must be at least 1, got {n_step}.")
        self.nodes = status_shape[0]
        self.store = TransitionStore(
            buffer_size, self.nodes, self.feedback, self.initial_mask, n_envs, prioritised
        )
        self.attacking, self.rng, self.truth, self.tried = attacking, rng, truth, tried
        self.n_step, self.gamma, self.prioritised = n_step, gamma, prioritised
        self._held: tuple[np.ndarray, Transitions] | None = None

    def size(self) -> int:
        """Return how many transitions are stored."""
        return self.store.count

    def hold(self, games: np.ndarray, tried: Transitions) -> None:
        """Keep tried actions until the action each game really plays is added, and store them beside it.

        Args:
            games: (B,) int64, the game of each transition.
            tried: B transitions.
        """
        self._held = (games, tried)

    def hold_tried(
        self, live: Tensor, observation: dict[str, Any], actions: Tensor, useful: Tensor, tried: Tried
    ) -> None:
        """Hold what K tried actions of k games would bring.

        Args:
            live: (k,) int64, the games.
            observation: What all games show.
            actions: (k, K) int64.
            useful: (k, K) bool, which of them count.
            tried: The outcomes, see ``GameVecEnv.branch``.
        """
        keep = useful.cpu().numpy()
        parents = live.cpu().numpy()[keep.nonzero()[0]]
        extras: dict[str, np.ndarray] = {}
        if self.feedback:
            assert tried.feedback is not None
            extras = {
                "feedback": stored(observation["feedback"], parents, pack_shares),
                "iou": stored(observation["predicted_iou"], parents).reshape(-1),
                "next_feedback": tried.feedback[keep],
                "next_iou": tried.predicted_iou[keep],
            }
        if self.initial_mask:
            extras["initial_mask"] = stored(observation["initial_mask"], parents, pack_bits)
        found = Transitions(
            rows=stored(observation["scene"], parents).reshape(-1),
            status=stored(observation["status"], parents, pack_status),
            actions=actions.cpu().numpy()[keep],
            rewards=tried.reward[keep],
            dones=tried.terminated[keep],
            next_status=tried.status[keep],
            **extras,
        )
        self.hold(parents, found)

    def add(  # type: ignore[override]
        self,
        obs: dict[str, Any],
        next_obs: dict[str, Any],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step of each game; one that waits for its round to end (``info["held"]``) is left out."""
        live = np.array([not info.get("held", False) for info in infos])
        late = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        games = np.flatnonzero(live)
        extras: dict[str, np.ndarray] = {}
        if self.feedback:
            for prefix, given in (("", obs), ("next_", next_obs)):
                extras[prefix + "feedback"] = stored(given["feedback"], games, pack_shares)
                extras[prefix + "iou"] = stored(given["predicted_iou"], games).reshape(-1)
        if self.initial_mask:
            extras["initial_mask"] = stored(obs["initial_mask"], games, pack_bits)
        played = Transitions(
            rows=stored(obs["scene"], games).reshape(-1),
            status=stored(obs["status"], games, pack_status),
            actions=np.asarray(action).reshape(len(live))[live],
            rewards=reward[live],
            dones=(done.astype(bool) & ~late)[live],
            next_status=stored(next_obs["status"], games, pack_status),
            **extras,
        )
        lengths = None
        if self._held is not None:
            played, lengths = _side_by_side(games, played, *self._held)
            self._held = None
        self.store.add(played, lengths, games)

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None, *, beta: float = 1.0
    ) -> SceneSamples:
        """Draw all transitions of some states; only their packed form travels to the device.

        Args:
            batch_size: B at most; as many states are drawn as fit with K + 1 actions each, one at least.
            env: SB3's normaliser; not supported, must be None.
            beta: How far the importance weights of a prioritised memory correct; 1 fully.

        Returns:
            The transitions, with the mask of the actions legal afterwards.
        """
        runs = max(1, batch_size // (self.tried + 1))
        drawn = self.store.sample(runs, self.rng, n_step=self.n_step, gamma=self.gamma, beta=beta)
        found = drawn.transitions
        before = self._observation(found.rows, found.status, found.feedback, found.iou)
        after = self._observation(found.rows, found.next_status, found.next_feedback, found.next_iou)
        if found.initial_mask is not None:
            bits = torch.from_numpy(found.initial_mask).to(self.device)
            before["initial_mask"] = after["initial_mask"] = unpack_bits(bits, self.nodes)
        rows, status = after["scene"], after["status"]
        mover = torch.full((len(rows),), self.attacking, device=self.device)
        truth = None if self.truth is None else self.truth[rows]
        # STOP always counts here: whoever may stop never has to expect less than 0.
        after["action_mask"] = legal_actions(status, mover, truth=truth)
        return SceneSamples(
            before,
            self._column(found.actions).long(),
            after,
            self._column(found.dones).float(),
            self._column(found.rewards),
            self._column(drawn.discounts),
            None if drawn.weights is None else self._column(drawn.weights),
            drawn,
        )

    def _column(self, values: np.ndarray) -> Tensor:
        """Bring (B,) numbers to the device, (B, 1)."""
        return torch.from_numpy(values)[:, None].to(self.device)

    def _observation(
        self, rows: np.ndarray, status: np.ndarray, feedback: np.ndarray | None, iou: np.ndarray | None
    ) -> dict[str, Tensor]:
        bits = torch.from_numpy(status).to(self.device)
        observation = {
            "scene": torch.from_numpy(rows).to(self.device).long(),
            "status": unpack_status(bits, self.nodes),
        }
        if feedback is not None and iou is not None:
            observation["feedback"] = unpack_shares(torch.from_numpy(feedback).to(self.device))
            observation["predicted_iou"] = torch.from_numpy(iou).to(self.device)
        return observation

    def reweigh(self, samples: SceneSamples, errors: Tensor) -> None:
        """Set the priorities of drawn states, where they have any, by the TD errors (B, 1)."""
        if self.prioritised:
            self.store.reweigh(samples.drawn, errors.detach().flatten().cpu().numpy())
