"""What never changes in a scene is computed once, ahead of time, and copied."""

import numpy as np
import pytest

from ppd_env import cores
from ppd_env.envs import observations
from ppd_env.envs.gymnasium_env import PointPromptEnv
from ppd_env.envs.observations import Observer
from ppd_env.envs.vector_env import PointPromptVectorEnv


@pytest.fixture
def computed(monkeypatch):
    """Rows whose static parts were computed, in order."""
    rows, compute = [], Observer._compute

    def record(self, row):
        rows.append(row)
        return compute(self, row)

    monkeypatch.setattr(Observer, "_compute", record)
    return rows


def finish_background():
    cores.in_background(lambda: None).result()


def test_the_next_scene_is_ready_before_it_is_asked_for(tiny_kwargs, computed):
    env = PointPromptEnv(**tiny_kwargs)
    env.reset(seed=3)
    for _ in range(6):
        finish_background()
        before = list(computed)
        _, info = env.reset()
        assert computed[: len(before)] == before
        assert info["scene"] in before


def test_looking_ahead_draws_nothing(tiny_kwargs):
    ahead, blind = (PointPromptEnv(**tiny_kwargs) for _ in range(2))
    blind.play._expect = lambda rngs: None
    ahead.reset(seed=5)
    blind.reset(seed=5)
    assert [ahead.reset()[1]["scene"] for _ in range(5)] == [blind.reset()[1]["scene"] for _ in range(5)]


def test_a_step_looks_up_no_scene(tiny_kwargs, monkeypatch):
    envs = PointPromptVectorEnv(3, **tiny_kwargs)
    _, infos = envs.reset(seed=0)
    looked, look = [], Observer._scene
    monkeypatch.setattr(Observer, "_scene", lambda self, row: looked.append(row) or look(self, row))
    observation, _, ended, cut, _ = envs.step(infos["action_mask"].argmax(axis=1))
    assert not (ended | cut).any()
    assert looked == []
    observation["features"][:] = np.nan
    assert np.isfinite(envs.step(envs.action_masks().argmax(axis=1))[0]["features"]).all()


def test_scenes_are_kept_within_their_memory(tiny_kwargs, monkeypatch, computed):
    monkeypatch.setattr(observations, "KEPT_BYTES", 1)
    env = PointPromptEnv(**tiny_kwargs)
    for scene in (0, 1, 0):
        env.reset(options={"scene": scene})
    assert len(env.play.observer._static) == 1


def test_what_was_expected_in_vain_makes_room(tiny_kwargs):
    env = PointPromptEnv(**tiny_kwargs)
    for seed in range(12):
        env.reset(seed=seed)
    assert len(env.play.observer._coming) <= 1


def test_compact_observations_expect_nothing(tiny_kwargs, computed):
    env = PointPromptEnv(**tiny_kwargs, observation="compact")
    env.reset(seed=0)
    finish_background()
    assert computed == []
