"""A learning algorithm of one's own: a linear model of what removing a prompt is worth, fitted as it plays.

With a discount of 0 the value of an action is its reward. Here it is linear in six numbers about the prompt,
and ridge regression keeps the weights (LinUCB's model; Li et al., 2010) with epsilon-greedy exploration.
"""

from __future__ import annotations

import gymnasium
import numpy as np

Observation = dict[str, np.ndarray]


def describe(observation: Observation) -> np.ndarray:
    """Describe every removal: (2N, 6) float64; rows that are not legal mean nothing."""
    features, status = observation["features"].astype(float), observation["status"]
    distance = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(distance, np.nan)

    def around(sign: int) -> np.ndarray:
        others = np.where(status == sign, distance, np.nan)
        known = np.isfinite(others)
        nearest = np.where(known, others, np.inf).min(axis=1)
        mean = np.where(known, others, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return np.stack([np.where(known.any(axis=1), nearest, 2.0), mean], axis=1)

    positive, negative = around(1), around(2)
    one = np.ones((len(status), 1))
    rows = [np.hstack([one, 0 * one, positive, negative]), np.hstack([one, one, negative, positive])]
    return np.concatenate(rows)


class LinearDefender:
    """Ridge regression from descriptions of prompts to the change in Dice that their removal brought."""

    def __init__(self, epsilon: float = 0.5, ridge: float = 1.0) -> None:
        self.epsilon = epsilon
        self.gram, self.moment = ridge * np.eye(6), np.zeros(6)

    def learn(self, env: gymnasium.Env, episodes: int, seed: int = 0) -> LinearDefender:
        """Play ``episodes`` of a defender's environment and learn from every step."""
        rng = np.random.default_rng(seed)
        for episode in range(episodes):
            observation, _ = env.reset(seed=seed if episode == 0 else None)
            over = False
            while not over:
                action = self.predict(observation, rng)
                seen, stop = describe(observation), len(observation["action_mask"]) - 1
                observation, reward, terminated, truncated, _ = env.step(action)
                if action != stop:
                    self.gram += np.outer(seen[action], seen[action])
                    self.moment += float(reward) * seen[action]
                over = terminated or truncated
        return self

    def predict(self, observation: Observation, rng: np.random.Generator | None = None) -> int:
        """Return the best legal action; with a generator, a random one with probability epsilon."""
        legal = observation["action_mask"].astype(bool)
        prompts, stop = np.flatnonzero(legal[:-1]), len(legal) - 1
        if rng is not None and len(prompts) and rng.random() < self.epsilon:
            return int(rng.choice(prompts))
        values = describe(observation)[prompts] @ np.linalg.solve(self.gram, self.moment)
        if not len(prompts) or values.max() <= 0:
            return stop  # nothing promises a better mask
        return int(prompts[values.argmax()])


def mean_return(env: gymnasium.Env, agent: LinearDefender | None, episodes: int, seed: int) -> float:
    """Return the mean change in Dice over ``episodes``; without an agent, of random legal actions."""
    rng = np.random.default_rng(seed)
    total = 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed if episode == 0 else None)
        over = False
        while not over:
            legal = np.flatnonzero(observation["action_mask"])
            action = int(rng.choice(legal)) if agent is None else agent.predict(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
    return total / episodes
