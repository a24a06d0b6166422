"""The benchmark measures what it says: turns, ratios, operations, and the same work on both sides."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_sam
import torch
import tyro

from ppd_agents.bench_command import Bench, run_bench_command
from ppd_agents.dqn.transition_store import TransitionStore
from ppd_agents.speed import bench, growing, official
from ppd_agents.speed.clock import Job, Timing, growth, take_turns
from ppd_agents.speed.decoding import decode_flops
from ppd_agents.speed.machine import product_jobs
from ppd_agents.speed.subjects import (
    ConstantSegmenter,
    Subject,
    draw_prompts,
    draw_removals,
    open_subjects,
    put_prompts,
    subject_bank,
    subject_segmenter,
    tiled,
    write_scenes,
)
from ppd_agents.speed.table import bench_text, growth_table, limits_table, performance_table
from ppd_env.errors import ConfigError
from ppd_env.game_batch import GameBatch
from ppd_env.segmenters.sam import checkpoint
from ppd_env.simulator import Simulator

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[1] / "golden" / "bench.json"


def test_jobs_take_turns_and_long_ones_fewer():
    seen = []
    jobs = {
        "a": Job(lambda: seen.append("a"), prepare=lambda: seen.append("before a")),
        "b": Job(lambda: seen.append("b"), units=4, repeats=1),
    }
    found = take_turns(jobs, 2, CPU)
    assert seen == ["before a", "a", "b"] * 2 + ["before a", "a"]
    assert [len(found[name].rounds) for name in "ab"] == [2, 1]


def test_ratios_are_taken_round_by_round():
    slow, fast = Timing((2.0, 20.0, 4.0)), Timing((1.0, 10.0, 1.0))
    assert slow.over(fast) == 2
    assert slow.to_json()["seconds"] == 4
    assert fast.over(Timing((2.0,))) == 0.5


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_fitted_growth_is_that_of_a_power(exponent):
    sizes = [1, 7, 64]
    assert growth(sizes, [3 * size**exponent for size in sizes]) == pytest.approx(exponent)


def test_products_are_counted_and_small_enough():
    jobs = product_jobs(CPU, 64)
    assert {job.units % (2 * 64**3) for job in jobs.values()} == {0}
    assert min(job.units for job in jobs.values()) > 2 * 64**3  # small ones are timed together


def test_drawn_removals_are_legal(make_games, rng):
    games = make_games(size=4, attacking=False, invalid_action="raise")
    status = draw_prompts(4, games.nodes, 9, rng)
    assert ((status == 1).sum(1) == 5).all()
    games.status[:] = torch.from_numpy(status)
    for move in draw_removals(status, 8, rng):
        games.step(torch.from_numpy(move))
    assert (games.status != 0).sum(dim=1).tolist() == [1] * 4
    with pytest.raises(ConfigError, match="9 removals"):
        draw_removals(status, 9, rng)


def test_a_repeated_bank_plays_as_the_bank_it_repeats(tiny_simulator, make_games):
    bank = tiled(tiny_simulator.bank, 3)
    assert len(bank) == 3 * len(tiny_simulator.bank)
    games, large = make_games(size=2), GameBatch(Simulator(bank, tiny_simulator.segmenter), 2)
    rows = games.rows + 2 * len(tiny_simulator.bank)
    large.begin(games.everyone(), rows, games.status, games.steps_left, games.attacking)
    assert torch.equal(large.dice, games.dice)
    assert torch.equal(large.legal(), games.legal())


def test_a_constant_answer_takes_the_segmenters_place(make_games, tiny_simulator, rng):
    games = make_games(size=3)
    games.simulator = Simulator(tiny_simulator.bank, tiny_simulator.segmenter)
    status = draw_prompts(3, games.nodes, 9, rng)
    put_prompts(games, status, ConstantSegmenter(tiny_simulator.segmenter))
    assert torch.equal(games.status, torch.from_numpy(status))
    games.step(games.legal().int().argmax(dim=1))
    assert games.predicted_iou.eq(0.5).all()
    put_prompts(games, status, tiny_simulator.segmenter)
    games.step(games.legal().int().argmax(dim=1))
    assert games.predicted_iou.ne(0.5).any()


@pytest.fixture
def tiny_architecture(monkeypatch):
    monkeypatch.setitem(checkpoint.ARCHITECTURES, "tiny", tiny_sam.TINY)


@pytest.fixture
def subject(tiny_architecture, tmp_path):
    scenes = write_scenes(tmp_path / "scenes", 1)
    found, _ = open_subjects(["tiny"], tmp_path, scenes, "cpu")
    assert found[0].name == "tiny"
    return found[0]


@pytest.mark.parametrize("with_predictor", [False, True])
def test_the_users_loop_does_the_work_of_a_step(subject, with_predictor):
    """``predict``, the official modules called as it calls them, and our environment draw the same masks."""
    predictor = official.sam_predictor() if with_predictor else None
    if with_predictor and predictor is None:
        pytest.skip("SamPredictor needs a torchvision that can be imported: pip install torch torchvision")
    bank = subject_bank(subject, "cpu")
    scene = bank.raw(0)
    assert scene.image.shape == (768, 1024, 3)
    loop = official.users_loop(subject.official, scene.image, scene.mask, predictor)
    simulator = Simulator(bank, subject_segmenter(subject, "cpu"))
    status = torch.from_numpy(draw_prompts(1, simulator.nodes, 12, np.random.default_rng(0)))
    [ours] = simulator.native_masks(torch.tensor([0]), status)
    chosen = status[0].nonzero().squeeze(1)
    labels = (status[0, chosen] == 1).long().numpy()
    theirs = loop.predict(bank.points[0, chosen].numpy(), labels)
    assert theirs.shape == ours.shape == scene.mask.shape
    assert 0.01 < theirs.mean() < 0.99
    assert (theirs == ours).mean() > 0.97
    assert loop.score(bank.points[0, chosen].numpy(), labels) > 0
    assert "SamPredictor.predict" in loop.measured
    assert ("pip install torchvision" in loop.measured) is not with_predictor


def test_operations_are_those_of_the_matrix_products(subject):
    few, more = (decode_flops(subject, "cpu", points) for points in (4, 24))
    sizes = tiny_sam.SIZES
    # Per further point and layer, at least the token's MLP and its four projections.
    assert more - few >= 20 * sizes.layers * 2 * (2 * sizes.dim * sizes.mlp + 4 * sizes.dim * sizes.dim)
    assert few > sizes.cells**2 * sizes.dim**2


def test_everything_is_measured_in_one_run(tiny_architecture, monkeypatch):
    config = bench.BenchConfig(
        segmenters=("tiny",),
        games=(1, 2),
        points=6,
        rounds=2,
        few=1,
        steps=2,
        images=1,
        prompts=(1, 5),
        grids=(5, 6),
        banks=(1, 2),
        replays=(300, 600),
        product=32,
        decode_batch=2,
        learner_games=0,
    )
    monkeypatch.setattr(growing, "_PROMPTS", 6)
    result = json.loads(json.dumps(bench.run_bench(config, "ppd bench")))
    results = result["results"]
    found = results["segmenters"]["tiny"]
    assert set(found["steps"]) == set(found["overhead"]) == {"single", "1", "2"}
    assert all(share > 0 for share in found["overhead"].values())
    loop, step = found["loop"], found["steps"]["2"]
    assert loop["fastest"] / step["slowest"] <= step["times_loop"] <= loop["slowest"] / step["fastest"]
    assert set(found["decode"]) == {"1", "2"}
    assert set(results["growth"]) >= {
        "prompts tiny",
        "grid full",
        "grid compact",
        "bank",
        "replay",
        "batch tiny",
    }
    assert results["growth"]["bank"]["sizes"] == [1, 2]
    assert "tiny bfloat16" in {*results["unavailable"], *results["segmenters"]}
    assert results["memory"]["bytes_per_transition"]["1600"] == TransitionStore(64, 1600).bytes_per_transition
    assert result["machine"]["threads"] == torch.get_num_threads()
    assert "tiny" in bench_text(result)


def test_tables_are_those_of_a_recorded_result():
    result = json.loads(GOLDEN.read_text())
    tables = "\n\n".join(table(result) for table in (performance_table, limits_table, growth_table))
    assert tables + "\n" == GOLDEN.with_suffix(".md").read_text()


def test_what_is_missing_is_told():
    text = bench_text(json.loads(GOLDEN.read_text()))
    assert "vit_b bfloat16: not available" in text
    assert "SamPredictor.predict" in text
    assert "Some CPU; 2 cores, 2 threads" in text


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="Unknown segmenter 'vit_x'"):
        bench.BenchConfig(segmenters=("vit_x",))
    with pytest.raises(ConfigError, match="at least 1"):
        bench.BenchConfig(rounds=0)
    with pytest.raises(ConfigError, match="points"):
        bench.BenchConfig(points=3)
    assert bench.quick(bench.BenchConfig(points=33)).points == 33


def test_options():
    options = tyro.cli(Bench, args=["--quick", "--segmenters", "mini", "--json", "out.json"])
    assert options == Bench(quick=True, segmenters=("mini",), json=Path("out.json"))


@pytest.mark.parametrize(
    ("options", "measured"),
    [
        (Bench(), ("mini", "vit_b", "vit_h")),
        (Bench(quick=True), ("mini", "vit_b")),
        (Bench(quick=True, segmenters=("vit_h",), games=(2,), rounds=1), ("vit_h",)),
    ],
)
def test_what_is_measured_by_default(options, measured, monkeypatch, capsys):
    asked = []
    recorded = json.loads(GOLDEN.read_text())
    monkeypatch.setattr(bench, "run_bench", lambda config, command: asked.append(config) or recorded)
    assert run_bench_command(options) == 0
    assert asked[0].segmenters == measured
    assert asked[0].games == (options.games or ((1, 8) if options.quick else (1, 8, 64, 256)))
    assert "env steps/s" in capsys.readouterr().out


def test_subjects_without_their_package_are_told(monkeypatch, tmp_path):
    def refuse(name):
        raise ConfigError("needs segment-anything")

    monkeypatch.setattr("ppd_agents.speed.subjects.official_sam", refuse)
    assert open_subjects(["vit_b"], tmp_path, "tiny://", "cpu") == ([], {"vit_b": "needs segment-anything"})
    assert Subject("mini", "mini", "tiny://").official is None
