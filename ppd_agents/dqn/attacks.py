"""Remembered attacks, for teaching a defender which prompts were not there before."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ppd_agents.dqn.transition_store import pack_status, unpack_status
from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE

_CLEAN = 0.15
"""Share of the drawn states without any prompt of the attack."""

_RANDOM = 0.2
"""Share of the drawn states whose attack is replaced by as many random prompts."""

_WHOLE = 0.5
"""Share of the drawn states after the whole attack; the others come after a part of it."""

_RIGHT_LOST = 0.15
"""Most of the right prompts that a drawn state may have lost."""


class AttackMemory:
    """A ring of attacks: scene, prompts before, and the actions in their order.

    No mask is needed to know which prompts came from an attack, so every state on its way serves, at no cost.
    None on the way back does: a defender judges by all prompts it has seen (``GraphState.evidence``).

    Args:
        capacity: Attacks kept; the oldest are overwritten.
        nodes: N.
        steps: Longest attack.
    """

    def __init__(self, capacity: int, nodes: int, steps: int) -> None:
        self.capacity, self.nodes = capacity, nodes
        self.arrays: dict[str, np.ndarray] = {
            "rows": np.zeros(capacity, np.int32),
            "status": np.zeros((capacity, 2, (nodes + 7) // 8), np.uint8),
            "actions": np.full((capacity, steps), -1, np.int32),
        }
        self.pos = 0
        self.count = 0

    def clear(self) -> None:
        """Forget all attacks."""
        self.pos = self.count = 0

    def add(self, rows: Tensor, status: Tensor, actions: Tensor) -> None:
        """Store attacks.

        Args:
            rows: (B,) int64.
            status: (B, N) int8, the prompts before.
            actions: (B, T) int64 in [0, 2N), or -1 where nothing was played.
        """
        where = (self.pos + np.arange(len(rows))) % self.capacity
        self.arrays["rows"][where] = rows.cpu().numpy()
        self.arrays["status"][where] = pack_status(status).cpu().numpy()
        self.arrays["actions"][where] = -1
        self.arrays["actions"][where, : actions.shape[1]] = actions.cpu().numpy()
        self.pos = int((self.pos + len(rows)) % self.capacity)
        self.count = min(self.capacity, self.count + len(rows))

    def sample(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw states that a defender may begin with: after a part of an attack, some right prompts missing.

        Args:
            size: B.
            rng: The generator to draw from.

        Returns:
            rows: (B,) int64.
            status: (B, N) int8, with a positive prompt wherever there was one.
            foreign: (B, N) bool, active prompts that came from the attack.

        Raises:
            PPDError: Nothing is stored yet.
        """
        if not self.count:
            raise PPDError("No attack is remembered yet: add some before training.")
        drawn = rng.integers(self.count, size=size)
        before = unpack_status(torch.from_numpy(self.arrays["status"][drawn]), self.nodes).numpy()
        status = self._attacked(before, self.arrays["actions"][drawn], rng)
        foreign = (status != INACTIVE) & (status != before)
        share = _RIGHT_LOST * rng.random(size) * rng.integers(0, 2, size)
        gone = (rng.random(status.shape) < share[:, None]) & ~foreign
        left = np.where(gone, INACTIVE, status).astype(np.int8)
        stranded = ~(left == POSITIVE).any(axis=1)
        left[stranded] = status[stranded]
        rows = torch.from_numpy(self.arrays["rows"][drawn].astype(np.int64))
        return rows, torch.from_numpy(left), torch.from_numpy(foreign)

    def _attacked(self, before: np.ndarray, actions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Play a random part of each attack: (B, N), (B, T) -> (B, N)."""
        played = (actions >= 0).cumsum(axis=1)
        lengths = played[:, -1]
        at_random = rng.random((len(before), 1)) < _RANDOM
        anywhere = self._anywhere(before, actions.shape[1], rng)
        actions = np.where(at_random & (actions >= 0), anywhere, actions)
        coins = rng.random(len(before))
        part = rng.integers(1, np.maximum(lengths, 1), endpoint=True)
        part = np.where(coins < _CLEAN, 0, np.where(coins < _CLEAN + _WHOLE, lengths, part))
        status = before.copy()
        game, step = np.nonzero((actions >= 0) & (played <= part[:, None]))
        chosen = actions[game, step]
        status[game, chosen % self.nodes] = np.where(chosen < self.nodes, POSITIVE, NEGATIVE)
        return status

    def _anywhere(self, before: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
        """Draw different free nodes with random signs: (B, N) -> (B, T) actions, -1 beyond the last."""
        keys = rng.random(before.shape, dtype=np.float32) + (before != INACTIVE)
        nodes = keys.argsort(axis=1)[:, :steps]
        drawn = nodes + self.nodes * rng.integers(0, 2, nodes.shape)
        return np.pad(drawn, ((0, 0), (0, steps - drawn.shape[1])), constant_values=-1)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the filled part of the ring and its position, as arrays."""
        return {name: a[: self.count] for name, a in self.arrays.items()} | {"pos": np.array([self.pos])}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Take up what ``state_dict`` returned.

        Raises:
            PPDError: It holds other arrays, or more attacks than fit.
        """
        if set(state) != {*self.arrays, "pos"} or len(state["rows"]) > self.capacity:
            raise PPDError("The stored attacks do not fit this run: it was made with other settings.")
        self.count, self.pos = len(state["rows"]), int(state["pos"][0])
        for name, array in self.arrays.items():
            array[: self.count] = state[name]
