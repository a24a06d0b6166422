"""Trains a defender by masked PPO on the games that the DQN defender learns from."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from tqdm import tqdm

from ppd_agents.dqn.agent import Agent, load_agent, save_agent
from ppd_agents.dqn.vec_env import GameVecEnv, Starts
from ppd_agents.methods.maskable_ppo.actor_critic import GraphActorCritic
from ppd_agents.pipeline import agents_fingerprint
from ppd_agents.training.callbacks import StepCallback
from ppd_agents.training.learner import open_simulator
from ppd_agents.training.presets import TrainConfig
from ppd_agents.training.starts import AttackRunner, attack_round, draw_ideal
from ppd_agents.training.state import GlobalGenerators
from ppd_env.errors import ConfigError
from ppd_env.features.registry import load_features
from ppd_env.game_batch import GameBatch
from ppd_env.simulator import Simulator


@dataclass(frozen=True)
class PPOConfig:
    """What PPO needs to know beyond the games.

    Args:
        total_steps: Environment steps; each is one decode, in all about twice as many as the defender
            of the preset ``mini`` gets.
        rollout: Steps of each game between updates.
        batch_size: States per gradient step.
        epochs: Times every rollout is gone through.
        learning_rate: Adam's.
        gamma: Discount.
        gae_lambda: Of the generalised advantage estimate.
        clip: Of the ratio of probabilities.
        entropy: Weight of the entropy bonus.
    """

    total_steps: int = 50_000
    rollout: int = 16
    batch_size: int = 256
    epochs: int = 4
    learning_rate: float = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("total_steps", "rollout", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")


class AttackedStarts:
    """Hands out attacked prompts, drawn as for the DQN defender, a batch of attacks at a time.

    Beginnings of other kinds (``noise_share``, ``matching_share``) are left out.

    Args:
        simulator: The scenes.
        config: Layout, attack steps and shares of the kinds of attack.
        attacker: Who attacks where nothing else is drawn; None attacks at random.
        rng: Draws scenes, prompts and attacks.
    """

    def __init__(
        self, simulator: Simulator, config: TrainConfig, attacker: Agent | None, rng: np.random.Generator
    ) -> None:
        self._bank, self._config, self._attacker, self._rng = simulator.bank, config, attacker, rng
        self._runner = AttackRunner(simulator, config.label_mode, config.prompts_per_step)
        self._queue: deque[Starts] = deque()

    def draw(self, count: int) -> Starts:
        """Return ``count`` beginnings of the defender's games."""
        while len(self._queue) < count:
            self._queue.extend(self._attack())
        drawn = [self._queue.popleft() for _ in range(count)]
        return Starts(*(torch.cat([getattr(one, name) for one in drawn]) for name in _FIELDS))

    def _attack(self) -> Iterator[Starts]:
        """Attack as many scenes as games are played side by side."""
        config, rng, bank = self._config, self._rng, self._bank
        rows = torch.from_numpy(rng.integers(len(bank), size=config.games)).to(bank.device)
        ideal = draw_ideal(bank, rows, config.layout, rng)
        steps = int(rng.integers(*config.steps, endpoint=True))
        shares = (config.random_attack_share, config.clean_share, config.partial_share)
        status, _, _ = attack_round(self._runner, rows, ideal, steps, self._attacker, shares, rng)
        budgets, attacking = torch.full_like(rows, steps), torch.zeros_like(rows, dtype=torch.bool)
        for game in range(config.games):
            one = slice(game, game + 1)
            yield Starts(rows[one], status[one], budgets[one], attacking[one], ideal[one])


_FIELDS = ("rows", "status", "steps", "attacking", "reference")


def train_maskable_ppo(
    config: TrainConfig, folder: Path, *, attacker: Agent | None = None, ppo: PPOConfig | None = None
) -> Agent:
    """Train a defender by masked PPO from changes of Dice; one that lies in ``folder`` is taken as it is.

    Unlike the DQN's, its games offer STOP. The trained actor is kept as an ``Agent``: what it would most
    likely do is what ``GreedyAgent`` plays. An interrupted training begins anew.

    Args:
        config: Scenes, models, games, kinds of attack, shape of the network, and seed.
        folder: Takes ``defender``.
        attacker: Who attacks; None attacks at random.
        ppo: PPO's own settings.

    Returns:
        The defender, whose Q-values are logits.

    Raises:
        ConfigError: ``folder`` holds a defender of another training.
    """
    ppo = ppo or PPOConfig()
    notes = {
        "method": "maskable_ppo",
        "config": config.decisive(),
        "ppo": asdict(ppo),
        "attacker": None if attacker is None else agents_fingerprint(attacker),
    }
    place = folder / "defender"
    if place.is_dir():
        agent = load_agent(place, config.device)
        if agent.notes != notes:
            raise ConfigError(f"{place} was trained with other settings: remove it, or name another folder.")
        return agent
    with _own_randomness(config.seed):
        actor = _learn(config, attacker, ppo).actor.network
    actor.requires_grad_(False).eval()
    features = load_features(config.features_uri, config.device)
    agent = Agent(actor, config.features_uri, features.signature, config.grid, 1.0, notes=notes)
    save_agent(agent, place)
    return agent


def _learn(config: TrainConfig, attacker: Agent | None, ppo: PPOConfig) -> GraphActorCritic:
    simulator = open_simulator(config)
    bank = simulator.bank
    games = GameBatch(
        simulator, config.games, label_mode=config.label_mode, prompts_per_step=config.prompts_per_step
    )
    starts = AttackedStarts(simulator, config, attacker, np.random.default_rng(config.seed))
    # Dropout would change the chances between acting and learning, and with them the clipped ratio.
    network = replace(config.network("defender", bank.features.shape[-1]), dropout=0.0, suspicion=0.0)
    model = MaskablePPO(
        GraphActorCritic,
        GameVecEnv(games, starts, feedback=network.use_feedback),
        learning_rate=ppo.learning_rate,
        n_steps=ppo.rollout,
        batch_size=min(ppo.batch_size, ppo.rollout * config.games),
        n_epochs=ppo.epochs,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip,
        ent_coef=ppo.entropy,
        device=config.device,
        policy_kwargs={
            "network": network,
            "scenes": (bank.features, bank.positions),
            "init_seed": config.seed,
        },
    )
    rollouts = math.ceil(ppo.total_steps / (ppo.rollout * config.games))
    with tqdm(
        total=rollouts * ppo.rollout, desc="maskable_ppo", unit="step", disable=not config.progress
    ) as bar:
        model.learn(
            ppo.total_steps,
            callback=StepCallback(None, bar),
            log_interval=None,  # type: ignore[arg-type]
        )
    policy = model.policy
    assert isinstance(policy, GraphActorCritic)
    return policy


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators, from which sb3-contrib draws, and leave them as they were."""
    before = GlobalGenerators().state()
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield
    finally:
        GlobalGenerators().restore(*before)
