"""What PettingZoo asks of environments."""

import pickle

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, render_test, seed_test

from ppd_env import ppd_v0

VARIANTS = [
    {"schedule": "phased"},
    {"schedule": "duel"},
    {"schedule": "phased", "reward_scope": "own_phase", "feedback": True, "attack_steps": [2, 4]},
    {"schedule": "duel", "observation": "compact", "prompts_per_step": 2, "allow_stop": False},
]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_aec(tiny_kwargs, kwargs):
    api_test(ppd_v0.env(**tiny_kwargs, **kwargs), num_cycles=80)
    seed_test(lambda: ppd_v0.env(**tiny_kwargs, **kwargs), num_cycles=40)


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_parallel(tiny_kwargs, kwargs):
    parallel_api_test(ppd_v0.parallel_env(**tiny_kwargs, **kwargs), num_cycles=80)
    parallel_seed_test(lambda: ppd_v0.parallel_env(**tiny_kwargs, **kwargs), num_cycles=40)


def test_rendering(tiny_kwargs):
    render_test(lambda **kwargs: ppd_v0.env(**kwargs, **tiny_kwargs))


def play(env, seed, episodes=3):
    """Whole parallel episodes, decided by the seed alone."""
    rng = np.random.default_rng(seed)
    for episode in range(episodes):
        observations, infos = env.reset(seed=seed if episode == 0 else None)
        yield observations, infos
        while env.agents:
            masks = {agent: observations[agent]["action_mask"] for agent in env.agents}
            actions = {agent: int(rng.choice(np.flatnonzero(mask))) for agent, mask in masks.items()}
            step = env.step(actions)
            observations = step[0]
            yield step


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_whole_episodes_repeat(tiny_kwargs, kwargs):
    first, second = (ppd_v0.parallel_env(**tiny_kwargs, **kwargs) for _ in range(2))
    for left, right in zip(play(first, 3), play(second, 3), strict=True):
        assert data_equivalence(left, right)


@pytest.mark.parametrize("make", [ppd_v0.raw_env, ppd_v0.parallel_env])
def test_pickling_goes_on_where_it_was(tiny_kwargs, make):
    env = make(schedule="duel", **tiny_kwargs)
    env.reset(seed=0)
    attacker = int(np.flatnonzero(env.game.mask("attacker_0"))[0])
    env.step(attacker if make is ppd_v0.raw_env else {"attacker_0": attacker})
    twin = pickle.loads(pickle.dumps(env))
    defender = int(np.flatnonzero(env.game.mask("defender_0"))[0])
    for one in (env, twin):
        one.step(defender if make is ppd_v0.raw_env else {"defender_0": defender})
    assert data_equivalence(env.game.observe("defender_0"), twin.game.observe("defender_0"))
    env.reset()
    twin.reset()
    assert data_equivalence(env.game.observe("attacker_0"), twin.game.observe("attacker_0"))
