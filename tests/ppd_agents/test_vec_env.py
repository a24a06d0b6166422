import numpy as np
import pytest
import torch
from small_learner import GAMES

from ppd_agents.dqn.potentials import AttackLeft
from ppd_agents.dqn.transition_store import pack_status
from ppd_agents.dqn.vec_env import GameVecEnv, Starts
from ppd_env.errors import PPDError
from ppd_env.game_batch import GameBatch


class FixedStarts:
    """Game i plays scene i, for i + 1 steps."""

    def __init__(self, simulator, attacking=True, steps=None):
        self.simulator, self.attacking, self.steps = simulator, attacking, steps
        self.calls = []

    def draw(self, count):
        self.calls.append(count)
        nodes = self.simulator.nodes
        status = torch.zeros((count, nodes), dtype=torch.int8)
        status[:, 5], status[:, 9], status[:, 12] = 1, 2, 1
        steps = torch.arange(count) + 1 if self.steps is None else torch.full((count,), self.steps)
        reference = status.clone()
        reference[:, 5] = 0  # node 5 was the attacker's
        return Starts(torch.arange(count), status, steps, torch.full((count,), self.attacking), reference)


def make(simulator, games=3, hold=False, allow_stop=True, reward=None, **options):
    starts = FixedStarts(simulator, **options)
    batch = GameBatch(simulator, games, allow_stop=allow_stop)
    env = GameVecEnv(batch, starts, hold=hold, feedback=True, **(reward or {}))
    return env, starts


def any_legal(observation):
    return observation["action_mask"].argmax(1)


def test_observations_fit_their_space(small_simulator):
    env, _ = make(small_simulator)
    observation = env.reset()
    for step in range(3):
        for game in range(3):
            assert env.observation_space.contains({k: v[game] for k, v in observation.items()}), step
        observation, *_ = env.step(any_legal(observation))


def test_a_game_out_of_steps_starts_anew_and_keeps_its_last_state(small_simulator):
    env, starts = make(small_simulator)
    first = env.reset()
    action = any_legal(first)
    observation, rewards, dones, infos = env.step(action)
    assert dones.tolist() == [True, False, False]
    assert infos[0]["TimeLimit.truncated"] is True
    assert infos[1]["TimeLimit.truncated"] is False
    assert starts.calls == [3, 1]
    last = infos[0]["terminal_observation"]
    assert last["status"][action[0]] == 1
    assert last["steps_left"] == 0
    assert (observation["status"][0] == first["status"][0]).all()
    assert infos[0]["episode"]["l"] == 1
    assert infos[0]["episode"]["r"] == pytest.approx(float(rewards[0]))
    assert "terminal_observation" not in infos[1]


def test_stop_ends_a_game_for_good(small_simulator):
    env, _ = make(small_simulator, steps=5)
    env.reset()
    _, rewards, dones, infos = env.step(np.full(3, 2 * small_simulator.nodes))
    assert dones.all()
    assert (rewards == 0).all()
    assert not any(info["TimeLimit.truncated"] for info in infos)


def test_rewards_add_up_to_the_change_of_dice(small_simulator):
    env, _ = make(small_simulator, steps=4, hold=True)
    observation = env.reset()
    total = np.zeros(3)
    for _ in range(4):
        observation, rewards, dones, _ = env.step(any_legal(observation))
        total += rewards
    assert dones.all()
    change = env.games.initial_dice - env.games.dice
    assert np.allclose(total, change.numpy(), atol=1e-6)
    assert np.abs(total).max() > 0


def test_held_games_wait_on_their_last_state(small_simulator):
    env, starts = make(small_simulator, hold=True)
    observation = env.reset()
    observation, _, dones, infos = env.step(any_legal(observation))
    assert dones.tolist() == [True, False, False]
    assert "held" not in infos[0]
    assert observation["action_mask"][0].nonzero()[0].tolist() == [2 * small_simulator.nodes]
    kept = observation["status"][0].copy()
    observation, rewards, dones, infos = env.step(any_legal(observation))
    assert infos[0] == {"held": True}
    assert dones.tolist() == [False, True, False]
    assert rewards[0] == 0
    assert (observation["status"][0] == kept).all()
    assert starts.calls == [3]
    assert env.reset()["action_mask"][0].sum() > 1


