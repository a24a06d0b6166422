import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppd_agents import cli, doctor
from ppd_agents.defender import Defender
from ppd_agents.dqn.agent import Agent, load_agent, save_agent
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.refining import read_points
from ppd_env.errors import PPDError
from ppd_env.features.registry import load_features
from ppd_env.scenes import reading


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def agents(folder):
    import torch

    for role in ("attacker", "defender"):
        network = GraphQNetwork(QNetworkConfig(role=role, hidden=8), torch.Generator().manual_seed(1))
        save_agent(Agent(network, "fake", load_features("fake").signature, 8, 10.0), folder / role)
    return folder


@pytest.fixture
def picture(tmp_path):
    image = np.full((48, 64, 3), 40, np.uint8)
    image[10:30, 12:40] = (200, 180, 20)
    cv2.imwrite(str(tmp_path / "picture.png"), image)
    prompts = {"points": [[20, 20], [50, 40], [55, 8]], "labels": [1, 0, 1]}
    (tmp_path / "points.json").write_text(json.dumps(prompts))
    return tmp_path / "picture.png"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("data", "check", "nowhere://x"), "nowhere://x"),
        (("run", "--name", "../outside"), "plain folder name"),
        (("train", "--device", "abacus"), "'abacus' cannot be used"),
        (("train", "--settings", "device=abacus"), "'abacus' cannot be used"),
        (("evaluate", "--agents", "no/such/folder"), "run `ppd run` first, or pass --agents FOLDER"),
        (("evaluate",), "runs/default/training/attacker holds no agent: run `ppd run` first"),
        (("refine", "no.png", "--points", "no.json", "--out", "out"), "no.png: does not exist"),
        (("refine", ".", "--points", "no.json", "--out", "out"), "is a folder"),
        (("run", "--seed", "-1"), "seed must be at least 0"),
        (("train", "--scenes", "nowhere://x"), "nowhere://x"),
        (("evaluate", "--suite", "controls", "--other-seeds", "0"), "--other-seeds from 1 on"),
        (
            ("evaluate", "--suite", "controls", "--sections"),
            "at least one of --training-seeds and --sections",
        ),
    ],
)
def test_errors_are_one_sentence_and_code_2(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert says in err
    assert err.startswith("ppd: ")
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err


def test_unknown_commands_and_options_are_refused(capsys):
    for arguments in (("fly",), ("run", "--speed", "9"), ("run", "--wandb", "yes"), ()):
        code, _, _ = run(capsys, *arguments)
        assert code == 2


def test_importing_the_command_line_is_light():
    heavy = "('torch', 'stable_baselines3', 'cv2')"
    light = f"import sys, ppd_agents.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_module_and_command_are_the_same():
    found = subprocess.run(
        [sys.executable, "-m", "ppd_agents", "--help"], capture_output=True, text=True, check=True
    )
    for name in ("run", "train", "evaluate", "refine", "encode", "data", "doctor"):
        assert name in found.stdout


def test_data_check_counts_and_writes(capsys, tmp_path):
    target = tmp_path / "found.json"
    code, out, _ = run(capsys, "data", "check", "shapes://test?count=3", "--json", target)
    assert code == 0
    assert "3 usable scenes in 3 groups, 0 broken" in out
    found = json.loads(target.read_text())
    assert found["usable"] == 3
    assert found["sides"] == [256, 256]
    assert 0 < found["foreground"][0] <= found["foreground"][1] <= found["foreground"][2] < 1


def test_data_check_names_what_is_broken(capsys, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, mask in (("good", np.eye(20) * 255), ("empty", np.zeros((20, 20)))):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full((20, 20, 3), 90, np.uint8))
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), mask.astype(np.uint8))
    code, out, _ = run(capsys, "data", "check", f"folder://{tmp_path}?images=images&masks=masks")
    assert code == 1
    assert "1 usable scenes in 1 groups, 1 broken" in out
    assert "empty.png" in out


