import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ppd_agents import cli
from ppd_agents.cleaning import clean_nodes
from ppd_agents.contestants import (
    RIVALS,
    Contestant,
    load_contestant,
    refuse_mixed,
    train_contestant,
    with_leading_rivals,
)
from ppd_agents.dqn.agent import Agent, save_agent
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.evaluate_command import Evaluate, evaluation_config
from ppd_agents.evaluation import measure as measure_module
from ppd_agents.evaluation.cleaners import cleaners
from ppd_agents.evaluation.rollouts import generators
from ppd_agents.evaluation.rows import ROWS, keep_true_signs
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.report.text import text_tables
from ppd_agents.suite import FIRST_ONLY, MAIN_ONLY, find_scenes, run_suite, sections
from ppd_agents.training.presets import preset
from ppd_env.errors import ConfigError, PPDError
from ppd_env.features.registry import load_features
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE

SHAPES = "shapes://test?count=4&seed=1"
NAMES = [*cleaners("jittered")]
CONFIG = EvaluationConfig(
    scenes=(SHAPES,),
    segmenter="fake",
    features="fake",
    grid=8,
    budgets=(4,),
    oracle_pool=4,
    oracle_scenes=2,
    resamples=50,
)


def quiet(_):
    return None


def agent(role, seed):
    network = GraphQNetwork(QNetworkConfig(role=role, hidden=8), torch.Generator().manual_seed(seed))
    notes = {"config": {"seed": seed}}
    return Agent(network.eval(), "fake", load_features("fake").signature, 8, 10.0, notes=notes)


def contestant(seed, **rivals):
    return Contestant(seed, agent("attacker", seed), agent("defender", seed), rivals)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two of the real folders, with a few small images each, the second one in classes."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, stems in (("kvasir_seg", ("a", "b", "c")), ("fss1000", ("cat/1", "cat/2"))):
        for stem in stems:
            image, mask = rng.integers(0, 80, (24, 32, 3), dtype=np.uint8), np.zeros((24, 32), np.uint8)
            mask[4:16, 8:20] = 255
            image[mask > 0] += 150
            for kind, values in (("images", image), ("masks", mask)):
                path = root / name / kind / f"{stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), values)
    return root


def test_matched_prompts_are_cleaned_by_the_rule_for_them(small_simulator):
    one = contestant(3)
    rng = np.random.default_rng(0)
    rows = torch.arange(12)
    status = torch.from_numpy((rng.integers(0, 3, (12, 64)) * (rng.random((12, 64)) < 0.6)).astype(np.int8))
    row = one.rows(CONFIG)["matching.learned"]
    found = row.mover(small_simulator, rows, status, (2, 5), generators(0, range(12), 0), "")
    expected = clean_nodes(one.defender.for_matched(), small_simulator, rows, status)
    assert found[2].equal(expected)
    assert found[5].equal(expected)
    assert not expected.equal(clean_nodes(one.defender, small_simulator, rows, status))
    clean = one.rows(CONFIG)["clean.matched"]
    assert clean.start == "ideal"
    assert clean.mover(small_simulator, rows, status, (2,), generators(0, range(12), 0), "")[2].equal(
        expected
    )


def test_the_bound_of_matched_prompts_keeps_those_of_the_true_sign(small_simulator):
    truth = small_simulator.bank.truth[:3]
    status = torch.where(truth, POSITIVE, NEGATIVE).to(torch.int8)
    status[1, :32] = POSITIVE
    status[2] = torch.where(truth[2], NEGATIVE, POSITIVE)
    found = keep_true_signs(small_simulator, torch.arange(3), status, 1, ())
    assert found[0].equal(status[0])
    assert found[1].equal(torch.where(truth[1] == (status[1] == POSITIVE), status[1], INACTIVE))
    assert found[2].equal(torch.where(truth[2], INACTIVE, status[2]))  # no positive one is right: they stay


@pytest.fixture(scope="module")
def suite(tmp_path_factory, data):
    """A whole suite of two seeds on three sets of scenes, its folder, and what it was made of."""
    folder = tmp_path_factory.mktemp("suite")
    seeds = [contestant(3, rival=agent("defender", 8)), contestant(4)]
    scenes = find_scenes((SHAPES,), data)
    config = replace(CONFIG, scenes=tuple(scenes.uris.values()))
    parts = sections(config, ("main", "lattice", "transfer"), ("fake+segmenter",))
    said = []
    result = run_suite(seeds, parts, scenes, folder, said.append, progress=False)
    return result, folder, (seeds, parts, scenes), said


