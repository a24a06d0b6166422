"""Other people's algorithms run on the environment as it is; `make test-examples` installs what they need."""

import json
import math
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NEEDS = {
    "sb3_dqn": "stable_baselines3",
    "sb3_maskable_ppo": "sb3_contrib",
    "single_file_dqn": "tyro",
    "pettingzoo_duel": "pettingzoo",
    "torchrl_dqn": "torchrl",
    "tianshou_dqn": "tianshou",
    "rllib_ppo": "tree",  # which comes with ray[rllib], not with ray alone
    "pyg_dqn": "torch_geometric",
}
STEPS = 120


def installed(package):
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_example(name, tmp_path, monkeypatch, capsys):
    if not installed(NEEDS[name]):
        pytest.skip(f"{NEEDS[name]} is not installed: make test-examples EXAMPLES={name}")
    make = {
        "scenes": "shapes://train?count=4&seed=1",
        "segmenter": "fake",
        "features": "fake",
        "grid": 4,
        "attack_steps": 4,
        "defence_steps": 4,
    }
    monkeypatch.chdir(tmp_path)
    arguments = ["--steps", str(STEPS), "--seed", "3", "--make", json.dumps(make)]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    shown = re.search(r"mean return ([+-][\d.]+)", capsys.readouterr().out)
    assert shown
    assert math.isfinite(float(shown[1]))
    assert abs(float(shown[1])) <= 1


def test_every_example_with_an_environment_of_its_own_has_pins():
    pinned = {path.stem for path in (EXAMPLES / "requirements").glob("*.txt")}
    assert pinned == {"rl_zoo", "torchrl_dqn", "tianshou_dqn", "rllib_ppo", "pyg_dqn"}
    for name in pinned:
        lines = (EXAMPLES / "requirements" / f"{name}.txt").read_text().splitlines()
        wanted = [line for line in lines if line and not line.startswith("#")]
        assert wanted
        assert all("==" in line for line in wanted)
