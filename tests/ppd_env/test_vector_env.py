"""The vector environment plays what single environments under Gymnasium's own vector would."""

import os
import pickle
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from ppd_env.envs.vector_env import PointPromptVectorEnv
from ppd_env.errors import ConfigError
from ppd_env.opponents import RandomOpponent

COUNT = 3


def pair(**kwargs):
    single = SyncVectorEnv(
        [lambda: gym.make("PPD-v0", **kwargs)] * COUNT, autoreset_mode=AutoresetMode.SAME_STEP, copy=True
    )
    ours = gym.make_vec("PPD-v0", num_envs=COUNT, vectorization_mode="vector_entry_point", **kwargs)
    return single, ours


def draw(masks, rng, stop_share=0.15):
    actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
    return np.where(rng.random(len(masks)) < stop_share, masks.shape[1] - 1, actions)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"role": "attacker", "attack_steps": 4},
        {"role": "defender", "attack_steps": [2, 4], "defence_steps": [2, 4], "feedback": True},
        {"role": "defender", "observation": "compact", "start": "noise"},
    ],
)
def test_it_equals_single_environments(tiny_kwargs, kwargs):
    single, ours = pair(**tiny_kwargs, **kwargs)
    assert single.observation_space == ours.observation_space
    assert single.single_action_space == ours.single_action_space
    left, right = single.reset(seed=11), ours.reset(seed=11)
    assert data_equivalence(left, right)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(25):
        actions = draw(right[-1]["action_mask"], rng)
        # Some illegal ones too: whether the last action was legal belongs to the episode that ended.
        actions = np.where(rng.random(COUNT) < 0.3, rng.integers(0, 72, COUNT), actions)
        left, right = single.step(actions), ours.step(actions)
        for part in range(4):
            assert data_equivalence(left[part], right[part]), part
        final_left, final_right = left[4].pop("final_obs", None), right[4].pop("final_obs", None)
        assert (final_left is None) == (final_right is None)
        if final_left is not None:
            ends += 1
            for a, b in zip(final_left, final_right, strict=True):
                assert data_equivalence(a, b)
        assert left[4].keys() == right[4].keys()
        for key in left[4]:
            assert data_equivalence(left[4][key], right[4][key]), key
    assert ends > 3


def test_only_masked_games_are_reset(tiny_kwargs):
    envs = PointPromptVectorEnv(COUNT, **tiny_kwargs)
    envs.reset(seed=0)
    before = envs.play.games.status.clone()
    mask = np.array([False, True, False])
    _, infos = envs.reset(seed=50, options={"reset_mask": mask})
    assert infos["_dice"].tolist() == mask.tolist()
    after = envs.play.games.status
    assert after[[0, 2]].equal(before[[0, 2]])
    assert not after[1].equal(before[1])
    with pytest.raises(ConfigError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.array([True])})


def test_pickling_goes_on_where_it_was(tiny_kwargs):
    envs = PointPromptVectorEnv(COUNT, **tiny_kwargs)
    _, infos = envs.reset(seed=0)
    rng = np.random.default_rng(0)
    envs.step(draw(infos["action_mask"], rng))
    copy = pickle.loads(pickle.dumps(envs))
    for _ in range(20):
        actions = draw(envs.action_masks(), rng)
        assert data_equivalence(envs.step(actions), copy.step(actions))


def test_rendering(tiny_kwargs):
    envs = PointPromptVectorEnv(2, render_mode="rgb_array", **tiny_kwargs)
    envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2
    assert all(frame.dtype == np.uint8 for frame in frames)


def test_impossible_arguments(tiny_kwargs):
    with pytest.raises(ConfigError, match="num_envs"):
        PointPromptVectorEnv(0, **tiny_kwargs)
    with pytest.raises(ConfigError, match="3 of them"):
        PointPromptVectorEnv(COUNT, **tiny_kwargs).reset(seed=[1, 2])
    with pytest.raises(ConfigError, match="reset"):
        PointPromptVectorEnv(1, **tiny_kwargs).step(np.array([0]))


@pytest.mark.parametrize("kwargs", [{"role": "attacker", "attack_steps": 2}, {"defence_steps": 2}])
def test_a_step_decodes_once_even_where_games_begin_anew(tiny_kwargs, decodes, kwargs):
    envs = PointPromptVectorEnv(COUNT, **tiny_kwargs, **kwargs)
    _, infos = envs.reset(seed=0)
    assert len(decodes) == 1
    rng, ends = np.random.default_rng(0), 0
    for _ in range(10):
        decodes.clear()
        _, _, ended, cut, infos = envs.step(draw(infos["action_mask"], rng, stop_share=0.1))
        ends += (ended | cut).sum()
        assert len(decodes) == 1
    assert ends > 5


def test_an_opponent_that_looks_at_masks_still_decodes_its_own(tiny_kwargs, decodes):
    envs = PointPromptVectorEnv(
        COUNT, **tiny_kwargs, opponent="oracle?pool=2", attack_steps=1, defence_steps=1
    )
    envs.reset(seed=0)
    decodes.clear()
    _, _, _, cut, infos = envs.step(envs.action_masks().argmax(axis=1))
    assert cut.any()
    assert len(decodes) > 1
    assert not np.isnan(infos["ideal_dice"]).any()


def test_a_learned_opponent_that_looks_once_adds_no_prompt_set(tiny_kwargs, decodes, monkeypatch):
    """What it wants to see is decoded ahead of the step's batch, and not again in it."""
    kwargs = tiny_kwargs | {"attack_steps": 2, "defence_steps": 2}
    single, ours = pair(**kwargs)
    monkeypatch.setattr(RandomOpponent, "looks_once", True, raising=False)
    left, right = single.reset(seed=5), ours.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(6):
        actions = draw(right[-1]["action_mask"], rng, stop_share=0)
        left = single.step(actions)
        decodes.clear()
        right = ours.step(actions)
        assert data_equivalence(left[0], right[0])
        ended = (right[2] | right[3]).sum()
        assert decodes[:-1] == ([ended] if ended else [])
        assert decodes[-1] <= COUNT + ended  # a game that stopped shows the mask it had


def calls_of(work):
    """How many functions are called and left, Python's and C's."""
    events = []
    sys.setprofile(lambda frame, event, _: events.append(event))
    try:
        work()
    finally:
        sys.setprofile(None)
    return len(events)


def test_the_work_of_a_step_does_not_grow_with_the_games(tiny_kwargs):
    counts = []
    for size in (2, 32):
        envs = PointPromptVectorEnv(size, **tiny_kwargs)
        envs.reset(seed=0)
        envs.step(envs.action_masks().argmax(axis=1))
        moves = envs.action_masks().argmax(axis=1)
        counts.append(calls_of(partial(envs.step, moves)))
    # The simulator decodes in batches of at most 64, so both take as many.
    assert counts[1] <= counts[0] + 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_environments_run_after_their_parent_used_two_threads(tiny_kwargs, two_threads):
    torch.randn(400, 400) @ torch.randn(400, 400)
    torch.randn(4, 512, 512).softmax(-1)
    gym.make("PPD-v0", **tiny_kwargs).reset(seed=0)
    envs = AsyncVectorEnv([lambda: gym.make("PPD-v0", **tiny_kwargs)] * 2, context="fork")
    try:
        envs.reset_async(seed=0)
        _, infos = envs.reset_wait(timeout=60)
        assert infos["scene"].shape == (2,)
    finally:
        envs.close(terminate=True)
