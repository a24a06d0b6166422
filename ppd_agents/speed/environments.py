"""Steps of the environments, and the same work done by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ppd_agents.speed.clock import Job
from ppd_agents.speed.official import sam_predictor, users_loop
from ppd_agents.speed.subjects import (
    ConstantSegmenter,
    Subject,
    draw_prompts,
    draw_removals,
    make_env,
    put_prompts,
    subject_bank,
)

Sizes = Sequence[int]


def step_jobs(
    subject: Subject, device: str, sizes: Sizes, points: int, steps: int, few: int
) -> dict[str, Job]:
    """Return what is timed of one subject's environments.

    Args:
        subject: The segmenter.
        device: A torch device.
        sizes: Games of the vectors.
        points: Prompts each game starts from; every step removes one.
        steps: Steps of one turn; large vectors take fewer.
        few: Rounds of vectors of 64 games and more.

    Returns:
        ``SUBJECT/step/WHO``, WHO being ``single`` or a number of games, and the same as
        ``SUBJECT/constant/WHO`` with the decode answered at once. Units are games times steps.
    """
    jobs: dict[str, Job] = {}
    for games in (None, *sizes):
        env = make_env(subject, device, games)
        env.reset(seed=0)
        batch = env.unwrapped.play.games
        turns = max(1, steps // max(1, (games or 1) // 8))
        rng = np.random.default_rng(games or 0)
        status = draw_prompts(batch.size, batch.nodes, points, rng)
        play = _player(env, draw_removals(status, turns, rng), single=games is None)

        who, repeats = str(games or "single"), few if (games or 1) >= 64 else None
        segmenter = batch.simulator.segmenter
        for kind, decoder in (("step", segmenter), ("constant", ConstantSegmenter(segmenter))):
            prepare = partial(put_prompts, batch, status, decoder)
            jobs[f"{subject.name}/{kind}/{who}"] = Job(play, turns * batch.size, prepare, repeats)
    return jobs


def _player(env: Any, actions: np.ndarray, *, single: bool) -> Callable[[], None]:
    """Return a function that plays drawn actions (steps, games)."""
    moves = [int(row[0]) for row in actions] if single else list(actions)

    def play() -> None:
        for move in moves:
            env.step(move)

    return play


def loop_job(subject: Subject, device: str, points: int, sets: int) -> tuple[Job, str]:
    """Return the user's loop on a subject's official model, and what it calls.

    Args:
        subject: One with an official model.
        device: A torch device.
        points: Prompts of each set; as in ``step_jobs``, each next set has one less.
        sets: Prompt sets of one turn.

    Returns:
        The job, its unit one prompt set, and the name of what is measured.
    """
    assert subject.official is not None
    bank = subject_bank(subject, device)
    scene = bank.raw(0)
    loop = users_loop(subject.official, scene.image, scene.mask, sam_predictor())
    rng = np.random.default_rng(0)
    status = draw_prompts(1, bank.points.shape[1], points, rng)[0]
    chosen = rng.permutation(status.nonzero()[0])
    where, signs = bank.points[0].cpu().numpy()[chosen], (status[chosen] == 1).astype(np.int64)

    @torch.no_grad()
    def work() -> None:
        for fewer in range(1, sets + 1):
            loop.score(where[:-fewer], signs[:-fewer])

    return Job(work, sets), loop.measured
