import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ppd_agents.dqn.agent import GreedyAgent, load_agent
from ppd_agents.dqn.q_network import QNetworkConfig
from ppd_agents.dqn.vec_env import GameVecEnv
from ppd_agents.evaluation.rollouts import play
from ppd_agents.methods.maskable_ppo import PPOConfig, train_maskable_ppo, training
from ppd_agents.methods.maskable_ppo.actor_critic import GraphActorCritic
from ppd_agents.methods.maskable_ppo.training import AttackedStarts
from ppd_agents.training.presets import preset
from ppd_env.errors import ConfigError
from ppd_env.game_batch import GameBatch

CONFIG = preset(
    "mini",
    scenes="shapes://train?count=12&seed=3",
    segmenter="fake",
    features="fake",
    grid=8,
    games=4,
    steps=(3, 5),
    hidden=16,
    messages=2,
    progress=False,
    tensorboard=False,
)
TINY = PPOConfig(total_steps=32, rollout=8, batch_size=16, epochs=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def world(small_simulator):
    """Games of attacked prompts, and a policy on them."""
    starts = AttackedStarts(small_simulator, CONFIG, None, np.random.default_rng(0))
    env = GameVecEnv(GameBatch(small_simulator, CONFIG.games), starts)
    bank = small_simulator.bank
    policy = GraphActorCritic(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        network=QNetworkConfig(role="defender", hidden=16, dropout=0.0),
        scenes=(bank.features, bank.positions),
    )
    return env, policy


def tensors(observation):
    return {name: torch.from_numpy(values) for name, values in observation.items()}


def test_only_legal_actions_have_a_chance(world):
    env, policy = world
    observation = env.reset()
    masks = env.action_masks()
    chances = policy.get_distribution(tensors(observation), masks).distribution.probs
    assert (chances[torch.from_numpy(~masks)] < 1e-12).all()
    assert (chances[torch.from_numpy(masks)] > 0).all()
    actions, values, logs = policy(tensors(observation), action_masks=masks)
    env.step(actions.numpy())  # refuses illegal ones
    again, same, entropy = policy.evaluate_actions(tensors(observation), actions, torch.from_numpy(masks))
    torch.testing.assert_close(again, values)
    torch.testing.assert_close(same, logs)
    assert (entropy > 0).all()


def test_relabelling_the_nodes_relabels_the_chances_and_keeps_the_value(world, small_simulator):
    env, policy = world
    observation = tensors(env.reset())
    nodes = small_simulator.nodes
    order = torch.randperm(nodes, generator=torch.Generator().manual_seed(1))
    moved = observation | {"status": observation["status"][:, order]}
    bank = small_simulator.bank
    logits, value = policy.actor(observation), policy.predict_values(observation)
    for network in (policy.actor, policy.critic):
        network._scenes = (bank.features[:, order], bank.positions[order])
    columns = torch.cat([order, order + nodes, torch.tensor([2 * nodes])])
    torch.testing.assert_close(policy.actor(moved), logits[:, columns], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(policy.predict_values(moved), value, atol=1e-5, rtol=1e-4)
    assert value.std() > 0


def test_starts_are_attacked_and_come_in_any_number(small_simulator):
    config = replace(CONFIG, clean_share=0.0, partial_share=0.0)
    starts = AttackedStarts(small_simulator, config, None, np.random.default_rng(0))
    drawn = [starts.draw(count) for count in (1, 5, 4)]
    for found, count in zip(drawn, (1, 5, 4), strict=True):
        assert found.status.shape == (count, 64)
        assert not found.attacking.any()
        foreign = ((found.status != 0) & (found.status != found.reference)).sum(1)
        assert torch.equal(foreign, found.steps)
    again = AttackedStarts(small_simulator, config, None, np.random.default_rng(0)).draw(1)
    assert torch.equal(again.status, drawn[0].status)


def test_training_is_repeatable_saved_and_playable(tmp_path, small_simulator, monkeypatch):
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = train_maskable_ppo(CONFIG, tmp_path / "a", ppo=TINY)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]
    torch.manual_seed(6)
    np.random.seed(6)  # noqa: NPY002
    second = train_maskable_ppo(CONFIG, tmp_path / "b", ppo=TINY)
    other = train_maskable_ppo(replace(CONFIG, seed=1), tmp_path / "c", ppo=TINY)
    stored = load_agent(tmp_path / "a" / "defender")
    weights = [agent.network.state_dict() for agent in (first, second, stored, other)]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
        assert torch.equal(tensor, weights[2][name]), name
    assert any(not torch.equal(tensor, weights[3][name]) for name, tensor in weights[0].items())
    starts = AttackedStarts(small_simulator, CONFIG, None, np.random.default_rng(4)).draw(4)
    cleaned = play(
        small_simulator,
        starts.rows,
        starts.status,
        GreedyAgent(stored),
        attacking=False,
        budgets=(3,),
        rngs=[np.random.default_rng(0)] * 4,
    )[3]
    assert ((cleaned == starts.status) | (cleaned == 0)).all()
    monkeypatch.setattr(training, "_learn", None)
    assert train_maskable_ppo(CONFIG, tmp_path / "a", ppo=TINY).notes == first.notes
    with pytest.raises(ConfigError, match="other settings"):
        train_maskable_ppo(replace(CONFIG, seed=9), tmp_path / "a", ppo=TINY)


def test_ppo_learns_to_remove_what_harms(tmp_path, small_simulator):
    config = replace(CONFIG, games=8, hidden=32, steps=(4, 4), clean_share=0.0, partial_share=0.0)
    ppo = PPOConfig(total_steps=3000, rollout=16, batch_size=128, learning_rate=3e-3, entropy=0.0)
    agent = train_maskable_ppo(config, tmp_path, ppo=ppo)
    starts = AttackedStarts(small_simulator, config, None, np.random.default_rng(9)).draw(48)
    rngs = [np.random.default_rng(0)] * 48
    cleaned = play(
        small_simulator,
        starts.rows,
        starts.status,
        GreedyAgent(agent),
        attacking=False,
        budgets=(4,),
        rngs=rngs,
    )[4]
    dice = [small_simulator.segment(starts.rows, s).dice.mean().item() for s in (starts.status, cleaned)]
    assert dice[1] > dice[0] + 0.05


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="rollout"):
        PPOConfig(rollout=0)
