import csv
import json
import sys

import numpy as np
import pytest
import torch
from tiny_training import tiny

from ppd_agents.dqn.agent import GreedyAgent, load_agent, save_agent
from ppd_agents.dqn.potentials import AttackLeft, GraphStatistics
from ppd_agents.training.adversarial import Alternation, train_adversarial
from ppd_agents.training.callbacks import open_wandb
from ppd_agents.training.presets import PRESETS, TrainConfig, preset
from ppd_agents.training.starts import AttackRunner, attack_round, draw_ideal, draw_scenes, rehearse
from ppd_env.errors import ConfigError, PPDError
from ppd_env.game_batch import GameBatch


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_training_beats_random_attacks_and_random_removals(tmp_path):
    config = tiny(
        rounds=8,
        games=8,
        steps=(5, 8),
        branches=8,
        gamma=0.0,
        gradient_steps=8,
        hidden=48,
        batch_size=128,
        dropout=0.0,
        clean_share=0.1,
        tau=0.5,  # fifty steps are too few for a long average
        target_update=1,
        least_gain=0.0,
        further_gain=0.0,
        rehearsals=32,
        final_updates=60,
        shaping=0.1,
    )
    result = train_adversarial(config, tmp_path)
    simulator = Alternation(config, tmp_path / "other").simulator
    bank, rng = simulator.bank, np.random.default_rng(5)
    rows = torch.arange(len(bank)).repeat(2)
    ideal = draw_ideal(bank, rows, "jittered", rng)
    runner = AttackRunner(simulator)
    dice = {
        name: simulator.segment(rows, runner.run(rows, ideal, 6, attacker, rng)).dice.mean().item()
        for name, attacker in (("learned", result.attacker), ("random", None))
    }
    dice["ideal"] = simulator.segment(rows, ideal).dice.mean().item()
    assert dice["learned"] < dice["random"] - 0.05 < dice["ideal"]
    attacked = runner.run(rows, ideal, 6, result.attacker, rng)
    defended = play(simulator, rows, attacked, GreedyAgent(result.defender), 6)
    assert defended > simulator.segment(rows, attacked).dice.mean().item() + 0.1


def play(simulator, rows, status, opponent, steps):
    games = GameBatch(simulator, len(rows))
    live = games.everyone()
    games.begin(live, rows, status, torch.full_like(rows, steps), torch.zeros(len(rows), dtype=torch.bool))
    while len(live):
        moved = games.step(opponent.act(games, live, []), live)
        live = live[~(moved.terminated | moved.truncated)]
    return games.dice.mean().item()


def test_history_and_logs_are_written(tmp_path):
    config = tiny(rounds=2)
    result = train_adversarial(config, tmp_path)
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [int(r["round"]) for r in rows] == [1, 2]
    assert float(rows[1]["attacker/dice_before"]) == pytest.approx(result.history[1]["attacker/dice_before"])
    for role in ("attacker", "defender"):
        logged = list(csv.DictReader((tmp_path / "logs" / role / "progress.csv").open()))
        assert len(logged) == 2
        assert float(logged[1]["round/return"]) == pytest.approx(result.history[1][f"{role}/return"])
        assert float(logged[1]["rollout/exploration_rate"]) == pytest.approx(0.1, abs=0.31)
    assert not (tmp_path / "wandb").exists()
    epsilons = [r["defender/epsilon"] for r in result.history]
    assert epsilons[0] > epsilons[1]


def test_tensorboard_files_are_written(tmp_path):
    train_adversarial(tiny(rounds=1, tensorboard=True), tmp_path)
    assert list((tmp_path / "logs" / "attacker").glob("events.out.tfevents.*"))


def test_wandb_is_not_even_imported_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert open_wandb("off", tmp_path, {}) is None
    with pytest.raises(ConfigError, match="pip install wandb"):
        open_wandb("offline", tmp_path, {})


def test_wandb_works_offline_and_only_when_asked(tmp_path, monkeypatch):
    import socket

    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    asked = []
    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a[0]) or original(*a, **k))
    train_adversarial(tiny(rounds=1, wandb="offline"), tmp_path)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (record,) = run.glob("*.wandb")
    assert b"attacker/round/return" in record.read_bytes()
    assert not [host for host in asked if host not in ("localhost", "127.0.0.1")]


