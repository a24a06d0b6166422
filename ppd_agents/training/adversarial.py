"""The alternation of attacker and defender (PPD, Algorithm 1), over batches of scenes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from torch import Tensor
from tqdm import tqdm

from ppd_agents.dqn.agent import Agent, save_agent
from ppd_agents.dqn.attacks import AttackMemory
from ppd_agents.locking import sole_user
from ppd_agents.training.bad_starts import KINDS as BAD_KINDS
from ppd_agents.training.bad_starts import MOST_PROMPTS, as_attack, bad_starts
from ppd_agents.training.best import CRITERION, score
from ppd_agents.training.callbacks import open_logger, open_wandb, write_history
from ppd_agents.training.checkpoints import (
    Checkpoint,
    is_best,
    list_checkpoints,
    refuse_foreign,
    resume_newest,
    save_checkpoint,
    tidy,
)
from ppd_agents.training.learner import Learner, Record, build_learner, open_simulator
from ppd_agents.training.opponents import OpponentPool
from ppd_agents.training.presets import ROLES, TrainConfig
from ppd_agents.training.starts import (
    AttackRunner,
    attack_round,
    draw_ideal,
    draw_scenes,
    rehearse,
)
from ppd_agents.training.state import (
    GamesState,
    GeneratorState,
    GlobalGenerators,
    LearnerState,
    MemoryState,
    Part,
    gather,
    scatter,
)
from ppd_env.errors import PPDError
from ppd_env.features.registry import load_features
from ppd_env.game.actions import Role
from ppd_env.simulator import covered

_SPARE = 2
"""Removals a training defender may take beyond the steps of an attack shorter than T: enough to learn when to
stop. T itself bounds every game of a round."""


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves behind.

    Args:
        attacker: The attacker as it was after the last round.
        defender: The defender as it was after the last round.
        history: One flat record per round: ``round``, ``steps`` (T), ``seconds``, ``decodes`` and, for each
            role, ``ROLE/return``, ``ROLE/dice_before``, ``ROLE/dice_after``, ``ROLE/loss``, ``ROLE/epsilon``;
            ``attacked_dice`` is the mean Dice after the greedy attack of the opponent the defender met.
        folder: Where agents, logs and checkpoints lie; ``best`` in it holds the best checkpoint's agents.
            Only rounds are judged: final updates come on top of the last one and have its score.
    """

    attacker: Agent
    defender: Agent
    history: list[Record]
    folder: Path


