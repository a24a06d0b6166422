"""Plays one piece of a table: some targets, one repetition, everything that starts from the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ppd_agents.cleaning import clean_nodes
from ppd_agents.dqn.agent import Agent
from ppd_agents.evaluation.paper.config import TableConfig
from ppd_agents.evaluation.paper.scores import score, stacked
from ppd_agents.evaluation.rollouts import generators
from ppd_agents.evaluation.rows import LEARNED, METHOD, START, Mover, ideal_statuses, plays
from ppd_agents.methods.contract import OneShotMethod, SeenReference, bank_reference, bank_target
from ppd_agents.methods.prompted import Defended
from ppd_agents.methods.registry import open_method
from ppd_agents.pipeline import agents_fingerprint, policies
from ppd_env.game.actions import INACTIVE
from ppd_env.prompting.matching import feature_matching
from ppd_env.scenes.bank import SceneBank, held_bank
from ppd_env.scenes.encoding import load_encoder
from ppd_env.scenes.scene import HeldScenes
from ppd_env.simulator import Simulator

_SCORED_AT_ONCE = 16
_KEPT_REFERENCES = 64

OURS = "ours"
"""The method that is Table 1's matching with the defender on it, all targets side by side; with keys, as in
``"ours?agent=FOLDER"``, it is opened and asked like any other."""

ARITHMETIC = "arithmetic"
"""The fact that tells the number type a segmenter decodes in; its signature tells of embeddings only."""

Scores = dict[str, np.ndarray]
"""Row -> (S, measures) float64, see ``scores.MEASURES``; rows of a budget are named ``ROW@BUDGET``."""


@dataclass(frozen=True, eq=False)
class Job:
    """A piece of a table.

    Args:
        name: What it is called where it is kept.
        task: ``"ideal"``, ``"matching"``, or a method's URI.
        repetition: From 0.
        indices: Places of the targets in their source.
        targets: The targets.
        references: The references of the targets, each once; none for ``"ideal"``.
        reference_keys: What tells each of them from all others of the table.
        reference_of: Which of them each target gets.
    """

    name: str
    task: str
    repetition: int
    indices: tuple[int, ...]
    targets: HeldScenes
    references: HeldScenes
    reference_keys: tuple[str, ...]
    reference_of: tuple[int, ...]


def owned(scenes: HeldScenes) -> HeldScenes:
    """Return scenes whose arrays may be written to: what came through Ray may not, and models may need it."""

    def own(array: np.ndarray) -> np.ndarray:
        return array if array.flags.writeable else array.copy()

    copies = [
        replace(
            one,
            image=own(one.image),
            mask=own(one.mask),
            void=None if one.void is None else own(one.void),
        )
        for one in scenes.scenes
    ]
    return replace(scenes, scenes=copies)


class Bench:
    """The models and agents of a table, in one process.

    Args:
        config: What is measured.
        attacker: Trained attacker.
        defender: Trained defender.

    Raises:
        PPDError: A model or a method cannot be opened.
    """

    def __init__(self, config: TableConfig, attacker: Agent, defender: Agent) -> None:
        self._config = config
        self._encoder = load_encoder(config.segmenter, config.features, config.grid, config.device)
        attack, defence = policies(attacker.to(config.device), defender.to(config.device))
        self._attack, self._defence = plays(attack, attacking=True), plays(defence, attacking=False)
        self._matched = defender.for_matched()
        self._methods: dict[str, OneShotMethod] = {}
        self._bank: tuple[str, SceneBank] | None = None
        self._references: dict[str, SeenReference] = {}
        if config.table == 2:
            models = self._encoder.segmenter, self._encoder.features
            self._methods = {uri: open_method(uri, *models) for uri in config.methods if uri != OURS}

    def facts(self) -> dict[str, str]:
        """Return what scores depend on beside the settings.

        Returns:
            The signatures of both models, what the segmenter computes in, and by the name of each method that
            plays an agent of its own the fingerprint of that agent.
        """
        segmenter = self._encoder.segmenter
        found = {
            "segmenter": segmenter.signature,
            "features": self._encoder.features.signature,
            ARITHMETIC: getattr(getattr(segmenter, "options", None), "dtype", "float32"),
        }
        for uri, method in self._methods.items():
            if isinstance(method, Defended):
                found[uri] = agents_fingerprint(method.agent)
        return found

    def play(self, job: Job) -> tuple[str, Scores]:
        """Play a piece.

        Returns:
            Its name, and the scores of each of its rows on all its targets.
        """
        job = replace(job, targets=owned(job.targets), references=owned(job.references))
        simulator = Simulator(self._targets(job.targets), self._encoder.segmenter)
        if job.task == "ideal":
            return job.name, self._ideal(job, simulator)
        if job.task == "matching":
            return job.name, self._matching(job, simulator)
        if job.task == OURS:
            return job.name, {OURS: self._matching(job, simulator)["matching.learned"]}
        return job.name, {job.task: self._one_shot(job, simulator.bank)}

    def _targets(self, scenes: HeldScenes) -> SceneBank:
        """Return the bank of a part; the last one is kept, since a part is played in many ways."""
        if self._bank is None or self._bank[0] != scenes.signature:
            self._bank = None  # before the next is built: two may not fit
            self._bank = scenes.signature, held_bank(scenes, self._encoder)
        return self._bank[1]

    def _seen(self, job: Job) -> list[SeenReference]:
        """Return every target's reference; in later pieces the same objects, for what was fitted to them."""
        if any(key not in self._references for key in job.reference_keys):
            bank = held_bank(job.references, self._encoder)
            for row, key in enumerate(job.reference_keys):
                self._references.setdefault(key, bank_reference(bank, row))
        found = [self._references[key] for key in job.reference_keys]
        for key in list(self._references)[:-_KEPT_REFERENCES]:
            del self._references[key]
        return [found[row] for row in job.reference_of]

    def _ideal(self, job: Job, simulator: Simulator) -> Scores:
        """Draw ideal prompts, attack them and defend what was attacked."""
        config, seed = self._config, self._config.seed
        start = ideal_statuses(simulator.bank, generators(seed, job.indices, START), config.layout)
        attacked = self._move(self._attack, job, simulator, start, config.budgets)
        scores = {"ideal": self._score(job, simulator, start)}
        for budget, status in attacked.items():
            defended = self._move(self._defence, job, simulator, status, (budget,))[budget]
            scores[f"attack.learned@{budget}"] = self._score(job, simulator, status)
            scores[f"defence.learned@{budget}"] = self._score(job, simulator, defended)
        return scores

    def _matching(self, job: Job, simulator: Simulator) -> Scores:
        """Match every target with its reference, and let the defender clean what was matched."""
        matched = [
            feature_matching(reference, bank_target(simulator.bank, row))
            for row, reference in enumerate(self._seen(job))
        ]
        start = torch.from_numpy(np.stack(matched))
        start = start.to(simulator.bank.device)
        rows = torch.arange(len(start), device=start.device)
        cleaned = clean_nodes(self._matched, simulator, rows, start)
        return {
            "matching": self._score(job, simulator, start),
            "matching.learned": self._score(job, simulator, cleaned),
        }

    def _move(
        self, mover: Mover, job: Job, simulator: Simulator, status: Tensor, budgets: Sequence[int]
    ) -> dict[int, Tensor]:
        device = simulator.bank.device
        rows = torch.arange(len(status), device=device)
        rngs = generators(self._config.seed, job.indices, LEARNED)
        return mover(simulator, rows, status.to(device), budgets, rngs, "")

    def _score(self, job: Job, simulator: Simulator, status: Tensor) -> np.ndarray:
        """Score the prompts (S, N) of all targets."""
        counts = (status != INACTIVE).sum(dim=1).tolist()
        rows = []
        for chunk in torch.arange(len(status)).split(_SCORED_AT_ONCE):
            masks = simulator.native_masks(chunk, status[chunk.to(status.device)])
            for row, mask in zip(chunk.tolist(), masks, strict=True):
                rows.append(score(mask, job.targets[row], counts[row]))
        return stacked(rows)

    def _one_shot(self, job: Job, bank: SceneBank) -> np.ndarray:
        """Let a method segment every target from its reference."""
        method, rows = self._methods[job.task], []
        for row, (index, reference) in enumerate(zip(job.indices, self._seen(job), strict=True)):
            rng = np.random.default_rng([self._config.seed, METHOD, index, job.repetition])
            found = method.segment(reference, bank_target(bank, row), rng)
            rows.append(score(found.mask, job.targets[row], len(found.points)))
        return stacked(rows)
