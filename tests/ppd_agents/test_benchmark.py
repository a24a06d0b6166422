"""The benchmark on a tiny world: runs, scores, aggregates, resuming, and runs handed in."""

import dataclasses
import json
import sys

import gymnasium as gym
import numpy as np
import pytest

from ppd_agents import cli
from ppd_agents.benchmark import aggregates, board, protocol, runs
from ppd_agents.benchmark.algorithms import hyperparams, load_algorithm
from ppd_agents.benchmark.players import Idle, Random
from ppd_agents.benchmark.protocol import BenchmarkProtocol, Task
from ppd_agents.benchmark.runs import RunSettings, finished_or_run
from ppd_agents.benchmark.submission import check_run
from ppd_env.errors import ConfigError, EpisodeError, PPDError

TINY = BenchmarkProtocol(
    "tiny",
    (Task("short", {"attack_steps": 4, "defence_steps": 4}), Task("long", {"attack_steps": 6})),
    env_id="PPD-tiny-v0",
    episodes=3,
)


@pytest.fixture(autouse=True, scope="module")
def tiny_id(tiny_kwargs):
    entry = gym.spec("PPD-v0").entry_point
    gym.register("PPD-tiny-v0", entry_point=entry, kwargs=tiny_kwargs)
    yield
    del gym.registry["PPD-tiny-v0"]


@pytest.fixture
def standard(monkeypatch):
    monkeypatch.setattr(protocol, "STANDARD", TINY)


def run_of(name, folder, seed=0, budget=40):
    settings = RunSettings(f"ppd_agents.benchmark.players:{name}", seed, budget, TINY)
    return finished_or_run(settings, folder, progress=False)


def command(*arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(one) for one in arguments])
    return stopped.value.code


def test_scores_are_shares_of_the_harm():
    assert protocol.score([0.9, 0.8], [0.5, 0.2], [0.5, 0.2]) == 0
    assert protocol.score([0.9, 0.8], [0.5, 0.2], [0.9, 0.8]) == pytest.approx(1)
    assert protocol.score([0.9, 0.7], [0.4, 0.2], [0.6, 0.5]) == pytest.approx(0.5)
    assert np.isnan(protocol.score([0.5], [0.5], [0.9]))


def test_doing_nothing_scores_nothing(tmp_path):
    found = run_of("Idle", tmp_path / "idle")["tasks"]
    assert set(found) == {"short", "long"}
    assert all(
        task["score"] == 0 and task["episodes"] == 3 and task["illegal"] == 0 for task in found.values()
    )


@pytest.mark.parametrize("name", ["stable_baselines3:DQN", "sb3_contrib:MaskablePPO", "ppd_agents:MaskedDQN"])
def test_algorithms_of_others_learn_and_are_tested(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules["ppd_agents.benchmark.algorithms"].__dict__, "hyperparams", small(name))
    record = finished_or_run(RunSettings(name, 1, 60, TINY), tmp_path / "run", progress=False)
    assert all(np.isfinite(task["score"]) for task in record["tasks"].values())
    if name != "stable_baselines3:DQN":
        assert all(task["illegal"] == 0 for task in record["tasks"].values())
    check_run(tmp_path / "run", TINY)
    assert command("validate", tmp_path / "run" / "episodes") == 0


def small(name):
    """The settings that ship, made so small that a test learns something."""

    def settings(kind):
        found = hyperparams(kind)
        assert found
        smaller = {"n_steps": 8, "learning_starts": 20, "batch_size": 8, "n_envs": 2, "buffer_size": 50}
        return found | {key: value for key, value in smaller.items() if key in found}

    return settings


def test_an_illegal_action_is_a_stop(tmp_path):
    class Blunderer:
        def train(self, env_id, seed, budget):
            return self

        def act(self, observation, action_mask):
            return int(np.flatnonzero(~action_mask)[0])

    found = runs.play_task(Blunderer(), TINY.tasks[0], TINY, tmp_path)
    assert found["illegal"] == 3
    assert found["score"] == 0
    assert command("validate", tmp_path) == 0


def test_a_policy_may_not_change_the_game(tmp_path):
    policy = Idle()
    policy.view = {"defence_steps": 100}
    with pytest.raises(ConfigError, match="not defence_steps"):
        runs.play_task(policy, TINY.tasks[0], TINY, tmp_path)


