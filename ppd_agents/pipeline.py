"""The main job: train both agents, evaluate them, write the report; interrupted, it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ppd_agents.dqn.agent import Agent, GreedyAgent
from ppd_agents.evaluation.measure import measure
from ppd_agents.evaluation.scoring import Measurements
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.evaluation.stages import fingerprint
from ppd_agents.evaluation.tables import assemble
from ppd_agents.report.html import Gallery, render, write_report
from ppd_agents.report.learning import learning_curves
from ppd_agents.report.pick import gallery
from ppd_agents.tracking import Tracker, tracking
from ppd_agents.training.adversarial import train_adversarial
from ppd_agents.training.learner import Record
from ppd_agents.training.presets import TrainConfig
from ppd_env.errors import PPDError
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator
from ppd_env.whole_files import write_json

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Args:
        train: The training.
        evaluation: The evaluation; segmenter, features, grid, device and seed are the training's.
        name: Name of the run, for the page.
    """

    train: TrainConfig
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    name: str = "default"

    def measured(self) -> EvaluationConfig:
        """Return the evaluation on the models the agents were trained with."""
        train = self.train
        return replace(
            self.evaluation,
            segmenter=train.segmenter,
            features=train.features,
            grid=train.grid,
            device=train.device,
            seeds=(train.seed,),
        )


class Clock:
    """Wall-clock time of a run, over interruptions.

    Args:
        path: Where the time so far is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = _read_seconds(path)
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Return the time spent so far."""
        return self._before + time.monotonic() - self._start

    def save(self) -> None:
        """Keep the time so far."""
        write_json(self.path, {"seconds": round(self.seconds(), 1)})


def _read_seconds(path: Path) -> float:
    if not path.exists():
        return 0.0
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PPDError(f"{path}: not the time of a run ({error}); delete the file and run again.") from None


def agents_fingerprint(*agents: Agent) -> str:
    """Return 16 hex digits of the agents' weights and settings."""
    return fingerprint(
        [
            [agent.network.config.to_json(), agent.features_signature, agent.reward_scale]
            + [agent.least_gain, agent.further_gain]
            + [[name, tensor.cpu().tolist()] for name, tensor in agent.network.state_dict().items()]
            for agent in agents
        ]
    )


def policies(attacker: Agent, defender: Agent) -> tuple[GreedyAgent, GreedyAgent]:
    """Return both agents as they are measured: the attacker uses its whole budget, the defender may stop."""
    return GreedyAgent(attacker, stop=False), GreedyAgent(defender)


def run_all(
    config: RunConfig, folder: Path, say: Say, command: str = "run", *, skip_damaged: bool = False
) -> dict[str, Any]:
    """Train, evaluate and report.

    Args:
        config: The run.
        folder: Takes ``training``, ``evaluation``, ``metrics.json`` and ``report.html``.
        say: Called with a line about what happens next.
        command: Recorded in the result.
        skip_damaged: Go on from the newest checkpoint that can be used, see ``train_adversarial``.

    Returns:
        The result that ``metrics.json`` holds.

    Raises:
        PPDError: The folder holds another run, or something cannot be read.
    """
    with tracking(config.train, folder / "training") as tracker:
        return _run_all(config, folder, say, command, skip_damaged, tracker)


def _run_all(
    config: RunConfig, folder: Path, say: Say, command: str, skip_damaged: bool, tracker: Tracker
) -> dict[str, Any]:
    progress = config.train.progress
    clock = Clock(folder / "time.json")

    def on_round(record: Record) -> None:
        clock.save()
        tracker.on_round(record)

    say(f"1/3 Training attacker and defender on {config.train.scenes} ...")
    trained = train_adversarial(
        config.train,
        folder / "training",
        resume=True,
        skip_damaged=skip_damaged,
        on_round=on_round,
    )
    tracker.trained(trained)
    clock.save()
    evaluation = config.measured()
    say(f"2/3 Evaluating on {' and '.join(evaluation.scenes)} ...")
    attacker, defender = policies(trained.attacker, trained.defender)
    fingerprints = agents_fingerprint(trained.attacker, trained.defender)
    measured = measure(
        evaluation,
        attacker,
        defender,
        agents=fingerprints,
        folder=folder / "evaluation",
        progress=progress,
    )
    clock.save()
    say("3/3 Writing the report ...")
    extra = {
        "agents": fingerprints,
        "train": config.train.to_json(),
        "train_scenes": open_source(config.train.scenes).signature,
    }
    result = assemble(measured, evaluation, command=command, seconds=clock.seconds(), extra=extra)
    galleries = _galleries(measured, evaluation)
    result |= {"history": trained.history, "gallery": [noted(shown) for shown in galleries]}
    curves = learning_curves(trained.history)
    tracker.evaluated(result, galleries)
    page = render(result, name=config.name, curves=curves, galleries=galleries)
    write_json(folder / "metrics.json", result)
    write_report(folder / "report.html", page)
    return result


def _galleries(measured: list[Measurements], evaluation: EvaluationConfig) -> list[Gallery]:
    """Choose the pictures of every set of scenes, under the largest budget."""
    segmenter = load_segmenter(evaluation.segmenter, evaluation.device)
    budget = max(evaluation.budgets)
    return [gallery(found, Simulator(found.bank, segmenter), budget) for found in measured]


def noted(shown: Gallery) -> dict[str, Any]:
    """Return the numbers a gallery shows: ``{"title", "scenes": [{"name", PANEL: Dice in percent}]}``."""
    scenes = [
        {"name": scene.name} | {panel.title: round(panel.dice, 4) for panel in scene.panels}
        for scene in shown.scenes
    ]
    return {"title": shown.title, "scenes": scenes}
