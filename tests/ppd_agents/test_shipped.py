"""The agents that ship with the package: small, usable as they are, and better than leaving prompts alone."""

import os
import time

import gymnasium as gym
import numpy as np
import pytest
import torch

import ppd_env  # noqa: F401
from ppd_agents.cleaning import clean_nodes
from ppd_agents.defender import Defender
from ppd_agents.dqn.agent import GreedyAgent
from ppd_agents.evaluation.one_shot import matching_statuses, reference_rows
from ppd_agents.evaluation.rollouts import generators, play
from ppd_agents.shipped import WEIGHTS, open_agent, shipped_names
from ppd_agents.training.presets import preset
from ppd_agents.training.starts import AttackRunner, draw_ideal
from ppd_env.features.registry import load_features
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

ROLES = ("attacker", "defender")
OPPONENT = "ppd_agents.defender:load_opponent?path=mini"


def test_they_are_small():
    assert shipped_names() == ["mini"]
    assert sum(file.stat().st_size for file in (WEIGHTS / "mini").rglob("*.*")) < 3e6


@pytest.mark.parametrize("role", ROLES)
def test_they_belong_to_the_features_and_the_preset_of_this_version(role):
    agent = open_agent("mini", role)
    assert agent.role == role
    assert agent.features_signature == load_features(agent.features).signature
    bystanders = dict.fromkeys(("progress", "checkpoint_every", "tensorboard"))
    assert agent.notes["config"] | bystanders == preset("mini").to_json() | bystanders
    assert agent.notes["config"]["seed"] == 0


def test_the_defender_repairs_what_attacks_break_and_leaves_clean_prompts_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path))
    bank = open_bank("shapes://val?count=32&seed=5", "mini", "mini", 16)
    simulator, rng = Simulator(bank, load_segmenter("mini")), np.random.default_rng(0)
    rows = torch.arange(len(bank))
    ideal = draw_ideal(bank, rows, "jittered", rng)
    policy = GreedyAgent(open_agent("mini", "defender"))

    def dice(status):
        return simulator.segment(rows, status).dice.mean().item()

    def defended(status, budget):
        rngs = generators(0, bank.indices, 0)
        played = play(simulator, rows, status, policy, attacking=False, budgets=(budget,), rngs=rngs)
        return dice(played[budget])

    for attacker, budget, least in (
        (open_agent("mini", "attacker"), 6, 0.7),
        (None, 6, 0.1),
        (None, 20, 0.25),
    ):
        attacked = AttackRunner(simulator).run(rows, ideal, budget, attacker, rng)
        assert defended(attacked, budget) > dice(attacked) + least * (dice(ideal) - dice(attacked))
    assert defended(ideal, 6) > dice(ideal) - 0.03


@pytest.mark.skipif(not os.environ.get("PPD_DATA"), reason="needs real images under $PPD_DATA")
@pytest.mark.parametrize("name", ["isic2018", "fss1000"])
def test_the_defender_mends_prompts_from_feature_matching(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path))
    bank = open_bank(f"folder://{os.environ['PPD_DATA']}/{name}", "mini", "mini", 16)
    simulator, rows = Simulator(bank, load_segmenter("mini")), torch.arange(len(bank))
    references = reference_rows(bank, generators(0, bank.indices, 0))
    status = matching_statuses(bank, references, lambda row: bank.raw(row).mask)
    defender = open_agent("mini", "defender")
    raw, as_attacked, matched = (
        simulator.segment(rows, prompts).dice.mean().item()
        for prompts in (
            status,
            clean_nodes(defender, simulator, rows, status),
            clean_nodes(defender.for_matched(), simulator, rows, status),
        )
    )
    assert matched > raw + 0.01
    assert matched > as_attacked


def square(side=64):
    image = np.zeros((side, side, 3), np.uint8)
    image[side // 4 : side - side // 4, side // 4 : side - side // 4] = 255
    return image


@pytest.fixture(scope="module")
def defender():
    return Defender.load("mini")


def test_images_of_any_size_and_shape_go_together(defender, rng):
    sizes = [(1, 1), (1, 300), (300, 1), (3, 2000), (3000, 4000), (64, 64)]
    images = [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]
    images += [square(), np.full((40, 40, 3), 90, np.uint8), square()[:, :, ::-1]]
    counts = [1, 2, 5, 9, 40, 25, 12, 30, 12]
    points = [rng.random((n, 2)) * i.shape[1::-1] for n, i in zip(counts, images, strict=True)]
    labels = [np.arange(n) % 2 for n in counts]
    together = defender.refine_batch(images, points, labels)
    for found, *one in zip(together, images, points, labels, strict=True):
        alone = defender.refine(*one)
        assert alone.kept.tolist() == found.kept.tolist()
        assert [v.step for v in alone.verdicts] == [v.step for v in found.verdicts]
        assert (found.labels == 1).any() == (one[2] == 1).any()


def test_two_thousand_points_take_seconds(defender, rng):
    points = rng.random((2000, 2)) * (640, 480)
    labels = (rng.random(2000) < 0.5).astype(int)
    image = rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)
    begun = time.process_time()
    found = defender.refine(image, points, labels)
    assert time.process_time() - begun < 10
    assert len(found.verdicts) == 2000


def test_the_attacker_is_an_opponent_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path))
    scenes = {"role": "defender", "scenes": "shapes://val?count=3&seed=5", "attack_steps": 4}
    drops = {}
    for opponent in ("random", OPPONENT):
        env = gym.make("PPD-v0", opponent=opponent, **scenes)
        infos = [env.reset(seed=seed)[1] for seed in range(6)]
        drops[opponent] = np.mean([info["ideal_dice"] - info["dice"] for info in infos])
        env.step(env.action_space.sample(infos[-1]["action_mask"]))
    assert drops[OPPONENT] > drops["random"] + 0.05


def test_a_folder_of_the_same_name_does_not_hide_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert open_agent("mini", "defender").role == "defender"
