import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ppd_agents.dqn.agent import Agent, GreedyAgent
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.evaluation.rollouts import generators, is_blind, play
from ppd_agents.evaluation.rows import ROWS, ideal_statuses
from ppd_agents.evaluation.scoring import Scorer
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.evaluation.tables import evaluate
from ppd_env.errors import ConfigError, PPDError
from ppd_env.game_batch import GameBatch
from ppd_env.metrics import dice
from ppd_env.opponents import OracleOpponent, RandomOpponent
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

URI = "shapes://test?count=9&seed=3"
CONFIG = EvaluationConfig(
    scenes=(URI,),
    segmenter="fake",
    features="fake",
    grid=8,
    budgets=(2, 4),
    oracle_pool=6,
    oracle_scenes=5,
    resamples=100,
)


@pytest.fixture(scope="module")
def simulator():
    bank = open_bank(URI, "fake", "fake", 8, cache=False)
    return Simulator(bank, load_segmenter("fake"))


@pytest.fixture(scope="module")
def result():
    return evaluate(CONFIG, OracleOpponent(3, idle=False), OracleOpponent(idle=False), agents="a")


def start(simulator):
    rngs = generators(0, simulator.bank.indices, 0)
    return torch.arange(len(simulator.bank)), ideal_statuses(simulator.bank, rngs)


def begun(simulator, attacking, status=None):
    rows, ideal = start(simulator)
    games = GameBatch(simulator, len(rows))
    budget = torch.full_like(rows, 5)
    sides = torch.full_like(rows, attacking, dtype=torch.bool)
    games.begin(games.everyone(), rows, ideal if status is None else status, budget, sides)
    return games


class Explodes:
    def act(self, games, which, rngs):
        raise AssertionError("a finished stage was played again")


def test_result_has_exactly_the_documented_shape(result):
    assert list(result) == ["command", "seeds", "versions", "seconds", "results", "config"]
    assert list(result["results"]) == [URI]
    assert list(result["results"][URI]) == ["2", "4"]
    for table in result["results"][URI].values():
        assert list(table) == [*ROWS, "way", "recovery", "clean_change"]
        for name in ROWS:
            row = table[name]
            assert list(row) == ["mdsc", "mdsc_ci", "miou", "miou_ci", "n", "per_seed"]
            assert row["n"] == (5 if name.endswith(".oracle") else 9)
            assert row["mdsc_ci"][0] <= row["mdsc"] <= row["mdsc_ci"][1]
            assert 0 <= row["miou"] <= row["mdsc"] <= 100
            assert len(row["per_seed"]) == 1
        assert {"value", "ci", "n", "per_seed"} <= set(table["way"])
        assert {"value", "ci", "n", "per_seed"} <= set(table["recovery"])
    assert json.loads(json.dumps(result)) == result
    assert result["config"]["oracle"] == {"pool": 6, "n": 5}
    assert result["config"]["scene_sets"][URI]["signature"].startswith("shapes-")


def test_controls_are_ordered_as_they_must_be(result):
    table = result["results"][URI]["4"]
    assert table["attack.oracle"]["mdsc"] < table["attack.random"]["mdsc"]
    assert (
        table["defence.oracle"]["mdsc"]
        > table["recovery"]["controls"]["defence.oracle"]["paired"]["attack.learned"]
    )
    assert table["clean.learned"]["mdsc"] >= table["ideal"]["mdsc"]
    assert table["ideal"] == result["results"][URI]["2"]["ideal"]


def test_one_long_attack_serves_every_budget(simulator):
    rows, ideal = start(simulator)
    for policy in (RandomOpponent(integers=True), OracleOpponent(3, idle=False)):
        both, short = (
            play(
                simulator,
                rows,
                ideal,
                policy,
                attacking=True,
                budgets=b,
                rngs=generators(1, rows.tolist(), 1),
            )
            for b in ((2, 4), (2,))
        )
        assert torch.equal(both[2], short[2])
        assert not torch.equal(both[2], both[4])


class Seeing(RandomOpponent):
    blind = False


def test_blind_policies_play_the_same_games_without_decoding(simulator, monkeypatch):
    rows, ideal = start(simulator)
    for attacking in (True, False):
        rules = {"attacking": attacking, "budgets": (3, 60)}
        seen = play(
            simulator, rows, ideal, Seeing(integers=True), **rules, rngs=generators(1, rows.tolist(), 1)
        )
        with monkeypatch.context() as patch:
            patch.setattr(simulator, "segment", None)
            blind = play(
                simulator,
                rows,
                ideal,
                RandomOpponent(integers=True),
                **rules,
                rngs=generators(1, rows.tolist(), 1),
            )
        assert torch.equal(seen[3], blind[3])
        assert torch.equal(seen[60], blind[60])


