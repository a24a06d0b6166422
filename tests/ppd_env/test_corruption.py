"""Prompts gone wrong by a known share."""

from itertools import pairwise

import numpy as np
import pytest

from ppd_env.errors import ConfigError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.prompting import CORRUPTIONS, corrupt
from ppd_env.prompting.corruption import JITTER_REACH

GRID = 10
STATUS = np.zeros(GRID * GRID, np.int8)
STATUS[::5] = POSITIVE
STATUS[3::10] = NEGATIVE
COUNT = int((STATUS > 0).sum())


def gone_wrong(kind, share, seed=0, status=STATUS):
    return corrupt(kind, status, share, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", sorted(CORRUPTIONS))
def test_a_share_goes_wrong_and_the_given_prompts_stay_as_they_are(kind):
    before = STATUS.copy()
    assert np.array_equal(gone_wrong(kind, 0.0), STATUS)
    some = gone_wrong(kind, 0.4)
    assert some.dtype == np.int8
    assert np.array_equal(STATUS, before)
    assert np.array_equal(some, gone_wrong(kind, 0.4))
    assert not np.array_equal(some, gone_wrong(kind, 0.4, seed=1))
    touched = (some != STATUS).sum()
    assert touched == round(0.4 * COUNT) * (2 if kind == "jitter" else 1)


@pytest.mark.parametrize("kind", ["dropped", "spurious", "wrong_sign"])
def test_larger_shares_go_on_from_smaller_ones(kind):
    wrong = [set(np.flatnonzero(gone_wrong(kind, share) != STATUS)) for share in (0.1, 0.3, 0.7, 1.0)]
    assert all(small < large for small, large in pairwise(wrong))


def test_jittered_prompts_that_moved_stay_where_they_went():
    few, many = gone_wrong("jitter", 0.2), gone_wrong("jitter", 0.5)
    arrived = np.flatnonzero((few != INACTIVE) & (STATUS == INACTIVE))
    assert len(arrived) == round(0.2 * COUNT)
    assert np.array_equal(many[arrived], few[arrived])


def test_wrong_signs():
    every = gone_wrong("wrong_sign", 1.0)
    assert np.array_equal(every == POSITIVE, STATUS == NEGATIVE)
    assert np.array_equal(every == NEGATIVE, STATUS == POSITIVE)


def test_jitter_moves_a_prompt_a_little_and_keeps_its_sign():
    for seed in range(30):
        alone = np.zeros(GRID * GRID, np.int8)
        alone[57] = NEGATIVE
        moved = gone_wrong("jitter", 1.0, seed, alone)
        (node,) = np.flatnonzero(moved)
        assert moved[node] == NEGATIVE
        assert node != 57
        assert max(abs(node // GRID - 5), abs(node % GRID - 7)) <= JITTER_REACH
    counts = np.bincount(gone_wrong("jitter", 1.0), minlength=3)
    assert counts.tolist() == np.bincount(STATUS, minlength=3).tolist()


def test_where_nothing_is_free_jittered_prompts_stay():
    full = np.full(16, POSITIVE, np.int8)
    assert np.array_equal(gone_wrong("jitter", 1.0, 0, full), full)
    assert np.array_equal(gone_wrong("spurious", 1.0, 0, full), full)


def test_spurious_prompts_come_with_both_signs_and_leave_the_others():
    more = gone_wrong("spurious", 1.0)
    assert np.array_equal(more[STATUS > 0], STATUS[STATUS > 0])
    assert (more > 0).sum() == 2 * COUNT
    assert set(more[(STATUS == 0) & (more > 0)]) == {POSITIVE, NEGATIVE}


def test_dropped_prompts_are_gone():
    assert (gone_wrong("dropped", 0.5) > 0).sum() == COUNT - round(0.5 * COUNT)
    assert not gone_wrong("dropped", 1.0).any()


def test_unknown_kinds_and_impossible_shares_are_errors():
    with pytest.raises(ConfigError, match=r"'blur'.*dropped, jitter, spurious, wrong_sign"):
        gone_wrong("blur", 0.1)
    for share in (-0.1, 1.1):
        with pytest.raises(ConfigError, match=r"\[0, 1\]"):
            gone_wrong("dropped", share)
