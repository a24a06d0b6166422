"""Games of two agents: phases, duels, passes and ends."""

import numpy as np
import pytest

from ppd_env import ppd_v0
from ppd_env.config import TwoAgentConfig
from ppd_env.envs.two_agents import ATTACKER, DEFENDER, TwoAgentGame
from ppd_env.errors import PPDError


@pytest.fixture
def make(tiny_kwargs):
    """A function that makes and begins a game."""

    def run(options=None, **kwargs):
        config = TwoAgentConfig.from_kwargs(attack_steps=3, defence_steps=4, **tiny_kwargs, **kwargs)
        game = TwoAgentGame(config)
        game.reset(np.random.default_rng(0), options)
        return game

    return run


def candidate(game, agent, which=0):
    return int(np.flatnonzero(game.mask(agent)[:-1])[which])


def passes(game, agent):
    return np.flatnonzero(game.mask(agent)).tolist() == [game.stop]


def test_phases_follow_each_other(make):
    game = make()
    for step in range(3):
        assert game.moving == (ATTACKER,)
        assert passes(game, DEFENDER)
        played = game.play({ATTACKER: candidate(game, ATTACKER, step)})
        assert not played.terminated
        assert not played.truncated
    assert game.moving == (DEFENDER,)
    assert passes(game, ATTACKER)
    for _ in range(3):
        assert not game.play({DEFENDER: candidate(game, DEFENDER)}).truncated
    played = game.play({DEFENDER: candidate(game, DEFENDER)})
    assert played.truncated
    assert not played.terminated


def test_stop_ends_a_phase_and_then_the_game(make):
    game = make()
    played = game.play({ATTACKER: game.stop})
    assert game.moving == (DEFENDER,)
    assert not played.terminated
    played = game.play({DEFENDER: game.stop, ATTACKER: game.stop})
    assert played.terminated
    assert not played.truncated


@pytest.mark.parametrize("schedule", ["phased", "duel"])
def test_rewards_are_zero_sum_and_telescope(make, schedule):
    game = make(schedule=schedule)
    total, over, rng = 0.0, False, np.random.default_rng(1)
    while not over:
        movers = [agent for agent in game.moving if not passes(game, agent)]
        played = game.play(
            {agent: int(rng.choice(np.flatnonzero(game.mask(agent)[:-1]))) for agent in movers}
        )
        assert played.rewards[ATTACKER] == -played.rewards[DEFENDER]
        total += played.rewards[DEFENDER]
        over = played.terminated or played.truncated
    assert total == pytest.approx(float(game.games.dice - game.games.initial_dice), abs=1e-6)
    assert game.games.dice != game.games.initial_dice


def test_own_phase_rewards_only_who_moves(make):
    game = make(reward_scope="own_phase")
    played = game.play({ATTACKER: candidate(game, ATTACKER)})
    assert played.rewards[DEFENDER] == 0.0
    assert played.rewards[ATTACKER] != 0.0


def test_a_duel_applies_both_moves_in_one_decode(make, monkeypatch):
    game = make(schedule="duel")
    before = game.games.status[0].clone()
    calls = []
    segment = game.games.simulator.segment
    monkeypatch.setattr(game.games.simulator, "segment", lambda *args: (calls.append(1), segment(*args))[1])
    attack, defence = candidate(game, ATTACKER), candidate(game, DEFENDER)
    game.play({ATTACKER: attack, DEFENDER: defence})
    after = game.games.status[0]
    assert (before[attack % 36], after[attack % 36]) == (0, 1)
    assert before[defence % 36] > 0
    assert after[defence % 36] == 0
    assert (before != after).sum() == 2
    assert len(calls) == 1


def test_a_stop_retires_in_a_duel_and_rewards_go_on(make):
    game = make(schedule="duel")
    game.play({ATTACKER: candidate(game, ATTACKER), DEFENDER: game.stop})
    assert passes(game, DEFENDER)
    assert not passes(game, ATTACKER)
    played = game.play({ATTACKER: candidate(game, ATTACKER), DEFENDER: game.stop})
    assert played.rewards[DEFENDER] == -played.rewards[ATTACKER]
    assert game.left == {ATTACKER: 1, DEFENDER: 3}
    assert game.play({ATTACKER: game.stop}).terminated


def test_a_forced_pass_does_not_retire(make):
    status = np.zeros(36, np.int8)
    status[0] = 1
    game = make({"prompts": status}, schedule="duel")
    assert passes(game, DEFENDER)
    game.play({ATTACKER: 5, DEFENDER: game.stop})
    assert np.flatnonzero(game.mask(DEFENDER)).tolist() == [0, 5, game.stop]


