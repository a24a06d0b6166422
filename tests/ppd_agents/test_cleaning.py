"""In which order a defender removes prompts, what it sees on the way and when it stops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from colour_agent import Colour, agent

from ppd_agents.cleaning import clean_nodes
from ppd_agents.defender import Defender
from ppd_agents.dqn.agent import GreedyAgent
from ppd_agents.dqn.q_network import GraphQNetwork
from ppd_env.game_batch import GameBatch
from ppd_env.prompting.pair import as_points


def test_both_signs_in_one_patch_are_judged_one_after_the_other(defender, image):
    bright = defender.refine(image, [(40, 3), (57, 1), (58, 2), (2, 2)], [1, 1, 0, 0])
    assert bright.kept.tolist() == [0, 1, 3]
    dark = defender.refine(image, [(40, 3), (1, 1), (2, 2)], [1, 1, 0])
    assert dark.kept.tolist() == [0, 2]


def test_reasons_know_the_prompts_that_wait_for_the_second_pass(defender, image):
    found = defender.refine(image, [(57, 1), (1, 1), (2, 2), (50, 20)], [1, 1, 0, 0])
    assert found.kept.tolist() == [0, 2]
    reason = found.verdicts[3].reason
    assert "looks like a positive one (feature distance 0.00, nearest other negative one " in reason
    assert "one none" not in reason


class Fickle(GraphQNetwork):
    """Would remove every positive prompt once it sees a negative one; keeps what it saw."""

    def forward(self, state):
        self.seen = [*getattr(self, "seen", []), state.status[0].clone()]
        count = state.status.shape[1]
        values = torch.full((len(state.status), 2 * count + 1), -1.0)
        values[:, :count] += 2.0 * (state.status == 2).any(1, keepdim=True)
        return values


def test_the_second_pass_shows_the_negative_ones_and_leaves_the_positive_ones_alone(image):
    fickle = agent(Fickle)
    found = Defender(fickle).refine(image, [(57, 1), (58, 2), (1, 1), (30, 20)], [1, 0, 1, 1])
    assert found.kept.tolist() == [0, 1, 2, 3]
    assert [v.value for v in found.verdicts] == [-1, -1, -1, -1]
    first, second = fickle.network.seen
    assert [first[node].item() for node in (7, 0, 43)] == [1, 1, 1]
    assert [second[node].item() for node in (7, 0, 43)] == [2, 1, 1]


class Remembering(Colour):
    """Keeps the prompts it sees and those it has seen."""

    def forward(self, state):
        pair = state.status[0].clone(), state.evidence.status[0].clone()
        self.looks = [*getattr(self, "looks", []), pair]
        return super().forward(state)


def test_removed_prompts_go_on_testifying(image):
    remembering = agent(Remembering)
    found = Defender(remembering).refine(image, [(5, 5), (40, 3), (50, 20), (1, 30)], [1, 1, 0, 0])
    assert {v.index for v in found.removed} == {0, 2}
    present, known = zip(*remembering.network.looks, strict=True)
    assert [int((look != 0).sum()) for look in present] == [4, 3, 2]
    assert all(look.equal(present[0]) for look in known)


def test_one_of_each_sign_alone_in_a_patch_both_stay(image):
    eager = Defender(replace(agent(), least_gain=-9.0, further_gain=-9.0))
    assert eager.refine(image, [(57, 1), (58, 2)], [1, 0]).kept.tolist() == [0, 1]
    assert eager.refine(image, [(57, 1), (58, 2), (1, 1)], [1, 0, 0]).labels.tolist() == [1, 0]


class Hairsplitter(GraphQNetwork):
    """Values every prompt alike, but for the last digits."""

    def forward(self, state):
        count = 2 * state.status.shape[1] + 1
        return (1 + 1e-7 * torch.arange(count)).expand(len(state.status), count)


def test_of_equal_values_the_first_candidate_goes(image):
    found = Defender(agent(Hairsplitter)).refine(image, [(60, 30), (5, 5), (50, 3), (2, 2)], [1, 1, 1, 0])
    assert [v.index for v in found.removed] == [2, 1, 3]


def test_whatever_it_is_given_it_keeps_a_positive_prompt(image):
    rng = np.random.default_rng(0)
    eager = Defender(replace(agent(), least_gain=-9.0, further_gain=-9.0))
    removed = 0
    for number in range(60):
        defender = eager if number % 2 else Defender(agent())
        count = int(rng.integers(1, 12))
        points = rng.random((count, 2)) * [64, 32]
        labels = rng.integers(0, 2, count)
        found = defender.refine(image, points, labels)
        assert len(found.kept) >= 1
        assert found.labels.any() == labels.any()
        assert np.array_equal(found.points, points[found.kept])
        assert len(found.verdicts) == count
        removed += sum(labels[verdict.index] for verdict in found.removed)
    assert removed > 30


def test_a_prompt_that_was_not_worth_removing_is_not_called_the_last_one(image):
    """Positive prompts are fixed in the second pass, whose threshold is another one."""
    rng = np.random.default_rng(0)
    several = 0
    for number in range(40):
        defender = Defender(replace(agent(), least_gain=0.002 * number, further_gain=-9.0))
        points = np.concatenate([rng.random((6, 2)) * [64, 32], [[10.0, 10.0], [11.0, 10.0]]])
        found = defender.refine(image, points, [1, 1, 1, 0, 0, 0, 1, 0])
        if found.labels.sum() > 1 and found.removed:
            several += 1
            reasons = [verdict.reason for verdict in found.verdicts if verdict.kept and verdict.label]
            assert not any("the last positive prompt" in reason for reason in reasons)
    assert several


def test_a_gain_too_small_is_left_alone(image):
    prompts = [(40, 3), (5, 5), (50, 20)], [1, 1, 0]
    values = [v.value for v in Defender(agent(Colour)).refine(image, *prompts).removed]
    gain = max(values) + 0.01
    careful = Defender(replace(agent(Colour), least_gain=gain, further_gain=gain)).refine(image, *prompts)
    assert len(careful.kept) == 3
    assert careful.stopped.startswith("no removal is valued at ")
    for verdict in careful.verdicts:
        assert (f"less than the {gain:g} that was asked for" in verdict.reason) == (verdict.value >= 0)
    gain = min(values) - 0.01
    bold = Defender(replace(agent(Colour), least_gain=gain, further_gain=gain)).refine(image, *prompts)
    assert len(bold.kept) == 1


class Falling(GraphQNetwork):
    """Values positive prompts by their place: 0.9 for that of the first node, 0.1 less from row to row."""

    def forward(self, state):
        nodes = state.status.shape[1]
        grid = int(nodes**0.5)
        values = 0.9 - 0.1 * torch.div(torch.arange(nodes), grid, rounding_mode="floor")
        values = torch.cat([values, torch.full((nodes + 1,), -5.0)])
        return values.expand(len(state.status), -1)


@pytest.mark.parametrize(
    ("least", "further", "removed"), [(0.85, 0.65, [0, 1, 2]), (0.85, 0.85, [0]), (0.95, -1.0, [])]
)
def test_the_first_removal_must_be_worth_more_than_those_that_follow(
    image, small_simulator, least, further, removed
):
    fickle = replace(agent(Falling), least_gain=least, further_gain=further)
    points = [(4, 4 * row + 2) for row in range(5)]  # 0.9, 0.8, 0.7, 0.6, 0.5
    found = Defender(fickle).refine(image, points, [1] * 5)
    assert [verdict.index for verdict in found.removed] == removed
    games = GameBatch(small_simulator, 1)
    status = torch.zeros((1, 64), dtype=torch.int8)
    status[0, 0:40:8] = 1
    games.begin(games.everyone(), torch.tensor([0]), status, torch.tensor([9]), torch.tensor([False]))
    for node in [8 * row for row in removed] + [128]:
        action = GreedyAgent(fickle).act(games, games.everyone(), [])
        assert action.tolist() == [node]
        games.step(action)


def test_of_many_prompts_several_go_at_a_look_but_never_the_last_positive(rng):
    eager = replace(agent(grid=16), least_gain=-9.0, further_gain=-9.0)
    looks = []
    eager.network.register_forward_hook(lambda *_: looks.append(1))
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    points = [(4 * column + 2, 4 * row + 2) for row in range(16) for column in range(16)]
    found = Defender(eager).refine(image, points, [1] * 200 + [0] * 56)
    assert found.labels.tolist() == [1]
    assert sorted(v.step for v in found.removed) == list(range(1, 256))
    # 8 at a look from 256, 7 below 256, and so on; the last 63 one by one
    assert 90 < len(looks) < 150


class OneBad(GraphQNetwork):
    """Values the first positive prompt's removal at 0.9 and all others at -0.5."""

    def forward(self, state):
        values = torch.full((2 * state.status.shape[1] + 1,), -0.5)
        values[0] = 0.9
        return values.expand(len(state.status), -1)


