import csv
import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_sam
import torch

from ppd_agents import cli
from ppd_agents.contestants import Contestant
from ppd_agents.dqn.agent import Agent, save_agent
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.evaluation import measure as measure_module
from ppd_agents.evaluation.cleaners import cleaners
from ppd_agents.evaluation.curves import CurvePlan
from ppd_agents.evaluation.measure import Pass, measure_scenes
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.evaluation.transfer import attacked
from ppd_agents.pipeline import policies
from ppd_agents.report.pictures import FORMATS
from ppd_agents.robustness import FIELDS, RunFolder, run_curves, run_transfer
from ppd_env.errors import ConfigError
from ppd_env.features.registry import load_features
from ppd_env.metrics import area_under_curve
from ppd_env.prompting.corruption import CORRUPTIONS
from ppd_env.segmenters.sam import checkpoint

SHAPES = "shapes://test?count=4&seed=1"
CONFIG = EvaluationConfig(
    scenes=(SHAPES,),
    segmenter="fake",
    features="fake",
    grid=8,
    budgets=(2, 5),
    oracle_pool=4,
    oracle_scenes=2,
    resamples=50,
)
SHARES = replace(CONFIG, budgets=(40, 100))
RULES = ("subsample", "count")


def agent(role, seed, **network):
    made = GraphQNetwork(QNetworkConfig(role=role, hidden=8, **network), torch.Generator().manual_seed(seed))
    return Agent(made.eval(), "fake", load_features("fake").signature, 8, 10.0)


def contestant(seed, **attacker):
    return Contestant(seed, agent("attacker", seed, **attacker), agent("defender", seed))


def read(folder, name="curves"):
    result = json.loads((folder / f"{name}.json").read_text())
    with (folder / f"{name}.csv").open() as file:
        return result, list(csv.DictReader(file))