def test_who_used_up_its_budget_passes_while_the_other_goes_on(make):
    game = make(schedule="duel")
    for step in range(3):
        played = game.play({ATTACKER: candidate(game, ATTACKER), DEFENDER: candidate(game, DEFENDER)})
        assert not played.truncated, step
    assert passes(game, ATTACKER)
    assert not passes(game, DEFENDER)
    assert game.play({DEFENDER: candidate(game, DEFENDER)}).truncated


@pytest.mark.parametrize("schedule", ["phased", "duel"])
def test_illegal_moves(make, schedule):
    status = np.zeros(36, np.int8)
    status[:3] = 1
    game = make({"prompts": status}, schedule=schedule, invalid_action="penalty")
    played = game.play({ATTACKER: 0, DEFENDER: game.stop})
    assert played.invalid == {ATTACKER: True, DEFENDER: False}
    assert played.rewards[ATTACKER] == pytest.approx(-0.1)
    assert game.left[ATTACKER] == 2
    assert game.games.status[0].tolist() == status.tolist()
    game = make({"prompts": status}, schedule=schedule, invalid_action="raise")
    with pytest.raises(PPDError, match="0 of attacker_0"):
        game.play({ATTACKER: 0})
    with pytest.raises(PPDError, match=r"\[0, 72\], got 73 of attacker_0"):
        game.play({ATTACKER: 73})


def test_a_waiting_agents_move_is_illegal(make):
    game = make()
    before = game.games.status.clone()
    played = game.play({ATTACKER: game.stop, DEFENDER: int(np.flatnonzero(before[0] == 2)[0]) + 36})
    assert played.invalid[DEFENDER]
    assert game.games.status.equal(before)
    assert game.left[DEFENDER] == 4


def test_a_duel_seen_move_by_move_hides_the_pending_one(tiny_kwargs):
    env = ppd_v0.env(schedule="duel", **tiny_kwargs)
    env.reset(seed=0)
    assert env.agent_selection == ATTACKER
    before = env.observe(DEFENDER)["observation"]["status"]
    env.step(int(np.flatnonzero(env.observe(ATTACKER)["action_mask"])[0]))
    assert env.agent_selection == DEFENDER
    assert np.array_equal(env.observe(DEFENDER)["observation"]["status"], before)
    assert env.rewards == {ATTACKER: 0.0, DEFENDER: 0.0}
    env.step(int(np.flatnonzero(env.observe(DEFENDER)["action_mask"])[0]))
    assert (env.observe(DEFENDER)["observation"]["status"] != before).sum() == 2
    assert env.rewards[ATTACKER] == -env.rewards[DEFENDER]


def test_a_refused_duel_round_is_asked_for_anew(tiny_kwargs):
    env = ppd_v0.raw_env(schedule="duel", invalid_action="raise", **tiny_kwargs)
    env.reset(seed=0)
    attack = candidate(env.game, ATTACKER)
    env.step(attack)
    with pytest.raises(PPDError, match=f"{attack} of defender_0"):
        env.step(attack)
    assert env.agent_selection == ATTACKER
    left = dict(env.game.left)
    env.step(attack)
    env.step(candidate(env.game, DEFENDER))
    assert env.game.left == {agent: steps - 1 for agent, steps in left.items()}
    assert not passes(env.game, ATTACKER)


def test_a_duel_is_the_same_move_by_move_and_in_parallel(tiny_kwargs):
    aec, parallel = ppd_v0.env(schedule="duel", **tiny_kwargs), ppd_v0.parallel_env(**tiny_kwargs)
    aec.reset(seed=5)
    observations, _ = parallel.reset(seed=5)
    rng = np.random.default_rng(0)
    while parallel.agents:
        masks = {agent: observations[agent]["action_mask"] for agent in parallel.agents}
        actions = {agent: int(rng.choice(np.flatnonzero(mask))) for agent, mask in masks.items()}
        for agent in (ATTACKER, DEFENDER):
            aec.step(actions[agent])
        observations, rewards, terminations, truncations, _ = parallel.step(actions)
        assert aec.rewards == rewards
        assert (aec.terminations, aec.truncations) == (terminations, truncations)
        seen = observations[ATTACKER]["observation"]["status"]
        assert np.array_equal(aec.observe(ATTACKER)["observation"]["status"], seen)
