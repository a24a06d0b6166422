"""Exploration: an epsilon that spans the whole training, one coin per game, and masked draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ppd_env.errors import ConfigError, PPDError


@dataclass
class EpsilonSchedule:
    """Linear epsilon over the whole training, owned by whoever alternates the agents.

    SB3's own schedule restarts with every ``learn()``; this one only moves when it is told to.

    Args:
        total: Units of training (rounds, steps) until ``final`` is reached.
        initial: Epsilon at the start (the paper's 1.0).
        final: Epsilon from ``total`` on (the paper's 0.1).
        done: Units behind us; stored in checkpoints.
    """

    total: int
    initial: float = 1.0
    final: float = 0.1
    done: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.total < 1 or not 0 <= self.final <= self.initial <= 1:
            raise ConfigError("An epsilon schedule needs total >= 1 and 0 <= final <= initial <= 1.")

    @property
    def progress(self) -> float:
        """Share of the training that is behind us, in [0, 1]."""
        return min(1.0, self.done / self.total)

    @property
    def value(self) -> float:
        """Epsilon now."""
        return self.initial + self.progress * (self.final - self.initial)

    def advance(self, units: int = 1) -> None:
        """Put ``units`` of training behind us."""
        self.done += units


def check_masks(masks: Tensor) -> None:
    """Refuse masks that leave a game without any action.

    Args:
        masks: (B, A) bool.

    Raises:
        PPDError: A row is all zero.
    """
    empty = (~masks.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise PPDError(
            f"No action is legal in game(s) {empty[:5]}: the action mask is all zero. "
            "A finished game must be reset before it is asked for an action."
        )


def refuse_illegal(actions: Tensor, masks: Tensor) -> None:
    """Refuse actions that a mask forbids.

    Args:
        actions: (B,) int64.
        masks: (B, A) bool.

    Raises:
        PPDError: An action is illegal.
    """
    wrong = ~masks.gather(1, actions[:, None])[:, 0]
    if bool(wrong.any()):
        listed = ", ".join(str(a) for a in actions[wrong].tolist()[:5])
        raise PPDError(f"Illegal action(s) {listed}: only actions whose action_mask is 1 may be played.")


def draw_legal(masks: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw one legal action per game, uniformly.

    Args:
        masks: (B, A) bool, no row all zero.
        rng: The generator to draw from.

    Returns:
        (B,) int64.
    """
    check_masks(masks)
    keys = torch.from_numpy(rng.random(tuple(masks.shape), dtype=np.float32)).to(masks.device)
    return keys.masked_fill(~masks, -1.0).argmax(dim=1)


def masked_argmax(values: Tensor, masks: Tensor) -> Tensor:
    """Return the best legal action per row; ties go to the first.

    Args:
        values: (B, A) float.
        masks: (B, A) bool, no row all zero.

    Returns:
        (B,) int64.
    """
    return mask_values(values, masks).argmax(dim=1)


def mask_values(values: Tensor, masks: Tensor) -> Tensor:
    """Put illegal actions at the lowest finite value (minus infinity times zero would be NaN in a target)."""
    return values.masked_fill(~masks, torch.finfo(values.dtype).min)


def epsilon_greedy(greedy: Tensor, masks: Tensor, epsilon: float, rng: np.random.Generator) -> Tensor:
    """Replace greedy actions by random legal ones, one coin per game.

    Args:
        greedy: (B,) int64.
        masks: (B, A) bool.
        epsilon: Chance of a random action.
        rng: The generator to draw from.

    Returns:
        (B,) int64.
    """
    coins = torch.from_numpy(rng.random(len(greedy)) < epsilon).to(masks.device)
    return torch.where(coins, draw_legal(masks, rng), greedy)


def draw_branches(
    values: Tensor, masks: Tensor, count: int, greedy_share: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Choose further actions of the same states, to be tried and stored beside the one that is played.

    The first part of each row is the best by value, so that what the agent is about to do is looked at; the
    rest is uniform. All are different, STOP is left out, whose worth is known.

    Args:
        values: (B, A) float, Q-values.
        masks: (B, A) bool.
        count: K.
        greedy_share: Share of K that goes by value.
        rng: The generator to draw from.

    Returns:
        actions: (B, K) int64.
        useful: (B, K) bool, False where a state has fewer than K candidates (STOP stands there).
    """
    masks = masks.clone()
    masks[:, -1] = False
    by_value = round(count * greedy_share)
    keys = torch.from_numpy(rng.random(tuple(masks.shape), dtype=np.float32)).to(masks.device)
    if by_value:
        best = mask_values(values, masks).topk(min(by_value, masks.shape[1]), dim=1).indices
        keys = keys.scatter_add(1, best, torch.ones_like(best, dtype=keys.dtype))
    top = keys.masked_fill(~masks, -1.0).topk(min(count, masks.shape[1]), dim=1)
    useful = top.values >= 0
    return top.indices.masked_fill(~useful, masks.shape[1] - 1), useful
