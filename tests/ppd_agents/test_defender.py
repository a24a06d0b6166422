import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from colour_agent import agent

from ppd_agents import shipped
from ppd_agents.defender import Defender, load_opponent
from ppd_agents.dqn.agent import Agent, GreedyAgent, load_agent, save_agent
from ppd_agents.dqn.q_network import GraphQNetwork
from ppd_agents.prompt_sets import check_prompts
from ppd_agents.shipped import open_agent
from ppd_env.errors import PPDError
from ppd_env.game_batch import GameBatch
from ppd_env.opponents import load_opponent as open_uri


def test_it_removes_what_hurts_and_keeps_the_rest(defender, image):
    points = [(40, 3), (5, 5), (60, 30), (50, 20), (10, 10)]
    labels = [1, 1, 1, 0, 0]
    found = defender.refine(image, points, labels)
    assert found.kept.tolist() == [0, 2, 4]
    assert np.array_equal(found.points, np.array(points, np.float64)[[0, 2, 4]])
    assert found.labels.tolist() == [1, 1, 0]
    assert {v.index for v in found.removed} == {1, 3}
    assert [v.step for v in found.removed] == [1, 2]
    assert found.stopped == "no removal is expected to help"
    with pytest.raises(FrozenInstanceError):
        found.stopped = "because"


def test_values_and_reasons_say_why(defender, image):
    found = defender.refine(image, [(40, 3), (5, 5), (50, 20), (10, 10)], [1, 1, 0, 0])
    wrong, right = found.verdicts[2], found.verdicts[0]
    assert not wrong.kept
    assert wrong.value > 0
    assert "negative prompt that looks like a positive one" in wrong.reason
    assert f"valued at {wrong.value:+.3f}" in wrong.reason
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


def drawn_prompts(rng, count=4):
    """Images of different sizes with 1 to 30 prompts each, some of both signs in one patch."""
    images = [rng.integers(0, 255, (*rng.integers(1, 90, 2), 3), dtype=np.uint8) for _ in range(count)]
    numbers = [1, *rng.integers(15, 30, count - 1)]
    points = [rng.random((n, 2)) * i.shape[1::-1] for n, i in zip(numbers, images, strict=True)]
    return images, points, [rng.integers(0, 2, n) for n in numbers]


def assert_same(one, other):
    assert one.kept.tolist() == other.kept.tolist()
    assert np.array_equal(one.points, other.points)
    assert one.labels.tolist() == other.labels.tolist()
    assert one.stopped == other.stopped
    for left, right in zip(one.verdicts, other.verdicts, strict=True):
        assert (left.index, left.point, left.label) == (right.index, right.point, right.label)
        assert (left.kept, left.step) == (right.kept, right.step)
        assert left.value == pytest.approx(right.value, abs=1e-4)
        assert left.kept or left.reason.partition(";")[0] == right.reason.partition(";")[0]


@pytest.mark.parametrize("feedback", [False, True])
def test_a_batch_gives_what_each_image_gives_alone(rng, feedback):
    defender = Defender(replace(agent(use_feedback=feedback), least_gain=-0.02, further_gain=-0.02))
    given = drawn_prompts(rng)
    together = defender.refine_batch(*given, segmenter="fake")
    assert sum(len(found.removed) for found in together) > 15
    for found, *one in zip(together, *given, strict=True):
        assert_same(found, defender.refine(*one, segmenter="fake"))
    assert defender.refine_batch([], [], []) == []


def test_a_batch_costs_one_look_per_step(rng):
    counted = replace(agent(), least_gain=-9.0, further_gain=-9.0)
    given = drawn_prompts(rng)
    looks = []
    counted.network.register_forward_hook(lambda *_: looks.append(1))
    together = Defender(counted).refine_batch(*given)
    assert len(looks) <= max(max(v.step or 0 for v in found.verdicts) for found in together) + 2


def test_errors_of_a_batch_name_the_image(defender, image):
    with pytest.raises(PPDError, match=r"^images\[1\]: Point \(99, 3\) lies outside"):
        defender.refine_batch([image] * 3, [[(3, 3)], [(99, 3)], [(3, 3)]], [[1]] * 3)
    with pytest.raises(PPDError, match=r"^images\[2\]: .*uint8 RGB"):
        defender.refine_batch([image, image, image[..., 0]], [[(3, 3)]] * 3, [[1]] * 3)
    with pytest.raises(PPDError, match=r"3 images .* got 2 and 1"):
        defender.refine_batch([image] * 3, [[(3, 3)]] * 2, [[1]])


