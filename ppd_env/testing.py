"""Checks that hold for every environment of this game; run them on a variant of your own.

Each raises ``AssertionError`` with what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

Step = tuple[Any, float, bool, bool, dict[str, Any]]


def rollout(env: gymnasium.Env, seed: int, episodes: int, *, stop_share: float = 0.0) -> Iterator[Step]:
    """Play whole episodes with random legal actions, decided by ``seed`` alone.

    Args:
        env: An environment of this game.
        seed: Seeds the environment and the actions.
        episodes: How many.
        stop_share: Probability of STOP where it is legal and something else is too.

    Yields:
        What ``reset`` gave, as (observation, 0.0, False, False, info), and what each ``step`` gave.
    """
    rng = np.random.default_rng(seed)
    for episode in range(episodes):
        observation, info = env.reset(seed=seed if episode == 0 else None)
        yield observation, 0.0, False, False, info
        over = False
        while not over:
            legal = np.flatnonzero(info["action_mask"])
            stop = len(info["action_mask"]) - 1
            candidates = legal[legal != stop]
            stopping = not len(candidates) or (stop in legal and rng.random() < stop_share)
            action = stop if stopping else int(rng.choice(candidates))
            observation, reward, terminated, truncated, info = env.step(action)
            yield observation, float(reward), terminated, truncated, info
            over = terminated or truncated


def check_rollout_equality(make: Callable[[], gymnasium.Env], seed: int = 0, episodes: int = 3) -> None:
    """Check that two environments play whole episodes alike: observations, rewards, ends and infos.

    Args:
        make: Makes a fresh environment each time it is called.
        seed: Seeds both.
        episodes: How many to play.
    """
    first, second = make(), make()
    pairs = zip(
        rollout(first, seed, episodes, stop_share=0.05),
        rollout(second, seed, episodes, stop_share=0.05),
        strict=True,
    )
    for number, (left, right) in enumerate(pairs):
        for name, a, b in zip(
            ("observation", "reward", "terminated", "truncated", "info"), left, right, strict=True
        ):
            assert data_equivalence(a, b), f"Step {number}: {name} differs: {a!r} and {b!r}."
    first.close()
    second.close()


def check_telescoping(env: gymnasium.Env, seed: int = 0, episodes: int = 3, tolerance: float = 1e-5) -> None:
    """Check that rewards sum to the whole change of Dice, its sign flipped for the attacker.

    Args:
        env: An environment with ``info["dice"]``; penalties must be off or actions legal, as here.
        seed: Seeds the rollout.
        episodes: How many to play.
        tolerance: On each episode's sum.
    """
    sign = -1.0 if env.unwrapped.config.role == "attacker" else 1.0  # type: ignore[attr-defined]
    total = 0.0
    for _, reward, terminated, truncated, info in rollout(env, seed, episodes):
        total += reward
        if terminated or truncated:
            change = sign * (info["dice"] - info["initial_dice"])
            assert abs(total - change) <= tolerance, f"Rewards sum to {total}, Dice changed by {change}."
            total = 0.0


def check_mask_agreement(env: gymnasium.Env, seed: int = 0, episodes: int = 2) -> None:
    """Check that the three offered action masks agree, and that legal actions are never called invalid.

    Args:
        env: An environment whose observations are dicts.
        seed: Seeds the rollout.
        episodes: How many to play.
    """
    for observation, _, _, _, info in rollout(env, seed, episodes, stop_share=0.05):
        mask = env.get_wrapper_attr("action_masks")()
        assert mask.dtype == np.bool_, f"action_masks() is {mask.dtype}, not bool."
        for name, offered in (("observation", observation["action_mask"]), ("info", info["action_mask"])):
            assert offered.dtype == np.int8, f"The {name}'s action_mask is {offered.dtype}, not int8."
            assert np.array_equal(offered, mask), f"The {name}'s action_mask differs from action_masks()."
        assert mask.any(), "No action is legal."
        assert not info["invalid_action"], "A legal action was called invalid."
