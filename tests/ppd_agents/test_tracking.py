"""What offline W&B runs hold, read from their own files."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("wandb", reason="the extra [agents] brings wandb")

import cv2
from tiny_training import tiny
from wandb_files import artifacts, history, records

from ppd_agents.evaluation.settings import EvaluationConfig
from ppd_agents.pipeline import RunConfig, run_all
from ppd_agents.tracking import parse_changes, sweep_name, tracking
from ppd_agents.training.adversarial import train_adversarial
from ppd_agents.training.callbacks import open_wandb
from ppd_env.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb-own"))


def files(folder):
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


def train(config, folder, on_round=None):
    with tracking(config, folder) as tracker:
        result = train_adversarial(config, folder, resume=True, on_round=on_round or tracker.on_round)
        tracker.trained(result)
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run with W&B offline: the training's folder and the result."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("run")
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        patch.setenv(f"WANDB_{name}", str(folder / "wandb-own"))
    evaluation = EvaluationConfig(
        scenes=("shapes://test?count=3",), budgets=(2,), oracle_scenes=2, resamples=20
    )
    result = run_all(RunConfig(tiny(rounds=2, wandb="offline"), evaluation), folder, lambda _: None)
    patch.undo()
    return folder / "training", result


def test_curves_galleries_and_tables_are_in_the_file(finished):
    folder, result = finished
    (file,) = files(folder)
    logged = list(history(file))
    for number in (1, 2):
        (line,) = [one for one in logged if one.get("round") == number and "round/decodes" in one]
        assert line["round/defender/dice_after"] == result["history"][number - 1]["defender/dice_after"]
    assert {one["defender/step"] for one in logged if "defender/round/return" in one}
    (best,) = [one["gallery/best"] for one in logged if "gallery/best" in one]
    assert best["count"] == 4
    picture = cv2.imread(str(file.parent / "files" / best["filenames"][0]))
    assert picture.shape[1] == 3 * 400
    assert "Attacked" in best["captions"][0]
    assert [one for one in logged if any(name.startswith("evaluation/Procedural") for name in one)]


def test_tables_hold_the_numbers_of_the_result(finished):
    folder, result = finished
    (file,) = files(folder)
    (place,) = [one["evaluation/rows"]["path"] for one in history(file) if "evaluation/rows" in one]
    table = json.loads((file.parent / "files" / place).read_text())
    rows = {line[2]: line[3] for line in table["data"]}
    measured = result["results"]["shapes://test?count=3"]["2"]
    assert rows["defence.learned"] == measured["defence.learned"]["mdsc"]
    assert len(rows) >= 8


def test_agents_and_scenes_are_artifacts(finished):
    folder, _ = finished
    found = artifacts(files(folder)[0])
    _, kept = found["model"]
    for role in ("attacker", "defender"):
        assert {f"{role}/agent.json", f"{role}/agent.safetensors", f"best/{role}/agent.json"} <= set(kept)
    _, listed = found["dataset"]
    content = json.loads(Path(listed["scenes.json"].local_path).read_text())
    assert len(content["scenes"]) == 12
    assert content["uri"] == "shapes://train?count=12&seed=3"


def test_an_interrupted_training_goes_on_in_the_same_run(tmp_path):
    def interrupted(record):
        if record["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(wandb="offline"), tmp_path, interrupted)
    train(tiny(wandb="offline"), tmp_path)
    first, second = files(tmp_path)
    ids = {
        record.run.run_id for file in (first, second) for record in records(file) if record.HasField("run")
    }
    assert ids == {(tmp_path / "wandb-id.txt").read_text().strip()}
    rounds = [one["round"] for one in history(second) if "round/decodes" in one]
    assert rounds == [3, 4]


def test_watching_changes_nothing(tmp_path):
    watched = train(tiny(rounds=2, wandb="offline"), tmp_path / "watched")
    alone = train_adversarial(tiny(rounds=2), tmp_path / "alone")
    for record in (*watched.history, *alone.history):
        del record["seconds"]
    assert watched.history == alone.history


def test_without_wandb_everything_else_is_there(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    train(tiny(rounds=1, tensorboard=True), tmp_path)
    assert (tmp_path / "history.csv").is_file()
    assert list((tmp_path / "logs" / "defender").glob("events.out.tfevents.*"))
    assert not (tmp_path / "wandb-id.txt").exists()


def test_runs_of_a_sweep_have_folders_of_their_own(monkeypatch):
    assert sweep_name() is None
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "x/1")
    assert sweep_name() == "sweep-x-1"


def test_changes_are_read_as_json():
    found = parse_changes(["gamma=0.5", "--steps=[2,4]", "double=true", "loss=huber"])
    assert found == {"gamma": 0.5, "steps": [2, 4], "double": True, "loss": "huber"}


@pytest.mark.parametrize(
    "text", ["gamma", "speed=3", "gamma=fast", "gamma=NaN", "steps=3", "double=1", "loss=2", "preset=mini"]
)
def test_changes_that_make_no_sense_are_refused(text):
    with pytest.raises(ConfigError, match="--settings"):
        parse_changes([text])


def test_the_sweep_calls_ppd_train_with_fields_it_knows():
    import yaml

    from ppd_agents import cli

    path = Path(cli.__file__).parents[1] / "sweeps" / "mini.yaml"
    sweep = yaml.safe_load(path.read_text())
    middle = {
        name: (given.get("values") or [given.get("min")])[0] for name, given in sweep["parameters"].items()
    }
    words = sweep["command"][2:-1] + [f"{name}={value}" for name, value in middle.items()]
    options = cli._parsed(words)
    assert options.wandb == "online"
    assert parse_changes(options.settings) == middle
    assert sweep["metric"]["name"] == "round/defender/dice_after"


def test_the_service_is_asked_for_the_same_run_and_its_refusal_is_a_sentence(tmp_path, monkeypatch):
    import wandb

    asked = []

    def refuse(**options):
        asked.append((options["mode"], options["id"], options["resume"], options["name"]))
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(wandb, "init", refuse)
    folder = tmp_path / "mine" / "training"
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^W&B cannot be used: No API key.*--wandb offline"):
            open_wandb("online", folder, {})
    kept = (folder / "wandb-id.txt").read_text().strip()
    assert asked == [("online", kept, "allow", "mine")] * 2
    monkeypatch.setenv("WANDB_RUN_ID", "of-a-sweep")
    with pytest.raises(ConfigError):
        open_wandb("online", folder, {})
    assert asked[-1][1] == "of-a-sweep"


def test_a_run_ends_when_the_last_part_has_finished(tmp_path, monkeypatch):
    import wandb

    ended = []

    class Run:
        def define_metric(self, *_, **__):
            pass

        def finish(self):
            ended.append(True)

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    outer = open_wandb("offline", tmp_path, {})
    inner = open_wandb("offline", tmp_path, {})
    assert inner is outer
    inner.finish()
    assert not ended
    outer.finish()
    assert ended == [True]
    another = open_wandb("offline", tmp_path, {})
    assert another is not outer
    another.finish()
