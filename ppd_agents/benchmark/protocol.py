"""What the benchmark fixes: scenes, starts, budgets, scores; and what an algorithm has to offer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

LEARNED_OPPONENT = "ppd_agents.defender:load_opponent?path=mini"

VIEW_ARGUMENTS = ("edges", "observation", "feedback")
"""Arguments of ``gymnasium.make`` an algorithm may choose: they show the same game in other ways."""


@runtime_checkable
class TrainedPolicy(Protocol):
    """What a training returns.

    It may have ``view``, a mapping of ``VIEW_ARGUMENTS`` its observations are made with, and ``wrap(env)``,
    which returns the environment inside the wrappers it was trained with.
    """

    def act(self, observation: Any, action_mask: np.ndarray) -> int:
        """Return an action for one observation; ``action_mask`` (2N + 1,) bool says which are legal."""
        ...


@runtime_checkable
class Algorithm(Protocol):
    """Anything that learns; a class of one is made without arguments."""

    def train(self, env_id: str, seed: int, budget: int) -> TrainedPolicy:
        """Learn and return a policy.

        Args:
            env_id: For ``gymnasium.make``; only ``VIEW_ARGUMENTS`` may be added, which change no game.
            seed: The only source of randomness.
            budget: Steps of the environment it may take in all.
        """
        ...


@dataclass(frozen=True)
class Task:
    """One set of test episodes.

    Args:
        name: Its name in tables and folders.
        make: Arguments of ``gymnasium.make``.
    """

    name: str
    make: Mapping[str, Any]


@dataclass(frozen=True)
class BenchmarkProtocol:
    """What two results must share to be compared.

    Training happens in ``PPD-v0`` with all its defaults: 1000 procedural scenes, a defender's game of 20
    steps after a random attack of 20. Test episode i of a task plays scene i from seed ``first_seed + i``.
    The greedy policy is shown each observation once; an illegal action counts as STOP.

    Args:
        name: Changes with every change of the rules.
        tasks: What is played; training sees none of their scenes.
        env_id: What is made for training and, with the arguments of a task, for its episodes.
        episodes: Per task, at most one for each scene.
        first_seed: Of the first test episode.
    """

    name: str
    tasks: tuple[Task, ...]
    env_id: str = "PPD-v0"
    episodes: int = 40
    first_seed: int = 100_000

    def fingerprint(self) -> str:
        """Return a short hash of everything that is fixed."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


STANDARD = BenchmarkProtocol(
    "ppd-defence-1",
    tuple(
        Task(f"{place}-{who}", {"scenes": scenes, "opponent": opponent})
        for place, scenes in (("shapes", "shapes://test?count=300&seed=0"), ("photos", "photos://test"))
        for who, opponent in (("random", "random"), ("learned", LEARNED_OPPONENT))
    ),
)
"""The protocol of ``ppd benchmark``: two sets of scenes, attacked at random or by the shipped attacker."""


def score(ideal: Sequence[float], attacked: Sequence[float], final: Sequence[float]) -> float:
    """Return the share of the attacks' harm that was taken back, over all episodes of a task.

    Args:
        ideal: Dice before each attack.
        attacked: Dice after it, where the defence begins.
        final: Dice after the defence.

    Returns:
        0 for who does nothing, 1 for who reaches the Dice from before the attacks; less than 0 or more than
        1 are possible. NaN where the attacks did no harm.
    """
    harm = float(np.sum(ideal) - np.sum(attacked))
    return float((np.sum(final) - np.sum(attacked)) / harm) if harm > 0 else float("nan")
