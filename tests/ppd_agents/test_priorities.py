import numpy as np
import pytest

from ppd_agents.dqn.priorities import beta_at, draw_proportionally, importance_weights, priority_of


def test_greater_errors_have_greater_priorities_and_none_has_none():
    found = priority_of(np.array([0.0, 0.1, 1.0]))
    assert 0 < found[0] < found[1] < found[2]
    assert found[2] / found[1] == pytest.approx(10**0.6, rel=0.02)


def test_draws_are_proportional_and_spread_evenly(rng):
    priorities = np.array([1.0, 0.0001, 4.0, 3.0], np.float32)
    chosen = draw_proportionally(priorities, 8000, rng)
    assert np.bincount(chosen, minlength=4) == pytest.approx([1000, 0, 4000, 3000], abs=3)
    one_each = draw_proportionally(np.ones(64, np.float32), 64, rng)
    assert one_each.tolist() == list(range(64))  # one from each of 64 equal shares


def test_the_last_place_is_never_passed():
    class Edge:
        def random(self, count):
            return np.ones(count)

    assert draw_proportionally(np.ones(5, np.float32), 3, Edge()).max() == 4


def test_weights_make_up_for_the_draw(rng):
    priorities = rng.random(50).astype(np.float32) + 0.1
    chosen = np.arange(50)
    full = importance_weights(priorities, chosen, 1.0)
    assert full * priorities == pytest.approx(np.full(50, priorities.min()), rel=1e-5)
    assert full.max() == 1
    assert importance_weights(priorities, chosen, 0.0) == pytest.approx(np.ones(50))
    assert full.dtype == np.float32


def test_beta_reaches_one_at_the_end():
    assert [beta_at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([0.4, 0.7, 1.0])