def test_the_last_positive_prompt_says_why_it_stays(defender, image):
    found = defender.refine(image, [(5, 5), (50, 20)], [1, 1])
    assert found.kept.tolist() == [1]
    alone = defender.refine(image, [(5, 5)], [1]).verdicts[0]
    assert alone.value > 0
    assert "the last positive prompt is never removed" in alone.reason


def test_thresholds_can_be_chosen(tmp_path, image):
    save_agent(agent(), tmp_path / "defender")
    unwilling = Defender.load(tmp_path / "defender", least_gain=9.0)
    assert not unwilling.refine(image, [(5, 5), (40, 20)], [1, 0]).removed
    chosen = Defender.load(tmp_path / "defender", further_gain=-0.5).agent
    assert (chosen.least_gain, chosen.further_gain) == (agent().least_gain, -0.5)

    for wrong in (float("nan"), "0.5"):
        with pytest.raises(PPDError, match=f"least_gain must be a number, got {wrong!r}"):
            Defender.load(tmp_path / "defender", least_gain=wrong)
    facts = tmp_path / "defender" / "agent.json"
    facts.write_text(facts.read_text().replace('"further_gain": 0.0', '"further_gain": NaN'))
    with pytest.raises(PPDError, match=r"agent\.json: further_gain must be a number, got nan"):
        Defender.load(tmp_path / "defender")


def test_how_many_go_at_once_is_kept_and_may_be_missing(tmp_path):
    folder = save_agent(replace(agent(), at_once=0.25), tmp_path / "defender")
    assert load_agent(folder).at_once == 0.25
    facts = json.loads((folder / "agent.json").read_text())
    del facts["at_once"]
    (folder / "agent.json").write_text(json.dumps(facts))
    assert load_agent(folder).at_once == Agent.at_once
    with pytest.raises(PPDError, match="at_once must be a share"):
        replace(agent(), at_once=2)


def test_what_could_not_be_read_again_is_not_saved(tmp_path):
    folder = save_agent(agent(), tmp_path / "defender")
    with pytest.raises(PPDError, match="for_matched made it"):
        save_agent(open_agent("mini", "defender").for_matched(), folder)
    assert load_agent(folder).role == "defender"


