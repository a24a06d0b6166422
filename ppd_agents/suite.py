"""The controls suite: trains several seeds, measures every control on every set of scenes; resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ppd_agents.contestants import Contestant
from ppd_agents.evaluation.averages import average
from ppd_agents.evaluation.cleaners import cleaner_settings
from ppd_agents.evaluation.measure import Pass, measure_scenes, scene_notes
from ppd_agents.evaluation.one_shot import REFERENCE_RULE
from ppd_agents.evaluation.scoring import Measurements
from ppd_agents.evaluation.settings import EvaluationConfig, on_models
from ppd_agents.evaluation.tables import as_plain, versions
from ppd_agents.evaluation.tabulate import tabulate
from ppd_agents.pipeline import Clock, agents_fingerprint
from ppd_env.errors import ConfigError

SCENES = ("shapes://test?count=300&seed=0", "photos://test")
"""What everyone can measure on, without any data."""

REAL_FOLDERS = ("kvasir_seg", "isic2018", "coco200", "fss1000", "persam_examples")
"""Folders of real images with masks (``folder://``) that are measured too where they are found."""

MAIN = "main"
"""Name of the section that holds every row."""

AVERAGE = "real folders"
"""Name of the average over the folders of real images."""

MAIN_ONLY = (
    "attack.oracle",
    "defence.oracle",
    "clean.matched",
    "matching",
    "matching.learned",
    "matching.subsample",
    "matching.true_signs",
)
"""Rows that only the main section holds: the oracles cost more than all others, and one-shot prompts and the
rule for them know no layout."""

FIRST_ONLY = ("defence.oracle", "defence.leave_one_out")
"""Rows that only the first training seed plays: they decode each set without each of its prompts, and need
it anew for every seed's attack."""

TRANSFER = ("mini+segmenter", "fake+fake")
"""Segmenter and features, other than the training's, that the same agents are measured on."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Section:
    """The same rows under settings of their own.

    Args:
        name: Its name in the result; ``MAIN`` is the result's own.
        config: What is measured.
    """

    name: str
    config: EvaluationConfig


@dataclass(frozen=True)
class Scenes:
    """Everything that is measured on, under names that depend on no machine.

    Args:
        uris: Name -> URI.
        real: The names that are folders of real images.
        absent: Folders of real images that were not found.
    """

    uris: Mapping[str, str]
    real: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def find_scenes(scenes: Sequence[str], data: Path | None) -> Scenes:
    """List the sets of scenes: URIs as they are, and those of ``REAL_FOLDERS`` that lie under ``data``.

    Args:
        scenes: URIs.
        data: Folder of the real folders; None where there is none.

    Raises:
        ConfigError: ``data`` is no folder.
    """
    if data is not None and not data.is_dir():
        raise ConfigError(f"{data} is no folder: name the one that holds {', '.join(REAL_FOLDERS)}.")
    real = tuple(name for name in REAL_FOLDERS if data is not None and (data / name).is_dir())
    uris = {uri: uri for uri in scenes} | {name: f"folder://{data}/{name}" for name in real}
    return Scenes(uris, real, tuple(name for name in REAL_FOLDERS if name not in real))


def sections(config: EvaluationConfig, kinds: Sequence[str], transfer: Sequence[str]) -> list[Section]:
    """Return the sections of a suite.

    Args:
        config: What the main one measures.
        kinds: ``"main"``; ``"lattice"``, the ideal prompts on the paper's own fixed interval;
            ``"transfer"``, other segmenters and features.
        transfer: ``SEGMENTER+FEATURES`` each, or ``SEGMENTER``.

    Raises:
        ConfigError: A pair names only half of what it should.
    """
    found = [Section(MAIN, config)] if MAIN in kinds else []
    if "lattice" in kinds:
        found.append(Section("lattice", replace(config, layout="lattice")))
    for pair in transfer if "transfer" in kinds else ():
        found.append(Section(f"transfer {pair}", on_models(config, pair)))
    return found


def run_suite(
    contestants: Sequence[Contestant],
    parts: Sequence[Section],
    scenes: Scenes,
    folder: Path,
    say: Say,
    *,
    other_seeds: int | None = None,
    command: str = "evaluate --suite controls",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure every control and assemble the result.

    Rows that depend on no agent are played once and shared by all training seeds.

    Args:
        contestants: One per training seed.
        parts: What is measured.
        scenes: What it is measured on.
        folder: Keeps finished stages, from which an interrupted suite goes on.
        say: Called with a line about what happens next.
        other_seeds: The first so many contestants play in the sections other than main; None: all.
        command: Recorded in the result.
        progress: Show progress bars.

    Returns:
        A result file's content (``tables.assemble``), whose seeds are training seeds, with ``"averages"``
        over the real folders and, under ``"sections"``, ``{NAME: {"settings", "results", "averages"}}``.
    """
    clock = Clock(folder / "time.json")
    if scenes.absent:
        say(f"Left out, since no such folder was found: {', '.join(scenes.absent)}.")
    played: dict[str, dict[str, Any]] = {}
    notes: dict[str, Any] = {}
    for part in parts:
        say(f"Measuring {part.name}: {', '.join(scenes.uris)} ...")
        players = contestants if part.name == MAIN else contestants[:other_seeds]
        measured = _measure(players, part, scenes, folder, progress)
        clock.save()
        notes[part.name] = {name: scene_notes(found.bank, part.config) for name, found in measured.items()}
        real = {name: measured[name] for name in scenes.real}
        played[part.name] = {
            "settings": {**_settings(part.config), "seeds": [one.seed for one in players]},
            "results": {name: tabulate(found, part.config) for name, found in measured.items()},
            "averages": {AVERAGE: average(real, part.config)} if real else {},
        }
    main = played.pop(MAIN, {"results": {}, "averages": {}})
    return as_plain(
        {
            "command": command,
            "seeds": [one.seed for one in contestants],
            "versions": versions(),
            "seconds": round(clock.seconds(), 1),
            "results": main["results"],
            "averages": main["averages"],
            "sections": played,
            "config": {
                **_settings(parts[0].config),
                "scenes": list(scenes.uris),
                "absent": list(scenes.absent),
                "scene_sets": notes,
                **_who_played(contestants),
                "cleaners": cleaner_settings(),
                "matching": {"reference": REFERENCE_RULE},
            },
        }
    )


def _who_played(contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Return the fingerprints of all agents, and how they were trained."""
    return {
        "agents": [one.fingerprint for one in contestants],
        "rivals": [
            {name: agents_fingerprint(rival) for name, rival in one.rivals.items()} for one in contestants
        ],
        "train": [one.defender.notes.get("config") for one in contestants],
    }


def _measure(
    contestants: Sequence[Contestant], part: Section, scenes: Scenes, folder: Path, progress: bool
) -> dict[str, Measurements]:
    place = folder / part.name.replace(" ", "-")
    config = part.config
    passes = []
    for number, one in enumerate(contestants):
        left_out = (*(MAIN_ONLY if part.name != MAIN else ()), *(FIRST_ONLY if number else ()))
        rows = {name: row for name, row in one.rows(config).items() if name not in left_out}
        passes.append(Pass(config.seeds[0], rows, one.fingerprint, place / one.fingerprint))
    return {
        name: measure_scenes(uri, config, passes, name=name, shared=place / "shared", progress=progress)
        for name, uri in scenes.uris.items()
    }


def _settings(config: EvaluationConfig) -> dict[str, Any]:
    """Return what a section measures, without its scenes, whose URIs may name folders of this machine."""
    settings = {name: value for name, value in asdict(config).items() if name not in ("scenes", "seeds")}
    return settings | {"evaluation_seed": config.seeds[0]}
