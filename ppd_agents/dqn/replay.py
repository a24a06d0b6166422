"""Replay memory of the prompt game: a scene index and two sets of bits instead of an observation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from ppd_env.errors import ConfigError, PPDError
from ppd_env.game.actions import NEGATIVE, POSITIVE, legal_actions


class Transitions(NamedTuple):
    """A batch of B transitions.

    Attributes:
        rows: (B,) int64, scene of each.
        status: (B, N) int8 before the action.
        actions: (B,) int64.
        rewards: (B,) float32.
        dones: (B,) bool, the episode terminated (running out of steps does not count).
        next_status: (B, N) int8 after it.
        feedback, next_feedback: (B, N) float32 in [0, 1], or None where it is not stored.
        iou, next_iou: (B,) float32, or None where it is not stored.
        initial_mask: (B, N) bool, what the mask covered when the game began, or None where it is not stored.
    """

    rows: np.ndarray
    status: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    next_status: np.ndarray
    feedback: np.ndarray | None = None
    next_feedback: np.ndarray | None = None
    iou: np.ndarray | None = None
    next_iou: np.ndarray | None = None
    initial_mask: np.ndarray | None = None


def pack_status(status: np.ndarray) -> np.ndarray:
    """Pack statuses (B, N) int8 into bits, (B, 2, ceil(N / 8)) uint8: positives, negatives."""
    return np.packbits(np.stack([status == POSITIVE, status == NEGATIVE], axis=1), axis=-1)


def unpack_status(bits: np.ndarray, nodes: int) -> np.ndarray:
    """Undo ``pack_status``: (B, 2, ceil(N / 8)) uint8 -> (B, N) int8."""
    signs = np.unpackbits(bits, axis=-1, count=nodes).astype(np.int8)
    return np.asarray(signs[:, 0] * POSITIVE + signs[:, 1] * NEGATIVE, dtype=np.int8)


class TransitionStore:
    """A ring of transitions, about N / 2 + 18 bytes each.

    Feedback takes 2.5 N bytes more, the initial mask N / 8.

    Args:
        capacity: Transitions kept; the oldest are overwritten.
        nodes: N.
        feedback: Store the segmenter's feedback too.
        initial_mask: Store what the mask covered when the game began.
    """

    def __init__(self, capacity: int, nodes: int, feedback: bool = False, initial_mask: bool = False) -> None:
        if capacity < 1:
            raise ConfigError(f"A replay buffer needs room for at least 1 transition, got {capacity}.")
        width = (nodes + 7) // 8
        self.capacity, self.nodes = capacity, nodes
        self.arrays: dict[str, np.ndarray] = {
            "rows": np.zeros(capacity, np.int32),
            "status": np.zeros((capacity, 2, width), np.uint8),
            "actions": np.zeros(capacity, np.int32),
            "rewards": np.zeros(capacity, np.float32),
            "dones": np.zeros(capacity, bool),
            "next_status": np.zeros((capacity, 2, width), np.uint8),
        }
        if feedback:
            for name in ("feedback", "next_feedback"):
                self.arrays[name] = np.zeros((capacity, nodes), np.uint8)
            for name in ("iou", "next_iou"):
                self.arrays[name] = np.zeros(capacity, np.float32)
        if initial_mask:
            self.arrays["initial_mask"] = np.zeros((capacity, width), np.uint8)
        self.pos = 0
        self.count = 0

    @property
    def bytes_per_transition(self) -> float:
        """Memory of one transition in bytes."""
        return sum(a.nbytes for a in self.arrays.values()) / self.capacity

    def add(self, batch: Transitions) -> None:
        """Store a batch of transitions.

        Raises:
            PPDError: The buffer stores feedback and the batch has none.
        """
        size = len(batch.rows)
        if size > self.capacity:
            raise PPDError(f"{size} transitions at once do not fit a replay buffer of {self.capacity}.")
        where = (self.pos + np.arange(size)) % self.capacity
        for name, array in self.arrays.items():
            values = getattr(batch, name)
            if values is None:
                raise PPDError(f"This replay buffer stores {name!r}, but the transitions have none.")
            if name.endswith("status"):
                values = pack_status(values)
            elif name.endswith("feedback"):
                values = np.rint(values * 255)
            elif name == "initial_mask":
                values = np.packbits(values.astype(bool), axis=-1)
            array[where] = values
        self.pos = (self.pos + size) % self.capacity
        self.count = min(self.capacity, self.count + size)

    def sample(self, size: int, rng: np.random.Generator, run: int = 1) -> Transitions:
        """Draw stored transitions uniformly, with replacement.

        Args:
            size: How many; rounded down to whole runs, one run at least.
            rng: The generator to draw from.
            run: Length of the runs of neighbours that are drawn together. Several actions of one state lie
                side by side, and a network looks at their state once.

        Returns:
            The transitions, run after run.

        Raises:
            PPDError: Nothing is stored yet.
        """
        if not self.count:
            raise PPDError("The replay buffer is empty: collect steps before training.")
        firsts = rng.integers(-(-self.count // run), size=max(1, size // run)) * run
        where = (firsts[:, None] + np.arange(run)).reshape(-1) % self.count
        drawn: dict[str, Any] = {}
        for name, array in self.arrays.items():
            values = array[where]
            if name.endswith("status"):
                values = unpack_status(values, self.nodes)
            elif name.endswith("feedback"):
                values = values.astype(np.float32) / 255
            elif name == "initial_mask":
                values = np.unpackbits(values, axis=-1, count=self.nodes).astype(bool)
            elif name in ("rows", "actions"):
                values = values.astype(np.int64)
            drawn[name] = values
        return Transitions(**drawn)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the filled part of the ring and its position, as arrays."""
        return {name: a[: self.count] for name, a in self.arrays.items()} | {"pos": np.array([self.pos])}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Take up what ``state_dict`` returned.

        Raises:
            PPDError: It holds other arrays, or more transitions than fit.
        """
        if set(state) != {*self.arrays, "pos"} or len(state["rows"]) > self.capacity:
            raise PPDError("The stored replay does not fit this run: it was made with other settings.")
        self.count, self.pos = len(state["rows"]), int(state["pos"][0])
        for name, array in self.arrays.items():
            array[: self.count] = state[name]


def _side_by_side(
    ours: np.ndarray, played: Transitions, theirs: np.ndarray, tried: Transitions
) -> Transitions:
    """Merge the transitions of games ``ours`` (B,) and ``theirs`` (T,) game by game, the played one first."""
    order = np.argsort(np.concatenate([ours, theirs]), kind="stable")
    merged = (
        None if a is None or b is None else np.concatenate([a, b])[order]
        for a, b in zip(played, tried, strict=True)
    )
    return Transitions(*merged)  # type: ignore[arg-type]


class SceneReplayBuffer(ReplayBuffer):
    """``TransitionStore`` behind SB3's ``replay_buffer_class`` hook, for compact observations.

    Args:
        buffer_size: Transitions kept.
        observation_space: Dict with ``scene``, ``status`` (N,), and with ``feedback`` (N,) and
            ``predicted_iou`` where the agent sees them.
        action_space: ``Discrete(2N + 1)``.
        device: Where samples go.
        n_envs: Games per step.
        optimize_memory_usage: Must be False; there is nothing to gain.
        attacking: Whose moves are stored; decides which actions are legal afterwards.
        rng: Draws the samples.
        truth: (S, N) bool where the attacker may only give a node its true sign, else None.
        tried: K, further actions of each state that are handed to ``hold`` before the one that is played; a
            batch is then drawn in runs of K + 1.
    """

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
        self.store = TransitionStore(buffer_size, status_shape[0], self.feedback, self.initial_mask)
        self.attacking, self.rng, self.truth, self.tried = attacking, rng, truth, tried
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

    def add(  # type: ignore[override]
        self,
        obs: dict[str, np.ndarray],
        next_obs: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one step of each game; one that waits for its round to end (``info["held"]``) is left out."""
        live = np.array([not info.get("held", False) for info in infos])
        late = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        extras: dict[str, np.ndarray] = {}
        if self.feedback:
            for prefix, given in (("", obs), ("next_", next_obs)):
                extras[prefix + "feedback"] = given["feedback"][live]
                extras[prefix + "iou"] = given["predicted_iou"].reshape(len(live))[live]
        if self.initial_mask:
            extras["initial_mask"] = obs["initial_mask"][live]
        played = Transitions(
            rows=np.asarray(obs["scene"]).reshape(len(live))[live],
            status=obs["status"][live],
            actions=np.asarray(action).reshape(len(live))[live],
            rewards=reward[live],
            dones=(done.astype(bool) & ~late)[live],
            next_status=next_obs["status"][live],
            **extras,
        )
        if self._held is not None:
            games, tried = self._held
            self._held = None
            played = _side_by_side(np.flatnonzero(live), played, games, tried)
        self.store.add(played)

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        """Draw transitions; ``next_observations`` carries the mask of the actions legal afterwards.

        Args:
            batch_size: B; rounded down to whole runs of the actions of one state.
            env: SB3's normaliser; not supported, must be None.

        Returns:
            Observations with ``scene`` (B,), ``status`` (B, N) and feedback where stored; actions, rewards
            and dones are (B, 1).
        """
        drawn = self.store.sample(batch_size, self.rng, self.tried + 1)
        rows = torch.from_numpy(drawn.rows).to(self.device)
        after = torch.from_numpy(drawn.next_status).to(self.device)
        before = {"scene": rows, "status": torch.from_numpy(drawn.status).to(self.device)}
        mover = torch.full((len(rows),), self.attacking, device=self.device)
        truth = None if self.truth is None else self.truth[rows]
        # STOP always counts here: whoever may stop never has to expect less than 0.
        following = {"scene": rows, "status": after, "action_mask": legal_actions(after, mover, truth=truth)}
        if drawn.feedback is not None and drawn.next_feedback is not None:
            before["feedback"] = self.to_torch(drawn.feedback)
            following["feedback"] = self.to_torch(drawn.next_feedback)
            before["predicted_iou"] = self.to_torch(drawn.iou)  # type: ignore[arg-type]
            following["predicted_iou"] = self.to_torch(drawn.next_iou)  # type: ignore[arg-type]
        if drawn.initial_mask is not None:
            before["initial_mask"] = following["initial_mask"] = self.to_torch(drawn.initial_mask)
        return DictReplayBufferSamples(
            before,
            torch.from_numpy(drawn.actions)[:, None].to(self.device),
            following,
            torch.from_numpy(drawn.dones.astype(np.float32))[:, None].to(self.device),
            torch.from_numpy(drawn.rewards)[:, None].to(self.device),
        )
