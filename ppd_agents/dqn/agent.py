"""A trained agent as it is shipped: a Q-network with everything needed to use it, as safetensors + JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ppd_agents.dqn.exploration import masked_argmax
from ppd_agents.dqn.graph_state import GraphState
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.folders import folder_in_one_rename
from ppd_env.errors import ConfigError, PPDError
from ppd_env.game.actions import Role
from ppd_env.game_batch import GameBatch
from ppd_env.loading import as_device

FORMAT = "ppd-agent-3"
_JSON, _TENSORS = "agent.json", "agent.safetensors"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "network": dict,
    "features": str,
    "features_signature": str,
    "grid": int,
    "reward_scale": (int, float),
    "least_gain": (int, float),
    "further_gain": (int, float),
    "notes": dict,
    "at_once": (int, float),
}
_LATER = ("at_once",)  # agents of earlier versions lack it
_KEPT = tuple(name for name in _KINDS if name != "network")


@dataclass(frozen=True, eq=False)
class Agent:
    """A frozen Q-network and how it was trained.

    Args:
        network: The Q-network, in evaluation mode; its configuration names the role.
        features: URI of the patch features it was trained on.
        features_signature: Their signature. Distances in others mean something too, as all are scaled alike,
            but not the same.
        grid: Patches per side it was trained on; it runs on any.
        reward_scale: What its values are divided by to be changes of Dice.
        least_gain: What an action must be worth in Dice, at least, to be preferred to STOP. The best of many
            uncertain values is too high more often than not, and clean prompts would pay for it.
        further_gain: The same after its first action of an episode; usually less. A prompt found wrong tells
            of an attack, which makes others likelier to be wrong; edge tracking has two thresholds for a
            like reason (Canny, 1986).
        notes: Free facts about the training, plain JSON.
        at_once: Share of the prompts that may go between two looks, where a whole set is cleaned
            (``Cleaning``); always at least one. A look costs the square of their number.

    Raises:
        ConfigError: A threshold is not a number, or ``at_once`` no share.
    """

    network: GraphQNetwork
    features: str
    features_signature: str
    grid: int
    reward_scale: float
    least_gain: float = 0.0
    further_gain: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)
    at_once: float = 1 / 32

    def __post_init__(self) -> None:
        """Refuse thresholds that no value would ever be held to, and what is no share."""
        for name in ("least_gain", "further_gain", "at_once"):
            value = getattr(self, name)
            if not isinstance(value, Real) or math.isnan(value):
                raise ConfigError(f"{name} must be a number, got {value!r}.")
        if not 0 <= self.at_once <= 1:
            raise ConfigError(f"at_once must be a share from 0 to 1, got {self.at_once!r}.")

    @property
    def role(self) -> Role:
        """``"attacker"`` or ``"defender"``."""
        return self.network.config.role

    @property
    def segmenter(self) -> str:
        """URI of the segmenter it was trained with, by its notes; ``"mini"`` where they do not tell."""
        config = self.notes.get("config")
        return str(config.get("segmenter", "mini")) if isinstance(config, dict) else "mini"

    @torch.no_grad()
    def values(self, state: GraphState) -> Tensor:
        """Return what every action is worth in Dice (and in what training added), (B, 2N + 1); STOP is 0."""
        return self.network(state) / self.reward_scale

    def stop_value(self, moved: Tensor) -> Tensor:
        """Return what an action must be worth to be preferred to STOP.

        Args:
            moved: (B,) bool, whether the agent has acted in this episode.

        Returns:
            (B,) float32, ``further_gain`` or ``least_gain``.
        """
        least = torch.full(moved.shape, self.least_gain, device=moved.device)
        return least.masked_fill_(moved, self.further_gain)

    def for_matched(self) -> Agent:
        """Return this defender as it cleans prompts that feature matching set.

        Nobody chose their errors to do harm, and they come in groups: suspicion, which knows attacks, misses
        them, but what the values of Dice expect of every removal is right in its sign. So these alone decide,
        without a threshold, and up to half of the prompts go at a look: of a hundred prompts hardly one
        matters before others have gone. It shares the weights; what is saved is the agent it was made of.
        """
        network = self.network.suspecting(0.0)
        return replace(self, network=network, least_gain=0.0, further_gain=0.0, at_once=0.5)

    def to(self, device: torch.device | str) -> Agent:
        """Move the network to ``device`` and return this agent."""
        self.network.to(device)
        return self


def save_agent(agent: Agent, path: str | Path, *, half: bool = False) -> Path:
    """Write an agent into a folder, aside first and then in one rename.

    Args:
        agent: The agent.
        path: The folder; an agent that lies there is replaced.
        half: Weights in float16, which halves the file and rounds them; they are read as float32 again.

    Returns:
        The folder.

    Raises:
        PPDError: The folder holds something else.
    """
    path = Path(path)
    if path.exists() and not is_agent(path):
        raise PPDError(f"{path} exists and is no saved agent: choose another folder or remove it.")
    with folder_in_one_rename(path) as aside:
        write_agent(agent, aside, half=half)
    return path


def write_agent(agent: Agent, folder: Path, *, half: bool = False) -> None:
    """Write an agent's two files into a folder that is there; ``save_agent`` keeps parts from being seen.

    Raises:
        PPDError: Its network holds more than its configuration tells, as that of ``Agent.for_matched`` does.
    """
    shape, held = agent.network.config, agent.network.state_dict()
    if set(held) != set(GraphQNetwork(shape, torch.Generator()).state_dict()):
        raise PPDError(
            "This agent shares the network of another, of which for_matched made it: save that one."
        )
    facts = {"format": FORMAT, "network": shape.to_json()}
    facts |= {name: getattr(agent, name) for name in _KEPT} | {"notes": dict(agent.notes)}
    kind = torch.float16 if half else torch.float32
    weights = {name: t.detach().to("cpu", kind).contiguous() for name, t in held.items()}
    (folder / _JSON).write_text(json.dumps(facts, indent=2) + "\n")
    save_file(weights, folder / _TENSORS)


def is_agent(path: Path) -> bool:
    """Tell whether a folder holds what ``save_agent`` writes."""
    return (path / _JSON).is_file()


def load_agent(path: str | Path, device: torch.device | str = "cpu") -> Agent:
    """Read an agent from a folder that ``save_agent`` wrote.

    Args:
        path: The folder.
        device: A torch device.

    Returns:
        The agent, in evaluation mode.

    Raises:
        PPDError: The folder holds no agent, another format, or damaged files, or there is no such device.
    """
    path, device = Path(path), as_device(device)
    facts = _read_facts(path)
    try:
        shape = QNetworkConfig.from_json(facts["network"])
        network = GraphQNetwork(shape, torch.Generator().manual_seed(0))
    except PPDError as error:
        raise PPDError(f"{path / _JSON}: {error}") from None
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise PPDError(
            f'{path / _JSON}: "network" makes no sense ({error}); copy the agent again.'
        ) from error
    try:
        weights = load_file(path / _TENSORS)
        network.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PPDError(
            f"{path / _TENSORS} is missing, damaged or does not fit {_JSON}: save or copy the agent again "
            f"({error})."
        ) from error
    if not all(bool(part.isfinite().all()) for part in weights.values()):
        raise PPDError(f"{path / _TENSORS} holds weights that are no numbers; copy the agent again.")
    network.requires_grad_(False)
    network.eval()
    try:
        return Agent(network, **{name: facts[name] for name in _KEPT if name in facts}).to(device)
    except ConfigError as error:
        raise PPDError(f"{path / _JSON}: {error} Copy the agent again.") from None


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((path / _JSON).read_text())
    except FileNotFoundError:
        raise PPDError(f"{path} holds no agent: {_JSON} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PPDError(f"{path / _JSON} cannot be read ({error}); copy the agent again.") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise PPDError(f"{path / _JSON} is not of the format {FORMAT!r} this version reads.")
    lost = set(_KINDS) - set(facts) - set(_LATER)
    if lost:
        raise PPDError(f"{path / _JSON} lacks {', '.join(sorted(lost))}.")
    for name in _KINDS.keys() & facts.keys():
        if not isinstance(facts[name], _KINDS[name]) or isinstance(facts[name], bool):
            raise PPDError(f"{path / _JSON}: {name} cannot be {facts[name]!r}; copy the agent again.")
    if facts["grid"] < 1 or not 0 < facts["reward_scale"] < float("inf"):
        raise PPDError(f"{path / _JSON}: grid and reward_scale must be above 0; copy the agent again.")
    return facts


def game_state(games: GameBatch, which: Tensor, feedback: bool) -> GraphState:
    """Return the states of the games ``which`` (k,) as the Q-network takes them."""
    bank = games.simulator.bank
    return GraphState(
        bank.features,
        bank.positions,
        games.rows[which],
        games.status[which],
        games.feedback(which) if feedback else None,
        games.predicted_iou[which] if feedback else None,
        games.initial_mask[which],
        games.seen[which],
    )


class GreedyAgent:
    """Plays an agent's best legal action; an ``Opponent`` for environments and evaluations.

    Args:
        agent: The agent.
        stop: It may STOP when nothing is worth the agent's least gain; otherwise only when nothing else is
            legal.

    Attributes:
        agent: The agent.
        blind: It never looks at masks while it plays, so that its moves may be played without decoding.
        looks_once: It wants the mask the game begins with.
    """

    def __init__(self, agent: Agent, stop: bool = True) -> None:
        self.agent = agent
        self.stop = stop
        self.blind = not agent.network.config.use_feedback
        self.looks_once = agent.network.config.use_initial_mask

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Return one legal action (k,) int64 for each game of ``which`` (k,); ``rngs`` are not used.

        Raises:
            ConfigError: It is the other role's turn, or the scenes have features of another length.
        """
        attacking = self.agent.role == "attacker"
        bank = games.simulator.bank
        config = self.agent.network.config
        if config.raw_features and config.raw_features != bank.features.shape[-1]:
            raise ConfigError(
                f"The agent was trained on {self.agent.features!r} features of length {config.raw_features}, "
                f"these scenes have {bank.features.shape[-1]}."
            )
        if bool((games.attacking[which] != attacking).any()):
            asked = "defender" if attacking else "attacker"
            raise ConfigError(
                f"A trained {self.agent.role} was asked to play the {asked}: load the other agent."
            )
        legal = games.legal(which)
        if not self.stop:
            legal[:, -1] = ~legal[:, :-1].any(dim=1)
        values = self.agent.values(game_state(games, which, config.use_feedback))
        values[:, -1] = self.agent.stop_value(games.steps_left[which] < games.steps_total[which])
        return masked_argmax(values, legal)