def test_agents_come_back_as_they_were_saved(tmp_path, random_state):
    result = train_adversarial(tiny(rounds=1), tmp_path)
    agent = load_agent(tmp_path / "defender")
    state = random_state(dim=3)
    assert torch.equal(agent.values(state), result.defender.values(state))
    assert agent.features == "fake"
    assert agent.role == "defender"
    assert agent.notes["rounds"] == 1
    save_agent(agent, tmp_path / "defender")
    assert sorted(p.name for p in (tmp_path / "defender").iterdir()) == ["agent.json", "agent.safetensors"]


def test_broken_agents_are_told(tmp_path):
    train_adversarial(tiny(rounds=1), tmp_path)
    with pytest.raises(PPDError, match=r"agent\.json is missing"):
        load_agent(tmp_path / "nothing")
    facts = tmp_path / "attacker" / "agent.json"
    good = json.loads(facts.read_text())
    facts.write_text(json.dumps(good | {"network": good["network"] | {"hidden": 99}}))
    with pytest.raises(PPDError, match="does not fit"):
        load_agent(tmp_path / "attacker")
    facts.write_text(json.dumps({"format": "other"}))
    with pytest.raises(PPDError, match="format"):
        load_agent(tmp_path / "attacker")
    keep = tmp_path / "mine"
    keep.mkdir()
    (keep / "thesis.txt").write_text("precious")
    with pytest.raises(PPDError, match="no saved agent"):
        save_agent(load_agent(tmp_path / "defender"), keep)
    assert (keep / "thesis.txt").exists()


def test_the_greedy_attack_plays_what_the_games_would(small_simulator, tmp_path):
    agent = train_adversarial(tiny(rounds=1), tmp_path).attacker
    rng = np.random.default_rng(0)
    rows = torch.arange(6)
    ideal = draw_ideal(small_simulator.bank, rows, "jittered", rng)
    quick = AttackRunner(small_simulator).run(rows, ideal, 4, agent, rng)
    games = GameBatch(small_simulator, 6, allow_stop=False)
    everyone = games.everyone()
    games.begin(everyone, rows, ideal, torch.full((6,), 4), torch.ones(6, dtype=torch.bool))
    for _ in range(4):
        games.step(GreedyAgent(agent).act(games, everyone, []))
    assert torch.equal(quick, games.status)
    games.attacking[:] = False
    with pytest.raises(ConfigError, match="asked to play the defender"):
        GreedyAgent(agent).act(games, everyone, [])


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ((0.0, 1.0, 0.0), {0}),
        ((1.0, 0.0, 0.0), {5}),
        ((0.5, 0.5, 0.0), {0, 5}),
        ((1.0, 0.0, 1.0), {1, 2, 3, 4, 5}),
    ],
)
def test_the_defender_meets_mixed_starts(small_simulator, shares, wanted):
    rng = np.random.default_rng(1)
    rows = torch.arange(12).repeat(3)
    ideal = draw_ideal(small_simulator.bank, rows, "jittered", rng)
    runner = AttackRunner(small_simulator)
    status, lengths, learned = attack_round(runner, rows, ideal, 5, None, shares, rng)
    added = (status != ideal).sum(1)
    assert not learned.any()
    assert ((ideal == 0) | (status == ideal)).all()
    assert set(added.tolist()) == wanted
    assert torch.equal(lengths, added)


def test_no_scene_is_drawn_again_before_all_were_drawn():
    drawn = draw_scenes(10, 4, 6, np.random.default_rng(0))
    assert drawn.shape == (4, 6)
    for begin in (0, 10):
        assert sorted(drawn.flatten()[begin : begin + 10].tolist()) == list(range(10))


def test_the_exploratory_attack_is_thrown_away(tmp_path):
    shares = {"clean_share": 1.0, "random_attack_share": 0.0, "matching_share": 0.0}
    training = Alternation(tiny(rounds=1, **shares), tmp_path)
    training.run()
    began = {role: learner.starts.draw(4) for role, learner in training.learners.items()}
    assert torch.equal(began["defender"].rows, began["attacker"].rows)
    assert torch.equal(began["defender"].status, began["attacker"].status)
    longest = int(began["attacker"].steps[0])
    assert began["attacker"].steps.tolist() == [longest] * 4
    assert began["defender"].steps.tolist() == [longest] + [min(2, longest)] * 3
    assert not torch.equal(training.learners["attacker"].games.status, began["attacker"].status)


