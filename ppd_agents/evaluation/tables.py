"""The result of an evaluation in the one shape all result files share."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ppd_agents.evaluation.measure import measure, scene_notes
from ppd_agents.evaluation.rollouts import Policy
from ppd_agents.evaluation.scoring import Measurements
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.evaluation.tabulate import tabulate
from ppd_env.whole_files import installed_versions

PACKAGES = (
    "point-prompt-defender",
    "torch",
    "numpy",
    "gymnasium",
    "pettingzoo",
    "stable-baselines3",
    "scikit-image",
    "opencv-python",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    return installed_versions(PACKAGES)


def assemble(
    measured: Sequence[Measurements],
    config: EvaluationConfig,
    *,
    command: str,
    seconds: float,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the result of a command.

    Args:
        measured: One set of measurements per URI.
        config: What was measured.
        command: The command that was run.
        seconds: Wall-clock time it took.
        extra: More entries for ``"config"``.

    Returns:
        ``{"command", "seeds", "versions", "seconds", "results": {URI: {BUDGET: {ROW: {...}}}}, "config"}``.
    """
    described = {
        **asdict(config),
        "oracle": {"pool": config.oracle_pool, "n": config.oracle_scenes},
        "scene_sets": {found.bank.uri: scene_notes(found.bank, config) for found in measured},
        **(extra or {}),
    }
    result = {
        "command": command,
        "seeds": list(config.seeds),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "results": {found.bank.uri: tabulate(found, config) for found in measured},
        "config": described,
    }
    return as_plain(result)


def as_plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result as a result file holds it: plain JSON, numbers with four decimals at most."""
    plain: dict[str, Any] = json.loads(json.dumps(result), parse_float=_rounded)
    return plain


def _rounded(text: str) -> float:
    """Read a number of a result file: more than four decimals say nothing."""
    return round(float(text), 4)


def evaluate(
    config: EvaluationConfig,
    attacker: Policy,
    defender: Policy,
    *,
    agents: str,
    command: str = "evaluate",
    folder: Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure and tabulate in one go; arguments as for ``measure`` and ``assemble``."""
    start = time.monotonic()
    measured = measure(config, attacker, defender, agents=agents, folder=folder, progress=progress)
    seconds = time.monotonic() - start
    return assemble(measured, config, command=command, seconds=seconds, extra={"agents": agents})
