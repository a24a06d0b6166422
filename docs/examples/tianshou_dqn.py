"""Tianshou's DQN, which takes the mask as part of an observation {"obs", "mask"}.

python docs/examples/tianshou_dqn.py --steps 20000
"""

import argparse
import json

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, flatten, flatten_space
from gymnasium.wrappers import TransformObservation
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net

import ppd_env  # noqa: F401 (registers PPD-v0)

VECTOR = ["status", "steps_left", "feedback", "predicted_iou"]


def make_env(make: dict) -> gym.Env:
    """Return the environment with observations of a vector and a mask."""
    env = gym.make("PPD-v0", edges="none", feedback=True, invalid_action="raise", **make)
    vector = Dict({key: env.observation_space[key] for key in VECTOR})
    space = Dict(
        {"obs": flatten_space(vector), "mask": Box(0, 1, env.observation_space["action_mask"].shape, np.int8)}
    )

    def split(observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        parts = {key: observation[key] for key in VECTOR}
        return {"obs": flatten(vector, parts), "mask": observation["action_mask"]}

    return TransformObservation(env, split, space)


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--make", type=json.loads, default={}, help="arguments of gym.make, as JSON")
    args = parser.parse_args()

    np.random.seed(args.seed)  # noqa: NPY002 (Tianshou explores with it)
    torch.manual_seed(args.seed)
    games = DummyVectorEnv([lambda: make_env(args.make) for _ in range(4)])
    test = DummyVectorEnv([lambda: make_env(args.make)])
    games.seed(args.seed)
    test.seed(args.seed + 1000)
    env = make_env(args.make)
    network = Net(
        state_shape=env.observation_space["obs"].shape,
        action_shape=env.action_space.n,
        hidden_sizes=[256, 256],
    )
    policy = DiscreteQLearningPolicy(
        model=network,
        action_space=env.action_space,
        observation_space=env.observation_space,
        eps_training=0.2,
    )
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=3e-4), gamma=0.9, target_update_freq=100)
    training = Collector(algorithm, games, VectorReplayBuffer(20_000, len(games)), exploration_noise=True)
    training.reset()
    training.collect(n_step=min(100, args.steps), random=False)
    result = algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=training,
            test_collector=Collector(algorithm, test),
            max_epochs=1,
            epoch_num_steps=args.steps,
            collection_step_num_env_steps=40,
            update_step_num_gradient_steps_per_sample=0.25,
            test_step_num_episodes=10,
            show_progress=False,
        )
    )
    print(f"mean return {result.best_reward:+.3f} in the best test")


if __name__ == "__main__":
    main()