def test_every_control_has_its_rows(suite):
    result = suite[0]
    assert list(result["results"]) == [SHAPES, "kvasir_seg", "fss1000"]
    expected = {*ROWS, "clean.random", "matching", "matching.learned"}
    expected |= {"matching.subsample", "matching.true_signs", "clean.matched"}
    expected |= {f"{kind}.{name}" for kind in ("defence", "clean") for name in [*NAMES, "rival"]}
    for budgets in result["results"].values():
        assert list(budgets) == ["4"]
        for table in budgets.values():
            rows = {name for name, row in table.items() if "mdsc" in row}
            assert rows == expected
            defences = {name for name in expected if name.startswith("defence.")} - {"defence.learned"}
            assert set(table["recovery"]["controls"]) == defences
            assert "clean.count" in table["clean_change"]["controls"]
            assert list(table["matching_change"]["controls"]) == [
                "matching.subsample",
                "matching.true_signs",
            ]
            once = {*FIRST_ONLY, "defence.rival", "clean.rival"}
            assert {row: len(table[row]["per_seed"]) for row in rows} == {
                row: 1 if row in once else 2 for row in rows
            }
            rival = table["recovery"]["controls"]["defence.rival"]["paired"]["attack.learned"]
            assert rival == pytest.approx(table["attack.learned"]["per_seed"][0]["mdsc"], abs=1e-3)


def test_seeds_are_training_seeds_and_share_what_depends_on_no_agent(suite):
    result = suite[0]
    assert result["seeds"] == [3, 4]
    table = result["results"][SHAPES]["4"]
    for row in ("ideal", "attack.random", "attack.oracle", "clean.count", "matching", "matching.true_signs"):
        assert table[row]["per_seed"][0] == table[row]["per_seed"][1]
    for row in ("attack.learned", "defence.learned"):
        assert table[row]["per_seed"][0] != table[row]["per_seed"][1]
    shared = {path.name for path in (suite[1] / "main" / "shared").glob("*.npz")}
    assert any("attack.oracle" in name for name in shared)
    assert not any("learned" in name or "defence" in name for name in shared)


def test_a_suite_goes_on_where_it_stopped(suite, monkeypatch):
    result, folder, made_of, _ = suite

    def explode(*_):
        raise AssertionError("a finished stage was played again")

    with monkeypatch.context() as patch:
        patch.setattr(measure_module.Bench, "_stage", explode)
        again = run_suite(*made_of, folder, quiet, progress=False)
        assert {**again, "seconds": 0} == {**result, "seconds": 0}
        seeds, parts, scenes = made_of
        with pytest.raises(AssertionError, match="played again"):
            run_suite([seeds[0], contestant(5)], parts, scenes, folder, quiet)
        played = []

        def record(bench, name, *_):
            played.append(name)
            raise AssertionError("only another rival's rows are played again")

        patch.setattr(measure_module.Bench, "_stage", record)
        with pytest.raises(AssertionError, match="another rival"):
            run_suite([contestant(3, rival=agent("defender", 6)), seeds[1]], parts, scenes, folder, quiet)
        assert played == ["defence.rival"]


def test_sections_differ_from_the_main_one_by_their_settings(suite):
    result = suite[0]
    assert list(result["sections"]) == ["lattice", "transfer fake+segmenter"]
    lattice, transfer = result["sections"].values()
    assert lattice["settings"]["layout"] == "lattice"
    assert transfer["settings"]["features"] == "segmenter"
    main = result["results"][SHAPES]["4"]
    assert set(main) - set(lattice["results"][SHAPES]["4"]) == {*MAIN_ONLY, "way", "matching_change"}
    assert lattice["results"][SHAPES]["4"]["ideal"] != main["ideal"]
    assert transfer["results"][SHAPES]["4"]["ideal"] == main["ideal"]
    assert transfer["results"][SHAPES]["4"]["attack.learned"] != main["attack.learned"]


def test_fewer_seeds_play_elsewhere_and_what_decodes_most_plays_once(suite):
    _, folder, made_of, _ = suite
    result = run_suite(*made_of, folder, quiet, other_seeds=1, progress=False)
    main, lattice = result["results"], result["sections"]["lattice"]
    assert lattice["settings"]["seeds"] == [3]
    for row, seeds in (("defence.learned", 2), ("defence.leave_one_out", 1), ("defence.oracle", 1)):
        assert len(main[SHAPES]["4"][row]["per_seed"]) == seeds
    assert len(lattice["results"][SHAPES]["4"]["defence.learned"]["per_seed"]) == 1


def test_real_folders_are_averaged_and_absent_ones_named(suite, data):
    result, said = suite[0], suite[3]
    assert result["config"]["absent"] == ["isic2018", "coco200", "persam_examples"]
    assert "isic2018" in said[0]
    assert str(data) not in json.dumps(result)
    table = result["averages"]["real folders"]["4"]
    both = [result["results"][name]["4"] for name in ("kvasir_seg", "fss1000")]
    for row in ("ideal", "defence.learned", "attack.oracle"):
        assert table[row]["mdsc"] == pytest.approx(np.mean([one[row]["mdsc"] for one in both]), abs=1e-3)
    assert table["ideal"]["n"] == 5
    named = dict(zip(("kvasir_seg", "fss1000"), both, strict=True))
    kept = [name for name, one in named.items() if one["recovery"]["value"] is not None]
    assert table["recovery"]["sets"] == kept


def test_tables_for_the_terminal_show_all_of_it(suite):
    text = text_tables(suite[0])
    for shown in (
        "== lattice ==",
        "mean over real folders, 4",
        "defence.leave_one_out",
        "change of matching",
    ):
        assert shown in text
    control = suite[0]["results"][SHAPES]["4"]["clean_change"]["controls"]["clean.count"]
    assert f"  clean.count{'':13}{control['value']:>6.1f}".replace("-", "\N{MINUS SIGN}") in text


