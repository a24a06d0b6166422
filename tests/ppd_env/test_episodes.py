"""How episodes start."""

import numpy as np
import pytest
import torch

from ppd_env.config import EnvConfig
from ppd_env.envs.single_role import open_games
from ppd_env.episodes import EpisodeStarter, given_prompts
from ppd_env.errors import PPDError
from ppd_env.opponents import OracleOpponent, RandomOpponent


@pytest.fixture
def start(tiny_kwargs):
    """A function that starts games and returns them with their starter and budgets."""

    def run(options=None, seed=0, size=6, attacking=False, opponent=None, **kwargs):
        config = EnvConfig.from_kwargs(**tiny_kwargs, **kwargs)
        games = open_games(config, size)
        starter = EpisodeStarter(config, games, attacking=attacking, opponent=opponent or RandomOpponent())
        rngs = [np.random.default_rng([seed, i]) for i in range(size)]
        budgets = starter.start(games.everyone(), rngs, options)
        return games, starter, budgets

    return run


def test_starts_depend_on_the_generator_alone(start):
    first, _, _ = start(seed=3)
    second, _, _ = start(seed=3)
    other, _, _ = start(seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.status, other.status)
    assert len(set(start(size=20)[0].rows.tolist())) == 4


def test_ideal_starts_agree_with_the_truth(start):
    games, starter, _ = start(start="ideal")
    truth = games.simulator.bank.truth[games.rows]
    assert truth[games.status == 1].all()
    assert not truth[games.status == 2].any()
    assert starter.ideal_dice.isnan().all()


@pytest.mark.parametrize("opponent", [RandomOpponent(), OracleOpponent(pool=4)])
def test_attacked_starts_add_the_opponents_prompts(start, opponent):
    ideal, _, _ = start(start="ideal", attack_steps=5)
    games, starter, _ = start(attack_steps=5, defence_steps=5, opponent=opponent)
    kept = ideal.status > 0
    assert torch.equal(games.status[kept], ideal.status[kept])
    added = ((games.status > 0) & ~kept).sum(dim=1)
    assert (added <= 5).all()
    assert added.sum() >= 20
    torch.testing.assert_close(starter.ideal_dice, ideal.dice)
    fresh = games.simulator.segment(games.rows, games.status)
    assert torch.equal(games.dice, fresh.dice)
    assert torch.equal(games.initial_dice, fresh.dice)
    assert torch.equal(games.logits, fresh.logits)
    assert (games.steps_left == 5).all()
    assert not games.attacking.any()


class Onlooker(RandomOpponent):
    """Plays at random, and notes which mask it was shown before its moves."""

    looks_once = True

    def __init__(self):
        super().__init__()
        self.shown = []

    def act(self, games, which, rngs):
        self.shown.append(games.initial_mask[which].clone())
        return super().act(games, which, rngs)


def test_an_opponent_that_looks_once_sees_the_mask_before_its_attack(start, decodes):
    ideal, _, _ = start(start="ideal", attack_steps=3)
    assert ideal.initial_mask.any(dim=1).all()
    plain, kept, _ = start(attack_steps=3)
    decodes.clear()
    opponent = Onlooker()
    games, starter, _ = start(attack_steps=3, opponent=opponent)
    assert all(torch.equal(shown, ideal.initial_mask) for shown in opponent.shown)
    # It costs no further prompt set: the prompts before the attack are decoded ahead of those after it.
    assert decodes == [6, 6]
    torch.testing.assert_close(starter.ideal_dice, kept.ideal_dice)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, games.state_dict()[name])


def test_one_draw_serves_equal_budgets(start):
    _, _, (attack, defence) = start(attack_steps=[2, 9], defence_steps=[2, 9], size=20)
    assert torch.equal(attack, defence)
    assert len(set(attack.tolist())) > 3
    assert attack.min() >= 2
    assert attack.max() <= 9
    _, _, (attack, defence) = start(attack_steps=[2, 9], defence_steps=[1, 50], size=20)
    assert not torch.equal(attack, defence)


def test_other_starts(start):
    noise, _, _ = start(start="noise")
    assert (noise.status == 1).any(dim=1).all()
    matching, _, _ = start(start="matching")
    # The made-up scenes share their colours, so matching finds the object.
    assert (matching.status > 0).any(dim=1).all()
    assert matching.dice.mean() > 0.5


def test_options_fix_what_they_name(start):
    games, _, budgets = start({"scene": 2, "steps": 3, "start": "ideal"})
    assert games.rows.tolist() == [2] * 6
    assert games.steps_total.tolist() == budgets[0].tolist() == [3] * 6
    status = np.zeros(36, np.int8)
    status[4], status[9] = 1, 2
    games, _, _ = start({"prompts": status})
    assert torch.equal(games.status, torch.from_numpy(status).expand(6, -1))
    attacked, starter, _ = start({"prompts": status, "start": "ideal+attack", "steps": 2})
    assert ((attacked.status > 0).sum(dim=1) == 4).all()
    assert not starter.ideal_dice.isnan().any()


def test_unknown_options_warn(start):
    with pytest.warns(UserWarning, match="'speed'.*known ones: scene"):
        start({"speed": 9})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scene": 4}, r"\[0, 3\]"),
        ({"scene": "tiny-1"}, "scene must be an integer; got 'tiny-1'"),
        ({"steps": 2.5}, "steps must be an integer"),
        ({"start": "empty"}, "start must be one of"),
        ({"steps": 0}, "at least 1"),
        ({"prompts": [1, 2]}, "36 statuses"),
        ({"prompts": np.full(36, 3)}, "36 statuses"),
        ({"prompts": {"points": [[1, 1]]}}, "'points' and 'labels'"),
        ({"prompts": {"points": [[1, 1]], "labels": [2]}}, "1 positive or 0 negative"),
        ({"scene": 1, "prompts": {"points": [[64, 1]], "labels": [1]}}, "outside the 64 x 64 image"),
    ],
)
def test_impossible_options_are_errors(start, options, message):
    with pytest.raises(PPDError, match=message):
        start(options)


def test_points_move_to_their_patches(tiny_simulator):
    bank = tiny_simulator.bank
    prompts = {"points": [[0, 0], [59.9, 39.9], [25, 1], [26, 2]], "labels": [1, 0, 1, 0]}
    status = given_prompts(prompts, bank, 0)
    assert {int(node): int(status[node]) for node in np.flatnonzero(status)} == {0: 1, 35: 2, 2: 2}
    edge = np.nextafter(60.0, 0)
    status = given_prompts({"points": [[edge, 1]], "labels": [1]}, bank, 0)
    assert np.flatnonzero(status).tolist() == [5]