def test_only_agents_without_feedback_are_blind():
    def policy(feedback):
        network = GraphQNetwork(QNetworkConfig(role="defender", hidden=8, use_feedback=feedback))
        return GreedyAgent(Agent(network, "fake", "x", 8, 1.0))

    assert is_blind(policy(feedback=False))
    assert not is_blind(policy(feedback=True))
    assert not is_blind(OracleOpponent())


def test_the_random_player_never_stops_while_it_may_act(simulator):
    games = begun(simulator, attacking=False)
    for _ in range(200):
        actions = RandomOpponent(integers=True).act(
            games, games.everyone(), generators(0, range(games.size), 2)
        )
        legal = games.legal()
        assert legal.gather(1, actions[:, None]).all()
        assert ((actions == 2 * games.nodes) == ~legal[:, :-1].any(dim=1)).all()
        if not legal[:, :-1].any():
            break
        games.step(actions)
    assert not legal[:, :-1].any()


def test_oracle_defence_takes_the_best_removal(simulator):
    rows, ideal = start(simulator)
    rngs = generators(5, rows.tolist(), 1)
    attacked = play(
        simulator, rows, ideal, RandomOpponent(integers=True), attacking=True, budgets=(4,), rngs=rngs
    )[4]
    games = begun(simulator, attacking=False, status=attacked)
    actions = OracleOpponent(idle=False).act(games, games.everyone(), rngs)
    legal = games.legal()
    for game in range(games.size):
        gains = {}
        for action in np.flatnonzero(legal[game, :-1].numpy()):
            changed = attacked[game : game + 1].clone()
            changed[0, action % games.nodes] = 0
            gains[int(action)] = float(
                simulator.segment(rows[game : game + 1], changed).dice - games.dice[game]
            )
        best = max(gains.values())
        chosen = int(actions[game])
        assert (gains[chosen] == pytest.approx(best)) if best > 0 else (chosen == 2 * games.nodes)


def test_oracle_attack_stays_in_its_pool_and_harms(simulator):
    games = begun(simulator, attacking=True)
    actions = OracleOpponent(4, idle=False).act(games, games.everyone(), generators(0, range(games.size), 2))
    acted = actions < 2 * games.nodes
    assert acted.any()
    result = games.step(actions)
    assert (result.reward[acted] > 0).all()
    assert not result.invalid.any()


def test_scores_are_native(simulator):
    rows, ideal = start(simulator)
    stage = Scorer(simulator).stage({0: ideal})
    masks = simulator.native_masks(rows, ideal)
    expected = [100 * dice(mask, simulator.bank.raw(row).mask) for row, mask in enumerate(masks)]
    assert stage.dice[0] == pytest.approx(expected)


def test_finished_stages_are_not_played_again(tmp_path, result):
    first = evaluate(
        CONFIG, OracleOpponent(3, idle=False), OracleOpponent(idle=False), agents="a", folder=tmp_path
    )
    again = evaluate(CONFIG, Explodes(), Explodes(), agents="a", folder=tmp_path)
    assert first["results"] == again["results"] == result["results"]
    with pytest.raises(AssertionError, match="played again"):
        evaluate(CONFIG, Explodes(), Explodes(), agents="b", folder=tmp_path)


def test_stages_of_other_settings_are_not_taken(tmp_path):
    evaluate(CONFIG, OracleOpponent(3, idle=False), OracleOpponent(idle=False), agents="a", folder=tmp_path)
    other = replace(CONFIG, oracle_pool=7)
    with pytest.raises(AssertionError, match="played again"):
        evaluate(other, Explodes(), Explodes(), agents="a", folder=tmp_path)


@pytest.mark.parametrize("length", [7, 100])
def test_a_damaged_stage_is_named(tmp_path, length):
    evaluate(CONFIG, OracleOpponent(3, idle=False), OracleOpponent(idle=False), agents="a", folder=tmp_path)
    victim = next(tmp_path.glob("*ideal.npz"))
    victim.write_bytes(victim.read_bytes()[:length])
    with pytest.raises(PPDError, match=r"ideal\.npz.*delete the file"):
        evaluate(CONFIG, Explodes(), Explodes(), agents="a", folder=tmp_path)


def test_evaluation_does_not_depend_on_other_scenes(result):
    fewer = evaluate(
        replace(CONFIG, scenes=("shapes://test?count=5&seed=3",)),
        OracleOpponent(3, idle=False),
        OracleOpponent(idle=False),
        agents="a",
    )
    mine = fewer["results"]["shapes://test?count=5&seed=3"]["4"]
    assert mine["attack.oracle"]["mdsc"] == result["results"][URI]["4"]["attack.oracle"]["mdsc"]
    assert mine["ideal"]["mdsc"] == result["results"][URI]["4"]["way"]["paired"]["ideal"]


@pytest.mark.parametrize(
    "changes",
    [
        {"budgets": ()},
        {"budgets": (0,)},
        {"scenes": ()},
        {"oracle_pool": 0},
        {"confidence": 1.0},
        {"layout": "ring"},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        replace(CONFIG, **changes)
