"""Ablate the learner one factor at a time: ``python -m experiments.ablation --json PATH``.

Every factor changes one thing of a short training and is trained with several seeds. What is finished is
kept under ``--folder``, from which an interrupted ablation goes on. Measured on ``shapes://val``, which no
table of results uses, in Dice of the low-resolution mask. ``python -m experiments.ablation --table PATH``
prints a recorded file as Markdown.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from ppd_agents.dqn.agent import Agent, GreedyAgent
from ppd_agents.evaluation.rollouts import Policy, generators, play
from ppd_agents.evaluation.rows import ideal_statuses
from ppd_agents.evaluation.statistics import Bootstrap, change, recovery
from ppd_agents.evaluation.tables import as_plain, versions
from ppd_agents.pipeline import agents_fingerprint
from ppd_agents.shipped import open_agent
from ppd_agents.training.adversarial import train_adversarial
from ppd_agents.training.presets import TrainConfig, preset
from ppd_env.errors import ConfigError
from ppd_env.scenes.bank import SceneBank, open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator
from ppd_env.whole_files import write_json

BASE: Mapping[str, Any] = {
    "scenes": "shapes://train?count=48&seed=0",
    "rounds": 3,
    "games": 16,
    "steps": (2, 12),
    "batch_size": 256,
    "rehearsals": 60,
    "members": 1,
    "final_updates": 100,
    "final_rehearsals": 4,
    "tensorboard": False,
    "progress": False,
}
"""What the short training changes of the ``mini`` preset."""

_REWARD = {"rehearsals": 0}

FACTORS: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "gamma 0.9": {"gamma": 0.9},
    "gamma 0.99": {"gamma": 0.99},
    "double, gamma 0.9": {"gamma": 0.9, "double": True},
    "3-step returns, gamma 0.9": {"gamma": 0.9, "n_step": 3},
    "dueling": {"dueling": True},
    "squared loss": {"loss": "mse"},
    "prioritised replay": {"prioritised": True},
    "4 prompts per step, shaping as a reward": _REWARD | {"prompts_per_step": 4},
    "pool of 8 past attackers": {"opponent_pool": 8},
    "no clean starts": {"clean_share": 0.0},
    "a fifth noise": {"noise_share": 0.2},
    "no feature matching": {"matching_share": 0.0},
    "1 update per step": {"gradient_steps": 1},
    "8 updates per step": {"gradient_steps": 8},
    "no final updates": {"final_updates": 0, "final_rehearsals": 0},
    "three Q-networks": {"members": 3},
    "no actions tried": {"branches": 0},
    "8 actions tried": {"branches": 8},
    "tried at random only": {"branch_greedy": 0.0},
    "shaping as a reward": _REWARD,
    "no shaping": _REWARD | {"shaping": 0.0},
    "attacker without first mask": {"initial_mask": False},
    "defender with feedback, shaping as a reward": _REWARD | {"feedback": "defender"},
    "no landmarks": {"landmarks": 0},
    "no messages, no landmarks": {"messages": 0, "landmarks": 0},
}
"""Factor -> what it changes of ``BASE``. Some need another value besides, which their name tells."""

SCENES = "shapes://val?count=40&seed=0"
BUDGETS = (6, 20)
_START, _PLAY = 0, 4


@dataclass(frozen=True)
class Options:
    """Train and measure every factor with every seed."""

    json: Path | None = None
    """Write the result file here."""
    table: Path | None = None
    """Train nothing: print this result file as Markdown."""
    folder: Path = Path("runs/ablation")
    """Keeps trainings and measurements."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    factors: tuple[str, ...] = tuple(FACTORS)
    """Which factors; all of them by default."""


class Yardstick:
    """The scenes and the common attack every training is measured on.

    Args:
        config: A training; its segmenter, features and grid are used.
        scenes: URI of the scenes.
    """

    def __init__(self, config: TrainConfig, scenes: str) -> None:
        bank = open_bank(scenes, config.segmenter, config.features, config.grid)
        self.simulator = Simulator(bank, load_segmenter(config.segmenter))
        self.ideal = ideal_statuses(bank, generators(0, bank.indices, _START))
        shipped = open_agent("mini", "attacker")
        self.common = self._play(GreedyAgent(shipped, stop=False), self.ideal, attacking=True)
        self.key = [scenes, bank.source.signature, list(BUDGETS), agents_fingerprint(shipped)]

    @property
    def bank(self) -> SceneBank:
        """The scenes."""
        return self.simulator.bank

    def _play(
        self, policy: Policy, start: Tensor, budgets: Sequence[int] | None = None, *, attacking: bool
    ) -> dict[int, Tensor]:
        rows = torch.arange(len(self.bank))
        rngs = generators(0, self.bank.indices, _PLAY)
        return play(
            self.simulator, rows, start, policy, attacking=attacking, budgets=budgets or BUDGETS, rngs=rngs
        )

    def _dice(self, status: Tensor) -> list[float]:
        dice = self.simulator.segment(torch.arange(len(self.bank)), status).dice
        return [round(100 * value, 4) for value in dice.tolist()]

    def measure(self, attacker: Agent, defender: Agent) -> dict[str, dict[str, list[float]]]:
        """Return ``{BUDGET: {ROW: Dice of every scene}}`` in percent."""
        own = self._play(GreedyAgent(attacker, stop=False), self.ideal, attacking=True)
        cleaner = GreedyAgent(defender)
        found: dict[str, dict[str, list[float]]] = {}
        for budget in BUDGETS:
            rows = {"ideal": self.ideal, "attack.learned": own[budget], "attack.common": self.common[budget]}
            starts = {
                "defence.learned": own[budget],
                "defence.common": self.common[budget],
                "clean.learned": self.ideal,
            }
            for name, start in starts.items():
                rows[name] = self._play(cleaner, start, (budget,), attacking=False)[budget]
            found[str(budget)] = {name: self._dice(status) for name, status in rows.items()}
        return found


