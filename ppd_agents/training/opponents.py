"""Past attackers, so that a defender does not forget how to undo what the present one no longer does."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ppd_agents.dqn.agent import Agent
from ppd_agents.training.state import State
from ppd_env.errors import PPDError


class OpponentPool:
    """The last attackers of a training, one per round; a self-play league in small (Vinyals et al., 2019).

    Args:
        size: Attackers kept; 0: the defender meets none but the current one.
        like: An attacker of the training, for the shape of the past ones.
    """

    def __init__(self, size: int, like: Agent) -> None:
        self.size, self._like = size, like
        self.past: list[dict[str, Tensor]] = []

    def draw(self, current: Agent, rng: np.random.Generator) -> Agent:
        """Return the attacker of a round, and keep the current one for later rounds.

        Args:
            current: The attacker as it is now; it comes with a chance of 1/2, and always from an empty pool.
            rng: Draws the others, each equally likely; not used where the pool has size 0.

        Returns:
            An attacker.
        """
        if not self.size:
            return current
        known = list(self.past)
        weights = {name: tensor.detach().clone() for name, tensor in current.network.state_dict().items()}
        self.past = [*known, weights][-self.size :]
        if not known or rng.random() < 0.5:
            return current
        network = copy.deepcopy(self._like.network)
        network.load_state_dict(known[int(rng.integers(len(known)))])
        return replace(current, network=network.eval())

    def state(self) -> State:
        """Return the weights of all past attackers, and how many they are."""
        tensors = {f"{i}.{name}": t for i, weights in enumerate(self.past) for name, t in weights.items()}
        return tensors, {"count": len(self.past)}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what ``state`` of another process returned.

        Raises:
            PPDError: The other pool was larger.
        """
        if facts["count"] > self.size:
            raise PPDError("The checkpoint's pool of opponents is larger than this training's.")
        self.past = [{} for _ in range(facts["count"])]
        for key, tensor in tensors.items():
            index, _, name = key.partition(".")
            self.past[int(index)][name] = tensor
