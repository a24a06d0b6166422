"""What must hold for the rules whatever the state."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ppd_env.game import (
    INACTIVE,
    NEGATIVE,
    POSITIVE,
    action_count,
    apply_actions,
    legal_actions,
    node_of,
    only_stop,
    sign_of,
    stop_action,
)
from ppd_env.prompting import ideal_prompts

quick = settings(deadline=None, max_examples=80)


@st.composite
def states(draw):
    """A batch of statuses with roles, and truth or None."""
    nodes, games = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    status = draw(arrays.arrays(np.int8, (games, nodes), elements=st.integers(0, 2)))
    attacking = draw(arrays.arrays(np.bool_, (games,)))
    truth = draw(st.none() | arrays.arrays(np.bool_, (games, nodes)))
    tensors = torch.from_numpy(status), torch.from_numpy(attacking)
    return *tensors, None if truth is None else torch.from_numpy(truth)


@st.composite
def moves(draw):
    """A state with one action per game, legal or not, and neighbours to take along."""
    status, attacking, truth = draw(states())
    games, nodes = status.shape
    allow_stop, count = draw(st.booleans()), draw(st.integers(1, 4))
    actions = draw(arrays.arrays(np.int64, (games,), elements=st.integers(0, 2 * nodes)))
    distance = draw(arrays.arrays(np.float32, (games, nodes), elements=st.floats(0, 4, width=32)))
    legal = legal_actions(status, attacking, truth=truth, allow_stop=allow_stop)
    actions = torch.from_numpy(actions)
    move = apply_actions(
        status,
        actions,
        attacking,
        legal,
        prompts_per_step=count,
        feature_distance=torch.from_numpy(distance),
    )
    return status, attacking, truth, actions, legal, count, move


@quick
@given(states(), st.booleans())
def test_masks_say_what_the_rules_say(state, allow_stop):
    status, attacking, truth = state
    legal = legal_actions(status, attacking, truth=truth, allow_stop=allow_stop)
    nodes = status.shape[1]
    for game, row in enumerate(status.tolist()):
        expected = []
        for sign in (POSITIVE, NEGATIVE):
            for node, value in enumerate(row):
                if attacking[game]:
                    agrees = truth is None or bool(truth[game, node]) == (sign == POSITIVE)
                    expected.append(value == INACTIVE and agrees)
                else:
                    rest = [v for i, v in enumerate(row) if i != node and v != INACTIVE]
                    keeps = POSITIVE in rest or (POSITIVE not in row and rest != [])
                    expected.append(value == sign and keeps)
        expected.append(allow_stop or not any(expected))
        assert legal[game].tolist() == expected
    assert legal.shape == (len(status), action_count(nodes))
    assert legal.any(dim=1).all()
    assert torch.equal(only_stop(legal), legal[:, :-1].sum(dim=1) == 0)


@quick
@given(moves())
def test_a_move_does_what_it_says_and_no_more(played):
    status, attacking, _, actions, legal, count, move = played
    nodes = status.shape[1]
    assert torch.equal(move.invalid, ~legal.gather(1, actions[:, None]).squeeze(1))
    assert torch.equal(move.stopped, (actions == stop_action(nodes)) & ~move.invalid)
    assert torch.equal(move.changed, move.status != status)
    touched = move.changed.sum(dim=1)
    for game in range(len(status)):
        if move.invalid[game] or move.stopped[game]:
            assert touched[game] == 0
            continue
        assert 1 <= touched[game] <= count
        node, sign = int(node_of(actions, nodes)[game]), int(sign_of(actions, nodes)[game])
        assert move.changed[game, node]
        before, after = status[game][move.changed[game]], move.status[game][move.changed[game]]
        expected = (INACTIVE, sign) if attacking[game] else (sign, INACTIVE)
        assert set(zip(before.tolist(), after.tolist(), strict=True)) == {expected}
        codes = move.changed[game].nonzero().flatten() + (nodes if sign == NEGATIVE else 0)
        assert legal[game, codes].all()


@quick
@given(moves())
def test_a_defence_never_takes_the_last_positive_nor_the_last_prompt(played):
    status, attacking, _, _, _, _, move = played
    for game in range(len(status)):
        if not attacking[game] and (status[game] == POSITIVE).any():
            assert (move.status[game] == POSITIVE).any()
        if (status[game] != INACTIVE).any():
            assert (move.status[game] != INACTIVE).any()


@quick
@given(moves())
def test_several_prompts_are_the_nearest_that_may_go(played):
    status, attacking, _, actions, legal, count, move = played
    nodes = status.shape[1]
    for game in range(len(status)):
        if not move.changed[game].any():
            continue
        negative = bool(actions[game] >= nodes)
        candidates = int(legal[game, nodes:-1].sum() if negative else legal[game, :nodes].sum())
        room = candidates
        if not attacking[game]:
            positives = int((status[game] == POSITIVE).sum())
            room = candidates - 1 if (not negative or positives == 0) else candidates
        assert int(move.changed[game].sum()) == min(count, room)


@quick
@given(states(), st.randoms(use_true_random=False))
def test_games_in_a_batch_do_not_touch_each_other(state, random):
    status, attacking, truth = state
    legal = legal_actions(status, attacking, truth=truth)
    actions = torch.tensor([random.choice(row.nonzero().flatten().tolist()) for row in legal])
    together = apply_actions(status, actions, attacking, legal)
    for game in range(len(status)):
        one = slice(game, game + 1)
        alone_legal = legal_actions(status[one], attacking[one], truth=None if truth is None else truth[one])
        alone = apply_actions(status[one], actions[one], attacking[one], alone_legal)
        for left, right in zip(together, alone, strict=True):
            assert torch.equal(left[one], right)


@quick
@given(
    st.integers(3, 12).flatmap(lambda g: arrays.arrays(np.bool_, (g * g,))),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["jittered", "lattice"]),
)
def test_ideal_prompts_never_lie(truth, seed, layout):
    peak = int(truth.argmax())
    status = ideal_prompts(truth, peak, np.random.default_rng(seed), layout)
    assert (status == POSITIVE).any()
    assert not truth[status == NEGATIVE].any()
    wrong = np.flatnonzero((status == POSITIVE) & ~truth)
    assert wrong.tolist() in ([], [peak])
    again = ideal_prompts(truth, peak, np.random.default_rng(seed), layout)
    assert np.array_equal(status, again)
