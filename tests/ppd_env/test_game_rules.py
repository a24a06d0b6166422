"""The rules, case by case."""

import pytest
import torch

from ppd_env.game import (
    NEGATIVE,
    POSITIVE,
    action_count,
    apply_actions,
    encode,
    legal_actions,
    node_of,
    only_stop,
    rewards,
    sign_of,
    stop_action,
)

ATTACK, DEFEND = torch.tensor([True]), torch.tensor([False])


def status(*values):
    return torch.tensor([values], dtype=torch.int8)


def legal_list(*args, **kwargs):
    return legal_actions(*args, **kwargs)[0].nonzero().flatten().tolist()


def play(state, action, attacking, **kwargs):
    legal = legal_actions(state, attacking)
    return apply_actions(state, torch.tensor([action]), attacking, legal, **kwargs)


def test_codes_round_trip():
    nodes = 5
    actions = torch.arange(action_count(nodes))
    assert sign_of(actions, nodes).tolist() == [POSITIVE] * 5 + [NEGATIVE] * 5 + [0]
    assert torch.equal(
        encode(sign_of(actions[:-1], nodes), node_of(actions[:-1], nodes), nodes), actions[:-1]
    )
    assert stop_action(nodes) == 10


def test_attacker_may_activate_inactive_nodes_with_either_sign():
    assert legal_list(status(0, 1, 2, 0), ATTACK) == [0, 3, 4, 7, 8]


def test_attacker_is_held_to_the_truth():
    truth = torch.tensor([[True, True, False, False]])
    assert legal_list(status(0, 1, 2, 0), ATTACK, truth=truth) == [0, 7, 8]


def test_defender_may_deactivate_active_prompts():
    assert legal_list(status(1, 1, 2, 0), DEFEND) == [0, 1, 6, 8]


def test_defender_keeps_the_last_positive():
    assert legal_list(status(1, 2, 2, 0), DEFEND) == [5, 6, 8]
    assert legal_list(status(1, 0, 0, 0), DEFEND) == [8]


def test_defender_keeps_the_last_prompt_where_there_is_no_positive():
    assert legal_list(status(0, 2, 2, 0), DEFEND) == [5, 6, 8]
    assert legal_list(status(0, 2, 0, 0), DEFEND) == [8]


def test_stop_can_be_kept_for_the_end():
    assert legal_list(status(1, 1, 0, 0), DEFEND, allow_stop=False) == [0, 1]
    assert legal_list(status(1, 0, 0, 0), DEFEND, allow_stop=False) == [8]


def test_only_stop():
    states = torch.cat([status(1, 0, 0, 0), status(1, 1, 0, 0)])
    assert only_stop(legal_actions(states, DEFEND.expand(2))).tolist() == [True, False]


def test_moves():
    attacked = play(status(0, 1, 0, 0), 6, ATTACK)
    assert attacked.status.tolist() == [[0, 1, 2, 0]]
    assert attacked.changed.tolist() == [[False, False, True, False]]
    assert not attacked.invalid[0]
    assert play(status(1, 1, 2, 0), 1, DEFEND).status.tolist() == [[1, 0, 2, 0]]


def test_stop_changes_nothing():
    move = play(status(0, 1, 0, 0), 8, ATTACK)
    assert move.stopped[0]
    assert not move.invalid[0]
    assert not move.changed.any()


@pytest.mark.parametrize(
    ("state", "action", "attacking"), [((1, 0), 0, ATTACK), ((1, 0), 0, DEFEND), ((1, 2), 1, DEFEND)]
)
def test_illegal_actions_change_nothing(state, action, attacking):
    move = play(status(*state), action, attacking)
    assert move.invalid[0]
    assert not move.stopped[0]
    assert move.status.tolist() == [list(state)]


def test_an_illegal_stop_does_not_stop():
    state = status(1, 1)
    move = apply_actions(state, torch.tensor([4]), DEFEND, legal_actions(state, DEFEND, allow_stop=False))
    assert move.invalid[0]
    assert not move.stopped[0]


def test_several_prompts_go_by_feature_distance():
    distance = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    move = play(status(0, 0, 0, 0), 0, ATTACK, prompts_per_step=3, feature_distance=distance)
    assert move.status.tolist() == [[1, 0, 1, 1]]


def test_several_prompts_skip_illegal_ones_and_other_signs():
    distance = torch.tensor([[0.0, 0.1, 0.2, 3.0]])
    move = play(status(2, 1, 0, 2), 4, DEFEND, prompts_per_step=2, feature_distance=distance)
    assert move.status.tolist() == [[0, 1, 0, 0]]


def test_several_prompts_stop_before_the_last_positive():
    distance = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    move = play(status(1, 1, 1, 2), 0, DEFEND, prompts_per_step=4, feature_distance=distance)
    assert move.status.tolist() == [[0, 0, 1, 2]]
    move = play(status(2, 2, 2, 0), 4, DEFEND, prompts_per_step=4, feature_distance=distance)
    assert move.status.tolist() == [[0, 0, 2, 0]]


def test_equally_near_prompts_go_by_index():
    distance = torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    move = play(status(0, 0, 0, 0), 2, ATTACK, prompts_per_step=2, feature_distance=distance)
    assert move.status.tolist() == [[1, 0, 1, 0]]


def test_an_illegal_action_takes_no_neighbours_along():
    distance = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    move = play(status(1, 0, 0, 0), 0, ATTACK, prompts_per_step=3, feature_distance=distance)
    assert move.invalid[0]
    assert not move.changed.any()


def test_several_prompts_need_distances():
    with pytest.raises(ValueError, match="feature_distance"):
        play(status(0, 0), 0, ATTACK, prompts_per_step=2)


def test_rewards_flip_for_the_attacker():
    before, after = torch.tensor([0.5, 0.5]), torch.tensor([0.7, 0.7])
    torch.testing.assert_close(rewards(before, after, torch.tensor([True, False])), torch.tensor([-0.2, 0.2]))
