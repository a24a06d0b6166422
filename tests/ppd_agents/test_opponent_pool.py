import numpy as np
import pytest
import torch
from tiny_training import tiny

from ppd_agents.training.adversarial import Alternation
from ppd_agents.training.opponents import OpponentPool
from ppd_env.errors import PPDError


@pytest.fixture
def attackers(tmp_path):
    """Return five attackers with different weights."""
    return [Alternation(tiny(seed=seed), tmp_path).agent("attacker") for seed in range(5)]


def weights(agent):
    return torch.cat([p.flatten() for p in agent.network.parameters()])


def test_without_room_there_is_only_the_current_one(attackers):
    pool, rng = OpponentPool(0, attackers[0]), np.random.default_rng(0)
    assert all(pool.draw(agent, rng) is agent for agent in attackers)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_past_attackers_come_back_as_they_were(attackers):
    drawn = [_filled(attackers).draw(attackers[3], np.random.default_rng(seed)) for seed in range(20)]
    met = {next(i for i, a in enumerate(attackers) if torch.equal(weights(a), weights(d))) for d in drawn}
    assert met == {1, 2, 3}


def test_the_pool_keeps_the_last_attackers_as_they_are_now(attackers):
    pool, rng = OpponentPool(2, attackers[0]), np.random.default_rng(0)
    assert pool.draw(attackers[0], rng) is attackers[0]
    for agent in attackers[1:3]:
        pool.draw(agent, rng)
    before = [weights(agent).clone() for agent in attackers]
    with torch.no_grad():
        for parameter in attackers[2].network.parameters():
            parameter.zero_()  # the current attacker goes on learning in place
    kept = [torch.cat([t.flatten() for t in past.values()]) for past in pool.past]
    assert [torch.equal(k, b) for k, b in zip(kept, before[1:3], strict=True)] == [True, True]


def _filled(attackers):
    pool = OpponentPool(2, attackers[0])
    pool.past = [{n: t.clone() for n, t in a.network.state_dict().items()} for a in attackers[1:3]]
    return pool


def test_a_pool_comes_back(attackers):
    tensors, facts = _filled(attackers).state()
    again = OpponentPool(2, attackers[0])
    again.restore(tensors, facts)
    assert all(
        torch.equal(one[name], other[name])
        for one, other in zip(_filled(attackers).past, again.past, strict=True)
        for name in one
    )
    with pytest.raises(PPDError, match="larger"):
        OpponentPool(1, attackers[0]).restore(tensors, facts)
