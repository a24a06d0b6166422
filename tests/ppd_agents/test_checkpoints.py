import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import tiny

import ppd_agents
from ppd_agents.dqn.agent import load_agent
from ppd_agents.locking import sole_user
from ppd_agents.training import adversarial
from ppd_agents.training.adversarial import Alternation, train_adversarial
from ppd_agents.training.best import CRITERION
from ppd_agents.training.checkpoints import (
    Checkpoint,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    sealed,
)
from ppd_env.errors import PPDError

ROLES = ("attacker", "defender")
ROUNDS = 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def short(**changes):
    return tiny(**{"rounds": ROUNDS, "checkpoint_every": 1, "keep": 2, "final_updates": 0} | changes)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        train_adversarial(short(), folder / "run")
        train_adversarial(short(seed=5), folder / "foreign")
    return folder


@pytest.fixture
def trained(trained_once, tmp_path):
    shutil.copytree(trained_once / "run", tmp_path / "run")
    return tmp_path / "run", list_checkpoints(tmp_path / "run" / "checkpoints")


def assert_same_training(one, other):
    """Compare the newest checkpoints of two folders and their agents, bit for bit, apart from seconds."""
    found = [load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]) for folder in (one, other)]
    for checkpoint in found:
        for record in checkpoint.facts["history"]:
            assert record.pop("seconds") > 0
    assert found[0].facts == found[1].facts
    assert (found[0].round, found[0].score) == (found[1].round, found[1].score)
    assert set(found[0].tensors) == set(found[1].tensors)
    for name, tensor in found[0].tensors.items():
        assert torch.equal(tensor, found[1].tensors[name]), name
    for place in (*ROLES, *(f"best/{role}" for role in ROLES)):
        for file in ("agent.json", "agent.safetensors"):
            assert (one / place / file).read_bytes() == (other / place / file).read_bytes(), place


class Interrupted(Exception):  # noqa: N818
    pass


OPTIONS = {
    "initial_mask": True,
    "opponent_pool": 2,
    "n_step": 3,
    "prioritised": True,
    "dueling": True,
    "loss": "mse",
    "double": True,
    "gradient_steps": 1,
}
"""Everything that adds to what a checkpoint must hold."""


@pytest.mark.parametrize("more", [{"rehearsals": 4}, {"feedback": "both"}], ids=["rehearsals", "feedback"])
def test_an_interrupted_training_ends_bit_equal(tmp_path, more):
    config = tiny(**OPTIONS | more)
    torch.manual_seed(0)
    train_adversarial(config, tmp_path / "whole")

    def interrupt(record):
        if record["round"] == 3:
            raise Interrupted

    torch.manual_seed(0)
    with pytest.raises(Interrupted):
        train_adversarial(config, tmp_path / "parts", on_round=interrupt)
    torch.manual_seed(99)  # another process would start elsewhere
    train_adversarial(config, tmp_path / "parts", resume=True)
    assert_same_training(tmp_path / "whole", tmp_path / "parts")