def test_what_is_kept_is_the_average_over_time_where_there_is_one(tmp_path):
    for tau, online in ((0.1, False), (1.0, True)):
        training = Alternation(tiny(rounds=1, tau=tau, target_update=50), tmp_path / str(tau))
        training.run()
        model = training.learners["defender"].model
        kept = training.agent("defender").network
        assert (kept is model.q_net.network) == online
        assert (kept is model.q_net_target.network) != online


def test_the_options_of_the_learner_reach_it(tmp_path):
    changes = {"n_step": 3, "prioritised": True, "dueling": True, "loss": "mse", "gamma": 0.9, "double": True}
    changes |= {"huber_delta": 0.5, "gradient_steps": 3}
    changes |= {"raw_features": True}
    config = tiny(**changes)
    training = Alternation(config, tmp_path)
    for role, learner in training.learners.items():
        model = learner.model
        dim = training.simulator.bank.features.shape[-1]
        assert model.network_config == config.network(role, dim)
        assert model.network_config.raw_features == dim
        assert model.network_config.dueling
        assert (model.n_step, model.replay_buffer.n_step, model.replay_buffer.gamma) == (3, 3, 0.9)
        assert model.replay_buffer.store.prioritised
        assert (model.loss.kind, model.loss.delta) == ("mse", 0.5)
        assert (model.double, model.gradient_steps) == (True, 3)
    plain = TrainConfig()
    assert (plain.dueling, plain.prioritised, plain.double) == (False, False, False)
    assert (plain.n_step, plain.loss, plain.huber_delta) == (1, "huber", 1.0)


def test_only_the_defender_is_rewarded_for_undoing_the_attack(tmp_path):
    learners = Alternation(tiny(rounds=1, shaping=0.5), tmp_path).learners
    assert learners["attacker"].env.potential is None
    assert learners["defender"].env.potential == AttackLeft(0.5)


def test_a_defender_may_learn_from_graph_statistics_alone(tmp_path):
    config = tiny(rounds=1, reward="graph-statistics", shaping=0.0)
    learners = Alternation(config, tmp_path).learners
    assert isinstance(learners["defender"].env.potential, GraphStatistics)
    assert learners["defender"].env.dice_weight == 0
    assert learners["attacker"].env.potential is None
    assert learners["attacker"].env.dice_weight == 1


def test_truthful_attacks_give_nodes_their_true_sign(small_simulator):
    rng = np.random.default_rng(1)
    rows = torch.arange(12)
    ideal = draw_ideal(small_simulator.bank, rows, "jittered", rng)
    status = AttackRunner(small_simulator, "truth").run(rows, ideal, 5, None, rng)
    truth = small_simulator.bank.truth[rows]
    assert ((status == 0) | ((status == 1) == truth)).all()


