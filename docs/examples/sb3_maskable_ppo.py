"""sb3-contrib's MaskablePPO, which finds the masks by itself: the environment has action_masks().

python docs/examples/sb3_maskable_ppo.py --steps 20000
"""

import argparse
import json

import gymnasium as gym
from gymnasium.wrappers import FilterObservation
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import ppd_env  # noqa: F401 (registers PPD-v0)

KEYS = ["status", "steps_left", "feedback", "predicted_iou"]


def main() -> None:
    """Train and test; invalid_action="raise" would stop at the first illegal action."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--make", type=json.loads, default={}, help="arguments of gym.make, as JSON")
    args = parser.parse_args()

    view = {"edges": "none", "feedback": True, "invalid_action": "raise"}
    env = Monitor(FilterObservation(gym.make("PPD-v0", **view, **args.make), KEYS))
    model = MaskablePPO(
        "MultiInputPolicy", env, gamma=0.9, n_steps=min(256, args.steps), seed=args.seed, device="cpu"
    )
    model.learn(args.steps, log_interval=None)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=5)
    print(f"mean return {mean:+.3f}")


if __name__ == "__main__":
    main()