def test_another_seed_trains_other_agents(trained_once):
    first, second = (load_agent(trained_once / run / "attacker").network for run in ("run", "foreign"))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 6, "games": 3, "steps": (2, 3), "branches": 1, "gradient_steps": 1}
        | {"rehearsals": 3, "initial_mask": True},
        pytest.param(
            {"rounds": 12, "games": 8, "segmenter": "mini", "features": "mini", "feedback": "both"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["fake", "mini"],
)
def test_a_training_killed_at_any_moment_ends_bit_equal(tmp_path, changes):
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(tiny(checkpoint_every=1, **changes).to_json()))
    script = Path(__file__).with_name("killed_training.py")
    known = {"PYTHONPATH": str(Path(ppd_agents.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    training = [sys.executable, script, settings, tmp_path, "7"]
    done = subprocess.run(training, env=os.environ | known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    assert_same_training(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "killed").rglob(".*.tmp"))
    assert not list((tmp_path / "killed").rglob(".*.old"))


def test_checkpoints_hold_everything_that_changes(trained):
    folder, found = trained
    checkpoint = load_checkpoint(found[-1])
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    fresh = Alternation(short(), folder)
    fresh.restore(checkpoint)
    again = load_checkpoint(fresh.save())
    assert again.facts == checkpoint.facts
    assert set(again.tensors) == set(checkpoint.tensors)
    assert all(torch.equal(again.tensors[name], t) for name, t in checkpoint.tensors.items())
    parts = checkpoint.facts["parts"]
    assert set(parts) == {"attacks", "rng", "global", *ROLES, "attacker.games", "defender.games"}
    for role in ROLES:
        assert parts[role]["num_timesteps"] == sum(fresh.lengths) * fresh.config.games
        assert parts[role]["epsilon_done"] == sum(fresh.lengths)
        kinds = {n.split("/")[1].split(".")[0] for n in checkpoint.tensors if n.startswith(f"{role}/")}
        assert kinds == {"online", "target", "optimiser", "replay"}
        assert fresh.learners[role].games.dice.count_nonzero()


def test_nothing_is_pickled(trained):
    folder, _ = trained
    kinds = {p.suffix for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    assert kinds == {".json", ".safetensors", ".csv"}


class Pool:
    """A part as somebody might add one: tensors and facts that grow."""

    def __init__(self):
        self.members = []

    def state(self):
        return {str(k): m for k, m in enumerate(self.members)}, {"count": len(self.members)}

    def restore(self, tensors, facts):
        self.members = [tensors[str(k)] for k in range(facts["count"])]


def test_a_further_part_is_kept_and_never_forgotten(tmp_path):
    training, again = Alternation(short(), tmp_path), Alternation(short(), tmp_path)
    training.parts["pool"] = pool = Pool()
    pool.members = [torch.arange(3), torch.ones(2, 2)]
    checkpoint = load_checkpoint(training.save())
    again.parts["pool"] = Pool()
    again.restore(checkpoint)
    assert all(map(torch.equal, again.parts["pool"].members, pool.members))
    with pytest.raises(PPDError, match=r"other parts than this training \(pool\)"):
        Alternation(short(), tmp_path).restore(checkpoint)


@pytest.mark.parametrize(
    ("scores", "best", "staying"),
    [
        ([None, None, None], 3, [2, 3]),
        ([None, 0.5, 0.2, 0.1, None], 2, [2, 4, 5]),
        ([0.1, -0.5, 0.1, -0.2], 3, [3, 4]),
        ([-0.2, None, -0.5, -0.4], 1, [1, 3, 4]),
    ],
)
def test_the_last_checkpoints_and_the_best_stay(tmp_path, scores, best, staying):
    (tmp_path / ".checkpoint-000000.old").mkdir()  # of a process killed in the middle of a removal
    for number, given in enumerate(scores, start=1):
        save_checkpoint(tmp_path, Checkpoint(number, {"x": torch.zeros(1)}, {}, given), keep=2)
    assert [load_checkpoint(path).round for path in list_checkpoints(tmp_path)] == staying
    assert load_checkpoint(best_checkpoint(tmp_path)).round == best
    assert not list(tmp_path.glob(".*"))
    manifest = json.loads((best_checkpoint(tmp_path) / "manifest.json").read_text())
    assert manifest["criterion"] == CRITERION


def test_the_best_agents_are_saved_beside_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(adversarial, "score", lambda history: {2: 0.9}.get(len(history), 0.1))
    result = train_adversarial(tiny(rounds=5, checkpoint_every=1, keep=1), tmp_path)
    best = load_checkpoint(best_checkpoint(tmp_path / "checkpoints"))
    assert (best.round, len(list_checkpoints(tmp_path / "checkpoints"))) == (2, 2)
    for role in ROLES:
        kept, last = load_agent(tmp_path / "best" / role), getattr(result, role)
        assert (kept.notes["rounds"], last.notes["rounds"]) == (2, 5)
        assert (kept.notes["score"], kept.notes["criterion"]) == (0.9, CRITERION)
        for name, tensor in kept.network.state_dict().items():
            assert torch.equal(tensor, best.tensors[f"{role}/target.network.{name}"]), name
        newest = load_agent(tmp_path / role).network.state_dict()
        assert all(torch.equal(tensor, newest[name]) for name, tensor in last.network.state_dict().items())


def cut(path):
    tensors = path / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])


def without_tensors(path):
    (path / "tensors.safetensors").unlink()


def written(text):
    return lambda path: (path / "manifest.json").write_text(text)


def altered(**changes):
    def damage(path):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(sealed(manifest | changes)))

    return damage


def edited(name, value):
    """Change one thing by hand."""

    def damage(path):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | {name: value}))

    return damage


def altered_facts(**changes):
    def damage(path):
        facts = json.loads((path / "manifest.json").read_text())["facts"]
        altered(facts=facts | changes)(path)

    return damage