def test_each_removal_of_a_look_is_explained_by_what_was_enough_for_it(rng):
    careless = replace(agent(OneBad, grid=16), least_gain=0.5, further_gain=-0.75)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    points = [(4 * column + 2, 4 * row + 2) for row in range(16) for column in range(16)]
    first, *others = Defender(careless).refine(image, points, [1] * 256).removed
    assert (first.index, len(others)) == (0, 254)
    assert all("-0.75 is enough after the first" in verdict.reason for verdict in others)


def test_of_matched_prompts_half_may_go_at_a_look_by_the_values_of_dice_alone(rng, random_state):
    suspicious = agent(grid=16, suspicion=5.0)
    matched = suspicious.for_matched()
    state = random_state()
    assert matched.values(state).equal(suspicious.network(state, dice_only=True).detach())
    assert not matched.values(state).equal(suspicious.values(state))
    looks = []
    matched.network.register_forward_hook(lambda *_: looks.append(1))
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    points = [(4 * column + 2, 4 * row + 2) for row in range(16) for column in range(16)]
    eager = replace(matched, least_gain=-9.0, further_gain=-9.0)
    found = Defender(eager).refine(image, points, [1] * 200 + [0] * 56)
    assert found.labels.tolist() == [1]
    assert len(looks) == 9  # 256 prompts, 128, 64, ... 1