def test_a_finished_run_is_taken_as_it_is(tmp_path, monkeypatch):
    first = run_of("Random", tmp_path / "run")
    monkeypatch.setattr(Random, "act", lambda *_: pytest.fail("it was played again"))
    assert run_of("Random", tmp_path / "run") == first
    with pytest.raises(ConfigError, match="other settings"):
        run_of("Random", tmp_path / "run", budget=41)


def test_a_run_that_was_killed_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Random, "act", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_of("Random", tmp_path / "run")
    assert not any(tmp_path.iterdir())


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path):
    one, again, other = (
        run_of("Random", tmp_path / str(number), seed)["tasks"] for number, seed in enumerate((1, 1, 2))
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("DQN", "module:Class"),
        ("stable_baselines3:Nothing", "cannot be imported"),
        ("no_such_package:DQN", "cannot be imported"),
        ("pathlib:Path", "no train"),
        ("fractions:gcd_of_nothing", "cannot be imported"),
        ("ppd_agents.benchmark.algorithms:SB3Policy", "without arguments"),
    ],
)
def test_names_of_no_algorithm_are_refused(name, says):
    with pytest.raises(ConfigError, match=says):
        load_algorithm(name)


def test_a_run_handed_in_must_fit_its_episodes(tmp_path):
    run_of("Random", tmp_path)
    check_run(tmp_path, TINY)
    path = tmp_path / "run.json"
    honest = json.loads(path.read_text())

    def claim(change, says):
        forged = json.loads(json.dumps(honest))
        change(forged)
        path.write_text(json.dumps(forged))
        with pytest.raises(EpisodeError, match=says):
            check_run(tmp_path, TINY)

    claim(lambda r: r["tasks"]["short"].update(score=0.99), "short: its episodes give score")
    claim(lambda r: r["tasks"]["long"].update(episodes=30), "give episodes")
    claim(lambda r: r["tasks"].pop("long"), "its tasks are short")
    claim(lambda r: r.update(fingerprint="x"), "not of the protocol")
    claim(lambda r: r.pop("tasks"), "not whole JSON with tasks")
    path.write_text(json.dumps(honest))
    with pytest.raises(EpisodeError, match="not of the protocol"):
        check_run(tmp_path, dataclasses.replace(TINY, episodes=4))


def test_episodes_of_another_game_or_seed_are_refused(tmp_path):
    run_of("Random", tmp_path)
    short, long = (tmp_path / "episodes" / name for name in ("short", "long"))
    (short / "0001.json").write_text((short / "0000.json").read_text())
    with pytest.raises(EpisodeError, match="seed or scene is not the protocol's"):
        check_run(tmp_path, TINY)
    (short / "0001.json").unlink()
    with pytest.raises(EpisodeError, match="must hold the 3 episodes"):
        check_run(tmp_path, TINY)
    (short / "0001.json").write_text((long / "0001.json").read_text())
    with pytest.raises(EpisodeError, match="played with attack_steps=6, and not 4"):
        check_run(tmp_path, TINY)


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    return {"a": rng.normal(0.3, 0.2, (5, 4)), "b": rng.normal(0.6, 0.2, (5, 4))}


def test_aggregates_are_those_of_rliable(scores):
    try:
        from rliable import library, metrics
    except (ImportError, TypeError) as error:  # its arch 7 needs a pandas before 3
        pytest.skip(f"rliable cannot be imported ({error}): pip install rliable 'pandas<3'")
    found = aggregates.aggregate(scores, resamples=4000)
    for key, theirs in (
        ("iqm", metrics.aggregate_iqm),
        ("mean", metrics.aggregate_mean),
        ("median", metrics.aggregate_median),
        ("optimality_gap", metrics.aggregate_optimality_gap),
    ):
        values, intervals = library.get_interval_estimates(
            scores, lambda x, f=theirs: np.array([f(x)]), reps=4000
        )
        for name in scores:
            assert found[name][key]["value"] == pytest.approx(float(values[name][0]))
            assert found[name][key]["ci"] == pytest.approx(intervals[name].ravel().tolist(), abs=0.02)
    expected = metrics.probability_of_improvement(scores["a"], scores["b"])
    assert aggregates.improvement(scores["a"], scores["b"]) == pytest.approx(expected)
    taus = np.linspace(-0.2, 1.2, 9)
    theirs, _ = library.create_performance_profile(scores, taus, reps=10)
    assert aggregates.above(scores["a"], taus) == pytest.approx(theirs["a"])