def test_presets_have_the_published_numbers():
    paper = PRESETS["ppd-arxiv"]
    assert (paper.grid, paper.steps, paper.rounds) == (40, (50, 300), 1000)
    assert (paper.learning_rate, paper.final_learning_rate, paper.batch_size) == (1e-4, 1e-4, 128)
    assert (paper.target_update, paper.epsilon) == (100, (1.0, 0.1))
    assert paper.segmenter == "sam:facebook/sam-vit-huge"
    assert paper.features.startswith("dinov2:")
    assert PRESETS["ppd-cvpr"].features.startswith("dinov3:")
    assert PRESETS["mini"] == TrainConfig()
    for published in (paper, PRESETS["ppd-cvpr"]):  # nothing of ours on top of Algorithm 1
        ours = ("branches", "shaping", "rehearsals", "final_updates", "final_rehearsals", "opponent_pool")
        ours += ("random_attack_share", "clean_share", "partial_share", "noise_share", "matching_share")
        ours += ("messages", "dropout", "weight_decay", "least_gain", "further_gain", "initial_mask")
        ours += ("double", "dueling", "landmarks")
        assert not any(getattr(published, name) for name in ours)
        assert (published.members, published.tau, published.gradient_steps, published.n_step) == (
            1,
            1.0,
            1,
            1,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "epochs"),
        ({"steps": [5, 2]}, "steps"),
        ({"games": 0}, "games"),
        ({"layout": "spiral"}, "layout"),
        ({"wandb": "yes"}, "wandb"),
        ({"clean_share": 0.9, "random_attack_share": 0.2}, "above 1"),
        ({"gamma": 1.5}, "gamma"),
        ({"tau": 0.0}, "tau"),
        ({"least_gain": -0.1}, "least_gain"),
        ({"further_gain": float("inf")}, "further_gain"),
        ({"shaping": -0.1}, "shaping"),
        ({"label_mode": "truth"}, "rehearsals"),
        ({"prompts_per_step": 2}, "rehearsals"),
        ({"n_step": 0}, "n_step"),
        ({"loss": "l1"}, "loss"),
        ({"huber_delta": 0.0}, "huber_delta"),
        ({"reward": "applause"}, "reward"),
        ({"reward": "graph-statistics"}, "shaping"),
        ({"games": "a"}, "games must be a finite int"),
        ({"members": 2.5}, "members"),
        ({"least_gain": float("nan")}, "least_gain"),
        ({"steps": [3]}, "steps must be 2 numbers"),
        ({"epsilon": (0.1, 0.5)}, "epsilon must fall"),
        ({"epsilon": (1.0, 0.1, 0.2)}, "epsilon"),
        ({"reward_scale": 0.0}, "reward_scale"),
        ({"seed": -1}, "seed"),
        ({"grid": 0}, "grid"),
        ({"progress": 1}, "progress"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        preset("mini", **changes)
    with pytest.raises(ConfigError, match="maxi"):
        preset("maxi")


def test_rehearsals_take_free_nodes_of_the_pool(small_simulator, tmp_path):
    bank = small_simulator.bank
    attacker = Alternation(tiny(grid=bank.grid), tmp_path).agent("attacker")
    rows = torch.arange(3)
    ideal = draw_ideal(bank, rows, "jittered", np.random.default_rng(0))
    drawn = [
        rehearse(bank, rows, ideal, 6, attacker, None, pool, np.random.default_rng(1)) for pool in (4, 4, 999)
    ]
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
    for actions in drawn:
        nodes = actions % ideal.shape[1]
        for row in range(3):
            played = nodes[row][actions[row] >= 0]
            assert len(played.unique()) == len(played)
            assert (ideal[row][played] == 0).all()
    greedy = AttackRunner(small_simulator).run(rows, ideal, 6, attacker, np.random.default_rng(2))
    best = ideal.clone()
    signs = torch.where(drawn[2] < ideal.shape[1], 1, 2).to(torch.int8)
    assert best.scatter(1, drawn[2] % ideal.shape[1], signs).equal(greedy)


def test_a_defender_without_suspicion_goes_by_the_sign_of_its_values():
    careful, plain = preset("mini", least_gain=0.2, further_gain=-0.1), preset("mini", rehearsals=0)
    assert careful.gains("defender") == (0.2, -0.1)
    assert careful.gains("attacker") == plain.gains("defender") == (0.0, 0.0)


def test_rehearsals_replace_shaping_by_suspicion(tmp_path):
    with pytest.raises(ConfigError, match="shaping"):
        tiny(rehearsals=4, shaping=0.0)
    training = Alternation(tiny(rehearsals=4, shaping=0.2, rounds=1), tmp_path)
    learner = training.learners["defender"]
    assert learner.env.potential is None
    assert learner.model.network_config.suspicion == 0.2
    assert training.learners["attacker"].model.attacks is None
    deployed = training.agent("defender").network
    assert deployed.config.suspicion == preset("mini").final_shaping
    assert all(
        a is b
        for a, b in zip(deployed.parameters(), learner.model.q_net_target.network.parameters(), strict=True)
    )
    with pytest.raises(ConfigError, match="final_shaping"):
        tiny(rehearsals=4, final_shaping=0.0)
    training.run()
    assert training.attacks.count == 4  # those after the round: the others are forgotten
    attacked = training.attacks.sample(96, learner.model.rng)
    losses = [loss() for loss in learner.model.suspicion_losses(attacked)]
    assert sum(losses).item() > 0
    assert all(loss.requires_grad for loss in losses)
