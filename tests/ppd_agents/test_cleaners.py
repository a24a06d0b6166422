from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ppd_agents.evaluation import cleaners as module
from ppd_agents.evaluation.cleaners import MOST_PER_SIGN, cleaners
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.prompting.ideal import ideal_prompts, usual_count
from ppd_env.scenes.patches import patch_centres
from ppd_env.simulator import Segmentation

GRID = 8
KNOWN = cleaners("jittered")


class World:
    """One scene with made-up features; its predicted IoU is 1 minus a fine for each active node."""

    def __init__(self, features=None, fine=None, grid=GRID):
        nodes = grid * grid
        features = torch.zeros(nodes, 2) if features is None else features
        self.bank = SimpleNamespace(grid=grid, features=features[None], positions=patch_centres(grid))
        self.fine = torch.zeros(nodes) if fine is None else fine
        self.decoded = 0

    def segment(self, rows, status):
        self.decoded += len(status)
        predicted = 1 - (status != INACTIVE).float() @ self.fine
        return Segmentation(predicted, predicted, torch.zeros(len(status), 2, 2))


def prompts(positive, negative, grid=GRID):
    status = torch.zeros((1, grid * grid), dtype=torch.int8)
    status[0, list(positive)] = POSITIVE
    status[0, list(negative)] = NEGATIVE
    return status


def clean(name, world, status, budget=99, seed=0):
    rngs = [np.random.default_rng([seed, game]) for game in range(len(status))]
    return KNOWN[name](world, torch.zeros(len(status), dtype=torch.int64), status, budget, rngs)


def gone(before, after):
    return sorted((before != after)[0].nonzero().flatten().tolist())


def scattered(batch, rng):
    """Random prompts on random features; some scenes have one positive prompt or none.

    The fines are whole 1024ths: their sums are exact, so that no machine's rounding decides who is worst.
    """
    fines = torch.from_numpy(rng.permutation(GRID * GRID) + 1).float() / 1024
    world = World(torch.from_numpy(rng.normal(size=(GRID * GRID, 4))).float(), fines)
    status = torch.from_numpy(rng.choice([0, 1, 2], (batch, GRID * GRID), p=[0.4, 0.3, 0.3]).astype(np.int8))
    status[0][status[0] == POSITIVE] = NEGATIVE
    status[1][status[1] == POSITIVE] = INACTIVE
    status[1, 5] = POSITIVE
    status[2] = INACTIVE
    status[3] = INACTIVE
    status[3, 7] = NEGATIVE
    return world, status


@pytest.mark.parametrize("name", KNOWN)
def test_cleaners_only_take_away_and_keep_to_the_rules(name, rng):
    world, status = scattered(8, rng)
    for budget in (0, 3, 99):
        before = status.clone()
        after = clean(name, world, status, budget)
        assert torch.equal(status, before)
        removed = (after != status).sum(1)
        assert (after[after != status] == INACTIVE).all()
        assert (removed <= budget).all()
        assert ((after == POSITIVE).any(1) == (status == POSITIVE).any(1)).all()
        assert ((after != INACTIVE).any(1) == (status != INACTIVE).any(1)).all()
    assert removed.max() > 3


@pytest.mark.parametrize("name", KNOWN)
def test_a_scene_is_cleaned_alike_alone_and_among_others(name, rng):
    world, status = scattered(6, rng)
    together = clean(name, world, status, 4)
    generators = [np.random.default_rng([0, 4])]
    alone = KNOWN[name](world, torch.zeros(1, dtype=torch.int64), status[4:5], 4, generators)
    assert torch.equal(together[4:5], alone)


def test_subsample_leaves_the_cap_of_each_sign():
    status = prompts(range(30), range(30, 42))
    after = clean("subsample", World(), status)
    assert (after == POSITIVE).sum() == MOST_PER_SIGN
    assert (after == NEGATIVE).sum() == 12
    assert not torch.equal(after, clean("subsample", World(), status, seed=1))


