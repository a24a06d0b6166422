import pytest
import torch

from ppd_agents.dqn.suspicion import ENOUGH, removal_worth


def worth(chances, positive, present=None):
    """Return what the removal of prompts of these suspicions promises."""
    chances, positive = torch.tensor(chances), torch.tensor(positive)
    there = torch.ones_like(positive) if present is None else torch.tensor(present)
    return removal_worth(torch.logit(chances), positive, there)


def test_among_many_a_wrong_prompt_counts_as_much_as_a_right_one():
    chances = [0.9, 0.5, *[0.1] * 6]
    for sign in (True, False):
        found = worth(chances, [sign] * 8)
        assert torch.allclose(found, 2 * torch.tensor(chances) - 1, atol=1e-6)


def test_two_positive_prompts_that_contradict_each_other_stay():
    assert (worth([0.6, 0.7], [True, True]) < 0).all()
    assert (worth([0.6, 0.7], [False, False]) > 0).all()


def test_the_fewer_right_positive_prompts_are_left_the_more_one_is_missed():
    several = [worth([0.6] + [0.1] * others, [True] * (1 + others))[0].item() for others in range(6)]
    assert several == sorted(several)
    assert several[0] < 0 < several[-1]
    assert several[1] == pytest.approx(0.6 - 0.4 * ENOUGH / 0.9)


def test_what_is_gone_makes_up_for_nothing():
    chances, positive = [0.6, 0.1, 0.1, 0.1], [True] * 4
    assert worth(chances, positive)[0] > 0
    gone = worth(chances, positive, [True, True, False, False])
    assert gone[:2].tolist() == pytest.approx(worth(chances[:2], positive[:2]).tolist())
