"""One training and its tests: a folder with scores and recorded episodes, there whole or not at all."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from ppd_agents.benchmark.algorithms import load_algorithm
from ppd_agents.benchmark.protocol import (
    VIEW_ARGUMENTS,
    BenchmarkProtocol,
    Task,
    TrainedPolicy,
    score,
)
from ppd_agents.evaluation.tables import versions
from ppd_agents.folders import folder_in_one_rename
from ppd_env.envs.gymnasium_env import PointPromptEnv
from ppd_env.errors import ConfigError
from ppd_env.whole_files import write_json
from ppd_env.wrappers import RecordEpisode

RUN_FILE = "run.json"
EPISODES = "episodes"
EPISODE_FILE = "{number:04d}.json"


@dataclass(frozen=True)
class RunSettings:
    """What decides a run.

    Args:
        algorithm: ``module:Class``.
        seed: Of the training.
        budget: Environment steps of the training.
        protocol: What it is tested on.
    """

    algorithm: str
    seed: int
    budget: int
    protocol: BenchmarkProtocol

    def facts(self) -> dict[str, Any]:
        """Return what a finished run must share with this one to be taken as it is."""
        return {
            "algorithm": self.algorithm,
            "seed": self.seed,
            "budget": self.budget,
            "protocol": self.protocol.name,
            "fingerprint": self.protocol.fingerprint(),
        }


def finished_or_run(settings: RunSettings, folder: Path, *, progress: bool = True) -> dict[str, Any]:
    """Return the record of a run; one that lies in ``folder`` is taken as it is.

    Args:
        settings: The run.
        folder: Gets ``run.json`` and ``episodes/TASK/NUMBER.json``.
        progress: Show bars.

    Returns:
        ``{"algorithm", "seed", "budget", "protocol", "fingerprint", "tasks", "versions", "seconds"}``;
        ``tasks`` as ``play_task`` returns them.

    Raises:
        ConfigError: ``folder`` holds a run of other settings.
    """
    place = folder / RUN_FILE
    if place.is_file():
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        if {name: found.get(name) for name in settings.facts()} != settings.facts():
            raise ConfigError(f"{folder} holds a run of other settings: remove it, or choose another --out.")
        return found
    start = time.monotonic()
    seed_everything(settings.seed)
    policy = load_algorithm(settings.algorithm).train(
        settings.protocol.env_id, settings.seed, settings.budget
    )
    trained = time.monotonic() - start
    with folder_in_one_rename(folder) as aside:
        tasks = {
            task.name: play_task(policy, task, settings.protocol, aside / EPISODES, progress=progress)
            for task in settings.protocol.tasks
        }
        seconds = {"training": round(trained, 1), "tests": round(time.monotonic() - start - trained, 1)}
        record = {**settings.facts(), "tasks": tasks, "versions": versions(), "seconds": seconds}
        write_json(aside / RUN_FILE, record)
    return record


def seed_everything(seed: int) -> None:
    """Seed the global generators, for algorithms that draw from them."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def play_task(
    policy: TrainedPolicy, task: Task, protocol: BenchmarkProtocol, folder: Path, *, progress: bool = False
) -> dict[str, Any]:
    """Play the test episodes of one task.

    Args:
        policy: Who plays.
        task: Which task.
        protocol: How many episodes, and their seeds.
        folder: Gets ``TASK/NUMBER.json`` for each.
        progress: Show a bar.

    Returns:
        ``{"score", "episodes", "illegal", "ideal", "attacked", "final"}``: see ``score``; ``illegal`` counts
        the episodes that an illegal action ended, the last three are mean Dice.
    """
    env, inner = task_env(policy, task, protocol, folder)
    illegal = 0
    for number, options in tqdm(
        list(enumerate(starts(inner, protocol))), desc=task.name, disable=not progress, leave=False
    ):
        observation, info = env.reset(seed=protocol.first_seed + number, options=options)
        over = False
        while not over:
            mask = info["action_mask"].astype(bool)
            action = policy.act(observation, mask)
            if not 0 <= action < len(mask) or not mask[action]:
                action, illegal = len(mask) - 1, illegal + 1
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
    env.close()
    return {**summary(folder / task.name), "illegal": illegal}


def task_env(
    policy: TrainedPolicy, task: Task, protocol: BenchmarkProtocol, folder: Path
) -> tuple[gymnasium.Env, PointPromptEnv]:
    """Return the environment of a task as a policy sees it, and the bare one; episodes are recorded.

    Raises:
        ConfigError: The policy asks for another game.
    """
    view = dict(getattr(policy, "view", {}))
    if unknown := sorted(set(view) - set(VIEW_ARGUMENTS)):
        raise ConfigError(f"A policy may choose {', '.join(VIEW_ARGUMENTS)}; not {', '.join(unknown)}.")
    env: gymnasium.Env = gymnasium.make(protocol.env_id, **task.make, **view)
    inner = env.unwrapped
    assert isinstance(inner, PointPromptEnv)
    env = RecordEpisode(env, folder / task.name, EPISODE_FILE)
    wrap = getattr(policy, "wrap", None)
    return (env if wrap is None else wrap(env)), inner


def starts(env: PointPromptEnv, protocol: BenchmarkProtocol) -> Iterator[dict[str, int]]:
    """Yield the reset options of every test episode."""
    for scene in range(min(protocol.episodes, len(env.play.games.simulator.bank))):
        yield {"scene": scene}


def summary(folder: Path) -> dict[str, Any]:
    """Return what the recorded episodes of one task say: score, number, and mean Dice at three points."""
    played = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    ideal = [one["start"]["ideal_dice"] for one in played]
    attacked = [one["start"]["initial_dice"] for one in played]
    final = [one["final_dice"] for one in played]
    return {
        "score": score(ideal, attacked, final),
        "episodes": len(played),
        "ideal": float(np.mean(ideal)),
        "attacked": float(np.mean(attacked)),
        "final": float(np.mean(final)),
    }
