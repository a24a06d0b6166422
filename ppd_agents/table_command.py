"""``ppd evaluate --table``: its options, and what it prints; ``evaluation.paper`` does the work."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ppd_env.errors import ConfigError


@dataclass(frozen=True)
class TableOptions:
    """Options of ``ppd evaluate`` that only the paper's tables have."""

    table: Literal[1, 2] | None = None
    """Measure a table of the paper: 1, ideal, attacked and defended prompts, feature matching without and
    with PPD; 2, one-shot methods. It goes on where it stopped."""
    attacker: str | None = None
    """Tables: the attacker, a name that ships or a folder; that of --agents, or else `mini`."""
    defender: str | None = None
    """Tables: the defender, likewise."""
    references: int = 5
    """Tables: reference images per class; everything is measured with each of them."""
    reference_seed: int = 0
    """Tables: chooses the references, and the targets where not all are taken."""
    targets: int | None = None
    """Tables: at most so many targets of each set; all where None."""
    methods: tuple[str, ...] = ("persam", "persam_f", "matcher", "gbmseg", "ppo", "ours")
    """Table 2: the methods, such as ppo?policy=random."""
    grid: int | None = None
    """Tables: patches per side (the paper has 40); that of the defender where None."""
    out: Path | None = None
    """Tables: folder for the result as JSON, CSV, LaTeX and Markdown."""
    ray: bool = False
    """Tables: spread the work over the GPUs (--device cuda) or machines of a Ray cluster: that of
    RAY_ADDRESS, or one that is started here."""
    ray_workers: int | None = None
    """Tables: number of Ray workers; by default one for each GPU, or for each machine on the CPU."""


_PLACES = ("json", "out", "runs", "ray", "ray_workers", "device", "robustness")
"""Options that change no number of a table and are left out of the command in the result."""


def run_table(options: Any) -> dict[str, Any]:
    """Measure a table, print it, and write its four files.

    Args:
        options: Those of ``ppd evaluate``.

    Returns:
        The result.

    Raises:
        PPDError: Options do not go together, or something cannot be opened.
    """
    from ppd_agents.evaluation.paper.layout import overview
    from ppd_agents.evaluation.paper.playing import Cluster
    from ppd_agents.evaluation.paper.result import measure_table
    from ppd_agents.evaluation.paper.sets import find_sets
    from ppd_agents.evaluation.paper.written import markdown_grid, write_table
    from ppd_agents.locking import sole_user
    from ppd_agents.shipped import open_agent
    from ppd_agents.suite import SCENES

    _check(options)
    agents = str(options.agents[0]) if options.agents else "mini"
    attacker = open_agent(options.attacker or agents, "attacker")
    defender = open_agent(options.defender or agents, "defender")
    config = _config(options, defender)
    scenes = options.scenes or (() if options.data is not None else SCENES)
    folder = options.runs / "tables"
    with sole_user(folder):
        result = measure_table(
            config,
            find_sets(scenes, options.data),
            attacker,
            defender,
            folder,
            print,
            optional=options.data is not None,
            cluster=Cluster(options.ray_workers) if options.ray else None,
            command=command_line(options),
        )
    for budget in next(iter(result["results"].values())):
        print(f"\n{markdown_grid(overview(result, budget))}")
    if options.out is not None:
        for path in write_table(result, options.out):
            print(f"Written: {path}")
    return result


def _check(options: Any) -> None:
    if options.suite != "standard":
        raise ConfigError("--table and --suite are two different measurements: name one of them.")
    if len(options.agents) > 1:
        raise ConfigError("A table is measured with one pair of agents: name one folder with --agents.")
    if len(options.seeds) != 1:
        raise ConfigError(
            f"A table is measured under one seed, and repeated by --references; got {options.seeds}."
        )


def _config(options: Any, defender: Any) -> Any:
    from ppd_agents.evaluation.paper.config import TableConfig
    from ppd_env.loading import as_device

    return TableConfig(
        options.table,
        segmenter=options.segmenter or defender.segmenter,
        features=options.features or defender.features,
        grid=defender.grid if options.grid is None else options.grid,
        device=options.device if options.ray else str(as_device(options.device)),
        references=options.references,
        reference_seed=options.reference_seed,
        targets=options.targets,
        seed=options.seeds[0],
        budgets=options.budgets,
        methods=options.methods,
        resamples=options.resamples,
    )


def command_line(options: Any) -> str:
    """Return the command that gives the same numbers; of the folder of data it tells the name only."""
    words = ["ppd", "evaluate"]
    for one in fields(options):
        value = getattr(options, one.name)
        if one.name in _PLACES or value == one.default:
            continue
        values = value if isinstance(value, tuple) else (value,)
        named = [Path(v).name if one.name == "data" else str(v) for v in values]
        words += [f"--{one.name.replace('_', '-')}", *named]
    return shlex.join(words)