DAMAGES = [
    (cut, r"tensors\.safetensors is cut short"),
    (without_tensors, r"tensors\.safetensors cannot be read"),
    (written('{"format": "ppd-che'), r"manifest\.json is missing or damaged"),
    (written('{"format": "other"}'), "no checkpoint of the format"),
    (written("[" * 100_000), r"manifest\.json is missing or damaged"),
    (edited("round", 2), r"manifest\.json was changed after it was written"),
    (edited("facts", {}), r"manifest\.json was changed after it was written"),
    (altered(round=2), "is the checkpoint of round 2: give it back its name"),
    (altered(facts={}), r"damaged \(KeyError\('config'\)\)"),
    (altered_facts(history=None), "damaged"),
    (altered_facts(parts=[]), "damaged"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_damage_is_told_and_the_newest_good_checkpoint_offered(trained, damage, reason):
    folder, found = trained
    damage(found[-1])
    with pytest.raises(PPDError, match=reason) as told:
        train_adversarial(short(), folder, resume=True)
    for part in (found[-1].name, "newest good one is checkpoint-000002", "--skip-damaged"):
        assert part in str(told.value)
    assert list_checkpoints(folder / "checkpoints") == found


def test_copies_under_other_names_are_no_checkpoints(trained):
    folder, found = trained
    (folder / "checkpoints" / "checkpoint-new").mkdir()
    copy = shutil.copytree(found[-2], folder / "checkpoints" / f"{found[-2].name} copy")
    train_adversarial(short(), folder, resume=True)
    assert list_checkpoints(folder / "checkpoints") == found
    assert copy.is_dir()


def test_a_damaged_checkpoint_is_set_aside_and_played_again(trained, trained_once):
    folder, found = trained
    for name in ("damaged-checkpoint-000003", "damaged-checkpoint-000003-2"):
        cut(found[-1])
        left = (found[-1] / "tensors.safetensors").read_bytes()
        train_adversarial(short(), folder, resume=True, skip_damaged=True)
        assert (folder / "checkpoints" / name / "tensors.safetensors").read_bytes() == left
        assert list_checkpoints(folder / "checkpoints") == found
        assert_same_training(folder, trained_once / "run")


def test_what_a_damaged_checkpoint_left_in_memory_changes_nothing(trained, trained_once):
    """Damage behind the replay, which is taken up before it is found."""
    folder, found = trained
    facts = json.loads((found[-1] / "manifest.json").read_text())["facts"]
    facts["parts"]["defender"]["rng"] = {}
    altered(facts=facts)(found[-1])
    train_adversarial(short(), folder, resume=True, skip_damaged=True)
    assert_same_training(folder, trained_once / "run")


def test_an_intact_checkpoint_is_never_skipped(trained):
    folder, found = trained
    before = [(path / "manifest.json").stat().st_mtime_ns for path in found]
    train_adversarial(short(), folder, resume=True, skip_damaged=True)
    assert [(path / "manifest.json").stat().st_mtime_ns for path in found] == before
    assert not list((folder / "checkpoints").glob("damaged-*"))


@pytest.mark.parametrize("skip_damaged", [True, False])
def test_without_a_good_checkpoint_nothing_is_touched(trained, skip_damaged):
    folder, found = trained
    for path in found:
        cut(path)
    with pytest.raises(PPDError, match=r"checkpoint-000003: .*checkpoint-000002: .*train into another"):
        train_adversarial(short(), folder, resume=True, skip_damaged=skip_damaged)
    assert list_checkpoints(folder / "checkpoints") == found


@pytest.mark.parametrize(
    ("changes", "named"), [({"seed": 5}, "seed"), ({"hidden": 20}, "hidden"), ({"rounds": 5}, "rounds")]
)
def test_another_training_is_not_resumed(trained, changes, named):
    folder, found = trained
    with pytest.raises(PPDError, match=f"another training: option {named}") as told:
        train_adversarial(short(**changes), folder, resume=True, skip_damaged=True)
    assert str(told.value).count("another training") == 1  # though both are of another one
    assert list_checkpoints(folder / "checkpoints") == found


def test_each_reason_is_told_once_where_no_checkpoint_can_be_used(trained):
    folder, found = trained
    cut(found[-1])
    with pytest.raises(PPDError) as told:
        train_adversarial(short(seed=5), folder, resume=True, skip_damaged=True)
    for part in (f"{found[-1].name}: ", "is cut short", f"{found[-2].name}: ", "option seed is 0 there"):
        assert str(told.value).count(part) == 1


def test_a_foreign_checkpoint_is_told_and_can_be_skipped(trained, trained_once):
    folder, found = trained
    shutil.rmtree(found[-1])
    shutil.copytree(trained_once / "foreign" / "checkpoints" / found[-1].name, found[-1])
    with pytest.raises(PPDError, match=r"option seed is 5 there and 0 here.*good one is checkpoint-000002"):
        train_adversarial(short(), folder, resume=True)
    train_adversarial(short(), folder, resume=True, skip_damaged=True)
    assert_same_training(folder, trained_once / "run")


def test_an_earlier_training_is_not_overwritten(trained):
    folder, found = trained
    with pytest.raises(PPDError, match="earlier training"):
        train_adversarial(short(), folder)
    assert list_checkpoints(folder / "checkpoints") == found


def test_resuming_an_empty_folder_starts_from_the_beginning(tmp_path):
    assert len(train_adversarial(tiny(rounds=1), tmp_path, resume=True).history) == 1


def test_two_trainings_never_share_a_folder(tmp_path):
    with sole_user(tmp_path), pytest.raises(PPDError, match="Another process is at work"):
        train_adversarial(tiny(rounds=1), tmp_path)
