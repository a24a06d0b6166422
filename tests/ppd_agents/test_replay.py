import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppd_agents.dqn.replay import SceneReplayBuffer, Transitions, TransitionStore, pack_status, unpack_status
from ppd_env.errors import ConfigError, PPDError
from ppd_env.game.actions import legal_actions


def transitions(rng, count, nodes=256, feedback=False):
    status = rng.integers(0, 3, (count, nodes)).astype(np.int8)
    after = rng.integers(0, 3, (count, nodes)).astype(np.int8)
    extras = {}
    if feedback:
        extras = {
            "feedback": rng.random((count, nodes)).astype(np.float32),
            "next_feedback": rng.random((count, nodes)).astype(np.float32),
            "iou": rng.random(count).astype(np.float32),
            "next_iou": rng.random(count).astype(np.float32),
        }
    return Transitions(
        rows=rng.integers(0, 1000, count),
        status=status,
        actions=rng.integers(0, 2 * nodes, count),
        rewards=rng.normal(size=count).astype(np.float32),
        dones=rng.random(count) < 0.3,
        next_status=after,
        **extras,
    )


@pytest.mark.parametrize("nodes", [9, 256, 1600])
def test_packing_loses_nothing(nodes, rng):
    status = rng.integers(0, 3, (7, nodes)).astype(np.int8)
    assert np.array_equal(unpack_status(pack_status(status), nodes), status)


@pytest.mark.parametrize("feedback", [False, True])
def test_a_transition_takes_at_most_a_kilobyte(feedback, rng):
    store = TransitionStore(1000, 256, feedback)
    assert sum(a.nbytes for a in store.arrays.values()) == store.bytes_per_transition * 1000
    assert store.bytes_per_transition <= 1024
    assert not feedback or store.bytes_per_transition > 512
    store.add(transitions(rng, 1000, feedback=feedback))
    assert sum(a.nbytes for a in store.state_dict().values()) / 1000 <= 1024


def test_what_goes_in_comes_out(rng):
    store = TransitionStore(64, 256, feedback=True)
    given = transitions(rng, 40, feedback=True)
    given = given._replace(rows=np.arange(40))
    store.add(given)
    drawn = store.sample(200, rng)
    assert len(np.unique(drawn.rows)) > 30
    for name in ("status", "actions", "rewards", "dones", "next_status"):
        assert np.array_equal(getattr(drawn, name), getattr(given, name)[drawn.rows]), name
    for name in ("feedback", "next_feedback", "iou", "next_iou"):
        assert np.allclose(getattr(drawn, name), getattr(given, name)[drawn.rows], atol=0.5 / 255 + 1e-6), (
            name
        )


def test_the_oldest_transitions_are_overwritten(rng):
    store = TransitionStore(10, 16)
    for number in range(5):
        store.add(transitions(rng, 4, 16)._replace(rows=np.full(4, number)))
    assert store.count == 10
    assert sorted(np.unique(store.sample(500, rng).rows)) == [2, 3, 4]


def test_state_goes_into_another_store(rng):
    first, second = TransitionStore(10, 16), TransitionStore(10, 16)
    for _ in range(3):
        first.add(transitions(rng, 4, 16))
    second.load_state_dict(first.state_dict())
    more = transitions(rng, 4, 16)
    for store in (first, second):
        store.add(more)
    one, two = (s.sample(50, np.random.default_rng(1)) for s in (first, second))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True) if a is not None)
    with pytest.raises(PPDError, match="other settings"):
        TransitionStore(5, 16).load_state_dict(first.state_dict())


def test_misuse_is_refused(rng):
    with pytest.raises(PPDError, match="empty"):
        TransitionStore(10, 16).sample(4, rng)
    with pytest.raises(PPDError, match="do not fit"):
        TransitionStore(10, 16).add(transitions(rng, 11, 16))
    with pytest.raises(PPDError, match="feedback"):
        TransitionStore(10, 16, feedback=True).add(transitions(rng, 3, 16))


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
    given = transitions(rng, 3, 16)
    before = {"scene": np.array([[0], [1], [2]]), "status": given.status}
    after = {"scene": np.array([[0], [1], [2]]), "status": given.next_status}
    infos = [{"TimeLimit.truncated": True}, {"TimeLimit.truncated": False}, {"held": True}]
    buffer.add(before, after, given.actions, given.rewards, np.array([True, True, False]), infos)
    drawn = buffer.sample(64)
    rows = drawn.observations["scene"].numpy()
    assert set(rows) == {0, 1}
    assert np.array_equal(drawn.dones[:, 0].numpy(), rows == 1)
    assert np.array_equal(drawn.actions[:, 0].numpy(), given.actions[rows])
    assert np.array_equal(drawn.next_observations["status"].numpy(), given.next_status[rows])


@pytest.mark.parametrize("attacking", [False, True])
def test_samples_say_what_is_legal_afterwards(attacking, rng):
    truth = torch.from_numpy(rng.random((10, 16)) < 0.5) if attacking else None
    buffer = sb3_buffer(rng, attacking=attacking, truth=truth)
    given = transitions(rng, 20, 16)._replace(rows=rng.integers(0, 10, 20))
    buffer.store.add(given)
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