def test_sections_and_data_are_checked(tmp_path):
    for half in ("+fake", "fake+"):
        with pytest.raises(ConfigError, match="segmenter and features"):
            sections(CONFIG, ("transfer",), (half,))
    alone = sections(CONFIG, ("transfer",), ("mini",))[0].config
    assert (alone.segmenter, alone.features) == ("mini", CONFIG.features)
    with pytest.raises(ConfigError, match="no folder"):
        find_scenes((SHAPES,), tmp_path / "nowhere")
    assert find_scenes((SHAPES,), None).absent[0] == "kvasir_seg"


def test_rivals_are_compared_until_a_seed_lacks_them():
    rivals = [agent("defender", seed) for seed in range(5)]
    seeds = [
        contestant(0, a=rivals[0], b=rivals[1]),
        contestant(1, b=rivals[2]),
        contestant(2, a=rivals[3], b=rivals[4]),
    ]
    assert [list(c.rivals) for c in with_leading_rivals(seeds)] == [["a", "b"], ["b"], ["b"]]


def test_loaded_agents_tell_their_training_seed(tmp_path):
    for role in ("attacker", "defender"):
        save_agent(agent(role, 6), tmp_path / "training" / role)
    assert load_contestant(tmp_path / "training", 0, "cpu").seed == 6
    shutil.rmtree(tmp_path / "training" / "attacker")
    shutil.copytree(tmp_path / "training" / "defender", tmp_path / "training" / "attacker")
    with pytest.raises(PPDError, match="attacker holds an agent that is no attacker"):
        load_contestant(tmp_path / "training", 0, "cpu")


def test_agents_of_different_features_are_not_measured_together():
    one = contestant(3)
    refuse_mixed([one, contestant(4)])
    other = replace(one, defender=replace(one.defender, features="mini"))
    with pytest.raises(ConfigError, match="got fake on a grid of 8 and mini on a grid of 8"):
        refuse_mixed([one, other])


def test_agents_are_measured_with_the_segmenter_of_their_training():
    defender = contestant(3).defender
    assert defender.segmenter == "mini"
    trained = replace(defender, notes={"config": {"segmenter": "fake"}})
    for named, expected in ((None, "fake"), ("mini", "mini")):
        config = evaluation_config(Evaluate(segmenter=named), (SHAPES,), trained, "cpu")
        assert (config.segmenter, config.features, config.grid) == (expected, "fake", 8)


def test_the_command_measures_named_agents(capsys, tmp_path):
    for seed in (0, 1):
        for role in ("attacker", "defender"):
            save_agent(agent(role, seed), tmp_path / str(seed) / "training" / role)
    target = tmp_path / "result.json"
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            [
                *("evaluate", "--suite", "controls", "--runs", str(tmp_path / "runs")),
                *("--agents", str(tmp_path / "0" / "training"), str(tmp_path / "1" / "training")),
                *("--scenes", SHAPES, "--segmenter", "fake", "--oracle-scenes", "2", "--budgets", "2"),
                *("--resamples", "20", "--sections", "main", "--json", str(target)),
            ]
        )
    assert stopped.value.code == 0, capsys.readouterr().err
    result = json.loads(target.read_text())
    assert result["seeds"] == [0, 1]
    assert result["averages"] == {}
    assert list(result["results"]) == [SHAPES]
    assert "defence.neighbours" in capsys.readouterr().out


def test_a_contestant_is_trained_once_with_its_rivals(tmp_path, monkeypatch):
    import ppd_agents.methods.maskable_ppo as ppo

    monkeypatch.setattr(ppo, "train_maskable_ppo", lambda config, folder, attacker: agent("defender", 7))
    config = preset(
        "mini",
        scenes="shapes://train?count=4&seed=0",
        segmenter="fake",
        features="fake",
        grid=8,
        rounds=1,
        final_updates=2,
        games=2,
        steps=(2, 2),
        branches=1,
        hidden=8,
        seed=2,
        tensorboard=False,
        progress=False,
    )
    first = train_contestant(config, tmp_path)
    assert first.seed == 2
    assert tuple(first.rivals) == RIVALS
    assert first.rivals["graph_statistics"].notes["config"]["reward"] == "graph-statistics"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint-*/tensors.safetensors")}
    assert len(kept) == 3  # ours before and after the final updates; without suspicion there are none
    again = train_contestant(config, tmp_path)
    assert again.fingerprint == first.fingerprint
    assert again.rivals["graph_statistics"].notes == first.rivals["graph_statistics"].notes
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    save_agent(agent("defender", 7), tmp_path / "maskable_ppo" / "defender")
    assert load_contestant(tmp_path / "training", 0, "cpu").fingerprint == first.fingerprint
    assert list(train_contestant(config, tmp_path, ()).rivals) == []
    with pytest.raises(ConfigError, match="Unknown learned control"):
        train_contestant(config, tmp_path, ("magic",))