def run_one(config: TrainConfig, folder: Path, yardstick: Yardstick) -> dict[str, Any]:
    """Train and measure one factor with one seed, or read what was measured before.

    Returns:
        ``{"seconds", "key", "dice": {BUDGET: {ROW: [...]}}}``.
    """
    path, key = folder / "measured.json", [config.decisive(), yardstick.key]
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return known
    trained = train_adversarial(config, folder / "training", resume=True)
    seconds = sum(record["seconds"] for record in trained.history)
    dice = yardstick.measure(trained.attacker, trained.defender)
    found = {"seconds": seconds, "key": key, "dice": dice}
    write_json(path, found)
    return found


def summarise(runs: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> dict[str, Any]:
    """Summarise the seeds of one factor, with 95 % bootstrap intervals over scenes and seeds.

    Returns:
        ``{"seconds", BUDGET: {"attack", "recovery", "recovery_common", "clean_change"}}``; ``attack`` is the
        Dice the factor's own attacker leaves, ``recovery`` what its defender takes back of that,
        ``recovery_common`` what it takes back of the attack that is the same for all factors.
    """
    draws = Bootstrap.draw(groups, len(runs), np.random.default_rng(0))
    answer: dict[str, Any] = {"seconds": float(np.mean([run["seconds"] for run in runs]))}
    for budget in runs[0]["dice"]:
        rows = {
            name: np.array([run["dice"][budget][name] for run in runs]) for name in runs[0]["dice"][budget]
        }
        own = rows["attack.learned"]
        common = rows | {"attack.learned": rows["attack.common"]}
        answer[budget] = {
            "attack": {"value": float(own.mean()), "ci": draws.interval(draws.means(own))},
            "recovery": recovery(rows, draws),
            "recovery_common": recovery(common, draws, "defence.common"),
            "clean_change": change(rows, ("clean.learned", "ideal"), draws),
        }
    return answer


def table(result: Mapping[str, Any]) -> str:
    """Write a result file as Markdown, one line per factor."""
    budgets = [str(budget) for budget in result["config"]["budgets"]]
    heads = ["factor"]
    for budget in budgets:
        heads += [f"attack, {budget}", f"recovery, {budget}", f"recovery of the common attack, {budget}"]
    lines = [[*heads, "clean prompts", "minutes"], ["---"] * (len(heads) + 2)]
    for factor, found in result["results"].items():
        cells = [factor]
        for budget in budgets:
            part = found[budget]
            cells += [_cell(part["attack"], 1), _cell(part["recovery"], 2), _cell(part["recovery_common"], 2)]
        lines.append([*cells, _cell(found[budgets[-1]]["clean_change"], 1), f"{found['seconds'] / 60:.1f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(found: Mapping[str, Any], digits: int) -> str:
    if found["value"] is None:
        return "-"
    low, high = found["ci"]
    return f"{found['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def run(options: Options) -> dict[str, Any]:
    """Train and measure what ``options`` names and return the result file's content."""
    unknown = sorted(set(options.factors) - set(FACTORS))
    if unknown:
        raise ConfigError(f"Unknown factor(s) {', '.join(unknown)}; known ones: {', '.join(FACTORS)}.")
    base = dict(BASE)
    yardstick = Yardstick(preset("mini", **base), SCENES)
    results: dict[str, Any] = {}
    with tqdm(total=len(options.factors) * len(options.seeds), desc="ablation", unit="training") as bar:
        for factor in options.factors:
            bar.set_postfix_str(factor)
            runs = []
            for seed in options.seeds:
                config = preset("mini", **base | dict(FACTORS[factor]), seed=seed)
                place = options.folder / factor.replace(" ", "-") / f"seed-{seed}"
                runs.append(run_one(config, place, yardstick))
                bar.update()
            results[factor] = summarise(runs, yardstick.bank.groups)
    return as_plain(
        {
            "command": shlex.join(["python", "-m", "experiments.ablation", *_chosen(options)]),
            "seeds": list(options.seeds),
            "versions": versions(),
            "seconds": round(len(options.seeds) * sum(found["seconds"] for found in results.values()), 1),
            "results": results,
            "config": {
                "base": preset("mini", **base).to_json(),
                "changes": {factor: dict(FACTORS[factor]) for factor in options.factors},
                "scenes": SCENES,
                "budgets": list(BUDGETS),
            },
        }
    )


def _chosen(options: Options) -> list[str]:
    """Return the factors as the command names them; nothing where they are all."""
    return [] if set(options.factors) == set(FACTORS) else ["--factors", *options.factors]


def main(options: Options) -> None:
    """Print a recorded table, or run the ablation."""
    if options.table is not None:
        print(table(json.loads(options.table.read_text(encoding="utf-8"))))
        return
    result = run(options)
    if options.json is not None:
        write_json(options.json, result)
    print(table(result))


if __name__ == "__main__":
    main(tyro.cli(Options))
