from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

import ppd_agents.defender as module
from ppd_agents.defender import Defender, load_opponent
from ppd_agents.dqn.agent import Agent, GreedyAgent, save_agent
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_env.errors import PPDError
from ppd_env.features.registry import load_features
from ppd_env.game_batch import GameBatch
from ppd_env.opponents import load_opponent as open_uri


class Colour(GraphQNetwork):
    """Thinks that positive prompts belong on bright patches and negative ones on dark ones."""

    def forward(self, state):
        bright = state.features[state.rows].mean(-1) - 1.5
        values = torch.cat([-bright, bright, torch.zeros(len(state.rows), 1)], 1)
        active = torch.cat([state.status == 1, state.status == 2, torch.ones(len(values), 1) > 0], 1)
        return torch.where(active, values, 0.0)


def agent(kind=GraphQNetwork, role="defender", grid=8, **options):
    network = kind(QNetworkConfig(role=role, hidden=8, **options), torch.Generator().manual_seed(0))
    return Agent(network.eval(), "fake", load_features("fake").signature, grid, 1.0)


@pytest.fixture
def image():
    """Dark on the left, bright on the right; 64 pixels wide, 32 high: patches of 8 x 4."""
    made = np.zeros((32, 64, 3), np.uint8)
    made[:, 32:] = 255
    return made


@pytest.fixture
def defender():
    return Defender(agent(Colour))


def test_it_removes_what_hurts_and_keeps_the_rest(defender, image):
    points = [(40, 3), (5, 5), (60, 30), (50, 20), (10, 10)]
    labels = [1, 1, 1, 0, 0]
    found = defender.refine(image, points, labels)
    assert found.kept.tolist() == [0, 2, 4]
    assert np.array_equal(found.points, np.array(points, np.float32)[[0, 2, 4]])
    assert found.labels.tolist() == [1, 1, 0]
    assert {v.index for v in found.removed} == {1, 3}
    assert [v.step for v in found.removed] == [1, 2]
    assert found.stopped == "no removal is worth 0 of Dice"
    with pytest.raises(FrozenInstanceError):
        found.stopped = "because"


def test_values_and_reasons_say_why(defender, image):
    found = defender.refine(image, [(40, 3), (5, 5), (50, 20), (10, 10)], [1, 1, 0, 0])
    wrong, right = found.verdicts[2], found.verdicts[0]
    assert not wrong.kept
    assert wrong.value > 0
    assert "negative prompt that looks like a positive one" in wrong.reason
    assert f"worth {wrong.value:.3f} of Dice" in wrong.reason
    assert right.kept
    assert right.value < 0
    assert f"{right.value:+.3f}" in right.reason


def test_the_last_positive_prompt_stays(defender, image):
    found = defender.refine(image, [(5, 5), (8, 20)], [1, 1])
    assert found.labels.tolist() == [1]
    assert "last positive" in found.stopped
    assert defender.refine(image, [(5, 5)], [1]).kept.tolist() == [0]
    assert defender.refine(image, [(50, 5)], [0]).kept.tolist() == [0]


def test_points_of_one_patch_and_sign_go_together(defender, image):
    found = defender.refine(image, [(40, 3), (0.5, 0.5), (1, 1), (7, 3)], [1, 1, 1, 1])
    assert found.kept.tolist() == [0]
    assert {v.step for v in found.removed} == {1}
    assert len({v.value for v in found.removed}) == 1


def test_both_signs_in_one_patch_are_judged_one_after_the_other(defender, image):
    bright = defender.refine(image, [(40, 3), (57, 1), (58, 2), (2, 2)], [1, 1, 0, 0])
    assert bright.kept.tolist() == [0, 1, 3]
    dark = defender.refine(image, [(40, 3), (1, 1), (2, 2)], [1, 1, 0])
    assert dark.kept.tolist() == [0, 2]


def test_whatever_it_is_given_it_keeps_a_positive_prompt(image):
    rng = np.random.default_rng(0)
    defender = Defender(agent())
    for _ in range(30):
        count = int(rng.integers(1, 12))
        points = rng.random((count, 2)) * [64, 32]
        labels = rng.integers(0, 2, count)
        found = defender.refine(image, points, labels)
        assert len(found.kept) >= 1
        assert found.labels.any() == labels.any()
        assert np.array_equal(found.points, points.astype(np.float32)[found.kept])
        assert len(found.verdicts) == count


def test_points_may_lie_on_the_last_pixels(defender, image):
    found = defender.refine(image, [(63.9, 31.9), (0, 0)], [1, 0])
    assert found.kept.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        ([(64, 3)], [1], r"\(64, 3\) lies outside"),
        ([(3, -1)], [1], "lies outside"),
        ([(3, float("nan"))], [1], "lies outside"),
        ([(3, 3), (3, 3)], [1, 0], "as positive and as negative"),
        ([], [], r"n >= 1"),
        ([(3, 3, 3)], [1], "shape"),
        ([(3, 3)], [1, 0], "as many labels"),
        ([(3, 3)], [2], "labels must be"),
    ],
)
def test_impossible_prompts_are_refused(defender, image, points, labels, message):
    with pytest.raises(PPDError, match=message):
        defender.refine(image, points, labels)


