"""RL Baselines3 Zoo takes the settings that ship."""

import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "ppd_agents" / "hyperparams"
WORLD = {
    "scenes": "shapes://train?count=4&seed=1",
    "segmenter": "fake",
    "features": "fake",
    "grid": 4,
    "defence_steps": 4,
    "edges": "none",
    "feedback": True,
}
WITH_MASKS = """
import rl_zoo3, rl_zoo3.exp_manager, rl_zoo3.train
from sb3_contrib import MaskablePPO

rl_zoo3.ALGOS["ppo_mask"] = MaskablePPO
rl_zoo3.train.train()
"""
"""The Zoo has settings for MaskablePPO and does not list it; this is how it is told of further algorithms."""


@pytest.mark.parametrize("algorithm", ["dqn", "ppo_mask"])
def test_rl_zoo_trains(algorithm, tmp_path):
    if find_spec("rl_zoo3") is None:
        pytest.skip("rl_zoo3 is not installed: make test-examples EXAMPLES=rl_zoo")
    start = ["-m", "rl_zoo3.train"] if algorithm == "dqn" else ["-c", WITH_MASKS]
    command = [sys.executable, *start, "--algo", algorithm, "--env", "PPD-v0", "--conf-file"]
    command += [str(FOLDER / f"{algorithm}.yml"), "--gym-packages", "ppd_env"]
    command += ["-n", "512", "--eval-freq", "-1", "-f", str(tmp_path), "--seed", "1"]
    command += ["--env-kwargs", *(f"{key}:{value!r}" for key, value in WORLD.items())]
    played = subprocess.run(command, capture_output=True, text=True, check=False)
    assert played.returncode == 0, played.stdout + played.stderr
    monitor = next((tmp_path / algorithm / "PPD-v0_1").glob("*monitor.csv"))
    with monitor.open() as lines:
        next(lines)
        assert sum(int(row["l"]) for row in csv.DictReader(lines)) > 100
    kept = (tmp_path / algorithm / "PPD-v0_1" / "PPD-v0" / "config.yml").read_text()
    assert "policy" in kept


def test_settings_name_what_the_environment_knows():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra [agents]")
    from ppd_agents.benchmark.protocol import VIEW_ARGUMENTS

    paths = sorted(FOLDER.glob("*.yml"))
    assert [path.stem for path in paths] == ["dqn", "masked_dqn", "ppo_mask"]
    for path in paths:
        assert set(yaml.safe_load(path.read_text())["PPD-v0"]["env_kwargs"]) <= set(VIEW_ARGUMENTS)
