"""One agent in training: its games, its learner and its schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ppd_agents.dqn.attacks import AttackMemory
from ppd_agents.dqn.exploration import EpsilonSchedule
from ppd_agents.dqn.masked_dqn import MaskedDQN
from ppd_agents.dqn.potentials import AttackLeft, GraphStatistics
from ppd_agents.dqn.q_network import QNetworkConfig
from ppd_agents.dqn.vec_env import GameVecEnv
from ppd_agents.training.callbacks import StepCallback
from ppd_agents.training.presets import TrainConfig
from ppd_agents.training.starts import RoundStarts
from ppd_env.game.actions import Role
from ppd_env.game_batch import GameBatch
from ppd_env.scenes.bank import SceneBank, open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

Record = dict[str, Any]
"""Numbers of one round by name."""


_AS_NAMED = (
    "gamma",
    "reward_scale",
    "double",
    "n_step",
    "prioritised",
    "loss",
    "huber_delta",
    "branches",
    "branch_greedy",
    "batch_size",
    "buffer_size",
    "learning_starts",
    "gradient_steps",
    "tau",
    "device",
)
"""Fields of a training that ``MaskedDQN`` takes under the same names."""


@dataclass
class Learner:
    """One agent in training.

    Args:
        role: Which.
        games: Its B games.
        starts: Their beginnings.
        env: SB3's view of them.
        model: The learner itself.
        epsilon: Its schedule, counted in environment steps over the whole training.
    """

    role: Role
    games: GameBatch
    starts: RoundStarts
    env: GameVecEnv
    model: MaskedDQN
    epsilon: EpsilonSchedule

    def play(self, rows: Tensor, status: Tensor, steps: Tensor, ideal: Tensor, bar: tqdm | None) -> Record:
        """Play and learn one episode of ``steps`` (B,) on every scene; return this role's record."""
        self.starts.plan(rows, status, steps, ideal)
        self.model._last_obs = None  # makes SB3 reset the environment: a new round
        self.model.learn(
            int(steps.max()) * self.games.size,
            callback=StepCallback(self.epsilon, bar),
            log_interval=None,
            reset_num_timesteps=False,
        )
        before, after = self.games.initial_dice, self.games.dice
        gain = before - after if self.role == "attacker" else after - before
        record: Record = {
            "return": gain.mean().item(),
            "dice_before": before.mean().item(),
            "dice_after": after.mean().item(),
            "loss": self.model.logger.name_to_value.get("train/loss"),
            "epsilon": self.model.exploration_rate,
        }
        for name in ("return", "dice_before", "dice_after"):
            self.model.logger.record(f"round/{name}", record[name])
        self.model.logger.dump(self.model.num_timesteps)
        return record


def open_simulator(config: TrainConfig) -> Simulator:
    """Return the scenes of a training, bound to its segmenter."""
    bank = open_bank(
        config.scenes,
        config.segmenter,
        config.features,
        config.grid,
        config.device,
        progress=config.progress,
    )
    return Simulator(bank, load_segmenter(config.segmenter, config.device))


def build_learner(
    role: Role,
    config: TrainConfig,
    simulator: Simulator,
    attacks: AttackMemory,
    steps: int,
    rng: np.random.Generator,
) -> Learner:
    """Build one agent with the games it learns from.

    Args:
        role: Which.
        config: The training.
        simulator: Its scenes.
        attacks: Remembered attacks, for a defender with suspicion.
        steps: Environment steps of the whole training, which epsilon and learning rate span.
        rng: Draws the first weights, all exploration and all replay.

    Returns:
        The learner, before its first step.
    """
    bank = simulator.bank
    games = GameBatch(
        simulator,
        config.games,
        label_mode=config.label_mode,
        # Exploration that may stop plays short episodes, and a fresh network stops at once.
        allow_stop=False,
        prompts_per_step=config.prompts_per_step,
    )
    starts = RoundStarts(attacking=role == "attacker")
    network = config.network(role, bank.features.shape[-1])
    env = GameVecEnv(
        games,
        starts,
        hold=True,
        feedback=network.use_feedback,
        initial_mask=network.use_initial_mask,
        seen=bool(network.suspicion),
        on_device=True,
        **_reward(network, config, bank),
    )
    epsilon = EpsilonSchedule(steps, *config.epsilon)
    first, last = config.learning_rate, config.final_learning_rate
    model = MaskedDQN(
        "GraphPolicy",
        env,
        network=network,
        scenes=(bank.features, bank.positions),
        truth=bank.truth if config.label_mode == "truth" else None,
        rng=rng,
        attacks=attacks if network.suspicion else None,
        epsilon=epsilon,
        learning_rate=lambda _: first + (last - first) * epsilon.progress,
        **_learning(config),
    )
    return Learner(role, games, starts, env, model, epsilon)


def _learning(config: TrainConfig) -> dict[str, Any]:
    """Return what ``MaskedDQN`` is told of a training alone."""
    return {name: getattr(config, name) for name in _AS_NAMED} | {
        "train_freq": 1,
        "target_update_interval": config.target_update * config.games,  # SB3 counts every game's step
        "policy_kwargs": {
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"weight_decay": config.weight_decay},
        },
    }


def _reward(network: QNetworkConfig, config: TrainConfig, bank: SceneBank) -> dict[str, Any]:
    """Return what a role learns from, as ``GameVecEnv`` takes it."""
    if network.role == "defender" and config.reward == "graph-statistics":
        return {"dice_weight": 0.0, "potential": GraphStatistics(bank.features, bank.positions)}
    shaped = network.role == "defender" and config.shaping and not network.suspicion
    return {"potential": AttackLeft(config.shaping) if shaped else None}
