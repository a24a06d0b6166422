"""What the learned agents are compared with: random moves, and greedy oracles that see the ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ppd_env.game.actions import NEGATIVE, POSITIVE, encode, stop_action
from ppd_env.game_batch import GameBatch
from ppd_env.opponents import ORACLE_POOL


class RandomControl:
    """Takes any legal action but STOP, each equally likely: random attack, or random removal.

    Attributes:
        blind: It never looks at masks, so none need be decoded while it plays.
    """

    blind = True

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Return one legal action (k,) for each game of ``which``; STOP only where nothing else is legal."""
        legal = games.legal(which)
        chosen = []
        for row, rng in zip(legal[:, :-1].cpu().numpy(), rngs, strict=True):
            candidates = np.flatnonzero(row)
            chosen.append(int(rng.choice(candidates)) if len(candidates) else stop_action(games.nodes))
        return torch.tensor(chosen, dtype=torch.int64, device=legal.device)


def _greedy(games: GameBatch, which: Tensor, actions: Tensor) -> Tensor:
    """Return the best of ``actions`` (k, K) one step ahead, STOP where none gains; ties go to the first."""
    reward, best = games.branch(actions, which).reward.max(dim=1)
    chosen = actions.gather(1, best[:, None].to(actions.device)).squeeze(1)
    return torch.where(
        reward.to(actions.device) > 0, chosen, torch.full_like(chosen, stop_action(games.nodes))
    )


class OracleAttack:
    """Tries a random pool of legal nodes with both signs, takes the most harmful, stops when none harms.

    Args:
        pool: Nodes in the pool of one step.
    """

    def __init__(self, pool: int = ORACLE_POOL) -> None:
        self.pool = pool

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Return the best action (k,) of the pool for each game of ``which``."""
        nodes = games.nodes
        legal = games.legal(which)
        free = (legal[:, :nodes] | legal[:, nodes : 2 * nodes]).cpu().numpy()
        actions = torch.full((len(which), 2 * self.pool), stop_action(nodes), dtype=torch.int64)
        for row, (possible, rng) in enumerate(zip(free, rngs, strict=True)):
            candidates = np.flatnonzero(possible)
            pool = torch.from_numpy(rng.permutation(candidates)[: self.pool])
            both = torch.cat([encode(POSITIVE, pool, nodes), encode(NEGATIVE, pool, nodes)])
            actions[row, : len(both)] = both
        actions = actions.to(legal.device)
        return _greedy(games, which, actions.masked_fill(~legal.gather(1, actions), stop_action(nodes)))


class OracleDefence:
    """Tries every removal, takes the one that raises the Dice most, stops when none does."""

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Return the best removal (k,) for each game of ``which``; ``rngs`` are not used."""
        legal = games.legal(which)
        legal[:, -1] = False
        width = max(1, int(legal.sum(dim=1).max()))
        order = legal.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
        present = legal.gather(1, order)
        return _greedy(games, which, order.masked_fill(~present, stop_action(games.nodes)))
