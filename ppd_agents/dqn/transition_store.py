"""Transitions of the prompt game in a ring: a scene index and two sets of bits instead of an observation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_agents.dqn.priorities import draw_proportionally, importance_weights, priority_of
from ppd_env.errors import ConfigError, PPDError
from ppd_env.game.actions import NEGATIVE, POSITIVE

_NONE = -1
"""Stands where no following transition is known."""

_BLOCK = 64
"""Slots whose runs are counted together, so that drawing one looks at few slots of a large memory."""


class Transitions(NamedTuple):
    """A batch of B transitions, as they are stored.

    Attributes:
        rows: (B,) integer, scene of each.
        status: (B, 2, ceil(N / 8)) uint8 before the action, from ``pack_status``.
        actions: (B,) integer.
        rewards: (B,) float32.
        dones: (B,) bool, the episode terminated (running out of steps does not count).
        next_status: (B, 2, ceil(N / 8)) uint8 after it.
        feedback, next_feedback: (B, N) uint8 from ``pack_shares``, or None where it is not stored.
        iou, next_iou: (B,) float32, or None where it is not stored.
        initial_mask: (B, ceil(N / 8)) uint8 from ``pack_bits``, what the mask covered when the game began, or
            None where it is not stored.
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


class Drawn(NamedTuple):
    """Whole runs of transitions, R of them, B transitions in all.

    Attributes:
        transitions: B transitions, run after run; with n-step returns ``rewards`` are discounted sums, and
            ``dones`` and what comes next are those of the last step looked at.
        discounts: (B,) float32, gamma to the power of the steps looked at: what the next state's value
            counts.
        starts: (R,) int64, the slot each run begins in.
        lengths: (R,) int64.
        weights: (B,) float32 importance weights in (0, 1], or None where every state is equally likely.
    """

    transitions: Transitions
    discounts: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray | None


def pack_status(status: Tensor) -> Tensor:
    """Pack statuses (..., N) int8 into bits, (..., 2, ceil(N / 8)) uint8: positives, negatives."""
    return pack_bits(torch.stack([status == POSITIVE, status == NEGATIVE], dim=-2))


def unpack_status(bits: Tensor, nodes: int) -> Tensor:
    """Undo ``pack_status``: (..., 2, ceil(N / 8)) uint8 -> (..., N) int8."""
    signs = unpack_bits(bits, nodes).to(torch.int8)
    return signs[..., 0, :] * POSITIVE + signs[..., 1, :] * NEGATIVE


