"""Timing that a busy machine spoils little: jobs take turns, and medians count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from tqdm import tqdm


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Job:
    """A piece of work to be timed.

    Args:
        work: What is timed.
        units: How many steps, decodes or draws one call of ``work`` does.
        prepare: Called before every ``work``, outside the timing.
        repeats: Rounds it takes part in at most; None: all.
    """

    work: Callable[[], object]
    units: float = 1
    prepare: Callable[[], object] = _nothing
    repeats: int | None = None


@dataclass(frozen=True)
class Timing:
    """What one job took.

    Args:
        rounds: Seconds per unit of each round.
    """

    rounds: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median seconds per unit."""
        return median(self.rounds)

    def over(self, other: Timing) -> float:
        """Return the median, over the rounds both took part in, of this one's time over the other's."""
        return median(a / b for a, b in zip(self.rounds, other.rounds, strict=False))

    def to_json(self) -> dict[str, float | int]:
        """Return the median, the extremes and their number, for the result file."""
        return {
            "seconds": self.seconds,
            "per_second": 1 / self.seconds,
            "fastest": min(self.rounds),
            "slowest": max(self.rounds),
            "rounds": len(self.rounds),
        }


def take_turns(
    jobs: Mapping[str, Job], rounds: int, device: torch.device, bar: tqdm | None = None
) -> dict[str, Timing]:
    """Time jobs in turns, so that a machine that slows down slows all of them.

    Every job runs once untimed first, which leaves loading, compiling and allocating out.

    Args:
        jobs: By name.
        rounds: How often each has its turn.
        device: Waited for before the clock is read.
        bar: Advances by one per turn; its total grows by the turns.

    Returns:
        The timings, by name.
    """
    turns = [
        (name, turn)
        for turn in range(-1, rounds)
        for name, job in jobs.items()
        if job.repeats is None or turn < job.repeats
    ]
    if bar is not None:
        bar.total = (bar.total or 0) + len(turns)
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for name, turn in turns:
        if bar is not None:
            bar.set_postfix_str(name)
        took = timed(jobs[name], device)
        if turn >= 0:
            found[name].append(took)
        if bar is not None:
            bar.update()
    return {name: Timing(tuple(times)) for name, times in found.items()}


def timed(job: Job, device: torch.device) -> float:
    """Return the seconds one unit of a job takes, in one call of its work."""
    job.prepare()
    _wait(device)
    begun = time.perf_counter()
    job.work()
    _wait(device)
    return (time.perf_counter() - begun) / job.units


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the exponent e of the fit ``seconds ~ sizes ** e``: 0 is constant, 1 linear.

    Args:
        sizes: At least two different ones.
        seconds: What each took.

    Returns:
        The slope of the least-squares line through the logarithms.
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
