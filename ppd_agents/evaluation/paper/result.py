"""Measures a table of the paper and assembles its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ppd_agents.dqn.agent import Agent
from ppd_agents.evaluation.paper.config import VERSION, TableConfig
from ppd_agents.evaluation.paper.playing import Cluster, play_table
from ppd_agents.evaluation.paper.published import published
from ppd_agents.evaluation.paper.sets import TableSet
from ppd_agents.evaluation.paper.summary import tabulate_set
from ppd_agents.evaluation.tables import as_plain, versions
from ppd_agents.pipeline import Clock, agents_fingerprint
from ppd_env.errors import ConfigError, PPDError, SceneError

Say = Callable[[str], None]


def measure_table(
    config: TableConfig,
    uris: Mapping[str, str],
    attacker: Agent,
    defender: Agent,
    folder: Path,
    say: Say,
    *,
    optional: bool = False,
    cluster: Cluster | None = None,
    command: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure one table.

    Args:
        config: What is measured.
        uris: Name -> URI of the sets it is measured on.
        attacker: Trained attacker.
        defender: Trained defender.
        folder: Keeps finished pieces, from which an interrupted table goes on.
        say: Called with a line about what happens.
        optional: Leave out, with the reason, sets that cannot be measured; else they are errors.
        cluster: Spread the work over a Ray cluster; None: do it here.
        command: Recorded in the result.
        progress: Show progress bars.

    Returns:
        A result file's content (``tables.assemble``) with ``"table"`` and ``"published"``; its ``"seeds"`` is
        the seed of prompts, and ``per_seed`` of a row has one entry per reference.

    Raises:
        PPDError: Agents are in the wrong roles, or something cannot be opened.
    """
    for agent, role in ((attacker, "attacker"), (defender, "defender")):
        if agent.role != role:
            raise ConfigError(f"The agent given as {role} is a trained {agent.role}: name a {role}.")
    clock = Clock(folder / "time.json")
    sets, skipped = _open(config, uris, optional, say)
    played, facts = play_table(config, sets, attacker, defender, folder, cluster=cluster, progress=progress)
    clock.save()
    notes = _notes(config, attacker, defender, facts)
    for note in notes:
        say(note)
    return as_plain(
        {
            "command": command,
            "table": config.table,
            "seeds": [config.seed],
            "versions": versions(),
            "seconds": round(clock.seconds(), 1),
            "results": {name: tabulate_set(found, config) for name, found in played.items()},
            "published": published(config.table),
            "config": {
                **asdict(config),
                "version": VERSION,
                "scenes": list(played),
                "skipped": skipped,
                "scene_sets": {
                    name: {**found.notes, "n": len(found.groups), "left_out": list(found.left_out)}
                    for name, found in played.items()
                },
                "models": facts,
                "agents": {
                    "fingerprint": agents_fingerprint(attacker, defender),
                    "features": defender.features,
                    "grid": defender.grid,
                },
                "notes": notes,
            },
        }
    )


def _open(
    config: TableConfig, uris: Mapping[str, str], optional: bool, say: Say
) -> tuple[list[TableSet], dict[str, str]]:
    """Open all sets and choose their references; return those that can be measured, and why others cannot."""
    sets, skipped = [], {}
    for name, uri in uris.items():
        try:
            sets.append(TableSet(name, uri, config.references, config.reference_seed, config.targets))
        except (ConfigError, SceneError) as error:
            if not optional:
                raise
            skipped[name] = str(error)
            say(f"Left out {name}: {error}")
    if not sets:
        raise PPDError("None of these sets can be measured; see above.")
    return sets, skipped


def _notes(config: TableConfig, attacker: Agent, defender: Agent, facts: Mapping[str, str]) -> list[str]:
    """Say what a reader must know about the agents."""
    notes = []
    if {attacker.features_signature, defender.features_signature} != {facts["features"]}:
        notes.append(
            f"The agents were trained on the features {defender.features!r}, not on {config.features!r}: "
            "this shows how they transfer, not what agents trained on these would do."
        )
    if config.grid != defender.grid:
        notes.append(f"The agents were trained on a grid of {defender.grid}, not of {config.grid}.")
    return notes
