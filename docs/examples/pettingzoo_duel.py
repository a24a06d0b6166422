"""Two tabular learners in PettingZoo's own loop: which sign pays for the attacker, which for the defender?

python docs/examples/pettingzoo_duel.py --steps 5000

Each agent learns the mean gain of placing, or of taking away, a positive and a negative prompt, and prefers
the better one: the smallest thing that learns in both roles at once.
"""

import argparse
import json

import numpy as np

from ppd_env import ppd_v0


class SignLearner:
    """Estimates what a prompt of each sign brings, and draws a legal one of the better sign."""

    def __init__(self, nodes: int, rng: np.random.Generator) -> None:
        self.nodes, self.rng = nodes, rng
        self.gain, self.count = np.zeros(2), np.zeros(2)

    def act(self, mask: np.ndarray) -> int:
        """Return a legal action; one in five is drawn from all of them."""
        legal = np.flatnonzero(mask[:-1])
        if not len(legal):
            return len(mask) - 1
        liked = legal[legal // self.nodes == self.gain.argmax()]
        return int(self.rng.choice(liked if len(liked) and self.rng.random() < 0.8 else legal))

    def learn(self, action: int, reward: float) -> None:
        """Take the mean of what an action brought."""
        if action < 2 * self.nodes:
            sign = action // self.nodes
            self.count[sign] += 1
            self.gain[sign] += (reward - self.gain[sign]) / self.count[sign]


def main() -> None:
    """Play until the steps are used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--make", type=json.loads, default={}, help="arguments of ppd_v0.env, as JSON")
    args = parser.parse_args()

    env = ppd_v0.env(edges="none", invalid_action="raise", **args.make)
    rng = np.random.default_rng(args.seed)
    nodes = (env.action_space("attacker_0").n - 1) // 2
    learners = {agent: SignLearner(nodes, rng) for agent in env.possible_agents}
    steps, returns = 0, []
    while steps < args.steps:
        env.reset(seed=args.seed if steps == 0 else None)
        total = 0.0
        for agent in env.agent_iter():
            observation, _, terminated, truncated, _ = env.last()
            over = terminated or truncated
            action = None if over else learners[agent].act(observation["action_mask"])
            env.step(action)
            if action is not None:
                learners[agent].learn(action, env.rewards[agent])
                total += env.rewards["defender_0"]
                steps += 1
        returns.append(total)
    env.close()
    for agent, learner in learners.items():
        print(f"{agent}: positive {learner.gain[0]:+.4f}, negative {learner.gain[1]:+.4f} Dice per prompt")
    print(f"mean return {np.mean(returns):+.3f} of the defender, over {len(returns)} games")


if __name__ == "__main__":
    main()
