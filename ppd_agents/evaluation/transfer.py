"""Attacker transfer: prompts of attacks on one segmenter, decoded by others, and defended there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppd_agents.evaluation.measure import Pass, measure_scenes
from ppd_agents.evaluation.rollouts import Policy
from ppd_agents.evaluation.rows import Rival, Row, Turn, replays, standard_rows
from ppd_agents.evaluation.scoring import Measurements
from ppd_agents.evaluation.settings import EvaluationConfig, on_models
from ppd_agents.evaluation.stages import fingerprint
from ppd_agents.evaluation.statistics import change, paired_ratio
from ppd_agents.evaluation.tabulate import View
from ppd_env.errors import PPDError

Attack = Literal["learned", "oracle"]

IDEAL = "ideal"


@dataclass(frozen=True)
class Home:
    """Where an attack is played.

    Args:
        models: ``SEGMENTER+FEATURES``, or ``SEGMENTER`` beside the features of the evaluation.
        attacker: Who attacks there.
        agents: Its fingerprint.
    """

    models: str
    attacker: Policy
    agents: str


def attacked(attack: str, home: str) -> str:
    """Return the row of prompts that ``attack`` made on the models ``home``."""
    return f"{fingerprint(home)}.attack.{attack}"


def defended(attack: str, home: str) -> str:
    """Return the row of the same prompts after the defender."""
    return f"{fingerprint(home)}.defence.{attack}"


def measure_transfer(
    uri: str,
    config: EvaluationConfig,
    homes: Sequence[Home],
    defender: Rival,
    attacks: Sequence[Attack],
    folder: Path | None,
    *,
    progress: bool = False,
) -> dict[str, Measurements]:
    """Play every attack on its home, and decode and defend all attacks on all homes.

    Args:
        uri: The scenes.
        config: What is measured; the homes replace its models.
        homes: Where attacks are played and decoded.
        defender: Learned defender, the same everywhere, with its fingerprint.
        attacks: Which attacks.
        folder: Where finished rows are kept and taken from; None keeps nothing.
        progress: Show progress bars.

    Returns:
        Models of a home -> everything decoded there: ``ideal``, and ``attacked`` and ``defended`` of every
        attack and home.

    Raises:
        PPDError: The homes do not see the same scenes.
    """
    played = {}
    for home in homes:
        there = on_models(config, home.models)
        known = standard_rows(home.attacker, defender.policy, there)
        kept = {name: known[name] for name in (IDEAL, *(f"attack.{attack}" for attack in attacks))}
        place = None if folder is None else folder / "played" / home.agents
        passes = _passes(there, [kept] * len(config.seeds), home.agents, place)
        played[home.models] = measure_scenes(uri, there, passes, progress=progress)
    _check_same_scenes(uri, list(played.values()))
    found = {}
    for home in homes:
        there = on_models(config, home.models)
        rows = [
            _foreign_rows(number, there, homes, played, defender, attacks)
            for number in range(len(config.seeds))
        ]
        place = None if folder is None else folder / "decoded" / defender.agents
        passes = _passes(there, rows, defender.agents, place)
        found[home.models] = measure_scenes(uri, there, passes, progress=progress)
    return found


def _passes(
    config: EvaluationConfig, rows: Sequence[Mapping[str, Row]], agents: str, folder: Path | None
) -> list[Pass]:
    """Return a pass for each seed with its rows; each pair of models keeps its stages apart."""
    place = None if folder is None else folder / fingerprint([config.segmenter, config.features])
    return [Pass(seed, one, agents, place) for seed, one in zip(config.seeds, rows, strict=True)]


def _foreign_rows(
    number: int,
    config: EvaluationConfig,
    homes: Sequence[Home],
    played: Mapping[str, Measurements],
    defender: Rival,
    attacks: Sequence[Attack],
) -> dict[str, Row]:
    """Declare what is decoded on one home under the seed of this number: every attack played anywhere."""
    known = standard_rows(homes[0].attacker, defender.policy, config)
    rows = {IDEAL: known[IDEAL]}
    defence = known["defence.learned"]
    assert isinstance(defence, Turn)
    for home in homes:
        for attack in attacks:
            stage = played[home.models].rows[f"attack.{attack}"][number]
            came = fingerprint([prompts.tolist() for prompts in stage.status.values()])
            few, name = attack == "oracle", attacked(attack, home.models)
            rows[name] = Turn(IDEAL, replays(stage.status), defence.stream, True, few, agents=came)
            rows[defended(attack, home.models)] = Turn(
                name, defence.mover, defence.stream, True, few, agents=came
            )
    return rows


def _check_same_scenes(uri: str, measured: Sequence[Measurements]) -> None:
    for found in measured[1:]:
        if found.bank.indices != measured[0].bank.indices:
            raise PPDError(f"{uri}: not every segmenter can encode the same scenes; see `ppd data check`.")


def tabulate_transfer(
    found: Mapping[str, Measurements], attacks: Sequence[Attack], config: EvaluationConfig
) -> dict[str, Any]:
    """Turn what ``measure_transfer`` gave for one set of scenes into matrices.

    Returns:
        ``{BUDGET: {ATTACK: {FROM: {TO: {"drop", "recovery", "change"}}}}}``: how many points of Dice the
        attack played on FROM costs where TO decodes, which share of them the defender takes back (null where
        that means nothing), and how many points: ``{"value", "ci", "n"}`` each.
    """
    return {
        str(budget): {
            attack: {
                home: {to: _cell(View(there, config, budget), attack, home) for to, there in found.items()}
                for home in found
            }
            for attack in attacks
        }
        for budget in config.budgets
    }


def _cell(view: View, attack: str, home: str) -> dict[str, Any]:
    before, after = attacked(attack, home), defended(attack, home)
    dice, draws = view.sight(before)
    return {
        "drop": change(dice, (IDEAL, before), draws),
        "recovery": paired_ratio(dice, (after, before, IDEAL, before), draws, harm=(IDEAL, before)),
        "change": change(dice, (after, before), draws),
    }


def alike(found: Mapping[str, Measurements], attack: str, config: EvaluationConfig) -> bool:
    """Tell whether an attack made the same prompts on all models, as one that looks at no mask does."""
    there = next(iter(found.values()))
    first, *others = ([stage.status for stage in there.rows[attacked(attack, home)]] for home in found)
    return all(
        np.array_equal(mine[budget], theirs[budget])
        for other in others
        for mine, theirs in zip(first, other, strict=True)
        for budget in config.budgets
    )
