"""An opponent of one's own: it contradicts.

It puts a negative prompt on the patch that is most like those with positive ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ppd_env.game.actions import POSITIVE, stop_action
from ppd_env.game_batch import GameBatch


class Contradiction:
    """An attacker that looks at features and prompts only, so games need not be decoded while it plays."""

    blind = True

    def __init__(self, nearest: int = 1) -> None:
        self.nearest = nearest

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Choose one legal action for each of the k games ``which``: (k,) int64."""
        legal = games.legal(which)[:, games.nodes : 2 * games.nodes]  # negative prompts, (k, N)
        features = games.simulator.bank.features[games.rows[which]]  # (k, N, d)
        distance = torch.cdist(features, features)
        others = (games.status[which] != POSITIVE)[:, None, :]
        nearest = distance.masked_fill(others, torch.inf).amin(dim=2)  # to the nearest positive prompt
        ranked = nearest.masked_fill(~legal, torch.inf).argsort(dim=1, stable=True)
        turns = torch.tensor([int(rng.integers(self.nearest)) for rng in rngs], device=ranked.device)
        turns = turns.clamp(max=(legal.sum(dim=1) - 1).clamp(min=0))
        chosen = games.nodes + ranked.gather(1, turns[:, None]).squeeze(1)
        return torch.where(legal.any(dim=1), chosen, stop_action(games.nodes))


def load(nearest: str = "1") -> Contradiction:
    """Make the opponent that ``my_opponent:load?nearest=3`` names: a draw among the 3 most alike patches."""
    return Contradiction(int(nearest))
