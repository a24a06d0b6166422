"""Whole episodes of one role on many scenes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ppd_env.game_batch import GameBatch
from ppd_env.simulator import Simulator


class Policy(Protocol):
    """Chooses actions; every ``ppd_env.opponents.Opponent`` is one."""

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Return one legal action (k,) int64 for each game of ``which`` (k,), with one generator for each."""
        ...


def generators(seed: int, indices: Sequence[int], purpose: int) -> list[np.random.Generator]:
    """Return one generator per scene that depends on (seed, purpose, index of the scene) only."""
    return [np.random.default_rng([seed, purpose, index]) for index in indices]


def is_blind(policy: Policy) -> bool:
    """Tell whether a policy never looks at masks while it plays: then none need be decoded."""
    return bool(getattr(policy, "blind", False))


class _Table:
    """B games of one role, decoded at every step only where the policy looks at masks."""

    def __init__(
        self, simulator: Simulator, rows: Tensor, status: Tensor, steps: int, attacking: bool, policy: Policy
    ) -> None:
        self.games = GameBatch(simulator, len(rows))
        self.blind = is_blind(policy)
        sides = torch.full_like(rows, attacking, dtype=torch.bool)
        unseen = self.blind and not getattr(policy, "looks_once", False)
        begin = self.games.deal if unseen else self.games.begin
        begin(self.games.everyone(), rows, status, torch.full_like(rows, steps), sides)

    def step(self, live: Tensor, actions: Tensor) -> Tensor:
        """Play one action in each game of ``live`` (k,); return which are over, (k,) bool."""
        if self.blind:
            return self.games.skip(actions, live)
        return self.games.step(actions, which=live).terminated


@torch.no_grad()
def play(
    simulator: Simulator,
    rows: Tensor,
    status: Tensor,
    policy: Policy,
    *,
    attacking: bool,
    budgets: Sequence[int],
    rngs: Sequence[np.random.Generator],
    progress: str = "",
) -> dict[int, Tensor]:
    """Let ``policy`` play one role on B scenes until it stops or the largest budget is used up.

    A policy that ignores the horizon plays the same prefix whatever its budget, so one episode serves all.

    Args:
        simulator: The scenes and their segmenter.
        rows: (B,) int64, rows of the bank.
        status: (B, N) int8, the prompts it starts from.
        policy: Who plays.
        attacking: Whether it attacks.
        budgets: Numbers of actions after which to look.
        rngs: One generator per scene.
        progress: Label of the progress bar; empty for none.

    Returns:
        Budget -> (B, N) int8, the prompts after at most that many actions.
    """
    longest = max(budgets)
    table = _Table(simulator, rows, status, longest, attacking, policy)
    games, seen = table.games, {}
    live = games.everyone()
    with tqdm(total=longest, desc=progress, disable=not progress, leave=False, unit="step") as bar:
        for step in range(longest + 1):
            if step in budgets:
                seen[step] = games.status.clone()
            if step == longest or len(live) == 0:
                break
            actions = policy.act(games, live, [rngs[index] for index in live.tolist()])
            live = live[~table.step(live, actions)]
            bar.update()
    return {budget: seen.get(budget, games.status.clone()) for budget in budgets}
