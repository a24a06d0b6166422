import numpy as np
import pytest
import torch

from ppd_agents.dqn import attacks
from ppd_agents.dqn.attacks import AttackMemory
from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE

NODES, STEPS = 25, 4
TRUTH = torch.zeros(10, NODES, dtype=torch.bool)
TRUTH[:, [0, 2, *range(12, 24)]] = True


@pytest.fixture
def memory():
    """Return 6 attacks of 4 positive prompts each, on nodes 20..23, from 3 negatives and a positive."""
    kept = AttackMemory(8, TRUTH, STEPS)
    before = torch.zeros(6, NODES, dtype=torch.int8)
    before[:, [1, 5, 9]], before[:, 2] = NEGATIVE, POSITIVE
    kept.add(torch.arange(6), before, torch.arange(20, 24).repeat(6, 1))
    return kept


def draw(memory, monkeypatch, size=400, **shares):
    """Draw states of the learned attack alone, but for what ``shares`` say."""
    for name, value in {"_RANDOM": 0.0, "_TURNED": 0.0, **shares}.items():
        monkeypatch.setattr(attacks, name, value)
    return memory.sample(size, np.random.default_rng(0))


def test_all_prompts_of_an_attack_and_no_others_are_wrong(memory, monkeypatch):
    _, status, wrong = draw(memory, monkeypatch)
    assert wrong.any()
    assert not wrong[:, :20].any()
    assert not wrong[:, 24:].any()
    assert (status[:, 20:24] == POSITIVE).equal(wrong[:, 20:24])
    assert set(status[:, [1, 5, 9]].unique().tolist()) == {INACTIVE, NEGATIVE}
    assert not (status[:, 10:20] != INACTIVE).any()


def test_attacks_are_cut_in_their_order(memory, monkeypatch):
    _, status, _ = draw(memory, monkeypatch, _RIGHT_LOST=0.0)
    reached = (status[:, 20:24] == POSITIVE).sum(dim=1)
    assert set(reached.tolist()) == {0, 1, 2, 3, 4}
    whole = draw(memory, monkeypatch, _WHOLE=0.0, _CLEAN=1.0)[2]
    assert not whole.any()


def test_random_prompts_lie_anywhere_free_and_are_wrong_by_their_sign(memory, monkeypatch):
    rows, status, wrong = draw(memory, monkeypatch, _RANDOM=1.0, _RIGHT_LOST=0.0)
    free = torch.ones(NODES, dtype=torch.bool)
    free[[1, 2, 5, 9]] = False
    assert not wrong[:, ~free].any()
    added = status[:, free] != INACTIVE
    assert added[:, 8:14].any()
    assert int(added.sum(dim=1).max()) == STEPS
    false = (status[:, free] == POSITIVE) != TRUTH[rows][:, free]
    assert torch.equal(wrong[:, free], added & false)
    assert (added & ~false).any()


def test_turned_signs_are_wrong_and_nothing_is_added(memory, monkeypatch):
    _, status, wrong = draw(memory, monkeypatch, _TURNED=1.0, _RIGHT_LOST=0.0)
    before = torch.zeros(NODES, dtype=torch.int8)
    before[[1, 5, 9]], before[2] = NEGATIVE, POSITIVE
    assert torch.equal(status != INACTIVE, (before != INACTIVE).expand_as(status))
    assert torch.equal(wrong, (status != INACTIVE) & (status != before))
    assert 0.15 < wrong[:, before != INACTIVE].float().mean() < 0.35


def test_the_last_positive_prompt_is_not_lost(memory, monkeypatch):
    _, status, _ = draw(memory, monkeypatch, _RANDOM=0.5, _RIGHT_LOST=1.0)
    assert (status == POSITIVE).any(dim=1).all()


def test_the_oldest_attacks_go_first_and_the_rest_comes_back(memory):
    memory.add(torch.arange(6, 10), torch.ones(4, NODES, dtype=torch.int8), torch.full((4, 2), -1))
    assert sorted(memory.arrays["rows"].tolist()) == list(range(2, 10))
    other = AttackMemory(8, TRUTH, STEPS)
    other.load_state_dict(memory.state_dict())
    ours, theirs = (m.sample(50, np.random.default_rng(3)) for m in (memory, other))
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))
    assert other.pos == memory.pos


def test_what_cannot_be_taken_up_is_refused(memory):
    with pytest.raises(PPDError, match="do not fit"):
        AttackMemory(3, TRUTH, STEPS).load_state_dict(memory.state_dict())
    with pytest.raises(PPDError, match="No attack"):
        AttackMemory(3, TRUTH, STEPS).sample(1, np.random.default_rng(0))


def test_gaps_in_an_attack_are_nothing(monkeypatch):
    memory = AttackMemory(4, TRUTH, 5)
    before = torch.zeros(4, NODES, dtype=torch.int8)
    before[:, 0] = POSITIVE
    memory.add(torch.arange(4), before, torch.tensor([[-1, 10, -1, NODES + 20, -1]] * 4))
    _, status, wrong = draw(memory, monkeypatch)
    assert set(wrong.nonzero()[:, 1].tolist()) == {10, 20}
    both = wrong[:, 10] & wrong[:, 20]
    assert both.any()
    assert (status[both][:, 10] == POSITIVE).all()
    assert (status[both][:, 20] == NEGATIVE).all()


def test_an_attack_may_be_longer_than_there_are_nodes(monkeypatch):
    memory = AttackMemory(2, TRUTH, NODES + 7)
    before = torch.zeros(2, NODES, dtype=torch.int8)
    before[:, 0] = POSITIVE
    actions = torch.full((2, NODES + 7), -1)
    actions[:, : NODES - 1] = torch.arange(1, NODES)
    memory.add(torch.arange(2), before, actions)
    for share in (0.0, 1.0):
        assert draw(memory, monkeypatch, _RANDOM=share)[2].any()