def pack_bits(bits: Tensor) -> Tensor:
    """Pack (..., N) bool into (..., ceil(N / 8)) uint8."""
    bytewise = F.pad(bits.to(torch.uint8), (0, -bits.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (bytewise << _shifts(bits.device)).sum(-1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, nodes: int) -> Tensor:
    """Undo ``pack_bits``: (..., ceil(N / 8)) uint8 -> (..., N) bool."""
    return ((packed[..., None] >> _shifts(packed.device)) & 1).flatten(-2)[..., :nodes].bool()


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


def pack_shares(shares: Tensor) -> Tensor:
    """Round shares in [0, 1] to 255ths, uint8 of the same shape."""
    return (shares * 255).round().to(torch.uint8)


def unpack_shares(stored: Tensor) -> Tensor:
    """Undo ``pack_shares``, float32."""
    return stored.to(torch.float32) / 255


class TransitionStore:
    """A ring of transitions, about N / 2 + 24 bytes each.

    Feedback takes 2.5 N bytes more, the initial mask N / 8.

    Transitions come in runs: the several actions that were tried in one state lie side by side, the one that
    was played first. Runs are drawn whole, and a run whose first transition is overwritten is gone. The
    played transition of a state knows the one played next in its game, for n-step returns.

    Args:
        capacity: Transitions kept; the oldest are overwritten.
        nodes: N.
        feedback: Store the segmenter's feedback too.
        initial_mask: Store what the mask covered when the game began.
        games: Games that are played side by side.
        prioritised: Keep a priority for each run, and draw by it (Schaul et al., 2016).
    """

    def __init__(
        self,
        capacity: int,
        nodes: int,
        feedback: bool = False,
        initial_mask: bool = False,
        games: int = 1,
        prioritised: bool = False,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"A replay buffer needs room for at least 1 transition, got {capacity}.")
        width = (nodes + 7) // 8
        self.capacity = capacity
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
        self._given = tuple(self.arrays)
        # The length of the run that begins in a slot; 0 inside a run and where a run lost its beginning.
        self.arrays["lengths"] = np.zeros(capacity, np.int32)
        self.arrays["following"] = np.full(capacity, _NONE, np.int32)
        self.prioritised = prioritised
        if prioritised:
            self.arrays["priorities"] = np.zeros(capacity, np.float32)
        self._runs = np.zeros(-(-capacity // _BLOCK), np.int64)  # runs that begin in each block of slots
        self.latest = np.full(games, _NONE, np.int64)
        self.pos = 0
        self.count = 0

    @property
    def bytes_per_transition(self) -> float:
        """Memory of one transition in bytes."""
        return sum(a.nbytes for a in self.arrays.values()) / self.capacity

    def add(
        self, batch: Transitions, lengths: np.ndarray | None = None, games: np.ndarray | None = None
    ) -> None:
        """Store a batch of transitions.

        Args:
            batch: Run after run.
            lengths: (R,) int64, how many transitions of ``batch`` belong to each run; None: one to each.
            games: (R,) int64, the game each run comes from; None: they do not follow on anything.

        Raises:
            PPDError: The batch is larger than the ring, or it lacks the feedback that is stored.
        """
        size = len(batch.rows)
        if size > self.capacity:
            raise PPDError(f"{size} transitions at once do not fit a replay buffer of {self.capacity}.")
        lengths = np.ones(size, np.int64) if lengths is None else lengths
        where = (self.pos + np.arange(size)) % self.capacity
        starts = where[lengths.cumsum() - lengths]
        if self.prioritised:
            # As great as the greatest so far, so that each run is soon looked at once.
            known = self.arrays["priorities"][: self.count]
            greatest = known.max() if len(known) else 1.0
            self.arrays["priorities"][where] = 0
            self.arrays["priorities"][starts] = greatest
        for name in self._given:
            values = getattr(batch, name)
            if values is None:
                raise PPDError(f"This replay buffer stores {name!r}, but the transitions have none.")
            self.arrays[name][where] = values
        gone = where[self.arrays["lengths"][where] > 0]
        self._runs += self._per_block(starts) - self._per_block(gone)
        self.arrays["lengths"][where] = 0
        self.arrays["lengths"][starts] = lengths
        self.arrays["following"][where] = _NONE
        self.latest[np.isin(self.latest, where)] = _NONE
        if games is not None:
            self._link(games, starts)
        self.pos = (self.pos + size) % self.capacity
        self.count = min(self.capacity, self.count + size)

    def _link(self, games: np.ndarray, starts: np.ndarray) -> None:
        """Tell each game's latest transition what followed, where the game went on from where that led."""
        before = self.latest[games]
        arrays = self.arrays
        follows = (before != _NONE) & (arrays["rows"][before] == arrays["rows"][starts])
        follows &= (arrays["next_status"][before] == arrays["status"][starts]).all(axis=(1, 2))
        arrays["following"][before[follows]] = starts[follows]
        self.latest[games] = starts

    def sample(
        self, runs: int, rng: np.random.Generator, *, n_step: int = 1, gamma: float = 1.0, beta: float = 1.0
    ) -> Drawn:
        """Draw whole runs with replacement: every state is equally likely, or likely by its priority.

        So states, not transitions, are drawn evenly: where fewer actions of a state were tried, each of them
        comes as often as each of another state's.

        Args:
            runs: R, how many.
            rng: The generator to draw from.
            n_step: Steps a return looks ahead. Only actions that were played go on to a stored transition;
                the others look one step ahead. Fewer where the game ends or the memory does.
            gamma: Discount.
            beta: How far importance weights correct for drawing by priority; 1 fully.

        Returns:
            The transitions, run after run.

        Raises:
            PPDError: Nothing is stored yet.
        """
        if not self.count:
            raise PPDError("The replay buffer is empty: collect steps before training.")
        weights = None
        if self.prioritised:
            stored = np.flatnonzero(self.arrays["lengths"][: self.count])
            priorities = self.arrays["priorities"][stored]
            chosen = draw_proportionally(priorities, runs, rng)
            weights = importance_weights(priorities, chosen, beta)
            starts = stored[chosen]
        else:
            starts = self._nth_runs(rng.integers(self._runs.sum(), size=runs))
        lengths = self.arrays["lengths"][starts].astype(np.int64)
        inside = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        where = (np.repeat(starts, lengths) + inside) % self.capacity
        transitions, discounts = self._returns(where, n_step, gamma)
        if weights is not None:
            weights = np.repeat(weights, lengths)
        return Drawn(transitions, discounts, starts, lengths, weights)

    def _per_block(self, slots: np.ndarray) -> np.ndarray:
        """Count slots by block."""
        return np.bincount(slots // _BLOCK, minlength=len(self._runs))

    def _nth_runs(self, numbers: np.ndarray) -> np.ndarray:
        """Return the slots in which the runs of these ``numbers`` (R,) begin, counted by ascending slot."""
        ends = self._runs.cumsum()
        block = np.searchsorted(ends, numbers, side="right")
        slots = block[:, None] * _BLOCK + np.arange(_BLOCK)
        begins = self.arrays["lengths"].take(slots, mode="clip") > 0
        begins &= slots < self.capacity
        inside = numbers - (ends - self._runs)[block]
        chosen: np.ndarray = slots[:, 0] + (begins.cumsum(axis=1) > inside[:, None]).argmax(axis=1)
        return chosen

    def _returns(self, where: np.ndarray, n_step: int, gamma: float) -> tuple[Transitions, np.ndarray]:
        """Return the transitions in the slots ``where`` with their n-step returns, and the discounts."""
        arrays = self.arrays
        last, rewards = where.copy(), arrays["rewards"][where]
        discounts = np.full(len(where), gamma, np.float32)
        for _ in range(n_step - 1):
            ahead = arrays["following"][last]
            on = (ahead != _NONE) & ~arrays["dones"][last]
            last[on] = ahead[on]
            rewards[on] += discounts[on] * arrays["rewards"][last[on]]
            discounts[on] *= np.float32(gamma)
        found: dict[str, Any] = {
            name: arrays[name][last if name.startswith("next_") or name == "dones" else where]
            for name in self._given
        }
        return Transitions(**found | {"rewards": rewards}), discounts

    def reweigh(self, drawn: Drawn, errors: np.ndarray) -> None:
        """Give the drawn runs the priorities of what they taught.

        Args:
            drawn: From ``sample``, since which nothing was added.
            errors: (B,) float32 TD errors of its transitions. A run has one priority, from their mean size.
        """
        sums = np.add.reduceat(np.abs(errors), drawn.lengths.cumsum() - drawn.lengths)
        self.arrays["priorities"][drawn.starts] = priority_of(sums / drawn.lengths)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the filled part of the ring, its position and each game's latest slot, as arrays."""
        filled = {name: a[: self.count] for name, a in self.arrays.items()}
        return filled | {"pos": np.array([self.pos]), "latest": self.latest}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Take up what ``state_dict`` returned.

        Raises:
            PPDError: It holds other arrays, other games, or more transitions than fit.
        """
        fits = set(state) == {*self.arrays, "pos", "latest"} and len(state["rows"]) <= self.capacity
        if not fits or len(state["latest"]) != len(self.latest):
            raise PPDError("The stored replay does not fit this run: it was made with other settings.")
        self.count, self.pos = len(state["rows"]), int(state["pos"][0])
        self.latest[:] = state["latest"]
        for name, array in self.arrays.items():
            array[: self.count] = state[name]
        # What an earlier state left behind them must not be taken for runs that are overwritten.
        self.arrays["lengths"][self.count :] = 0
        self.arrays["following"][self.count :] = _NONE
        self._runs = self._per_block(np.flatnonzero(self.arrays["lengths"][: self.count]))
