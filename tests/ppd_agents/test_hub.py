"""Exported agents: the folder, what its card says, how they come back, what the hub may refuse."""

import json
import sys

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalTokenNotFoundError, RepositoryNotFoundError

from ppd_agents import shipped
from ppd_agents.defender import Defender
from ppd_agents.dqn.agent import Agent, save_agent
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.hub import export_agents, push_to_hub
from ppd_agents.pipeline import agents_fingerprint
from ppd_agents.shipped import open_agent
from ppd_agents.training.presets import preset
from ppd_env.errors import PPDError
from ppd_env.features.registry import load_features

SCORE = {"mdsc": 61.5, "mdsc_ci": [60.0, 63.0], "miou": 50.0, "miou_ci": [49.0, 51.0], "n": 9, "per_seed": []}


@pytest.fixture
def trained(tmp_path):
    """The folder of a training with both agents, named settings and a seed."""
    config = preset("mini", seed=7, gamma=0.5, scenes="shapes://train?count=3").to_json()
    for role in ("attacker", "defender"):
        network = GraphQNetwork(QNetworkConfig(role=role, hidden=8), torch.Generator().manual_seed(1))
        notes = {"config": config, "rounds": 5}
        agent = Agent(network.eval(), "fake", load_features("fake").signature, 8, 10.0, notes=notes)
        save_agent(agent, tmp_path / "run" / "training" / role)
    return tmp_path / "run" / "training"


def measured(path, agents):
    results = {uri: {"6": {"defence.learned": SCORE, "attack.learned": SCORE}} for uri in ("a://", "b://")}
    config = {"agents": agents, "segmenter": "fake"}
    path.write_text(json.dumps({"command": "run", "seeds": [7], "results": results, "config": config}))
    return path


def pair(folder):
    return agents_fingerprint(*(open_agent(folder, role) for role in ("attacker", "defender")))


def test_a_pair_comes_back_as_it_was(trained, tmp_path):
    folder = export_agents(trained, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "attacker", "defender"]
    assert pair(folder) == pair(trained)
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    points, labels = [[10, 10], [30, 30], [40, 5]], [1, 1, 0]
    before, after = (Defender.load(place).refine(image, points, labels) for place in (trained, folder))
    assert [v.value for v in before.verdicts] == [v.value for v in after.verdicts]


def test_one_agent_alone(trained, tmp_path):
    folder = export_agents(trained / "defender", tmp_path / "out", title="Mine")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "agent.json", "agent.safetensors"]
    assert Defender.load(folder).agent.role == "defender"
    text = (folder / "README.md").read_text()
    assert "# Mine\n" in text
    assert "opponent=" not in text


def test_the_card_is_one_the_hub_reads(trained, tmp_path):
    measured(trained.parent / "metrics.json", pair(trained))
    folder = export_agents(trained, tmp_path / "out", licence="mit", repository="me/agents")
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "point-prompt-defender"
    assert "reinforcement-learning" in card.data.tags
    found = {(one.dataset_name, one.metric_name, one.metric_value) for one in card.data.eval_results}
    assert len(found) == len(card.data.eval_results) == 4
    assert ("a://, 6 attack actions", "mean Dice after the defence (%)", 61.5) in found


def test_the_card_says_what_made_the_weights_and_how_to_load_them(trained, tmp_path):
    measured(trained.parent / "metrics.json", pair(trained))
    folder = export_agents(trained, tmp_path / "out", repository="me/agents")
    text = (folder / "README.md").read_text()
    assert "`ppd train --preset mini --seed 7 --scenes 'shapes://train?count=3'`" in text
    assert "`gamma=0.5`" in text
    assert 'Defender.load("hf://me/agents")' in text
    assert "61.5 (60.0 to 63.0)" in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_scores_of_other_agents_are_refused(trained, tmp_path):
    path = measured(tmp_path / "other.json", "0123456789abcdef")
    with pytest.raises(PPDError, match="other agents"):
        export_agents(trained, tmp_path / "out", result=path)
    assert not (tmp_path / "out").exists()
    measured(trained.parent / "metrics.json", "0123456789abcdef")  # found, not named: left out
    text = (export_agents(trained, tmp_path / "out") / "README.md").read_text()
    assert "None were measured" in text