def test_branches_match_the_steps_they_foretell(small_simulator):
    env, _ = make(small_simulator, steps=9)
    observation = env.reset()
    actions = torch.tensor([[3, 70], [4, 71], [6, 72]])
    tried = env.branch(torch.arange(3), actions)
    after, rewards, _, _ = env.step(actions[:, 1].numpy())
    assert np.allclose(tried.reward[:, 1], rewards, atol=1e-6)
    assert np.array_equal(tried.status[:, 1], pack_status(torch.from_numpy(after["status"])).numpy())
    assert np.allclose(tried.feedback[:, 1] / 255, after["feedback"], atol=0.51 / 255)
    assert np.allclose(tried.predicted_iou[:, 1].clip(0, 1), after["predicted_iou"][:, 0])
    assert not np.array_equal(observation["status"], after["status"])


def test_undoing_the_attack_adds_to_the_reward_and_other_removals_cost(small_simulator):
    nodes = small_simulator.nodes
    plain, shaped = (
        make(small_simulator, steps=2, attacking=False, reward=reward)[0]
        for reward in ({}, {"potential": AttackLeft(0.25)})
    )
    for env in (plain, shaped):
        env.reset()
    tries = torch.tensor([[5, nodes + 9, 2 * nodes]]).expand(3, -1)  # the attacker's, an ideal one, STOP
    bonus = shaped.branch(torch.arange(3), tries).reward - plain.branch(torch.arange(3), tries).reward
    assert np.allclose(bonus, [[0.25, -0.25, 0]] * 3, atol=1e-6)
    actions = np.array([5, nodes + 9, 2 * nodes])
    bonus = shaped.step(actions)[1] - plain.step(actions)[1]
    assert np.allclose(bonus, [0.25, -0.25, 0], atol=1e-6)


def test_illegal_actions_are_refused(small_simulator):
    env, _ = make(small_simulator)
    env.reset()
    with pytest.raises(PPDError, match="Illegal"):
        env.step(np.full(3, 5))


def test_sb3_finds_the_masks(small_simulator):
    env, _ = make(small_simulator)
    env.reset()
    found = env.env_method("action_masks", indices=[0, 2])
    assert [f.shape for f in found] == [(2 * small_simulator.nodes + 1,)] * 2
    assert not found[0][5]
    assert found[0][6]
    with pytest.raises(PPDError, match="single games"):
        env.env_method("reset")
    with pytest.raises(PPDError, match="share"):
        env.set_attr("hold", True)


def test_only_what_the_memory_keeps_comes_to_the_host(small_simulator, make_model, monkeypatch):
    model = make_model("attacker", branches=3, on_device=True, allow_stop=False, hold=True, steps=3)
    sizes = []
    cpu = torch.Tensor.cpu

    def record(tensor, *args, **kwargs):
        sizes.append(tensor.numel() * tensor.element_size())
        return cpu(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "cpu", record)
    model.learn(GAMES * 3, log_interval=None, reset_num_timesteps=False)
    tried, packed = 3, 2 * small_simulator.nodes // 8
    assert model.replay_buffer.size() == GAMES * 3 * (1 + tried)
    assert packed * GAMES in sizes
    assert max(sizes) <= max(packed, 8) * GAMES * tried  # statuses of the tried actions, in bits
    per_step = sum(sizes) / 3 / GAMES
    assert per_step < (1 + tried) * (2 * packed + 32)  # two statuses, and scene, action, reward, done ...


def test_observations_on_the_device_are_those_on_the_host(small_simulator):
    there, here = (make(small_simulator, reward={"on_device": flag})[0] for flag in (True, False))
    seen, expected = there.reset(), here.reset()
    for _ in range(3):
        assert all(isinstance(values, torch.Tensor) for values in seen.values())
        assert all(np.array_equal(seen[name].numpy(), values) for name, values in expected.items())
        before = {name: values.clone() for name, values in seen.items()}
        following, *_ = there.step(any_legal(expected))
        assert all(torch.equal(values, before[name]) for name, values in seen.items())  # no later step shows
        seen, (expected, *_) = following, here.step(any_legal(expected))
