import numpy as np
import pytest
import torch

from ppd_agents.dqn.transition_store import (
    Transitions,
    TransitionStore,
    pack_shares,
    pack_status,
    unpack_shares,
    unpack_status,
)
from ppd_env.errors import ConfigError, PPDError


def bits(rng, count, nodes):
    return pack_status(torch.from_numpy(rng.integers(0, 3, (count, nodes)).astype(np.int8))).numpy()


def transitions(rng, count, nodes=256, feedback=False, initial_mask=False):
    extras = {}
    if feedback:
        extras = {
            "feedback": rng.integers(0, 256, (count, nodes)).astype(np.uint8),
            "next_feedback": rng.integers(0, 256, (count, nodes)).astype(np.uint8),
            "iou": rng.random(count).astype(np.float32),
            "next_iou": rng.random(count).astype(np.float32),
        }
    if initial_mask:
        extras["initial_mask"] = rng.integers(0, 256, (count, -(-nodes // 8))).astype(np.uint8)
    return Transitions(
        rows=rng.integers(0, 1000, count),
        status=bits(rng, count, nodes),
        actions=rng.integers(0, 2 * nodes, count),
        rewards=rng.normal(size=count).astype(np.float32),
        dones=rng.random(count) < 0.3,
        next_status=bits(rng, count, nodes),
        **extras,
    )


@pytest.mark.parametrize("nodes", [1, 9, 256, 1600])
def test_packing_loses_nothing(nodes, rng):
    status = torch.from_numpy(rng.integers(0, 3, (7, 2, nodes)).astype(np.int8))
    packed = pack_status(status)
    assert packed.shape == (7, 2, 2, -(-nodes // 8))
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack_status(packed, nodes), status)


def test_shares_are_kept_to_the_nearest_255th(rng):
    shares = torch.from_numpy(rng.random((5, 40))).float()
    assert (unpack_shares(pack_shares(shares)) - shares).abs().max() <= 0.5 / 255 + 1e-6
    assert unpack_shares(pack_shares(torch.tensor([0.0, 1.0]))).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("feedback", [False, True])
def test_a_transition_takes_at_most_a_kilobyte(feedback, rng):
    store = TransitionStore(1000, 256, feedback, initial_mask=True, prioritised=True)
    assert sum(a.nbytes for a in store.arrays.values()) == store.bytes_per_transition * 1000
    assert store.bytes_per_transition <= (1024 if feedback else 192)
    assert not feedback or store.bytes_per_transition > 512
    store.add(transitions(rng, 1000, feedback=feedback, initial_mask=True))
    assert sum(a.nbytes for a in store.state_dict().values()) / 1000 <= 1024


def test_what_goes_in_comes_out(rng):
    store = TransitionStore(64, 256, feedback=True, initial_mask=True)
    given = transitions(rng, 40, feedback=True, initial_mask=True)._replace(rows=np.arange(40))
    store.add(given)
    drawn = store.sample(200, rng).transitions
    assert len(np.unique(drawn.rows)) > 30
    for name in Transitions._fields:
        assert np.array_equal(getattr(drawn, name), getattr(given, name)[drawn.rows]), name


def test_the_oldest_transitions_are_overwritten(rng):
    store = TransitionStore(10, 16)
    for number in range(5):
        store.add(transitions(rng, 4, 16)._replace(rows=np.full(4, number)))
    assert store.count == 10
    assert sorted(np.unique(store.sample(500, rng).transitions.rows)) == [2, 3, 4]


def add_runs(store, rng, lengths, first):
    """Add runs whose transitions carry the number of their run as scene and their place in it as action."""
    lengths = np.asarray(lengths)
    numbers = np.repeat(np.arange(first, first + len(lengths)), lengths)
    places = np.concatenate([np.arange(length) for length in lengths])
    given = transitions(rng, len(numbers), 16)._replace(rows=numbers, actions=places)
    store.add(given, lengths)


@pytest.mark.parametrize("prioritised", [False, True])
def test_every_draw_is_a_whole_run_and_every_state_as_likely_as_another(rng, prioritised):
    store, true = TransitionStore(50, 16, prioritised=prioritised), []
    for _ in range(9):
        lengths = rng.integers(1, 6, 4)
        add_runs(store, rng, lengths, len(true))
        true += lengths.tolist()
    drawn = store.sample(6000, rng)
    ends = drawn.lengths.cumsum()
    seen = drawn.transitions.rows[ends - 1]
    for number, begin, end in zip(seen, ends - drawn.lengths, ends, strict=True):
        assert (drawn.transitions.rows[begin:end] == number).all()
        assert drawn.transitions.actions[begin:end].tolist() == list(range(true[number]))
    # What is stored: the last runs that fit as a whole, each drawn about as often.
    whole = len(true) - int(np.searchsorted(np.cumsum(true[::-1]), 50, side="right"))
    assert sorted(set(seen)) == list(range(whole, len(true)))
    counts = np.bincount(seen)[whole:]
    assert abs(counts - counts.mean()).max() < 5 * counts.mean() ** 0.5


def play_games(rng, steps, games=3, nodes=20):
    """Random episodes: what each step stores, with every game's own returns kept by hand.

    Each step brings, per game, a played transition and up to two tried ones; an episode ends terminated, cut
    off, or not at all: its game is begun anew without a word.
    """
    state = {game: (int(rng.integers(2)), bits(rng, 1, nodes)[0]) for game in range(games)}
    chains, batches, number = [[] for _ in range(games)], [], 0
    for _ in range(steps):
        live = np.flatnonzero(rng.random(games) < 0.8)
        parts, lengths = [], []
        for game in live:
            row, now = state[game]
            count = 1 + int(rng.integers(3))
            given = transitions(rng, count, nodes)
            given = given._replace(
                rows=np.full(count, row),
                status=np.repeat(now[None], count, 0),
                actions=np.arange(number, number + count),
                dones=rng.random(count) < 0.2,
            )
            chains[game].append((number, given))
            number += count
            parts.append(given)
            lengths.append(count)
            fresh = given.dones[0] or rng.random() < 0.2
            state[game] = (
                (int(rng.integers(2)), bits(rng, 1, nodes)[0]) if fresh else (row, given.next_status[0])
            )
            if fresh:
                chains[game].append(None)
        if len(live):
            joined = [None if p[0] is None else np.concatenate(p) for p in zip(*parts, strict=True)]
            batches.append((Transitions(*joined), np.array(lengths), live))
    return chains, batches


def by_hand(chains, n_step, gamma):
    """Return {action number: (return, discount, done, next status)} of every transition ever stored."""
    wanted = {}
    for chain in chains:
        for place, link in enumerate(chain):
            if link is None:
                continue
            number, given = link
            for other in range(1, len(given.actions)):
                wanted[number + other] = (
                    given.rewards[other],
                    gamma,
                    given.dones[other],
                    given.next_status[other],
                )
            total, steps = 0.0, 0
            for later in chain[place : place + n_step]:
                if later is None:
                    break
                last = later[1]
                total += gamma**steps * last.rewards[0]
                steps += 1
                if last.dones[0]:
                    break
            wanted[number] = (total, gamma**steps, last.dones[0], last.next_status[0])
    return wanted


@pytest.mark.parametrize("n_step", [1, 2, 5])
def test_returns_are_those_counted_by_hand(rng, n_step):
    chains, batches = play_games(rng, 150)
    store = TransitionStore(500, 20, games=3)
    for batch, lengths, games in batches:
        store.add(batch, lengths, games)
    assert sum(len(batch.rows) for batch, _, _ in batches) > 600
    drawn = store.sample(2000, rng, n_step=n_step, gamma=0.7)
    wanted = by_hand(chains, n_step, 0.7)
    found = drawn.transitions
    assert len(np.unique(found.actions)) > 100
    totals, discounts, dones, after = map(
        np.array, zip(*[wanted[number] for number in found.actions], strict=True)
    )
    np.testing.assert_allclose(found.rewards, totals, atol=1e-5)
    np.testing.assert_allclose(drawn.discounts, discounts, rtol=1e-5)
    assert np.array_equal(found.dones, dones)
    assert np.array_equal(found.next_status, after)
    looked = np.rint(np.log(discounts) / np.log(0.7))
    assert sorted(set(looked)) == list(range(1, n_step + 1))


def chain(rng, path, dones=None):
    """Transitions of one scene along ``path``, (T + 1) packed statuses, with rewards 1, 10, 100, ..."""
    count = len(path) - 1
    return transitions(rng, count, 20)._replace(
        rows=np.full(count, 7),
        status=path[:-1],
        next_status=path[1:],
        actions=np.arange(count),
        rewards=10.0 ** np.arange(count, dtype=np.float32),
        dones=np.zeros(count, bool) if dones is None else np.array(dones),
    )


def pick(batch, *places):
    return Transitions(*(None if a is None else a[list(places)] for a in batch))


def returns(store, rng):
    drawn = store.sample(300, rng, n_step=9).transitions
    return {int(a): float(r) for a, r in zip(drawn.actions, drawn.rewards, strict=True)}


def test_a_return_ends_with_its_game_even_where_the_next_begins_in_the_same_state(rng):
    batch, game = chain(rng, bits(rng, 5, 20), [False, True, False, False]), np.array([0])
    store = TransitionStore(20, 20)
    for step in range(4):
        store.add(pick(batch, step), games=game)
    assert returns(store, rng) == {0: 11, 1: 10, 2: 1100, 3: 1000}


def test_what_took_a_slot_is_not_taken_for_what_lay_there(rng):
    batch = chain(rng, bits(rng, 3, 20))
    store = TransitionStore(2, 20, games=3)
    store.add(pick(batch, 0), games=np.array([0]))
    store.add(transitions(rng, 1, 20), games=np.array([1]))
    store.add(pick(batch, 0), games=np.array([2]))  # lies where game 0 left its last step
    store.add(pick(batch, 1), games=np.array([0]))
    assert returns(store, rng) == {0: 1, 1: 10}


def test_state_goes_into_another_store(rng):
    def make():
        return TransitionStore(100, 20, games=3, prioritised=True)

    first, second = make(), make()
    _, batches = play_games(rng, 40)
    for step, (batch, lengths, games) in enumerate(batches):
        if step == 35:
            second.load_state_dict({name: a.copy() for name, a in first.state_dict().items()})
        for store in (first, second) if step >= 35 else (first,):
            store.add(batch, lengths, games)
            drawn = store.sample(5, np.random.default_rng(step))
            store.reweigh(drawn, np.linspace(0, 1, len(drawn.discounts)))
    one, two = (s.sample(300, np.random.default_rng(1), n_step=3, gamma=0.5) for s in (first, second))
    assert np.array_equal(one.discounts, two.discounts)
    assert np.array_equal(one.weights, two.weights)
    for a, b in zip(one.transitions, two.transitions, strict=True):
        assert (a is None and b is None) or np.array_equal(a, b)
    for other in (
        TransitionStore(50, 20, games=3, prioritised=True),
        TransitionStore(100, 20, games=3),
        TransitionStore(100, 20, games=2, prioritised=True),
    ):
        with pytest.raises(PPDError, match="other settings"):
            other.load_state_dict(first.state_dict())


def test_states_are_drawn_by_the_mean_error_of_their_actions(rng):
    store = TransitionStore(100, 16, prioritised=True)
    lengths = np.array([3, 1, 2, 4])
    add_runs(store, rng, lengths, 0)
    everything = store.sample(200, rng, beta=0.5)
    assert (everything.weights == 1).all()  # nothing is known yet
    errors = np.array([0.1, -0.8, 0.3, 0.05])[everything.transitions.rows]
    swing = np.where(
        lengths[everything.transitions.rows] % 2, 1, 1 + (everything.transitions.actions % 2 - 0.5)
    )
    store.reweigh(everything, errors * swing)
    worth = (np.array([0.1, 0.8, 0.3, 0.05]) + 1e-3) ** 0.6
    drawn = store.sample(20_000, rng, beta=0.5)
    states = drawn.transitions.rows[drawn.lengths.cumsum() - 1]
    assert np.bincount(states) / 20_000 == pytest.approx(worth / worth.sum(), abs=0.002)
    expected = (4 * worth / worth.sum()) ** -0.5
    scaled = (expected / expected.max())[drawn.transitions.rows]
    np.testing.assert_allclose(drawn.weights, scaled, rtol=1e-4)
    add_runs(store, rng, [2], 4)  # as likely as the likeliest
    again = store.sample(1000, rng).transitions.rows
    assert (again == 4).sum() / 2 == pytest.approx((again == 1).sum(), rel=0.05)


def test_draws_come_from_the_generator_alone(rng):
    for prioritised in (False, True):
        store = TransitionStore(100, 16, prioritised=prioritised)
        store.add(transitions(rng, 60, 16))
        one, two, other = (store.sample(30, np.random.default_rng(seed)).starts for seed in (1, 1, 2))
        assert np.array_equal(one, two)
        assert not np.array_equal(one, other)


def test_misuse_is_refused(rng):
    with pytest.raises(ConfigError, match="at least 1"):
        TransitionStore(0, 16)
    with pytest.raises(PPDError, match="empty"):
        TransitionStore(10, 16).sample(4, rng)
    with pytest.raises(PPDError, match="do not fit"):
        TransitionStore(10, 16).add(transitions(rng, 11, 16))
    with pytest.raises(PPDError, match="feedback"):
        TransitionStore(10, 16, feedback=True).add(transitions(rng, 3, 16))


def test_drawing_looks_at_few_slots_and_finds_every_run(rng):
    store = TransitionStore(1000, 9)
    for _ in range(7):
        lengths = rng.integers(1, 5, 60)
        store.add(transitions(rng, lengths.sum(), nodes=9), lengths)
    begins = np.flatnonzero(store.arrays["lengths"])
    assert np.array_equal(store._nth_runs(np.arange(len(begins))), begins)
    assert store._runs.sum() == len(begins)
    copy = TransitionStore(1000, 9)
    copy.load_state_dict(store.state_dict())
    assert np.array_equal(copy._runs, store._runs)
    drawn, again = (one.sample(50, np.random.default_rng(1)) for one in (store, copy))
    assert np.array_equal(drawn.starts, begins[np.random.default_rng(1).integers(len(begins), size=50)])
    assert np.array_equal(drawn.starts, again.starts)


def test_a_transition_of_the_papers_grid_takes_at_most_a_kilobyte():
    assert TransitionStore(1000, 1600).bytes_per_transition <= 1024