def test_aggregates_of_known_scores():
    values = np.array([[0.0, 0.2], [0.4, 0.6], [0.8, 1.2], [1.0, 3.0]])
    assert aggregates.iqm(values) == pytest.approx(np.mean([0.4, 0.6, 0.8, 1.0]))
    assert aggregates.optimality_gap(values) == pytest.approx(1 - (0 + 0.2 + 0.4 + 0.6 + 0.8 + 1 + 1 + 1) / 8)
    assert aggregates.task_median(values) == pytest.approx(np.median([0.55, 1.25]))
    assert aggregates.above(values, np.array([-1.0, 0.0, 0.6, 3.0])).tolist() == [1, 7 / 8, 4 / 8, 0]
    assert aggregates.improvement(values, values) == 0.5
    assert aggregates.improvement(values + 5, values) == 1


def test_resamples_draw_runs_within_their_task(scores):
    values = np.arange(12.0).reshape(3, 4)
    drawn = aggregates.resampled(values, np.random.default_rng(0), 50)
    assert drawn.shape == (50, 3, 4)
    assert (drawn % 4 == np.arange(4)).all()
    assert {tuple(one) for one in drawn[:, :, 0].astype(int) // 4} - {(0, 1, 2)}
    found = aggregates.aggregate(scores)
    for one in found.values():
        for estimate in one.values():
            assert estimate["ci"][0] <= estimate["value"] <= estimate["ci"][1]
    assert found == aggregates.aggregate(scores)
    assert aggregates.improvements(scores)["a > b"]["ci"][1] < 0.5


def test_the_command_goes_on_where_it_stopped(standard, tmp_path, capsys):
    players = [f"ppd_agents.benchmark.players:{name}" for name in ("Idle", "Random")]
    arguments = ("benchmark", "--algo", *players, "--seeds", 2, "--budget", 5, "--out", tmp_path / "out")
    assert command(*arguments) == 0
    result = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert result["seeds"] == [0, 1]
    assert set(result["results"]["short"]) == set(players)
    assert result["aggregates"][players[0]]["iqm"] == {"value": 0, "ci": [0, 0]}
    shown = capsys.readouterr().out
    assert board.board_table(result) in shown
    assert (tmp_path / "out" / "profiles.png").stat().st_size > 10_000
    kept = tmp_path / "out" / "ppd_agents.benchmark.players-Random" / "seed-1" / "run.json"
    before = kept.stat().st_mtime_ns
    assert command(*arguments, "--json", tmp_path / "again.json") == 0
    assert json.loads((tmp_path / "again.json").read_text()) == result
    assert kept.stat().st_mtime_ns == before
    assert command("validate", tmp_path / "out") == 0
    text = kept.read_text()
    kept.write_text(text.replace('"episodes": 3', '"episodes": 30'))
    assert command("validate", kept.parent) == 1


def test_tasks_without_harm_are_told():
    found = {"tasks": {task.name: {"score": float("nan")} for task in TINY.tasks}}
    with pytest.raises(PPDError, match="no score"):
        board.score_table({"a": [found]}, TINY)


def test_the_standard_tests_are_no_training_scenes():
    from ppd_env.config import EnvConfig

    training = EnvConfig().scenes
    assert all(
        task.make["scenes"].split("?")[0] != training.split("?")[0] for task in protocol.STANDARD.tasks
    )
    assert len({task.name for task in protocol.STANDARD.tasks}) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("benchmark", "--algo", "DQN"), "module:Class"),
        (("benchmark", "--algo", "stable_baselines3:DQN", "--seeds", "0"), "at least 1"),
        (("validate",), "or record one"),
        (("validate", "."), "holds no episode files"),
    ],
)
def test_mistakes_are_one_sentence(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    assert says in capsys.readouterr().err


def test_recording_at_the_command_line(tmp_path, capsys):
    world = ("--scenes", "tiny://", "--segmenter", "fake", "--features", "fake", "--grid", 6)
    path = tmp_path / "made" / "mine.json"
    assert command("validate", "--record", path, "--player", "random", *world) == 0
    assert command("validate", path, "--json", tmp_path / "verdicts.json") == 0
    assert "1 valid, 0 rejected" in capsys.readouterr().out
    path.write_text(path.read_text()[:-20])
    assert command("validate", path, "--json", tmp_path / "verdicts.json") == 1
    verdict = json.loads((tmp_path / "verdicts.json").read_text())[str(path)]
    assert not verdict["valid"]
    assert "cut short" in verdict["reason"]