def test_evaluate_prints_tables_and_writes_the_result(capsys, tmp_path):
    target = tmp_path / "result.json"
    code, out, _ = run(
        capsys,
        *("evaluate", "--agents", agents(tmp_path / "trained"), "--segmenter", "fake", "--json", target),
        *("--scenes", "shapes://test?count=3", "--budgets", "2", "--oracle-scenes", "2"),
    )
    assert code == 0
    result = json.loads(target.read_text())
    assert result["command"] == "evaluate"
    row = result["results"]["shapes://test?count=3"]["2"]["defence.learned"]
    assert f"{row['mdsc']:.1f}" in out
    assert "Learned defence" in out


def test_refine_writes_mask_points_and_overlay(capsys, tmp_path, picture):
    defender = agents(tmp_path / "trained") / "defender"
    out_folder = tmp_path / "out"
    code, out, err = run(
        capsys,
        *("refine", picture, "--points", tmp_path / "points.json", "--out", out_folder),
        *("--defender", defender, "--segmenter", "fake"),
    )
    assert code == 0, err
    mask = cv2.imread(str(out_folder / "mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (48, 64)
    assert set(np.unique(mask)) <= {0, 255}
    kept = json.loads((out_folder / "points.json").read_text())
    assert len(kept["points"]) == len(kept["labels"])
    assert len(kept["points"]) + len(kept["removed"]) == 3
    assert 1 in kept["labels"]
    assert cv2.imread(str(out_folder / "overlay.png")).ndim == 3
    assert f"{len(kept['points'])} of 3 prompts stay" in out
    assert f"Defender: {defender}" in out
    given = json.loads((tmp_path / "points.json").read_text())["points"]
    assert all(point in given for point in kept["points"])
    again, _, _ = run(
        capsys,
        *("refine", picture, "--points", out_folder / "points.json", "--out", tmp_path / "twice"),
        *("--defender", defender, "--segmenter", "fake"),
    )
    assert again == 0


def test_refine_takes_matched_prompts_by_their_own_rule(capsys, tmp_path, picture):
    folder = agents(tmp_path / "trained") / "defender"
    save_agent(replace(load_agent(folder), least_gain=9.0, further_gain=9.0), folder)
    points, labels = read_points(tmp_path / "points.json")
    kept = {}
    for name, further in (("clicked", ()), ("matched", ("--matched",))):
        given = ("refine", picture, "--points", tmp_path / "points.json", "--out", tmp_path / name)
        code, _, err = run(capsys, *given, "--defender", folder, "--segmenter", "fake", *further)
        assert code == 0, err
        kept[name] = read_points(tmp_path / name / "points.json")[0].tolist()
    assert kept["clicked"] == points.tolist()
    cleaner = Defender.load(folder, matched=True)
    found = cleaner.refine(cv2.imread(str(picture))[..., ::-1].copy(), points, labels)
    assert kept["matched"] == found.points.tolist()
    assert 0 < len(found.points) < 3


def test_refine_answers_in_the_pixels_of_a_large_image(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_SIDE", 40)
    cv2.imwrite(str(tmp_path / "large.png"), np.full((50, 100, 3), 90, np.uint8))
    points = [[99.99, 49.99], [80, 25], [3, 3]]
    (tmp_path / "points.json").write_text(json.dumps({"points": points, "labels": [1, 0, 0]}))
    given = ("refine", tmp_path / "large.png", "--points", tmp_path / "points.json", "--segmenter", "fake")
    given += ("--defender", agents(tmp_path / "trained") / "defender", "--out")
    code, _, err = run(capsys, *given, tmp_path / "out")
    assert code == 0, err
    assert cv2.imread(str(tmp_path / "out" / "mask.png"), cv2.IMREAD_UNCHANGED).shape == (50, 100)
    told = json.loads((tmp_path / "out" / "points.json").read_text())
    assert all(point in points for point in told["points"] + [one["point"] for one in told["removed"]])
    (tmp_path / "points.json").write_text('{"points": [[101, 3]], "labels": [1]}')
    code, _, err = run(capsys, *given, tmp_path / "out")
    assert code == 2
    assert "100 pixels wide and 50 high" in err


def test_refine_does_not_write_over_what_it_was_given(capsys, tmp_path, picture):
    before = (tmp_path / "points.json").read_text()
    code, _, err = run(capsys, "refine", picture, "--points", tmp_path / "points.json", "--out", tmp_path)
    assert code == 2
    assert "would be written over" in err
    for name in ("mask.png", "overlay.png"):
        image = shutil.copy(picture, tmp_path / name)
        code, _, err = run(capsys, "refine", image, "--points", tmp_path / "p.json", "--out", tmp_path)
        assert code == 2
        assert f"{name} would be written over" in err
    assert (tmp_path / "points.json").read_text() == before


def test_refine_says_where_it_cannot_write(capsys, tmp_path, picture):
    (tmp_path / "taken").write_text("a file")
    code, _, err = run(
        capsys, "refine", picture, "--points", tmp_path / "points.json", "--out", tmp_path / "taken"
    )
    assert code == 2
    assert "cannot be written to" in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[1, 2]]", "must hold"),
        ("{", "not JSON"),
        ('{"points": [[1, 2]]}', "must hold"),
        ('{"points": [[1, 2]], "labels": [1, 0]}', "labels of shape (2,)"),
        ('{"points": [[1, 2]], "labels": 1}', "labels of shape ()"),
        ('{"points": [[1, 2]], "labels": [3]}', "labels must be"),
        ('{"points": [[1, 2]], "labels": [1], "signs": []}', "nothing else"),
        ('{"points": [[1, 200]], "labels": [1]}', "outside the image"),
        ('{"points": [], "labels": []}', "holds no points"),
        ('{"points": [[1, 1%s]], "labels": [1]}' % ("0" * 400), "with numbers"),
        ('{"points": [[1, 1%s]], "labels": [1]}' % ("0" * 5000), "not JSON"),
    ],
)
def test_refine_explains_bad_points(capsys, tmp_path, picture, text, says):
    (tmp_path / "points.json").write_text(text)
    defender = agents(tmp_path / "trained") / "defender"
    code, _, err = run(
        capsys,
        *("refine", picture, "--points", tmp_path / "points.json", "--out", tmp_path / "out"),
        *("--defender", defender, "--segmenter", "fake"),
    )
    assert code == 2
    assert says in err
    assert not (tmp_path / "out").exists()


