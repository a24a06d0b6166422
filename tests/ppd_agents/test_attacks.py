import numpy as np
import pytest
import torch

from ppd_agents.dqn import attacks
from ppd_agents.dqn.attacks import AttackMemory
from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE

NODES, STEPS = 25, 4


@pytest.fixture
def memory():
    """Return 6 attacks of 4 positive prompts each, on nodes 20..23, from 3 negatives and a positive."""
    kept = AttackMemory(8, NODES, STEPS)
    before = torch.zeros(6, NODES, dtype=torch.int8)
    before[:, [1, 5, 9]], before[:, 2] = NEGATIVE, POSITIVE
    kept.add(torch.arange(6), before, torch.arange(20, 24).repeat(6, 1))
    return kept


def draw(memory, monkeypatch, size=400, **shares):
    for name, value in shares.items():
        monkeypatch.setattr(attacks, name, value)
    return memory.sample(size, np.random.default_rng(0))


def test_only_prompts_of_the_attack_are_foreign(memory, monkeypatch):
    _, status, foreign = draw(memory, monkeypatch, _RANDOM=0.0)
    assert foreign.any()
    assert not foreign[:, :20].any()
    assert not foreign[:, 24:].any()
    assert (status[:, 20:24] == POSITIVE).equal(foreign[:, 20:24])
    assert set(status[:, [1, 5, 9]].unique().tolist()) == {INACTIVE, NEGATIVE}
    assert not (status[:, 10:20] != INACTIVE).any()


def test_attacks_are_cut_in_their_order(memory, monkeypatch):
    _, status, _ = draw(memory, monkeypatch, _RANDOM=0.0, _RIGHT_LOST=0.0)
    reached = (status[:, 20:24] == POSITIVE).sum(dim=1)
    assert set(reached.tolist()) == {0, 1, 2, 3, 4}
    whole = draw(memory, monkeypatch, _RANDOM=0.0, _WHOLE=0.0, _CLEAN=1.0)[2]
    assert not whole.any()


def test_random_attacks_may_lie_anywhere_free(memory, monkeypatch):
    _, status, foreign = draw(memory, monkeypatch, _RANDOM=1.0, _RIGHT_LOST=0.0)
    assert foreign[:, 10:20].any()
    assert (status[foreign] == NEGATIVE).any()
    assert not foreign[:, [1, 2, 5, 9]].any()
    assert int(foreign.sum(dim=1).max()) == STEPS


def test_a_positive_prompt_is_always_left(memory, monkeypatch):
    _, status, _ = draw(memory, monkeypatch, _RIGHT_LOST=1.0)
    assert (status == POSITIVE).any(dim=1).all()


def test_the_oldest_attacks_go_first_and_the_rest_comes_back(memory):
    memory.add(torch.arange(6, 10), torch.ones(4, NODES, dtype=torch.int8), torch.full((4, 2), -1))
    assert sorted(memory.arrays["rows"].tolist()) == list(range(2, 10))
    other = AttackMemory(8, NODES, STEPS)
    other.load_state_dict(memory.state_dict())
    ours, theirs = (m.sample(50, np.random.default_rng(3)) for m in (memory, other))
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))
    assert other.pos == memory.pos


def test_what_cannot_be_taken_up_is_refused(memory):
    with pytest.raises(PPDError, match="do not fit"):
        AttackMemory(3, NODES, STEPS).load_state_dict(memory.state_dict())
    with pytest.raises(PPDError, match="No attack"):
        AttackMemory(3, NODES, STEPS).sample(1, np.random.default_rng(0))


def test_gaps_in_an_attack_are_nothing(monkeypatch):
    memory = AttackMemory(4, NODES, 5)
    before = torch.zeros(4, NODES, dtype=torch.int8)
    before[:, 0] = POSITIVE
    memory.add(torch.arange(4), before, torch.tensor([[-1, 10, -1, NODES + 20, -1]] * 4))
    _, status, foreign = draw(memory, monkeypatch, _RANDOM=0.0)
    assert set(foreign.nonzero()[:, 1].tolist()) == {10, 20}
    both = foreign[:, 10] & foreign[:, 20]
    assert both.any()
    assert (status[both][:, 10] == POSITIVE).all()
    assert (status[both][:, 20] == NEGATIVE).all()


def test_an_attack_may_be_longer_than_there_are_nodes(monkeypatch):
    memory = AttackMemory(2, NODES, NODES + 7)
    before = torch.zeros(2, NODES, dtype=torch.int8)
    before[:, 0] = POSITIVE
    actions = torch.full((2, NODES + 7), -1)
    actions[:, : NODES - 1] = torch.arange(1, NODES)
    memory.add(torch.arange(2), before, actions)
    for share in (0.0, 1.0):
        assert draw(memory, monkeypatch, _RANDOM=share)[2].any()
