import numpy as np
import pytest
import torch
from small_learner import GAMES
from tiny_training import tiny

from ppd_agents.dqn import updates
from ppd_agents.dqn.masked_dqn import PRECISIONS
from ppd_agents.dqn.updates import UnitDropout, parts_of, set_gradients, units_drawn_from
from ppd_agents.training.adversarial import Alternation
from ppd_env.errors import ConfigError


def states(counts, nodes=30):
    status = torch.zeros((len(counts), nodes), dtype=torch.int8)
    for row, count in zip(status, counts, strict=True):
        row[:count] = 1
    return status


def test_parts_hold_every_state_once_the_small_ones_apart():
    counts = np.random.default_rng(0).integers(0, 30, 60)
    small, large = parts_of(states(counts))
    assert sorted([*small.tolist(), *large.tolist()]) == list(range(60))
    assert counts[small].max() <= counts[large].min()
    assert len(small) > len(large)
    cost = [np.square(counts[part]).sum() for part in (small, large)]
    assert max(cost) < 1.3 * min(cost)


def test_a_few_states_are_one_part():
    (whole,) = parts_of(states([3, 1, 2]))
    assert whole.tolist() == [1, 2, 0]
    assert [len(part) for part in parts_of(states([0] * 15 + [30]))] == [8, 8]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), UnitDropout(0.5), torch.nn.Linear(5, 1))


def test_gradients_are_those_of_the_sum(network):
    inputs, unused = torch.randn(4, 2, 3), torch.nn.Parameter(torch.ones(2))
    parameters = [*network.eval().parameters(), unused]
    sum(network(one[None]).square().sum() for one in inputs).backward()
    wanted = [parameter.grad.clone() for parameter in parameters[:-1]]
    losses = [lambda one=one: network(one[None]).square().sum() for one in inputs]
    value = set_gradients(losses, parameters, np.random.default_rng(0))
    assert float(value) == pytest.approx(sum(loss().item() for loss in losses))
    for parameter, grad in zip(parameters, wanted, strict=False):
        assert torch.allclose(parameter.grad, grad, atol=1e-6)
    assert unused.grad is None


def test_the_same_seed_gives_the_same_gradients_on_any_number_of_cores(network):
    inputs, parameters = torch.randn(6, 4, 2, 3), list(network.train().parameters())
    found = []
    threads = torch.get_num_threads()
    try:
        for cores, seed in ((1, 0), (2, 0), (2, 0), (2, 1)):
            torch.set_num_threads(cores)
            losses = [lambda one=one: network(one).square().sum() for one in inputs]
            before = torch.get_rng_state()
            set_gradients(losses, parameters, np.random.default_rng(seed))
            assert torch.equal(before, torch.get_rng_state())
            found.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))
    finally:
        torch.set_num_threads(threads)
    assert found[0].equal(found[1])
    assert found[1].equal(found[2])
    assert not found[2].equal(found[3])


def test_dropout_acts_in_training_only_and_on_all_nodes_of_a_state_alike():
    drop = UnitDropout(0.5).train()
    with units_drawn_from(torch.Generator().manual_seed(0)):
        out = drop(torch.ones(3, 7, 200))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert (out == out[:, :1]).all()
    assert not torch.equal(out[0], out[1])
    assert 0.3 < (out == 0).float().mean() < 0.7
    ones = torch.ones(2, 2, 2)
    assert drop.eval()(ones) is ones


def test_a_learners_losses_in_parts_are_those_of_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path))
    training = Alternation(tiny(rounds=1, rehearsals=8, members=2), tmp_path / "run")
    training.run()
    model = training.learners["defender"].model
    model.policy.set_training_mode(False)
    data, drawn = model._draw(64), model.rng.bit_generator.state
    target, found = model.targets(data), []
    for smallest in (1, 10**6):
        monkeypatch.setattr(updates, "_SMALLEST_PART", smallest)
        model.rng.bit_generator.state = drawn
        current = torch.full_like(target, torch.nan)
        attacked = training.attacks.sample(model.attack_batch, model.rng)
        losses = [*model.value_losses(data, target, current), *model.suspicion_losses(attacked)]
        parameters = list(model.q_net.parameters())
        value = set_gradients(losses, parameters, np.random.default_rng(0))
        found.append((len(losses), value, torch.cat([p.grad.flatten() for p in parameters]), current))
    (parts, value, grads, current), (wholes, whole, wanted, expected) = found
    assert (parts, wholes) == (4, 2)
    assert float(value) == pytest.approx(float(whole), rel=1e-5)
    torch.testing.assert_close(grads, wanted, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(current, expected)


def test_bfloat16_learns_nearly_the_same_and_keeps_float32_weights(make_model):
    """Off unless asked for; the rounding is that of 8 bits of mantissa."""
    found = []
    for precision in ("float32", "bfloat16"):
        model = make_model("defender", branches=2, precision=precision, steps=3)
        model.learn(GAMES * 3, log_interval=None, reset_num_timesteps=False)
        data = model._draw(32)
        target = torch.ones(len(data.rewards), 1)
        losses = model.value_losses(data, target, torch.empty_like(target))
        parameters = list(model.q_net.parameters())
        value = set_gradients(losses, parameters, np.random.default_rng(0), PRECISIONS[precision])
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in parameters if p.grad is not None)
        found.append(float(value))
    exact, rounded = found
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.05)


def test_other_precisions_are_refused(make_model):
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        make_model("defender", precision="float16")
