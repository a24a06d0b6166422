"""All measurements of ``ppd bench`` in one process, and the result they make."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ppd_agents.evaluation.tables import versions
from ppd_agents.speed import growing
from ppd_agents.speed.clock import Job, Timing, growth, take_turns
from ppd_agents.speed.decoding import decode_flops, decode_job
from ppd_agents.speed.environments import loop_job, step_jobs
from ppd_agents.speed.learning import learning_jobs, transition_bytes
from ppd_agents.speed.machine import machine, peak_memory, product_jobs
from ppd_agents.speed.subjects import Subject, open_subjects, write_scenes
from ppd_env.errors import ConfigError
from ppd_env.loading import as_device
from ppd_env.segmenters.sam.checkpoint import ARCHITECTURES


@dataclass(frozen=True)
class BenchConfig:
    """What is measured.

    Args:
        segmenters: ``"mini"`` and names of SAM architectures, whose weights are random.
        device: A torch device.
        games: Sizes of the vectors.
        points: Prompts a game starts from.
        rounds: Turns of every job.
        few: Turns of those that take long.
        steps: Steps of a turn of a single game.
        images: Images of the bank.
        prompts: Numbers of prompts whose cost is compared.
        grids: Patches per side whose cost is compared.
        banks: How often the bank is repeated to compare its sizes.
        replays: Capacities of replays that are compared.
        product: Side of the matrices whose product is the limit.
        decode_batch: Prompt sets of the larger decode.
        learner_games: Games of the training whose gradient steps are timed; 0: none.

    Raises:
        ConfigError: A segmenter is unknown, or a number is impossible.
    """

    segmenters: tuple[str, ...] = ("mini", "vit_b", "vit_h")
    device: str = "cpu"
    games: tuple[int, ...] = (1, 8, 64, 256)
    points: int = 40
    rounds: int = 7
    few: int = 3
    steps: int = 8
    images: int = 2
    prompts: tuple[int, ...] = (1, 4, 16, 40, 100, 200, 400)
    grids: tuple[int, ...] = (8, 16, 32, 64)
    banks: tuple[int, ...] = (1, 8, 64)
    replays: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    product: int = 4096
    decode_batch: int = 64
    learner_games: int = 16

    def __post_init__(self) -> None:
        """Check every field."""
        known = ("mini", *ARCHITECTURES)
        for name in self.segmenters:
            if name not in known:
                raise ConfigError(f"Unknown segmenter {name!r} to measure; known ones: {', '.join(known)}.")
        if min(self.rounds, self.few, self.steps, self.images, *self.games) < 1:
            raise ConfigError("Rounds, steps, images and games must be at least 1.")
        if not self.steps < self.points <= 256:
            raise ConfigError(
                f"points must lie in [{self.steps + 1}, 256], the patches of a scene; got {self.points}."
            )


def quick(config: BenchConfig) -> BenchConfig:
    """Return what takes a minute or two: smaller vectors, fewer turns."""
    return replace(
        config,
        games=(1, 8),
        rounds=3,
        few=2,
        steps=2,
        images=1,
        prompts=(1, 40, 400),
        grids=(8, 16, 32),
        banks=(1, 16),
        replays=(1_000, 100_000),
        product=1024,
        decode_batch=8,
        learner_games=8,
    )


def run_bench(config: BenchConfig, command: str) -> dict[str, Any]:
    """Measure everything.

    Args:
        config: What.
        command: As it is told in the result.

    Returns:
        ``{"command", "versions", "seconds", "machine", "config", "results"}``; see ``docs/performance.md``.
    """
    began, device = time.perf_counter(), as_device(config.device)
    with tempfile.TemporaryDirectory(prefix="ppd-bench-") as made, tqdm(desc="measuring", unit="turn") as bar:
        folder = Path(made)
        scenes = write_scenes(folder / "scenes", config.images)
        subjects, missing = open_subjects(config.segmenters, folder, scenes, config.device)
        jobs, loops = _side_by_side(subjects, config)
        timings = take_turns(jobs, config.rounds, device, bar)
        jobs.clear()
        grown = take_turns(_growing(subjects, config), config.rounds, device, bar)
        learned = {}
        if config.learner_games:
            chosen = learning_jobs(folder / "training", config.device, config.learner_games)
            learned = take_turns(chosen, config.rounds, device, bar)
    results = {
        "limit": {name.partition("/")[2]: 1 / t.seconds for name, t in timings.items() if _is_product(name)},
        "segmenters": {s.name: _subject_result(s, timings, loops, config) for s in subjects},
        "unavailable": missing,
        "growth": growing.fitted(grown) | _batches(subjects, timings, config),
        "learner": {name.partition("/")[2]: timing.to_json() for name, timing in learned.items()},
        "memory": {"peak_bytes": peak_memory(device), "bytes_per_transition": transition_bytes((16, 40))},
    }
    return {
        "command": command,
        "versions": versions(),
        "seconds": round(time.perf_counter() - began, 1),
        "machine": machine(device),
        "config": asdict(config),
        "results": results,
    }


def _is_product(name: str) -> bool:
    return name.startswith("product/")


def _side_by_side(subjects: Sequence[Subject], config: BenchConfig) -> tuple[dict[str, Job], dict[str, str]]:
    """Return all jobs whose ratios are reported, and what each user's loop calls, by subject."""
    jobs, loops = product_jobs(as_device(config.device), config.product), {}
    for subject in subjects:
        small = config.steps if subject.official is None else max(1, config.steps // 4)
        jobs |= step_jobs(subject, config.device, config.games, config.points, small, config.few)
        for batch, repeats in ((1, None), (config.decode_batch, config.few)):
            name = f"{subject.name}/decode/{batch}"
            jobs[name] = decode_job(subject, config.device, batch, config.points, repeats)
        # The loop runs the official modules, in float32 whatever the subject's own format.
        if subject.official is not None and " " not in subject.name:
            jobs[f"{subject.name}/loop"], said = loop_job(subject, config.device, config.points, small)
            loops[subject.name] = said
    return jobs, loops


def _growing(subjects: Sequence[Subject], config: BenchConfig) -> dict[str, Job]:
    """Return decodes of every subject by prompts, and by the first one what no decoder changes."""
    jobs: dict[str, Job] = {}
    for subject in subjects:
        if subject.name.endswith("compiled"):  # which would compile every number of prompts
            continue
        jobs |= growing.prompt_jobs(subject, config.device, config.prompts)
    for subject in subjects[:1]:
        jobs |= growing.grid_jobs(subject, config.device, config.grids)
        jobs |= growing.bank_jobs(subject, config.device, config.banks)
    return jobs | growing.replay_jobs(config.replays)


def _subject_result(
    subject: Subject, timings: Mapping[str, Timing], loops: Mapping[str, str], config: BenchConfig
) -> dict[str, Any]:
    """Gather what was measured of one subject, with its ratios."""
    name = subject.name
    plain = name.partition(" ")[0]
    whos = ["single", *map(str, config.games)]
    loop = timings.get(f"{plain}/loop")
    limit = timings["product/bfloat16" if "bfloat16" in name else "product/float32"]
    flops = decode_flops(subject, config.device, config.points)
    found: dict[str, Any] = {"points": config.points, "steps": {}, "overhead": {}, "decode": {}}
    for who in whos:
        step, constant = timings[f"{name}/step/{who}"], timings[f"{name}/constant/{who}"]
        found["steps"][who] = step.to_json()
        if loop is not None:
            found["steps"][who]["times_loop"] = loop.over(step)
        found["overhead"][who] = constant.over(step)
    for batch in (1, config.decode_batch):
        decode = timings[f"{name}/decode/{batch}"]
        share = flops * limit.over(decode)
        found["decode"][str(batch)] = {**decode.to_json(), "flops": flops, "share_of_limit": share}
    found["loop"] = None
    if loop is not None:
        found["loop"] = {**loop.to_json(), "measured": loops[plain]}
    return found


def _batches(
    subjects: Sequence[Subject], timings: Mapping[str, Timing], config: BenchConfig
) -> dict[str, dict[str, Any]]:
    """Return how a whole step grows with the number of games."""
    found = {}
    for subject in subjects:
        seconds = [timings[f"{subject.name}/step/{games}"].seconds * games for games in config.games]
        found[f"batch {subject.name}"] = {
            "sizes": list(config.games),
            "seconds": seconds,
            "exponent": growth(config.games, seconds) if len(config.games) > 1 else None,
        }
    return found
