"""Plays every row of the tables on the scenes of one bank: attacks, defences, and their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ppd_agents.evaluation.controls import OracleAttack, OracleDefence, RandomControl
from ppd_agents.evaluation.rollouts import Policy, generators, play
from ppd_agents.evaluation.stages import ANY_BUDGET, Stage, StageStore
from ppd_env.errors import ConfigError
from ppd_env.metrics import dice, iou
from ppd_env.opponents import ORACLE_POOL
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
"""Rows of a table; defences play on ``attack.learned``, ``clean.learned`` defends ideal prompts."""

_START, _RANDOM_ATTACK, _ORACLE_ATTACK, _RANDOM_DEFENCE, _LEARNED = range(5)
_CHUNK = 32


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured.

    Args:
        scenes: URIs of scenes, none of them trained on.
        segmenter: URI of the segmenter.
        features: URI of the patch features.
        grid: g, patches per side.
        device: A torch device.
        budgets: Numbers of attack actions; the defender has as many.
        seeds: Seeds of the ideal prompts and of the random moves.
        oracle_pool: Nodes the oracle attack tries in each step, with both signs.
        oracle_scenes: The oracles play on the first so many scenes of each URI.
        resamples: Bootstrap resamples.
        confidence: Coverage of the intervals.
    """

    scenes: tuple[str, ...] = ("shapes://test?count=200&seed=0", "photos://test")
    segmenter: str = "mini"
    features: str = "mini"
    grid: int = 16
    device: str = "cpu"
    budgets: tuple[int, ...] = (6, 20)
    seeds: tuple[int, ...] = (0,)
    oracle_pool: int = ORACLE_POOL
    oracle_scenes: int = 40
    resamples: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("scenes", "budgets", "seeds"):
            if not getattr(self, name):
                raise ConfigError(f"{name} must name at least one value to evaluate.")
        for name in ("oracle_pool", "oracle_scenes", "resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if min(self.budgets) < 1:
            raise ConfigError(f"budgets must be at least 1 action, got {min(self.budgets)}.")
        if min(self.seeds) < 0:
            raise ConfigError(f"seeds must be at least 0, got {min(self.seeds)}.")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence must lie between 0 and 1, got {self.confidence}.")


@dataclass(frozen=True)
class Measurements:
    """Everything played on one bank.

    Args:
        bank: The scenes.
        rows: Row -> one stage per seed; the oracles' stages hold the first scenes only.
    """

    bank: SceneBank
    rows: dict[str, list[Stage]] = field(default_factory=dict)

    def dice(self, row: str, budget: int, scenes: int | None = None) -> np.ndarray:
        """Return Dice in percent, (seeds, S), of the first ``scenes`` scenes."""
        return np.stack([stage.at(budget)[1][:scenes] for stage in self.rows[row]])

    def iou(self, row: str, budget: int, scenes: int | None = None) -> np.ndarray:
        """Return IoU in percent, (seeds, S), of the first ``scenes`` scenes."""
        return np.stack([stage.at(budget)[2][:scenes] for stage in self.rows[row]])


class Scorer:
    """Dice and IoU of prompt sets at native size; ground truth is read once and kept as bits.

    Args:
        simulator: The scenes and their segmenter.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._bits: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}

    def truth(self, row: int) -> np.ndarray:
        """Return the native mask of a scene, (H, W) bool."""
        if row not in self._bits:
            mask = self.simulator.bank.raw(row).mask
            self._bits[row] = (np.packbits(mask), mask.shape)
        bits, (height, width) = self._bits[row]
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)

    def stage(self, status: dict[int, Tensor]) -> Stage:
        """Score the prompts (S, N) of every budget on the first S scenes."""
        scores = {budget: self._score(prompts) for budget, prompts in status.items()}
        return Stage(
            {budget: prompts.cpu().numpy() for budget, prompts in status.items()},
            {budget: score[0] for budget, score in scores.items()},
            {budget: score[1] for budget, score in scores.items()},
        )

    def _score(self, status: Tensor) -> tuple[np.ndarray, np.ndarray]:
        both = []
        for chunk in torch.arange(len(status)).split(_CHUNK):
            masks = self.simulator.native_masks(chunk, status[chunk.to(status.device)])
            for row, mask in zip(chunk.tolist(), masks, strict=True):
                truth = self.truth(row)
                both.append((100 * dice(mask, truth), 100 * iou(mask, truth)))
        scores = np.array(both)
        return scores[:, 0], scores[:, 1]


class Bench:
    """Plays and stores the stages of one bank under one seed.

    Args:
        simulator: The scenes and their segmenter.
        config: What is measured.
        seed: One of its seeds.
        scorer: Shared by the seeds.
        store: Where finished stages lie.
        progress: Show progress bars.
    """

    def __init__(
        self,
        simulator: Simulator,
        config: EvaluationConfig,
        seed: int,
        scorer: Scorer,
        store: StageStore,
        progress: bool,
    ) -> None:
        self.simulator, self.config, self.seed = simulator, config, seed
        self.scorer, self.store, self.progress = scorer, store, progress
        self.indices: Sequence[int] = simulator.bank.indices

    def run(self, attacker: Policy, defender: Policy, bar: tqdm) -> dict[str, Stage]:
        """Play all of ``ROWS``; the bar advances by one for each."""
        done: dict[str, Stage] = {}
        plans = self._plans(done, attacker, defender)
        for name in ROWS:
            bar.set_postfix_str(name)
            uri = self.simulator.bank.uri
            done[name] = self.store.get(f"{uri}.seed={self.seed}.{name}", plans[name])
            bar.update()
        return done

    def _plans(self, done: dict[str, Stage], attacker: Policy, defender: Policy) -> dict[str, partial[Stage]]:
        """Return how each row is computed from those before it in ``done``."""
        few = self.config.oracle_scenes
        attack = partial(self._attack, done)
        defend = partial(self._defend, done)
        return {
            "ideal": partial(self._ideal),
            "attack.random": partial(attack, "random attack", RandomControl(), _RANDOM_ATTACK),
            "attack.learned": partial(attack, "learned attack", attacker, _LEARNED),
            "attack.oracle": partial(
                attack, "oracle attack", OracleAttack(self.config.oracle_pool), _ORACLE_ATTACK, few
            ),
            "defence.random": partial(defend, "random defence", RandomControl(), _RANDOM_DEFENCE),
            "defence.learned": partial(defend, "learned defence", defender, _LEARNED),
            "defence.oracle": partial(defend, "oracle defence", OracleDefence(), _LEARNED, few),
            "clean.learned": partial(self._clean, done, defender),
        }

    def _ideal(self) -> Stage:
        bank = self.simulator.bank
        rngs = generators(self.seed, self.indices, _START)
        return self.scorer.stage({ANY_BUDGET: ideal_statuses(bank, rngs)})

    def _attack(
        self, done: dict[str, Stage], label: str, policy: Policy, purpose: int, scenes: int | None = None
    ) -> Stage:
        start = torch.from_numpy(done["ideal"].status[ANY_BUDGET][:scenes])
        return self.scorer.stage(
            self._play(start, policy, purpose, label, self.config.budgets, attacking=True)
        )

    def _defend(
        self, done: dict[str, Stage], label: str, policy: Policy, purpose: int, scenes: int | None = None
    ) -> Stage:
        after: dict[int, Tensor] = {}
        for budget in self.config.budgets:
            start = torch.from_numpy(done["attack.learned"].status[budget][:scenes])
            after |= self._play(start, policy, purpose, f"{label}, {budget}", (budget,), attacking=False)
        return self.scorer.stage(after)

    def _clean(self, done: dict[str, Stage], policy: Policy) -> Stage:
        start = torch.from_numpy(done["ideal"].status[ANY_BUDGET])
        label = "defence of clean prompts"
        return self.scorer.stage(
            self._play(start, policy, _LEARNED, label, self.config.budgets, attacking=False)
        )

    def _play(
        self,
        start: Tensor,
        policy: Policy,
        purpose: int,
        label: str,
        budgets: Sequence[int],
        *,
        attacking: bool,
    ) -> dict[int, Tensor]:
        return play(
            self.simulator,
            torch.arange(len(start), device=self.simulator.bank.device),
            start.to(self.simulator.bank.device),
            policy,
            attacking=attacking,
            budgets=budgets,
            rngs=generators(self.seed, self.indices[: len(start)], purpose),
            progress=label if self.progress else "",
        )


def ideal_statuses(bank: SceneBank, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Draw jittered ideal prompts for every scene of a bank with one generator each, (S, N) int8."""
    truths, peaks = bank.truth.cpu().numpy(), bank.peak.tolist()
    drawn = [ideal_prompts(t, p, r) for t, p, r in zip(truths, peaks, rngs, strict=True)]
    return torch.from_numpy(np.stack(drawn))
