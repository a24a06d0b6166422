"""The rows of a table, declared: whose prompts each starts from, and who changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ppd_agents.cleaning import clean_nodes
from ppd_agents.dqn.agent import Agent
from ppd_agents.evaluation.cleaners import Cleaner, cleaners
from ppd_agents.evaluation.one_shot import matching_statuses, reference_rows
from ppd_agents.evaluation.rollouts import Policy, play
from ppd_agents.evaluation.scoring import Scorer
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.opponents import OracleOpponent, RandomOpponent
from ppd_env.prompting.corruption import CORRUPTIONS, corrupt
from ppd_env.prompting.ideal import ideal_prompts
from ppd_env.scenes.bank import SceneBank
from ppd_env.simulator import Simulator

ROWS = (
    "ideal",
    "attack.random",
    "attack.learned",
    "attack.oracle",
    "defence.random",
    "defence.learned",
    "defence.oracle",
    "clean.learned",
)
"""Rows of every table; defences play on ``attack.learned``, ``clean.learned`` defends ideal prompts."""

_ORDER = ("ideal", "attack", "defence", "clean", "matching")
# What a generator is for: its draws depend on (seed, stream, scene) only.
START, _RANDOM_ATTACK, _ORACLE_ATTACK, _RANDOM_DEFENCE, LEARNED = range(5)
_CLEANER, _REFERENCE, METHOD, _CORRUPTION = range(5, 9)

Generators = Sequence[np.random.Generator]


class Mover(Protocol):
    """Changes the prompts of many scenes."""

    def __call__(
        self,
        simulator: Simulator,
        rows: Tensor,
        status: Tensor,
        budgets: Sequence[int],
        rngs: Generators,
        progress: str,
    ) -> dict[int, Tensor]:
        """Return the prompts (B, N) int8 after each budget, starting from ``status`` (B, N) int8."""
        ...


@dataclass(frozen=True)
class Draw:
    """A row whose prompts come with the scenes.

    Args:
        draw: Returns (S, N) int8 from the scenes and one generator for each.
        stream: What its generators are for.
    """

    draw: Callable[[Scorer, Generators], Tensor]
    stream: int


@dataclass(frozen=True)
class Turn:
    """A row in which somebody changes the prompts of another row.

    Args:
        start: That row.
        mover: Who changes them.
        stream: What its generators are for.
        learned: The mover was trained, or knows who was.
        few: It plays on the oracle's scenes only.
        endless: It may change as many prompts as there are, whatever the budget.
        agents: Fingerprint of the mover where it is none of those that all rows share.
    """

    start: str
    mover: Mover
    stream: int
    learned: bool = False
    few: bool = False
    endless: bool = False
    agents: str = ""


@dataclass(frozen=True)
class Rival:
    """A further learned defender.

    Args:
        policy: How it plays.
        agents: Its fingerprint.
    """

    policy: Policy
    agents: str


Row = Draw | Turn


def plays(policy: Policy, *, attacking: bool) -> Mover:
    """Return the mover that plays a policy in one role."""

    def move(
        simulator: Simulator,
        rows: Tensor,
        status: Tensor,
        budgets: Sequence[int],
        rngs: Generators,
        progress: str,
    ) -> dict[int, Tensor]:
        return play(
            simulator,
            rows,
            status,
            policy,
            attacking=attacking,
            budgets=budgets,
            rngs=rngs,
            progress=progress,
        )

    return move


def matched_cleaner(defender: Agent) -> Cleaner:
    """Return the cleaner by a defender's rule for matched prompts; no budget ends it."""
    cleaning = defender.for_matched()

    def clean(simulator: Simulator, rows: Tensor, status: Tensor, budget: int, rngs: Generators) -> Tensor:
        return clean_nodes(cleaning, simulator, rows, status)

    return clean


def keep_true_signs(
    simulator: Simulator, rows: Tensor, status: Tensor, budget: int, rngs: Generators
) -> Tensor:
    """Take away every prompt whose sign is not its node's true one: a bound, known from the ground truth.

    Where that would leave no positive prompt, the positive ones stay. No budget ends it.
    """
    truth = simulator.bank.truth[rows]
    right = torch.where(truth, status == POSITIVE, status == NEGATIVE)
    stranded = ~(right & truth).any(dim=1, keepdim=True)
    return torch.where(right | (stranded & (status == POSITIVE)), status, INACTIVE)


def cleans(cleaner: Cleaner) -> Mover:
    """Return the mover that applies a cleaner, to the same draws for each budget."""

    def move(
        simulator: Simulator,
        rows: Tensor,
        status: Tensor,
        budgets: Sequence[int],
        rngs: Generators,
        progress: str,
    ) -> dict[int, Tensor]:
        return {b: cleaner(simulator, rows, status, b, deepcopy(rngs)) for b in budgets}

    return move


def corrupts(kind: str) -> Mover:
    """Return the mover that corrupts prompts; its budgets are shares of them in percent.

    Every share gets the same draws, so that a larger one goes on from where a smaller one ended.
    """

    def move(
        simulator: Simulator,
        rows: Tensor,
        status: Tensor,
        budgets: Sequence[int],
        rngs: Generators,
        progress: str,
    ) -> dict[int, Tensor]:
        given = status.cpu().numpy()
        corrupted = {}
        for percent in budgets:
            drawn = zip(given, deepcopy(rngs), strict=True)
            changed = [corrupt(kind, prompts, percent / 100, rng) for prompts, rng in drawn]
            corrupted[percent] = torch.from_numpy(np.stack(changed)).to(status.device)
        return corrupted

    return move


