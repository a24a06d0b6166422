"""``ppd benchmark``: its options and what it prints; ``benchmark`` does the work, imported when asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class Benchmark:
    """Train algorithms with several seeds and compare them on fixed tests; run again to go on."""

    algo: tuple[str, ...]
    """Algorithms as module:Class, such as stable_baselines3:DQN or ppd_agents:MaskedDQN."""
    seeds: int = 5
    """Runs of each algorithm, with the seeds 0, 1, ..."""
    budget: int = 20_000
    """Environment steps of each training."""
    out: Path = Path("runs/benchmark")
    """Folder of all runs; finished ones are taken as they are."""
    episodes: int | None = None
    """Test episodes per task; without it those of the protocol, and only then results can be compared."""
    json: Annotated[Path | None, arg(metavar="PATH")] = None
    """Write the result here as well."""


def run_benchmark(options: Benchmark) -> int:
    """Train, test, aggregate, draw and print."""
    from dataclasses import replace

    from ppd_agents.benchmark.algorithms import load_algorithm
    from ppd_agents.benchmark.board import BOARD_FILE, assemble_board, board_table, draw_profiles
    from ppd_agents.benchmark.protocol import STANDARD
    from ppd_agents.benchmark.runs import RunSettings, finished_or_run
    from ppd_agents.locking import sole_user
    from ppd_env.errors import ConfigError
    from ppd_env.whole_files import write_json

    if min(options.seeds, options.budget, 1 if options.episodes is None else options.episodes) < 1:
        raise ConfigError("--seeds, --budget and --episodes must be at least 1.")
    protocol = STANDARD if options.episodes is None else replace(STANDARD, episodes=options.episodes)
    for name in options.algo:
        load_algorithm(name)  # a wrong name is told before the first hour of training
    runs: dict[str, list[dict[str, object]]] = {}
    with sole_user(options.out):
        for name in dict.fromkeys(options.algo):
            for seed in range(options.seeds):
                print(f"{name}, seed {seed} ...")
                settings = RunSettings(name, seed, options.budget, protocol)
                folder = options.out / re.sub(r"[^\w.-]", "-", name) / f"seed-{seed}"
                runs.setdefault(name, []).append(finished_or_run(settings, folder))
        result = assemble_board(runs, protocol, options.budget)
        for path in (options.out / BOARD_FILE, options.json):
            if path is not None:
                write_json(path, result)
        draw_profiles(result, options.out / "profiles.png")
    print(f"\n{board_table(result)}\n")
    print(f"Numbers:  {options.out / 'benchmark.json'}\nProfiles: {options.out / 'profiles.png'}")
    return 0
