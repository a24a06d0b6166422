"""Time the published schedule: ``python -m experiments.paper_speed --device cuda --json PATH``.

SAM's weights are random: what is learned means nothing, but how long it takes does not depend on weights. The
features are the segmenter's own. Encoding the scenes is not counted; every round is.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from ppd_agents.evaluation.tables import versions
from ppd_agents.speed.machine import machine, peak_memory
from ppd_agents.speed.official import official_sam, save_official
from ppd_agents.training.adversarial import train_adversarial
from ppd_agents.training.learner import Record
from ppd_agents.training.presets import preset
from ppd_env.loading import as_device
from ppd_env.whole_files import write_json

EPISODES = 1000
"""Of either agent in the published schedule."""


@dataclass(frozen=True)
class Options:
    """Time some rounds of the published schedule and tell how long all of it takes."""

    device: str = "cpu"
    """A torch device, such as cuda."""
    architecture: str = "vit_h"
    """Of SAM: vit_b, vit_l or vit_h; their decoders are alike, so only encoding the scenes differs."""
    preset: str = "ppd-arxiv"
    """Settings of the training."""
    scenes: str = "shapes://train?count=64&seed=0"
    """Scenes it plays on."""
    grid: int = 40
    """Patches per side."""
    games: int = 1
    """Episodes side by side; the paper plays one after another."""
    rounds: int = 4
    """Rounds that are timed; 1000 / GAMES of them are the whole schedule."""
    steps: tuple[int, int] = (50, 300)
    """Bounds of an episode's length."""
    gradient_steps: int = 1
    """Per step of all games side by side; with GAMES of them as much is replayed as in the paper."""
    batch_size: int = 128
    """Transitions per gradient step."""
    decoder: str = ""
    """How SAM decodes, such as dtype=bfloat16&compile=1; as usual where empty."""
    json: Path | None = None
    """Write the result here."""


def time_schedule(options: Options, folder: Path) -> dict[str, Any]:
    """Train for some rounds and return what they took.

    Args:
        options: What is trained.
        folder: For weights, checkpoints and logs.

    Returns:
        ``seconds_per_step`` of one agent's step of all games side by side, the ``hours`` that the whole
        schedule takes at that pace, and what was timed on which machine. It is written after every round.
    """
    weights = folder / f"{options.architecture}.pth"
    query = f"?{options.decoder}" if options.decoder else ""
    save_official(official_sam(options.architecture), weights)
    config = preset(
        options.preset,
        device=str(as_device(options.device)),
        scenes=options.scenes,
        segmenter=f"checkpoint:{options.architecture}:{weights}{query}",
        features="segmenter",
        grid=options.grid,
        games=options.games,
        rounds=options.rounds,
        steps=options.steps,
        gradient_steps=options.gradient_steps,
        batch_size=options.batch_size,
        tensorboard=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is not the file Meta published.*")
        history: list[Record] = []

        def note(record: Record) -> None:
            history.append(record)
            if options.json is not None:  # so that a run which is cut off leaves what it timed
                write_json(options.json, _extrapolated(options, history))

        train_adversarial(config, folder / "training", on_round=note)
    return _extrapolated(options, history)


def _extrapolated(options: Options, history: Sequence[Record]) -> dict[str, Any]:
    """Tell what some rounds took, and the whole schedule at their pace."""
    per_step = sum(r["seconds"] for r in history) / sum(2 * r["steps"] for r in history)
    steps = sum(options.steps) / 2 * 2 * EPISODES / options.games
    return {
        "seconds_per_step": per_step,
        "hours": per_step * steps / 3600,
        "timed_episodes": len(history) * options.games,
        "timed_lengths": [r["steps"] for r in history],
        "episodes": EPISODES,
        "options": {**asdict(options), "json": None},
        "machine": machine(as_device(options.device)),
        "memory": peak_memory(as_device(options.device)),
        "versions": versions(),
    }


def main(options: Options) -> None:
    """Time the schedule, print it and write it where asked."""
    with tempfile.TemporaryDirectory(prefix="ppd-schedule-") as made:
        result = time_schedule(options, Path(made))
    print(
        f"{1e3 * result['seconds_per_step']:.1f} ms per step of {options.games} game(s) side by side; "
        f"{EPISODES} episodes of both agents: {result['hours']:.2f} hours"
    )
    if options.json is not None:  # once more, with what follows the last round
        write_json(options.json, result)


if __name__ == "__main__":
    main(tyro.cli(Options))