def test_outlier_finds_the_prompt_that_looks_like_no_other_of_its_sign():
    features = torch.zeros(GRID * GRID, 2)
    features[:, 1] = torch.linspace(0, 0.1, GRID * GRID)
    features[11] = torch.tensor([3.0, 0])
    features[40] = torch.tensor([9.0, 0])
    status = prompts([*range(2, 9), 11], [*range(32, 39), 40])
    world = World(features)
    assert gone(status, clean("outlier", world, status, 1)) == [40]
    assert gone(status, clean("outlier", world, status)) == [11, 40]


def test_signs_are_spread_differently_without_an_outlier():
    features = torch.zeros(GRID * GRID, 2)
    features[:8, 0] = torch.linspace(0, 20, 8)
    features[8:, 0] = torch.linspace(0, 1, GRID * GRID - 8)
    status = prompts(range(8), range(8, 30))
    assert gone(status, clean("outlier", World(features), status)) == []


def test_neighbours_outvote_a_prompt_of_the_wrong_sign():
    features = torch.zeros(GRID * GRID, 2)
    features[:32] = torch.tensor([5.0, 0])
    features[:, 1] = torch.linspace(0, 0.1, GRID * GRID)
    status = prompts([1, 2, 3, 4, 50], [40, 41, 42, 43, 44, 6])
    assert gone(status, clean("neighbours", World(features), status)) == [6, 50]


def test_a_minority_of_neighbours_removes_nothing():
    features = torch.full((GRID * GRID, 2), 50.0)
    features[:6] = torch.tensor([[0.0, 0], [1, 0], [2, 0], [3.2, 0], [4.2, 0], [5.2, 0]])
    status = prompts([0, 1, 2], [3, 4, 5])
    assert gone(status, clean("neighbours", World(features), status)) == []


def test_leave_one_out_takes_the_worst_first_in_one_pass():
    fine = torch.zeros(GRID * GRID)
    fine[3], fine[9], fine[20] = 0.2, 0.1, -0.3
    status = prompts([1, 3, 20], [9, 30])
    world = World(fine=fine)
    assert gone(status, clean("leave_one_out", world, status, 1)) == [3]
    world.decoded = 0
    assert gone(status, clean("leave_one_out", world, status)) == [3, 9]
    assert world.decoded == 6


def test_lattice_finds_stride_and_offset():
    grid = 12
    on = [row * grid + column for row in (1, 5, 9) for column in (2, 6, 10)]
    status = prompts(on[:4], [*on[5:], 0, 27], grid)
    world = World(grid=grid)
    assert gone(status, clean("lattice", world, status)) == [0, 27]


def test_lattice_keeps_the_published_layout_whole():
    grid = 16
    truth = np.zeros(grid * grid, bool)
    truth[100:160] = True
    ideal = torch.from_numpy(ideal_prompts(truth, 120, np.random.default_rng(0), "lattice"))[None]
    attacked = ideal.clone()
    attacked[0, [3, 77, 200]] = NEGATIVE
    assert torch.equal(clean("lattice", World(grid=grid), attacked), ideal)


def test_count_thins_the_densest_place():
    usual = round(usual_count(GRID, "jittered"))
    assert usual == 5
    spread, crowd = [0, 7, 28, 56], [54, 62, 63]
    status = prompts(spread, crowd)
    after = clean("count", World(), status)
    assert (after != INACTIVE).sum() == usual
    assert set(gone(status, after)) < set(crowd)


@pytest.mark.parametrize("layout", ["jittered", "lattice"])
def test_the_usual_count_is_the_mean_of_what_is_drawn(layout, rng):
    truth = np.ones(256, bool)
    drawn = [(ideal_prompts(truth, 0, rng, layout) > 0).sum() for _ in range(800)]
    assert usual_count(16, layout) == pytest.approx(np.mean(drawn), rel=0.05)


def test_recorded_settings_name_the_constants(monkeypatch):
    monkeypatch.setattr(module, "OUTLIER_Z", 7.5)
    assert module.cleaner_settings()["outlier"] == {"z": 7.5}
