"""The trained agents that a measurement compares: one set of them for each training seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ppd_agents.dqn.agent import Agent, load_agent
from ppd_agents.evaluation.rows import Rival, Row, control_rows, matched_cleaner
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.pipeline import agents_fingerprint, policies
from ppd_agents.training.adversarial import train_adversarial
from ppd_agents.training.presets import ROLES, TrainConfig
from ppd_env.errors import ConfigError, PPDError

RIVALS = ("graph_statistics", "maskable_ppo")
"""Learned controls, trained on the same scenes: a DQN that learns from graph statistics only, as PPD's
predecessor does, and PPO that learns from changes of Dice under the trained attacker."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """What one training seed brings.

    Args:
        seed: The training seed.
        attacker: The trained attacker.
        defender: The trained defender.
        rivals: Learned controls by name, defenders all.
    """

    seed: int
    attacker: Agent
    defender: Agent
    rivals: Mapping[str, Agent] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the attacker's and defender's weights and settings."""
        return agents_fingerprint(self.attacker, self.defender)

    def rows(self, config: EvaluationConfig) -> dict[str, Row]:
        """Declare every row of the controls' tables for these agents."""
        attacker, defender = policies(self.attacker, self.defender)
        rivals = {
            name: Rival(policies(self.attacker, rival)[1], agents_fingerprint(rival))
            for name, rival in self.rivals.items()
        }
        return control_rows(attacker, defender, rivals, config, matched_cleaner(self.defender))


def train_contestant(
    config: TrainConfig, folder: Path, rivals: tuple[str, ...] = RIVALS, *, skip_damaged: bool = False
) -> Contestant:
    """Train one seed's agents; what is finished is taken as it is, what was interrupted goes on.

    Args:
        config: The training, with its seed.
        folder: Takes ``training`` and a folder for each rival.
        rivals: The learned controls to train as well.
        skip_damaged: Go on from the newest checkpoint that can be used; newer ones are set aside.
    """
    trained = train_adversarial(config, folder / "training", resume=True, skip_damaged=skip_damaged)
    found = {
        name: _train_rival(name, config, folder / name, trained.attacker, skip_damaged) for name in rivals
    }
    return Contestant(config.seed, trained.attacker, trained.defender, found)


def _train_rival(name: str, config: TrainConfig, folder: Path, attacker: Agent, skip_damaged: bool) -> Agent:
    if name == "graph_statistics":
        other = replace(config, reward="graph-statistics", shaping=0.0, rehearsals=0)
        return train_adversarial(other, folder, resume=True, skip_damaged=skip_damaged).defender
    if name == "maskable_ppo":
        from ppd_agents.methods.maskable_ppo import train_maskable_ppo  # sb3-contrib serves nothing else

        return train_maskable_ppo(config, folder, attacker=attacker)
    raise ConfigError(f"Unknown learned control {name!r}; known ones: {', '.join(RIVALS)}.")


def load_contestant(folder: Path, number: int, device: str) -> Contestant:
    """Load agents that were trained before.

    Args:
        folder: Holds ``attacker`` and ``defender``; rivals are taken from the folders beside it, where
            ``train_contestant`` puts them.
        number: Stands for the training seed of agents that do not tell theirs.
        device: A torch device.

    Raises:
        PPDError: The agents are missing or damaged, or one has the other's role.
    """
    attacker, defender = (load_agent(folder / role, device) for role in ROLES)
    for agent, role in zip((attacker, defender), ROLES, strict=True):
        if agent.role != role:
            raise PPDError(f"{folder / role} holds an agent that is no {role}: put it where it belongs.")
    beside = {name: folder.parent / name / "defender" for name in RIVALS}
    rivals = {name: load_agent(path, device) for name, path in beside.items() if path.is_dir()}
    seed = defender.notes.get("config", {}).get("seed", number)
    return Contestant(int(seed), attacker, defender, rivals)


def refuse_mixed(contestants: Sequence[Contestant]) -> None:
    """Refuse agents that cannot be measured on the same features and grid.

    Raises:
        ConfigError: They were trained on different ones.
    """
    kinds = sorted({f"{one.defender.features} on a grid of {one.defender.grid}" for one in contestants})
    if len(kinds) > 1:
        raise ConfigError(
            f"Agents of several trainings are measured on one kind of features, got {' and '.join(kinds)}: "
            "measure each kind by itself."
        )


def with_leading_rivals(contestants: list[Contestant]) -> list[Contestant]:
    """Leave out the rivals that an earlier seed lacks: a row is played under the first seeds, or all."""
    kept, known = [], set(contestants[0].rivals)
    for one in contestants:
        known &= set(one.rivals)
        kept.append(replace(one, rivals={name: rival for name, rival in one.rivals.items() if name in known}))
    return kept
