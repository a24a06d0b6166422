"""MaskedDQN on the plain environment, through SB3's own wrappers."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

import ppd_env  # noqa: F401
from ppd_agents.dqn.agent import Agent, save_agent
from ppd_agents.dqn.masked_dqn import MaskedDQN
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.dqn.replay import SceneReplayBuffer
from ppd_env.features.registry import load_features
from ppd_env.scenes.bank import open_bank

SCENES = "shapes://train?count=4&seed=1"
WORLD = {
    "scenes": SCENES,
    "segmenter": "fake",
    "features": "fake",
    "grid": 6,
    "defence_steps": 4,
    "attack_steps": 4,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def learn(observation, role="defender", **options):
    env = DummyVecEnv(
        [lambda: gym.make("PPD-v0", role=role, observation=observation, invalid_action="raise", **WORLD)] * 2
    )
    env.seed(3)
    model = MaskedDQN(
        "GraphPolicy",
        env,
        network=QNetworkConfig(role=role, hidden=8),
        rng=1,
        gamma=0.9,
        learning_starts=6,
        batch_size=8,
        buffer_size=100,
        device="cpu",
        **options,
    )
    model.set_logger(Logger(None, []))
    model.learn(24, log_interval=None)
    return model


@pytest.mark.parametrize("role", ["attacker", "defender"])
def test_it_learns_from_full_observations(role):
    model = learn("full", role)
    data = model.replay_buffer.sample(8)
    assert torch.isfinite(model.targets(data)).all()
    observation = model.env.reset()
    action, _ = model.predict(observation, deterministic=True)
    assert observation["action_mask"][np.arange(2), action].all()


def test_without_a_network_it_learns_the_role_that_moves():
    for role in ("attacker", "defender"):
        env = gym.make("PPD-v0", role=role, **WORLD)
        for given in (env, DummyVecEnv([lambda env=env: env])):
            model = MaskedDQN("GraphPolicy", given, learning_starts=2, buffer_size=20, device="cpu")
            assert model.q_net.network.config.role == role
            model.learn(3)


def test_it_learns_from_compact_observations_with_the_scene_buffer():
    bank = open_bank(SCENES, "fake", "fake", 6)
    model = learn("compact", scenes=(bank.features, bank.positions))
    assert isinstance(model.replay_buffer, SceneReplayBuffer)
    assert model.replay_buffer.size() == 24


def test_a_saved_attacker_is_the_opponent_of_an_environment(tmp_path):
    network = GraphQNetwork(QNetworkConfig(role="attacker", hidden=8), torch.Generator().manual_seed(0))
    save_agent(Agent(network, "fake", load_features("fake").signature, 6, 1.0), tmp_path / "attacker")
    uri = f"ppd_agents.defender:load_opponent?stop=false&path={tmp_path / 'attacker'}"
    prompts = {}
    for start in ("ideal", "ideal+attack"):
        env = gym.make("PPD-v0", role="defender", start=start, opponent=uri, **WORLD)
        prompts[start], _ = env.reset(seed=2)
    before, after = prompts["ideal"]["status"], prompts["ideal+attack"]["status"]
    assert (after[before > 0] == before[before > 0]).all()
    assert (after > 0).sum() == (before > 0).sum() + WORLD["attack_steps"]


def test_full_and_compact_observations_have_the_same_values():
    bank = open_bank(SCENES, "fake", "fake", 6)
    model = learn("compact", scenes=(bank.features, bank.positions))
    full = gym.make("PPD-v0", role="defender", **WORLD)
    observation, info = full.reset(seed=5)
    batch = {key: torch.from_numpy(np.asarray(value))[None] for key, value in observation.items()}
    compact = {"scene": torch.tensor([[info["scene"]]]), "status": batch["status"]}
    with torch.no_grad():
        torch.testing.assert_close(model.q_net(batch), model.q_net(compact))
