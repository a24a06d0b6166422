"""What Gymnasium and Stable-Baselines3 ask of an environment, and what this game asks of itself."""

import copy
import dataclasses
import inspect
import pickle
import re
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

from ppd_env.errors import ConfigError, PPDError
from ppd_env.testing import check_mask_agreement, check_rollout_equality, check_telescoping, rollout

VARIANTS = [
    {},
    {"role": "attacker", "attack_steps": 5},
    {"edges": "dense", "feedback": True, "prompts_per_step": 3},
    {"edges": "none", "allow_stop": False, "label_mode": "truth", "role": "attacker"},
    {"observation": "compact", "start": "matching"},
    {"start": "noise", "opponent": "oracle?pool=3", "defence_steps": [3, 6], "layout": "lattice"},
    {"features": "segmenter", "start": "ideal"},
]


@pytest.fixture
def make(tiny_kwargs):
    """A function that makes an environment."""
    return lambda **kwargs: gym.make("PPD-v0", **{**tiny_kwargs, **kwargs})


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_gymnasium_check_env(make, kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space .*infinity.*")
        warnings.filterwarnings("ignore", message=".*render.*")
        check_env(make(**kwargs).unwrapped)


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_stable_baselines3_check_env(make, kwargs):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*has an unconventional shape.*")
        checker.check_env(make(**kwargs).unwrapped)


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_our_own_checks(make, kwargs):
    check_rollout_equality(lambda: make(**kwargs))
    check_telescoping(make(**kwargs))
    check_mask_agreement(make(**kwargs))


def test_the_checks_notice_what_they_check(make):
    class Off(gym.Wrapper):
        def step(self, action):
            observation, reward, terminated, truncated, info = self.env.step(action)
            observation["action_mask"] = 1 - observation["action_mask"]
            return observation, reward + 0.01, terminated, truncated, info

    flip = iter([True, False])
    with pytest.raises(AssertionError, match="differs"):
        check_rollout_equality(lambda: Off(make()) if next(flip) else make())
    with pytest.raises(AssertionError, match="Rewards sum"):
        check_telescoping(Off(make()))
    with pytest.raises(AssertionError, match="action_mask differs"):
        check_mask_agreement(Off(make()))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_where_the_original_was(make, clone):
    env = make()
    _, info = env.reset(seed=4)
    env.step(int(np.flatnonzero(info["action_mask"])[0]))
    twin = clone(env)
    rng = np.random.default_rng(0)
    for _ in range(3):
        over = False
        while not over:
            action = int(rng.choice(np.flatnonzero(env.get_wrapper_attr("action_masks")())))
            left, right = env.step(action), twin.step(action)
            assert data_equivalence(left, right)
            over = left[2] or left[3]
        assert data_equivalence(env.reset(), twin.reset())


def test_specs_survive_json(make):
    env = make(role="attacker", attack_steps=[2, 5])
    text = env.spec.to_json()
    again = gym.make(gym.envs.registration.EnvSpec.from_json(text))
    assert data_equivalence(env.reset(seed=1), again.reset(seed=1))
    assert again.unwrapped.config == env.unwrapped.config


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_make_vec(tiny_kwargs, mode):
    envs = gym.make_vec("PPD-v0", num_envs=2, vectorization_mode=mode, **tiny_kwargs)
    observation, _ = envs.reset(seed=0)
    assert observation["status"].shape == (2, 36)
    assert envs.observation_space.contains(observation)


def test_vectorised_entry_point_states_its_autoreset(tiny_kwargs):
    envs = gym.make_vec("PPD-v0", num_envs=2, **tiny_kwargs)
    assert envs.metadata["autoreset_mode"] == gym.vector.AutoresetMode.SAME_STEP


def test_unmasked_sampling_only_wastes_steps(make):
    env = make(role="attacker", attack_steps=30)
    env.reset(seed=0)
    env.action_space.seed(0)
    node = int(np.flatnonzero(env.unwrapped.play.games.status[0])[0])
    _, reward, terminated, truncated, info = env.step(node)
    assert info["invalid_action"]
    assert (reward, terminated, truncated) == (0.0, False, False)
    with pytest.raises(PPDError):
        env.unwrapped.step(73)
    strict = make(role="attacker", invalid_action="raise")
    strict.reset(seed=0)
    node = int(np.flatnonzero(strict.unwrapped.play.games.status[0])[0])
    with pytest.raises(PPDError, match="Illegal action"):
        strict.step(node)


def test_unknown_arguments_are_errors(make):
    with pytest.raises(ConfigError, match="Unknown argument 'budget'"):
        make(budget=3)
    with pytest.raises(ConfigError, match="known schemes"):
        make(scenes="nowhere://x")


def test_compact_observations_name_the_scene(make):
    env = make(observation="compact")
    observation, info = env.reset(seed=2, options={"scene": 3})
    assert observation["scene"].tolist() == [3] == [info["scene"]]
    assert set(observation) == {"scene", "status", "steps_left", "action_mask"}


def test_steps_left_runs_down_and_the_last_mask_is_true(make):
    steps = list(rollout(make(role="attacker", attack_steps=4), seed=0, episodes=1))
    assert [float(step[0]["steps_left"][0]) for step in steps] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert steps[-1][3]
    assert steps[-1][0]["action_mask"].sum() > 1


def test_the_documentation_page_lists_every_argument_key_and_info(make):
    env = make(feedback=True, edges="dense")
    page = type(env.unwrapped).__doc__
    observation, info = env.reset(seed=0)
    names = [field.name for field in dataclasses.fields(env.unwrapped.config)]
    for name in [*names, *observation, *info, "edge_index", "edge_attr", "scene"]:
        assert f"`{name}`" in page, name
    for section in (
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Episode End",
        "Info",
        "Arguments",
        "Version History",
    ):
        assert f"## {section}" in page


def test_the_documentation_pages_example_runs(make, tiny_kwargs):
    page = inspect.getdoc(type(make().unwrapped))
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    code = code.replace('role="defender"', 'role="defender", **tiny_kwargs')
    scope = {"tiny_kwargs": tiny_kwargs}
    exec(code, scope)
    assert scope["terminated"] or scope["truncated"]
