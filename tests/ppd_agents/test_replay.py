import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppd_agents.dqn.replay import SceneReplayBuffer
from ppd_agents.dqn.transition_store import Transitions, pack_status
from ppd_env.errors import ConfigError
from ppd_env.game.actions import legal_actions


def statuses(rng, count, nodes=16):
    return rng.integers(0, 3, (count, nodes)).astype(np.int8)


def transitions(rng, count, **given):
    """Random transitions; ``status`` and ``next_status`` are given unpacked."""
    random = {
        "rows": rng.integers(0, 10, count),
        "status": statuses(rng, count),
        "actions": rng.integers(0, 32, count),
        "rewards": rng.normal(size=count).astype(np.float32),
        "dones": rng.random(count) < 0.3,
        "next_status": statuses(rng, count),
    } | given
    for name in ("status", "next_status"):
        random[name] = pack_status(torch.from_numpy(random[name])).numpy()
    return Transitions(**random)


def sb3_buffer(rng, nodes=16, **options):
    space = spaces.Dict(
        {
            "scene": spaces.Box(0, 9, (1,), np.int64),
            "status": spaces.Box(0, 2, (nodes,), np.int8),
            "action_mask": spaces.Box(0, 1, (2 * nodes + 1,), np.int8),
        }
    )
    return SceneReplayBuffer(
        100, space, spaces.Discrete(2 * nodes + 1), "cpu", 3, **{"attacking": False, "rng": rng} | options
    )


def test_the_buffer_behind_the_hook_keeps_true_ends_and_skips_waiting_games(rng):
    buffer = sb3_buffer(rng)
    given = transitions(rng, 3)
    before = {"scene": np.array([[0], [1], [2]]), "status": statuses(rng, 3)}
    after = {"scene": np.array([[0], [1], [2]]), "status": statuses(rng, 3)}
    infos = [{"TimeLimit.truncated": True}, {"TimeLimit.truncated": False}, {"held": True}]
    buffer.add(before, after, given.actions, given.rewards, np.array([True, True, False]), infos)
    drawn = buffer.sample(64)
    rows = drawn.observations["scene"].numpy()
    assert set(rows) == {0, 1}
    assert np.array_equal(drawn.dones[:, 0].numpy(), rows == 1)
    assert np.array_equal(drawn.actions[:, 0].numpy(), given.actions[rows])
    assert np.array_equal(drawn.next_observations["status"].numpy(), after["status"][rows])
    assert np.array_equal(drawn.observations["status"].numpy(), before["status"][rows])


@pytest.mark.parametrize("attacking", [False, True])
def test_samples_say_what_is_legal_afterwards(attacking, rng):
    truth = torch.from_numpy(rng.random((10, 16)) < 0.5) if attacking else None
    buffer = sb3_buffer(rng, attacking=attacking, truth=truth)
    buffer.store.add(transitions(rng, 20))
    following = buffer.sample(30).next_observations
    mover = torch.full((30,), attacking)
    shown = truth[following["scene"]] if attacking else None
    assert torch.equal(following["action_mask"], legal_actions(following["status"], mover, truth=shown))


def test_it_needs_the_compact_observation(rng):
    with pytest.raises(ConfigError, match="scene"):
        SceneReplayBuffer(
            10,
            spaces.Dict({"status": spaces.Box(0, 2, (4,), np.int8)}),
            spaces.Discrete(9),
            attacking=True,
            rng=rng,
        )


def step_of(rng, status, after, rewards):
    """What SB3 hands over for one step of three games on scenes 0, 1 and 2."""
    scene = np.array([[0], [1], [2]])
    observations = {"scene": scene, "status": status}, {"scene": scene, "status": after}
    return *observations, rng.integers(0, 32, 3), rewards.astype(np.float32), np.zeros(3, bool), [{}] * 3


def test_returns_look_ahead_along_the_games_and_tried_actions_do_not(rng):
    buffer = sb3_buffer(rng, n_step=2, gamma=0.5, tried=1)
    path = [statuses(rng, 3) for _ in range(3)]
    rewards = rng.normal(size=(2, 3))
    for step in range(2):
        if step == 0:
            tried = transitions(rng, 1, rows=np.array([1]), status=path[0][1:2], dones=np.array([False]))
            buffer.hold(np.array([1]), tried)
        buffer.add(*step_of(rng, path[step], path[step + 1], rewards[step]))
    drawn = buffer.sample(400)
    scene = drawn.observations["scene"].numpy()
    late = (drawn.observations["status"].numpy() == path[1][scene]).all(1)
    other = (drawn.rewards[:, 0].numpy() == tried.rewards[0]) & ~late
    early = ~late & ~other
    assert min(late.sum(), other.sum(), early.sum()) > 5
    sums = rewards[0] + 0.5 * rewards[1]
    assert drawn.rewards[:, 0].numpy()[early] == pytest.approx(sums[scene[early]], abs=1e-6)
    assert drawn.rewards[:, 0].numpy()[late] == pytest.approx(rewards[1][scene[late]], abs=1e-6)
    assert (drawn.discounts[:, 0].numpy() == np.where(early, 0.25, 0.5)).all()
    ahead = drawn.next_observations["status"].numpy()
    assert np.array_equal(ahead[early | late], path[2][scene[early | late]])


def test_errors_become_priorities_and_weights(rng):
    buffer = sb3_buffer(rng, prioritised=True)
    buffer.store.add(transitions(rng, 10, rows=np.arange(10)))
    first = buffer.sample(200)
    assert (first.weights == 1).all()
    large = first.observations["scene"][:, None] == 4
    buffer.reweigh(first, torch.where(large, -2.0, 0.01))
    drawn = buffer.sample(1000, beta=1.0)
    often = drawn.observations["scene"] == 4
    assert often.float().mean() > 0.5
    assert drawn.weights[often].max() < drawn.weights[~often].min() == 1
    assert drawn.weights.shape == drawn.rewards.shape
    plain = sb3_buffer(rng)
    plain.store.add(transitions(rng, 10))
    drawn = plain.sample(20)
    assert drawn.weights is None
    plain.reweigh(drawn, torch.ones(20, 1))  # nothing to set


def test_it_looks_at_least_one_step_ahead(rng):
    with pytest.raises(ConfigError, match="n_step"):
        sb3_buffer(rng, n_step=0)
