"""What Weights & Biases is told of a run beside the learner's curves: rounds, pictures, tables, artifacts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from ppd_agents.dqn.agent import GreedyAgent, is_agent, load_agent
from ppd_agents.evaluation.rollouts import generators, play
from ppd_agents.report.gallery import GalleryScene, Panel
from ppd_agents.report.summary import is_row
from ppd_agents.training.callbacks import WandbRun, open_wandb
from ppd_agents.training.learner import Record, open_simulator
from ppd_agents.training.presets import ROLES, TrainConfig
from ppd_agents.training.starts import draw_ideal
from ppd_env.errors import ConfigError
from ppd_env.rendering import Frame, draw
from ppd_env.scenes.bank import open_bank
from ppd_env.scenes.scene import RawScene
from ppd_env.simulator import Simulator

if TYPE_CHECKING:
    from ppd_agents.report.html import Gallery
    from ppd_agents.training.adversarial import TrainResult

SHOWN = 4
"""Scenes of a live gallery."""

WIDTH = 400
"""Width of one picture in a gallery, in pixels."""

_COLUMNS = ("scenes", "budget", "row", "mdsc", "mdsc low", "mdsc high", "miou", "n")


class Tracker:
    """Tells a W&B run what happens; without a run, every method does nothing.

    Args:
        run: The run, or None.
        config: The training.
        folder: Its folder.
    """

    def __init__(self, run: WandbRun | None, config: TrainConfig, folder: Path) -> None:
        self._run, self._config, self._folder = run, config, folder
        self._shown = _stamp(folder)

    def on_round(self, record: Record) -> None:
        """Log a round's numbers, and a gallery where the best agents are new."""
        if self._run is None:
            return
        numbers = {f"round/{name}": value for name, value in record.items() if isinstance(value, int | float)}
        numbers["round"] = numbers.pop("round/round")
        self._run.log(numbers)
        now = _stamp(self._folder)
        if now != self._shown:
            self._shown = now
            scenes = live_gallery(self._config, self._folder / "best")
            self._run.log({"round": record["round"], "gallery/best": _images(scenes)})

    def trained(self, result: TrainResult) -> None:
        """Keep the agents and the list of training scenes as artifacts, and the history as a table."""
        if self._run is None:
            return
        import wandb

        run, config = self._run.run, self._config
        names: list[Any] = list(result.history[0])
        rows = [[record.get(name) for name in names] for record in result.history]
        run.log({"training/history": wandb.Table(columns=names, data=rows)})
        agents = wandb.Artifact(f"{run.id}-agents", type="model", metadata=config.to_json())
        for place in (*ROLES, *(f"best/{role}" for role in ROLES)):
            if is_agent(result.folder / place):
                agents.add_dir(os.fspath(result.folder / place), name=place)
        run.log_artifact(agents)
        bank = open_bank(config.scenes, config.segmenter, config.features, config.grid, config.device)
        scenes = wandb.Artifact(f"{run.id}-scenes", type="dataset", metadata={"uri": config.scenes})
        with scenes.new_file("scenes.json", mode="w") as file:
            listed = {"uri": config.scenes, "signature": bank.source.signature, "scenes": bank.names}
            json.dump(listed, file, indent=2)
        run.log_artifact(scenes)

    def evaluated(self, result: Mapping[str, Any], galleries: Sequence[Gallery]) -> None:
        """Log the result's rows as a table and in the summary, and the report's galleries."""
        if self._run is None:
            return
        import wandb

        run, rows = self._run.run, list(_table(result))
        run.log({"evaluation/rows": wandb.Table(columns=list(_COLUMNS), data=rows)})
        for scenes, budget, row, mdsc, *_ in rows:
            run.summary[f"mdsc/{scenes}/{budget}/{row}"] = mdsc
        for gallery in galleries:
            run.log({f"evaluation/{gallery.title}": _images(gallery.scenes)})


@contextmanager
def tracking(config: TrainConfig, folder: Path) -> Iterator[Tracker]:
    """Hold a training's W&B run open, if its configuration asks for one, also after the training itself.

    Args:
        config: The training.
        folder: Its folder.

    Yields:
        The tracker.

    Raises:
        ConfigError: wandb is not installed, or its service cannot be used.
    """
    run = open_wandb(config.wandb, folder, config.to_json())
    try:
        yield Tracker(run, config, folder)
    finally:
        if run is not None:
            run.finish()


