"""RLlib's PPO with its own module for masked actions.

python docs/examples/rllib_ppo.py --steps 20000

RLlib needs Gymnasium 1.2.2: give it an environment of its own (docs/examples/requirements/rllib_ppo.txt).
"""

import argparse
import json

import gymnasium as gym
import numpy as np
import ray
from gymnasium.spaces import Box, Dict, flatten, flatten_space
from gymnasium.wrappers import TransformObservation
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
from ray.tune.registry import register_env

VECTOR = ["status", "steps_left", "feedback", "predicted_iou"]


def make_env(make: dict) -> gym.Env:
    """Return the environment with observations of a vector and a mask."""
    import ppd_env  # noqa: F401 (registers PPD-v0; workers are processes of their own)

    env = gym.make("PPD-v0", edges="none", feedback=True, invalid_action="raise", **make)
    vector = Dict({key: env.observation_space[key] for key in VECTOR})
    mask = Box(0.0, 1.0, env.observation_space["action_mask"].shape, np.float32)
    space = Dict({"observations": flatten_space(vector), "action_mask": mask})

    def split(observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        parts = {key: observation[key] for key in VECTOR}
        return {
            "observations": flatten(vector, parts),
            "action_mask": observation["action_mask"].astype(np.float32),
        }

    return TransformObservation(env, split, space)


def main() -> None:
    """Train, and print the mean return of the last iteration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that play; 0: this one")
    parser.add_argument("--make", type=json.loads, default={}, help="arguments of gym.make, as JSON")
    args = parser.parse_args()

    register_env("ppd", make_env)
    batch = min(1_000, args.steps)
    config = (
        PPOConfig()
        .environment("ppd", env_config=args.make)
        .env_runners(num_env_runners=args.workers)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=ActionMaskingTorchRLModule))
        .training(
            gamma=0.9,
            lr=3e-4,
            train_batch_size_per_learner=batch,
            minibatch_size=min(128, batch),
            num_epochs=4,
        )
        .debugging(seed=args.seed)
    )
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=args.workers + 1)
    algorithm = config.build_algo()
    result: dict = {}
    for _ in range(0, args.steps, batch):
        result = algorithm.train()
    algorithm.stop()
    ray.shutdown()
    print(f"mean return {result['env_runners']['episode_return_mean']:+.3f}")


if __name__ == "__main__":
    main()