def test_loading_draws_from_nobodys_generator(tmp_path):
    folder = save_agent(open_agent("mini", "defender"), tmp_path / "defender")
    before = torch.get_rng_state()
    load_agent(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    path = save_agent(agent(), tmp_path / "defender") / "agent.safetensors"
    path.write_bytes(path.read_bytes()[:-64] + b"\xff" * 64)
    with pytest.raises(PPDError, match=r"agent\.safetensors holds weights that are no numbers"):
        Defender.load(tmp_path / "defender")


@pytest.mark.parametrize("named", [None, 3, b"mini", ""])
def test_what_names_no_agents_is_refused(named):
    with pytest.raises(PPDError, match="named by a name that ships or by a folder"):
        Defender.load(named)


def test_an_unknown_device_is_refused(tmp_path):
    save_agent(agent(), tmp_path / "defender")
    with pytest.raises(PPDError, match="device 'nope' cannot be used"):
        Defender.load(tmp_path / "defender", device="nope")


def test_half_the_precision_is_half_the_size_and_nearly_the_same_agent(tmp_path, random_state):
    sizes, values = [], []
    state = random_state(grid=8)
    for half in (False, True):
        place = save_agent(agent(), tmp_path / str(half), half=half)
        sizes.append((place / "agent.safetensors").stat().st_size)
        stored = load_agent(place)
        assert all(weight.dtype == torch.float32 for weight in stored.network.state_dict().values())
        values.append(stored.values(state))
    assert sizes[1] < 0.6 * sizes[0]
    torch.testing.assert_close(*values, atol=2e-3, rtol=2e-2)
    assert not values[0].equal(values[1])


def test_points_may_lie_on_the_last_pixels(defender, image):
    found = defender.refine(image, [(63.9, 31.9), (0, 0)], [1, 0])
    assert found.kept.tolist() == [0, 1]
    for width, height, grid in ((63, 5, 40), (1, 1, 16), (4000, 3000, 37)):
        edge = np.nextafter([(width, height)], 0)
        assert check_prompts(edge, [1], (height, width), grid).candidates.tolist() == [grid * grid - 1]


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        ([(64, 3)], [1], r"\(64, 3\) lies outside"),
        ([(3, -1)], [1], "lies outside"),
        ([(3, float("nan"))], [1], "not finite"),
        ([(3, 3), (3, 3)], [1, 0], "as positive and as negative"),
        ([], [], r"n >= 1"),
        ([(3, 3, 3)], [1], "shape"),
        ([(3, 3)], [1, 0], "as many labels"),
        ([(3, 3)], [2], "labels must be"),
        ([(3, 3)], [float("nan")], "labels must be"),
        ([(3, 3), (3,)], [1, 1], "points must be an array of numbers"),
        ([(3, 3)], ["left"], "labels must be an array of numbers"),
        ([(float("inf"), 3)], [1], "not finite"),
        ([[(3, 3), (5, 5)]], [[1, 0]], r"take the first axis away, points\[0\]"),
        ([(3, None)], [1], "points must be an array of numbers"),
        ([(3, 3 + 1j)], [1], "points must be an array of numbers"),
        ([(3, 3)], ["1"], "labels must be an array of numbers"),
    ],
)
def test_impossible_prompts_are_refused(defender, image, points, labels, message):
    with pytest.raises(PPDError, match=message):
        defender.refine(image, points, labels)


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [
        (np.zeros((8, 8), np.uint8), "grey"),
        (np.zeros((8, 8, 4), np.uint8), "keep red, green and blue"),
        (np.zeros((8, 8, 3)), "convert it"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
        ("photo.png", "got str"),
        (torch.zeros(3, 8, 8), r"permute\(1, 2, 0\)"),
        (np.zeros((3, 8, 9), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 1), np.uint8), "grey channel three times"),
    ],
)
def test_impossible_images_are_refused(defender, bad, remedy):
    with pytest.raises(PPDError, match=f"uint8 RGB.*{remedy}|{remedy}"):
        defender.refine(bad, [(1, 1)], [1])


def test_exact_duplicates_are_one_prompt(defender, image):
    found = defender.refine(image, [(40, 3), (40, 3), (5, 5), (5, 5)], [1, 1, 1, 1])
    assert found.kept.tolist() == [0, 1]


def test_it_loads_saved_and_shipped_agents(tmp_path, monkeypatch, image):
    pair = tmp_path / "weights" / "mini"
    for role in ("attacker", "defender"):
        save_agent(agent(role=role), pair / role)
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    found = [
        Defender.load(n).refine(image, [(5, 5), (40, 8)], [1, 0]) for n in ("mini", pair, pair / "defender")
    ]
    assert [v.value for v in found[0].verdicts] == [v.value for v in found[1].verdicts]
    assert [v.value for v in found[0].verdicts] == [v.value for v in found[2].verdicts]
    with pytest.raises(PPDError, match=r"no defender 'maxi'.*mini"):
        Defender.load("maxi")
    with pytest.raises(PPDError, match="holds no agent"):
        Defender.load(tmp_path)
    with pytest.raises(PPDError, match="is an attacker"):
        Defender.load(pair / "attacker")


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
        return torch.full((len(state.status), 2 * state.status.shape[1] + 1), -1.0)


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
    mine = replace(
        agent(), least_gain=-1.0, further_gain=-1.0
    )  # random weights: whatever it thinks, it removes something
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
    idle = GreedyAgent(replace(mine, further_gain=1e3)).act(games, which, [])
    assert idle.tolist() == [2 * 64]


def test_saved_agents_are_opponents_by_uri(tmp_path):
    for role in ("attacker", "defender"):
        save_agent(agent(role=role), tmp_path / role)
    opponent = open_uri(f"ppd_agents.defender:load_opponent?path={tmp_path / 'attacker'}")
    assert isinstance(opponent, GreedyAgent)
    assert opponent.stop
    assert opponent.blind
    assert load_opponent(str(tmp_path)).agent.role == "attacker"
    assert load_opponent(str(tmp_path), role="defender").agent.role == "defender"
    assert not load_opponent(str(tmp_path), stop="false").stop
    for wrong in ({"stop": "maybe"}, {"role": "maybe"}):
        with pytest.raises(PPDError, match="'maybe'"):
            load_opponent(str(tmp_path), **wrong)
