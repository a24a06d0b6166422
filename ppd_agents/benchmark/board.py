"""What a benchmark found: the result file, the table and the picture of the profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppd_agents.benchmark.aggregates import aggregate, improvements, profiles
from ppd_agents.benchmark.protocol import BenchmarkProtocol
from ppd_agents.evaluation.tables import versions
from ppd_env.errors import PPDError

BOARD_FILE = "benchmark.json"

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Algorithm -> the records of its runs."""


def assemble_board(runs: Runs, protocol: BenchmarkProtocol, budget: int) -> dict[str, Any]:
    """Build the result of ``ppd benchmark``.

    Args:
        runs: The finished runs, all of ``protocol``.
        protocol: What was played.
        budget: Training steps of each run.

    Returns:
        ``{"command", "seeds", "versions", "seconds", "results": {TASK: {ALGORITHM: {"score", "per_seed",
        "ideal", "attacked", "final", "illegal", "episodes"}}}, "aggregates", "profiles", "improvement",
        "config"}``; see ``aggregates`` for those three.

    Raises:
        PPDError: A score means nothing, since the attacks of a task did no harm.
    """
    scores = score_table(runs, protocol)
    seconds = sum(sum(one["seconds"].values()) for records in runs.values() for one in records)
    return {
        "command": "benchmark",
        "seeds": sorted({one["seed"] for records in runs.values() for one in records}),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "results": {
            task.name: {name: _task(records, task.name) for name, records in runs.items()}
            for task in protocol.tasks
        },
        "aggregates": aggregate(scores),
        "profiles": profiles(scores),
        "improvement": improvements(scores),
        "config": {"protocol": protocol.name, "fingerprint": protocol.fingerprint(), "budget": budget},
    }


def score_table(runs: Runs, protocol: BenchmarkProtocol) -> dict[str, np.ndarray]:
    """Return the scores of every algorithm, (runs, tasks) in the protocol's order."""
    table = {
        name: np.array([[one["tasks"][task.name]["score"] for task in protocol.tasks] for one in records])
        for name, records in runs.items()
    }
    if not all(np.isfinite(values).all() for values in table.values()):
        raise PPDError("A task whose attacks did no harm has no score: give it more scenes or steps.")
    return table


def _task(records: Sequence[Mapping[str, Any]], task: str) -> dict[str, Any]:
    found = [one["tasks"][task] for one in records]
    means = {
        name: float(np.mean([one[name] for one in found]))
        for name in ("score", "ideal", "attacked", "final", "illegal", "episodes")
    }
    return means | {"per_seed": [one["score"] for one in found]}


def board_table(result: Mapping[str, Any]) -> str:
    """Return the result as a Markdown table, the best IQM first."""
    tasks = list(result["results"])
    heads = ["algorithm", "IQM", "optimality gap", *tasks]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    order = sorted(result["aggregates"].items(), key=lambda one: -one[1]["iqm"]["value"])
    for name, found in order:
        cells = [f"`{name}`", *(_with_interval(found[key]) for key in ("iqm", "optimality_gap"))]
        cells += [f"{result['results'][task][name]['score']:.2f}" for task in tasks]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_interval(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.2f} [{found['ci'][0]:.2f}, {found['ci'][1]:.2f}]"


def draw_profiles(result: Mapping[str, Any], path: Path) -> None:
    """Draw the performance profiles with their intervals into a PNG or SVG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    taus = result["profiles"]["thresholds"]
    for name, found in result["profiles"]["algorithms"].items():
        (line,) = axes.plot(taus, found["share"], drawstyle="steps-post", label=name)
        low, high = found["ci"]
        axes.fill_between(taus, low, high, step="post", alpha=0.15, color=line.get_color())
    axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("score (0: nothing repaired, 1: the Dice from before the attack)")
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(-0.02, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.stem}.tmp{path.suffix}")
    figure.savefig(aside, dpi=150)
    aside.replace(path)