def test_refine_says_how_to_get_a_defender(capsys, tmp_path, picture, monkeypatch):
    import ppd_agents.shipped as shipped

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "WEIGHTS", Path("nothing"))
    code, _, err = run(
        capsys, "refine", picture, "--points", tmp_path / "points.json", "--out", "out", "--segmenter", "fake"
    )
    assert code == 2
    assert "ppd run" in err


def test_doctor_reports_what_fails(capsys, monkeypatch, tmp_path):
    def broken():
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "_mini", broken)
    target = tmp_path / "doctor.json"
    code, out, _ = run(capsys, "doctor", "--json", target)
    assert code == 1
    assert "BAD  embedded weights     libGL.so.1" in out
    found = json.loads(target.read_text())
    assert not found["embedded weights"]["ok"]
    assert found["torch"]["ok"]
    assert found["opencv-python"]["ok"]


@pytest.mark.parametrize(("handler", "resumes"), [(cli.Run, True), (cli.Evaluate, False)])
def test_an_interruption_promises_only_what_holds(capsys, monkeypatch, handler, resumes):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._HANDLERS, handler, interrupted)
    code, _, err = run(capsys, handler.__name__.lower())
    assert code == 130
    assert ("goes on where it stopped" in err) == resumes


@pytest.mark.parametrize("given", [True, False])
def test_damaged_checkpoints_are_skipped_only_when_asked(capsys, monkeypatch, tmp_path, given):
    asked = []

    def train(*_, skip_damaged, **__):
        asked.append(skip_damaged)
        raise PPDError("enough.")

    monkeypatch.setattr("ppd_agents.training.adversarial.train_adversarial", train)
    monkeypatch.setattr("ppd_agents.pipeline.train_adversarial", train)
    for command in ("run", "train"):
        run(capsys, command, "--runs", tmp_path, *(["--skip-damaged"] if given else []))
    assert asked == [given, given]
