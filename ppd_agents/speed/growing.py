"""How costs grow: with prompts, nodes, games, scenes and remembered transitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ppd_agents.dqn.transition_store import Transitions, TransitionStore, pack_status
from ppd_agents.speed.clock import Job, Timing, growth
from ppd_agents.speed.decoding import decode_job
from ppd_agents.speed.subjects import (
    GRID,
    ConstantSegmenter,
    Subject,
    draw_prompts,
    draw_removals,
    make_env,
    put_prompts,
    subject_bank,
    subject_segmenter,
    tiled,
)
from ppd_env.game_batch import GameBatch
from ppd_env.simulator import Simulator

_GAMES, _STEPS, _PROMPTS, _RUNS = 8, 2, 16, 256


def prompt_jobs(subject: Subject, device: str, counts: Sequence[int]) -> dict[str, Job]:
    """Return a decode of one prompt set per number of prompts, by ``prompts SUBJECT/COUNT``."""
    return {f"prompts {subject.name}/{n}": decode_job(subject, device, 1, n) for n in counts}


def grid_jobs(subject: Subject, device: str, grids: Sequence[int]) -> dict[str, Job]:
    """Return steps of 8 games per grid with the decode answered at once, in both kinds of observation."""
    jobs = {}
    for observation in ("full", "compact"):
        for grid in grids:
            env = make_env(subject, device, _GAMES, grid=grid, observation=observation)
            env.reset(seed=0)
            jobs[f"grid {observation}/{grid}"] = _steps_at_once(env, env.unwrapped.play.games)
    return jobs


def _steps_at_once(env: Any, games: GameBatch) -> Job:
    rng = np.random.default_rng(0)
    status = draw_prompts(games.size, games.nodes, _PROMPTS, rng)
    actions = draw_removals(status, _STEPS, rng)

    def work() -> None:
        for move in actions:
            env.step(move)

    constant = ConstantSegmenter(games.simulator.segmenter)
    return Job(work, _STEPS * games.size, partial(put_prompts, games, status, constant))


def bank_jobs(subject: Subject, device: str, times: Sequence[int]) -> dict[str, Job]:
    """Return steps of 8 games, decoded, on banks of different size, by ``bank/SCENES``."""
    small, segmenter = subject_bank(subject, device), subject_segmenter(subject, device)
    rng = np.random.default_rng(0)
    jobs = {}
    for count in times:
        bank = tiled(small, count)
        games = GameBatch(Simulator(bank, segmenter), _GAMES)
        rows = torch.linspace(0, len(bank) - 1, _GAMES).long()
        status = draw_prompts(_GAMES, games.nodes, _PROMPTS, rng)
        budget = torch.full((_GAMES,), 100)
        games.begin(games.everyone(), rows, torch.from_numpy(status), budget, torch.zeros(_GAMES).bool())
        moves = [torch.from_numpy(row) for row in draw_removals(status, _STEPS, rng)]

        def work(games: GameBatch = games, moves: Sequence[torch.Tensor] = moves) -> None:
            for move in moves:
                games.step(move)

        prepare = partial(put_prompts, games, status, segmenter)
        jobs[f"bank/{len(bank)}"] = Job(work, _STEPS * _GAMES, prepare)
    return jobs


def replay_jobs(capacities: Sequence[int]) -> dict[str, Job]:
    """Return adding and drawing 256 transitions on full replays, by ``replay/CAPACITY``."""
    rng, nodes = np.random.default_rng(0), GRID**2
    jobs = {}
    for capacity in capacities:
        store = TransitionStore(capacity, nodes)
        status = draw_prompts(_RUNS, nodes, _PROMPTS, rng)
        packed = pack_status(torch.from_numpy(status)).numpy()
        numbers = np.arange(_RUNS)
        batch = Transitions(numbers, packed, numbers, np.zeros(_RUNS, np.float32), numbers < 0, packed)
        for _ in range(-(-capacity // _RUNS)):
            store.add(batch)

        def work(store: TransitionStore = store, batch: Transitions = batch) -> None:
            store.add(batch)
            store.sample(_RUNS, rng)

        jobs[f"replay/{capacity}"] = Job(work, _RUNS)
    return jobs


def fitted(timings: Mapping[str, Timing]) -> dict[str, dict[str, Any]]:
    """Gather timings named ``WHAT/SIZE`` into sizes, seconds and the fitted exponent by WHAT."""
    found: dict[str, dict[str, Any]] = {}
    for name, timing in timings.items():
        what, _, size = name.rpartition("/")
        entry = found.setdefault(what, {"sizes": [], "seconds": []})
        entry["sizes"].append(int(size))
        entry["seconds"].append(timing.seconds)
    for entry in found.values():
        entry["exponent"] = growth(entry["sizes"], entry["seconds"])
    return found