@pytest.mark.parametrize(
    "bad", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), "photo.png"]
)
def test_impossible_images_are_refused(defender, bad):
    with pytest.raises(PPDError, match="uint8 RGB"):
        defender.refine(bad, [(1, 1)], [1])


def test_exact_duplicates_are_one_prompt(defender, image):
    found = defender.refine(image, [(40, 3), (40, 3), (5, 5), (5, 5)], [1, 1, 1, 1])
    assert found.kept.tolist() == [0, 1]


def test_it_loads_saved_and_shipped_agents(tmp_path, monkeypatch, image):
    save_agent(agent(), tmp_path / "weights" / "mini")
    monkeypatch.setattr(module, "WEIGHTS", tmp_path / "weights")
    by_name, by_path = Defender.load("mini"), Defender.load(tmp_path / "weights" / "mini")
    one, two = (d.refine(image, [(5, 5), (40, 8)], [1, 0]) for d in (by_name, by_path))
    assert [v.value for v in one.verdicts] == [v.value for v in two.verdicts]
    with pytest.raises(PPDError, match=r"no defender 'maxi'.*mini"):
        Defender.load("maxi")


def test_agents_it_cannot_use_are_refused(tmp_path):
    with pytest.raises(PPDError, match="attacker"):
        Defender(agent(role="attacker"))
    other = Agent(agent().network, "fake", "another", 8, 1.0)
    with pytest.raises(PPDError, match="not those the agent was trained on"):
        Defender(other)


class Watcher(GraphQNetwork):
    """Keeps what it is shown; finds nothing worth removing."""

    def forward(self, state):
        self.seen = (state.feedback, state.predicted_iou)
        return torch.full((1, 2 * state.status.shape[1] + 1), -1.0)


def test_feedback_is_what_the_simulator_would_show(small_simulator):
    bank = small_simulator.bank
    watcher = agent(Watcher, use_feedback=True)
    raw = bank.raw(2)
    nodes = torch.tensor([10, 27, 52])
    status = torch.zeros((1, bank.features.shape[1]), dtype=torch.int8)
    status[0, nodes] = torch.tensor([1, 2, 1], dtype=torch.int8)
    Defender(watcher).refine(raw.image, bank.points[2][nodes].numpy(), [1, 0, 1], segmenter="fake")
    rows = torch.tensor([2])
    expected = small_simulator.segment(rows, status)
    share = small_simulator.feedback(rows, expected.logits)
    torch.testing.assert_close(watcher.network.seen[0], share)
    torch.testing.assert_close(watcher.network.seen[1], expected.predicted_iou.clamp(0, 1))
    with pytest.raises(PPDError, match="segmenter="):
        Defender(watcher).refine(raw.image, [(1, 1)], [1])


def test_refining_plays_as_the_agent_does_in_the_games(small_simulator):
    bank = small_simulator.bank
    mine = replace(agent(), least_gain=-1.0)  # random weights: whatever it thinks, it removes something
    status = torch.zeros((1, 64), dtype=torch.int8)
    nodes = torch.tensor([3, 9, 20, 21, 33, 40, 55, 60])
    status[0, nodes] = torch.tensor([1, 2, 1, 1, 2, 2, 1, 2], dtype=torch.int8)
    games = GameBatch(small_simulator, 1)
    which, row = games.everyone(), torch.tensor([4])
    games.begin(which, row, status, torch.tensor([50]), torch.tensor([False]))
    played = []
    for _ in range(5):  # of the last two, each sees the other at the same distance: their values are equal
        before = games.status[0].clone()
        games.step(GreedyAgent(mine).act(games, which, []))
        played += (games.status[0] != before).nonzero().flatten().tolist()
    found = Defender(mine).refine(
        bank.raw(4).image, bank.points[4][nodes].numpy(), (status[0, nodes] == 1).long().numpy()
    )
    in_turn = sorted(found.removed, key=lambda verdict: verdict.step)
    assert [int(nodes[verdict.index]) for verdict in in_turn][:5] == played
    idle = GreedyAgent(replace(mine, least_gain=1e3)).act(games, which, [])
    assert idle.tolist() == [2 * 64]


def test_a_gain_too_small_is_left_alone(image):
    prompts = [(40, 3), (5, 5), (50, 20)], [1, 1, 0]
    values = [v.value for v in Defender(agent(Colour)).refine(image, *prompts).removed]
    careful = Defender(replace(agent(Colour), least_gain=max(values) + 0.01)).refine(image, *prompts)
    assert len(careful.kept) == 3
    assert careful.stopped.startswith("no removal is worth ")
    bold = Defender(replace(agent(Colour), least_gain=min(values) - 0.01)).refine(image, *prompts)
    assert len(bold.kept) == 1


def test_saved_agents_are_opponents_by_uri(tmp_path):
    save_agent(agent(role="attacker"), tmp_path / "attacker")
    opponent = open_uri(f"ppd_agents.defender:load_opponent?path={tmp_path / 'attacker'}")
    assert isinstance(opponent, GreedyAgent)
    assert opponent.stop
    assert opponent.blind
    assert not load_opponent(str(tmp_path / "attacker"), stop="false").stop
    with pytest.raises(PPDError, match="'maybe'"):
        load_opponent(str(tmp_path / "attacker"), stop="maybe")
