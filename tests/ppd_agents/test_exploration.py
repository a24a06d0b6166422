import numpy as np
import pytest
import torch

from ppd_agents.dqn.exploration import (
    EpsilonSchedule,
    draw_branches,
    draw_legal,
    epsilon_greedy,
    mask_values,
    masked_argmax,
)
from ppd_env.errors import ConfigError, PPDError


def test_epsilon_falls_linearly_and_stays():
    schedule = EpsilonSchedule(10, 1.0, 0.1)
    seen = []
    for _ in range(13):
        seen.append(schedule.value)
        schedule.advance()
    assert seen[:11] == pytest.approx([1 - 0.09 * i for i in range(11)])
    assert seen[11:] == pytest.approx([0.1, 0.1])
    with pytest.raises(ConfigError):
        EpsilonSchedule(0)
    with pytest.raises(ConfigError):
        EpsilonSchedule(5, 0.1, 0.9)


def masks(rng, batch=2000, actions=9):
    drawn = torch.from_numpy(rng.random((batch, actions)) < 0.4)
    drawn[:, 3] = True
    return drawn


def test_random_draws_are_legal_and_even(rng):
    some = masks(rng)
    assert some.gather(1, draw_legal(some, rng)[:, None]).all()
    same = torch.zeros((3000, 6), dtype=torch.bool)
    same[:, [1, 4]] = True
    counts = torch.bincount(draw_legal(same, rng), minlength=6)
    assert counts[[0, 2, 3, 5]].sum() == 0
    assert abs(int(counts[1]) - 1500) < 150


def test_all_zero_masks_are_refused(rng):
    some = masks(rng, 5)
    some[2] = False
    with pytest.raises(PPDError, match=r"\[2\]"):
        draw_legal(some, rng)


def test_each_game_has_its_own_coin(rng):
    some = torch.ones((2000, 5), dtype=torch.bool)
    greedy = torch.full((2000,), 4)
    mixed = epsilon_greedy(greedy, some, 0.5, rng)
    kept = (mixed == 4).float().mean()
    assert 0.5 < kept < 0.7  # half the coins, and a fifth of the others by chance
    assert (epsilon_greedy(greedy, some, 0.0, rng) == 4).all()


def test_exploration_is_repeatable():
    some = torch.ones((50, 5), dtype=torch.bool)
    one, two = (draw_legal(some, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one, two)


def test_masked_values_stay_finite():
    values = torch.tensor([[1.0, 5.0, -3.0]])
    some = torch.tensor([[True, False, True]])
    filled = mask_values(values, some)
    assert torch.isfinite(filled).all()
    assert masked_argmax(values, some).item() == 0


def test_branches_are_legal_different_and_partly_the_best(rng):
    some = masks(rng, 300, 21)
    values = torch.from_numpy(rng.normal(size=(300, 21)))
    actions, useful = draw_branches(values, some, 6, 0.5, rng)
    candidates = some.clone()
    candidates[:, -1] = False
    assert torch.equal(useful.sum(1), candidates.sum(1).clamp(max=6))
    for row in range(300):
        chosen = actions[row][useful[row]]
        assert len(chosen.unique()) == len(chosen)
        assert candidates[row, chosen].all()
        wanted = min(3, int(candidates[row].sum()))
        best = mask_values(values, candidates)[row].topk(wanted).indices
        assert set(best.tolist()) <= set(chosen.tolist())
    assert (actions[~useful] == 20).all()


def test_branches_without_values_are_even(rng):
    some = torch.ones((3000, 11), dtype=torch.bool)
    actions, _ = draw_branches(torch.arange(11.0).expand(3000, 11), some, 2, 0.0, rng)
    counts = torch.bincount(actions.flatten(), minlength=11)
    assert counts[-1] == 0
    assert (counts[:-1] - 600).abs().max() < 110
