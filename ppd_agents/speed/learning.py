"""Gradient steps of both agents, and what a transition takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from stable_baselines3.common.logger import Logger

from ppd_agents.dqn.masked_dqn import MaskedDQN
from ppd_agents.dqn.transition_store import TransitionStore
from ppd_agents.speed.clock import Job
from ppd_agents.training.adversarial import Alternation
from ppd_agents.training.presets import ROLES, preset

_UPDATES = 2


def learning_jobs(folder: Path, device: str, games: int) -> dict[str, Job]:
    """Return gradient steps of the default training after two rounds of it, by ``gradient/ROLE``.

    Args:
        folder: For what the training writes.
        device: A torch device.
        games: Games of a round.
    """
    config = preset(
        "mini",
        device=device,
        scenes=f"shapes://train?count={2 * games}&seed=0",
        games=games,
        rounds=2,
        steps=(4, 4),
        gradient_steps=1,
        rehearsals=16,
        learning_starts=games,
        progress=False,
        tensorboard=False,
    )
    alternation = Alternation(config, folder)
    for learner in alternation.learners.values():
        learner.model.set_logger(Logger(None, []))
    for _ in range(config.rounds):
        alternation.play_round()
    jobs = {}
    for role in ROLES:
        work = partial(_learn, alternation.learners[role].model, config.batch_size)
        jobs[f"gradient/{role}"] = Job(work, _UPDATES)
    return jobs


def _learn(model: MaskedDQN, batch_size: int) -> None:
    model.train(_UPDATES, batch_size)
    model.finish_updates()  # on a GPU they only begin with `train`


def transition_bytes(grids: tuple[int, ...]) -> dict[str, float]:
    """Return the bytes of one remembered transition by number of nodes."""
    return {str(grid**2): TransitionStore(64, grid**2).bytes_per_transition for grid in grids}