def test_matched_prompts_lose_whatever_is_expected_to_hurt(image):
    doubting = replace(agent(Colour), least_gain=9.0, further_gain=9.0)
    prompts = [(40, 3), (5, 5), (60, 30), (50, 20), (10, 10)], [1, 1, 1, 0, 0]
    assert len(Defender(doubting).refine(image, *prompts).kept) == 5
    assert Defender(doubting.for_matched()).refine(image, *prompts).kept.tolist() == [0, 2, 4]


@pytest.mark.parametrize("feedback", [False, True])
def test_prompts_on_nodes_are_cleaned_as_those_at_their_centres(small_simulator, feedback):
    bank = small_simulator.bank
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, 3, (70, 64)) * (rng.random((70, 64)) < 0.3)
    drawn[5] = 0
    rows, status = torch.arange(70) % len(bank), torch.from_numpy(drawn.astype(np.int8))
    cleaner = agent(use_feedback=feedback).for_matched()
    kept = clean_nodes(cleaner, small_simulator, rows, status)
    assert not kept[5].any()
    for row in (0, 1, 69):
        raw, segmenter = bank.raw(int(rows[row])), small_simulator.segmenter
        points, labels = as_points(drawn[row].astype(np.int8), raw.image.shape[:2])
        found = Defender(cleaner).refine(raw.image, points, labels, segmenter=segmenter)
        expected = as_points(kept[row].numpy(), raw.image.shape[:2])
        assert 0 < len(found.points) < len(points)
        assert np.array_equal(found.points, expected[0])
        assert np.array_equal(found.labels, expected[1])
