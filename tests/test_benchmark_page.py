"""What the pages on the benchmark and on other people's algorithms show can be run."""

import re
from pathlib import Path

import gymnasium as gym
import pytest

from ppd_agents.benchmark import protocol
from ppd_agents.benchmark.algorithms import HYPERPARAMS, load_algorithm

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
OTHERS = (ROOT / "docs" / "other_algorithms.md").read_text(encoding="utf-8")
ALGORITHM, RECORDING = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_algorithm_of_the_page_plays_legal_moves(tiny_kwargs, monkeypatch):
    names = {}
    exec(compile(ALGORITHM, "benchmark.md", "exec"), names)
    spec = gym.envs.registration.EnvSpec("PPD-page-v0", gym.spec("PPD-v0").entry_point, kwargs=tiny_kwargs)
    monkeypatch.setitem(gym.registry, spec.id, spec)
    policy = names["FewestPrompts"]().train(spec.id, 0, 10)
    env = gym.make(spec.id, invalid_action="raise", **policy.view)
    observation, info = env.reset(seed=0)
    over, first = False, observation["status"]
    while not over:
        observation, _, terminated, truncated, info = env.step(
            policy.act(observation, info["action_mask"].astype(bool))
        )
        over = terminated or truncated
    assert (observation["status"] == 2).sum() < (first == 2).sum()


def test_the_recording_of_the_page_passes(tmp_path, monkeypatch, capsys):
    from ppd_env.recording import read_episode, replay

    monkeypatch.chdir(tmp_path)
    exec(compile(RECORDING, "benchmark.md", "exec"), {})
    replay(read_episode(Path(capsys.readouterr().out.strip())))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b[\w.]+:[A-Z]\w+\b", PAGE)) - {"module:Class"}))
def test_algorithms_the_page_names_exist(name):
    load_algorithm(name)


def test_the_page_tells_the_protocol():
    assert f"protocol `{protocol.STANDARD.name}`" in PAGE
    assert f"{protocol.STANDARD.episodes} for each task" in PAGE
    assert f"seed {protocol.STANDARD.first_seed:,} + i" in PAGE


def test_files_the_pages_name_exist():
    for name in re.findall(r"`(\w+\.py)`", OTHERS):
        assert (ROOT / "docs" / "examples" / name).is_file(), name
    for name in re.findall(r"`(\w+\.txt)`", OTHERS):
        assert (ROOT / "docs" / "examples" / "requirements" / name).is_file(), name
    for name in re.findall(r"(\w+\.yml)", OTHERS):
        assert (HYPERPARAMS / name).is_file(), name
