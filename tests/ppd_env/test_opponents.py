"""Random and oracle opponents."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ppd_env.errors import ConfigError
from ppd_env.opponents import OracleOpponent, RandomOpponent, load_opponent, play_phase


def rngs(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


@pytest.mark.parametrize("opponent", [RandomOpponent(), OracleOpponent(pool=5)])
def test_moves_are_legal_and_reproducible(make_games, opponent):
    games = make_games()
    for step in range(3):
        actions = opponent.act(games, games.everyone(), rngs(8, step))
        assert games.legal().gather(1, actions[:, None]).all()
        assert torch.equal(actions, opponent.act(games, games.everyone(), rngs(8, step)))
        games.step(actions)


def test_random_draws_evenly_among_candidates(make_games):
    games = make_games(size=1, attacking=False, density=0.2)
    candidates = games.legal()[0, :-1].nonzero().flatten()
    rng = np.random.default_rng(0)
    drawn = torch.cat(
        [RandomOpponent().act(games, games.everyone(), [rng]) for _ in range(60 * len(candidates))]
    )
    counts = torch.stack([(drawn == c).sum() for c in candidates])
    assert counts.sum() == len(drawn)
    assert counts.min() > 30
    assert counts.max() < 100


def test_the_tables_stream_of_draws_stays(make_games):
    """Committed results rest on it: ``Generator.choice`` among the legal candidates."""
    games = make_games()
    for step in range(4):
        actions = RandomOpponent(integers=True).act(games, games.everyone(), rngs(8, step))
        legal = games.legal()[:, :-1].numpy()
        chosen = [rng.choice(np.flatnonzero(row)) for row, rng in zip(legal, rngs(8, step), strict=True)]
        assert actions.tolist() == chosen
        games.step(actions)


def test_random_stops_only_when_nothing_else_is_legal(make_games):
    games = make_games(size=2, attacking=False)
    status = torch.zeros(2, games.nodes, dtype=torch.int8)
    status[:, 0] = 1
    status[1, 1] = 2
    games.begin(
        games.everyone(), torch.tensor([0, 0]), status, torch.tensor([3, 3]), torch.zeros(2, dtype=torch.bool)
    )
    actions = RandomOpponent().act(games, games.everyone(), rngs(2))
    assert actions.tolist() == [2 * games.nodes, games.nodes + 1]


def test_the_oracle_takes_the_best_step(make_games):
    games = make_games(size=4, attacking=False, density=0.15)
    actions = OracleOpponent().act(games, games.everyone(), rngs(4))
    every = torch.arange(2 * games.nodes).expand(4, -1)
    reward = games.branch(every).reward.masked_fill(~games.legal()[:, :-1], -torch.inf)
    best = reward.max(dim=1).values
    taken = games.branch(actions[:, None]).reward[:, 0]
    assert torch.equal(taken, best.clamp(min=0))
    assert (best > 0).any()


def test_the_attacking_oracle_beats_chance(make_games):
    falls = {}
    for name, opponent in (("oracle", OracleOpponent(pool=12)), ("random", RandomOpponent())):
        games = make_games(attacking=True, steps=4)
        for step in range(4):
            games.step(opponent.act(games, games.everyone(), rngs(8, step)))
        falls[name] = float((games.initial_dice - games.dice).mean())
    assert falls["oracle"] > falls["random"] + 0.05


def test_the_oracle_stops_when_every_step_costs_it(make_games, monkeypatch):
    games = make_games(size=2, attacking=False)
    stop = 2 * games.nodes

    def branch(actions, which):
        reward = torch.full(actions.shape, -0.1)
        reward[1, 0] = 0.0
        return SimpleNamespace(reward=reward)

    monkeypatch.setattr(games, "branch", branch)
    actions = OracleOpponent().act(games, games.everyone(), rngs(2))
    assert (actions == stop).tolist() == [True, False]
    assert (OracleOpponent(idle=False).act(games, games.everyone(), rngs(2)) == stop).all()
    games.allow_stop = False
    assert (OracleOpponent().act(games, games.everyone(), rngs(2)) != stop).all()


@pytest.mark.parametrize("opponent", [RandomOpponent(), OracleOpponent(pool=3)])
def test_a_phase_uses_the_whole_budget(make_games, opponent):
    games = make_games(attacking=True, steps=4, density=0.05)
    before = (games.status > 0).sum(dim=1)
    play_phase(games, torch.tensor([1, 3, 5]), opponent, rngs(3))
    added = (games.status > 0).sum(dim=1) - before
    assert added[[0, 2, 4, 6, 7]].tolist() == [0] * 5
    if isinstance(opponent, RandomOpponent):
        assert added[[1, 3, 5]].tolist() == [4] * 3


def make_for_test(path="none"):
    opponent = RandomOpponent()
    opponent.path = path
    return opponent


def test_loading():
    assert isinstance(load_opponent("random"), RandomOpponent)
    assert load_opponent("oracle?pool=7").pool == 7
    assert load_opponent("oracle") is load_opponent("oracle")
    assert load_opponent(f"{__name__}:make_for_test?path=here").path == "here"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nobody", "known ones: random, oracle"),
        ("oracle?pool=0", "at least 1"),
        ("random?pool=3", "unknown key"),
        ("no_such_module:act", "cannot be imported"),
        ("math:no_such_name", "cannot be imported"),
        ("collections:OrderedDict", "has no act"),
        ("ppd_env.opponents:OracleOpponent?pol=3", "cannot be made.*unexpected keyword argument 'pol'"),
    ],
)
def test_loading_what_is_not_there(uri, message):
    with pytest.raises(ConfigError, match=message):
        load_opponent(uri)
