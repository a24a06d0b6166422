"""Stable-Baselines3's DQN, as it is: it knows no masks, and its illegal actions use a step and do nothing.

python docs/examples/sb3_dqn.py --steps 20000
"""

import argparse
import json

import gymnasium as gym
from gymnasium.wrappers import FilterObservation
from stable_baselines3 import DQN
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import ppd_env  # noqa: F401 (registers PPD-v0)

KEYS = ["status", "steps_left", "feedback", "predicted_iou", "action_mask"]


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--make", type=json.loads, default={}, help="arguments of gym.make, as JSON")
    args = parser.parse_args()

    env = Monitor(FilterObservation(gym.make("PPD-v0", edges="none", feedback=True, **args.make), KEYS))
    model = DQN(
        "MultiInputPolicy",
        env,
        gamma=0.9,
        buffer_size=20_000,
        learning_starts=100,
        seed=args.seed,
        device="cpu",
    )
    model.learn(args.steps, log_interval=None)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=5)
    print(f"mean return {mean:+.3f}")


if __name__ == "__main__":
    main()
