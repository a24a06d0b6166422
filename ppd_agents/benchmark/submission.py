"""Checks a run of the benchmark somebody hands in: protocol, episodes and scores must fit each other."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NoReturn

import gymnasium

from ppd_agents.benchmark import protocol as protocols
from ppd_agents.benchmark.protocol import VIEW_ARGUMENTS, BenchmarkProtocol, Task
from ppd_agents.benchmark.runs import EPISODE_FILE, EPISODES, RUN_FILE, summary
from ppd_env.config import EnvConfig
from ppd_env.errors import EpisodeError
from ppd_env.recording import read_episode
from ppd_env.scenes.bank import open_bank

SAME = 1e-9


def check_run(folder: Path, protocol: BenchmarkProtocol | None = None) -> None:
    """Check that a run's episodes are those of the protocol and give its scores; ``replay`` plays them.

    Args:
        folder: Holds ``run.json`` and ``episodes/``.
        protocol: What must have been played; ``protocol.STANDARD`` where None.

    Raises:
        EpisodeError: The run is of another protocol, or something in it does not fit.
    """
    protocol = protocol or protocols.STANDARD
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        tasks: dict[str, dict[str, Any]] = dict(record["tasks"])
    except (OSError, ValueError, KeyError, TypeError):
        _reject(folder, "it is not whole JSON with tasks")
    if record.get("fingerprint") != protocol.fingerprint():
        _reject(folder, f"it is not of the protocol {protocol.name} as this version knows it")
    if set(tasks) != {task.name for task in protocol.tasks}:
        _reject(folder, f"its tasks are {', '.join(sorted(tasks))}, and not those of {protocol.name}")
    for task in protocol.tasks:
        _check_episodes(folder / EPISODES / task.name, task, protocol)
        now = summary(folder / EPISODES / task.name)
        for name, value in now.items():
            claimed = tasks[task.name].get(name)
            if not isinstance(claimed, int | float) or not _same(value, claimed):
                _reject(folder, f"{task.name}: its episodes give {name} = {value}, and it says {claimed}")


def _check_episodes(folder: Path, task: Task, protocol: BenchmarkProtocol) -> None:
    expected = EnvConfig.from_kwargs(**gymnasium.spec(protocol.env_id).kwargs | dict(task.make))
    bank = open_bank(expected.scenes, expected.segmenter, expected.features_uri, expected.grid)
    count = min(protocol.episodes, len(bank))
    names = [EPISODE_FILE.format(number=number) for number in range(count)]
    if sorted(path.name for path in folder.glob("*.json")) != names:
        _reject(folder, f"it must hold the {count} episodes {names[0]} to {names[-1]}, and no others")
    for number, name in enumerate(names):
        episode = read_episode(folder / name)
        if episode.env_id != protocol.env_id:
            _reject(folder / name, f"it was played in {episode.env_id!r}")
        if episode.seed != protocol.first_seed + number or episode.options != {"scene": number}:
            _reject(folder / name, "its seed or scene is not the protocol's")
        for key, wanted in dataclasses.asdict(expected).items():
            value = episode.make.get(key)
            if key not in (*VIEW_ARGUMENTS, "device", "max_batch") and value != wanted:
                _reject(folder / name, f"it was played with {key}={value!r}, and not {wanted!r}")


def _same(value: float, claimed: float) -> bool:
    return math.isclose(value, claimed, abs_tol=SAME) or (math.isnan(value) and math.isnan(claimed))


def _reject(path: Path, reason: str) -> NoReturn:
    raise EpisodeError(f"{path}: {reason}.")