def sweep_name() -> str | None:
    """Return the name of a run that a W&B sweep started, so that every one has its own folder; else None."""
    if not os.environ.get("WANDB_SWEEP_ID"):
        return None
    return "sweep-" + re.sub(r"[^\w-]", "-", os.environ.get("WANDB_RUN_ID", str(os.getpid())))


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """Read changes of a training as the command line writes them.

    Args:
        texts: ``NAME=VALUE`` each; the value is JSON, or else a text.

    Returns:
        Values by field of ``TrainConfig``.

    Raises:
        ConfigError: A text is no such pair, a field is unknown (``preset`` has an option of its own), or a
            value is of another kind than the default.
    """
    usual = TrainConfig()
    known = sorted(field.name for field in fields(TrainConfig) if field.name != "preset")
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.lstrip("-")
        if not equals or name not in known:
            raise ConfigError(f"--settings takes NAME=VALUE, got {text!r}; known names: {', '.join(known)}.")
        try:
            found[name] = json.loads(value, parse_constant=lambda constant: constant)
        except json.JSONDecodeError:
            found[name] = value
        if _kind(found[name]) != _kind(getattr(usual, name)):
            default = json.dumps(getattr(usual, name))
            raise ConfigError(
                f"--settings {text}: {name} is of the kind of {default}, which {value!r} is not."
            )
    return found


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list | tuple) else "text"


def live_gallery(config: TrainConfig, best: Path) -> list[GalleryScene]:
    """Let a training's best agents play on its first scenes: ideal, attacked and defended prompts.

    Nothing of the training changes: games, agents and generators are of their own.

    Args:
        config: The training.
        best: Folder of ``attacker`` and ``defender``.

    Returns:
        ``SHOWN`` scenes at most.
    """
    simulator = open_simulator(config)
    bank = simulator.bank
    rows = torch.arange(min(SHOWN, len(bank)), device=bank.device)
    now = draw_ideal(bank, rows, config.layout, np.random.default_rng(config.seed))
    states = {"Ideal": now}
    for title, role in (("Attacked", "attacker"), ("Defended", "defender")):
        attacking, steps = role == "attacker", config.steps[1]
        policy = GreedyAgent(load_agent(best / role, config.device), stop=not attacking)
        rngs = generators(config.seed, rows.tolist(), 0)
        now = play(simulator, rows, now, policy, attacking=attacking, budgets=(steps,), rngs=rngs)[steps]
        states[title] = now
    return [
        _scene(simulator, int(row), {title: status[row] for title, status in states.items()}) for row in rows
    ]


def _scene(simulator: Simulator, row: int, states: Mapping[str, torch.Tensor]) -> GalleryScene:
    bank, raw = simulator.bank, simulator.bank.raw(row)
    status = torch.stack(list(states.values()))
    rows = torch.full((len(status),), row, dtype=torch.int64, device=bank.device)
    masks, dice = simulator.native_masks(rows, status), simulator.segment(rows, status).dice
    panels = [
        Panel(title, one.cpu().numpy(), mask, 100 * float(value))
        for title, one, mask, value in zip(states, status, masks, dice, strict=True)
    ]
    return GalleryScene(raw.name, raw.image, raw.mask, bank.points[row].cpu().numpy(), panels)


def strip(scene: GalleryScene) -> np.ndarray:
    """Draw a scene's panels side by side, (height, width, 3) uint8 RGB."""
    pictures, before = [], scene.panels[0].status
    for panel in scene.panels:
        caption = (f"{panel.title}: Dice {panel.dice:.1f} %", scene.name)
        frame = Frame(
            RawScene(scene.name, scene.image, scene.truth, ""),
            panel.mask,
            np.asarray(scene.points, np.float32),
            panel.status,
            panel.status != before,
            caption,
        )
        picture, before = draw(frame), panel.status
        height = round(picture.shape[0] * WIDTH / picture.shape[1])
        pictures.append(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA))
    return np.concatenate(pictures, axis=1)


def _images(scenes: Sequence[GalleryScene]) -> list[Any]:
    import wandb

    captions = [", ".join(f"{panel.title} {panel.dice:.1f}" for panel in scene.panels) for scene in scenes]
    return [
        wandb.Image(strip(scene), caption=f"{scene.name}: {caption}")
        for scene, caption in zip(scenes, captions, strict=True)
    ]


def _stamp(folder: Path) -> int:
    """Return when the best agents were written; 0 where there are none."""
    written = folder / "best" / ROLES[-1]
    return written.stat().st_mtime_ns if is_agent(written) else 0


def _table(result: Mapping[str, Any]) -> Iterator[list[Any]]:
    for scenes, budgets in result["results"].items():
        for budget, table in budgets.items():
            for name, row in table.items():
                if is_row(row):
                    yield [scenes, budget, name, row["mdsc"], *row["mdsc_ci"], row["miou"], row["n"]]
