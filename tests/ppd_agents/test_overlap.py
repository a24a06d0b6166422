"""Gradient steps beside the games: they really go on meanwhile, and who is faster changes nothing."""

import threading
from concurrent.futures import wait

import pytest
import torch
from small_learner import GAMES

from ppd_agents.dqn.aside import Aside
from ppd_agents.dqn.attacks import AttackMemory
from ppd_agents.dqn.masked_dqn import MaskedDQN
from ppd_agents.dqn.q_network import QNetworkConfig

CPU = torch.device("cpu")
KINDS = [{}, {"gamma": 0.9, "double": True, "n_step": 2, "prioritised": True, "gradient_steps": 3}]


def weights(model):
    return torch.cat(
        [p.detach().flatten() for p in (*model.q_net.parameters(), *model.q_net_target.parameters())]
    )


def trained(make_model, **options):
    model = make_model(branches=2, target_update_interval=1, tau=0.5, **options)
    model.learn(GAMES * 6, log_interval=None)
    return model


def test_games_go_on_while_gradient_steps_are_taken(make_model, monkeypatch):
    model = make_model(branches=2, overlap=True)
    stepped, met = threading.Event(), []
    learn, step = model._learn_from, model.env.step_wait

    def learn_once_a_step_was_played(*args):
        met.append(stepped.wait(20))
        return learn(*args)

    def play():
        stepped.set()
        return step()

    model.learn(GAMES, log_interval=None)  # something to learn from
    monkeypatch.setattr(model, "_learn_from", learn_once_a_step_was_played)
    monkeypatch.setattr(model.env, "step_wait", play)
    model.train(1, 16)
    assert not met or met == [True]
    model.learn(GAMES, log_interval=None, reset_num_timesteps=False)
    assert met[0]
    assert not model._aside.busy


@pytest.mark.parametrize("options", KINDS)
def test_who_is_faster_changes_nothing(make_model, monkeypatch, options):
    """The same as with gradient steps, on one core too, that are over before the games go on."""
    beside = trained(make_model, overlap=True, **options)
    start = Aside.start

    def start_and_wait(self, work):
        start(self, work)
        wait([self._under_way])

    monkeypatch.setattr(Aside, "start", start_and_wait)
    before = trained(make_model, overlap=True, **options)
    assert torch.equal(weights(beside), weights(before))
    assert beside._n_updates == before._n_updates > 0
    for name, stored in beside.replay_buffer.store.arrays.items():
        assert (stored == before.replay_buffer.store.arrays[name]).all(), name


def test_the_games_are_played_by_the_weights_from_before(make_model, monkeypatch):
    model = make_model(overlap=True, branches=2, exploration_initial_eps=0.0, exploration_final_eps=0.0)
    model.learn(GAMES * 3, log_interval=None)
    before, asked = weights(model), []
    forward = type(model.q_net).forward

    def spy(network, observation, **options):
        asked.append((network, torch.cat([p.detach().flatten() for p in network.parameters()])))
        return forward(network, observation, **options)

    monkeypatch.setattr(type(model.q_net), "forward", spy)
    model.train(2, 16)
    model._sample_action(0, n_envs=GAMES)
    [(actor, acted)] = [entry for entry in asked if entry[0] is not model.q_net_target]
    model.finish_updates()
    assert actor is not model.q_net
    assert torch.equal(acted, before[: len(acted)])
    assert not torch.equal(weights(model)[: len(acted)], acted)


def test_suspicion_is_learned_beside_the_games_too(make_model, small_simulator):
    attacks = AttackMemory(4, small_simulator.nodes, 3)
    status = torch.zeros(4, small_simulator.nodes, dtype=torch.int8)
    status[:, 0] = 1
    attacks.add(torch.arange(4), status, torch.arange(1, 13).view(4, 3))
    model = make_model(
        overlap=True,
        attacks=attacks,
        attack_batch=8,
        network=QNetworkConfig("defender", hidden=16, suspicion=0.1),
    )
    before = weights(model)
    model.learn(GAMES * 3, log_interval=None)
    assert not torch.equal(weights(model), before)
    assert model.logger.name_to_value["train/loss"] > 0


def test_what_goes_wrong_aside_is_raised(make_model, monkeypatch):
    model = make_model(overlap=True)

    def fail(batch, rng):
        raise ValueError("lost")

    monkeypatch.setattr(model, "_learn_from", fail)
    with pytest.raises(ValueError, match="lost"):
        model.learn(GAMES * 3, log_interval=None)
    assert not model._aside.busy


def test_it_goes_through_sb3s_own_file(make_model, tmp_path):
    model = trained(make_model, overlap=True)
    model.save(tmp_path / "model.zip")
    again = MaskedDQN.load(tmp_path / "model.zip", env=model.env, device="cpu")
    assert torch.equal(weights(model), weights(again))
    again.learn(GAMES * 2, log_interval=None)


def test_on_a_cpu_cores_are_not_shared_unless_asked_for(make_model):
    assert make_model()._actor is None


def test_one_piece_at_a_time():
    aside = Aside(CPU)
    assert aside.finish() is None
    aside.start(lambda: 3)
    assert aside.busy
    with pytest.raises(AssertionError):
        aside.start(lambda: 4)
    assert aside.finish() == 3
    assert not aside.busy
