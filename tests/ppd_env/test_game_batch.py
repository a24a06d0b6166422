"""Games played in batches."""

import pytest
import torch

from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.game_batch import INVALID_PENALTY, GameBatch
from ppd_env.simulator import Simulator, covered


def draw(games, seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(games.legal().float(), count, replacement=True, generator=generator)


@pytest.mark.parametrize("prompts_per_step", [1, 3])
@pytest.mark.parametrize("label_mode", ["free", "truth"])
def test_rewards_telescope(make_games, prompts_per_step, label_mode):
    games = make_games(prompts_per_step=prompts_per_step, label_mode=label_mode)
    total = torch.zeros(games.size)
    for step in range(6):
        total += games.step(draw(games, step)[:, 0]).reward
    change = games.dice - games.initial_dice
    torch.testing.assert_close(total, torch.where(games.attacking, -change, change), atol=1e-6, rtol=0)
    assert change.abs().max() > 0.05


@pytest.mark.parametrize("prompts_per_step", [1, 3])
def test_branches_foretell_steps(make_games, prompts_per_step):
    games = make_games(prompts_per_step=prompts_per_step)
    for step in range(4):
        actions = draw(games, step, count=5)
        before = {name: value.clone() for name, value in games.state_dict().items()}
        branches = games.branch(actions)
        for name, value in games.state_dict().items():
            assert torch.equal(value, before[name]), name
        for column in range(5):
            games.load_state_dict(before)
            result = games.step(actions[:, column])
            assert torch.equal(branches.reward[:, column], result.reward)
            assert torch.equal(branches.status[:, column], games.status)
            assert torch.equal(branches.terminated[:, column], result.terminated)
            picked = torch.arange(games.size) * 5 + column
            assert torch.equal(branches.segmentation.logits[picked], games.logits)


def test_one_step_is_one_decode_batch(make_games, tiny_simulator, monkeypatch):
    games = make_games()
    calls = []
    segment = tiny_simulator.segment
    monkeypatch.setattr(tiny_simulator, "segment", lambda *args: (calls.append(1), segment(*args))[1])
    games.step(draw(games)[:, 0])
    assert len(calls) == 1
    games.branch(draw(games, count=7))
    assert len(calls) == 2


def test_stopping_costs_nothing_and_decodes_nothing(make_games, tiny_simulator, monkeypatch):
    games = make_games()
    monkeypatch.setattr(tiny_simulator, "segment", lambda *args: pytest.fail("decoded"))
    result = games.step(torch.full((games.size,), 2 * games.nodes))
    assert result.terminated.all()
    assert not result.truncated.any()
    assert not result.reward.any()


def test_the_budget_truncates(make_games):
    games = make_games(steps=2, attacking=True)
    for last in (False, True):
        result = games.step(games.legal()[:, :-1].to(torch.int8).argmax(dim=1))
        assert (result.truncated == last).all()
        assert not result.terminated.any()


def test_nothing_left_terminates_before_the_budget_truncates(make_games):
    games = make_games(size=1, attacking=False)
    status = torch.zeros(1, games.nodes, dtype=torch.int8)
    status[0, :2] = 1
    games.begin(games.everyone(), torch.tensor([0]), status, torch.tensor([1]), torch.tensor([False]))
    result = games.step(torch.tensor([0]))
    assert result.terminated[0]
    assert not result.truncated[0]


def test_some_games_move_alone(make_games):
    games = make_games()
    before = games.status.clone()
    moving = torch.tensor([1, 4])
    actions = draw(games, 3)[moving, 0]
    result = games.step(actions, moving)
    assert result.reward.shape == (2,)
    assert games.steps_left.tolist() == [6, 5, 6, 6, 5, 6, 6, 6]
    assert torch.equal(games.status[[0, 2, 3, 5, 6, 7]], before[[0, 2, 3, 5, 6, 7]])


def test_illegal_actions(make_games):
    actions = torch.zeros(8, dtype=torch.int64)  # node 0 is active: no attack there
    games = make_games(attacking=True)
    before = games.dice.clone()
    result = games.step(actions)
    assert result.invalid.all()
    assert not result.reward.any()
    assert torch.equal(games.dice, before)
    assert (games.steps_left == 5).all()
    games = make_games(attacking=True, invalid_action="penalty")
    torch.testing.assert_close(games.step(actions).reward, torch.full((8,), -INVALID_PENALTY))
    games = make_games(attacking=True, invalid_action="raise")
    with pytest.raises(PPDError, match="Illegal action"):
        games.step(actions)
    assert (games.steps_left == 6).all()


def test_actions_outside_the_space_are_errors(make_games):
    games = make_games()
    with pytest.raises(PPDError, match=r"\[0, 72\]"):
        games.step(torch.full((8,), 73))


def test_skipping_changes_prompts_as_a_step_does(make_games):
    played, skipped = make_games(), make_games()
    for step in range(6):
        actions = draw(played, step)[:, 0]
        result = played.step(actions)
        over = skipped.skip(actions, skipped.everyone())
        assert torch.equal(over, result.terminated | result.truncated)
        assert torch.equal(played.status, skipped.status)
    assert torch.equal(skipped.dice, skipped.initial_dice)


def test_changed_marks_the_last_move(make_games):
    games = make_games(attacking=True)
    action = draw(games, 1)[:, 0]
    games.step(action)
    expected = torch.zeros_like(games.changed)
    moved = action < 2 * games.nodes
    expected[moved, action[moved] % games.nodes] = True
    assert torch.equal(games.changed, expected)


def test_the_mask_a_game_began_with_is_remembered(make_games):
    games = make_games(2)
    share = games.feedback()
    assert games.initial_mask.equal(covered(share))
    assert games.initial_mask.any()
    kept = games.initial_mask.clone()
    games.step(games.legal()[:, :-1].to(torch.int8).argmax(dim=1))
    assert games.initial_mask.equal(kept)
    games.load_state_dict({**games.state_dict(), "initial_mask": ~kept})
    assert games.initial_mask.equal(~kept)


def test_every_prompt_a_game_has_had_is_remembered(make_games):
    games = make_games(2, attacking=False)
    began = games.status.clone()
    assert games.seen.equal(began)
    first = games.legal()[:, :-1].to(torch.int8).argmax(dim=1)
    games.step(first)
    assert not games.status.equal(began)
    assert games.seen.equal(began)
    games.skip(games.legal()[:, :-1].to(torch.int8).argmax(dim=1), games.everyone())
    assert games.seen.equal(began)
    flipped = torch.where(began == POSITIVE, NEGATIVE, INACTIVE).to(torch.int8)
    games.place(games.everyone(), flipped)
    assert games.seen.equal(torch.where(flipped != INACTIVE, flipped, began))
    again = (games.rows.clone(), began, games.steps_total.clone(), games.attacking.clone())
    games.begin(games.everyone(), *again)
    assert games.seen.equal(began)


def test_a_small_object_covers_its_best_patch():
    share = torch.tensor([[0.0, 0.2, 0.1, 0.05], [0.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.4, 0.0]])
    assert covered(share).tolist() == [
        [False, True, True, False],
        [False, False, False, False],
        [True, True, False, False],
    ]


def test_legal_actions_are_computed_once_per_state(make_games, monkeypatch):
    games = make_games()
    calls, compute = [], GameBatch._legal
    monkeypatch.setattr(GameBatch, "_legal", lambda self, *given: calls.append(1) or compute(self, *given))
    first = games.legal()
    first[:] = False  # the caller's own
    assert torch.equal(games.legal(games.everyone()), games.legal())
    assert games.legal().any()
    assert len(calls) == 1
    games.step(games.legal().int().argmax(dim=1))
    games.legal()
    assert len(calls) == 2
    games.status[0, games.status[0] == 0] = 1
    assert torch.equal(games.legal(), compute(games, games.rows, games.status, games.attacking))
    assert len(calls) == 3


def test_other_prompts_are_decoded_in_the_same_batch(make_games, monkeypatch):
    games, alone = make_games(), make_games()
    actions = games.legal().int().argmax(dim=1)
    rows, status = torch.tensor([2, 0]), games.status[:2].clone()
    expected = games.simulator.segment(rows, status)
    batches, segment = [], Simulator.segment
    monkeypatch.setattr(Simulator, "segment", lambda s, *given: batches.append(1) or segment(s, *given))
    asked = []
    result, found = games.step_beside(actions, lambda ending: asked.append(ending) or (rows, status))
    assert len(batches) == 1
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.dice, expected.dice)
    plain = alone.step(actions)
    assert all(torch.equal(a, b) for a, b in zip(result, plain, strict=True))
    assert torch.equal(asked[0], plain.terminated | plain.truncated)
    assert torch.equal(games.status, alone.status)
    torch.testing.assert_close(games.logits, alone.logits)
