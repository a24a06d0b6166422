"""Plays the rows of the tables on the scenes of one bank, once for every seed, and keeps what is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ppd_agents.evaluation.cleaners import cleaner_settings
from ppd_agents.evaluation.rollouts import Policy, generators
from ppd_agents.evaluation.rows import Draw, Mover, Row, Turn, agentless, standard_rows
from ppd_agents.evaluation.scoring import Measurements, Scorer
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.evaluation.stages import ANY_BUDGET, Stage, StageStore, fingerprint
from ppd_env.features.registry import load_features
from ppd_env.scenes.bank import SceneBank, open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

_PIECE = 64
"""Scenes that are played side by side; an interrupted row goes on behind the last finished piece."""

Keep = Callable[[int, Callable[[], Mapping[int, np.ndarray]]], Mapping[int, np.ndarray]]
"""Returns a piece of a stage, by its first scene and what computes it."""


@dataclass(frozen=True)
class Pass:
    """One time over all scenes; a table has one for each of its seeds.

    Args:
        seed: Seed of the prompts and of the random moves.
        rows: What is played, each row after the one it starts from.
        agents: Fingerprint of everyone trained who plays, but for those who have one in their rows.
        folder: Where finished stages are kept and taken from; None keeps nothing.
    """

    seed: int
    rows: Mapping[str, Row]
    agents: str
    folder: Path | None = None


class Bench:
    """Plays the rows of one pass on one bank.

    Args:
        scorer: The scenes, and the scores of prompts on them.
        config: What is measured.
        seed: Seed of the prompts and of the random moves.
        name: What the scenes are called in the names of stages.
        progress: Show progress bars.
    """

    def __init__(
        self, scorer: Scorer, config: EvaluationConfig, seed: int, name: str, progress: bool
    ) -> None:
        self.scorer, self.simulator = scorer, scorer.simulator
        self.config, self.seed, self.name, self.progress = config, seed, name, progress

    def run(
        self, rows: Mapping[str, Row], store: StageStore, bar: tqdm, given: Mapping[str, Stage]
    ) -> dict[str, Stage]:
        """Play every row that is not ``given`` or stored; the bar advances by one for each."""
        done = dict(given)
        for name, row in rows.items():
            if name not in done:
                bar.set_postfix_str(name)
                agents = row.agents if isinstance(row, Turn) else ""
                stage = f"{self.name}.seed={self.seed}.{name}" + (f".{agents}" if agents else "")
                compute = partial(self._stage, name, row, done, partial(store.piece, stage))
                done[name] = store.get(stage, compute)
                store.forget_pieces(stage)
                bar.update()
        return {name: done[name] for name in rows}

    def _stage(self, name: str, row: Row, done: Mapping[str, Stage], keep: Keep) -> Stage:
        """Play a row, a turn in pieces of scenes, each of which is kept as soon as it is finished."""
        if isinstance(row, Draw):
            rngs = generators(self.seed, self.simulator.bank.indices, row.stream)
            return self.scorer.stage({ANY_BUDGET: row.draw(self.scorer, rngs)})
        start = done[row.start].status
        scenes = len(next(iter(start.values()))[: self.config.oracle_scenes if row.few else None])
        pieces = []
        for first in range(0, scenes, _PIECE):
            some = slice(first, min(first + _PIECE, scenes))
            pieces.append(keep(first, partial(self._piece, name, row, start, some)))
        after = {b: torch.from_numpy(np.concatenate([piece[b] for piece in pieces])) for b in pieces[0]}
        return self.scorer.stage(after)

    def _piece(
        self, name: str, row: Turn, start: Mapping[int, np.ndarray], some: slice
    ) -> dict[int, np.ndarray]:
        """Play a row on some scenes: budget -> (k, N) int8."""
        after: dict[int, Tensor] = {}
        for budget, prompts in start.items():
            status = torch.from_numpy(prompts[some])
            if row.endless:
                everything = 2 * status.shape[1]
                after[budget] = self._move(name, row, status, (everything,), some)[everything]
            else:
                budgets = self.config.budgets if budget == ANY_BUDGET else (budget,)
                after |= self._move(name, row, status, budgets, some)
        return {budget: moved.cpu().numpy() for budget, moved in after.items()}

    def _move(
        self, name: str, row: Turn, status: Tensor, budgets: Sequence[int], some: slice
    ) -> dict[int, Tensor]:
        device = self.simulator.bank.device
        mover: Mover = row.mover
        return mover(
            self.simulator,
            torch.arange(some.start, some.stop, device=device),
            status.to(device),
            budgets,
            generators(self.seed, self.simulator.bank.indices[some], row.stream),
            f"{name}, {max(budgets)} at most" if self.progress else "",
        )


def measure_scenes(
    uri: str,
    config: EvaluationConfig,
    passes: Sequence[Pass],
    *,
    name: str | None = None,
    shared: Path | None = None,
    progress: bool = False,
) -> Measurements:
    """Play several passes over one set of scenes.

    Args:
        uri: The scenes.
        config: What is measured.
        passes: One per seed of the table; each may leave out rows, which later ones then leave out too.
        name: What the scenes are called in the names of stages; their URI where None.
        shared: Rows that depend on no agent are played once, for the seed of the first pass, and kept here;
            None plays them in every pass.
        progress: Show progress bars.

    Returns:
        The measurements, one stage per row and pass.
    """
    bank = open_bank(uri, config.segmenter, config.features, config.grid, config.device, progress=progress)
    scorer = Scorer(Simulator(bank, load_segmenter(config.segmenter, config.device)))
    decisive = [config.decisive(), scene_notes(bank, config), cleaner_settings()]
    common = {} if shared is None else agentless(passes[0].rows)
    found = Measurements(bank, {row: [] for row in passes[0].rows})
    total = len(common) + sum(len(set(one.rows) - set(common)) for one in passes)
    with tqdm(total=total, desc=f"evaluating {name or uri}", unit="row", disable=not progress) as bar:
        bench = Bench(scorer, config, passes[0].seed, name or uri, progress)
        given = bench.run(common, StageStore(shared, fingerprint(decisive)), bar, {})
        for one in passes:
            store = StageStore(one.folder, fingerprint([*decisive, one.agents]))
            bench = Bench(scorer, config, one.seed, name or uri, progress)
            for row, stage in bench.run(one.rows, store, bar, given).items():
                found.rows[row].append(stage)
    return found


def measure(
    config: EvaluationConfig,
    attacker: Policy,
    defender: Policy,
    *,
    agents: str,
    folder: Path | None = None,
    progress: bool = False,
) -> list[Measurements]:
    """Play the standard rows on all scenes, under every seed.

    Args:
        config: What is measured.
        attacker: Learned attacker; it must ignore the horizon, since its longest attack serves all budgets.
        defender: Learned defender.
        agents: Fingerprint of both (of their weights).
        folder: Where finished stages are kept and taken from; None keeps nothing.
        progress: Show progress bars.

    Returns:
        One set of measurements per URI.
    """
    rows = standard_rows(attacker, defender, config)
    passes = [Pass(seed, rows, agents, folder) for seed in config.seeds]
    return [measure_scenes(uri, config, passes, progress=progress) for uri in config.scenes]


def scene_notes(bank: SceneBank, config: EvaluationConfig) -> dict[str, Any]:
    """Return what identifies the scenes and models of a bank: signatures, count, scenes left out."""
    return {
        "signature": bank.source.signature,
        "segmenter": load_segmenter(config.segmenter, config.device).signature,
        "features": load_features(config.features, config.device).signature
        if config.features != "segmenter"
        else "segmenter",
        "n": len(bank),
        "left_out": [str(problem) for problem in bank.problems],
    }