class Alternation:
    """A training in progress; build one, optionally ``restore`` it, then ``run``.

    Args:
        config: The training.
        folder: Where agents, logs and checkpoints go.

    Attributes:
        parts: By name, everything that changes and that a checkpoint must hold beside the history.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.simulator = open_simulator(config)
        bank = self.simulator.bank
        seeds = np.random.SeedSequence(config.seed).spawn(5)
        # All episode lengths are known from the start, so epsilon and learning rate can span them exactly.
        lengths = np.random.default_rng(seeds[0]).integers(*config.steps, size=config.rounds, endpoint=True)
        self.lengths = [int(length) for length in lengths]
        self.drawn = draw_scenes(len(bank), config.rounds, config.games, np.random.default_rng(seeds[4]))
        self.rng = np.random.default_rng(seeds[1])
        steps, nodes = sum(self.lengths), self.simulator.nodes
        longest = max(config.steps[1], MOST_PROMPTS if config.noise_share + config.matching_share else 0)
        rehearsed = config.rehearsals * (config.rounds + config.final_rehearsals)
        self.attacks = AttackMemory(max(1, rehearsed), nodes, longest)
        self.learners: dict[Role, Learner] = {
            role: build_learner(
                role, config, self.simulator, self.attacks, steps, np.random.default_rng(seed)
            )
            for role, seed in zip(ROLES, seeds[2:4], strict=True)
        }
        self.runner = AttackRunner(self.simulator, config.label_mode, config.prompts_per_step)
        self.history: list[Record] = []
        self.done = 0
        self.parts: dict[str, Part] = {
            "rng": GeneratorState(self.rng),
            "global": GlobalGenerators(),
            "attacks": MemoryState(self.attacks),
        }
        self.opponents = OpponentPool(config.opponent_pool, self.agent("attacker"))
        if config.opponent_pool:
            self.parts["opponents"] = self.opponents
        for role, learner in self.learners.items():
            self.parts[role] = LearnerState(learner.model)
            self.parts[f"{role}.games"] = GamesState(learner.games)

    def agent(self, role: Role) -> Agent:
        """Return one agent as it is now; its network goes on learning."""
        config, model = self.config, self.learners[role].model
        # A slowly moving target network is the average of the last networks, and better than the last one.
        net = model.q_net_target if config.tau < 1 else model.q_net
        network = net.network
        if network.config.suspicion:
            network = network.suspecting(config.final_shaping * config.reward_scale)
        least, further = config.gains(role)
        return Agent(
            network=network,
            features=config.features_uri,
            features_signature=load_features(config.features_uri, config.device).signature,
            grid=config.grid,
            reward_scale=config.reward_scale,
            least_gain=least,
            further_gain=further,
            notes={"config": config.to_json(), "rounds": len(self.history)},
        )

    def play_round(self, bar: tqdm | None = None) -> Record:
        """Play one round: both roles learn on B fresh scenes; return and keep its record."""
        config, began = self.config, time.perf_counter()
        bank, steps = self.simulator.bank, self.lengths[self.done]
        rows = self.drawn[self.done].to(bank.device)
        ideal = draw_ideal(bank, rows, config.layout, self.rng)
        record: Record = {"round": self.done + 1, "steps": steps}
        budgets = torch.full_like(rows, steps)
        attacker = self.learners["attacker"].play(rows, ideal, budgets, ideal, bar)
        # The exploratory attack is thrown away: the defender meets the current attacker at its best.
        shares = (config.random_attack_share, config.clean_share, config.partial_share)
        opponent = self.opponents.draw(self.agent("attacker"), self.rng)
        status, lengths, learned = attack_round(self.runner, rows, ideal, steps, opponent, shares, self.rng)
        status, reference, lengths, learned = self._worsen(rows, status, ideal, lengths, learned)
        if config.rehearsals:
            self._rehearse(opponent)
        removals = (lengths + _SPARE).clamp(max=steps)
        # One game goes on for all T steps, so that both roles take as many.
        removals[0] = steps
        defender = self.learners["defender"].play(rows, status, removals, reference, bar)
        attacked = self.learners["defender"].games.initial_dice[learned]
        record["attacked_dice"] = attacked.mean().item() if len(attacked) else None
        for role, values in (("attacker", attacker), ("defender", defender)):
            record |= {f"{role}/{name}": value for name, value in values.items()}
        played = int(budgets.sum() + removals.sum())
        record["decodes"] = played * (1 + config.branches) + 2 * config.games
        record["seconds"] = time.perf_counter() - began
        self.history.append(record)
        self.done += 1
        return record

    def finish(self) -> None:
        """Let the defender study the trained attacker; the last record's ``seconds`` count it in."""
        config, began = self.config, time.perf_counter()
        if config.final_rehearsals:
            self.attacks.clear()  # weaker attackers' play is no example of this one's
        for _ in range(config.final_rehearsals):
            self._rehearse(self.agent("attacker"))
        updates = config.studies
        with tqdm(total=updates, desc="final updates", disable=not config.progress) as bar:
            self.learners["defender"].model.study(updates, config.learning_rate, bar)
        self.history[-1]["seconds"] += time.perf_counter() - began
        self.done += 1
        self.save()

    def _kinds(self, count: int) -> np.ndarray:
        """Draw which of some beginnings are of a bad kind, (count,); empty text for the others."""
        shares = (self.config.noise_share, self.config.matching_share)
        if not any(shares):
            return np.full(count, "")
        return self.rng.choice([*BAD_KINDS, ""], size=count, p=[*shares, 1 - sum(shares)])

    def _worsen(
        self, rows: Tensor, status: Tensor, ideal: Tensor, lengths: Tensor, learned: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Replace some beginnings by bad ones; return them, their right prompts, lengths and ``learned``."""
        kinds = self._kinds(len(rows))
        bad = torch.from_numpy(kinds != "").to(rows.device)
        reference = ideal.clone()
        if bool(bad.any()):
            found = bad_starts(self.simulator, rows[bad], kinds[kinds != ""], self.rng)
            status[bad], reference[bad] = found
            lengths = lengths.clone()
            lengths[bad] = (found[0] != found[1]).sum(dim=1)
        return status, reference, lengths, learned & ~bad

    def _rehearse(self, attacker: Agent) -> None:
        """Let an attacker attack further scenes, and remember how; bad beginnings count as attacked."""
        bank, config = self.simulator.bank, self.config
        rows = torch.from_numpy(self.rng.integers(len(bank), size=config.rehearsals)).to(bank.device)
        kinds = self._kinds(len(rows))
        if (kinds != "").any():
            bad = torch.from_numpy(kinds != "").to(rows.device)
            status, right = bad_starts(self.simulator, rows[bad], kinds[kinds != ""], self.rng)
            self.attacks.add(rows[bad], right, as_attack(status, right, self.rng))
            rows = rows[~bad]
        if not len(rows):
            return
        ideal = draw_ideal(bank, rows, config.layout, self.rng)
        mask = None
        if config.initial_mask:
            mask = covered(self.simulator.feedback(rows, self.simulator.segment(rows, ideal).logits))
        longest = config.steps[1]
        actions = rehearse(bank, rows, ideal, longest, attacker, mask, config.attack_pool, self.rng)
        self.attacks.add(rows, ideal, actions)

    def run(self, on_round: Callable[[Record], None] | None = None) -> TrainResult:
        """Play the remaining rounds.

        Args:
            on_round: Called with each round's record, after its checkpoint.

        Returns:
            The agents, also saved under ``folder``.
        """
        if not self.finished:
            self._learn(on_round)
        agents = {role: self.agent(role) for role in ROLES}
        for role, agent in agents.items():
            save_agent(agent, self.folder / role)
        return TrainResult(agents["attacker"], agents["defender"], self.history, self.folder)

    @property
    def finished(self) -> bool:
        """Nothing is left to learn; the final updates count as one more round."""
        return self.done >= self.config.rounds + bool(self.config.studies)

    def _learn(self, on_round: Callable[[Record], None] | None) -> None:
        config = self.config
        wandb_run = open_wandb(config.wandb, self.folder, config.to_json())
        loggers = self._open_loggers(wandb_run)
        behind, total = 2 * sum(self.lengths[: self.done]), 2 * sum(self.lengths)
        try:
            with tqdm(
                total=total, initial=behind, desc="training", unit="step", disable=not config.progress
            ) as bar:
                while self.done < config.rounds:
                    record = self.play_round(bar)
                    bar.set_postfix_str(_headline(record))
                    write_history(self.folder / "history.csv", self.history)
                    if self.done % config.checkpoint_every == 0 or self.done == config.rounds:
                        self.save()
                    if on_round is not None:
                        on_round(record)
            if not self.finished:
                self.finish()
                write_history(self.folder / "history.csv", self.history)
        finally:
            for logger in loggers:
                logger.close()
            if wandb_run is not None:
                wandb_run.finish()

    def _open_loggers(self, wandb_run: Any | None) -> list[Logger]:
        loggers = []
        for role, learner in self.learners.items():
            logger = open_logger(self.folder, role, self.done, self.config.tensorboard, wandb_run)
            learner.model.set_logger(logger)
            loggers.append(logger)
        return loggers

    def save(self) -> Path:
        """Write a checkpoint, and the agents to ``best`` where they are; only between rounds."""
        tensors, parts = gather(self.parts)
        facts = {
            "config": self.config.decisive(),
            "signatures": self._signatures(),
            "history": self.history,
            "parts": parts,
        }
        checkpoint = Checkpoint(self.done, tensors, facts, score(self.history))
        checkpoints = self.folder / "checkpoints"
        # The agents first: a training that is killed in between comes by here again.
        if is_best(checkpoints, checkpoint):
            judged = {"criterion": CRITERION, "score": checkpoint.score}
            for role in ROLES:
                agent = self.agent(role)
                save_agent(replace(agent, notes={**agent.notes, **judged}), self.folder / "best" / role)
        return save_checkpoint(checkpoints, checkpoint, self.config.keep)

    def _signatures(self) -> dict[str, Any]:
        bank = self.simulator.bank
        return {
            "scenes": bank.source.signature,
            "count": len(bank),
            "segmenter": self.simulator.segmenter.signature,
            "features": self.agent("attacker").features_signature,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this very training.

        Raises:
            PPDError: It belongs to another training, or what it holds makes no sense.
        """
        facts = checkpoint.facts
        try:
            refuse_foreign(facts["config"], self.config.decisive(), "option")
            refuse_foreign(facts["signatures"], self._signatures(), "signature of the")
            scatter(self.parts, checkpoint.tensors, facts["parts"])
            self.history, self.done = list(facts["history"]), checkpoint.round
        except PPDError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise PPDError(f"Its content is damaged ({error!r}). Use another checkpoint.") from error


def _headline(record: Record) -> str:
    attacked = record["attacked_dice"]
    shown = "-" if attacked is None else f"{attacked:.2f}"
    return f"Dice ideal {record['attacker/dice_before']:.2f}, attacked {shown}"


def train_adversarial(
    config: TrainConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    skip_damaged: bool = False,
    on_round: Callable[[Record], None] | None = None,
) -> TrainResult:
    """Train attacker and defender from random initialisation (PPD, Algorithm 1).

    In each round B scenes are drawn with ideal prompts and one step budget T. The attacker plays and learns
    for T steps; then its frozen network attacks the same prompts greedily, and the defender plays and learns
    for T steps from there. Both learn by masked DQN from changes of Dice, with further actions of every
    visited state tried beside the one that is played. After the last round the defender learns on from what
    it has met (``final_updates``).

    Args:
        config: The training, for example ``preset("mini", seed=1)``.
        folder: Where agents (``attacker``, ``defender``; ``best`` holds those of the best checkpoint),
            ``history.csv``, logs and checkpoints go.
        resume: Go on from the newest checkpoint in ``folder``; on the CPU the result is bit-equal to a run
            that was never interrupted. Without a checkpoint the training starts from the beginning; with one,
            it must be True.
        skip_damaged: Where the newest checkpoint cannot be used, go on from the newest one that can; those
            after it are set aside.
        on_round: Called with each round's record.

    Returns:
        The agents after the last round, and the history.

    Raises:
        PPDError: The checkpoint is damaged or belongs to another training, nobody asked to resume it, or
            another process trains into ``folder``.
    """
    folder = Path(folder)
    checkpoints = folder / "checkpoints"
    with sole_user(folder):
        if list_checkpoints(checkpoints) and not resume:
            raise PPDError(
                f"{folder} holds checkpoints of an earlier training: resume it, or train into another folder."
            )
        alternation = Alternation(config, folder)
        resume_newest(checkpoints, alternation.restore, skip_damaged=skip_damaged)
        tidy(checkpoints, config.keep)
        return alternation.run(on_round)
