"""The result of an evaluation in the one shape all result files share."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ppd_agents.evaluation.measure import ROWS, Bench, EvaluationConfig, Measurements, Scorer
from ppd_agents.evaluation.rollouts import Policy
from ppd_agents.evaluation.stages import StageStore, fingerprint
from ppd_agents.evaluation.statistics import Bootstrap, change, recovery, summarise, way
from ppd_env.features.registry import load_features
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

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
_BOOTSTRAP_SEED = 0


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def measure(
    config: EvaluationConfig,
    attacker: Policy,
    defender: Policy,
    *,
    agents: str,
    folder: Path | None = None,
    progress: bool = False,
) -> list[Measurements]:
    """Play all rows on all scenes.

    Args:
        config: What is measured.
        attacker: Learned attacker; it must ignore the horizon, since its longest attack serves all budgets.
        defender: Learned defender.
        agents: Fingerprint of both (of their weights).
        folder: Where finished stages are kept and taken from; None keeps nothing.
        progress: Show progress bars.

    Returns:
        One set of measurements per URI.
    """
    answer = []
    for uri in config.scenes:
        bank = open_bank(
            uri, config.segmenter, config.features, config.grid, config.device, progress=progress
        )
        simulator = Simulator(bank, load_segmenter(config.segmenter, config.device))
        store = StageStore(folder, fingerprint([_decisive(config), scene_notes(bank, config), agents]))
        scorer, found = Scorer(simulator), Measurements(bank, {row: [] for row in ROWS})
        total = len(ROWS) * len(config.seeds)
        with tqdm(total=total, desc=f"evaluating {uri}", unit="row", disable=not progress) as bar:
            for seed in config.seeds:
                stages = Bench(simulator, config, seed, scorer, store, progress).run(attacker, defender, bar)
                for row in ROWS:
                    found.rows[row].append(stages[row])
        answer.append(found)
    return answer


def _decisive(config: EvaluationConfig) -> dict[str, Any]:
    """Return the settings a stored stage depends on."""
    left_out = ("scenes", "seeds", "resamples", "confidence", "device")
    return {key: value for key, value in asdict(config).items() if key not in left_out}


def scene_notes(bank: Any, config: EvaluationConfig) -> dict[str, Any]:
    """Return what identifies the scenes and models of a bank: signatures, count, scenes left out."""
    return {
        "signature": bank.source.signature,
        "segmenter": load_segmenter(config.segmenter, config.device).signature,
        "features": load_features(config.features, config.device).signature
        if config.features != "segmenter"
        else "segmenter",
        "n": len(bank),
        "left_out": [str(problem) for problem in bank.problems],
    }


def tabulate(found: Measurements, config: EvaluationConfig) -> dict[str, dict[str, Any]]:
    """Turn measurements into ``{BUDGET: {ROW: {...}}}`` with ``way``, ``recovery`` and ``clean_change``.

    Next to the rows stand ``way`` and ``recovery``: ``{"value", "ci", "n", "per_seed", "paired"}``;
    ``recovery`` also gives those of the other defences under ``"controls"``. ``clean_change``
    ``{"value", "ci", "n"}`` is what the defender does to clean prompts, in points of Dice.
    """
    groups = found.bank.groups
    few = min(config.oracle_scenes, len(groups))
    whole, part = (_draw(groups[:count], config) for count in (len(groups), few))
    table: dict[str, dict[str, Any]] = {}
    for budget in config.budgets:
        rows: dict[str, Any] = {}
        for row in ROWS:
            draws = part if row.endswith(".oracle") else whole
            rows[row] = summarise(found.dice(row, budget), found.iou(row, budget), draws)
        every = {row: found.dice(row, budget) for row in ROWS if not row.endswith(".oracle")}
        first = {row: found.dice(row, budget, few) for row in ROWS}
        rows["way"] = way(first, part)
        rows["recovery"] = recovery(every, whole)
        rows["recovery"]["controls"] = {
            "defence.random": recovery(every, whole, "defence.random"),
            "defence.oracle": recovery(first, part, "defence.oracle"),
        }
        rows["clean_change"] = change(every, ("clean.learned", "ideal"), whole)
        table[str(budget)] = rows
    return table


def _draw(groups: Sequence[str], config: EvaluationConfig) -> Bootstrap:
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    return Bootstrap.draw(groups, len(config.seeds), rng, config.resamples, config.confidence)


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
        "layout": "jittered",
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


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, aside first and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)
