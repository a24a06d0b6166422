"""A learner in a small made-up world: six games from ideal prompts, a narrow network."""

import numpy as np
import torch
from stable_baselines3.common.logger import Logger

from ppd_agents.dqn.masked_dqn import MaskedDQN
from ppd_agents.dqn.q_network import QNetworkConfig
from ppd_agents.dqn.vec_env import GameVecEnv, Starts
from ppd_agents.training.starts import draw_ideal
from ppd_env.game_batch import GameBatch

GAMES = 6


class IdealStarts:
    """Ideal prompts on random scenes."""

    def __init__(self, simulator, attacking, steps=5, seed=0):
        self.simulator, self.attacking, self.steps = simulator, attacking, steps
        self.rng = np.random.default_rng(seed)

    def draw(self, count):
        bank = self.simulator.bank
        rows = torch.from_numpy(self.rng.integers(0, len(bank), count))
        status = draw_ideal(bank, rows, "jittered", self.rng)
        steps, attacking = torch.full((count,), self.steps), torch.full((count,), self.attacking)
        return Starts(rows, status, steps, attacking, status.clone())


def small_model(
    simulator, role="defender", steps=5, hold=False, feedback=False, on_device=False, games=GAMES, **options
):
    attacking = role == "attacker"
    batch = GameBatch(
        simulator,
        games,
        allow_stop=options.pop("allow_stop", True),
        prompts_per_step=options.pop("prompts", 1),
    )
    env = GameVecEnv(
        batch, IdealStarts(simulator, attacking, steps), hold=hold, feedback=feedback, on_device=on_device
    )
    bank = simulator.bank
    defaults = {"buffer_size": 2000, "learning_starts": 0, "batch_size": 32, "rng": 3, "train_freq": 1}
    model = MaskedDQN(
        "GraphPolicy",
        env,
        network=options.pop("network", None)
        or QNetworkConfig(role=role, hidden=16, use_feedback=feedback, dueling=options.pop("dueling", False)),
        scenes=(bank.features, bank.positions),
        device="cpu",
        **defaults | options,
    )
    model.set_logger(Logger(None, []))
    model._last_obs = env.reset()
    return model