@pytest.fixture(scope="module")
def corruption(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corruption")
    plan = CurvePlan("corruption", RULES)
    made_of = plan, [contestant(1), contestant(2)], SHARES, RunFolder(folder)
    return run_curves(*made_of, progress=False), folder, made_of


@pytest.fixture(scope="module")
def attack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attack")
    run_curves(
        CurvePlan("attack", ("outlier",)),
        [contestant(1)],
        replace(CONFIG, seeds=(0, 1)),
        RunFolder(folder),
        progress=False,
    )
    return read(folder)[0]


def test_every_corruption_has_its_curves(corruption):
    result, table = read(corruption[1])
    assert result["command"] == "evaluate --curves corruption"
    points, curves = result["results"][SHAPES], result["curves"][SHAPES]
    assert list(points) == ["0", "40", "100"]
    assert set(curves) == set(CORRUPTIONS)
    for kind, curve in curves.items():
        assert curve["at"] == [0, 40, 100]
        assert list(curve["lines"]) == ["learned", *RULES]
        for who, line in [("undefended", curve), *curve["lines"].items()]:
            rows = [line["zero"], line["row"], line["row"]]
            cells = [points[str(at)][row] for at, row in zip(curve["at"], rows, strict=True)]
            heights = [cell["mdsc"] for cell in cells]
            assert line["area"] == pytest.approx(area_under_curve(curve["at"], heights), abs=1e-3)
            assert line["area_ci"][0] <= line["area"] <= line["area_ci"][1]
            mine = [row for row in table if (row["harm"], row["line"]) == (kind, who)]
            assert [row["at"] for row in mine] == ["0", "40", "100", "area"]
            assert [float(row["mdsc"]) for row in mine] == [*heights, line["area"]]
    assert list(table[0]) == list(FIELDS["curves"])
    assert points["0"]["ideal"]["mdsc"] > points["100"]["corrupted.wrong_sign"]["mdsc"] + 20
    assert points["100"]["corrupted.dropped"]["mdsc"] == 0  # no prompt is left, and no defence adds any
    assert {points["100"][f"dropped.{who}"]["mdsc"] for who in ("learned", *RULES)} == {0}
    assert "Wrong signs, mean Dice" in corruption[0]


def test_recoveries_of_points_and_areas_are_shares_of_what_was_lost(corruption):
    result, _ = read(corruption[1])
    points, curve = result["results"][SHAPES], result["curves"][SHAPES]["wrong_sign"]
    ideal = points["0"]["ideal"]["mdsc"]
    for line in curve["lines"].values():
        for before, after, recovery in (
            (
                points["40"][curve["row"]]["mdsc"],
                points["40"][line["row"]]["mdsc"],
                points["40"][line["row"]]["recovery"],
            ),
            (curve["area"], line["area"], line["recovery"]),
        ):
            assert recovery["value"] == pytest.approx((after - before) / (ideal - before), abs=1e-3)
            assert len(recovery["per_seed"]) == 2
    assert "recovery" not in points["0"]["clean.learned"]


def test_defences_against_corruption_stop_by_themselves(corruption):
    """A share of one per cent is no budget of one prompt."""
    plan, players, config, _ = corruption[2]
    rows = plan.rows(*policies(players[0].attacker, players[0].defender), config)
    kept = {name: rows[name] for name in ("ideal", "corrupted.spurious", "spurious.count", "clean.count")}
    found = measure_scenes(SHAPES, replace(config, budgets=(1,)), [Pass(0, kept, "a")])
    for start, row, at in (("corrupted.spurious", "spurious.count", 1), ("ideal", "clean.count", 0)):
        before, after = (found.rows[name][0].status[at] > 0 for name in (start, row))
        assert (before.sum(1) - after.sum(1)).max() > 1


@pytest.mark.parametrize("rule", cleaners("jittered"))
def test_rules_leave_nothing_as_it_is(small_simulator, rule):
    """Where every prompt was dropped."""
    rows, nothing = torch.arange(3), torch.zeros(3, 64, dtype=torch.int8)
    rngs = [np.random.default_rng(row) for row in range(3)]
    assert torch.equal(cleaners("jittered")[rule](small_simulator, rows, nothing, 5, rngs), nothing)


def test_corruption_grows_from_share_to_share(corruption):
    plan, players, config, _ = corruption[2]
    rows = plan.rows(*policies(players[0].attacker, players[0].defender), config)
    kept = {name: rows[name] for name in ("ideal", "corrupted.spurious", "corrupted.wrong_sign")}
    found = measure_scenes(SHAPES, config, [Pass(0, kept, "a")])
    ideal = found.rows["ideal"][0].status[0]
    added = found.rows["corrupted.spurious"][0].status
    assert ((added[40] > 0) <= (added[100] > 0)).all()
    assert ((added[100] > 0).sum(1) == 2 * (ideal > 0).sum(1)).all()
    assert (found.rows["corrupted.wrong_sign"][0].status[100] == np.array([0, 2, 1])[ideal]).all()


def test_pictures_are_drawn_and_alike_from_time_to_time(corruption, tmp_path):
    from ppd_agents.report.pictures import curve_picture, save_picture

    _, folder, _ = corruption
    result, _ = read(folder)
    drawn = sorted(path.suffix for path in folder.glob("curves-shapes*.*"))
    assert drawn == sorted(f".{kind}" for kind in FORMATS)
    points, curves = result["results"][SHAPES], result["curves"][SHAPES]
    figure = curve_picture(curves, points, f"{SHAPES}, 4 scenes, segmenter fake")
    assert [axis.get_title(loc="left") for axis in figure.axes][:2] == ["Dropped prompts", "Moved prompts"]
    lines = figure.axes[3].get_lines()
    assert lines[1].get_ydata()[2] == points["100"]["corrupted.wrong_sign"]["mdsc"]
    assert lines[2].get_ydata()[0] == points["0"]["clean.learned"]["mdsc"]
    save_picture(figure, tmp_path / "again")
    assert (tmp_path / "again.svg").read_bytes() == next(folder.glob("*.svg")).read_bytes()


def test_curves_go_on_where_they_stopped(corruption, monkeypatch):
    text, folder, made_of = corruption
    before, _ = read(folder)

    def explode(*_):
        raise AssertionError("a finished row was played again")

    monkeypatch.setattr(measure_module.Bench, "_stage", explode)
    assert run_curves(*made_of, progress=False) == text
    assert {**read(folder)[0], "seconds": 0} == {**before, "seconds": 0}
    with pytest.raises(AssertionError, match="played again"):
        run_curves(made_of[0], [contestant(3)], *made_of[2:], progress=False)


def test_attack_curves_agree_with_the_tables(attack):
    """One long attack serves all budgets, and each point is what the tables measure under that budget."""
    from ppd_agents.evaluation.tables import evaluate

    points, curves = attack["results"][SHAPES], attack["curves"][SHAPES]
    assert list(curves) == ["random", "learned"]
    assert curves["learned"]["at"] == [0, 2, 5]
    pair = contestant(1)
    config = replace(CONFIG, budgets=(2,), seeds=(0, 1))
    table = evaluate(config, *policies(pair.attacker, pair.defender), agents="a")["results"][SHAPES]["2"]
    for row in ("attack.random", "attack.learned", "defence.learned"):
        assert points["2"][row]["per_seed"] == table[row]["per_seed"]
        assert points["2"][row]["mdsc_ci"] == table[row]["mdsc_ci"]
    assert points["0"].keys() == {"ideal"}
    assert points["2"]["defence.learned"]["recovery"]["value"] == table["recovery"]["value"]
    assert "random.learned" in points["5"]


def test_a_free_defence_shows_what_it_does_to_clean_prompts(tmp_path):
    plan = CurvePlan("attack", (), free=True)
    run_curves(plan, [contestant(1)], replace(CONFIG, budgets=(2,)), RunFolder(tmp_path), progress=False)
    points = read(tmp_path)[0]["results"][SHAPES]
    assert points["0"].keys() == {"ideal", "clean.learned"}
    assert list((tmp_path / "stages").iterdir()) == [tmp_path / "stages" / "free"]


def test_plans_and_shares_are_checked(capsys, tmp_path):
    with pytest.raises(ConfigError, match="Unknown rule 'magic'; known ones: subsample"):
        CurvePlan("attack", ("magic",))
    for arguments, says in (
        (("--curves", "corruption", "--shares", "1.5"), "--shares must be whole percents"),
        (("--curves", "attack", "--transfer", "mini"), "one at a time"),
        (("--transfer", "fake", "fake"), "each model of --transfer once"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["evaluate", *arguments, "--runs", str(tmp_path)])
        assert stopped.value.code == 2
        assert says in capsys.readouterr().err


def test_the_command_draws_curves(capsys, tmp_path):
    for role in ("attacker", "defender"):
        save_agent(agent(role, 1), tmp_path / "agents" / role)
    copy = tmp_path / "copy.json"
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            [
                *("evaluate", "--curves", "corruption", "--shares", "0", "0.5", "--rules", "subsample"),
                *("--agents", str(tmp_path / "agents"), "--scenes", SHAPES, "--segmenter", "fake"),
                *("--resamples", "20", "--runs", str(tmp_path / "runs"), "--json", str(copy)),
            ]
        )
    shown = capsys.readouterr()
    assert stopped.value.code == 0, shown.err
    place = tmp_path / "runs" / "curves-corruption"
    assert str(place / "curves.csv") in shown.out
    assert copy.read_text() == (place / "curves.json").read_text()
    assert list(json.loads(copy.read_text())["results"][SHAPES]) == ["0", "50"]


@pytest.fixture(scope="module")
def transfer(tmp_path_factory):
    """Attacks between the fake segmenter and a tiny SAM with random weights."""
    if importlib.util.find_spec("segment_anything") is None:
        pytest.skip("segment-anything is not installed")
    folder = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(checkpoint.ARCHITECTURES, "tiny", tiny_sam.TINY)
        sam = f"checkpoint:tiny:{tiny_sam.save_checkpoint(folder / 'tiny.pth')}"
        made_of = (
            ("fake", sam),
            [contestant(1)],
            replace(CONFIG, budgets=(3,)),
            ("learned", "oracle"),
            RunFolder(folder),
        )
        yield run_transfer(*made_of, progress=False), folder, made_of


def test_attacks_are_decoded_and_defended_on_every_segmenter(transfer):
    text, folder, (models, *_) = transfer
    result, table = read(folder, "transfer")
    matrices = result["transfer"][SHAPES]["3"]
    assert {attack: (list(rows), list(rows["fake"])) for attack, rows in matrices.items()} == {
        attack: (list(models), list(models)) for attack in ("learned", "oracle")
    }
    assert len(table) == 8
    assert {cell["drop"]["n"] for cell in matrices["oracle"]["fake"].values()} == {2}
    assert {cell["drop"]["n"] for cell in matrices["learned"]["fake"].values()} == {4}
    oracle, sam = matrices["oracle"], models[1]
    assert oracle["fake"]["fake"]["drop"]["value"] > 0
    assert oracle["fake"]["fake"]["drop"]["value"] >= oracle[sam]["fake"]["drop"]["value"]
    ideal = [matrices["learned"]["fake"][there]["recovery"]["paired"]["ideal"] for there in models]
    assert ideal[0] != ideal[1]  # each decodes the prompts itself
    for cell in (cell for matrix in matrices.values() for row in matrix.values() for cell in row.values()):
        if cell["recovery"]["value"] is not None:
            share = cell["change"]["value"] / cell["drop"]["value"]
            assert cell["recovery"]["value"] == pytest.approx(share, abs=1e-3)
    assert result["same_prompts_everywhere"][SHAPES] == ["learned"]
    assert "the same prompts everywhere" in text
    assert (folder / "transfer-shapes_test_count=4_seed=1-3.png").exists()


def test_the_diagonal_is_the_attack_of_the_tables(transfer):
    from ppd_agents.evaluation.tables import evaluate

    _, folder, (_, players, config, *_) = transfer
    matrices = read(folder, "transfer")[0]["transfer"][SHAPES]["3"]
    pair = policies(players[0].attacker, players[0].defender)
    table = evaluate(config, *pair, agents="a")["results"][SHAPES]["3"]
    cell = matrices["learned"]["fake"]["fake"]
    assert cell["drop"]["value"] == pytest.approx(
        table["ideal"]["mdsc"] - table["attack.learned"]["mdsc"], abs=1e-3
    )
    assert cell["recovery"]["value"] == table["recovery"]["value"]


def test_each_segmenter_may_have_its_own_attacker(transfer, monkeypatch):
    text, folder, (models, players, config, attacks, _) = transfer
    with pytest.raises(ConfigError, match="2 models to transfer between need one folder of agents, or one"):
        run_transfer(models, players * 3, config, attacks, RunFolder(folder))
    played = []
    before = measure_module.Bench._stage

    def record(bench, name, *rest):
        played.append(name)
        return before(bench, name, *rest)

    monkeypatch.setattr(measure_module.Bench, "_stage", record)
    assert run_transfer(*transfer[2], progress=False) == text
    assert played == []
    pairs = [players[0], contestant(2)]
    other = run_transfer(models, pairs, config, ("learned",), RunFolder(folder), progress=False)
    assert "never looks" not in other
    assert attacked("learned", models[1]) in played
    assert attacked("learned", models[0]) not in played