@pytest.mark.parametrize("content", ["", "[1]", '{"results": 3, "config": {}}', '{"results": {}}'])
def test_what_is_no_result_file_is_named(trained, tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(PPDError, match=r"x\.json: no result file"):
        export_agents(trained, tmp_path / "out", result=tmp_path / "x.json")


def test_an_earlier_export_is_replaced_and_nothing_else(trained, tmp_path):
    export_agents(trained, tmp_path / "out")
    export_agents(trained / "attacker", tmp_path / "out")
    assert not (tmp_path / "out" / "defender").exists()
    for other in (trained, trained.parent):
        with pytest.raises(PPDError, match="no exported agents"):
            export_agents(trained, other)


def test_agents_load_from_the_hub(trained, tmp_path, monkeypatch):
    asked = []
    folder = export_agents(trained, tmp_path / "out")

    def snapshot(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    agent = Defender.load("hf://me/agents@v1").agent
    assert agent.notes["rounds"] == 5
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("me/agents", "v1")
    assert not [p for p in patterns if p.endswith((".bin", ".pkl", ".pt", "*"))]


@pytest.mark.parametrize("features", ["os:getcwd", "segmenter:os:getcwd"])
def test_code_that_agents_from_the_hub_name_is_not_run(trained, tmp_path, monkeypatch, features):
    folder = export_agents(trained, tmp_path / "out")
    facts = folder / "defender" / "agent.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"features": features}))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(PPDError, match=f"features '{features}' name code, which is not run"):
        Defender.load("hf://me/agents")


def response(status):
    import httpx

    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/me/agents"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (lambda: GatedRepoError("gated", response=response(403)), "the weights are gated. Ask for access at"),
        (
            lambda: RepositoryNotFoundError("no", response=response(404)),
            "has no model 'me/agents' that you may see",
        ),
        (lambda: ConnectionError("no route to host"), "no route to host). With a network, run `hf download"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(monkeypatch, error, says):
    def refuse(*_, **__):
        raise error()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(PPDError) as told:
        open_agent("hf://me/agents", "defender")
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_addresses_are_checked_before_anything_is_asked(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    for address in ("hf://", "hf://me", "hf://me/agents/defender", "hf://me/agents@", "hf://../x"):
        with pytest.raises(PPDError, match="OWNER/NAME"):
            shipped.download(address)


def test_a_missing_package_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for work in (
        lambda: export_agents(trained, tmp_path / "out"),
        lambda: shipped.download("hf://me/agents"),
    ):
        with pytest.raises(PPDError, match="pip install huggingface_hub"):
            work()


def test_pushing_is_the_library_s_own_upload(trained, tmp_path, monkeypatch):
    done = []

    class Api:
        def create_repo(self, name, private, exist_ok):
            done.append(("create", name, private, exist_ok))
            return f"https://huggingface.co/{name}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            done.append(("upload", repo_id, folder_path))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    folder = export_agents(trained, tmp_path / "out")
    assert push_to_hub(folder, "me/agents", private=True) == "https://huggingface.co/me/agents"
    assert done == [("create", "me/agents", True, True), ("upload", "me/agents", folder)]


def test_pushing_without_a_login_says_what_to_do(tmp_path, monkeypatch):
    class Api:
        def create_repo(self, *_, **__):
            raise LocalTokenNotFoundError("Token is required, but no token found.")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(PPDError, match=r"cannot be uploaded .*Log in with `hf auth login`"):
        push_to_hub(tmp_path, "me/agents")
    with pytest.raises(PPDError, match="OWNER/NAME"):
        push_to_hub(tmp_path, "agents")


@pytest.mark.parametrize(
    "change",
    [
        {"network": [1]},
        {"network": {"role": "defender", "hidden": "wide"}},
        {"network": {"role": "defender", "hidden": -3}},
        {"network": {"role": "defender", "bins": 3}},
        {"network": {"role": "king"}},
        {"grid": "16"},
        {"grid": 0},
        {"features": 7},
        {"notes": 3},
        {"reward_scale": 0},
        {"least_gain": None},
        {"further_gain": "0"},
    ],
)
def test_agents_of_strangers_are_checked(trained, change):
    path = trained / "defender" / "agent.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PPDError, match=r"agent\.json"):
        open_agent(trained, "defender")


@pytest.mark.parametrize("content", [bytes(range(256)), b"", b"[" * 100_000, b"[1]"])
def test_what_is_no_agent_file_is_named(trained, content):
    (trained / "defender" / "agent.json").write_bytes(content)
    with pytest.raises(PPDError, match=r"agent\.json"):
        open_agent(trained, "defender")
