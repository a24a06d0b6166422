import json

import pytest

from ppd_agents import pipeline
from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.pipeline import RunConfig, run_all
from ppd_agents.training.presets import preset
from ppd_env.errors import PPDError

TRAIN = preset(
    "mini",
    scenes="shapes://train?count=8&seed=0",
    segmenter="fake",
    features="fake",
    grid=8,
    rounds=3,
    final_updates=3,
    games=3,
    steps=(2, 3),
    branches=1,
    checkpoint_every=1,
    tensorboard=False,
    progress=False,
)
EVALUATION = EvaluationConfig(
    scenes=("shapes://test?count=4&seed=0",), budgets=(2, 3), oracle_pool=4, oracle_scenes=3, resamples=50
)
CONFIG = RunConfig(TRAIN, EVALUATION, "tiny")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))


def quiet(_):
    return None


def test_a_run_leaves_report_and_numbers(tmp_path):
    said = []
    result = run_all(CONFIG, tmp_path / "run", said.append)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == result
    page = (tmp_path / "run" / "report.html").read_text()
    ideal = result["results"]["shapes://test?count=4&seed=0"]["2"]["ideal"]["mdsc"]
    assert f"{ideal:.1f}" in page
    assert "Dice on training scenes" in page
    assert "shapes-test-0-" in page
    assert [record["round"] for record in result["history"]] == [1, 2, 3]
    (shown,) = result["gallery"]
    for scene in shown["scenes"]:
        assert scene["name"] in page
        for panel in ("Ideal", "Attacked", "Defended"):
            assert f"<span>{panel}</span><b>{scene[panel]:.1f}</b>" in page
    assert len(shown["scenes"]) == 4
    assert result["config"]["train"]["rounds"] == 3
    assert result["config"]["train_scenes"].startswith("shapes-")
    assert [line[:3] for line in said] == ["1/3", "2/3", "3/3"]


def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path, monkeypatch):
    whole = run_all(CONFIG, tmp_path / "whole", quiet)

    rounds = []
    train = pipeline.train_adversarial

    def interrupted(config, folder, *, on_round, **options):
        def counting(record):
            on_round(record)
            rounds.append(record["round"])
            if len(rounds) == 2:
                raise KeyboardInterrupt

        return train(config, folder, on_round=counting, **options)

    monkeypatch.setattr(pipeline, "train_adversarial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_all(CONFIG, tmp_path / "halves", quiet)
    spent = json.loads((tmp_path / "halves" / "time.json").read_text())["seconds"]
    resumed = run_all(CONFIG, tmp_path / "halves", quiet)
    assert rounds == [1, 2, 3]
    assert resumed["results"] == whole["results"]
    assert resumed["seconds"] >= spent


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    first = run_all(CONFIG, tmp_path / "run", quiet)
    agents = {p: p.read_bytes() for p in (tmp_path / "run" / "training").glob("*/agent.safetensors")}
    assert len(agents) == 2
    again = run_all(CONFIG, tmp_path / "run", quiet)
    assert again["results"] == first["results"]
    assert all(path.read_bytes() == weights for path, weights in agents.items())


def test_another_seed_under_the_same_name_is_refused(tmp_path):
    run_all(CONFIG, tmp_path / "run", quiet)
    other = RunConfig(preset("mini", **{**TRAIN.to_json(), "seed": 5}), EVALUATION, "tiny")
    with pytest.raises(PPDError, match="seed"):
        run_all(other, tmp_path / "run", quiet)


def test_evaluation_uses_the_models_of_the_training():
    measured = CONFIG.measured()
    assert (measured.segmenter, measured.features, measured.grid, measured.seeds) == ("fake", "fake", 8, (0,))
    assert measured.budgets == (2, 3)
