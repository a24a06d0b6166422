"""Importing the package."""

import subprocess
import sys

import gymnasium
import pytest

import ppd_env
from ppd_env import registration


def test_importing_loads_no_torch_and_no_learner():
    code = (
        "import sys, ppd_env, ppd_env.config; "
        "print([m for m in ('torch', 'stable_baselines3', 'wandb', 'cv2', 'pygame') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_registering_twice_changes_nothing(recwarn):
    before = gymnasium.registry[registration.GYMNASIUM_ID]
    ppd_env.register()
    assert gymnasium.registry[registration.GYMNASIUM_ID] is before
    assert not [warning for warning in recwarn if "verriding" in str(warning.message)]


def test_pettingzoo_makes_both(tiny_kwargs):
    registry = pytest.importorskip("pettingzoo.env_registry.registration")
    assert registry.make("aec", registration.PETTINGZOO_ID, **tiny_kwargs).possible_agents == [
        "attacker_0",
        "defender_0",
    ]
    parallel = registry.make("parallel", registration.PETTINGZOO_ID, **tiny_kwargs)
    assert parallel.config.schedule == "duel"
