"""The vector environment plays what single environments under Gymnasium's own vector would."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ppd_env.envs.vector_env import PointPromptVectorEnv
from ppd_env.errors import ConfigError

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
