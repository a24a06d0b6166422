import numpy as np
import pytest
import torch
from small_learner import GAMES

from ppd_env.errors import PPDError


@pytest.mark.parametrize("role", ["attacker", "defender"])
def test_branches_are_stored_with_what_they_would_bring(make_model, role):
    model = make_model(role, branches=5, steps=3, hold=True, allow_stop=False, learning_starts=10**6)
    model.learn(GAMES * 3, log_interval=None)
    store = model.replay_buffer.store
    most = GAMES * 3 * 6
    # A defender with few prompts left has fewer than five further removals to try.
    assert store.count == most if role == "attacker" else most / 2 < store.count <= most
    games = model.env.games
    simulator = games.simulator
    drawn = model.replay_buffer.sample(40)
    rows = drawn.observations["scene"]
    status, after = (seen["status"] for seen in (drawn.observations, drawn.next_observations))
    dice = [simulator.segment(rows, given).dice for given in (status, after)]
    sign = -1 if role == "attacker" else 1
    torch.testing.assert_close(drawn.rewards[:, 0], sign * (dice[1] - dice[0]), atol=1e-6, rtol=0)
    assert ((status != after).sum(1) == 1).all()


def test_branching_changes_nothing_in_the_games(make_model):
    model = make_model("attacker", branches=5)
    before = model.env.games.status.clone()
    model._sample_action(learning_starts=0, n_envs=GAMES)
    assert torch.equal(model.env.games.status, before)
    assert model.replay_buffer.size() == 0  # they wait for the action that is played


def test_the_actions_of_a_state_lie_side_by_side(make_model):
    model = make_model("attacker", branches=5, steps=4, hold=True, allow_stop=False)
    model.learn(GAMES * 3, log_interval=None)
    buffer = model.replay_buffer
    assert buffer.size() == GAMES * 3 * 6
    stored = buffer.store.state_dict()
    status = stored["status"].reshape(-1, 6, *stored["status"].shape[1:])
    assert (status == status[:, :1]).all()
    assert len(np.unique(stored["actions"][:6])) == 6
    drawn = buffer.sample(24).observations
    assert len(drawn["status"]) == len(buffer.sample(29).rewards) == 24  # whole runs, no more than fit
    for run in range(0, 24, 6):
        assert (drawn["status"][run : run + 6] == drawn["status"][run]).all()
        assert (drawn["scene"][run : run + 6] == drawn["scene"][run]).all()


def test_warm_up_tries_actions_evenly(make_model):
    model = make_model("attacker", branches=8, branch_greedy=1.0, learning_starts=10**6)
    seen = []
    for _ in range(30):
        model._sample_action(learning_starts=10**6, n_envs=GAMES)
        seen.append(model.replay_buffer._held[1].actions)
    actions = np.concatenate(seen)
    assert len(np.unique(actions)) > 80  # of 128; the lowest numbers would be about 10
    assert 50 < actions.mean() < 78


def test_branching_needs_games_that_can_be_tried(make_model):
    model = make_model(branches=2)
    model.env = None
    with pytest.raises(PPDError, match="GameVecEnv"):
        model._sample_action(learning_starts=0, n_envs=GAMES)
