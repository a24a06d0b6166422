"""``ppd bench``: its options, and what it prints; ``speed`` measures, imported when asked for."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg


@dataclass(frozen=True)
class Bench:
    """Measure how fast this machine plays, beside a user's own loop and beside what its arithmetic allows."""

    quick: bool = False
    """Small vectors and few repeats: a minute or two instead of ten."""
    segmenters: tuple[Literal["mini", "vit_b", "vit_l", "vit_h"], ...] = ()
    """What to measure; SAM's weights are random. By default mini, vit_b and vit_h (--quick on a CPU: not
    vit_h)."""
    games: tuple[int, ...] = ()
    """Sizes of the vectors; by default 1, 8, 64 and 256."""
    points: int = 40
    """Prompts each game starts from."""
    rounds: int | None = None
    """Repeats of every measurement, of which the median counts."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    json: Annotated[Path | None, arg(metavar="PATH")] = None
    """Write the result here."""


def run_bench_command(options: Bench) -> int:
    """Measure, print the tables, and return the exit code."""
    from ppd_agents.speed.bench import BenchConfig, quick, run_bench
    from ppd_agents.speed.table import bench_text
    from ppd_env.loading import as_device
    from ppd_env.whole_files import write_json

    device = as_device(options.device)
    config = BenchConfig(device=str(device), points=options.points)
    config = quick(config) if options.quick else config
    if options.segmenters:
        config = replace(config, segmenters=options.segmenters)
    elif options.quick and device.type == "cpu":  # where the encoder of ViT-H takes longer than all the rest
        config = replace(config, segmenters=("mini", "vit_b"))
    if options.games:
        config = replace(config, games=options.games)
    if options.rounds is not None:
        config = replace(config, rounds=options.rounds)
    if device.type == "cuda":  # where nothing takes long enough to be spared repeats
        config = replace(config, few=config.rounds, product=2 * config.product)
    result = run_bench(config, shlex.join(["ppd", *sys.argv[1:]]))
    print(bench_text(result))
    if options.json is not None:
        write_json(options.json, result)
        print(f"\nNumbers: {options.json}")
    return 0