def replays(prompts: Mapping[int, np.ndarray]) -> Mover:
    """Return the mover that puts prompts of each budget (S, N) int8 in place of whatever is there."""

    def move(
        simulator: Simulator,
        rows: Tensor,
        status: Tensor,
        budgets: Sequence[int],
        rngs: Generators,
        progress: str,
    ) -> dict[int, Tensor]:
        which = rows.cpu().numpy()
        return {budget: torch.from_numpy(prompts[budget][which]).to(status.device) for budget in budgets}

    return move


def corruption_rows() -> dict[str, Row]:
    """Declare one row ``corrupted.KIND`` for each way in which ideal prompts may go wrong."""
    return {f"corrupted.{kind}": Turn("ideal", corrupts(kind), _CORRUPTION) for kind in CORRUPTIONS}


def standard_rows(attacker: Policy, defender: Policy, config: EvaluationConfig) -> dict[str, Row]:
    """Declare ``ROWS``.

    Args:
        attacker: Learned attacker; it must ignore the horizon, since its longest attack serves all budgets.
        defender: Learned defender.
        config: What is measured.
    """
    attack, defence = plays(attacker, attacking=True), plays(defender, attacking=False)
    oracle = OracleOpponent(config.oracle_pool, idle=False)
    random = RandomOpponent(integers=True)
    attacked = "attack.learned"

    def ideal(scorer: Scorer, rngs: Generators) -> Tensor:
        return ideal_statuses(scorer.simulator.bank, rngs, config.layout)

    return {
        "ideal": Draw(ideal, START),
        "attack.random": Turn("ideal", plays(random, attacking=True), _RANDOM_ATTACK),
        attacked: Turn("ideal", attack, LEARNED, learned=True),
        "attack.oracle": Turn("ideal", plays(oracle, attacking=True), _ORACLE_ATTACK, few=True),
        "defence.random": Turn(attacked, plays(random, attacking=False), _RANDOM_DEFENCE),
        "defence.learned": Turn(attacked, defence, LEARNED, learned=True),
        "defence.oracle": Turn(attacked, plays(oracle, attacking=False), LEARNED, few=True),
        "clean.learned": Turn("ideal", defence, LEARNED, learned=True),
    }


def control_rows(
    attacker: Policy,
    defender: Policy,
    rivals: Mapping[str, Rival],
    config: EvaluationConfig,
    matched: Cleaner | None = None,
) -> dict[str, Row]:
    """Declare the standard rows, every control beside the defender, and one-shot matching.

    Args:
        attacker: Learned attacker.
        defender: Learned defender.
        rivals: Further learned defenders by name.
        config: What is measured.
        matched: Cleans what feature matching set, and ideal prompts as ``clean.matched``; where None,
            ``defender`` cleans the first as in the games.

    Returns:
        The rows in the order of the table, each after the one it starts from.
    """
    known = cleaners(config.layout)
    rows = standard_rows(attacker, defender, config)
    for name, rival in rivals.items():
        mover = plays(rival.policy, attacking=False)
        for kind, start in (("defence", "attack.learned"), ("clean", "ideal")):
            rows[f"{kind}.{name}"] = Turn(start, mover, LEARNED, learned=True, agents=rival.agents)
    random = plays(RandomOpponent(integers=True), attacking=False)
    rows["clean.random"] = Turn("ideal", random, _RANDOM_DEFENCE)
    for name, cleaner in known.items():
        rows[f"defence.{name}"] = Turn("attack.learned", cleans(cleaner), _CLEANER)
        rows[f"clean.{name}"] = Turn("ideal", cleans(cleaner), _CLEANER)
    one_shot = cleans(matched) if matched else plays(defender, attacking=False)
    subsample = cleans(known["subsample"])
    if matched:
        rows["clean.matched"] = Turn("ideal", cleans(matched), LEARNED, learned=True, endless=True)
    rows["matching"] = Draw(_matched, _REFERENCE)
    rows["matching.learned"] = Turn("matching", one_shot, LEARNED, learned=True, endless=True)
    rows["matching.subsample"] = Turn("matching", subsample, _CLEANER, endless=True)
    rows["matching.true_signs"] = Turn("matching", cleans(keep_true_signs), _CLEANER, endless=True)
    return dict(sorted(rows.items(), key=lambda row: _ORDER.index(row[0].partition(".")[0])))


def agentless(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows that depend on no trained agent: one playing serves them all."""
    found: dict[str, Row] = {}
    for name, row in rows.items():
        if isinstance(row, Draw) or (not row.learned and row.start in found):
            found[name] = row
    return found


def ideal_statuses(bank: SceneBank, rngs: Generators, layout: str = "jittered") -> Tensor:
    """Draw ideal prompts for every scene of a bank with one generator each, (S, N) int8."""
    known = zip(bank.truth.cpu().numpy(), bank.peak.tolist(), bank.void.cpu().numpy(), rngs, strict=True)
    drawn = [ideal_prompts(truth, peak, rng, layout, void) for truth, peak, void, rng in known]
    return torch.from_numpy(np.stack(drawn))


def _matched(scorer: Scorer, rngs: Generators) -> Tensor:
    """Draw every scene's reference and match with it."""
    bank = scorer.simulator.bank
    return matching_statuses(bank, reference_rows(bank, rngs), scorer.truth, scorer.void)
